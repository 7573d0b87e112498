"""Hard structure: small test sets of line drawings, each hard in one way.

Drawn with numpy from a seed, for measuring, not for training: image i of a kind depends
on the seed, the kind and i alone. The canvas has 128 x 128 pixels, `SIDE`, of which
`MARGIN` stay free of nodes on all sides; lines are 1.5 to 3 pixels wide unless the
kind says other, at full ink with a soft border. Drawings are turned and placed at
random. The true graph is planar: lines meet in nodes only.

ring            an ellipse, half axes 16 to 48 pixels, one 0.6 to 1 times the other. Its
                true graph is a cycle of 60 chords, whose nodes stand nowhere in
                particular: score path and length, not nodes.
cross_or_tees   two lines that cross at 50 to 90 degrees in one node of degree 4 (even
                images), or a line with an arm on either side, 4 to 10 % of the side
                apart: two nodes of degree 3 (odd images). Arms of 20 to 45 pixels.
acute           two lines of 50 to 90 pixels from one node, 10 to 25 degrees apart.
parallel        2 to 4 parallel lines 1 pixel wide, 3 pixels from middle to middle, 50
                to 100 pixels long with ends up to 3 pixels off.
filled          a tree or polygon of 3 to 6 nodes, at least 26 pixels apart, every node
                a filled disc or square of a half width of 4 to 7 pixels.
one_pixel       the same without fillings, at least 16 pixels apart, in lines of single
                pixels, ink or paper (Bresenham).
degree_6        six lines of 25 to 54 pixels from one node, 36 to 84 degrees apart.

No node of degree 2 of `filled` and `one_pixel` turns by less than 25 degrees.
"""

import numpy as np
from scipy.sparse import csgraph

from img2graph import geometry
from img2graph.data import archives
from img2graph.metrics import distance as distance_metrics

SIDE = 128
MARGIN = 8

_RING_CHORDS = 60
_MIN_TURN = np.cos(np.deg2rad(25))
_DISC = SIDE / 2 - MARGIN - 2  # Random points lie in a disc that fits however turned.


def _direction(angle):
  """Unit vectors `[..., 2]` of angles in degrees."""
  return np.stack([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))], axis=-1)


def _cycle(num):
  return [(i, (i + 1) % num) for i in range(num)]


def _ring(rng, index):
  half = rng.uniform(16, 48)
  angles = 360 * np.arange(_RING_CHORDS) / _RING_CHORDS
  return _direction(angles) * [half, half * rng.uniform(0.6, 1)], _cycle(_RING_CHORDS)


def _cross_or_tees(rng, index):
  arms = rng.uniform(20, 45, (4, 1))
  slant = rng.uniform(50, 90)
  along, across = _direction(0.0), _direction(slant)
  ends = arms * [along, -along, across, -across]
  if index % 2 == 0:
    return [np.zeros(2), *ends], [(0, i) for i in range(1, 5)]
  apart = rng.uniform(0.04, 0.1) * SIDE * along
  nodes = [np.zeros(2), apart, ends[0] + apart, ends[1], ends[2], ends[3] + apart]
  return nodes, [(0, 1), (1, 2), (0, 3), (0, 4), (1, 5)]


def _acute(rng, index):
  angles = np.array([0, rng.uniform(10, 25)])
  return [np.zeros(2), *(rng.uniform(50, 90, (2, 1)) * _direction(angles))], [
    (0, 1),
    (0, 2),
  ]


def _parallel(rng, index):
  num = rng.integers(2, 5)
  y = 3.0 * np.arange(num)
  left = rng.uniform(0, 3, num)
  right = rng.uniform(50, 100) - rng.uniform(0, 3, num)
  nodes = np.stack([np.stack([left, y], -1), np.stack([right, y], -1)], axis=1)
  return nodes.reshape(-1, 2), [(2 * i, 2 * i + 1) for i in range(num)]


def _filled(rng, index):
  return _tree_or_polygon(rng, rng.integers(3, 7), 26)


def _one_pixel(rng, index):
  return _tree_or_polygon(rng, rng.integers(3, 7), 16)


def _degree_6(rng, index):
  angles = 60 * np.arange(6) + rng.uniform(-12, 12, 6)
  arms = rng.uniform(25, 54, (6, 1)) * _direction(angles)
  return [np.zeros(2), *arms], [(0, i) for i in range(1, 7)]


def _tree_or_polygon(rng, num, apart):
  """Nodes `[num, 2]` at least `apart` pixels from each other and from other lines."""
  make = (_tree, _polygon)[rng.integers(2)]
  while True:
    nodes, edges = make(rng, num)
    distance = np.linalg.norm(nodes[:, None] - nodes[None], axis=-1)
    clear = [
      distance_metrics.distance_to_edges(
        nodes[[k]], (nodes, np.array([pair for pair in edges if k not in pair]))
      )[0]
      for k in range(num)
    ]
    if (
      distance[np.triu_indices(num, 1)].min() >= apart
      and min(clear) >= apart / 2
      and _bends_show(nodes, edges)
    ):
      return nodes, edges


