"""Line drawings of any size, width and contrast brought to one common look.

The encoder and the loss see ink of comparable width and level on a small canvas, so
that one recipe serves images of 48 to 512 pixels, lines of 1 to 6 pixels, low contrast
and noise. Coordinates in [-1, 1] are those of the outer edges of the image and do not
change. Images are `[B, S, S, 1]` float32 in [0, 1], ink 1.
"""

import functools

import jax
import jax.numpy as jnp

from img2graph import ranges

EPS = 1e-6

_BOUNDS = {'side': ranges.COUNT, 'floor': ranges.DECAY, 'gain': ranges.POSITIVE}


def preparation(options):
  """`images -> images` as an encoder sees them.

  Args:
    options: of `canonical_image`, a dict; None leaves images as they are, in float32.

  Raises:
    ValueError: a value is out of range.
  """
  if options is None:
    return lambda images: images.astype(jnp.float32)
  ranges.check('method.canonical_form', options, _BOUNDS)
  return functools.partial(canonical_image, **options)


def canonical_image(images, *, side=64, floor=0.15, gain=1.0):
  """Canonical form `[B, side, side, 1]` of square line drawings `[B, S, S, 1]`.

  Enlarges to a multiple of `side`, pools by the maximum (an average would make thin
  lines of large images fade), blurs by [1 2 1]/4 in both directions, removes the grey
  of the paper and a noise floor, and divides by the level of the ink.

  Args:
    images: `[B, S, S, 1]` float, ink 1 and paper 0; any S.
    side: side of the result, in pixels.
    floor: fraction of each image's maximum below which blurred ink is noise, in [0, 1).
    gain: ink of level 1/gain saturates. Pooling leaves a line along the pixel rows
      dimmer than a slanted one; above 1 both reach full ink.

  Returns:
    `[B, side, side, 1]` float32 in [0, 1]. An image without ink stays zero.
  """
  batch, height, width, channels = images.shape
  if height != width or channels != 1:
    raise ValueError(f'images must be [B, S, S, 1]; got {images.shape}.')
  x = images[..., 0].astype(jnp.float32)
  factor = -(-height // side)
  full = factor * side
  if full != height:
    x = jax.image.resize(x, (batch, full, full), 'linear')
  if factor > 1:
    x = x.reshape(batch, side, factor, side, factor).max(axis=(2, 4))
  x = _blur(_blur(x, axis=1), axis=2)
  x = jnp.maximum(x - _paper_level(x), 0)
  if floor:
    threshold = floor * x.max(axis=(1, 2), keepdims=True)
    x = jnp.maximum(x - threshold, 0)
  # sum x^3 / sum x^2 is the ink-weighted level: robust against a single bright pixel.
  square = (x**2).sum(axis=(1, 2), keepdims=True)
  cube = (x**3).sum(axis=(1, 2), keepdims=True)
  level = jnp.where(square > EPS, cube / jnp.maximum(square, EPS), 1)
  return jnp.clip(gain * x / jnp.maximum(level, EPS), 0, 1)[..., None]


def _paper_level(x):
  """Grey of the paper `[B, 1, 1]`: the lower quartile of the means of small blocks.

  Ink rarely touches three quarters of all blocks, and a mean sees through noise.
  """
  batch, side, _ = x.shape
  block = max(side // 16, 1)
  count = side // block
  cut = x[:, : count * block, : count * block]
  means = cut.reshape(batch, count, block, count, block).mean(axis=(2, 4))
  ordered = jnp.sort(means.reshape(batch, -1), axis=-1)
  return ordered[:, count * count // 4, None, None]


def _blur(x, axis):
  """[1 2 1]/4 along one axis; paper (zero) lies beyond the border."""
  padding = [(0, 0)] * x.ndim
  padding[axis] = (1, 1)
  padded = jnp.pad(x, padding)
  size = x.shape[axis]
  before, centre, after = (
    jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(3)
  )
  return (before + 2 * centre + after) / 4
