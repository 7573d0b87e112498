"""AutoLink here and AutoLink's official code, trained on the same photographs.

  python -m benchmarks.autolink_training --archive=FILE.npz --official=FOLDER \\
      --torch_python=PYTHON --steps=400 --output=FILE

The archive is one with points (`data/photo_archive.py`); the config is
configs/autolink.py:tuned,AT, AT cpu (with --vgg cpu_vgg) or gpu. Both train on the same
images for the same number of steps, with the same batch size and loss, one after the
other in this one run: with --vgg, VGG16's weights, the paper's loss, else the fallback
with the same random features (not with --at=gpu). A regression from keypoints to points
is fitted on the part 'fit' and judged on the part 'test'. Written are the errors with
and without a bias (`metrics/keypoints.py`), in percent of the archive's scale, beside
those of keypoints at random fixed places, and seconds per step (the median of theirs,
the mean of ours after compilation).

An archive without points, of some classes of its own by --classes, is judged by what
the method is trained for: the mean difference of the pixels that were hidden from those
restored, in percent of white, of up to 500 photographs of the part 'test' with the same
patches hidden from both; with their own graphs, and with those of other photographs.
With --fixed our network is trained once more with keypoints at random fixed places,
which tell nothing of a photograph.

Theirs learns at their constant rate, 1e-4, or at --official_lr, on
a GPU in float16 as they do; ours as the config says, of cpu at ten times that rate and
a cosine. --overrides='{"data.turn": 20}' changes ours alone further.
"""

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from configs import autolink
from img2graph import data
from img2graph import evaluation
from img2graph import files
from img2graph import keypoint_evaluation
from img2graph import weights
from img2graph.encoding import masking
from img2graph.losses import perceptual
from img2graph.methods import autolink as autolink_method
from img2graph.metrics import keypoints
from img2graph.training import loop
from img2graph.training import record
from launch import cells

PROTOCOLS = ('mean_error', 'biased_error')
_RESTORED = 500  # Photographs of which hidden pixels are compared.
_TRUTH = ('points', 'visible', 'scale')


def make_config(options):
  """The config of our run."""
  at = 'cpu_vgg' if options.vgg and options.at == 'cpu' else options.at
  config = autolink.get_config(f'tuned,{at}')
  config.seed = options.seed
  config.train_steps = options.steps
  if options.batch_size:
    config.batch_size = options.batch_size
  if options.vgg:
    side = options.vgg_side or config.method.side
    config.method.loss = dict(kind='perceptual', weights=str(options.vgg), side=side)
  config.method.num_keypoints = options.keypoints
  config.data.path = str(options.archive)
  for name in ('scale', 'split_by', 'flip', 'classes'):
    setattr(config.data, name, getattr(options, name))
  config.eval_every = config.panel_every = 0
  config.checkpoint_every = options.steps
  config.log_every = min(20, options.steps)
  return cells.override(config, json.loads(options.overrides))


def read(config, part):
  """Images `[n, S, S, 3]` uint8 and the truth of a part of the archive."""
  source = data.build(**config.data.to_dict() | {'part': part})
  chunks = list(evaluation.examples(source, num_images=source.size, seed=0))
  joined = {n: np.concatenate([c[n] for c in chunks]) for n in chunks[0]}
  images = joined.pop('image')
  if images.dtype != np.uint8:
    images = np.round(255 * images).astype(np.uint8)
  return images, {n: joined[n] for n in _TRUTH if n in joined}


