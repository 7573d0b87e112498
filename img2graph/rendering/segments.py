"""Drawing line segments from their distance field, in O(B*H*W) memory.

The line of edge e has the value `w_e * L_e(p)` at pixel centre p, where the profile
L depends on the distance d from p to the segment only:

  'gaussian'   L = exp(-d^2 / thickness^2): 1/e at distance `thickness`.
  'antialias'  L = clip((thickness + border/2 - d) / border, 0, 1): a line of half
               width `thickness` with a linear border, centred on the line's rim.

and the edges are composed to one image by

  'max'      max_e w_e L_e
  'sum'      sum_e w_e L_e
  'soft_or'  1 - prod_e (1 - w_e L_e)

Positions are (x, y) in [-1, 1] as in `img2graph.geometry`; distances, and so
`thickness`, are in that unit. In an image that is not square the unit is longer along
the longer side, and lines are wider in pixels there. Where one number has to stand for
the size of a pixel (the width of the border), it is the geometric mean of its two
sides, 2 / sqrt(H*W).

Plain automatic differentiation keeps about a dozen `[B, E, H, W]` arrays. Here each
composition has its own gradient, which keeps at most three `[B, H, W]` maps and
computes distances again:

  'max'      keeps the winning edge of each pixel; only that edge has a gradient. Where
             several edges are equal the first wins; at an end that several edges of one
             weight share, rounding decides, and the end gets the same gradient.
  'sum'      keeps nothing: all edges get the gradient of the pixel.
  'soft_or'  keeps the smallest factor's index and the product of the others. For that
             edge the product of the others is then known without a division, so that
             w_e L_e = 1 has the exact gradient; for any other edge, the division by
             its own, larger factor costs no more than one rounding of a number <= 1.

Facts of XLA on CPUs that shape the loops (measured, per edge and pixel, one of 2 busy
cores): a fused `lax.reduce` runs one pixel at a time (5-12 ns), elementwise code over a
row of pixels inside `lax.scan` is vectorised (0.2-0.3 ns for 'max' with its winners);
each array that a step returns has its own loop, which computes all it needs again.
Edges too far away to win are drawn all the same: lists of those that may win, tile by
tile, cost 12 ns per edge and tile, and their loops would be as long as the data says,
on which all devices would first have to agree. On a GPU that is other: there the
brightest of 'gaussian' lines, in float32, is found by kernels of our own
(`pallas_segments`), in a third to a seventh of the time.

Letters: B batch, E edges, H W image, P = H*W pixels.
"""

import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from img2graph import geometry
from img2graph import graph as graph_lib

PROFILES = ('gaussian', 'antialias')
COMPOSITIONS = ('max', 'sum', 'soft_or')

# The most edges drawn in one step of the forward loop: each step reads and writes the
# whole image once.
_FORWARD_EDGES = 16
# Edges whose gradients are summed at once on CPUs: bounds memory and stays in cache.
_BACKWARD_EDGES = 32
# Pixels whose gradients 'max' works out at once (it needs about 17 floats for each).
_BACKWARD_PIXELS = 2**17


