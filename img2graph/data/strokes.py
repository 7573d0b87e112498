"""Varied line drawings: rough strokes as input, clean straight chords as target.

A drawing is a list of strokes; a stroke is a chain of up to eight straight chords, or a
smooth curve through their ends. Eleven kinds of drawing (`KINDS`) place the strokes:
polygons, triangles and true rectangles, polylines, curves and loops, stars, crossings,
trees, letter-like joints, frames and grids, roads that run to the border, and
molecules: rings and zigzag chains of chords of one length. Up to four drawings may
share a canvas.

The same strokes are then drawn twice. The *image* is sloppy: bent and wavy strokes,
corners that overshoot or stay open, gaps, other widths, pressure, blur, noise and a
grey background. It also shows what is no line of the drawing: the second line of a
double bond, the circle in a ring, letters and words that hide a node, and dots, small
marks and words on empty paper; and it lacks what was erased. The
*target* is what such a drawing means: straight chords of one width at full ink, one for
a double bond, and up to the node under a letter. Learning to draw the target from the
image needs no graph.

The true graph is planar: every crossing and every T joint is a node. Chords are taken
one by one, each only if the graph stays clear: `min_gap` between any two nodes and
between the end of a chord and any chord that it does not touch, no angle below 20
degrees, no more nodes than the capacity; chords of molecules cross nothing. A chord
that does not fit ends its stroke.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import graph as graph_lib
from img2graph import ranges
from img2graph.data import drawing
from img2graph.data import sources

_STROKES = 6  # most strokes of one drawing
_POINTS = 9  # most points of one stroke
_DRAWINGS = 4  # most drawings on one canvas
_DOUBLES = 8  # most chords of one canvas that are drawn double
_LABELS = 4  # most labels of one canvas
_DISTRACTORS = 4  # most distractors of one canvas
_LETTERS = 3  # most letters of a word behind its first
_ERASED = 8  # most places of one canvas that are erased
_NUMBERS = _STROKES * _POINTS * 4 + 16  # uniform numbers that make one drawing
_GLYPH_STROKES = 3  # most strokes of a label or a distractor
_SHORT = 0.02  # how far strokes may end before their joint, unless all is one polygon
_WIDEST = 0.65  # width of a line as a share of the shortest edge and the least space
_TOUCH = 2e-3  # points nearer than this are the same, in coordinate units
_MIN_SINE = float(np.sin(np.deg2rad(20)))  # flattest angle at a joint or crossing
_MIN_COSINE = float(np.cos(np.deg2rad(20)))


def _integer(uniform, low, high):
  """Uniform [0, 1) to an integer in [low, high]."""
  return low + jnp.floor(uniform * (high - low + 1)).astype(jnp.int32)


def _signed(uniform):
  """Uniform [0, 1) to [-1, 1)."""
  return 2 * uniform - 1


def _direction(angle):
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _cross(a, b):
  return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _segment_distance(points, start, end):
  """Distance of points `[P, 2]` to segments from `[E, 2]` to `[E, 2]`: `[P, E]`."""
  edge = end - start
  offset = points[:, None] - start[None]
  length_sq = jnp.maximum(jnp.sum(edge**2, axis=-1), 1e-12)
  along = jnp.sum(offset * edge[None], axis=-1) / length_sq[None]
  along = jnp.clip(along, 0, 1)[..., None]
  return jnp.linalg.norm(offset - along * edge[None], axis=-1)


def _walk(start, heading, turns, steps):
  """Points of a chain, `[..., K, 2]`.

  Args:
    start: `[..., 2]`.
    heading: `[...]` direction of the first step in radians.
    turns: `[..., K-2]` radians before each further step.
    steps: `[..., K-1]` lengths.
  """
  turned = jnp.cumsum(jnp.concatenate([heading[..., None], turns], axis=-1), axis=-1)
  moved = jnp.cumsum(steps[..., None] * _direction(turned), axis=-2)
  start = start[..., None, :]
  return jnp.concatenate([start, start + moved], axis=-2)


def _one_stroke(points, count, smooth):
  """A drawing whose first stroke is `points` `[K, 2]` and whose others are absent."""
  first = np.arange(_STROKES) == 0
  points = jnp.broadcast_to(points[None], (_STROKES, _POINTS, 2))
  return points, jnp.where(first, count, 0), jnp.where(first, smooth, 0.0)


# A kind maps uniform numbers u [L, K, 4] and v [16] to points [L, K, 2], the number
# of points of each stroke [L] (0: absent) and its smoothness [L] (0 straight, 1 curve).
# Kinds whose strokes touch those before them (`_STEPWISE`) map v to a number of strokes
# and to the function that `_one_by_one` calls for each.


def _polygon(u, v):
  round_ = v[1] < 0.3
  num = jnp.where(round_, _integer(v[0], 6, 8), _integer(v[0], 3, 7))
  index = jnp.arange(_POINTS)
  angle = 2 * np.pi * (index + 0.3 * _signed(u[0, :, 0])) / num
  radius = 1 - jnp.where(round_, 0.15, 0.45) * u[0, :, 1]
  corners = radius[:, None] * _direction(angle)
  # The last point closes the polygon.
  closed = corners[jnp.where(index >= num, index - num, index)]
  return _one_stroke(closed, num + 1, round_.astype(jnp.float32))


def _quad(u, v):
  """A triangle, or a rectangle with right angles, often thin."""
  rectangle = v[0] < 0.55
  height = 0.12 ** v[1]
  square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)] + 4 * [(0, 0)])
  box = jnp.asarray(square, jnp.float32) * jnp.stack([jnp.ones(()), height])[None]
  apex = jnp.stack([1.2 * _signed(v[2]), -1 + 2 * jnp.maximum(v[1], 0.15)])
  base = jnp.array([(-1.0, -1.0), (1.0, -1.0)])
  rest = jnp.zeros((_POINTS - 4, 2))
  triangle = jnp.concatenate([base, apex[None], base[:1], rest])
  points = jnp.where(rectangle, box, triangle)
  return _one_stroke(points, jnp.where(rectangle, 5, 4), 0.0)


def _polyline(u, v):
  sign = jnp.where(u[0, :-2, 0] < 0.5, -1, 1)
  turns = sign * jnp.deg2rad(30 + 100 * u[0, :-2, 1])
  points = _walk(jnp.zeros(2), jnp.zeros(()), turns, 0.5 + 0.5 * u[0, :-1, 2])
  return _one_stroke(points, _integer(v[0], 2, 8), 0.0)


def _curve(u, v):
  bend = jnp.deg2rad(15 + 40 * v[1])
  flip = _integer(v[2] / 0.4, 1, 6)  # often beyond the end: no flip
  sign = jnp.where(np.arange(_POINTS - 2) < flip, 1, -1)
  turns = sign * bend * (0.6 + 0.8 * u[0, :-2, 0])
  points = _walk(jnp.zeros(2), jnp.zeros(()), turns, 0.7 + 0.3 * u[0, :-1, 1])
  return _one_stroke(points, _integer(v[0], 3, 9), 1.0)


def _star(u, v):
  arms = _integer(v[0], 3, _STROKES)
  index = np.arange(_STROKES)
  angle = 2 * np.pi * (index + 0.3 * _signed(u[:, 0, 0])) / arms
  tips = (0.45 + 0.55 * u[:, 0, 1])[:, None] * _direction(angle)
  points = jnp.broadcast_to(tips[:, None], (_STROKES, _POINTS, 2))
  points = points * (np.arange(_POINTS) == 1).astype(np.float32)[None, :, None]
  return points, jnp.where(index < arms, 2, 0), jnp.zeros(_STROKES)


def _crossing(u, v):
  """Two to five long strokes through the middle."""
  strokes = _integer(v[0], 2, 5)
  angle = 2 * np.pi * u[:, 0, 0]
  start = _direction(angle)
  heading = angle + np.pi + 0.6 * _signed(u[:, 0, 1])
  count = _integer(u[:, 0, 2] ** 2, 2, 4)
  step = (1.2 + 0.8 * u[:, 0, 3]) / (count - 1)
  turns = jnp.deg2rad(40) * _signed(u[:, 1:-1, 0])
  points = _walk(start, heading, turns, jnp.repeat(step[:, None], _POINTS - 1, axis=1))
  smooth = (u[:, 1, 1] < 0.5).astype(jnp.float32)
  return points, jnp.where(np.arange(_STROKES) < strokes, count, 0), smooth


def _point_on(points, counts, s, u, *, corner):
  """A point of the strokes before stroke `s`: `[2]`, the origin if there is none.

  Args:
    points: `[L, K, 2]`.
    counts: `[L]` int.
    s: [] int.
    u: `[3]` uniform numbers.
    corner: [] bool: an end of a chord, or a place within it.
  """
  stroke = _integer(u[0], 0, s - 1)
  chain, count = points[stroke], counts[stroke]
  chord = jnp.clip(_integer(u[1], 0, count - 2), 0, _POINTS - 2)
  along = jnp.where(corner, jnp.round(u[2]), 0.2 + 0.6 * u[2])
  start, end = chain[chord], chain[chord + 1]
  return start + along * (end - start)


def _one_by_one(stroke, u):
  """Strokes that may touch those before them.

  Args:
    stroke: `(s, w, points, counts) -> (chain [K, 2], count, smooth)`, with the strokes
      before `s`, and w `[4K]` uniform numbers.
    u: `[L, K, 4]` uniform numbers.

  Returns:
    points `[L, K, 2]`, counts `[L]`, smooths `[L]`.
  """

  def step(carry, s):
    points, counts, smooths = carry
    chain, count, smooth = stroke(s, u[s].reshape(-1), points, counts)
    here = np.arange(_STROKES) == s
    points = jnp.where(here[:, None, None], chain[None], points)
    return (
      points,
      jnp.where(here, count, counts),
      jnp.where(here, smooth, smooths),
    ), None

  zero = 0 * u[:, 0, 0]
  start = (0 * u[..., :2], zero.astype(jnp.int32), zero)
  # A loop on the device, since unrolled it takes seconds to compile.
  return jax.lax.scan(step, start, np.arange(_STROKES))[0]


def _joined(v, *, corner, free, square, bridge, bent, curved, apart):
  """Strokes that start on strokes before them.

  Args:
    v: `[16]` uniform numbers.
    corner: share of strokes that start at a corner and not within a chord.
    free: share of strokes that start anywhere.
    square: share of strokes along the axes or their bisectors.
    bridge: share of straight strokes that also end on a stroke before them.
    bent: share of strokes with one bend.
    curved: share of strokes that are bowls.
    apart: share of ends on a stroke that stop short of it, as far as one can see.

  Returns:
    number of strokes [] int, and a function for `_one_by_one`.
  """

  def stroke(s, w, points, counts):
    count = jnp.where(w[0] < bent, 3, 2)
    count = jnp.where(w[0] > 1 - curved, _integer(w[1], 4, 5), count)
    bowl = count > 3
    angle = 2 * np.pi * w[2]
    eighth = jnp.round(w[2] * 8 - 0.3 * _signed(w[3])) * (np.pi / 4)
    heading = jnp.where(w[4] < square, eighth + 0.12 * _signed(w[5]), angle)
    sign = jnp.where(w[6] < 0.5, -1, 1)
    turn = jnp.where(bowl, jnp.deg2rad(30 + 25 * w[7]), jnp.deg2rad(40 + 70 * w[7]))
    length = (0.4 + 0.7 * w[8]) * jnp.where(bowl, 0.5, 1.0)
    anywhere = 0.8 * jnp.stack([_signed(w[9]), _signed(w[10])])
    touching = _point_on(points, counts, s, w[11:14], corner=w[14] < corner)
    space = 0.07 + 0.18 * w[21:23]
    space = jnp.where(w[23:25] < apart, space, 0.0)
    touching = touching + space[0] * _direction(heading)
    start = jnp.where((w[15] < free) | (s == 0), anywhere, touching)
    chain = _walk(
      start,
      heading,
      jnp.broadcast_to(sign * turn, (_POINTS - 2,)),
      jnp.broadcast_to(length, (_POINTS - 1,)),
    )
    other = _point_on(points, counts, s, w[16:19], corner=w[19] < corner)
    way = start - other
    other = other + space[1] * way / jnp.maximum(jnp.linalg.norm(way), 1e-3)
    far = jnp.where((w[20] < bridge) & (count == 2) & (s > 0), other, chain[1])
    return chain.at[1].set(far), count, bowl.astype(jnp.float32)

  return _integer(jnp.sqrt(v[0]), 2, _STROKES), stroke


def _tree(v):
  return _joined(
    v, corner=1.0, free=0.0, square=0.2, bridge=0.0, bent=0.3, curved=0.0, apart=0.0
  )


def _letter(v):
  return _joined(
    v,
    corner=0.4,
    free=0.15,
    square=0.75,
    bridge=0.2,
    bent=0.2,
    curved=0.25,
    apart=0.35,
  )


def _frame(u, v):
  """Up to three lines across and three down that end on each other or stick out."""
  across, down = _integer(v[0], 1, 3), _integer(v[1], 1, 3)
  rank = np.arange(3)

  def places(num, uniform):
    gap = 2.0 / jnp.maximum(num - 1, 1)
    spread = gap * (rank + 0.25 * _signed(uniform)) - 1
    # A single line lies near the middle; of several, the last has the rank num - 1.
    spread = jnp.where(num == 1, 0.7 * _signed(uniform), spread)
    return spread, spread[0], spread[num - 1]

  y, top, bottom = places(across, u[0, :3, 0])
  x, left, right = places(down, u[0, :3, 1])

  def extent(low, high, num, uniform):
    """Ends of three lines; they reach the outermost line across them, or beyond."""
    beyond = 0.25 + 0.6 * uniform[:, :2]
    stick_out = (uniform[:, 2] < 0.5)[:, None] | (num == 1)
    beyond = jnp.where(stick_out, beyond, 0.0)
    return low - beyond[:, 0], high + beyond[:, 1]

  x0, x1 = extent(left, right, down, u[1, :3])
  y0, y1 = extent(top, bottom, across, u[2, :3])
  start = jnp.concatenate([jnp.stack([x0, y], -1), jnp.stack([x, y0], -1)])
  end = jnp.concatenate([jnp.stack([x1, y], -1), jnp.stack([x, y1], -1)])
  present = jnp.concatenate([rank < across, rank < down])
  points = jnp.concatenate([start[:, None], jnp.repeat(end[:, None], 8, axis=1)], 1)
  return points, jnp.where(present, 2, 0), jnp.zeros(_STROKES)


def _roads(v):
  """Streets, some parallel, from border to border or from a street to the border.

  Positions are final: [-1, 1] is the canvas.
  """
  grid = np.pi * v[1]

  def stroke(s, w, points, counts):
    straight = grid + jnp.where(w[0] < 0.6, 0.0, np.pi / 2) + 0.1 * _signed(w[1])
    angle = jnp.where(w[2] < 0.7, straight, 2 * np.pi * w[2] / 0.3)
    heading = _direction(angle)
    normal = _direction(angle + np.pi / 2)
    # The golden ratio spreads parallel streets over the canvas.
    middle = jnp.clip(_signed((v[2] + 0.618 * s) % 1) * normal, -0.85, 0.85)
    joined = (w[4] < 0.45) & (s > 0)
    touching = _point_on(points, counts, s, w[5:8], corner=w[8] < 0.3)
    middle = jnp.where(joined, jnp.clip(touching, -0.98, 0.98), middle)

    def border(sense):
      """Where the ray from `middle` along `sense * heading` leaves the canvas."""
      ray = sense * heading
      ray = jnp.where(jnp.abs(ray) < 1e-4, 1e-4, ray)
      return middle + jnp.min((jnp.sign(ray) - middle) / ray) * ray

    start = jnp.where(joined, middle, border(-1.0))
    end = border(1.0)
    count = _integer(w[9] ** 1.5, 2, 5)
    share = jnp.minimum(np.arange(_POINTS) / (count - 1), 1.0)[:, None]
    inner = (share > 0) & (share < 1)
    sway = 0.3 * w[10] * _signed(w[11 : 11 + _POINTS])[:, None] * normal[None]
    chain = start[None] + share * (end - start)[None] + jnp.where(inner, sway, 0.0)
    return jnp.clip(chain, -1, 1), count, (w[30] < 0.5).astype(jnp.float32)

  return _integer(jnp.sqrt(v[0]), 1, _STROKES), stroke


def _molecule(v):
  """Rings and zigzag chains that bond to each other; every chord has length 1.

  A stroke is a zigzag chain, often of a single chord, a ring at the end of one chord,
  or a ring that shares an edge with what is there. It starts at a corner of a stroke
  before it and leaves that at equal angles to the chords there, as bonds do.
  """
  sixty = np.float32(np.pi / 3)

  def stroke(s, w, points, counts):
    place = _point_on(points, counts, s, w[:3], corner=jnp.ones((), bool))
    # Directions of the chords that meet there, away from it.
    start, end = points[:, :-1], points[:, 1:]
    valid = np.arange(_POINTS - 1)[None] < (counts - 1)[:, None]
    ends = jnp.stack([start, end])  # [2, L, K-1, 2]
    away = jnp.stack([end - start, start - end]).reshape(-1, 2)
    met = jnp.linalg.norm(ends - place[None, None, None], axis=-1) < 0.01
    met = (met & valid[None]).reshape(-1)
    degree = jnp.sum(met)
    total = jnp.sum(jnp.where(met[:, None], away, 0.0), axis=0)
    one = jnp.sum(
      jnp.where((np.arange(met.size) == jnp.argmax(met))[:, None], away, 0.0), axis=0
    )
    base = jnp.where(w[3] < 0.5, one, total - one)

    sign = jnp.where(w[4] < 0.5, -1.0, 1.0)
    size = jnp.where(w[5] < 0.25, 5, 6)
    turn = 2 * np.pi / size
    ring = (s == 0) & (w[6] < 0.75)
    fused = (degree == 2) & (w[6] < 0.3)
    hanging = (s > 0) & ~fused & (w[6] < 0.5)
    chain = jnp.where(s == 0, _integer(w[7], 3, _POINTS), _integer(w[7] ** 2, 2, 7))

    outward = jnp.arctan2(-total[1], -total[0])
    outward = outward + jnp.where(degree == 1, sign * sixty, 0.0)
    # The fused ring lies on the side of `base` where the other chord is not.
    side = jnp.sign(_cross(base, total - base))
    along = jnp.arctan2(base[1], base[0]) - side * (np.pi - turn)
    heading = jnp.where(fused, along, jnp.where(s == 0, 0.0, outward))
    index = np.arange(_POINTS - 2)
    around = jnp.where(index == 0, (np.pi - turn) / 2, -turn)
    zigzag = np.where(index % 2 == 0, -sixty, sixty)
    turns = sign * jnp.where(hanging, around, zigzag)
    turns = jnp.where(ring | fused, jnp.where(fused, side, 1.0) * turn, turns)
    count = jnp.where(ring, size + 1, jnp.where(fused, size, chain))
    count = jnp.where(hanging, size + 2, count)
    # Three chords leave no room for a fourth.
    crowded = degree > 2
    steps = jnp.where(crowded, 0.0, jnp.ones(_POINTS - 1))
    bonds = _walk(place, heading, turns, steps)
    return bonds, jnp.where(crowded, 0, count), jnp.zeros(())

  return _integer(jnp.sqrt(v[0]), 1, _STROKES), stroke


_STEPWISE = (_tree, _letter, _roads, _molecule)

# Name -> (function, default weight, share drawn upright, least aspect, most shear).
KINDS = {
  'polygon': (_polygon, 1.0, 0.3, 0.5, 0.2),
  'quad': (_quad, 1.5, 0.5, 1.0, 0.0),
  'polyline': (_polyline, 1.0, 0.0, 0.6, 0.2),
  'curve': (_curve, 1.0, 0.0, 0.6, 0.2),
  'star': (_star, 0.5, 0.3, 0.7, 0.2),
  'crossing': (_crossing, 0.8, 0.0, 0.7, 0.2),
  'tree': (_tree, 0.8, 0.5, 0.7, 0.2),
  'letter': (_letter, 2.0, 1.0, 0.6, 0.2),
  'frame': (_frame, 1.0, 1.0, 0.5, 0.2),
  'roads': (_roads, 1.5, 1.0, 1.0, 0.0),
  'molecule': (_molecule, 1.5, 0.0, 1.0, 0.0),
}


def _number_of(name):
  """Place of a kind in `KINDS`."""
  return list(KINDS).index(name)


def _cut_to(points, count, limit):
  """Ends a drawing before the first point that makes it too large.

  Args:
    points: `[L, K, 2]`.
    count: `[L]` int, number of points that count.
    limit: [] most diagonal of the box around all points that stay, so that the drawing
      is no longer than that in any direction.

  Returns:
    `[L]` int, number of points that still count.
  """
  counted = np.arange(_POINTS)[None] < count[:, None]
  flat = points.reshape(-1, 2)
  there = counted.reshape(-1, 1)
  low = jax.lax.cummin(jnp.where(there, flat, jnp.inf), axis=0)
  high = jax.lax.cummax(jnp.where(there, flat, -jnp.inf), axis=0)
  fits = jnp.linalg.norm(high - low, axis=-1) <= limit
  return jnp.sum(counted & fits.reshape(counted.shape), axis=1)


def _place(points, count, u, *, upright, aspect, shear, box, least):
  """Aspect, shear and rotation of a drawing, then scale and shift into a box.

  Args:
    points: `[L, K, 2]`.
    count: `[L]` int, number of points that count.
    u: `[8]` uniform numbers.
    upright: [] share of drawings turned by a few degrees only.
    aspect: [] least factor of the y axis.
    shear: [] greatest shear.
    box: `[3, 2]`: low corner, high corner, (least, greatest) share of the box to fill.
    least: [] least scale, where the box has room for it.

  Returns:
    `[L, K, 2]` inside the box.
  """
  x, y = points[..., 0], points[..., 1]
  y = y * drawing.pick(u[0], (aspect, 1.0))
  x = x + shear * _signed(u[1]) * y
  angle = jnp.where(u[2] < upright, 0.15 * _signed(u[3]), 2 * np.pi * u[3])
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  points = jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
  counted = (np.arange(_POINTS)[None] < count[:, None])[..., None]
  low = jnp.where(counted, points, jnp.inf).min(axis=(0, 1))
  high = jnp.where(counted, points, -jnp.inf).max(axis=(0, 1))
  room = box[1] - box[0]
  fill = drawing.pick(u[4], (box[2, 0], box[2, 1]))
  most = jnp.min(room / jnp.maximum(high - low, 1e-3))
  factor = jnp.minimum(jnp.maximum(fill * most, least), most)
  shift = box[0] + u[5:7] * (room - factor * (high - low))
  return factor * (points - low[None, None]) + shift[None, None]


def _one_drawing(numbers, weights, box, *, min_gap):
  """Strokes of one drawing.

  Args:
    numbers: `[_NUMBERS]` uniform.
    weights: `[K]` of the kinds.
    box: `[3, 2]`, see `_place`.
    min_gap: see `sample`.

  Returns:
    points `[L, K, 2]`, count `[L]`, smooth `[L]`, and the number of its kind `[L]`.
  """
  u, v = numbers[16:].reshape(_STROKES, _POINTS, 4), numbers[:16]
  share = jnp.cumsum(weights) / jnp.sum(weights)
  kind = jnp.minimum(jnp.sum(v[15] >= share), len(KINDS) - 1)
  functions = [function for function, *_ in KINDS.values()]
  places = [functions.index(function) for function in _STEPWISE]
  numbers_of, strokes_of = zip(*(function(v) for function in _STEPWISE), strict=True)
  which = jnp.sum(jnp.where(np.array(places) == kind, np.arange(len(places)), 0))

  def stroke(s, w, points, counts):
    options = zip(*(one(s, w, points, counts) for one in strokes_of), strict=True)
    chain, count, smooth = (jnp.stack(part)[which] for part in options)
    return chain, count, smooth

  # One loop for all these kinds, since each takes long to compile.
  points, count, smooth = _one_by_one(stroke, u)
  present = np.arange(_STROKES) < jnp.stack(numbers_of)[which]
  stepwise = (points, jnp.where(present, count, 0), smooth)
  drawn = [stepwise if f in _STEPWISE else f(u, v) for f in functions]
  points, count, smooth = (jnp.stack(part)[kind] for part in zip(*drawn, strict=True))
  table = np.array([numbers for _, _, *numbers in KINDS.values()], np.float32)
  upright, aspect, shear = jnp.asarray(table)[kind]
  # All chords of a molecule are equal: one that is too large for its box would be
  # nothing but chords that are too short.
  bonds = kind == _number_of('molecule')
  least = 1.3 * min_gap
  limit = jnp.min(box[1] - box[0]) / least
  count = jnp.where(bonds, _cut_to(points, count, limit), count)
  placed = _place(
    points,
    count,
    v[7:15],
    upright=upright,
    aspect=aspect,
    shear=shear,
    box=box,
    least=jnp.where(bonds, least, 0.0),
  )
  final = kind == _number_of('roads')
  kind = jnp.broadcast_to(kind, count.shape)
  return jnp.where(final, points, placed), count, smooth, kind


def _straighten(points, count, flat):
  """Drops inner points that lie nearly on the line between their neighbours.

  Args:
    points: `[L, K, 2]`.
    count: `[L]` int.
    flat: [] or `[L]`, greatest distance from that line of a point that is dropped.

  Returns:
    `[L, K, 2]`, `[L]`.
  """
  flat = jnp.reshape(flat, (-1, 1))
  # Every second point may go at a time, so that the neighbours of each stay.
  for _ in range(3):
    before, after = points[:, :-2], points[:, 2:]
    line = after - before
    length = jnp.maximum(jnp.linalg.norm(line, axis=-1), 1e-6)
    distance = jnp.abs(_cross(line, points[:, 1:-1] - before)) / length
    # A point at which the chain turns back is a corner, however near the line.
    ahead = jnp.sum((points[:, 1:-1] - before) * (after - points[:, 1:-1]), axis=-1) > 0
    inner = np.arange(1, _POINTS - 1)[None]
    drop = (inner % 2 == 1) & (inner < (count - 1)[:, None])
    drop = drop & (distance < flat) & ahead
    keep = jnp.pad(~drop, ((0, 0), (1, 1)), constant_values=True)
    order = jnp.argsort(~keep, axis=1, stable=True)
    points = jnp.take_along_axis(points, order[..., None], axis=1)
    count = count - jnp.sum(drop, axis=1)
  return points, count


def _chords(points, count, smooth, bonds=None):
  """Chords of strokes, with the slopes of the curve that runs through their ends.

  Args:
    points: `[L, K, 2]`.
    count: `[L]` int, 0 for an absent stroke.
    smooth: `[L]` in [0, 1].
    bonds: `[L]` bool: the stroke is part of a molecule; by default none is.

  Returns:
    dict of `[L * (K-1), ...]` arrays: 'start' and 'end' `[..., 2]`; 'slope0' and
    'slope1', the curve's slope against the chord at its ends; 'valid', 'first' and
    'last' bool, 'first' and 'last' in their stroke; 'smooth'; 'bond' bool; 'inner', 1
    where the stroke turns from x to y at the chord's end (the last: at its start), -1
    where it turns the other way.
  """
  start, end = points[:, :-1], points[:, 1:]
  index = np.arange(_POINTS - 1)[None]
  valid = index < (count - 1)[:, None]
  first, last = jnp.broadcast_to(index == 0, valid.shape), index == (count - 2)[:, None]
  edge = end - start
  edge = edge / jnp.maximum(jnp.linalg.norm(edge, axis=-1, keepdims=True), 1e-6)
  # A closed stroke bends at its seam as at every other corner.
  stroke = np.arange(points.shape[0])
  last_point = points[stroke, jnp.maximum(count - 1, 0)]
  closed = jnp.linalg.norm(last_point - points[:, 0], axis=-1) < _TOUCH
  seam = closed[:, None] & (count > 3)[:, None]
  following = jnp.where(last[..., None], edge[:, :1], jnp.roll(edge, -1, axis=1))
  # tan(turn / 2): the curve's tangent at a corner halves the turn between the chords.
  after = _cross(edge, following) / (1 + jnp.sum(edge * following, axis=-1) + 1e-3)
  after = jnp.clip(after, -0.9, 0.9)
  final = after[stroke, jnp.maximum(count - 2, 0)][:, None]
  before = jnp.where(first, final, jnp.roll(after, 1, axis=1))
  open_end, open_start = last & ~seam, first & ~seam
  # An open end bends as its chord does at the other end: an arc.
  slope0 = jnp.where(open_start, jnp.where(open_end, 0.0, -after), -before)
  slope1 = jnp.where(open_end, jnp.where(open_start, 0.0, before), after)
  inner = jnp.sign(jnp.where(open_end, before, after))
  smooth = jnp.broadcast_to(smooth[:, None], valid.shape)
  bonds = jnp.zeros(count.shape, bool) if bonds is None else bonds
  chords = {
    'start': start,
    'end': end,
    'slope0': smooth * slope0,
    'slope1': smooth * slope1,
    'valid': valid,
    'first': first,
    'last': last,
    'smooth': smooth,
    'bond': jnp.broadcast_to(bonds[:, None], valid.shape),
    'inner': inner,
  }
  return jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:])), chords)


def _rings(points, count, bonds):
  """Rings of molecules that are a stroke of their own.

  Args:
    points: `[L, K, 2]`.
    count: `[L]` int.
    bonds: `[L]` bool.

  Returns:
    `[R, 3]`: middle and radius; the radius of an absent one is 0.
  """
  last = jnp.take_along_axis(points, jnp.maximum(count - 1, 0)[:, None, None], axis=1)
  closed = jnp.linalg.norm(last[:, 0] - points[:, 0], axis=-1) < _TOUCH
  inner = (np.arange(_POINTS)[None] < (count - 1)[:, None])[..., None]
  middle = jnp.sum(jnp.where(inner, points, 0.0), axis=1)
  middle = middle / jnp.maximum(count - 1, 1)[:, None]
  radius = jnp.linalg.norm(points[:, 0] - middle, axis=-1)
  rings = jnp.concatenate([middle, radius[:, None]], axis=-1)
  return _take_first(bonds & closed & (count > 5), _DRAWINGS, rings)[1]


def _take_first(mask, num, values):
  """The first `num` entries where `mask` `[C]` holds, and which of them exist.

  Args:
    mask: `[C]` bool.
    num: static number of entries to keep.
    values: pytree of `[C, ...]` arrays.

  Returns:
    exists `[num]` bool, and the pytree of `[num, ...]` arrays (0 where absent).
  """
  rank = jnp.cumsum(mask) * mask  # 1 for the first
  chosen = rank[None, :] == jnp.arange(1, num + 1)[:, None]  # [num, C]
  index = jnp.argmax(chosen, axis=1)
  exists = jnp.any(chosen, axis=1)

  def take(a):
    taken = jnp.asarray(a)[index]
    keep = exists.reshape((-1,) + (1,) * (taken.ndim - 1))
    return jnp.where(keep, taken, jnp.zeros((), taken.dtype))

  return exists, jax.tree.map(take, values)


def _relations(start, end):
  """How every two of M chords lie to each other.

  Returns:
    dict of arrays; [m, a] is chord a seen from chord m:
      'same0', 'same1' `[M, M]` bool: the start (end) of m is an end of a;
      'joint' `[M, M]` bool: they have an end in common;
      'crossing' `[M, M]` bool: they cross within both;
      'point' `[M, M, 2]`: where;
      'contact' `[M, M]` bool: a crosses m, or ends within m; 'along' `[M, M]`: the
      distance from m's start to that place;
      'nearest' `[M, M]`: least distance of an end of one from the other, without ends
      that touch it;
      'touching' `[M, M]` bool: they cross, or one ends within the other;
      'ends' `[M, M]`: least distance of the contact from the ends that do not make it;
      'sine' `[M, M]`: sine of the angle between them, >= 0; 'opening' `[M, M]`: cosine
      of the angle at a common end.
  """
  edge = end - start
  length = jnp.maximum(jnp.linalg.norm(edge, axis=-1), 1e-6)
  unit = edge / length[:, None]
  ends = jnp.stack([start, end], axis=1)  # [M, 2, 2]
  apart = jnp.linalg.norm(
    ends[:, None, :, None] - ends[None, :, None, :], axis=-1
  )  # [m, a, end of m, end of a]
  same = apart < _TOUCH
  joint = same.any(axis=(2, 3))
  # Directions away from the common end.
  away = jnp.stack([unit, -unit], axis=1)  # [M, 2, 2]
  cosine = jnp.sum(away[:, None, :, None] * away[None, :, None, :], axis=-1)
  opening = jnp.where(same, cosine, -1.0).max(axis=(2, 3))

  offset = ends[None] - start[:, None, None]  # [m, a, end of a, 2]
  along = jnp.sum(offset * unit[:, None, None], axis=-1)
  across = _cross(unit[:, None, None], offset)
  outside = along - jnp.clip(along, 0.0, length[:, None, None])
  distance = jnp.sqrt(across**2 + outside**2)
  free = jnp.where(distance < _TOUCH, jnp.inf, distance).min(axis=-1)
  nearest = jnp.minimum(free, free.T)

  inner = jnp.minimum(along, length[:, None, None] - along)  # distance from m's ends
  tee = (distance < _TOUCH) & (inner >= _TOUCH)  # an end of a lies within m
  denominator = _cross(unit[:, None], unit[None])
  safe = jnp.where(jnp.abs(denominator) < 1e-6, 1.0, denominator)
  between = start[None] - start[:, None]
  at = _cross(between, unit[None]) / safe  # along m
  inside = (at > 0) & (at < length[:, None])
  any_tee = tee.any(axis=-1)
  crossing = inside & inside.T & (jnp.abs(denominator) >= 1e-6)
  crossing = crossing & ~joint & ~any_tee & ~any_tee.T
  from_ends = jnp.minimum(at, length[:, None] - at)
  tee_along = jnp.where(tee, along, 0.0).sum(axis=-1)
  tee_inner = jnp.where(tee, inner, jnp.inf).min(axis=-1)
  ends_clear = jnp.where(crossing, jnp.minimum(from_ends, from_ends.T), jnp.inf)
  ends_clear = jnp.minimum(ends_clear, jnp.minimum(tee_inner, tee_inner.T))
  return {
    'same0': same[:, :, 0].any(axis=-1),
    'same1': same[:, :, 1].any(axis=-1),
    'joint': joint,
    'crossing': crossing,
    'point': start[:, None] + at[..., None] * unit[:, None],
    'contact': crossing | any_tee,
    'along': jnp.where(crossing, at, tee_along),
    'nearest': nearest,
    'touching': crossing | any_tee | any_tee.T,
    'ends': ends_clear,
    'sine': jnp.abs(denominator),
    'opening': opening,
  }


def _select(chords, exists, relations, *, capacity, min_gap):
  """Takes the chords one by one that keep the graph clear; `[M]` bool."""
  num = exists.shape[0]
  length = jnp.linalg.norm(chords['end'] - chords['start'], axis=-1)
  r = relations
  steep = jnp.where(
    r['joint'],
    r['opening'] < _MIN_COSINE,
    ~r['touching'] | ((r['ends'] >= min_gap) & (r['sine'] >= _MIN_SINE)),
  )
  bond = chords['bond'][:, None] | chords['bond'][None]
  clear = steep & (r['nearest'] >= min_gap) & ~(bond & r['touching'])
  clash = ~clear & ~np.eye(num, dtype=bool)
  # Two contacts on one chord that are too near each other, [chord, first, second],
  # unless they are one: the common end of two chords.
  apart = jnp.abs(r['along'][:, :, None] - r['along'][:, None, :])
  one = r['joint'][None] & (apart < _TOUCH)
  both = r['contact'][:, :, None] & r['contact'][:, None, :]
  crowd = (apart < min_gap) & both & ~one & ~np.eye(num, dtype=bool)[None]
  fits = exists & (length >= min_gap)

  def step(carry, m):
    taken, previous, num_nodes = carry
    new = (
      (~jnp.any(taken & r['same0'][m])).astype(jnp.int32)
      + (~jnp.any(taken & r['same1'][m])).astype(jnp.int32)
      + jnp.sum(taken & r['crossing'][m])
    )
    ok = fits[m] & (chords['first'][m] | previous)
    ok = ok & ~jnp.any(taken & clash[m])
    ok = ok & ~jnp.any(taken[:, None] & taken[None] & crowd[m])
    ok = ok & ~jnp.any(taken[:, None] & taken[None] & crowd[:, m])
    ok = ok & (num_nodes + new <= capacity)
    taken = taken | (ok & (np.arange(num) == m))
    return (taken, ok, num_nodes + jnp.where(ok, new, 0)), None

  # The carry starts from computed values, so that it may be split over devices.
  none = jnp.zeros_like(exists)
  start = (none, none[0], jnp.sum(none, dtype=jnp.int32))
  (taken, _, _), _ = jax.lax.scan(step, start, np.arange(num))
  return taken


def _planar_graph(chords, taken, relations, *, capacity):
  """The true graph of the chords that were taken; crossings are nodes."""
  num = taken.shape[0]
  ends = jnp.concatenate([chords['start'], chords['end']])  # [2M, 2]
  present = jnp.concatenate([taken, taken])
  apart = jnp.linalg.norm(ends[:, None] - ends[None], axis=-1)
  earlier = np.tri(2 * num, k=-1, dtype=bool)
  repeated = jnp.any((apart < _TOUCH) & earlier & present[None], axis=1)
  first, second = np.triu_indices(num, k=1)
  crossing = relations['crossing'][first, second] & taken[first] & taken[second]
  exists, nodes = _take_first(
    jnp.concatenate([present & ~repeated, crossing]),
    capacity,
    jnp.concatenate([ends, relations['point'][first, second]]),
  )

  edge = chords['end'] - chords['start']
  length = jnp.maximum(jnp.linalg.norm(edge, axis=-1), 1e-6)
  unit = edge / length[:, None]
  offset = nodes[None] - chords['start'][:, None]  # [M, N, 2]
  along = jnp.sum(offset * unit[:, None], axis=-1)
  outside = along - jnp.clip(along, 0.0, length[:, None])
  distance = jnp.sqrt(_cross(unit[:, None], offset) ** 2 + outside**2)
  on = (distance < _TOUCH) & taken[:, None] & exists[None]
  # Nodes of one chord are joined to their neighbours in the order along it.
  before = on[:, :, None] & on[:, None, :] & (along[:, :, None] < along[:, None, :])
  rank = jnp.sum(before, axis=1)  # [M, N]
  adjacent = before & (rank[:, None, :] - rank[:, :, None] == 1)
  adjacent = jnp.any(adjacent, axis=0)
  return graph_lib.Graph(
    nodes=nodes,
    node_prob=exists.astype(jnp.float32),
    edge_prob=(adjacent | adjacent.T).astype(jnp.float32),
  )


def _blur(image, amount):
  """Blurs `[H, W]` by [a, 1 - 2a, a] along both axes; `amount` a in [0, 1/3]."""
  for axis in (0, 1):
    pad = [(1, 1) if a == axis else (0, 0) for a in (0, 1)]
    padded = jnp.pad(image, pad)
    size = image.shape[axis]
    low = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    high = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    image = (1 - 2 * amount) * image + amount * (low + high)
  return image


def _boxes(u, *, limit, min_gap):
  """Parts of a canvas for its drawings.

  A cut, across or down, makes two parts; a second cut splits the latter part, or both.

  Args:
    u: `[6]` uniform numbers.
    limit: half the side of the room that is cut.
    min_gap: half the width of a cut.

  Returns:
    low and high corners `[4, D, 2]` for one to four drawings, D = 4; the first so many
    of each row count.
  """
  cut, low_cut, high_cut = (limit * 0.3 * _signed(u[i]) for i in range(3))
  before, after = -limit, limit

  def box(first, second):
    """Corners from the extents along the axis of the first cut and across it."""
    return jnp.stack([jnp.stack([first[i], second[i]]) for i in (0, 1)])

  ahead, beyond = (before, cut - min_gap), (cut + min_gap, after)
  whole = box((before, after), (before, after))
  low, high = (box(part, (before, after)) for part in (ahead, beyond))
  low_parts, high_parts = (
    [box(part, (before, at - min_gap)), box(part, (at + min_gap, after))]
    for part, at in ((ahead, low_cut), (beyond, high_cut))
  )
  layouts = [
    [whole] * 4,
    [low, high, high, high],
    [low, *high_parts, high],
    [*low_parts, *high_parts],
  ]
  boxes = jnp.stack([jnp.stack(row) for row in layouts])  # [4, D, 2, 2]
  boxes = jnp.where(u[3] < 0.5, boxes, boxes[..., ::-1])  # across or down
  # Mirrored, the part that is split first lies on either side.
  boxes = jnp.where(u[4] < 0.5, boxes, -boxes[..., ::-1, :])
  return boxes[:, :, 0], boxes[:, :, 1]


def _glyph(u, letter):
  """A small mark: a letter-like one, or any.

  Args:
    u: `[8]` uniform numbers.
    letter: [] bool: a letter has a stem and reaches from top to bottom.

  Returns:
    start and end `[G, 2]` in [-1, 1], slopes at both ends `[G]`, present `[G]` bool.
  """
  grid = np.array([(x, y) for x in (-0.6, 0.0, 0.6) for y in (-1, 0, 1)], np.float32)
  first = _integer(u[:3], 0, 8)
  second = (first + _integer(u[3:6], 1, 8)) % 9  # never the same place
  oval = u[6] < 0.35
  # The stem of a letter is the left column or the middle; an oval has two bowed sides.
  stem = letter & (np.arange(_GLYPH_STROKES) < jnp.where(oval, 2, 1))
  column = jnp.where(oval | (u[0] < 0.3), 3, 0)
  first = jnp.where(stem, column, first)
  second = jnp.where(stem, column + 2, second)
  bow = jnp.where(oval & letter, np.array([1.4, -1.4, 0.0], np.float32), 0.0)
  num = jnp.where(letter & oval, 2, _integer(u[7], 2, 3))
  num = jnp.where(letter, num, _integer(u[7], 1, 3))
  present = np.arange(_GLYPH_STROKES) < num
  grid = jnp.asarray(grid)
  return grid[first], grid[second], bow, -bow, present


def _double_lines(chords, taken, room, share, spread, w, *, min_gap):
  """Chords that are drawn double, and where their second lines run.

  Args:
    chords: dict of `[M, ...]`, see `_chords`.
    taken: `[M]` bool.
    room: [] length of the shortest edge, or the least space between strokes.
    share: [] in [0, 1], of the bonds that are drawn double.
    spread: [] uniform number.
    w: `[M, 3]` uniform numbers.
    min_gap: see `sample`.

  Returns:
    exists `[D]` bool, index of the chord `[D]`, start and end `[D, 2]` of the second
    line in coordinate units, and the distance [] between both lines.
  """
  num_chords = taken.shape[0]
  index = np.arange(num_chords)
  chosen = taken & chords['bond'] & (w[:, 0] < share)
  exists, index = _take_first(chosen, min(_DOUBLES, num_chords), index)
  edge = (chords['end'] - chords['start'])[index]
  length = jnp.maximum(jnp.linalg.norm(edge, axis=-1, keepdims=True), 1e-6)
  unit_edge = edge / length
  # Nearer than any two strokes, lest they be taken for each other.
  apart = jnp.minimum(min_gap * (0.65 + 0.45 * spread), 0.7 * room)
  inner = jnp.where(chords['inner'] == 0, 1.0, chords['inner'])
  inner = (inner * jnp.where(w[:, 1] < 0.15, -1, 1))[index]
  normal = jnp.stack([-unit_edge[:, 1], unit_edge[:, 0]], axis=-1)
  shift = apart * inner[:, None] * normal
  # Second lines of neighbours in a hexagon would meet at this distance from its ends.
  shorter = jnp.minimum(0.6 * apart + 0.1 * w[index, 2:3] * length, 0.35 * length)
  start = chords['start'][index] + shift + shorter * unit_edge
  end = chords['end'][index] + shift - shorter * unit_edge
  return exists, index, start, end, apart


def _labelled_nodes(graph, chords, taken, share, u, w):
  """Nodes with a label.

  Args:
    graph: true `Graph` of capacity N.
    chords: dict of `[M, ...]`, see `_chords`.
    taken: `[M]` bool.
    share: [] in [0, 1], of images with labels.
    u: `[2]` uniform numbers.
    w: `[N, 2]` uniform numbers.

  Returns:
    exists `[S]` bool, places `[S, 2]`, and the radius of the disc `[S]`, all in
    coordinate units.
  """
  nodes, edge = graph.nodes, graph.edge_prob > 0
  apart = jnp.linalg.norm(nodes[:, None] - nodes[None], axis=-1)
  shortest = jnp.where(edge, apart, jnp.inf).min(axis=1)
  far = _segment_distance(nodes, chords['start'], chords['end'])
  others = jnp.where(taken[None] & (far >= _TOUCH), far, jnp.inf).min(axis=1)
  radius = jnp.minimum((0.35 + 0.15 * w[:, 0]) * shortest, 4.5 / 32)
  radius = jnp.minimum(radius, 0.8 * others)
  readable = (graph.node_prob > 0) & (radius >= 1.5 / 32)
  few = jnp.sum(edge, axis=1) <= 2
  score = jnp.where(readable, w[:, 1] + few, -1.0)
  # Never two neighbours: the line between them would be gone.
  beaten = jnp.any(edge & (score[None] > score[:, None]), axis=1)
  score = jnp.where(beaten, -1.0, score)
  most = min(_LABELS, graph.capacity)
  best, index = jax.lax.top_k(score, most)
  exists = (best >= 0) & (np.arange(most) < _integer(u[1], 1, most)) & (u[0] < share)
  return exists, nodes[index], jnp.where(exists, radius[index], 0.0)


def _words(exists, places, radius, share, start, end, w):
  """Further letters beside a letter: right of it or left.

  Args:
    exists: `[S]` bool.
    places: `[S, 2]` in coordinate units.
    radius: `[S]`, of the disc of a letter.
    share: [] in [0, 1], of the letters that begin a word.
    start: `[A, 2]`, of what no letter may hide; absent ones lie outside.
    end: `[A, 2]`.
    w: `[S, 2]` uniform numbers.

  Returns:
    exists `[S * _LETTERS]`, places `[S * _LETTERS, 2]`, radius `[S * _LETTERS]`.
  """
  index = np.arange(1, _LETTERS + 1)
  # A molecule lies to the left of its rightmost labels, and the other way round.
  away = jnp.sign(places[:, 0] + 0.4 * _signed(w[:, 0]))
  step = 1.45 * (radius * away)[:, None] * index[None]
  x = places[:, :1] + step
  spots = jnp.stack([x, jnp.broadcast_to(places[:, 1:], x.shape)], axis=-1)
  far = _segment_distance(spots.reshape(-1, 2), start, end).min(axis=1)
  free = far.reshape(x.shape) > 0.9 * radius[:, None]
  free = free & (jnp.abs(x) < 1 - 0.7 * radius[:, None])
  count = jnp.where(w[:, 1] < share, _integer(w[:, 1] / share, 1, _LETTERS), 0)
  more = exists[:, None] & (index[None] <= count[:, None])
  more = more & (jnp.cumsum(~free, axis=1) == 0)
  radii = jnp.where(more, radius[:, None], 0.0)
  return more.reshape(-1), spots.reshape(-1, 2), radii.reshape(-1)


def _distractor_places(start, end, thickness, share, u, w):
  """Places on empty paper: exists `[F]`, places `[F, 2]`, radius `[F]`.

  Args:
    start: `[A, 2]` of what is drawn, in coordinate units.
    end: `[A, 2]`.
    thickness: `[A]`, how far that may reach to its sides; -inf for what is absent.
    share: [] in [0, 1], of images with distractors.
    u: `[2]` uniform numbers.
    w: `[C, 3]` uniform numbers.
  """
  places = 0.92 * _signed(w[:, :2])
  radius = (0.8 + 1.7 * w[:, 2]) / 32
  far = _segment_distance(places, start, end) - thickness[None]
  free = far.min(axis=1) - radius > 5 / 32
  exists, (places, radius) = _take_first(free, _DISTRACTORS, (places, radius))
  exists = exists & (np.arange(_DISTRACTORS) < _integer(u[1], 1, _DISTRACTORS))
  return exists & (u[0] < share), places, radius


def _add_glyphs(
  ink, exists, places, radius, letter, w, *, width, ink_level, aliased, warp
):
  """Draws labels, on erased discs, and distractors.

  Each is drawn on a small square of pixels of its own: over the whole canvas they would
  cost as much as the strokes.

  Args:
    ink: `[side, side]`.
    exists: `[S]` bool.
    places: `[S, 2]` middles in pixels.
    radius: `[S]` pixels.
    letter: `[S]` bool: a label.
    w: `[S, 10]` uniform numbers.
    width: [] of the lines, pixels.
    ink_level: [] in [0, 1].
    aliased: [] bool.
    warp: function of rows and columns in pixels to the shifts of x and y.

  Returns:
    `[side, side]`.
  """
  side = ink.shape[0]
  unit = side / 64
  size = int(np.ceil(2 * (4.5 + 1) * unit)) + 2
  corner = jnp.floor(places).astype(jnp.int32) - size // 2
  columns, rows = (corner[:, i, None] + np.arange(size)[None] for i in (0, 1))

  def one(exists, place, radius, letter, w, column, row):
    shift_x, shift_y = warp(row + 0.5, column + 0.5)
    x = (column + 0.5)[None, :] + shift_x[:, None]
    y = (row + 0.5)[:, None] + shift_y[None, :]
    start, end, slope0, slope1, present = _glyph(w, letter)
    dot = ~letter & (w[8] < 0.5)
    # A letter is about as high as its disc; a dot is a very short stroke.
    high = jnp.where(letter, 0.66 * radius, jnp.where(dot, 0.05, 0.8 * radius))
    wide = jnp.minimum(width, 0.35 * radius)
    wide = jnp.where(dot, (0.5 + 0.9 * w[9]) * radius, wide)
    strokes = drawing.curves_ink(
      place[None] + high * start,
      place[None] + high * end,
      slope0,
      slope1,
      jnp.broadcast_to(wide, (_GLYPH_STROKES,)),
      jnp.where(present & exists, ink_level, 0.0),
      gap_at=jnp.zeros(_GLYPH_STROKES),
      gap_half_px=jnp.full(_GLYPH_STROKES, -1.0),
      aliased=aliased,
      x=x,
      y=y,
    )
    far = jnp.sqrt((x - place[0]) ** 2 + (y - place[1]) ** 2)
    disc = drawing.line_ink(far, 2 * radius, aliased)
    return jnp.where(exists & letter, disc, 0.0), strokes

  disc, strokes = jax.vmap(one)(exists, places, radius, letter, w, columns, rows)
  # An index below 0 would count from the end.
  rows, columns = (jnp.where(i < 0, side, i) for i in (rows, columns))
  at = ink.at[rows[:, :, None], columns[:, None, :]]
  ink = at.min(1 - disc, mode='drop')
  return ink.at[rows[:, :, None], columns[:, None, :]].max(strokes, mode='drop')


def _circles_ink(circles, width, side, share):
  """Ink `[side, side]` of circles `[R, 3]` (middle, radius), drawn smaller by a share.

  All in pixels; those without a radius are absent.
  """
  pixels = np.stack(np.mgrid[:side, :side][::-1], axis=-1).astype(np.float32) + 0.5
  middle = circles[:, None, None, :2] + side / 2
  away = jnp.linalg.norm(pixels[None] - middle, axis=-1)
  radius = circles[:, None, None, 2]
  far = jnp.abs(away - (0.45 + 0.15 * share) * radius)
  ink = jnp.where(radius > 0, drawing.line_ink(far, width, False), 0.0)
  return ink.max(axis=0)


def _discs_paper(places, radius, side):
  """What discs leave of ink: `[side, side]`, 0 within them, 1 elsewhere.

  Args:
    places: `[D, 2]` pixels.
    radius: `[D]` pixels; negative for an absent disc.
    side: pixels.
  """
  pixels = np.stack(np.mgrid[:side, :side][::-1], axis=-1).astype(np.float32) + 0.5
  far = jnp.linalg.norm(pixels[None] - places[:, None, None], axis=-1)
  return jnp.clip(far - radius[:, None, None] + 0.5, 0, 1).min(axis=0)


# What the options of `sample` that are numbers or ranges lie between.
# Of the strengths those that are no range.
_NO_RANGES = (
  'flat',
  'pieces',
  'target_width',
  'sloppy',
  'gap',
  'dashes',
  'erased',
  'aliased',
  'circles',
  'labels',
  'words',
  'distractors',
)
_BOUNDS = {
  'flat': (0, None),
  'pieces': (0, 1),
  'fill': (0.05, 1),
  'line_width': (0.1, None),
  'target_width': (0.1, None),
  'bend': (0, 1),
  'wave': (0, None),
  'overshoot': (0, 1),
  'sloppy': (1, None),
  'gap': (0, 1),
  'dashes': (0, 1),
  'erased': (0, 1),
  'contrast': (0.01, 1),
  'pressure': (0, 0.9),
  'blur': (0, 1 / 3),
  'noise': (0, None),
  'background': (0, 0.9),
  'aliased': (0, 1),
  'double': (0, 1),
  'circles': (0, 1),
  'labels': (0, 1),
  'words': (0, 1),
  'distractors': (0, 1),
}
_Strengths = collections.namedtuple('_Strengths', _BOUNDS)
# Those that cost nothing when no image of a batch shows them.
_SOMETIMES = ('double', 'circles', 'erased', 'labels', 'distractors', 'blur', 'noise')


def sample(
  key,
  batch_size,
  *,
  side=64,
  capacity=16,
  kinds=None,
  pieces=0.25,
  fill=(0.45, 1.0),
  margin=0.08,
  min_gap=0.12,
  flat=0.05,
  line_width=(1.0, 6.0),
  target_width=2.0,
  bend=(0.0, 0.25),
  wave=(0.0, 0.6),
  overshoot=(0.0, 0.04),
  sloppy=5.0,
  gap=0.01,
  dashes=0.04,
  erased=0.12,
  contrast=(0.35, 1.0),
  pressure=(0.0, 0.3),
  blur=(0.0, 0.25),
  noise=(0.0, 0.08),
  background=(0.0, 0.1),
  aliased=0.25,
  double=(0.15, 0.5),
  circles=0.2,
  labels=0.12,
  words=0.5,
  distractors=0.1,
):
  """Draws a batch of varied line drawings, rough and clean, with their true graphs.

  A range (low, high) is a strength drawn anew for every image; a number fixes it.
  Shares of images, chords or labels (but for `double`), `flat`, `sloppy` and
  `target_width` are numbers. Pixels are those of a canvas of 64 and grow with `side`.

  Args:
    key: typed key; example i depends on `jax.random.split(key, batch_size)[i]` only.
    batch_size: number of images, B.
    side: height and width of the images in pixels.
    capacity: node slots of the graph, N >= 2; drawings are cut to fit.
    kinds: {name of `KINDS`: weight >= 0}; by default all kinds with their own weights.
    pieces: share of images with several drawings side by side: half of them with two,
      the others with three or four.
    fill: longer side of a drawing, as a share of the room it has.
    margin: share of the half side that drawings keep free (roads run to the border).
    min_gap: least distance between two nodes, and between the end of a chord and a
      chord that it does not touch, in coordinate units (0.12 is 3.8 pixels of 64).
    flat: an inner point of a stroke is left out when it lies nearer than this to the
      line between its neighbours, in coordinate units: a slight bend is no node.
    line_width: pixels, drawn evenly in its logarithm; at most 0.65 of the shortest edge
      and of the least space between strokes, so that small drawings stay readable, but
      never below the lower bound.
    target_width: width of the lines of the target in pixels.
    bend: slope of a stroke against its chord at its ends: strokes bow or swing.
    wave: amplitude in pixels of slow waves over the whole canvas.
    overshoot: how far strokes end beyond or before their corner, in coordinate units;
      before it by at most 0.02, unless the drawing is a single polygon or rectangle.
    sloppy: factor >= 1 of `overshoot`, `gap` and `dashes` in images of one polygon,
      triangle or rectangle, where all that can be meant is a closed line: of a drawing
      with more strokes, what sticks out is part of it, and ends that do not meet are
      often meant so.
    gap: share of chords with a gap of 2 to 5 pixels.
    dashes: share of images in which most chords are dashed, 4 to 10 pixels from dash to
      dash.
    erased: share of images from which one to eight discs of 1.5 to 4 pixels radius
      are erased along the strokes.
    contrast: ink of the strokes, in (0, 1].
    pressure: how much ink and width vary between chords, in [0, 0.9].
    blur: weight of each neighbour in a blur of 3 x 3 pixels, in [0, 1/3].
    noise: standard deviation of Gaussian noise on every pixel; the square of a uniform
      number picks it from the range, so that most images are nearly clean.
    background: level of the empty paper, in [0, 0.9], picked likewise.
    aliased: share of images without soft borders (before the blur).
    double: share of the chords of molecules that the image shows as two parallel lines,
      at most 8 chords of an image; target and graph have the chord alone. The second
      line is shorter, nearer than any two strokes, and lies inside of rings.
    circles: share of the images with molecules whose rings are drawn with a circle
      inside, as aromatic ones are; neither in target nor graph.
    labels: share of images with labels, five times as large for images with molecules
      (at most all): up to four nodes, rather those with one or two edges and never two
      neighbours, are hidden in the image by an erased disc with a letter-like glyph.
      Target and graph still have the lines up to the node.
    words: share of labels and of distractors beside which further letters stand.
    distractors: share of images with one to four dots or small marks on empty paper,
      at least 5 pixels from all strokes and labels; neither in target nor graph.

  Returns:
    {'image': the rough drawing, 'target': the clean one, both `[B, side, side, 1]`
    float32 in [0, 1]; 'graph': planar true `Graph` of capacity N, probabilities 0 and
    1, absent nodes at (0, 0)}.

  Raises:
    ValueError: an option is wrong.
  """
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  if capacity < 2:
    raise ValueError(f'capacity must be at least 2 nodes; got {capacity}.')
  if not 0 <= margin < 1:
    raise ValueError(f'margin must be in [0, 1); got {margin}.')
  if not 4 * _TOUCH <= min_gap < 1:
    raise ValueError(f'min_gap must be in [{4 * _TOUCH}, 1); got {min_gap}.')
  weights = {name: default for name, (_, default, *_) in KINDS.items()}
  if kinds is not None:
    if not hasattr(kinds, 'get'):
      raise ValueError(f'kinds must be {{name: weight}}; got {kinds!r}.')
    for name in kinds:
      if name not in KINDS:
        raise ValueError(f'there is no kind {name!r}; there are {", ".join(KINDS)}.')
    weights = {name: kinds.get(name, 0.0) for name in KINDS}
  weights = np.array(list(weights.values()), np.float32)
  if weights.min() < 0 or not weights.sum() > 0:
    raise ValueError(f'kinds must have weights >= 0, one of them > 0; got {kinds}.')
  # Roads fill the canvas: they share it with nothing, and never come second.
  roads = np.arange(len(KINDS)) == _number_of('roads')
  second_weights = np.where(roads, 0, weights)
  if not second_weights.sum() > 0:
    second_weights = weights
    pieces = 0.0
  given = _Strengths(
    flat=flat,
    pieces=pieces,
    fill=fill,
    line_width=line_width,
    target_width=target_width,
    bend=bend,
    wave=wave,
    overshoot=overshoot,
    sloppy=sloppy,
    gap=gap,
    dashes=dashes,
    erased=erased,
    contrast=contrast,
    pressure=pressure,
    blur=blur,
    noise=noise,
    background=background,
    aliased=aliased,
    double=double,
    circles=circles,
    labels=labels,
    words=words,
    distractors=distractors,
  )
  strengths = {}
  for name, value in given._asdict().items():
    lowest, highest = _BOUNDS[name]
    if name in _NO_RANGES:
      value = ranges.as_number(name, value, lowest=lowest, highest=highest)
    strengths[name] = ranges.as_range(name, value, lowest=lowest, highest=highest)
  return _draw(
    key,
    _Strengths(*(np.array(pair, np.float32) for pair in strengths.values())),
    weights,
    second_weights,
    batch_size=batch_size,
    side=side,
    capacity=capacity,
    margin=margin,
    min_gap=min_gap,
    shown=tuple(name for name in _SOMETIMES if strengths[name][1] > 0),
  )


# A program of its own: other strengths need no new compilation.
@functools.partial(
  jax.jit,
  static_argnames=('batch_size', 'side', 'capacity', 'margin', 'min_gap', 'shown'),
)
def _draw(
  key,
  strengths,
  weights,
  second_weights,
  *,
  batch_size,
  side,
  capacity,
  margin,
  min_gap,
  shown,
):
  """What `sample` returns.

  Args:
    key: as in `sample`, like the static arguments but the last.
    strengths: `_Strengths`, `[2]` float each, the range; of a number only its first.
    weights: `[KINDS]` float, of the first drawing of a canvas.
    second_weights: `[KINDS]` float, of further ones.
    batch_size: B.
    side: in pixels.
    capacity: N.
    margin: see `sample`.
    min_gap: see `sample`.
    shown: those of `_SOMETIMES` that any image may show.
  """
  num_chords = capacity + 8
  unit = side / 64  # pixels of this canvas in one pixel of the options

  def layout(numbers):
    """Chords of one canvas, which are taken, the graph, and the room of a line."""
    u, numbers = numbers[:6], numbers[6:].reshape(_DRAWINGS, _NUMBERS)
    # Of several drawings, half are two, a quarter three and a quarter four.
    share = u[0] / jnp.maximum(strengths.pieces[0], 1e-6)
    num = 4 - jnp.sum(share >= np.array([0.25, 0.5, 1.0]))
    lows, highs = _boxes(u[1:], limit=1 - margin, min_gap=min_gap)
    whole = strengths.fill
    part = jnp.maximum(whole, 0.7)  # a part is small enough
    filled = jnp.broadcast_to(jnp.where(num > 1, part, whole), (_DRAWINGS, 2))
    boxes = jnp.stack([lows[num - 1], highs[num - 1], filled], axis=1)
    first_weights = jnp.where(num > 1, second_weights, weights)
    further = [second_weights] * (_DRAWINGS - 1)
    points, count, smooth, kind = jax.vmap(
      functools.partial(_one_drawing, min_gap=min_gap)
    )(numbers, jnp.stack([first_weights, *further]), boxes)
    count = jnp.where((np.arange(_DRAWINGS) < num)[:, None], count, 0)
    first = kind[0, 0]
    closed = (first == _number_of('polygon')) | (first == _number_of('quad'))
    alone = (num == 1) & closed
    bonds = kind.reshape(-1) == _number_of('molecule')
    # A molecule has no slight bends, only small ones.
    points, count = _straighten(
      points.reshape(-1, _POINTS, 2),
      count.reshape(-1),
      jnp.where(bonds, 0.0, strengths.flat[0]),
    )
    rings = _rings(points, count, bonds)
    chords = _chords(points, count, smooth.reshape(-1), bonds)
    exists, chords = _take_first(chords['valid'], num_chords, chords)
    relations = _relations(chords['start'], chords['end'])
    taken = _select(chords, exists, relations, capacity=capacity, min_gap=min_gap)
    graph = _planar_graph(chords, taken, relations, capacity=capacity)
    # Length of the shortest edge, or the least space between strokes.
    apart = jnp.linalg.norm(graph.nodes[:, None] - graph.nodes[None], axis=-1)
    shortest = jnp.where(graph.edge_prob > 0, apart, 2.0).min()
    separate = ~relations['joint'] & ~relations['touching']
    separate = separate & taken[:, None] & taken[None]
    space = jnp.where(separate, relations['nearest'], 2.0).min()
    chords = dict(chords, alone=alone, rings=rings)
    return chords, taken, graph, jnp.minimum(shortest, space)

  # Numbers that make the drawing rough: of the image, of every chord, of every node, of
  # 24 places for distractors, of every glyph, of every word, and of every place that is
  # erased.
  num_words = min(_LABELS, capacity) + _DISTRACTORS
  glyphs = num_words * (1 + _LETTERS)
  sizes = (
    32,
    num_chords * 12,
    capacity * 2,
    24 * 3,
    glyphs * 10,
    num_words * 2,
    _ERASED * 3,
  )

  def rough(numbers, noise_key, chords, taken, graph, room):
    """The sloppy drawing `[side, side]` of the chords."""
    parts = jnp.split(numbers, np.cumsum(sizes)[:-1])
    u, w, label_w, place_w, glyph_w, word_w, erased_w = parts
    w, label_w = w.reshape(num_chords, 12), label_w.reshape(capacity, 2)
    place_w, glyph_w = place_w.reshape(-1, 3), glyph_w.reshape(-1, 10)
    word_w = word_w.reshape(-1, 2)
    erased_w = erased_w.reshape(-1, 3)
    pick = drawing.pick
    molecule = jnp.any(taken & chords['bond'])
    rough_factor = jnp.where(chords['alone'], strengths.sloppy[0], 1.0)
    circled = molecule & (u[21] < strengths.circles[0])

    thinnest, thickest = strengths.line_width
    widest = jnp.maximum(thinnest, 32 * room * _WIDEST)  # pixels of 64
    width = thinnest * (thickest / thinnest) ** u[0]
    width = jnp.minimum(width, widest)
    if 'double' in shown:
      doubled, of_chord, start2, end2, apart = _double_lines(
        chords,
        taken,
        room,
        jnp.where(circled, 0.0, pick(u[15], strengths.double)),
        u[16],
        w[:, 9:],
        min_gap=min_gap,
      )
      # There is paper between the two lines.
      thin = jnp.maximum(thinnest, 0.6 * 32 * apart)
      width = jnp.where(jnp.any(doubled), jnp.minimum(width, thin), width)
    uneven = pick(u[1], strengths.pressure)
    widths = unit * width * (1 + uneven * _signed(w[:, 0]))
    inks = pick(u[2], strengths.contrast) * (1 - uneven * w[:, 1])

    # Strokes end too late or too soon. Where two chords of a stroke meet, some people
    # lift the pen and others do not; curves are drawn in one go.
    reach = rough_factor * pick(u[3], strengths.overshoot)
    lifted = (u[4] < jnp.where(chords['alone'], 0.8, 0.4)) & (chords['smooth'] == 0)
    at_start = reach * jnp.where(chords['first'] | lifted, 1.6 * w[:, 2] - 0.6, 0.0)
    at_end = reach * jnp.where(chords['last'] | lifted, 1.6 * w[:, 3] - 0.6, 0.0)
    edge = chords['end'] - chords['start']
    length = jnp.maximum(jnp.linalg.norm(edge, axis=-1), 1e-6)[:, None]
    # Ends that do not meet are often meant so, unless all is one closed line.
    short = jnp.where(chords['alone'], 0.2 * length, jnp.minimum(0.2 * length, _SHORT))
    at_start = jnp.maximum(at_start[:, None], -short)
    at_end = jnp.maximum(at_end[:, None], -short)
    start = chords['start'] - at_start * edge / length
    end = chords['end'] + at_end * edge / length

    # Both slopes of one sign swing (S); of opposite signs bow.
    strength = pick(u[5], strengths.bend)
    slope0 = chords['slope0'] + strength * _signed(w[:, 4])
    slope1 = chords['slope1'] + strength * _signed(w[:, 5])

    with_gap = w[:, 6] < rough_factor * strengths.gap[0]
    gap_half = jnp.where(with_gap, unit * (1 + 1.5 * w[:, 7]), -1.0)
    gap_at = 0.2 + 0.6 * w[:, 8]
    dashed = (u[22] < rough_factor * strengths.dashes[0]) & (w[:, 9] < 0.8)
    dash = jnp.where(dashed, unit * (4 + 6 * u[23]) * (0.8 + 0.4 * w[:, 7]), 0.0)

    pixel = jnp.arange(side, dtype=jnp.float32) + 0.5
    amplitude = unit * pick(u[6], strengths.wave)
    cycles = 2 * np.pi * (1 + 3 * u[7:9]) / side  # one to four over the canvas
    shift_x = amplitude * jnp.sin(cycles[0] * pixel + 2 * np.pi * u[9])  # by row
    shift_y = amplitude * jnp.sin(cycles[1] * pixel + 2 * np.pi * u[10])  # by column

    aliased_here = u[11] < strengths.aliased[0]
    present = taken
    if 'double' in shown:
      start, end = jnp.concatenate([start, start2]), jnp.concatenate([end, end2])

      def repeated(a, missing=None):
        second = a[of_chord] if missing is None else jnp.full(of_chord.shape, missing)
        return jnp.concatenate([a, second])

      slope0, slope1 = repeated(slope0), repeated(slope1)
      widths, inks = repeated(widths), repeated(inks)
      gap_at, gap_half = repeated(gap_at), repeated(gap_half, -1.0)
      dash = repeated(dash)
      present = jnp.concatenate([taken, doubled])

    ink = drawing.curves_ink(
      (start + 1) * (side / 2),
      (end + 1) * (side / 2),
      slope0,
      slope1,
      widths,
      jnp.where(present, inks, 0.0),
      gap_at=gap_at,
      gap_half_px=gap_half,
      dash_px=dash,
      dash_share=0.45 + 0.3 * u[24],
      aliased=aliased_here,
      x=pixel[None, :] + shift_x[:, None],
      y=pixel[:, None] + shift_y[None, :],
    )
    if 'circles' in shown:
      ring = _circles_ink(chords['rings'] * (side / 2), unit * width, side, u[25])
      ink = jnp.maximum(
        ink, jnp.where(circled, pick(u[2], strengths.contrast) * ring, 0.0)
      )
    if 'erased' in shown:
      at = _integer(erased_w[:, 0], 0, num_chords - 1)
      at = jax.lax.top_k(taken + 0.5 * w[:, 11], num_chords)[1][
        jnp.mod(at, jnp.maximum(jnp.sum(taken), 1))
      ]
      along = erased_w[:, 1:2]
      places = chords['start'][at] + along * (chords['end'] - chords['start'])[at]
      radius = unit * (1.5 + 2.5 * erased_w[:, 2])
      there = np.arange(_ERASED) < _integer(u[26], 1, _ERASED)
      radius = jnp.where(there & (u[27] < strengths.erased[0]), radius, -1.0)
      ink = ink * _discs_paper((places + 1) * (side / 2), radius, side)

    marks = []  # exists, places, radius, and whether they are letters
    if 'labels' in shown:
      share = jnp.where(
        molecule, jnp.minimum(5 * strengths.labels[0], 1.0), strengths.labels[0]
      )
      found = _labelled_nodes(graph, chords, taken, share, u[17:19], label_w)
      marks.append((*found, jnp.ones(found[0].shape, bool)))
      away = jnp.where(taken[:, None, None], jnp.stack([start, end], 1)[:num_chords], 9)
      found = _words(
        *found, strengths.words[0], away[:, 0], away[:, 1], word_w[:-_DISTRACTORS]
      )
      marks.append((*found, jnp.ones(found[0].shape, bool)))
    if 'distractors' in shown:
      # A bent stroke leaves its chord by no more than 4/27 of its slopes.
      bow = jnp.linalg.norm(end - start, axis=-1) * (jnp.abs(slope0) + jnp.abs(slope1))
      thickness = 0.15 * bow + widths / side
      thickness = jnp.where(present, thickness, -jnp.inf)
      for _, places, radius, _ in marks:
        start, end = jnp.concatenate([start, places]), jnp.concatenate([end, places])
        thickness = jnp.concatenate([thickness, radius])
      found = _distractor_places(
        start, end, thickness, strengths.distractors[0], u[19:21], place_w
      )
      word = word_w[-_DISTRACTORS:, 1] < strengths.words[0]
      marks.append((*found, word))
      free = jnp.isfinite(thickness)[:, None]
      start, end = jnp.where(free, start, 9), jnp.where(free, end, 9)
      found = _words(*found, strengths.words[0], start, end, word_w[-_DISTRACTORS:])
      marks.append((*found, jnp.ones(found[0].shape, bool)))
    if marks:
      exists, places, radius, letter = map(jnp.concatenate, zip(*marks, strict=True))
      ink = _add_glyphs(
        ink,
        exists,
        (places + 1) * (side / 2),
        radius * (side / 2),
        letter,
        glyph_w[: exists.shape[0]],
        width=unit * width,
        ink_level=pick(u[2], strengths.contrast),
        aliased=aliased_here,
        warp=lambda rows, columns: (
          amplitude * jnp.sin(cycles[0] * rows + 2 * np.pi * u[9]),
          amplitude * jnp.sin(cycles[1] * columns + 2 * np.pi * u[10]),
        ),
      )
    if 'blur' in shown:
      ink = _blur(ink, pick(u[12], strengths.blur))
    level = pick(u[13] ** 2, strengths.background)
    image = level + (1 - level) * ink
    if 'noise' in shown:
      image = drawing.add_noise(noise_key, image, pick(u[14] ** 2, strengths.noise))
    return image

  def one(key):
    number_key, noise_key = jax.random.split(key)
    # One draw for all numbers: every call of the generator takes long to compile.
    drawn = 6 + _DRAWINGS * _NUMBERS
    numbers = jax.random.uniform(number_key, (drawn + sum(sizes),))
    chords, taken, graph, room = layout(numbers[:drawn])
    image = rough(numbers[drawn:], noise_key, chords, taken, graph, room)
    # Absent chords become a point far outside.
    keep = taken[:, None]
    distance = drawing.distance(
      jnp.where(keep, (chords['start'] + 1) * (side / 2), -1e3),
      jnp.where(keep, (chords['end'] + 1) * (side / 2), -1e3),
      height=side,
      width=side,
    )
    target = drawing.line_ink(distance, unit * strengths.target_width[0], False)
    return {'image': image[..., None], 'target': target[..., None], 'graph': graph}

  return jax.vmap(one)(jax.random.split(key, batch_size))


def source(**options):
  """A `DeviceSource` of line drawings; the options are those of `sample`."""
  return sources.from_sampler(sample, **options)