def train_official(options, config, images):
  """What the official networks find and restore after training; (found, told)."""
  method, optim = config.method, config.optim
  loss = method.loss.to_dict()
  if loss['kind'] == 'perceptual':
    features = perceptual.load(loss.pop('weights'))
    loss = dict(loss='perceptual', loss_side=loss['side'])
  else:
    features = perceptual.random_features(method.loss.seed, method.loss.widths)
    loss = {n: loss[n] for n in ('features', 'pyramid', 'scales')}
    loss['loss'] = 'fallback'
  on_gpu = jax.default_backend() == 'gpu'
  hyperparameters = dict(
    n_parts=method.num_keypoints,
    thick=method.renderer.sigma_sq,
    sklr=512.0,
    missing=method.mask.ratio,
    block=method.mask.blocks,
    flip=config.data.flip,
    side=config.data.side,
    batch=config.batch_size,
    steps=config.train_steps,
    lr=options.official_lr,
    weight_decay=optim.weight_decay,
    seed=config.seed,
    device='cuda' if on_gpu else 'cpu',
    half=on_gpu,
    **loss,
  )
  script = pathlib.Path(__file__).with_name('autolink_official_training.py')
  with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    (work / 'options.json').write_text(json.dumps(hyperparameters))
    np.savez(work / 'images.npz', **images)
    arrays = {f'{n}/{part}': a for n, c in features.items() for part, a in c.items()}
    np.savez(work / 'features.npz', **arrays)
    subprocess.run([options.torch_python, script, options.official, work], check=True)
    found = dict(np.load(work / 'found.npz'))
    told = json.loads((work / 'told.json').read_text())
  # (row, column) of pixel centres there, (x, y) of outer edges here.
  side = config.data.side
  for part in ('fit', 'test'):
    found[part] = found[part][..., ::-1] * (side - 1) / side
  return found, told | {'hyperparameters': hyperparameters}


def keep_masks(config, count):
  """What is kept of the first photographs to restore, `[n, S, S, 1]` bool."""
  masks = masking.keep_masks(
    jax.random.key(config.eval.seed),
    min(count, _RESTORED),
    side=config.method.side,
    **config.method.mask,
  )
  return np.asarray(masks) > 0


class FixedKeypoints(autolink_method.AutoLink):
  """AutoLink whose keypoints are at the same random places in all photographs."""

  def find(self, images, train=False):
    del train
    shape = (self.detector.num_keypoints, 2)
    nodes = jax.random.uniform(jax.random.key(0), shape, minval=-1, maxval=1)
    logits = self.rate * self.theta
    return jax.tree.map(
      lambda x: jnp.broadcast_to(x, (len(images), *x.shape)),
      autolink_method.Found(nodes, jax.nn.softplus(logits), jnp.ones(shape[0])),
    )


def train_ours(config, images, *, has_points):
  """What our network finds and restores after training; (found, seconds per step)."""
  with tempfile.TemporaryDirectory() as workdir:
    run = loop.train(config, pathlib.Path(workdir), evaluate=False)
    name = pathlib.Path(workdir) / 'weights.npz'
    method, variables, _ = weights.load_method(name)
  found = {
    part: keypoint_evaluation.find_keypoints(
      method,
      variables,
      data.build(**config.data.to_dict() | {'part': part}),
      batch_size=config.eval.batch_size,
    ).found
    for part in (('fit', 'test') if has_points else ())
  }
  options = config.method.to_dict()
  for part in ('name', 'mask', 'loss', 'equivariance', 'separation'):
    options.pop(part, None)
  model = autolink_method.build_model(precision=config.precision, **options)

  @functools.partial(jax.jit, static_argnums=2)
  def restore(images, keep, shift):
    seen = model.apply(variables, images, method='find')
    seen = jax.tree.map(lambda x: jnp.roll(x, shift, axis=0), seen)
    edge_map = model.apply(variables, seen, config.method.side, method='draw')
    return model.apply(variables, images, keep, edge_map, method='restore')

  count = len(images['keep'])
  whole = images['test'][:count].astype(np.float32) / 255, images['keep']
  for name, shift in (('own', 0), ('others', 1)):
    found[name] = np.asarray(restore(*whole, shift))
  return found, config.batch_size / run['images_per_second']


