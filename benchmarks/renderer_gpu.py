"""Time and memory of `draw_edges` on a GPU: XLA's, our own kernels, the official code.

  python -m benchmarks.renderer_gpu [--official=FOLDER] --output=FILE

The task is that of `benchmarks.renderer`: K keypoints in each of 64 images, lines
between all pairs, the brightest line counts. Sides:

  xla       what `rendering.draw_edges` does without them
  pallas    our kernels, as `draw_edges` draws on a GPU, `pallas_segments`; where K is 8
            or 32 also cut otherwise: forward REJECT-TILE-WARPS, or backward
            KIND-TILE-WARPS
  plain     automatic differentiation of the formula, if its maps fit in `--gib`
  official  AutoLink's `draw_lines` in PyTorch: FOLDER is a copy of the authors'
            repository; draws fewer images at a time (`batch`) where memory is short,
            and is left out where `plain` is

All in this one process. `forward` draws, `both` also computes the gradients of
keypoints and weights. `seconds` is the median of calls that are waited for one by one,
`queued_seconds` the time per call of as many in a row, which leaves out what a call
costs the processor; `temp_mib` is memory between arguments and results. `differences`
are those to XLA's: the largest of the image relative to its maximum, and the norm of
that of gradients relative to theirs. A side that fails has its `error`, and the others
go on. `--small --interpret` tries the script without a GPU.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import renderer
from img2graph import files
from img2graph import geometry
from img2graph.rendering import pallas_segments
from img2graph.rendering import segments
from img2graph.training import record

OUTPUT = pathlib.Path('results/benchmarks/renderer_gpu.json')
# Keypoints, side in pixels.
CASES = ((8, 128), (16, 128), (32, 128), (64, 256), (128, 256))
SMALL = ((3, 16), (8, 24))
SWEPT = (8, 32)
# Sides that come before the other cuts of the kernels.
ALWAYS = ('xla', 'pallas', 'plain')
MOST_DIFFERENCE = dict(forward=1e-5, image=1e-5, nodes=1e-3, weights=1e-3)
# Calls of one program end after this time.
_SECONDS = 2.0

# Rejection, rows, columns, warps.
_FORWARD = (
  ('none', 16, 32, 4),
  ('each', 16, 32, 4),
  ('group', 16, 32, 4),
  ('none', 16, 16, 2),
  ('each', 16, 16, 2),
  ('group', 16, 16, 1),
  ('group', 16, 16, 4),
  ('group', 8, 16, 1),
  ('group', 8, 8, 1),
  ('group', 16, 32, 2),
  ('group', 8, 32, 1),
  ('group', 32, 32, 4),
  ('group', 16, 32, 8),
  ('none', 32, 32, 4),
  ('none', 8, 64, 4),
)
# Kind, rows, columns, warps.
_BACKWARD = (
  ('pixel', 16, 32, 4),
  ('edge', 8, 64, 4),
  ('tile', 16, 16, 2),
  ('tile', 8, 16, 1),
  ('tile', 16, 32, 4),
  ('edge', 16, 16, 2),
  ('edge', 16, 32, 8),
  ('pixel', 8, 32, 8),
)


def variants(keypoints, arguments):
  """`{side: Options}` of the kernels for a case, the most important first."""
  base = pallas_segments.Options(interpret=arguments.interpret)
  found = {'pallas': base}
  if keypoints in SWEPT:
    for reject, rows, columns, warps in _FORWARD:
      options = base._replace(reject=reject, tile=(rows, columns), num_warps=warps)
      found[f'pallas forward {reject}-{rows}x{columns}-{warps}'] = options
    for kind, rows, columns, warps in _BACKWARD:
      tile = (rows, columns)
      options = base._replace(backward=kind, backward_tile=tile, backward_warps=warps)
      found[f'pallas backward {kind}-{rows}x{columns}-{warps}'] = options
  return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _draw_in_xla(style, *arrays):
  return segments._find_max(style, *arrays, with_winner=False)[0]


def _forward_in_xla(style, *arrays):
  image, winner = segments._find_max(style, *arrays, with_winner=True)
  return image, (*arrays, winner)


_draw_in_xla.defvjp(_forward_in_xla, segments._sum_max)


def make_functions(options, keypoints, side):
  """As `renderer.make_functions`: kernels with these options, or, of None, without."""
  unit = (side - 1) / side
  senders, receivers = geometry.node_pairs(keypoints)
  style = segments._Style(side, side, 'gaussian', 2 / side)

  def draw(nodes, weights):
    nodes = nodes[..., ::-1] * unit
    arrays = segments._check_arrays(
      nodes[:, senders], nodes[:, receivers], weights, unit * renderer._THICK**0.5
    )
    if options is None:
      return _draw_in_xla(style, *arrays)
    return pallas_segments.draw_max(style, *arrays, options=options)

  def both(nodes, weights, gradient):
    image, pull = jax.vjp(draw, nodes, weights)
    return image, *pull(gradient)

  return draw, both


def first_line(error):
  """An exception in a line."""
  lines = str(error).strip().splitlines() or ['']
  return f'{type(error).__name__}: {lines[0]}'[:300]


def compile_side(functions, inputs):
  """Both programs of a side, or the error that this met."""
  try:
    began = time.perf_counter()
    draw, both = (
      jax.jit(f).lower(*inputs[:n]).compile()
      for f, n in zip(functions, (2, 3), strict=True)
    )
    return draw, both, time.perf_counter() - began
  except Exception as error:  # Whatever a compiler may raise.
    return first_line(error)


def clock(call, wait, rounds):
  """Times of a call: `{'seconds', 'queued_seconds', 'rounds'}`."""
  for _ in range(2):
    wait(call())
  times, began = [], time.perf_counter()
  while len(times) < rounds and (
    len(times) < 3 or time.perf_counter() - began < _SECONDS
  ):
    start = time.perf_counter()
    wait(call())
    times.append(time.perf_counter() - start)
  start = time.perf_counter()
  for _ in times:
    out = call()
  wait(out)
  queued = (time.perf_counter() - start) / len(times)
  return dict(
    seconds=statistics.median(times), queued_seconds=queued, rounds=len(times)
  )


def compare(outputs, expected):
  """Differences to XLA's by name, and whether they are small enough."""
  found = {}
  for name, actual in outputs.items():
    # XLA rounds otherwise without gradients, by 1.1e-5: one image for both.
    wanted = expected['image' if name == 'forward' else name]
    if name in ('forward', 'image'):
      found[name] = float(np.abs(actual - wanted).max() / np.abs(wanted).max())
    else:
      found[name] = float(np.linalg.norm(actual - wanted) / np.linalg.norm(wanted))
  return found, all(v <= MOST_DIFFERENCE[name] for name, v in found.items())


