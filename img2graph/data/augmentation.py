"""Photographs mirrored, turned, scaled, shifted, recoloured at random, on the device.

With few photographs, or subjects that lie every way, training wants more than there
are. Every change keeps what is seen one object of its class. Points move along; what
distances are divided by stays, since training sees neither.
"""

import functools
import math

import jax
import jax.numpy as jnp

from img2graph.data import drawing
from img2graph.data import sources


def complete(*, flip=False, turn=0.0, zoom=1.0, shift=0.0, recolor=0.0):
  """What training does with batches of photographs, for a source's `complete`.

  Args:
    flip: mirror half of the images left to right.
    turn: greatest angle that images are turned by, either way, in degrees, [0, 180].
    zoom: factor of the size, a number or (low, high), >= 0.1.
    shift: greatest shift along x and along y, as a share of the side, [0, 1].
    recolor: each channel is raised to a power of its own, between exp(-recolor) and
      exp(recolor), [0, 2]; black and white stay.

  Returns:
    `(key, batch) -> batch`, pure and jittable, as `flip_half`; images are float32 in
    [0, 1] if more than mirrored, and what lies outside of an image has the colour of
    its border. None if nothing is to be done.

  Raises:
    ValueError: an option is outside its range; one sentence.
  """
  turn = math.radians(drawing.as_range('turn', turn, lowest=0, highest=180)[1])
  zoom = drawing.as_range('zoom', zoom, lowest=0.1)
  shift = drawing.as_range('shift', shift, lowest=0, highest=1)[1]
  recolor = drawing.as_range('recolor', recolor, lowest=0, highest=2)[1]
  moves = bool(turn or shift or zoom != (1, 1))
  if not moves and not recolor:
    return flip_half if flip else None
  return functools.partial(
    _change,
    flip=flip,
    turn=turn,
    zoom=zoom,
    shift=shift,
    recolor=recolor,
    moves=moves,
  )


def flip_half(key, batch):
  """Mirrors each example left to right with a chance of one half.

  Args:
    key: jax key.
    batch: 'image' `[B, S, S, C]`, and 'points' if there are any: they keep their
      numbers, so that a left eye becomes a right one.

  Returns:
    The batch, with the same entries.
  """
  mirrored = jax.random.bernoulli(key, 0.5, batch['image'].shape[:1])
  there = mirrored[:, None, None, None]
  flipped = {'image': jnp.where(there, batch['image'][:, :, ::-1], batch['image'])}
  if 'points' in batch:
    sign = jnp.where(mirrored[:, None], -1.0, 1.0)
    points = batch['points']
    flipped['points'] = jnp.stack([sign * points[..., 0], points[..., 1]], axis=-1)
  return batch | flipped


def move(images, matrix, offset):
  """Images seen through an affine map, bilinear; outside of one is its border.

  Args:
    images: `[B, S, S, C]` float.
    matrix: `[B, 2, 2]`; what is at a position p comes to be at matrix p + offset,
      positions (x, y) in [-1, 1].
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
  sample = functools.partial(jax.scipy.ndimage.map_coordinates, order=1, mode='nearest')
  of_channels = jax.vmap(sample, in_axes=(-1, None), out_axes=-1)
  return jax.vmap(of_channels)(images, [pixels[..., 1], pixels[..., 0]])


def _times(matrix, vectors):
  """Products `[..., 2]`, in float32 on every device, which a matrix unit's are not."""
  return (matrix * vectors[..., None, :]).sum(axis=-1)


def _change(key, batch, *, flip, turn, zoom, shift, recolor, moves):
  """See `complete`; turn in radians, zoom (low, high)."""
  flip_key, turn_key, zoom_key, shift_key, color_key = jax.random.split(key, 5)
  if flip:
    batch = flip_half(flip_key, batch)
  batch = sources.as_float(batch)
  images = batch['image']
  count, _, _, channels = images.shape
  if moves:
    angle = jax.random.uniform(turn_key, (count,), minval=-turn, maxval=turn)
    factor = jax.random.uniform(zoom_key, (count,), minval=zoom[0], maxval=zoom[1])
    offset = 2 * jax.random.uniform(shift_key, (count, 2), minval=-shift, maxval=shift)
    cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
    matrix = jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(count, 2, 2)
    images = move(images, matrix, offset)
    if 'points' in batch:
      moved = _times(matrix[:, None], batch['points']) + offset[:, None]
      batch = batch | {'points': moved}
  if recolor:
    power = jax.random.uniform(
      color_key, (count, 1, 1, channels), minval=-recolor, maxval=recolor
    )
    images = images ** jnp.exp(power)
  return batch | {'image': images}