def draw_edges(
  start,
  end,
  weight,
  *,
  height,
  width,
  thickness,
  profile='gaussian',
  compose='max',
  softness=1.0,
):
  """Draws weighted line segments; differentiable in all four arrays.

  Computed in float32, or in float64 if an input is float64. First derivatives only, by
  reverse mode (`jax.grad`, `jax.vjp`).

  Args:
    start: `[B, E, 2]` float, (x, y) of the first end of each edge.
    end: `[B, E, 2]` float, the second end; may equal `start`, then the edge is a dot
      and both ends get half of the gradient.
    weight: `[E]` or `[B, E]` float >= 0, brightness of the line; at most 1 for
      'soft_or' to stay in [0, 1].
    height: image height in pixels.
    width: image width in pixels.
    thickness: scalar, `[E]` or `[B, E]` float in coordinate units: the distance at
      which a 'gaussian' line has fallen to 1/e (> 0), or half the width of an
      'antialias' line (>= 0). One pixel is 2 / width wide and 2 / height high.
    profile: 'gaussian' or 'antialias', see above.
    compose: 'max', 'sum' or 'soft_or', see above.
    softness: width of the border of an 'antialias' line in pixels, a number > 0; wider
      than one pixel, a line feels ink that lies beside it.

  Returns:
    `[B, H, W]` float; zeros if there is no edge.

  Raises:
    ValueError: a shape, a size or a name is wrong.
  """
  height, width = check_size(height, width)
  if profile not in PROFILES:
    raise ValueError(f'profile must be one of {PROFILES}; got {profile!r}.')
  if compose not in COMPOSITIONS:
    raise ValueError(f'compose must be one of {COMPOSITIONS}; got {compose!r}.')
  softness = float(softness)
  if not (softness > 0 and np.isfinite(softness)):
    raise ValueError(f'softness must be a number of pixels > 0; got {softness}.')
  if isinstance(thickness, (int, float)):
    # A line of width 0 still has its border; a Gaussian of width 0 is 0 / 0.
    least = 'positive' if profile == 'gaussian' else 'at least 0'
    if not (thickness > 0 or (thickness == 0 and profile == 'antialias')):
      raise ValueError(f'thickness must be {least}; got {thickness}.')
  start, end, weight, thickness = _check_arrays(start, end, weight, thickness)
  batch, edges = start.shape[:2]
  if batch == 0 or edges == 0:
    return jnp.zeros((batch, height, width), start.dtype)
  # A number of Python's, since one of numpy's makes all float64 where that is enabled.
  border = float(softness * 2 / np.sqrt(height * width))
  style = _Style(height, width, profile, border)
  draw = {'max': _draw_max, 'sum': _draw_sum, 'soft_or': _draw_soft_or}[compose]
  return draw(style, start, end, weight, thickness)


def draw_graph(
  graph,
  *,
  height,
  width,
  thickness,
  profile='antialias',
  compose='soft_or',
  min_prob=0.0,
):
  """Draws all node pairs of graphs with their edge probability as weight.

  Args:
    graph: a `graph.Graph` of numpy or jax arrays, any leading axes.
    height: image height in pixels.
    width: image width in pixels.
    thickness: scalar, in coordinate units; see `draw_edges`.
    profile: see `draw_edges`.
    compose: see `draw_edges`.
    min_prob: an edge is drawn if its probability exceeds this.

  Returns:
    `[..., H, W, 1]` float32; ink is 1.
  """
  graph_lib.check(graph)
  lead, capacity = graph.nodes.shape[:-2], graph.capacity
  batch = math.prod(lead)
  nodes = jnp.asarray(graph.nodes).reshape(batch, capacity, 2)
  prob = jnp.asarray(graph.edge_prob).reshape(batch, capacity, capacity)
  senders, receivers = geometry.node_pairs(capacity)
  weight = geometry.matrix_to_pairs(prob)
  image = draw_edges(
    nodes[:, senders],
    nodes[:, receivers],
    jnp.where(weight > min_prob, weight, 0),
    height=height,
    width=width,
    thickness=thickness,
    profile=profile,
    compose=compose,
  )
  return image.reshape(*lead, height, width, 1)


def check_size(height, width):
  """Image height and width as positive Python integers, else a ValueError."""
  for name, value in (('height', height), ('width', width)):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
      raise ValueError(f'{name} must be a whole number of pixels; got {value!r}.')
    if value < 1:
      raise ValueError(f'{name} must be at least 1 pixel; got {value}.')
  return int(height), int(width)


def check_edges(start, end):
  """Raises a ValueError unless both ends are `[B, E, 2]` of the same shape."""
  for name, value in (('start', start), ('end', end)):
    if value.ndim != 3 or value.shape[-1] != 2:
      raise ValueError(f'{name} must be [B, E, 2] in (x, y); got {value.shape}.')
  if start.shape != end.shape:
    raise ValueError(
      f'start and end must have the same shape; got {start.shape} and {end.shape}.'
    )


def spread(name, value, shape, *, scalar):
  """Broadcasts a scalar (if allowed), `[E]` or `[B, E]` to `[B, E]`."""
  batch, edges = shape
  allowed = [(edges,), (batch, edges)] + [()] * scalar
  if value.shape not in allowed:
    wanted = ' or '.join(str(x) for x in allowed)
    raise ValueError(f'{name} must be {wanted} for these edges; got {value.shape}.')
  value = value.reshape((1,) * (2 - value.ndim) + value.shape)
  return jnp.broadcast_to(value, shape)