def _tree(rng, num):
  """The shortest tree through random points: it does not cross itself."""
  nodes = (
    _DISC * np.sqrt(rng.uniform(size=(num, 1))) * _direction(rng.uniform(0, 360, num))
  )
  distance = np.linalg.norm(nodes[:, None] - nodes[None], axis=-1)
  tree = csgraph.minimum_spanning_tree(distance)
  return nodes, [(int(i), int(j)) for i, j in zip(*tree.nonzero(), strict=True)]


def _polygon(rng, num):
  """Corners in the order of their angles: it does not cross itself."""
  angles = (np.arange(num) + rng.uniform(-0.3, 0.3, num)) * 360 / num
  return rng.uniform(20, _DISC, (num, 1)) * _direction(angles), _cycle(num)


def _bends_show(nodes, edges):
  """Whether no node of degree 2 is too straight to be seen as one."""
  for k in range(len(nodes)):
    others = [nodes[i + j - k] - nodes[k] for i, j in edges if k in (i, j)]
    if len(others) == 2:
      a, b = (v / np.linalg.norm(v) for v in others)
      if -(a @ b) > _MIN_TURN:
        return False
  return True


KINDS = {
  'ring': _ring,
  'cross_or_tees': _cross_or_tees,
  'acute': _acute,
  'parallel': _parallel,
  'filled': _filled,
  'one_pixel': _one_pixel,
  'degree_6': _degree_6,
}


def draw(kind, *, seed, index):
  """One drawing and its true graph.

  Args:
    kind: a name of `KINDS`.
    seed: int >= 0.
    index: int >= 0, which drawing.

  Returns:
    image `[128, 128]` float64 in [0, 1], ink 1; nodes `[n, 2]` float64 in [-1, 1];
    edges `[e, 2]` int64.

  Raises:
    ValueError: there is no such kind.
  """
  if kind not in KINDS:
    raise ValueError(f'there is no kind {kind!r}; there are {", ".join(KINDS)}.')
  rng = np.random.default_rng([seed, list(KINDS).index(kind), index])
  nodes_px, edges = KINDS[kind](rng, index)
  turn = rng.uniform(0, 360)
  nodes_px = np.asarray(nodes_px) @ np.stack([_direction(turn), _direction(turn + 90)])
  low, high = nodes_px.min(axis=0), nodes_px.max(axis=0)
  room = SIDE - 2 * MARGIN - (high - low)
  nodes_px = nodes_px - low + MARGIN + rng.uniform(size=2) * room
  edges = np.array(edges)
  width = 1.0 if kind == 'parallel' else rng.uniform(1.5, 3)
  if kind == 'one_pixel':
    image = _single_pixels(nodes_px, edges)
  else:
    points = (geometry.pixel_centres(SIDE, SIDE).reshape(-1, 2) + 1.0) * (SIDE / 2)
    distance = distance_metrics.distance_to_edges(points, (nodes_px, edges))
    if kind == 'filled':
      half = rng.uniform(4, 7, len(nodes_px))
      order = (2, np.inf)[rng.integers(2)]  # Discs, or squares.
      offset = points[:, None] - nodes_px[None]
      inside = np.linalg.norm(offset, ord=order, axis=-1) - half + width / 2
      distance = np.minimum(distance, inside.min(axis=1))
    image = np.clip(width / 2 + 0.5 - distance, 0, 1).reshape(SIDE, SIDE)
  return image, nodes_px / (SIDE / 2) - 1, edges


def _single_pixels(nodes_px, edges):
  """Lines one pixel wide: one pixel for each step along the longer axis."""
  image = np.zeros((SIDE, SIDE))
  for start, end in nodes_px[edges]:
    first, last = np.floor(start), np.floor(end)
    steps = int(np.abs(last - first).max())
    along = np.linspace(0, 1, steps + 1)[:, None]
    x, y = np.floor(first + along * (last - first) + 0.5).astype(int).T
    image[y, x] = 1
  return image


def write(path, kind, *, num_images=100, seed=0):
  """Writes a test set as a graph archive (`img2graph.data.archives`).

  Args:
    path: the `.npz` file.
    kind: a name of `KINDS`.
    num_images: how many, the first of the seed.
    seed: int >= 0.
  """
  drawn = [draw(kind, seed=seed, index=index) for index in range(num_images)]
  images = np.stack([image for image, _, _ in drawn])
  archives.write(path, images, [(nodes, edges) for _, nodes, edges in drawn])
