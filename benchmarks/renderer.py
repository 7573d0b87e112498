"""Time and memory of drawing edges, beside plain autodiff of the same formula.

  python benchmarks/renderer.py
  python benchmarks/renderer.py --compose=max --edges=28 --rounds=3

One measurement is the drawing and its gradients for start, end, weight and thickness
of random edges (128x128, batch 64). Both sides compute the same and must agree before
they are timed. They are timed in turns in this process; a figure is the median over
the rounds, a ratio the median of each round's ratio. Wall and processor time (of all
threads) are given: on a machine that others use too, the second is the steadier one.
Memory is what XLA sets aside beside inputs and outputs (`temp_size_in_bytes`).

Where plain autodiff needs more memory than there is to spare, it is compiled for its
memory but not run, and its times stay empty.

Prints a table in Markdown and writes results/benchmarks/renderer.json.
"""

import datetime
import json
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from absl import flags

from img2graph import geometry
from img2graph import rendering
from img2graph.rendering import segments
from img2graph.training import record

_COMPOSE = flags.DEFINE_multi_enum(
  'compose', list(segments.COMPOSITIONS), segments.COMPOSITIONS, 'How edges add up.'
)
_PROFILE = flags.DEFINE_enum('profile', 'gaussian', segments.PROFILES, 'Of a line.')
_EDGES = flags.DEFINE_multi_integer('edges', [28, 120, 496], 'Numbers of edges.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Images.', lower_bound=1)
_SIDE = flags.DEFINE_integer('side', 128, 'Height and width in pixels.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Measurements of each.', lower_bound=1)
_PLAIN_GIB = flags.DEFINE_float(
  'plain_gib', 12.0, 'Plain autodiff is run if it needs less memory than this.'
)
_OUTPUT = flags.DEFINE_string(
  'output', 'results/benchmarks/renderer.json', 'File that is written.'
)

# Of the Euclidean norm, not of the largest number: where two edges are equally bright
# to rounding, 'max' may give a pixel to either, and a few of a million pixels are such.
_TOLERANCE = 2e-3


def make_draw(compose):
  """`draw_edges` with the chosen options."""

  def draw(start, end, weight, thickness):
    return rendering.draw_edges(
      start,
      end,
      weight,
      height=_SIDE.value,
      width=_SIDE.value,
      thickness=thickness,
      profile=_PROFILE.value,
      compose=compose,
    )

  return draw


def make_plain_draw(compose):
  """The definition of the same drawing, for automatic differentiation."""
  side = _SIDE.value
  points = geometry.pixel_centres(side, side).reshape(1, 1, -1, 2)

  def draw(start, end, weight, thickness):
    distance_sq = geometry.segment_distance_sq(
      points, start[:, :, None, :], end[:, :, None, :]
    )
    if _PROFILE.value == 'gaussian':
      line = jnp.exp(-distance_sq / thickness**2)
    else:
      border = 2 / side
      # sqrt has no finite slope at 0.
      distance = jnp.sqrt(jnp.maximum(distance_sq, 1e-12))
      line = jnp.clip((thickness + border / 2 - distance) / border, 0, 1)
    ink = weight[..., None] * line
    if compose == 'max':
      image = ink.max(1)
    elif compose == 'sum':
      image = ink.sum(1)
    else:
      image = 1 - jnp.prod(1 - ink, 1)
    return image.reshape(-1, side, side)

  return draw


def make_inputs(num_edges):
  """Random edges, weights, one thickness (2 pixels) and a gradient of the image."""
  rng = np.random.default_rng(0)
  batch, side = _BATCH_SIZE.value, _SIDE.value
  start, end = rng.uniform(-1, 1, (2, batch, num_edges, 2)).astype(np.float32)
  weight = rng.uniform(0.1, 0.9, (batch, num_edges)).astype(np.float32)
  gradient = rng.normal(size=(batch, side, side)).astype(np.float32)
  arrays = (start, end, weight, np.float32(4 / side), gradient)
  return tuple(jnp.asarray(v) for v in arrays)


def compile_gradients(draw, inputs):
  """Compiled `inputs -> (image, four gradients)`, and its temporary memory in MiB."""

  def image_and_gradients(start, end, weight, thickness, gradient):
    image, pull = jax.vjp(draw, start, end, weight, thickness)
    return image, pull(gradient)

  compiled = jax.jit(image_and_gradients).lower(*inputs).compile()
  return compiled, compiled.memory_analysis().temp_size_in_bytes / 2**20