def _check_arrays(start, end, weight, thickness):
  """Checks shapes; all as float32 or float64, weight and thickness as `[B, E]`."""
  arrays = [jnp.asarray(x) for x in (start, end, weight)]
  dtype = jnp.result_type(*arrays, thickness, jnp.float32)
  start, end, weight, thickness = (jnp.asarray(x, dtype) for x in (*arrays, thickness))
  check_edges(start, end)
  shape = start.shape[:2]
  weight = spread('weight', weight, shape, scalar=False)
  thickness = spread('thickness', thickness, shape, scalar=True)
  return start, end, weight, thickness


class _Style(NamedTuple):
  """What is fixed while tracing; `border` is in coordinate units."""

  height: int
  width: int
  profile: str
  border: float


class _Edges(NamedTuple):
  """Edges in their own frames; every field has the same, broadcastable shape.

  `along = x * dx + y * dy + c_along` is a point's position along the line through the
  edge (0 at the start, `length` at the end), `across = y * dx - x * dy + c_across` its
  signed distance from that line. Everything is of the size of a coordinate, also for
  the shortest edge, whereas the usual projection divides by the squared length.
  """

  dx: Any  # Unit direction; (1, 0) if both ends coincide.
  dy: Any
  c_along: Any
  c_across: Any
  length: Any
  inverse: Any  # 1 / length; 0 if both ends coincide.
  middle: Any  # 0; 1/2 if both ends coincide.
  weight: Any
  thickness: Any


def _prepare(start, end, weight, thickness):
  """`_Edges` of arrays `[B, E]`."""
  x, y = start[..., 0], start[..., 1]
  offset = end - start
  length_sq = (offset**2).sum(-1)
  # Below this, squares and their inverses leave the range of float32. A NaN goes on.
  proper = ~(length_sq <= 1e-30)
  length = jnp.where(proper, jnp.sqrt(jnp.where(proper, length_sq, 1)), 0)
  inverse = jnp.where(proper, 1 / jnp.where(proper, length, 1), 0)
  dx = jnp.where(proper, offset[..., 0] * inverse, 1)
  dy = jnp.where(proper, offset[..., 1] * inverse, 0)
  return _Edges(
    dx=dx,
    dy=dy,
    c_along=-(x * dx + y * dy),
    c_across=x * dy - y * dx,
    length=length,
    inverse=inverse,
    middle=jnp.where(proper, 0, 0.5).astype(start.dtype),
    weight=weight,
    thickness=thickness,
  )


def _axes(style, dtype):
  """Pixel centres `[W]` (x) and `[H]` (y), numpy; exact also in float64."""
  x = (2 * np.arange(style.width) + 1) / style.width - 1
  y = (2 * np.arange(style.height) + 1) / style.height - 1
  return x.astype(dtype), y.astype(dtype)


def _locate(edges, x, y):
  """Position along the line, signed distance across it, squared distance."""
  half = edges.length / 2
  from_middle = x * edges.dx + (y * edges.dy + (edges.c_along - half))
  across = (y * edges.dx + edges.c_across) - x * edges.dy
  beyond = jnp.abs(from_middle) - half
  # `jnp.maximum` passes on a NaN, which costs five instructions in place of one; here
  # `across` is NaN already.
  beyond = jnp.where(beyond > 0, beyond, 0)
  return from_middle + half, across, across**2 + beyond**2


def _profile(style, edges, distance_sq):
  """Value of the line, without its weight, in [0, 1]."""
  if style.profile == 'gaussian':
    return jnp.exp(-distance_sq / edges.thickness**2)
  rim = edges.thickness + style.border / 2
  return jnp.clip((rim - jnp.sqrt(distance_sq)) * (1 / style.border), 0, 1)


