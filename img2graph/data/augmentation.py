"""Photographs mirrored, turned, scaled, shifted, recoloured at random, on the device.

With few photographs, or subjects that lie every way, training wants more than there
are. Every change keeps what is seen one object of its class. Points move along; what
distances are divided by stays, since training sees neither.
"""

import functools

import jax
import jax.numpy as jnp

from img2graph import ranges
from img2graph.data import sources
from img2graph.encoding import affine_maps


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
  moves = affine_maps.check(turn=turn, zoom=zoom, shift=shift)
  recolor = ranges.as_number('recolor', recolor, lowest=0, highest=2)
  if moves is None and not recolor:
    return flip_half if flip else None
  return functools.partial(_change, flip=flip, recolor=recolor, moves=moves)


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


def _change(key, batch, *, flip, recolor, moves):
  """See `complete`; `moves` as `affine_maps.sample` takes them, None for none."""
  flip_key, move_key, color_key = jax.random.split(key, 3)
  if flip:
    batch = flip_half(flip_key, batch)
  batch = sources.as_float(batch)
  images = batch['image']
  count, _, _, channels = images.shape
  if moves is not None:
    matrix, offset = affine_maps.sample(move_key, count, **moves)
    images = affine_maps.move_images(images, matrix, offset)
    if 'points' in batch:
      moved = affine_maps.move_points(batch['points'], matrix, offset)
      batch = batch | {'points': moved}
  if recolor:
    power = jax.random.uniform(
      color_key, (count, 1, 1, channels), minval=-recolor, maxval=recolor
    )
    images = images ** jnp.exp(power)
  return batch | {'image': images}
