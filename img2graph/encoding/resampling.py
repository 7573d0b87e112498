"""Bilinear resampling of images and feature maps, `[B, H, W, C]`.

Values are between pixel centres, and beyond the outermost of them those of the border:
what PyTorch calls bilinear with `align_corners=False` and without antialiasing.
"""

import jax
import jax.numpy as jnp


def halve(x):
  """Half the size: bilinear at 0.5, which is the mean of 2 x 2 pixels.

  Args:
    x: `[B, H, W, C]` float, H and W even.

  Returns:
    `[B, H/2, W/2, C]`.
  """
  batch, height, width, channels = x.shape
  if height % 2 or width % 2:
    raise ValueError(f'halving needs even sides; got {height} x {width}.')
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def double(x):
  """Twice the size, bilinear: `[B, H, W, C]` to `[B, 2H, 2W, C]`."""
  return _double(_double(x, 1), 2)


def _double(x, axis):
  """Twice the size along one axis: each new pixel is 3/4 of one and 1/4 of another."""
  size = x.shape[axis]
  first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
  padded = jnp.concatenate([first, x, last], axis=axis)
  before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
  after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
  pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
  return pairs.reshape(x.shape[:axis] + (2 * size,) + x.shape[axis + 1 :])


def resize(x, side):
  """Any size, bilinear: `[B, H, W, C]` to `[B, side, side, C]`."""
  if x.shape[1:3] == (side, side):
    return x
  shape = (x.shape[0], side, side, x.shape[3])
  return jax.image.resize(x, shape, 'bilinear', antialias=False)
