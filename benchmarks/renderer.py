"""Time and memory of `draw_edges` beside AutoLink's official `draw_lines`.

  python -m benchmarks.renderer --official=FOLDER --torch_python=PYTHON

FOLDER is a copy of the authors' repository and PYTHON an interpreter with torch and
numpy (`benchmarks/renderer_official.py`). The task is theirs: K keypoints in each of 64
images, lines between all pairs, weights that all images share, the brightest line
counts; and the gradient for keypoints and weights. Beside it, plain autodiff of the
same formula in JAX. Every side runs in a process of its own, one after another, and
gives `seconds` (the median over the rounds, after a first call; no round begins after
20 seconds), `processor_seconds` (of all threads; the steadier one on a machine that
does other things too), and `peak_mib`, by how much memory in use rises in the first
call of image and gradient; XLA's own figure is `temp_mib`. Image and gradient must
agree.

A side that would need more than `--gib` draws fewer images at a time: `batch` says how
many, and all its figures are of that batch. The ratios are per image, so times and
memory of a smaller batch are taken to grow in proportion to it; `scaled` says so.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import renderer_measure
from img2graph import files
from img2graph import geometry
from img2graph import rendering
from img2graph.training import record

OUTPUT = pathlib.Path('results/benchmarks/renderer.json')
BATCH = 64
PEERS = ('official', 'plain')
# Keypoints, side in pixels, sides.
CASES = (
  (8, 128, ('ours', *PEERS)),
  (16, 128, ('ours', *PEERS)),
  (32, 128, ('ours', *PEERS)),
  (64, 256, ('ours',)),
  (128, 256, ('ours',)),
)
# Maps `[B, E, H, W]` in memory at once, measured, rounded up.
_MAPS = {'official': 15, 'plain': 18}
# Between the outermost pixel centres, theirs; between the outer edges, ours.
_THICK = 7.5e-4


def batch_size(side_name, num_keypoints, side, gib):
  """How many of the 64 images a side may draw at once."""
  if side_name == 'ours':
    return BATCH
  pairs = num_keypoints * (num_keypoints - 1) // 2
  one = _MAPS[side_name] * pairs * side**2 * 4 / 2**30
  batch = BATCH
  while batch > 1 and batch * one > gib:
    batch //= 2
  return batch


def make_inputs(num_keypoints, side):
  """Keypoints `[64, K, 2]`, (row, column), weights `[pairs]`, gradient of the image."""
  rng = np.random.default_rng(0)
  nodes = np.clip(rng.normal(0, 0.45, (BATCH, num_keypoints, 2)), -0.95, 0.95)
  pairs = num_keypoints * (num_keypoints - 1) // 2
  # From hardly visible to bright, as after training.
  weights = np.log1p(np.exp(rng.normal(-3, 2, pairs)))
  gradient = rng.normal(size=(BATCH, side, side))
  arrays = dict(nodes=nodes, weights=weights, gradient=gradient)
  return {name: v.astype(np.float32) for name, v in arrays.items()}


def _plain(start, end, weights, thickness, side):
  """The definition over `[B, E, P]`."""
  points = geometry.pixel_centres(side, side).reshape(1, 1, -1, 2)
  distance_sq = geometry.segment_distance_sq(
    points, start[:, :, None, :], end[:, :, None, :]
  )
  ink = weights[None, :, None] * jnp.exp(-distance_sq / thickness**2)
  return ink.max(1).reshape(-1, side, side)


def make_functions(name, num_keypoints, side):
  """`(nodes, weights) -> image` and `(nodes, weights, gradient) -> (image, 2)`."""
  unit = (side - 1) / side
  senders, receivers = geometry.node_pairs(num_keypoints)

  def draw(nodes, weights):
    nodes = nodes[..., ::-1] * unit
    start, end = nodes[:, senders], nodes[:, receivers]
    thickness = unit * _THICK**0.5
    if name == 'plain':
      return _plain(start, end, weights, thickness, side)
    size = dict(height=side, width=side, thickness=thickness)
    return rendering.draw_edges(start, end, weights, **size)

  def both(nodes, weights, gradient):
    image, pull = jax.vjp(draw, nodes, weights)
    return image, *pull(gradient)

  return draw, both


def work(folder):
  """Measures one side in JAX: reads `task.json` and `inputs.npz` there."""
  task = json.loads((folder / 'task.json').read_text())
  arrays = dict(np.load(folder / 'inputs.npz'))
  inputs = [jnp.asarray(arrays[n]) for n in ('nodes', 'weights', 'gradient')]
  functions = make_functions(task['name'], task['keypoints'], task['side'])
  draw, both = (
    jax.jit(f).lower(*inputs[:n]).compile()
    for f, n in zip(functions, (2, 3), strict=True)
  )
  result, outputs = renderer_measure.measure(
    lambda: jax.block_until_ready(draw(*inputs[:2])),
    lambda: jax.block_until_ready(both(*inputs)),
    task['rounds'],
  )
  result['temp_mib'] = both.memory_analysis().temp_size_in_bytes / 2**20
  renderer_measure.write(folder, result, map(np.asarray, outputs))


def run(command, name, case, arrays, arguments):
  """Runs one side in a process of its own: its figures and its arrays."""
  num_keypoints, side, _ = case
  batch = batch_size(name, num_keypoints, side, arguments.gib)
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    task = dict(name=name, keypoints=num_keypoints, side=side, thick=_THICK)
    (folder / 'task.json').write_text(json.dumps(task | {'rounds': arguments.rounds}))
    some = {n: v if n == 'weights' else v[:batch] for n, v in arrays.items()}
    np.savez(folder / 'inputs.npz', **some)

    def guard():
      # A wrong estimate must end this side, not the machine's other work.
      most = int((1.5 * arguments.gib + 2) * 2**30)
      resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    environment = os.environ | {'JAX_NUM_CPU_DEVICES': '1'}
    subprocess.run([*command, folder], check=True, env=environment, preexec_fn=guard)
    result = json.loads((folder / 'result.json').read_text())
    outputs = dict(np.load(folder / 'outputs.npz'))
  return {'batch': batch, 'scaled': batch < BATCH, **result}, outputs


def relative_difference(actual, expected):
  """Norm of the difference of the images that both drew, relative to the norm."""
  actual = actual[: len(expected)]
  return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def compare(case, arguments):
  """All sides of a case, and the ratios of the peers to ours, per image."""
  num_keypoints, side, names = case
  here = [sys.executable, '-m', 'benchmarks.renderer', '--work']
  there = [arguments.torch_python, '-m', 'benchmarks.renderer_official']
  commands = dict(ours=here, plain=here, official=[*there, arguments.official])
  arrays = make_inputs(num_keypoints, side)
  sides, outputs = {}, {}
  for name in names:
    sides[name], outputs[name] = run(commands[name], name, case, arrays, arguments)
    print(num_keypoints, name, sides[name], flush=True)
  ours, ratios = sides['ours'], {}
  for name in names[1:]:
    times = BATCH / sides[name]['batch']
    ratios[name] = {
      key: round(times * sides[name][key] / ours[key], 1)
      for key in ours
      if key in sides[name] and key not in ('batch', 'scaled')
    }
    # The sum over a batch is the weights' gradient, so not of a smaller batch.
    ratios[name]['relative difference'] = {
      key: relative_difference(outputs['ours'][key], outputs[name][key])
      for key in ('image', 'nodes')
    }
    if max(ratios[name]['relative difference'].values()) > 1e-2:
      raise ValueError(f'{num_keypoints} keypoints: {name} draws another image.')
  pairs = num_keypoints * (num_keypoints - 1) // 2
  size = dict(keypoints=num_keypoints, edges=pairs, side=side, batch_size=BATCH)
  return {**size, 'sides': sides, 'ratios': ratios}


def main(argv=None):
  """Runs all cases and writes them."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--official', help="the authors' repository")
  parser.add_argument('--torch_python', help='interpreter with torch')
  parser.add_argument('--rounds', type=int, default=3, help='calls that are timed')
  parser.add_argument('--gib', type=float, default=8, help='memory a side may need')
  parser.add_argument('--keypoints', type=int, nargs='*', help='only these cases')
  parser.add_argument('--output', type=pathlib.Path, default=OUTPUT)
  parser.add_argument('--work', type=pathlib.Path, help=argparse.SUPPRESS)
  arguments = parser.parse_args(argv)
  if arguments.work:
    return work(arguments.work)
  if not (arguments.official and arguments.torch_python):
    parser.error('--official and --torch_python are needed.')
  load_before = os.getloadavg()[0]
  chosen = [c for c in CASES if not arguments.keypoints or c[0] in arguments.keypoints]
  document = {
    'what': 'max composition of Gaussian lines between all keypoints: image, and image '
    'with gradient of keypoints and weights',
    'rounds': arguments.rounds,
    'cases': [compare(case, arguments) for case in chosen],
    'scaled': f'a side that needs more than {arguments.gib:g} GiB has a smaller batch; '
    'ratios take its time and memory in proportion to the batch',
    'load_average': {'before': load_before, 'after': os.getloadavg()[0]},
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(document, indent=2) + '\n'
  files.write_atomically(arguments.output, text.encode())


if __name__ == '__main__':
  sys.exit(main())