def measure(compiled, inputs, rounds, expected):
  """The figures of a side in JAX, and its results."""
  if isinstance(compiled, str):
    return {'error': compiled}, None
  draw, both, seconds = compiled
  try:
    names = ('image', 'nodes', 'weights')
    outputs = dict(zip(names, map(np.asarray, both(*inputs)), strict=True))
    outputs['forward'] = np.asarray(draw(*inputs[:2]))
    figures = {'compile_seconds': seconds}
    for name, program, n in (('forward', draw, 2), ('both', both, 3)):

      def call(program=program, n=n):
        return program(*inputs[:n])

      temp = program.memory_analysis().temp_size_in_bytes / 2**20
      figures[name] = clock(call, jax.block_until_ready, rounds) | {'temp_mib': temp}
  except Exception as error:  # Out of memory, or a kernel that fails.
    return {'error': first_line(error)}, None
  if expected is not None:
    differences, agrees = compare(outputs, expected)
    figures |= {'differences': differences, 'agrees': agrees}
  return figures, outputs


def measure_official(folder, arrays, keypoints, side, rounds, expected):
  """The figures of the official code in PyTorch."""
  import torch

  from benchmarks import autolink_official

  autolink_official.stand_ins()
  if folder not in sys.path:
    sys.path.insert(0, folder)
  from models import decoder

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  tensors = {n: torch.from_numpy(v).to(device) for n, v in arrays.items()}
  pairs = torch.triu_indices(keypoints, keypoints, offset=1, device=device)
  batch = len(arrays['nodes'])
  while batch:
    nodes = tensors['nodes'][:batch].clone().requires_grad_()
    weights = tensors['weights'].clone().requires_grad_()
    gradient = tensors['gradient'][:batch]

    def draw(nodes=nodes, weights=weights):
      ends = torch.stack([nodes[:, pairs[0]], nodes[:, pairs[1]]], dim=2)
      lines = decoder.draw_lines(ends, heatmap_size=side, thick=renderer._THICK)
      return (lines * weights.reshape(1, -1, 1, 1)).max(dim=1)[0]

    def forward(draw=draw):
      with torch.no_grad():
        return draw()

    def both(draw=draw, nodes=nodes, weights=weights, gradient=gradient):
      image = draw()
      return image, *torch.autograd.grad(image, (nodes, weights), gradient)

    figures = {'batch': batch, 'torch': torch.__version__, 'device': device}
    try:
      for name, call in (('forward', forward), ('both', both)):
        if device == 'cuda':
          torch.cuda.empty_cache()
          torch.cuda.reset_peak_memory_stats()
          before = torch.cuda.memory_allocated()
        figures[name] = clock(call, lambda _: wait(), rounds)
        if device == 'cuda':
          peak = torch.cuda.max_memory_allocated()
          figures[name]['peak_mib'] = (peak - before) / 2**20
      results = both()
    except torch.OutOfMemoryError:
      torch.cuda.empty_cache()
      batch //= 2
      continue
    # The sum over a batch is the weights' gradient, so not of a smaller batch.
    names = ('image', 'nodes', 'weights')[: 3 if batch == len(arrays['nodes']) else 2]
    outputs = {
      n: v.detach().cpu().numpy() for n, v in zip(names, results, strict=False)
    }
    wanted = {n: v if n == 'weights' else v[:batch] for n, v in expected.items()}
    # Another order of rounding may choose another edge of those that share an end.
    figures['differences'] = compare(outputs, wanted)[0]
    return figures
  return {'error': 'out of memory with one image'}


