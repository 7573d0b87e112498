"""AutoLink here and AutoLink's official code, with the same weights on the same images.

  python -m benchmarks.autolink_parity --official=FOLDER --torch_python=PYTHON

FOLDER is a copy of the authors' repository and PYTHON an interpreter with torch and
numpy (`benchmarks/autolink_official.py`). Their modules with random weights, biases and
statistics compute keypoints, edge map, masked image, reconstruction, loss and its
gradient; the same weights are carried over into our network, which does the same, given
their mask. Written are the largest differences: of each part, given what theirs was
given, and of the whole from image to loss, where rounding in one part grows in the
next; so there also both are held against their code in float64. Positions are compared
in their units.
"""

import argparse
import functools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import files
from img2graph import geometry
from img2graph.losses import perceptual
from img2graph.methods import autolink
from img2graph.training import record

OUTPUT = pathlib.Path('results/autolink/parity.json')
# Published settings: of faces, and thin lines of people between more keypoints; weights
# of links and maps as they start, and as training makes them.
CASES = {
  'celeba_wild, at the start': dict(n_parts=8, thick=2.5e-3, trained=False),
  'celeba_wild': dict(n_parts=8, thick=2.5e-3, trained=True),
  'taichi, 16 keypoints': dict(n_parts=16, thick=5e-4, trained=True),
}
SHARED = dict(missing=0.8, block=16, sklr=512.0, batch=4, seed=0)

_BLOCK = {'0': 'conv0', '2': 'norm0', '4': 'conv1', '5': 'norm1'}
_SHORTCUT = {'0': 'shortcut_conv', '2': 'shortcut_norm'}
_UP = {'1': '0_conv', '2': '0_norm', '4': '1_conv', '5': '1_norm'}
_DOWN = {'0': '0_conv', '1': '0_norm', '3': '1_conv', '4': '1_norm'}
# Of a layer's name there the name here.
_CONV_NORM = {'1': 'conv', '2': 'norm'}
_RULES = (
  (r'encoder\.detector\.conv\.([0-3])\.net\.(\d)', 'detector/down{}/{}', 0, _BLOCK),
  (
    r'encoder\.detector\.conv\.([0-3])\.conv_res\.(\d)',
    'detector/down{}/{}',
    0,
    _SHORTCUT,
  ),
  (r'encoder\.detector\.conv\.([45])\.net\.(\d)', 'detector/up{}_{}', -4, _CONV_NORM),
  (r'encoder\.detector\.conv\.(6)()', 'detector/maps', 0, {'': ''}),
  (r'decoder\.down(0)\.(0)', 'inpainter/first', 0, {'0': ''}),
  (r'decoder\.down([1-4])\.net\.(\d)', 'inpainter/down{}_{}', -1, _DOWN),
  (r'decoder\.up([1-4])\.net\.(\d)', 'inpainter/up{}_{}', -1, _UP),
  (r'decoder\.conv()()', 'inpainter/last', 0, {'': ''}),
)
_STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}


def convert(state):
  """The official code's parameters or gradients as ours.

  Args:
    state: `{name: array}`, such as a state dict's.

  Returns:
    `{place: array}`, such as 'params/detector/maps/kernel'.
  """
  ours = {}
  for name, array in state.items():
    layer, _, part = name.rpartition('.')
    if name == 'decoder.alpha':
      ours['params/alpha'] = array
    elif name == 'decoder.skeleton_scalar':
      ours['params/edges'] = geometry.matrix_to_pairs(array)
    elif part not in ('coord', 'num_batches_tracked'):
      place = _place(layer)
      if part in _STATISTICS:
        ours[f'batch_stats/{place}/{_STATISTICS[part]}'] = array
      elif array.ndim == 4:
        ours[f'params/{place}/kernel'] = array.transpose(2, 3, 1, 0)
      else:
        is_scale = part == 'weight'
        ours[f'params/{place}/{"scale" if is_scale else "bias"}'] = array
  return ours


def _place(layer):
  for pattern, place, shift, names in _RULES:
    found = re.fullmatch(pattern, layer)
    if found:
      number, inner = found.groups()
      return place.format(int(number or 0) + shift, names[inner])
  raise ValueError(f'there is no layer for {layer}.')


def nest(arrays):
  """`{'a/b': array}` as `{'a': {'b': array}}`."""
  nested = {}
  for name, array in arrays.items():
    *folders, last = name.split('/')
    place = nested
    for folder in folders:
      place = place.setdefault(folder, {})
    place[last] = jnp.asarray(array)
  return nested


def flatten(tree):
  """The inverse of `nest`, in numpy."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(p, simple=True, separator='/'): np.asarray(x)
    for p, x in leaves
  }


def build_model(*, n_parts, thick, sklr, **_):
  """Our network of the official code's hyperparameters."""
  return autolink.build_model(
    precision='float32',
    num_keypoints=n_parts,
    side=128,
    grid='corners',
    detector=dict(down=(64, 128, 256, 512), up=(256, 128)),
    edges=dict(rate=sklr, start=-4.0),
    renderer=dict(sigma_sq=thick),
    inpainter=dict(features=(64, 128, 256, 512, 512), learn_alpha=True),
  )


