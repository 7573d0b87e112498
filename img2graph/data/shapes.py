"""Simple Shapes: one line, triangle or rectangle per image, drawn on the device.

After section 4 of "Image-graph-image" (see the README): a shape under random scale,
rotation, shear and translation, as white lines on a black canvas. Further shapes
(`TEMPLATES`) are there for harder training sets.

A shape is made in this order: its template; an independent jitter of its corners (for
shapes that vary); aspect (the y axis is scaled by `aspect`), shear (x += shear * y),
rotation; a scale that makes the longer side of its bounding box `scale` times the
canvas inside the margin; and a translation, uniform over all places where every
vertex lies on the canvas inside the margin. Nothing is drawn twice or rejected, and
with the default ranges nothing is degenerate: no edge of the paper's three shapes is
shorter than 0.14 of the side and no angle is below 30 degrees.
"""

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import graph as graph_lib
from img2graph import ranges
from img2graph.data import drawing
from img2graph.data import sources


def _ring(num, radius=1.0, turn=0.0):
  angle = 2 * np.pi * np.arange(num) / num + turn
  return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _cycle(num, first=0):
  return [(first + i, first + (i + 1) % num) for i in range(num)]


_TRIANGLE = _ring(3, turn=np.pi / 2)
_SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)

# Name -> (vertices [V, 2] in any unit, edges, jitter of the vertices in that unit).
TEMPLATES = {
  'line': (np.array([(-1.0, 0.0), (1.0, 0.0)]), [(0, 1)], 0.0),
  'triangle': (_TRIANGLE, _cycle(3), 0.0),
  'rectangle': (_SQUARE, _cycle(4), 0.0),
  'pentagon': (_ring(5), _cycle(5), 0.1),
  'hexagon': (_ring(6), _cycle(6), 0.1),
  # Five arms from one centre.
  'star': (
    np.concatenate([[(0.0, 0.0)], _ring(5)]),
    [(0, i) for i in range(1, 6)],
    0.15,
  ),
  'polyline': (
    np.array([(-1.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (1.5, 0.5)]),
    [(0, 1), (1, 2), (2, 3)],
    0.3,
  ),
  # Two strokes that cross; the crossing is a node. No jitter: it must stay straight.
  'crossing': (
    np.array([(0.0, 0.0), (-1.0, 0.0), (0.8, 0.0), (0.0, -0.8), (0.0, 1.0)]),
    [(0, i) for i in range(1, 5)],
    0.0,
  ),
  'tree': (
    np.array([(0, 1.2), (0, 0.3), (-0.7, -0.3), (0.7, -0.3), (-1, -1.2), (-0.2, -1.2)]),
    [(0, 1), (1, 2), (1, 3), (2, 4), (2, 5)],
    0.15,
  ),
  'two_shapes': (
    np.concatenate([0.8 * _TRIANGLE + (-1.1, 0.0), 0.6 * _SQUARE + (1.0, 0.0)]),
    _cycle(3) + _cycle(4, first=3),
    0.1,
  ),
}

_PAPER_SHAPES = ('line', 'triangle', 'rectangle')


def tables(shapes, capacity):
  """Templates of the chosen shapes, padded to one size.

  Returns:
    vertices `[K, N, 2]` (padding repeats the first), exists `[K, N]`, ends `[K, E, 2]`
    int (padding repeats the first edge), adjacency `[K, N, N]`, jitter `[K]`.
  """
  if isinstance(shapes, str) or not shapes:
    raise ValueError(f'shapes must be a non-empty list of names; got {shapes!r}.')
  for name in shapes:
    if name not in TEMPLATES:
      raise ValueError(f'there is no shape {name!r}; there are {", ".join(TEMPLATES)}.')
  chosen = [TEMPLATES[name] for name in shapes]
  needed = max(len(vertices) for vertices, _, _ in chosen)
  capacity = max(4, needed) if capacity is None else capacity
  if capacity < needed:
    raise ValueError(
      f'capacity must be at least {needed} for {shapes}; got {capacity}.'
    )
  num_edges = max(len(edges) for _, edges, _ in chosen)
  vertices = np.zeros((len(chosen), capacity, 2), np.float32)
  exists = np.zeros((len(chosen), capacity), np.float32)
  ends = np.zeros((len(chosen), num_edges, 2), np.int32)
  adjacency = np.zeros((len(chosen), capacity, capacity), np.float32)
  for k, (points, edges, _) in enumerate(chosen):
    vertices[k] = points[0]
    vertices[k, : len(points)] = points
    exists[k, : len(points)] = 1
    ends[k] = edges[0]
    ends[k, : len(edges)] = edges
    for i, j in edges:
      adjacency[k, i, j] = adjacency[k, j, i] = 1
  jitter = np.array([amount for _, _, amount in chosen], np.float32)
  return vertices, exists, ends, adjacency, jitter


def sample(
  key,
  batch_size,
  *,
  side=64,
  shapes=_PAPER_SHAPES,
  line_width=1.5,
  contrast=1.0,
  noise=0.0,
  aliased=False,
  scale=(0.4, 1.0),
  aspect=(0.5, 1.0),
  shear=(-0.4, 0.4),
  rotation=(-180.0, 180.0),
  margin=0.1,
  capacity=None,
  clean_target=False,
):
  """Draws a batch of simple shapes with their true graphs.

  Args:
    key: typed key; example i depends on `jax.random.split(key, batch_size)[i]` only.
    batch_size: number of images, B.
    side: height and width of the images in pixels.
    shapes: names of `TEMPLATES`, each equally likely.
    line_width: pixels, a number or (low, high), as every range below.
    contrast: ink of the lines, in (0, 1].
    noise: standard deviation of Gaussian noise on every pixel; the sum is clipped to
      [0, 1].
    aliased: True draws without a soft border (at least one pixel wide); a number is
      the share of images that are drawn so.
    scale: longer side of the bounding box, as a share of the canvas inside the margin.
    aspect: factor of the y axis before shear and rotation, > 0.
    shear: x += shear * y, after the aspect.
    rotation: degrees.
    margin: share of the half side that stays free of vertices on all four sides.
    capacity: node slots of the graph, N; by default what the shapes need, at least 4.
    clean_target: also return 'target', the drawing without noise at full contrast.

  Returns:
    {'image': `[B, side, side, 1]` float32 in [0, 1], 'graph': true `Graph` of
    capacity N with probabilities 0 and 1, its absent nodes at a vertex, and 'target'
    if asked for}.

  Raises:
    ValueError: an option is wrong.
  """
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  if not 0 <= margin < 1:
    raise ValueError(f'margin must be in [0, 1); got {margin}.')
  line_width = ranges.as_range('line_width', line_width, lowest=0.1)
  contrast = ranges.as_range('contrast', contrast, lowest=0.01, highest=1)
  noise = ranges.as_range('noise', noise, lowest=0)
  scale = ranges.as_range('scale', scale, lowest=0.01, highest=1)
  aspect = ranges.as_range('aspect', aspect, lowest=0.01)
  shear = ranges.as_range('shear', shear)
  rotation = ranges.as_range('rotation', rotation)
  aliased = ranges.as_range('aliased', float(aliased), lowest=0, highest=1)[0]
  lookup = [jnp.asarray(table) for table in tables(shapes, capacity)]

  def one(key):
    numbers_key, jitter_key, noise_key = jax.random.split(key, 3)
    u = jax.random.uniform(numbers_key, (10,))
    kind = jnp.minimum((u[0] * len(shapes)).astype(jnp.int32), len(shapes) - 1)
    nodes, exists, ends, adjacency, jitter = (table[kind] for table in lookup)
    capacity = nodes.shape[0]
    if any(TEMPLATES[name][2] for name in shapes):
      shift = jax.random.uniform(jitter_key, (capacity, 2), minval=-1, maxval=1)
      # Padding repeats the first vertex, so it has to move with it.
      shift = jnp.where(exists[:, None] > 0, shift, shift[:1])
      nodes = nodes + jitter * shift

    x, y = nodes[:, 0], nodes[:, 1] * drawing.pick(u[1], aspect)
    x = x + drawing.pick(u[2], shear) * y
    angle = jnp.deg2rad(drawing.pick(u[3], rotation))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    nodes = jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)

    room = 2 * (1 - margin)
    low, high = nodes.min(axis=0), nodes.max(axis=0)
    factor = room * drawing.pick(u[4], scale) / (high - low).max()
    free = room - factor * (high - low)  # [2] >= 0, up to rounding
    nodes = factor * (nodes - low[None]) + (margin - 1 + u[5:7] * free)[None]
    nodes = jnp.clip(nodes, margin - 1, 1 - margin)

    ends_px = (nodes + 1) * (side / 2)
    distance = drawing.distance(
      ends_px[ends[:, 0]], ends_px[ends[:, 1]], height=side, width=side
    )
    ink = drawing.line_ink(distance, drawing.pick(u[7], line_width), u[8] < aliased)
    image = ink * drawing.pick(u[9], contrast)
    if noise[1] > 0:
      sd_key, noise_key = jax.random.split(noise_key)
      sd = drawing.pick(jax.random.uniform(sd_key), noise)
      image = drawing.add_noise(noise_key, image, sd)
    graph = graph_lib.Graph(nodes=nodes, node_prob=exists, edge_prob=adjacency)
    batch = {'image': image[..., None], 'graph': graph}
    if clean_target:
      batch['target'] = ink[..., None]
    return batch

  return jax.vmap(one)(jax.random.split(key, batch_size))


def source(**options):
  """A `DeviceSource` of simple shapes; the options are those of `sample`."""
  return sources.from_sampler(sample, **options)