def _loop_over_edges(style, edges, init, draw, *, no_weight=0.0):
  """Folds `draw(carry, index, edge, x, y)` over the edges, a few in each step.

  Args:
    style: `_Style`.
    edges: `_Edges` of `[B, E]`; the fold sees one edge at a time as `[B, 1, 1]`.
    init: carry, a tuple of `[B, H, W]`.
    draw: returns the next carry.
    no_weight: an edge of this weight must leave the carry unchanged.

  Returns:
    The last carry. The index is a float, exact up to 2^24 edges: with mixed types the
    loops are vectorised worse (and LLVM once failed on one in float64).
  """
  batch, count = edges.weight.shape
  x, y = _axes(style, edges.weight.dtype)
  x, y = x[None, None, :], y[None, :, None]
  steps = -(-count // _FORWARD_EDGES)
  size = -(-count // steps)
  more = steps * size - count
  edges = _pad(edges, more, no_weight)
  edges = _Edges(*(v.T.reshape(steps, size, batch) for v in edges))

  def step(carry, inputs):
    index, group = inputs
    for k in range(size):
      edge = _Edges(*(v[k][:, None, None] for v in group))
      carry = draw(carry, index * size + k, edge, x, y)
    return carry, None

  if steps == 1:
    return step(init, (0, _Edges(*(v[0] for v in edges))))[0]
  numbers = jnp.arange(steps, dtype=edges.weight.dtype)
  return lax.scan(step, init, (numbers, edges))[0]


def _pad(edges, more, weight=0.0):
  """Adds dots at the origin; a thickness of 1 keeps them from dividing by zero."""
  values = {'weight': weight, 'thickness': 1.0}
  return _Edges(
    *(
      jnp.pad(v, ((0, 0), (0, more)), constant_values=values.get(name, 0.0))
      for name, v in edges._asdict().items()
    )
  )


def _maps(style, like, *values):
  """One constant `[B, H, W]` map of each value, in the type of `like`."""
  shape = (like.shape[0], style.height, style.width)
  return tuple(jnp.full(shape, v, like.dtype) for v in values)


# Gradients. Let c(p) be the gradient of the loss with respect to w_e L_e at pixel p.
# With n the vector from the nearest point of the edge to the pixel and t in [0, 1] that
# point's position along the edge,
#   d(d^2)/d start = -2 (1 - t) n    and    d(d^2)/d end = -2 t n,
# since moving t has no effect to first order. Every gradient of an edge is then a sum
# over pixels of a mark m, times a factor that is the same for all pixels:
#   gaussian   m = c L                   c dL/d(d^2) = -m / thickness^2
#   antialias  m = c [0 < L < 1] / d     c dL/d(d^2) = -m / (2 border)


class _Sums(NamedTuple):
  """Sums over pixels, or the terms of them, per edge."""

  across: Any  # m * across
  across_end: Any  # m * across * t
  before: Any  # m * min(along, 0)
  beyond: Any  # m * max(along - length, 0)
  thickness: Any  # m * d^2 (gaussian) or m * d (antialias)
  weight: Any  # c * L


def _terms(style, edges, x, y, slope, *, hold=lambda mark: mark):
  """What one pixel adds to `_Sums`.

  Args:
    style: `_Style`.
    edges: `_Edges`, broadcastable with the pixels.
    x: pixel centres.
    y: pixel centres.
    slope: maps the line's value L to c.
    hold: applied to the mark, which costs most and which most terms share.

  Returns:
    `_Sums` of the broadcast shape.
  """
  along, across, distance_sq = _locate(edges, x, y)
  value = _profile(style, edges, distance_sq)
  if style.profile == 'gaussian':
    mark = hold(slope(value) * value)
    thickness, weight = mark * distance_sq, mark
  else:
    distance = jnp.sqrt(distance_sq)
    # On the line itself n is 0, and any finite number will do.
    distance = jnp.where(distance > 0, distance, 1)
    inside = (value > 0) & (value < 1)
    mark = hold(jnp.where(inside, slope(value) / distance, 0))
    thickness, weight = mark * distance, slope(value) * value
  t = jnp.clip(along * edges.inverse + edges.middle, 0, 1)
  return _Sums(
    across=mark * across,
    across_end=mark * across * t,
    before=mark * jnp.minimum(along, 0),
    beyond=mark * jnp.maximum(along - edges.length, 0),
    thickness=thickness,
    weight=weight,
  )


def _finish(style, edges, sums):
  """Gradients of start, end, weight and thickness from `_Sums` of `[B, E]`."""
  # Both ends of a dot are alike, so they share.
  dot = edges.middle > 0
  half = (sums.before + sums.beyond) / 2
  before = jnp.where(dot, half, sums.before)
  beyond = jnp.where(dot, half, sums.beyond)
  if style.profile == 'gaussian':
    scale = 2 * edges.weight / edges.thickness**2
    thickness = scale / edges.thickness * sums.thickness
  else:
    scale = edges.weight / style.border
    thickness = scale * sums.thickness

  def turn(across, along):
    x = along * edges.dx - across * edges.dy
    y = along * edges.dy + across * edges.dx
    return scale[..., None] * jnp.stack([x, y], axis=-1)

  start = turn(sums.across - sums.across_end, before)
  end = turn(sums.across_end, beyond)
  return start, end, sums.weight, thickness


def _sum_over_pixels(style, edges, maps, slope):
  """`_Sums` of `[B, E]` over all pixels, for every edge.

  Args:
    style: `_Style`.
    edges: `_Edges` of `[B, E]`.
    maps: tuple of `[B, H, W]`.
    slope: `slope(value, edges, index, maps)` is c; all arguments broadcast, `index` is
      the edge's number.

  Returns:
    `_Sums` of `[B, E]`.
  """
  numbers = jnp.arange(edges.weight.shape[1], dtype=edges.weight.dtype)
  index = jnp.broadcast_to(numbers[None], edges.weight.shape)
  return lax.platform_dependent(
    edges,
    index,
    maps,
    cpu=functools.partial(_sum_by_rows, style, slope),
    default=functools.partial(_sum_at_once, style, slope),
  )


def _sum_at_once(style, slope, edges, index, maps):
  """One variadic reduction, which compilers for accelerators fuse into one kernel."""
  x, y = _axes(style, edges.weight.dtype)
  shape = edges.weight.shape + (style.height, style.width)
  edges = _Edges(*(v[:, :, None, None] for v in edges))
  index = index[:, :, None, None]
  maps = tuple(m[:, None] for m in maps)
  terms = _terms(
    style,
    edges,
    x[None, None, None, :],
    y[None, None, :, None],
    lambda value: slope(value, edges, index, maps),
  )
  return _Sums(
    *lax.reduce(
      tuple(jnp.broadcast_to(term, shape) for term in terms),
      (np.zeros((), edges.weight.dtype),) * len(terms),
      lambda a, b: tuple(i + j for i, j in zip(a, b, strict=True)),
      (2, 3),
    )
  )


def _sum_by_rows(style, slope, edges, index, maps):
  """Rows of pixels one after another, so that the CPU's vector units are used."""
  batch, count = edges.weight.shape
  dtype = edges.weight.dtype
  x, y = _axes(style, dtype)
  rows = (jnp.asarray(y), tuple(jnp.moveaxis(m, 1, 0) for m in maps))

  def sum_group(group):
    edges, index = group
    shape = edges.weight.shape + (style.width,)
    edges = _Edges(*(v[:, :, None] for v in edges))

    def add_row(sums, row):
      y, maps = row
      maps = tuple(m[:, None, :] for m in maps)
      terms = _terms(
        style,
        edges,
        x[None, None, :],
        y,
        lambda value: slope(value, edges, index[:, :, None], maps),
        # Without this, each of the six sums computes the mark for itself.
        hold=lambda m: lax.optimization_barrier(jnp.broadcast_to(m, shape)),
      )
      return _Sums(*(a + b for a, b in zip(sums, terms, strict=True))), None

    init = _Sums(*(jnp.zeros(shape, dtype) for _ in _Sums._fields))
    sums, _ = lax.scan(add_row, init, rows)
    return _Sums(*(v.sum(-1) for v in sums))

  if count <= _BACKWARD_EDGES:
    return sum_group((edges, index))
  groups = -(-count // _BACKWARD_EDGES)
  size = -(-count // groups)
  more = groups * size - count

  def split(v):
    return jnp.moveaxis(v.reshape(batch, groups, size), 1, 0)

  edges = _Edges(*(split(v) for v in _pad(edges, more)))
  index = split(jnp.pad(index, ((0, 0), (0, more)), constant_values=-1))
  sums = lax.map(sum_group, (edges, index))
  return _Sums(*(jnp.moveaxis(v, 0, 1).reshape(batch, -1)[:, :count] for v in sums))


# Maximum.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _draw_max(style, start, end, weight, thickness):
  """max_e w_e L_e: `[B, H, W]`."""
  return _on_gpu(
    style,
    lambda *arrays: _find_max(style, *arrays, with_winner=False)[0],
    lambda kernels, *arrays: kernels.find_max(style, *arrays, with_winner=False)[0],
    start,
    end,
    weight,
    thickness,
  )


def _forward_max(style, *arrays):
  image, winner = _on_gpu(
    style,
    functools.partial(_find_max, style, with_winner=True),
    lambda kernels, *arrays: kernels.find_max(style, *arrays, with_winner=True),
    *arrays,
  )
  return image, (*arrays, winner)


def _backward_max(style, kept, grad):
  return _on_gpu(
    style,
    lambda grad, *kept: _sum_max(style, kept, grad),
    lambda kernels, grad, *kept: kernels.backward_max(style, kept, grad),
    grad,
    *kept,
  )


def _on_gpu(style, plain, kernel, *arrays):
  """`kernel(pallas_segments, *arrays)` on one GPU of NVIDIA's, else `plain(*arrays)`.

  Not on several: XLA cannot split a kernel of our own over them, and each would
  draw all images.
  """
  usual = style.profile != 'gaussian' or arrays[0].dtype != jnp.float32
  if usual or jax.default_backend() != 'gpu' or jax.device_count() > 1:
    return plain(*arrays)
  # It stands on this file.
  from img2graph.rendering import pallas_segments

  kernel = functools.partial(kernel, pallas_segments)
  return lax.platform_dependent(*arrays, cuda=kernel, default=plain)


def _find_max(style, start, end, weight, thickness, *, with_winner):
  """The image, and the number of each pixel's winning edge, int32, or None."""
  edges = _prepare(start, end, weight, thickness)
  tiny = float(np.log(np.finfo(start.dtype).tiny))
  if style.profile == 'gaussian':
    # The largest logarithm: one exponential per pixel, and far from all edges, where
    # the exponentials are all 0, still the right winner. Lengths in units of the
    # thickness save a division per edge and pixel.
    none = weight <= 0
    log_weight = jnp.where(none, tiny, jnp.log(jnp.where(none, 1, weight)))
    lengths = ('dx', 'dy', 'c_along', 'c_across', 'length')
    scaled = {name: getattr(edges, name) / thickness for name in lengths}
    scored = edges._replace(weight=log_weight, **scaled)
    no_weight = -jnp.inf

    def score(edge, x, y):
      return edge.weight - _locate(edge, x, y)[2]

  else:
    scored, no_weight = edges, 0.0

    def score(edge, x, y):
      return edge.weight * _profile(style, edge, _locate(edge, x, y)[2])

  def take_larger(carry, index, edge, x, y):
    new = score(edge, x, y)
    if not with_winner:
      return (jnp.where(new > carry[0], new, carry[0]),)
    best, winner = carry[0].real, carry[0].imag
    wins = new > best
    best, winner = jnp.where(wins, new, best), jnp.where(wins, index, winner)
    return (lax.complex(best, winner),)

  # One complex number, since XLA on CPUs has one loop for each array that a step
  # returns: with two, all distances are computed twice.
  init, zero = _maps(style, start, -jnp.inf, 0)
  init = lax.complex(init, zero) if with_winner else init
  (found,) = _loop_over_edges(style, scored, (init,), take_larger, no_weight=no_weight)
  image = found.real
  if style.profile == 'gaussian':
    image = jnp.where(image <= tiny, 0, jnp.exp(image))
  # In the loop a NaN would lose, unseen.
  unknown = jnp.isnan(sum(scored)).any(1)[:, None, None]
  image = jnp.where(unknown, jnp.nan, image)
  return image, found.imag.astype(jnp.int32) if with_winner else None


def _sum_max(style, kept, grad):
  *arrays, winner = kept
  edges = _prepare(*arrays)
  batch, count = edges.weight.shape
  # Large images go through in bands of rows, for memory.
  wanted = max(1, min(style.height, winner.size // _BACKWARD_PIXELS))
  bands = next(d for d in range(wanted, 0, -1) if style.height % d == 0)
  x, y = np.meshgrid(*_axes(style, grad.dtype))
  pixels = tuple(jnp.asarray(v.reshape(bands, 1, -1)) for v in (x, y))
  maps = tuple(jnp.moveaxis(v.reshape(batch, bands, -1), 1, 0) for v in (winner, grad))
  take = jax.vmap(lambda v, i: v.at[i].get(mode='promise_in_bounds'))
  add = jax.vmap(lambda s, i, v: s.at[i].add(v, mode='promise_in_bounds'))

  def add_band(sums, inputs):
    x, y, winner, grad = inputs
    won = _Edges(*(take(v, winner) for v in edges))
    # The barrier, and a map for each number rather than a row for each pixel, keep
    # the loops over pixels vectorised.
    terms = lax.optimization_barrier(_terms(style, won, x, y, lambda value: grad))
    return _Sums(*(add(s, winner, v) for s, v in zip(sums, terms, strict=True))), None

  init = _Sums(*(jnp.zeros((batch, count), grad.dtype) for _ in _Sums._fields))
  sums, _ = lax.scan(add_band, init, (*pixels, *maps))
  return _finish(style, edges, sums)


_draw_max.defvjp(_forward_max, _backward_max)


# Sum.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _draw_sum(style, start, end, weight, thickness):
  """sum_e w_e L_e: `[B, H, W]`."""
  edges = _prepare(start, end, weight, thickness)

  def draw(carry, index, edge, x, y):
    value = edge.weight * _profile(style, edge, _locate(edge, x, y)[2])
    return (carry[0] + value,)

  return _loop_over_edges(style, edges, _maps(style, start, 0.0), draw)[0]


def _forward_sum(style, start, end, weight, thickness):
  return _draw_sum(style, start, end, weight, thickness), (
    start,
    end,
    weight,
    thickness,
  )


def _backward_sum(style, kept, grad):
  edges = _prepare(*kept)

  def slope(value, edges, index, maps):
    return maps[0]

  return _finish(style, edges, _sum_over_pixels(style, edges, (grad,), slope))


_draw_sum.defvjp(_forward_sum, _backward_sum)


# Soft or.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _draw_soft_or(style, start, end, weight, thickness):
  """1 - prod_e (1 - w_e L_e): `[B, H, W]`."""
  edges = _prepare(start, end, weight, thickness)

  def draw(carry, index, edge, x, y):
    value = edge.weight * _profile(style, edge, _locate(edge, x, y)[2])
    return (carry[0] * (1 - value),)

  return 1 - _loop_over_edges(style, edges, _maps(style, start, 1.0), draw)[0]


def _forward_soft_or(style, start, end, weight, thickness):
  edges = _prepare(start, end, weight, thickness)

  def draw(carry, index, edge, x, y):
    others, least, which = carry
    factor = 1 - edge.weight * _profile(style, edge, _locate(edge, x, y)[2])
    # A weight above 1 makes negative factors; the smallest is the one nearest 0.
    less = jnp.abs(factor) < jnp.abs(least)
    others = others * jnp.where(less, least, factor)
    return others, jnp.where(less, factor, least), jnp.where(less, index, which)

  # The empty product: a factor of 1 that belongs to no edge.
  others, least, which = _loop_over_edges(
    style, edges, _maps(style, start, 1.0, 1.0, -1), draw
  )
  product = others * least
  return 1 - product, (start, end, weight, thickness, others, product, which)


def _backward_soft_or(style, kept, grad):
  *arrays, others, product, which = kept
  edges = _prepare(*arrays)

  def slope(value, edges, index, maps):
    with_least, with_rest, which = maps
    factor = 1 - edges.weight * value
    # Another edge's factor can only be 0 where the least is: the product is 0 too.
    factor = jnp.where(factor == 0, 1, factor)
    return jnp.where(index == which, with_least, with_rest / factor)

  maps = (grad * others, grad * product, which)
  return _finish(style, edges, _sum_over_pixels(style, edges, maps, slope))


_draw_soft_or.defvjp(_forward_soft_or, _backward_soft_or)
