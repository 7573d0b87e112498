"""The brightest of Gaussian lines, as GPU kernels of our own (Pallas, Triton).

Image and gradients are those of `segments` with 'max' and 'gaussian', in float32 only.
Where w_e L_e underflows for all edges the winner may be another one; its gradient is 0.

Forward, a program draws one tile of pixels and holds its best score, log w_e - d_e^2
with lengths in units of the thickness, and the winner in registers. Most edges are too
far from a tile to win a pixel of it. From the distance d of the tile's centre and the
tile's radius r, both in units of the thickness,

  log w_e - max(d - r, 0)^2   is the most that edge e can score anywhere in the tile,
  log w_e - (d + r)^2         is the least that it scores everywhere,

so that an edge whose most is below the largest least, or below what every pixel has
found already, is not drawn; `Options.reject` says how. Nor is an edge of which nothing
but zeros, even in subnormal numbers, could be seen.

Backward, the six sums of `segments` over each edge's pixels: see `Options.backward`.

Letters: B batch, E edges, H W image, F numbers of an edge.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from img2graph.rendering import segments

# The logarithm below which exp is 0 in float32, also in subnormal numbers.
_NOTHING = 104.0
# Edges that are judged at once, a bit of an int32 for each.
_GROUP = 32
# What rounding of positions may add to a distance, in coordinate units.
_SLACK = 2e-6
_FIELDS = 8


class Options(NamedTuple):
  """How the kernels are cut; no option changes the result by more than rounding."""

  # Rows and columns of pixels of a program; powers of two.
  tile: tuple[int, int] = (16, 16)
  num_warps: int = 1
  # 'none': every edge is drawn in every tile. 'each': every edge is judged by itself.
  # 'group': 32 edges are judged at once, each by another thread.
  reject: str = 'group'
  # 'tile': a program for each tile, which sums over the pixels of each winner in it and
  # adds once per winner. 'pixel': each pixel adds for itself. In both the order of
  # additions, and so the rounding, differs from call to call. 'edge': a program for
  # each edge, which looks for its pixels; the same in each call.
  backward: str = 'tile'
  backward_tile: tuple[int, int] = (16, 16)
  backward_warps: int = 1
  # Runs without a GPU, slowly, for tests. 'pixel' is wrong then.
  interpret: bool = False


def draw_max(style, start, end, weight, thickness, *, options=None):
  """max_e w_e L_e; differentiable in the four arrays.

  Args:
    style: `segments._Style` of profile 'gaussian'.
    start: `[B, E, 2]` float32, (x, y), B and E at least 1.
    end: `[B, E, 2]` float32.
    weight: `[B, E]` float32.
    thickness: `[B, E]` float32, > 0, in coordinate units.
    options: `Options`.

  Returns:
    `[B, H, W]` float32.

  Raises:
    ValueError: another profile or type.
  """
  return _draw_max(style, options or Options(), start, end, weight, thickness)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _draw_max(style, options, *arrays):
  return find_max(style, *arrays, with_winner=False, options=options)[0]


def _forward(style, options, *arrays):
  image, winner = find_max(style, *arrays, with_winner=True, options=options)
  return image, (*arrays, winner)


def _backward(style, options, kept, grad):
  return backward_max(style, kept, grad, options=options)


_draw_max.defvjp(_forward, _backward)


def find_max(style, start, end, weight, thickness, *, with_winner, options=None):
  """The image, and the number of each pixel's winning edge, int32, or None.

  See `draw_max` for the arguments.
  """
  options = options or Options()
  _check(style, start, end, weight, thickness)
  batch, count = weight.shape
  table, unknown = _score_table(start, end, weight, thickness)
  x, y = _padded_axes(style, options.tile)
  grid = (batch, y.size // options.tile[0], x.size // options.tile[1])
  pixels = pl.BlockSpec((None, *options.tile), lambda b, i, j: (b, i, j))
  shape = (batch, y.size, x.size)
  types = (jnp.float32, jnp.int32)[: 1 + with_winner]
  found = pl.pallas_call(
    functools.partial(_find_kernel, style, count, options),
    grid=grid,
    in_specs=[
      pl.BlockSpec((options.tile[1],), lambda b, i, j: (j,)),
      pl.BlockSpec((options.tile[0],), lambda b, i, j: (i,)),
      pl.BlockSpec((None, *table.shape[1:]), lambda b, i, j: (b, 0, 0)),
      pl.BlockSpec((1,), lambda b, i, j: (b,)),
    ],
    out_specs=[pixels for _ in types],
    out_shape=[jax.ShapeDtypeStruct(shape, dtype) for dtype in types],
    compiler_params=_compiler(options.num_warps),
    interpret=options.interpret,
    name='draw_max',
  )(x, y, table, unknown)
  found = [v[:, : style.height, : style.width] for v in found]
  return found[0], found[1] if with_winner else None


def _check(style, *arrays):
  if style.profile != 'gaussian':
    raise ValueError(f"profile must be 'gaussian'; got {style.profile!r}.")
  types = {str(v.dtype) for v in arrays}
  if types != {'float32'}:
    raise ValueError(f'all arrays must be float32; got {sorted(types)}.')


def _compiler(num_warps):
  # The loops have nothing to copy ahead of its use.
  return plgpu.CompilerParams(num_warps=num_warps, num_stages=1)


def _padded_axes(style, tile):
  """Pixel centres `[W]` (x) and `[H]` (y), beyond the image up to whole tiles."""
  axes = []
  for size, side in ((style.width, tile[1]), (style.height, tile[0])):
    padded = -(-size // side) * side
    axes.append(((2 * np.arange(padded) + 1) / size - 1).astype(np.float32))
  return axes


def _pad_pixels(maps, tile, value):
  """Pads `[B, H, W]` to whole tiles."""
  _, height, width = maps.shape
  more = ((0, 0), (0, -height % tile[0]), (0, -width % tile[1]))
  return jnp.pad(maps, more, constant_values=value)


class _Scored(NamedTuple):
  """What the forward kernel reads of an edge; `_locate` reads it as `_Edges`."""

  dx: jax.Array  # This and the next four in units of the thickness.
  dy: jax.Array
  c_along: jax.Array
  c_across: jax.Array
  length: jax.Array
  log_weight: jax.Array
  inverse_thickness: jax.Array
  limit: jax.Array  # Beyond this squared distance nothing is seen.


def _score_table(start, end, weight, thickness):
  """`[B, E', F]`, E' a multiple of `_GROUP`, and `[B]`: NaN for an unknown image."""
  edges = segments._prepare(start, end, weight, thickness)
  none = weight <= 0
  log_weight = jnp.where(none, _least(), jnp.log(jnp.where(none, 1, weight)))
  lengths = ('dx', 'dy', 'c_along', 'c_across', 'length')
  scaled = {name: getattr(edges, name) / thickness for name in lengths}
  # In the loop a NaN would lose, unseen.
  unknown = jnp.isnan(sum(edges._replace(weight=log_weight, **scaled))).any(1)
  scored = _Scored(
    **scaled,
    log_weight=log_weight,
    inverse_thickness=1 / thickness,
    limit=_NOTHING + jnp.maximum(log_weight, 0),
  )
  # Those added are beyond their limit at any distance.
  nobody = _Scored(0.0, 0.0, 0.0, 0.0, 0.0, -np.inf, 1.0, -1.0)
  more = ((0, 0), (0, -weight.shape[1] % _GROUP))
  table = [
    jnp.pad(v, more, constant_values=n) for v, n in zip(scored, nobody, strict=True)
  ]
  return jnp.stack(table, axis=-1), jnp.where(unknown, jnp.nan, 0).astype(jnp.float32)


