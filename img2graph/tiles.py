"""Large drawings in overlapping tiles, and the graphs of the tiles stitched to one.

A method looks at a canvas of some 128 pixels, on which a map of 4,000 is a blot. So the
image is divided into cells, and each is looked at in a tile, the cell and what lies
around it. Of a tile's graph only what lies in its cell counts, or at most a margin
beyond, where its neighbours count too: there nodes seen twice become one, edges are
joined to nodes that lie on them, edges seen twice count once, and the ends where tiles
were cut vanish. A line along a border or a junction on it is seen whole by both sides.

numpy. Positions and lengths are in pixels of the image; a box is (left, top, right,
bottom). Letters: N nodes, E edges, H W image.
"""

import collections
import math
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.spatial

from img2graph import chains

# Smallest side of a tile that makes sense, in pixels.
LEAST_SIDE = 32
# Share of a tile's side by which neighbours overlap at least.
_OVERLAP = 0.25
# How far beyond its cell a tile counts, share of its side.
_MARGIN = 0.05
# One piece will do if lines all together are at most so long, in sides.
_FEW_LINES = 6.0
# Tiles are chosen for lines of this width on the canvas, in pixels of it, and at most
# so long.
_LINE_WIDTH = 1.5
_MANY_LINES = 8.0
# Cosine of the angle at which an edge runs beside another.
_BESIDE = 0.9
# Line widths are measured in as many windows of this side: enough for any image.
_WINDOW = 512
_MOST_WINDOWS = 16
# Pieces of ink smaller than this many pixels are specks.
_SPECK = 16
# How much longer the border of pixels is than that of a line, over all directions.
_STAIRS = 1.13
# Ink is what exceeds this share of its level.
_INK_SHARE = 0.4
# A graph explains a drawing if so much of its ink lies beside an edge, that near, in
# sides of the drawing, or as near as this in sides of the image. Letters need no edge:
# what is smaller than this, in sides, does not count, unless all is. The side of a
# strip is its shorter one.
_EXPLAINED = 0.88
_REACH = 0.02
_LEAST_REACH = 0.012
_LEAST_PART = 1 / 16
# The ink is looked at on at most so many pixels a side, at most so many of them inked.
_SEEN_SIDE = 1024
_SEEN_POINTS = 4096


class Lines(NamedTuple):
  """What the lines of a drawing are like.

  Attributes:
    level: of their ink, in (0, 1].
    width: in pixels, to about one.
    length: of all together, in pixels, roughly; half the border of what is filled.
    density: length per pixel where they are dense.
  """

  level: float
  width: float
  length: float
  density: float


class Choice(NamedTuple):
  """Tiles that suit a drawing.

  Attributes:
    side: of the tiles, in pixels.
    sure: whether one piece will not do; else it has to be tried (`is_explained`).
    lines: `Lines` of the drawing.
  """

  side: int
  sure: bool
  lines: Lines


class Tile(NamedTuple):
  """A part of an image: the box that is looked at, and its cell inside."""

  box: tuple
  cell: tuple


class Piece(NamedTuple):
  """A graph, or a part of one.

  Attributes:
    nodes: `[N, 2]` float, (x, y).
    node_prob: `[N]`.
    edges: `[E, 2]` int, each once.
    edge_prob: `[E]`.
  """

  nodes: Any
  node_prob: Any
  edges: Any
  edge_prob: Any


def measure(ink):
  """The lines of a drawing `[H, W]` in [0, 1]: `Lines`, or None without ink."""
  strips = [ink[k : k + _WINDOW] for k in range(0, ink.shape[0], _WINDOW)]
  level = 0.0
  # Ink-weighted, and of what is not far fainter: thin lines in noise are few pixels.
  for _ in range(4):
    square = cube = 0.0
    for strip in strips:
      values = strip[strip > max(level / 2, 1e-3)].astype(np.float64)
      square += (values**2).sum()
      cube += (values**3).sum()
    if not square:
      return None
    level = cube / square
  windows = [
    mask
    for strip in strips
    for k in range(0, ink.shape[1], _WINDOW)
    if (mask := strip[:, k : k + _WINDOW] > level / 2).any()
  ]
  count = min(len(windows), _MOST_WINDOWS)
  chosen = np.linspace(0, len(windows) - 1, count).round().astype(int)
  half_widths, lengths, densities = [], [], []
  for mask in (windows[k] for k in chosen):
    pieces, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    mask = (sizes >= _SPECK)[pieces]
    away = scipy.ndimage.distance_transform_edt(mask)
    ridge = mask & (away == scipy.ndimage.maximum_filter(away, 3))
    half_widths.append(away[ridge])
    lengths.append(_border(mask) / 2)
    densities.append(lengths[-1] / mask.size)
  half_widths = np.concatenate(half_widths)
  if not len(half_widths):
    return None
  # The distance is to the centre of the next pixel, and of even widths half is lost.
  width = 2 * float(np.median(half_widths)) - 0.5
  length = float(np.mean(lengths)) * len(windows)
  # In a drawing that fills one window in ten, that window's.
  density = float(np.quantile(densities, 0.9)) or float(max(densities))
  return Lines(float(level), width, length, density)