def show(document):
  """A table: milliseconds of calls waited for, of those in a row, memory, agreement."""
  print(
    f'{"K":>3} {"side":34} {"forward":>9} {"queued":>9} {"both":>9} {"queued":>9} '
    f'{"temp MiB":>9} {"batch":>5}  agrees'
  )
  for case in document['cases']:
    for name, figures in case['sides'].items():
      if 'error' in figures or 'skipped' in figures:
        print(f'{case["keypoints"]:3} {name:34} {figures}')
        continue
      times = [
        1e3 * figures[kind][key]
        for kind in ('forward', 'both')
        for key in ('seconds', 'queued_seconds')
      ]
      memory = figures['both'].get('temp_mib', figures['both'].get('peak_mib', 0))
      batch = figures.get('batch', document['batch_size'])
      agrees = figures.get('agrees', figures.get('differences', ''))
      row = ' '.join(f'{v:9.3f}' for v in times)
      print(f'{case["keypoints"]:3} {name:34} {row} {memory:9.1f} {batch:5}  {agrees}')


def main(argv=None):
  """Runs all cases and writes them."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--official', help="the authors' repository")
  parser.add_argument('--rounds', type=int, default=20, help='calls that are timed')
  parser.add_argument('--gib', type=float, default=60, help='memory of maps for plain')
  parser.add_argument('--seconds', type=float, default=85, help='then no more sweeps')
  parser.add_argument(
    '--threads', type=int, default=8, help='programs compiled at once'
  )
  parser.add_argument('--keypoints', type=int, nargs='*', help='only these cases')
  parser.add_argument('--small', action='store_true', help='tiny cases')
  parser.add_argument('--interpret', action='store_true', help='kernels without a GPU')
  parser.add_argument('--output', type=pathlib.Path, default=OUTPUT)
  arguments = parser.parse_args(argv)
  began = time.perf_counter()
  # PyTorch needs memory in the same process; read when JAX first asks for a device.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  cases = SMALL if arguments.small else CASES
  cases = [c for c in cases if not arguments.keypoints or c[0] in arguments.keypoints]
  batch = 2 if arguments.small else renderer.BATCH
  document = {
    'what': 'max composition of Gaussian lines between all keypoints: image, and image '
    'with gradient of keypoints and weights',
    'batch_size': batch,
    'rounds': arguments.rounds,
    'cases': [],
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }

  def save():
    # After each side: what is measured is kept, whatever the next one does.
    document['wall_seconds'] = time.perf_counter() - began
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2) + '\n'
    files.write_atomically(arguments.output, text.encode())

  tasks, functions = [], []
  for keypoints, side in cases:
    arrays = renderer.make_inputs(keypoints, side)
    arrays = {n: v if n == 'weights' else v[:batch] for n, v in arrays.items()}
    inputs = [jnp.asarray(arrays[n]) for n in ('nodes', 'weights', 'gradient')]
    pairs = keypoints * (keypoints - 1) // 2
    case = dict(keypoints=keypoints, edges=pairs, side=side, sides={})
    document['cases'].append(case)
    tasks.append((case, arrays, inputs, {}))
    sides = {'xla': make_functions(None, keypoints, side)}
    for name, options in variants(keypoints, arguments).items():
      sides[name] = make_functions(options, keypoints, side)
    maps = renderer._MAPS['plain'] * batch * pairs * side**2 * 4 / 2**30
    if maps <= arguments.gib:
      sides['plain'] = renderer.make_functions('plain', keypoints, side)
    functions.append(sides)
  with concurrent.futures.ThreadPoolExecutor(arguments.threads) as pool:
    # First what every case has.
    for cuts in (False, True):
      for (*_, inputs, compiled), sides in zip(tasks, functions, strict=True):
        for name, pair in sides.items():
          if (name not in ALWAYS) == cuts:
            compiled[name] = pool.submit(compile_side, pair, inputs)
    futures = [f for *_, compiled in tasks for f in compiled.values()]
    concurrent.futures.wait(futures, timeout=0.6 * arguments.seconds)
    for *_, compiled in tasks:
      for name, future in compiled.items():
        if name not in ALWAYS:
          future.cancel()
  # Nothing is timed while something is compiled: here the pool has ended.
  document['compiled_after_seconds'] = time.perf_counter() - began
  print(f'compiled after {document["compiled_after_seconds"]:.1f} s', flush=True)

  expected = {}
  # The other cuts after what every case has, and what needs most memory at the end.
  for chosen in (('xla', 'pallas'), None, ('plain',)):
    for case, _, inputs, compiled in tasks:
      for name, future in compiled.items():
        if name not in chosen if chosen else name in ALWAYS:
          continue
        late = chosen is None and time.perf_counter() - began > arguments.seconds
        if late or future.cancelled():
          case['sides'][name] = {'skipped': f'no time within {arguments.seconds:g} s'}
          continue
        figures, outputs = measure(
          future.result(), inputs, arguments.rounds, expected.get(case['keypoints'])
        )
        if name == 'xla' and outputs is not None:
          expected[case['keypoints']] = outputs
        case['sides'][name] = figures
        save()
  show(document)
  if arguments.official:
    for case, arrays, *_ in tasks:
      if 'plain' not in case['sides'] or case['keypoints'] not in expected:
        continue
      try:
        figures = measure_official(
          arguments.official,
          arrays,
          case['keypoints'],
          case['side'],
          arguments.rounds,
          expected[case['keypoints']],
        )
      except Exception as error:  # No torch, no driver, another layout of the folder.
        figures = {'error': first_line(error)}
      case['sides']['official'] = figures
      save()
    show(document)
  save()


if __name__ == '__main__':
  sys.exit(main())