def score(found, parts, config, images):
  """`{protocol: scores}` of what was found and restored."""
  if not parts['test'][1]:  # No points.
    return {
      'hidden_pixels': {
        f'{name}_graph_percent': hidden_error(found[name], images)
        for name in ('own', 'others')
      }
    }
  fit, test = (
    keypoints.Keypoints(found[part], **parts[part][1]) for part in ('fit', 'test')
  )
  return {
    protocol: keypoints.score(protocol, fit, test, seed=config.eval.seed)
    for protocol in PROTOCOLS
  }


def hidden_error(restored, images):
  """Mean difference of restored from hidden pixels, in percent of white."""
  whole = images['test'][: len(restored)].astype(np.float32) / 255
  hidden = np.broadcast_to(~images['keep'], whole.shape)
  return 100 * float(np.abs(restored.clip(0, 1) - whole)[hidden].mean())


def write(options, config, parts, rows):
  """Writes the rows that are there: ours stay if the official code fails."""
  config = config.to_dict()
  # Where they lie is nobody's business.
  config['data']['path'] = options.archive.name
  if options.vgg:
    config['method']['loss']['weights'] = pathlib.Path(options.vgg).name
  document = {
    'rows': rows,
    'config': config,
    'images': {part: len(images) for part, (images, _) in parts.items()},
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
    'devices': jax.device_count(),
  }
  options.output.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(document, indent=1, default=str) + '\n'
  files.write_atomically(options.output, text.encode())


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--archive', type=pathlib.Path, required=True)
  parser.add_argument('--official', help="the authors' repository; without, ours alone")
  parser.add_argument('--torch_python', help='interpreter with torch and numpy')
  parser.add_argument('--official_lr', type=float, default=1e-4, help='theirs: 1e-4')
  parser.add_argument('--steps', type=int, default=400)
  parser.add_argument('--at', choices=('cpu', 'gpu'), default='cpu', help='our config')
  parser.add_argument('--vgg', help='weights of VGG16, for the loss of the paper')
  parser.add_argument('--vgg_side', type=int, help='VGG16 sees images of this side')
  parser.add_argument('--batch_size', type=int, help="the config's if not given")
  parser.add_argument('--keypoints', type=int, default=8)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--scale', default='', help='field that errors are divided by')
  parser.add_argument('--split_by', default='', help='field that parts the images')
  parser.add_argument('--classes', nargs='*', default=(), help='to read; else all')
  parser.add_argument('--fixed', action='store_true', help='ours once more; see above')
  parser.add_argument('--flip', action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument('--overrides', default='{}', help='of our config, as JSON')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  options = parser.parse_args(argv)
  if (options.official is None) != (options.torch_python is None):
    parser.error('--official and --torch_python go together.')
  if options.at == 'gpu' and not options.vgg:
    parser.error('--at=gpu needs --vgg.')
  config = make_config(options)
  parts = {part: read(config, part) for part in ('train', 'fit', 'test')}

  has_points = bool(parts['test'][1])
  images = {part: images for part, (images, _) in parts.items()}
  if not has_points:
    config.eval.kind = 'graph'
    images['fit'] = images['fit'][:1]  # Nothing is fitted.
  images['keep'] = keep_masks(config, len(images['test']))
  rows = {}

  def note(name, found, **told):
    rows[name] = {'scores': score(found, parts, config, images), **told}
    write(options, config, parts, rows)

  found, seconds = train_ours(config, images, has_points=has_points)
  note('ours', found, seconds_per_step=seconds)
  if options.fixed:
    with mock.patch.object(autolink_method, 'AutoLink', FixedKeypoints):
      found, seconds = train_ours(config, images, has_points=has_points)
    note('fixed', found, seconds_per_step=seconds)
  if options.official:
    found, told = train_official(options, config, images)
    seconds = statistics.median(told.pop('seconds'))
    note('official', found, seconds_per_step=seconds, **told)
  for name, row in rows.items():
    print(name, json.dumps(row['scores']), f'{row["seconds_per_step"]:.3f} s a step')
  return 0


if __name__ == '__main__':
  sys.exit(main())