def _border(mask):
  """Length of the border of a mask `[H, W]`, in pixels; not along the image's own."""
  across = mask[:-1, 1:] != mask[:-1, :-1]
  down = mask[1:, :-1] != mask[:-1, :-1]
  slanted = np.count_nonzero(across & down)
  return (np.count_nonzero(across ^ down) + math.sqrt(2) * slanted) / _STAIRS


def choose(ink, canvas):
  """The tiles that suit a drawing, or None where one piece will do.

  One piece will do for an image no larger than the canvas, and where lines would be
  wider, or fewer, in no tile. Where there are many it will not. Few are another matter:
  of a diagram its boxes may be too small for the canvas, and of a molecule tiles tell
  the two lines of a double bond apart.

  Args:
    ink: `[H, W]` float in [0, 1].
    canvas: side in pixels of what the method looks at.

  Returns:
    A `Choice`, its side a multiple of `canvas`; or None.
  """
  extent = max(ink.shape)
  if extent <= canvas:
    return None
  lines = measure(ink)
  if lines is None or not lines.length:  # Nothing, or ink all over.
    return None
  side = min(lines.width / _LINE_WIDTH * canvas, _MANY_LINES / lines.density)
  side = canvas * max(1, round(side / canvas))
  if side >= extent:
    return None
  return Choice(side, lines.length > _FEW_LINES * extent, lines)


def is_explained(ink, lines, nodes, edges):
  """Whether a graph explains a drawing: nearly all of its ink lies beside an edge.

  Args:
    ink: `[H, W]` float in [0, 1].
    lines: its `Lines`.
    nodes: `[N, 2]`, (x, y) in pixels.
    edges: `[E, 2]` int.
  """
  extent = max(ink.shape)
  if min(ink.shape) < _LEAST_PART * extent:
    # In a strip nothing would count, and each line along it would explain it all.
    extent = min(ink.shape)
  points = _inked(ink, lines.level / 2, least=_LEAST_PART * extent)
  drawn = min(extent, np.ptp(points, axis=0).max()) if len(points) else 0
  reach = max(_REACH * drawn, _LEAST_REACH * extent) + lines.width / 2
  near = np.zeros(len(points), bool)
  for start, end in zip(nodes[edges[:, 0]], nodes[edges[:, 1]], strict=True):
    edge = end - start
    along = (points - start) @ edge / max(edge @ edge, 1e-12)
    nearest = start + np.clip(along, 0, 1)[:, None] * edge
    near |= np.linalg.norm(points - nearest, axis=1) <= reach
  return near.sum() >= _EXPLAINED * len(points)