def _least():
  """The logarithm of the smallest normal number."""
  return float(np.log(np.finfo(np.float32).tiny))


def _score(edge, x, y):
  return edge.log_weight - segments._locate(edge, x, y)[2]


def _bounds(edge, x, y, radius):
  """Whether an edge is seen within `radius` of a point; its most and least score."""
  distance = jnp.sqrt(segments._locate(edge, x, y)[2])
  radius = (radius + _SLACK) * edge.inverse_thickness
  near = distance - radius
  near = jnp.where(near > 0, near, 0)
  far = distance + radius
  near_sq = near * near
  seen = near_sq <= edge.limit
  return seen, edge.log_weight - near_sq, edge.log_weight - far * far


def _centre(style, tile, row, column):
  """Centre of a tile, (x, y), and the distance to its furthest pixel."""
  height, width = tile
  x = (2 * width * column + width).astype(jnp.float32) * (1 / style.width) - 1
  y = (2 * height * row + height).astype(jnp.float32) * (1 / style.height) - 1
  radius = float(np.hypot((width - 1) / style.width, (height - 1) / style.height))
  return x, y, radius


def _find_kernel(style, count, options, x_ref, y_ref, table_ref, unknown_ref, *out):
  """Draws one tile; `count` edges, all others of the table are padding."""
  x, y = x_ref[...][None, :], y_ref[...][:, None]
  with_winner = len(out) == 2
  centre = _centre(style, options.tile, pl.program_id(1), pl.program_id(2))

  def draw(index, carry):
    edge = _Scored(*(table_ref[index, k] for k in range(_FIELDS)))
    return take(index, edge, carry)

  def take(index, edge, carry):
    new = _score(edge, x, y)
    wins = new > carry[0]
    best = jnp.where(wins, new, carry[0])
    return (best, jnp.where(wins, index, carry[1])) if with_winner else (best,)

  def judge_each(index, carry):
    edge = _Scored(*(table_ref[index, k] for k in range(_FIELDS)))
    seen, most, _ = _bounds(edge, *centre)
    floor, carry = carry[0], carry[1:]
    carry = lax.cond(
      seen & (most >= floor), lambda c: take(index, edge, c), lambda c: c, carry
    )
    floor = lax.cond(
      lax.rem(index, _GROUP) == _GROUP - 1, lambda: jnp.min(carry[0]), lambda: floor
    )
    return floor, *carry

  def read_group(group):
    rows = pl.ds(group * _GROUP, _GROUP)
    return _Scored(*(table_ref[rows, k] for k in range(_FIELDS)))

  def add_least(group, floor):
    seen, _, least = _bounds(read_group(group), *centre)
    return jnp.where(seen & (least > floor), least, floor)

  def judge_group(group, carry):
    floor, carry = carry[0], carry[1:]
    seen, most, _ = _bounds(read_group(group), *centre)
    bit = jnp.left_shift(jnp.int32(1), lax.iota(jnp.int32, _GROUP))
    bits = jnp.sum(jnp.where(seen & (most >= floor), bit, 0))

    def draw_lowest(_, carry):
      bits, carry = carry[0], carry[1:]
      place = lax.population_count((bits & -bits) - 1)
      return bits & (bits - 1), *draw(group * _GROUP + place, carry)

    number = lax.population_count(bits)
    carry = lax.fori_loop(0, number, draw_lowest, (bits, *carry))[1:]
    return jnp.maximum(floor, jnp.min(carry[0])), *carry

  carry = (
    jnp.full(options.tile, -jnp.inf, jnp.float32),
    jnp.zeros(options.tile, jnp.int32),
  )[: 1 + with_winner]
  if options.reject == 'none':
    carry = lax.fori_loop(0, count, draw, carry)
  elif options.reject == 'each':
    floor = jnp.float32(-jnp.inf)
    carry = lax.fori_loop(0, count, judge_each, (floor, *carry))[1:]
  elif options.reject == 'group':
    groups = -(-count // _GROUP)
    floor = jnp.full((_GROUP,), -jnp.inf, jnp.float32)
    floor = jnp.max(lax.fori_loop(0, groups, add_least, floor))
    carry = lax.fori_loop(0, groups, judge_group, (floor, *carry))[1:]
  else:
    raise ValueError(f"reject must be 'none', 'each' or 'group'; got {options.reject}.")
  image = jnp.where(carry[0] <= _least(), 0, jnp.exp(carry[0]))
  out[0][...] = image + unknown_ref[0]
  if with_winner:
    out[1][...] = carry[1]


# Gradients.

_READ = [n for n in segments._Edges._fields if n != 'weight']


def backward_max(style, kept, grad, *, options=None):
  """Gradients of start, end, weight and thickness.

  Args:
    style: `segments._Style`.
    kept: start, end, weight, thickness, and the winners `[B, H, W]` int32.
    grad: `[B, H, W]` float32, of the image.
    options: `Options`.

  Returns:
    `[B, E, 2]` twice, `[B, E]` twice.
  """
  options = options or Options()
  *arrays, winner = kept
  _check(style, *arrays, grad)
  edges = segments._prepare(*arrays)
  batch, count = edges.weight.shape
  table = jnp.stack([getattr(edges, name) for name in _READ], axis=-1)
  tile = options.backward_tile
  x, y = _padded_axes(style, tile)
  # No edge has this number.
  winner, grad = _pad_pixels(winner, tile, -1), _pad_pixels(grad, tile, 0)
  inputs = (x, y, table, winner, grad)
  sums_shape = (batch, count, _FIELDS)
  shared = dict(
    out_shape=jax.ShapeDtypeStruct(sums_shape, jnp.float32),
    compiler_params=_compiler(options.backward_warps),
    interpret=options.interpret,
  )
  if options.backward == 'edge':
    one = pl.BlockSpec((None, None, _FIELDS), lambda b, e: (b, e, 0))
    image = pl.BlockSpec((None, y.size, x.size), lambda b, e: (b, 0, 0))
    sums = pl.pallas_call(
      functools.partial(_edge_kernel, style, tile),
      grid=(batch, count),
      in_specs=[
        pl.BlockSpec((x.size,), lambda b, e: (0,)),
        pl.BlockSpec((y.size,), lambda b, e: (0,)),
        one,
        image,
        image,
      ],
      out_specs=one,
      name='sum_edge',
      **shared,
    )(*inputs)
  elif options.backward in ('tile', 'pixel'):
    kernel = {'tile': _tile_kernel, 'pixel': _pixel_kernel}[options.backward]
    all_edges = pl.BlockSpec((None, count, _FIELDS), lambda b, i, j: (b, 0, 0))
    pixels = pl.BlockSpec((None, *tile), lambda b, i, j: (b, i, j))
    sums = pl.pallas_call(
      functools.partial(kernel, style),
      grid=(batch, y.size // tile[0], x.size // tile[1]),
      in_specs=[
        pl.BlockSpec((tile[1],), lambda b, i, j: (j,)),
        pl.BlockSpec((tile[0],), lambda b, i, j: (i,)),
        all_edges,
        pixels,
        pixels,
        all_edges,
      ],
      out_specs=all_edges,
      # The kernels add to what is there.
      input_output_aliases={len(inputs): 0},
      name=f'sum_{options.backward}',
      **shared,
    )(*inputs, jnp.zeros(sums_shape, jnp.float32))
  else:
    raise ValueError(
      f"backward must be 'tile', 'pixel' or 'edge'; got {options.backward!r}."
    )
  sums = segments._Sums(*(sums[..., k] for k in range(len(segments._Sums._fields))))
  return segments._finish(style, edges, sums)


def _own_terms(style, edge, x, y, own, grad):
  """The terms of `_Sums` where the edge has won, `own`; 0 elsewhere."""
  terms = segments._terms(style, edge, x, y, lambda value: grad)
  # Not a product with 0: an unknown edge that wins nowhere has the gradient 0.
  return [jnp.where(own, term, 0) for term in terms]


def _read_edge(load):
  """`_Edges` from `load(k)`, column k of the table; without the weight."""
  return segments._Edges(weight=None, **{n: load(k) for k, n in enumerate(_READ)})


def _tile_kernel(style, x_ref, y_ref, table_ref, winner_ref, grad_ref, _, sums_ref):
  x, y = x_ref[...][None, :], y_ref[...][:, None]
  winner, grad = winner_ref[...], grad_ref[...]
  nobody = jnp.int32(2**31 - 1)
  columns = lax.iota(jnp.int32, _FIELDS)
  winner = jnp.where((winner >= 0) & (grad != 0), winner, nobody)

  def add(index):
    edge = _read_edge(lambda k: table_ref[index, k])
    terms = _own_terms(style, edge, x, y, winner == index, grad)
    # One addition of them all: each comes with fences.
    row = jnp.zeros((_FIELDS,), jnp.float32)
    for k, term in enumerate(terms):
      row = jnp.where(columns == k, jnp.sum(term), row)
    plgpu.atomic_add(sums_ref, (index, pl.ds(0, _FIELDS)), row)
    return jnp.min(jnp.where(winner > index, winner, nobody))

  lax.while_loop(lambda index: index != nobody, add, jnp.min(winner))


def _pixel_kernel(style, x_ref, y_ref, table_ref, winner_ref, grad_ref, _, sums_ref):
  x, y = x_ref[...][None, :], y_ref[...][:, None]
  winner, grad = winner_ref[...], grad_ref[...]
  index = jnp.maximum(winner, 0)
  edge = _read_edge(lambda k: table_ref[index, k])
  terms = segments._terms(style, edge, x, y, lambda value: grad)
  # The mark is 0 in most pixels, those far from all edges.
  adds = (winner >= 0) & (terms.weight != 0)
  for k, term in enumerate(terms):
    plgpu.atomic_add(sums_ref, (index, jnp.int32(k)), term, mask=adds)


def _edge_kernel(style, tile, x_ref, y_ref, edge_ref, winner_ref, grad_ref, sums_ref):
  edge = _read_edge(lambda k: edge_ref[k])
  index = pl.program_id(1)
  height, width = tile
  columns = x_ref.shape[0] // width
  limit = float(np.sqrt(_NOTHING))

  def add(sums, row, column):
    rows, some = pl.ds(row * height, height), pl.ds(column * width, width)
    x, y = x_ref[some][None, :], y_ref[rows][:, None]
    own, grad = winner_ref[rows, some] == index, grad_ref[rows, some]
    terms = _own_terms(style, edge, x, y, own, grad)
    return tuple(s + v for s, v in zip(sums, terms, strict=True))

  def look(number, sums):
    row, column = lax.div(number, columns), lax.rem(number, columns)
    centre_x, centre_y, radius = _centre(style, tile, row, column)
    distance = jnp.sqrt(segments._locate(edge, centre_x, centre_y)[2])
    away = distance - radius - _SLACK > limit * edge.thickness
    return lax.cond(away, lambda s: s, lambda s: add(s, row, column), sums)

  sums = tuple(jnp.zeros(tile, jnp.float32) for _ in segments._Sums._fields)
  tiles = columns * (y_ref.shape[0] // height)
  sums = lax.fori_loop(0, tiles, look, sums)
  for k, value in enumerate(sums):
    sums_ref[k] = jnp.sum(value)