def check_agreement(name, actual, expected):
  """Raises if image or gradients differ; returns the relative difference."""
  worst = 0.0
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    worst = max(worst, float(jnp.sqrt(((a - b) ** 2).sum() / (b**2).sum())))
  if not worst < _TOLERANCE:
    raise ValueError(f'{name}: the two drawings differ by {worst:.2g}.')
  return worst


def spare_gib():
  """Memory that may be used for plain autodiff, GiB."""
  try:
    free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30
  except (OSError, ValueError):
    return _PLAIN_GIB.value
  # A part of it: other processes grow too.
  return min(_PLAIN_GIB.value, 0.7 * free)


def measure(sides, inputs):
  """Times of each side in turns: `{side: [(wall ms, processor ms)]}`."""
  times = {name: [] for name in sides}
  for _ in range(_ROUNDS.value):
    for name, function in sides.items():
      wall, processor = time.perf_counter(), time.process_time()
      jax.block_until_ready(function(*inputs))
      times[name].append(
        (
          (time.perf_counter() - wall) * 1e3,
          (time.process_time() - processor) * 1e3,
        )
      )
  return times


def compare(compose, num_edges):
  """One row of the result."""
  inputs = make_inputs(num_edges)
  function, memory = compile_gradients(make_draw(compose), inputs)
  plain, plain_memory = compile_gradients(make_plain_draw(compose), inputs)
  sides = {'ours': function}
  difference = None
  drawing = function(*inputs)  # Also the warm-up.
  if plain_memory / 2**10 < spare_gib():
    sides['plain'] = plain
    difference = check_agreement(
      f'{compose}, {num_edges} edges', drawing, plain(*inputs)
    )
  del drawing
  times = measure(sides, inputs)

  def median(name, which):
    return round(statistics.median(t[which] for t in times[name]), 1)

  def ratio(which):
    pairs = zip(times['plain'], times['ours'], strict=True)
    return round(statistics.median(a[which] / b[which] for a, b in pairs), 2)

  ran = 'plain' in sides
  return {
    'compose': compose,
    'edges': num_edges,
    'ms': median('ours', 0),
    'plain_ms': median('plain', 0) if ran else None,
    'ratio': ratio(0) if ran else None,
    'processor_ms': median('ours', 1),
    'plain_processor_ms': median('plain', 1) if ran else None,
    'processor_ratio': ratio(1) if ran else None,
    'mib': round(memory, 1),
    'plain_mib': round(plain_memory, 1),
    'memory_ratio': round(plain_memory / memory, 1),
    'plain_was_run': ran,
    'relative_difference': difference,
  }


def markdown(rows):
  """The rows as a table in Markdown."""
  lines = [
    '| compose | edges | ms | plain autodiff, ms | ratio | ratio of processor time '
    '| MiB | plain autodiff, MiB | ratio |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for row in rows:
    plain = (
      f'{row["plain_ms"]:,.0f} | {row["ratio"]:.1f} | {row["processor_ratio"]:.1f}'
      if row['plain_was_run']
      else 'not run: memory | | '
    )
    lines.append(
      f'| {row["compose"]} | {row["edges"]} | {row["ms"]:,.0f} | {plain} '
      f'| {row["mib"]:,.0f} | {row["plain_mib"]:,.0f} | {row["memory_ratio"]:.0f} |'
    )
  return '\n'.join(lines)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'no arguments but flags are taken; got {argv[1:]}.')
  load_before = os.getloadavg()[0]
  rows = []
  for compose in dict.fromkeys(_COMPOSE.value):
    for num_edges in _EDGES.value:
      rows.append(compare(compose, num_edges))
      print(rows[-1], flush=True)
  result = {
    'what': 'drawing and gradients of draw_edges against plain autodiff',
    'profile': _PROFILE.value,
    'batch_size': _BATCH_SIZE.value,
    'side': _SIDE.value,
    'rounds': _ROUNDS.value,
    'rows': rows,
    'not_run': 'plain autodiff is compiled but not run where it needs more memory '
    f'than min({_PLAIN_GIB.value:g} GiB, 70 % of what is free)',
    'load_average': {'before': load_before, 'after': os.getloadavg()[0]},
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }
  path = pathlib.Path(_OUTPUT.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(result, indent=2) + '\n')
  print(markdown(rows))
  print(f'Written to {path}.')


if __name__ == '__main__':
  app.run(main)
