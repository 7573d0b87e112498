"""Maps that turn, scale and shift what is seen, of images and of points alike.

A map is (matrix `[B, 2, 2]`, offset `[B, 2]`): what is at a position p comes to be at
matrix p + offset, positions (x, y) in [-1, 1].
"""

import functools
import math

import jax
import jax.numpy as jnp

from img2graph import ranges


def check(*, turn=0.0, zoom=1.0, shift=0.0):
  """What `sample` takes, from the values of a config.

  Args:
    turn: greatest angle either way, degrees, [0, 180].
    zoom: factor of the size, a number or (low, high), >= 0.1.
    shift: greatest shift along x and along y, as a share of the side, [0, 1].

  Returns:
    dict of `turn`, `zoom` and `shift`; None if nothing would move.

  Raises:
    ValueError: a value is outside its range; one sentence.
  """
  turn = math.radians(ranges.as_number('turn', turn, lowest=0, highest=180))
  zoom = ranges.as_range('zoom', zoom, lowest=0.1)
  shift = ranges.as_number('shift', shift, lowest=0, highest=1)
  if not turn and not shift and zoom == (1, 1):
    return None
  return dict(turn=turn, zoom=zoom, shift=shift)


def sample(key, count, *, turn=0.0, zoom=(1.0, 1.0), shift=0.0):
  """Random maps, each value uniform in its range.

  Args:
    key: jax key.
    count: how many maps, B.
    turn: greatest angle either way, radians.
    zoom: (low, high) of the factor of the size.
    shift: greatest shift along x and along y, as a share of the side.

  Returns:
    (matrix `[B, 2, 2]`, offset `[B, 2]`), float32.
  """
  turn_key, zoom_key, shift_key = jax.random.split(key, 3)
  angle = jax.random.uniform(turn_key, (count,), minval=-turn, maxval=turn)
  factor = jax.random.uniform(zoom_key, (count,), minval=zoom[0], maxval=zoom[1])
  offset = jax.random.uniform(shift_key, (count, 2), minval=-shift, maxval=shift)
  cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
  matrix = jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(count, 2, 2)
  return matrix, 2 * offset


def move_points(points, matrix, offset):
  """Where points `[B, N, 2]` come to be, `[B, N, 2]`."""
  return _times(matrix[:, None], points) + offset[:, None]


def move_images(images, matrix, offset):
  """Images as they come to be seen, bilinear; outside of one is its border.

  Args:
    images: `[B, S, S, C]` float.
    matrix: `[B, 2, 2]`, not singular.
    offset: `[B, 2]`.

  Returns:
    `[B, S, S, C]`.
  """
  side = images.shape[1]
  centres = (2 * jnp.arange(side) + 1) / side - 1
  there = jnp.stack(jnp.meshgrid(centres, centres), axis=-1)[None]  # (x, y).
  back = jnp.linalg.inv(matrix)
  source = _times(back[:, None, None], there - offset[:, None, None])
  pixels = (source + 1) * side / 2 - 0.5
  pick = functools.partial(jax.scipy.ndimage.map_coordinates, order=1, mode='nearest')
  of_channels = jax.vmap(pick, in_axes=(-1, None), out_axes=-1)
  return jax.vmap(of_channels)(images, [pixels[..., 1], pixels[..., 0]])


def _times(matrix, vectors):
  """Products `[..., 2]`, in float32 on every device, which a matrix unit's are not."""
  return (matrix * vectors[..., None, :]).sum(axis=-1)
