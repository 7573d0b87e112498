"""Drawing edges by copying a template with a spatial transformer.

Lu and Dubbelman, section 3.2.2 ("differentiable drawing"): an image of an edge, made
beforehand, is copied to the place of every node pair by a spatial transformer
(Jaderberg et al., "Spatial Transformer Networks": an affine grid and bilinear
sampling), multiplied by the edge's probability and added onto the canvas. The paper
leaves the template and its transform open; here the template shows a straight line
from the middle of its left side to the middle of its right side, and the transform is
the similarity along the edge with a width of its own across it, so that all lines are
equally wide.

All positions, on the canvas and in the template, are (x, y) in [-1, 1] as in
`img2graph.geometry`: -1 and 1 are the outer edges, not pixel centres.

Letters: B batch, E edges, H W image, T side of a template.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from img2graph.rendering import segments


def line_template(size, half_width=None, softness=None):
  """Image of a horizontal line over the full width of a square.

  Args:
    size: side of the template in pixels, T.
    half_width: half the width of the line, template pixels; `size / 4` if None.
    softness: width of the linear border of the line, template pixels; `half_width` if
      None, so that a line drawn 2 pixels wide has a border of one pixel.

  Returns:
    `[T, T]` float32 numpy array in [0, 1].

  Raises:
    ValueError: a number is not positive, or line and border do not fit the template.
  """
  segments.check_size(size, size)
  half_width = size / 4 if half_width is None else half_width
  softness = half_width if softness is None else softness
  if not (half_width > 0 and softness > 0):
    raise ValueError(
      f'half_width and softness must be positive; got {half_width} and {softness}.'
    )
  if half_width + softness / 2 > size / 2:
    raise ValueError(
      f'a line of half width {half_width} with a border of {softness} does not fit a '
      f'template of {size} pixels.'
    )
  distance = np.abs(np.arange(size) + 0.5 - size / 2)
  profile = np.clip((half_width + softness / 2 - distance) / softness, 0, 1)
  return np.tile(profile[:, None], (1, size)).astype(np.float32)


def affine_grid(theta, *, height, width):
  """Where each pixel of an image comes from under an affine map.

  Args:
    theta: `[..., 2, 3]` float; maps (x, y, 1) of the image to (x, y) of the source.
    height: image height in pixels.
    width: image width in pixels.

  Returns:
    `[..., H, W, 2]` float, (x, y) in the source.
  """
  height, width = segments.check_size(height, width)
  if theta.ndim < 2 or theta.shape[-2:] != (2, 3):
    raise ValueError(f'theta must be [..., 2, 3]; got {theta.shape}.')
  return jnp.stack(_source(theta, height, width), axis=-1)


def _source(theta, height, width):
  """`affine_grid` as two maps `[..., H, W]`, x and y: twice as fast with gradients."""
  lead = (1,) * (theta.ndim - 2)
  x = (2 * np.arange(width) + 1) / width - 1
  y = (2 * np.arange(height) + 1) / height - 1
  x = x.astype(theta.dtype).reshape((*lead, 1, width))
  y = y.astype(theta.dtype).reshape((*lead, height, 1))
  a = theta[..., None, None]
  # Not a product of matrices, which accelerators would round to fewer digits.
  return tuple(
    a[..., row, 0, :, :] * x + (a[..., row, 1, :, :] * y + a[..., row, 2, :, :])
    for row in range(2)
  )


def bilinear_sample(image, grid):
  """Values between the pixels of an image; 0 outside.

  Args:
    image: `[T, U]` float; differentiable.
    grid: `[..., 2]` float, (x, y) in [-1, 1]; differentiable. Between the outermost
      pixel centres and the zeros half a pixel outside the image values fall linearly.

  Returns:
    `[...]` float.
  """
  if image.ndim != 2:
    raise ValueError(f'the image to sample from must be [T, U]; got {image.shape}.')
  if grid.shape[-1:] != (2,):
    raise ValueError(f'grid must be [..., 2] in (x, y); got {grid.shape}.')
  return _sample(image, grid[..., 0], grid[..., 1])


def _sample(image, x, y):
  """`bilinear_sample` at positions x and y `[...]`."""
  height, width = image.shape
  padded = jnp.pad(jnp.asarray(image, x.dtype), 1)
  # The four pixels around a position as one row: one gather instead of four.
  corners = jnp.stack(
    [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]], axis=-1
  ).reshape(-1, 4)
  # In pixels of the padded image; the centre of its first pixel is 0.
  x = jnp.clip((x + 1) * (width / 2) + 0.5, 0, width + 1)
  y = jnp.clip((y + 1) * (height / 2) + 0.5, 0, height + 1)
  left = jnp.clip(jnp.floor(x), 0, width)
  top = jnp.clip(jnp.floor(y), 0, height)
  index = (top * (width + 1) + left).astype(jnp.int32)
  # Clipped once more, since a NaN may become any index.
  corner = corners.at[index].get(mode='clip')
  x, y = x - left, y - top
  upper = corner[..., 0] * (1 - x) + corner[..., 1] * x
  lower = corner[..., 2] * (1 - x) + corner[..., 3] * x
  return upper * (1 - y) + lower * y


def edge_transform(start, end, half_extent, *, shortest):
  """The affine maps from the canvas to a template that lies along each edge.

  Args:
    start: `[..., 2]` float, (x, y); the middle of the template's left side.
    end: `[..., 2]` float; the middle of its right side. May equal `start`.
    half_extent: half the height of the copy, across the edge, coordinate units.
    shortest: length of the copy of a shorter edge, coordinate units. Below it the
      direction has no gradient, which would grow like 1 / length.

  Returns:
    `[..., 2, 3]` float, see `affine_grid`.
  """
  offset = end - start
  length_sq = (offset**2).sum(-1, keepdims=True)
  long_enough = length_sq > shortest**2
  length = jnp.sqrt(jnp.where(long_enough, length_sq, shortest**2))
  # Shorter edges keep their direction, and dots get one; both without a gradient.
  still, still_sq = lax.stop_gradient((offset, length_sq))
  proper = still_sq > 1e-30
  east = jnp.asarray([1.0, 0.0], offset.dtype).reshape((1,) * (offset.ndim - 1) + (2,))
  short = jnp.where(proper, still / jnp.sqrt(jnp.where(proper, still_sq, 1)), east)
  along = jnp.where(long_enough, offset / length, short)
  across = jnp.stack([-along[..., 1], along[..., 0]], axis=-1)
  rows = jnp.stack([along * (2 / length), across / half_extent], axis=-2)
  middle = (start + end) / 2
  shift = -(rows * middle[..., None, :]).sum(-1, keepdims=True)
  return jnp.concatenate([rows, shift], axis=-1)


def draw_templates(
  template, start, end, weight, *, height, width, half_width, fill=0.5
):
  """Adds a copy of the template for every edge onto an empty canvas.

  One edge after another, and computed again for the gradient, so that memory does not
  grow with the number of edges.

  Args:
    template: `[T, T]` float, see `line_template`.
    start: `[B, E, 2]` float, (x, y) of the first end of each edge.
    end: `[B, E, 2]` float, the second end; may equal `start`: edges shorter than a
      pixel are drawn one pixel long.
    weight: `[E]` or `[B, E]` float, brightness of the copies: edge probabilities.
    height: image height in pixels.
    width: image width in pixels.
    half_width: half the width of a line on the canvas in pixels, a number > 0.
    fill: the part of the template's height that its line takes; 1/2 for the default
      `line_template`. Copies are `2 * half_width / fill` pixels high.

  Returns:
    `[B, H, W]` float32 (float64 if an input is); above 1 where lines overlap.

  Raises:
    ValueError: a shape or a size is wrong.
  """
  height, width = segments.check_size(height, width)
  arrays = [jnp.asarray(v) for v in (start, end, weight, template)]
  dtype = jnp.result_type(*arrays, jnp.float32)
  start, end, weight, template = (v.astype(dtype) for v in arrays)
  segments.check_edges(start, end)
  weight = segments.spread('weight', weight, start.shape[:2], scalar=False)
  if template.ndim != 2 or template.size == 0:
    raise ValueError(f'template must be [T, T]; got {template.shape}.')
  if not (half_width > 0 and 0 < fill <= 1):
    raise ValueError(
      f'half_width must be positive and fill in (0, 1]; got {half_width} and {fill}.'
    )
  # The geometric mean of both sides of a pixel, as in `segments`.
  # A number of Python's, since one of numpy's makes all float64 where that is enabled.
  pixel = float(2 / np.sqrt(height * width))
  half_extent = float(half_width * pixel / fill)
  theta = edge_transform(start, end, half_extent, shortest=pixel)

  @jax.checkpoint
  def copy(theta, weight):
    value = _sample(template, *_source(theta, height, width))
    return weight[:, None, None] * value

  def add(canvas, edge):
    return canvas + copy(*edge), None

  canvas = jnp.zeros((start.shape[0], height, width), dtype)
  edges = (jnp.moveaxis(theta, 1, 0), jnp.moveaxis(weight, 1, 0))
  return lax.scan(add, canvas, edges)[0]