def _inked(ink, level, *, least):
  """`[n, 2]`: (x, y) of pixels above a level, of pieces of that size and larger.

  Where no piece is that large, of all that are not far smaller than the largest.
  """
  shrunk = -(-max(ink.shape) // _SEEN_SIDE)
  rows, columns = (np.arange(0, length, shrunk) for length in ink.shape)
  largest = np.maximum.reduceat(np.maximum.reduceat(ink, rows), columns, axis=1)
  pieces, _ = scipy.ndimage.label(largest > level, np.ones((3, 3)))
  sizes = np.array(
    [0]
    + [
      max(part.stop - part.start for part in box) * shrunk
      for box in scipy.ndimage.find_objects(pieces)
    ]
  )
  if sizes.max() < least:
    least = max(_LEAST_PART * sizes.max(), 1)
  y, x = np.nonzero((sizes >= least)[pieces])
  points = np.stack([x, y], axis=-1)[:: max(1, len(x) // _SEEN_POINTS)]
  return (points + 0.5) * shrunk


def plan(height, width, side):
  """Tiles of an image, row by row: their cells cover it, each pixel once.

  Args:
    height: of the image.
    width: likewise.
    side: of the tiles; where the image is smaller so are they.

  Returns:
    list of `Tile`.
  """
  rows, columns = _divide(height, side), _divide(width, side)
  return [
    Tile((x[0], y[0], x[1], y[1]), (x[2], y[2], x[3], y[3]))
    for y in rows
    for x in columns
  ]


def _divide(length, side):
  """[(start, end, start of the cell, end of the cell)] along one axis."""
  if length <= side:
    return [(0, length, 0, length)]
  count = math.ceil((length - side) / (side * (1 - _OVERLAP))) + 1
  starts = np.linspace(0, length - side, count).round().astype(int).tolist()
  borders = [(a + side + b) / 2 for a, b in zip(starts[:-1], starts[1:], strict=True)]
  borders = [0, *borders, length]
  return [
    (start, start + side, borders[k], borders[k + 1]) for k, start in enumerate(starts)
  ]


def has_ink(ink, tile, side, lines):
  """Whether there is a line in what counts of a tile: noise is none, nor is a speck.

  Args:
    ink: `[H, W]` float in [0, 1], the whole image.
    tile: `Tile`.
    side: of the tiles.
    lines: `Lines` of the whole image.
  """
  left, top, right, bottom = counted_box(tile, side, ink.shape)
  part = ink[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
  least = _INK_SHARE * lines.level
  if not (part > least).any():
    return False
  size = max(2, round(lines.width))
  blurred = scipy.ndimage.uniform_filter(part, size, mode='constant')
  return int((blurred > least).sum()) >= 2 * size**2


def counted_box(tile, side, shape):
  """The box of a tile in which its graph counts: its cell and a margin."""
  margin = _MARGIN * side
  left, top, right, bottom = tile.cell
  height, width = shape
  return (
    max(left - margin, 0),
    max(top - margin, 0),
    min(right + margin, width),
    min(bottom + margin, height),
  )


def clip(piece, box, least=0):
  """The part of a graph in a box.

  Args:
    piece: `Piece`.
    box: what lies beyond is left out, and edges that cross its border are cut there.
    least: of an edge that is cut less than this is not kept.

  Returns:
    `Piece`, and `[N]` bool: which of its nodes are ends of cut edges.
  """
  nodes = np.asarray(piece.nodes, np.float64).reshape(-1, 2)
  edges = np.asarray(piece.edges, int).reshape(-1, 2)
  edge_prob = np.asarray(piece.edge_prob, np.float64)
  low, high = np.array(box[:2], float), np.array(box[2:], float)
  start = nodes[edges[:, 0]]
  along = nodes[edges[:, 1]] - start
  enters, leaves = cross(start, along, box)
  inside = ((nodes >= low) & (nodes <= high)).all(axis=1)
  whole = inside[edges].all(axis=1)
  length = (leaves - enters) * np.linalg.norm(along, axis=1)
  (kept,) = np.nonzero(whole | (length > least))
  number = np.cumsum(inside) - 1
  ends, cuts, cut_prob = number[edges[kept]], [], []
  for side, share in enumerate((enters, leaves)):
    (cut,) = np.nonzero(~inside[edges[kept, side]])
    ends[cut, side] = inside.sum() + sum(map(len, cuts)) + np.arange(len(cut))
    place = start[kept[cut]] + share[kept[cut], None] * along[kept[cut]]
    cuts.append(np.clip(place, low, high))
    cut_prob.append(edge_prob[kept[cut]])
  part = Piece(
    np.concatenate([nodes[inside], *cuts]),
    np.concatenate([np.asarray(piece.node_prob, np.float64)[inside], *cut_prob]),
    ends,
    edge_prob[kept],
  )
  return part, np.arange(len(part.nodes)) >= inside.sum()


def cross(start, along, box):
  """Where segments enter a box and where they leave it.

  Args:
    start: `[E, 2]` float, the first ends.
    along: `[E, 2]` float, from the first ends to the second.
    box: (left, top, right, bottom).

  Returns:
    two `[E]` shares of the way; of what lies outside the first exceeds the second.
  """
  low, high = np.array(box[:2], float), np.array(box[2:], float)
  # An axis along which an edge does not run cuts nothing of it, or all.
  safe = np.where(along == 0, 1, along)
  at = np.stack([(low - start) / safe, (high - start) / safe])  # [2, E, 2]
  between = (start >= low) & (start <= high)
  all_or_nothing = np.where(between, [[[-1.0]], [[2.0]]], 2.0)
  at = np.where(along == 0, all_or_nothing, at)
  enters = np.maximum(0, at.min(axis=0).max(axis=1))
  leaves = np.minimum(1, at.max(axis=0).min(axis=1))
  return enters, leaves


def stitch(pieces, tiles, side, shape, *, merge, joint):
  """The graph of an image from those of its tiles, which may come in any order.

  Args:
    pieces: `Piece` of each tile.
    tiles: `Tile` of each, as from `plan`; those without ink may be left out.
    side: of the tiles.
    shape: (height, width) of the image.
    merge: nodes of two tiles nearer than this are one.
    joint: a node of one tile lies on an edge of another if nearer than this.

  Returns:
    `Piece`, within the image; no node in it is there only because a tile ended.
  """
  height, width = shape
  parts, boxes, cuts, depth = [], [], [], []
  for piece, tile in zip(pieces, tiles, strict=True):
    box = counted_box(tile, side, shape)
    nodes = np.clip(np.reshape(piece.nodes, (-1, 2)), 0, [width, height])
    # A short end says nothing about where its line runs; the next tile knows.
    part, cut = clip(piece._replace(nodes=nodes), box, least=merge)
    low, high = np.array(tile.cell[:2]), np.array(tile.cell[2:])
    parts.append(part)
    boxes.append(box)
    cuts.append(cut)
    # Further inside a cell more of the surroundings was seen.
    depth.append(np.minimum(part.nodes - low, high - part.nodes).min(axis=1))
  if not parts:
    return Piece(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2), int), np.zeros(0))
  nodes = np.concatenate([part.nodes for part in parts])
  prob = np.concatenate([part.node_prob for part in parts])
  owner = np.repeat(np.arange(len(parts)), [len(part.nodes) for part in parts])
  is_cut, depth = np.concatenate(cuts), np.concatenate(depth)
  back = np.concatenate([_backs(p, c, merge) for p, c in zip(parts, cuts, strict=True)])
  name = _unite(nodes, owner, is_cut, depth, merge)
  edges = {}  # {(i, j): probability}, i < j
  start = 0
  for part, box in zip(parts, boxes, strict=True):
    on_edge = collections.defaultdict(list)  # {edge: [(share of the way, node)]}
    members = start + np.arange(len(part.nodes))
    inside = ((nodes >= box[:2]) & (nodes <= box[2:])).all(axis=1)
    others = np.setdiff1d(name[inside], name[members])
    for k in others.tolist():
      found = _nearest(nodes[k], back[k], part.nodes, part.edges, joint, merge)
      if found:
        on_edge[found[0]].append((found[1], k))
    for k, (i, j) in enumerate((name[start + part.edges]).tolist()):
      chain = [i, *(node for _, node in sorted(on_edge[k])), j]
      for pair in zip(chain[:-1], chain[1:], strict=True):
        _add_edge(edges, *pair, float(part.edge_prob[k]))
    start += len(part.nodes)
  _drop_cuts(edges, nodes, is_cut, spur=2 * _MARGIN * side, tolerance=joint / 2)
  pairs = np.array(sorted(edges), int).reshape(-1, 2)
  used, ends = np.unique(pairs, return_inverse=True)
  edge_prob = np.array([edges[pair] for pair in sorted(edges)])
  return Piece(nodes[used], prob[used], ends.reshape(-1, 2), edge_prob)


def _backs(part, is_cut, step):
  """`[N, 2]`: a step back along its edge from each end of a cut one, else the node.

  Where lines meet at an acute angle it tells which one an end belongs to.
  """
  back = part.nodes.copy()
  for k, other in (*part.edges.tolist(), *part.edges[:, ::-1].tolist()):
    if is_cut[k]:
      edge = part.nodes[other] - part.nodes[k]
      back[k] += edge * min(1, step / np.linalg.norm(edge))
  return back


def _unite(nodes, owner, is_cut, depth, merge):
  """`[N]`: the node that stands for each, the one that is deepest in its cell.

  The nearest pairs come first. A node takes at most one of each tile, for what a tile
  tells apart is not one; but several ends of cut edges may be one node of another.
  """
  name = np.arange(len(nodes))
  tree = scipy.spatial.cKDTree(nodes)
  pairs = tree.query_pairs(merge, output_type='ndarray')
  pairs = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
  away = np.linalg.norm(nodes[pairs[:, 0]] - nodes[pairs[:, 1]], axis=1)
  pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], away))]
  seen_by = {k: {int(owner[k])} for k in range(len(nodes))}
  num_cut = is_cut[pairs].sum(axis=1)
  for i, j in pairs[num_cut == 1].tolist():
    cut, real = (i, j) if is_cut[i] else (j, i)
    if name[cut] == cut:
      name[cut] = real
  free = name == np.arange(len(nodes))
  for i, j in pairs[num_cut != 1].tolist():
    if not (free[i] and free[j]):
      continue
    i, j = name[i], name[j]
    if not seen_by[i] & seen_by[j]:
      best, other = (i, j) if depth[i] >= depth[j] else (j, i)
      name[name == other] = best
      seen_by[best] |= seen_by[other]
  return name