def compare(case, arrays, vgg):
  """The largest differences of a case.

  Args:
    case: hyperparameters.
    arrays: what the official code computed.
    vgg: params of the perceptual loss.

  Returns:
    {'each part': of one part alone, given what theirs was given; 'whole': from image to
    loss, 'ours' to theirs in float32, and both to theirs in float64}.
  """

  def under(prefix):
    return {n: _channels_last(a) for n, a in _strip(arrays, prefix).items()}

  model = build_model(**case)
  variables = nest(convert(_strip(arrays, 'state/')))
  images = (_channels_last(arrays['images']) + 1) / 2

  @functools.partial(jax.jit, static_argnums=2)
  @functools.partial(jax.value_and_grad, has_aux=True)
  def see(params, keep, train):
    given = variables | {'params': params}
    mutable = ['batch_stats'] if train else []
    (found, edge_map, restored), changed = model.apply(
      given, images, keep, train, mutable=mutable
    )
    value = perceptual.perceptual_loss(vgg, restored, images)
    return value, (
      {
        # (row, column), from pixel centre to pixel centre.
        'keypoints': found.nodes[..., ::-1] * (128 / 127),
        'masked': (2 * images - 1) * keep,
        'edge_map': edge_map,
        'reconstruction': 2 * restored - 1,
        'loss': value,
      },
      changed,
    )

  parts, whole = {}, {}
  for mode in ('eval', 'train'):
    wanted, exact = (under(f'{mode} {bits}/') for bits in (32, 64))
    # A hidden pixel is 0 in all its channels.
    keep = (np.abs(wanted['masked']).max(-1, keepdims=True) > 0).astype(np.float32)
    (_, (made, changed)), gradient = see(variables['params'], keep, mode == 'train')
    for name, array in wanted.items():
      whole[f'{mode} {name}'] = _three(made[name], array, exact[name], largest)
    found = _parts(model, variables, vgg, images, wanted, mode)
    # Of the image itself, as both are given it.
    found |= {n: largest(made[n], wanted[n]) for n in ('keypoints', 'masked')}
    parts |= {f'{mode} {n}': d for n, d in found.items()}

  theirs, exact = (convert(_strip(arrays, f'gradient {b}/')) for b in (32, 64))
  ours = {f'params/{n}': a for n, a in flatten(gradient).items()}
  assert ours.keys() == theirs.keys()
  # Batch normalisation takes biases away: what is left of their gradients is rounding.
  true = [n for n in exact if not re.search(r'conv\d?/bias', n)]

  def relative(a, b):
    return float(
      np.median([np.linalg.norm(a[n] - b[n]) / np.linalg.norm(b[n]) for n in true])
    )

  whole['gradient, relative to its array, median'] = _three(
    ours, theirs, exact, relative
  )
  theirs, exact = (convert(_strip(arrays, f'after {b}/')) for b in (32, 64))
  ours = {f'batch_stats/{n}': a for n, a in flatten(changed['batch_stats']).items()}
  means = [n for n in exact if n.endswith('mean')]
  whole['running means after a step'] = _three(
    *(np.concatenate([a[n] for n in means]) for a in (ours, theirs, exact)), largest
  )
  return {'each part': parts, 'whole': whole}


def _parts(model, variables, vgg, images, theirs, mode):
  """Largest differences of each part, given what theirs was given."""
  nodes = theirs['keypoints'][..., ::-1] * (127 / 128)
  weights = jax.nn.softplus(model.rate * variables['params']['edges'])
  found = autolink.Found(
    jnp.asarray(nodes),
    jnp.broadcast_to(weights[None], (len(nodes), weights.size)),
    jnp.ones(nodes.shape[:2]),
  )
  draw = jax.jit(lambda found: model.apply(variables, found, 128, method='draw'))
  inner = {n: v['inpainter'] for n, v in variables.items()}
  seen = [variables['params']['alpha'] * theirs['masked'], theirs['edge_map']]
  train = mode == 'train'

  @jax.jit
  def restore(seen):
    mutable = ['batch_stats'] if train else []
    return model.inpainter.apply(inner, seen, train=train, mutable=mutable)[0]

  loss = jax.jit(functools.partial(perceptual.perceptual_loss, vgg))
  made = {
    'edge_map': draw(found),
    'reconstruction': restore(jnp.concatenate(seen, axis=-1)),
    'loss': loss((theirs['reconstruction'] + 1) / 2, images),
  }
  return {name: largest(a, theirs[name]) for name, a in made.items()}


def largest(a, b):
  """The largest absolute difference of two arrays."""
  return float(np.abs(np.asarray(a) - b).max())


def _three(ours, theirs, exact, measure):
  return {
    'ours to theirs': measure(ours, theirs),
    'ours to float64': measure(ours, exact),
    'theirs to float64': measure(theirs, exact),
  }


def _strip(arrays, prefix):
  return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _channels_last(array):
  return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def main(argv=None):
  """Runs all cases and writes the differences; 1 if one of a part is above 1e-4."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--official', required=True, help="the authors' repository")
  parser.add_argument('--torch_python', required=True, help='interpreter with torch')
  parser.add_argument('--output', type=pathlib.Path, default=OUTPUT)
  arguments = parser.parse_args(argv)
  script = pathlib.Path(__file__).with_name('autolink_official.py')
  results = {}
  for name, case in CASES.items():
    case = SHARED | case
    with tempfile.TemporaryDirectory() as folder:
      folder = pathlib.Path(folder)
      (folder / 'case.json').write_text(json.dumps(case))
      subprocess.run(
        [
          arguments.torch_python,
          script,
          arguments.official,
          folder,
          folder / 'case.json',
        ],
        check=True,
      )
      arrays = dict(np.load(folder / 'arrays.npz'))
      torch = str(arrays.pop('torch'))
      vgg = perceptual.load(folder / 'vgg16.pth')
    results[name] = {'case': case, **compare(case, arrays, vgg)}
    print(json.dumps(results[name], indent=2))
  worst = max(d for r in results.values() for d in r['each part'].values())
  document = {
    'cases': results,
    'worst of a part': worst,
    'torch': torch,
    'code': record.code(),
    'versions': record.versions(),
  }
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(document, indent=2) + '\n'
  files.write_atomically(arguments.output, text.encode())
  return int(worst > 1e-4)


if __name__ == '__main__':
  sys.exit(main())