def _add_edge(edges, i, j, prob):
  """Adds an edge to {(i, j): probability}; one that is there has the larger one."""
  if i != j:
    pair = (min(i, j), max(i, j))
    edges[pair] = max(prob, edges.get(pair, 0.0))


def _nearest(point, back, nodes, ends, limit, back_limit):
  """The edge nearest to two points, each within its limit.

  Returns:
    its number and the share of the way along it at which the first point lies beside
    it, in (0, 1); or None.
  """
  along, away = _to_edges(point, nodes, ends)
  _, back_away = _to_edges(back, nodes, ends)
  (near,) = np.nonzero((away <= limit) & (back_away <= back_limit))
  if not len(near):
    return None
  k = int(near[away[near].argmin()])
  return (k, float(along[k])) if 0 < along[k] < 1 else None


def _to_edges(point, nodes, ends):
  """`[E]` share of the way along each edge nearest to a point, and how far it is."""
  first = nodes[ends[:, 0]]
  edge = nodes[ends[:, 1]] - first
  squared = np.maximum((edge**2).sum(axis=1), 1e-12)
  along = np.clip(((point - first) * edge).sum(axis=1) / squared, 0, 1)
  return along, np.linalg.norm(first + along[:, None] * edge - point, axis=1)


def _drop_cuts(edges, nodes, is_cut, *, spur, tolerance):
  """Takes the ends of cut edges out of lines.

  An end that no other tile goes on from stays, for a line that only one tile sees,
  unless its edge is shorter than `spur` or runs beside another from the same node. A
  rung shorter than that between two ends where lines go on is none of the drawing.
  """
  neighbours = collections.defaultdict(set)
  for i, j in edges:
    neighbours[i].add(j)
    neighbours[j].add(i)

  def unlink(i, j):
    neighbours[i].discard(j)
    neighbours[j].discard(i)
    return edges.pop((min(i, j), max(i, j)))

  def settle():
    waiting = [k for k in sorted(neighbours) if is_cut[k]]
    while waiting:
      k = waiting.pop()
      if len(neighbours[k]) == 1:
        (a,) = neighbours[k]
        edge = nodes[k] - nodes[a]
        length = np.linalg.norm(edge)
        others = nodes[sorted(neighbours[a] - {k})] - nodes[a]
        beside = others @ edge > _BESIDE * length * np.linalg.norm(others, axis=1)
        if length < spur or beside.any():
          unlink(k, a)
          waiting += [a] if is_cut[a] else []
      elif len(neighbours[k]) == 2:
        a, b = sorted(neighbours[k])
        _, away = _to_edges(nodes[k], nodes, np.array([[a, b]]))
        if away[0] <= tolerance:
          _add_edge(edges, a, b, min(unlink(k, a), unlink(k, b)))
          neighbours[a].add(b)
          neighbours[b].add(a)

  settle()
  # Near the corner of four tiles an end on one side of an acute angle may have been
  # joined to one on the other: a triangle whose corner no tile saw.
  between = (pair for pair in edges if is_cut[pair[0]] and is_cut[pair[1]])
  rungs = sorted((float(np.linalg.norm(nodes[i] - nodes[j])), i, j) for i, j in between)
  before = len(edges)
  for length, i, j in rungs:
    if length < spur and min(len(neighbours[i]), len(neighbours[j])) >= 3:
      unlink(i, j)
  if len(edges) < before:
    settle()


def straighten(piece, tolerance):
  """As `chains.simplify`, of a graph of any size; the tolerance is in pixels."""
  neighbours = {k: set() for k in range(len(piece.nodes))}
  edge_prob = {}
  for (i, j), prob in zip(piece.edges.tolist(), piece.edge_prob, strict=True):
    neighbours[i].add(j)
    neighbours[j].add(i)
    edge_prob[min(i, j), max(i, j)] = float(prob)
  chains.straighten(piece.nodes, neighbours, edge_prob, tolerance)
  kept = np.array(sorted(neighbours), int)
  pairs = np.array(sorted(edge_prob), int).reshape(-1, 2)
  return Piece(
    piece.nodes[kept],
    piece.node_prob[kept],
    np.searchsorted(kept, pairs),
    np.array([edge_prob[tuple(pair)] for pair in pairs.tolist()]),
  )
