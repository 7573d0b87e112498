import jax
import numpy as np
import pytest

from img2graph.data import augmentation

SIDE = 32


def spots(points):
  """Images `[B, S, S, 3]` of one soft spot each, at points `[B, 2]`."""
  centres = (2 * np.arange(SIDE) + 1) / SIDE - 1
  x, y = np.meshgrid(centres, centres)
  apart = (x - points[:, :1, None]) ** 2 + (y - points[:, 1:, None]) ** 2
  return np.exp(-apart / 0.02)[..., None].repeat(3, axis=-1).astype(np.float32)


def centre(images):
  """Where the light of each image is on average, `[B, 2]`, (x, y) in [-1, 1]."""
  centres = (2 * np.arange(SIDE) + 1) / SIDE - 1
  light = np.asarray(images).mean(axis=-1)
  light = light / light.sum(axis=(1, 2), keepdims=True)
  return np.stack([light.sum(axis=1) @ centres, light.sum(axis=2) @ centres], axis=-1)


def photographs(count):
  generator = np.random.default_rng(0)
  return generator.integers(0, 256, (count, 8, 8, 3), np.uint8)


def test_half_of_the_images_are_mirrored_with_their_points():
  generator = np.random.default_rng(0)
  batch = {
    'image': generator.integers(0, 256, (64, 4, 4, 3), np.uint8),
    'points': generator.uniform(-1, 1, (64, 5, 2)).astype(np.float32),
    'visible': np.ones((64, 5), np.float32),
  }
  assert augmentation.complete() is None
  flip = jax.jit(augmentation.complete(flip=True))
  made = flip(jax.random.key(0), batch)
  mirrored = np.array(
    [
      np.array_equal(new, old[:, ::-1])
      for new, old in zip(made['image'], batch['image'], strict=True)
    ]
  )
  assert 20 < mirrored.sum() < 44
  expected = np.where(mirrored[:, None, None], [[[-1, 1]]], [[[1, 1]]])
  np.testing.assert_array_equal(made['points'], batch['points'] * expected)
  np.testing.assert_array_equal(made['image'][~mirrored], batch['image'][~mirrored])
  assert set(made) == set(batch)
  other = flip(jax.random.key(1), batch)['image']
  assert (other != made['image']).any()


@pytest.mark.parametrize(
  'options',
  [
    dict(turn=180.0),
    dict(zoom=(0.7, 1.3)),
    dict(shift=0.2),
    dict(flip=True, turn=90.0, zoom=(0.8, 1.2), shift=0.1),
  ],
  ids=['turn', 'zoom', 'shift', 'all'],
)
def test_points_stay_on_what_they_are_of(options):
  count = 16
  points = np.random.default_rng(1).uniform(-0.4, 0.4, (count, 1, 2)).astype(np.float32)
  batch = {'image': spots(points[:, 0]), 'points': points}
  made = jax.jit(augmentation.complete(**options))(jax.random.key(0), batch)
  np.testing.assert_allclose(centre(made['image']), made['points'][:, 0], atol=0.02)
  apart = np.linalg.norm(made['points'] - points, axis=-1)
  assert np.median(apart) > 0.03
  # Every image is changed in its own way.
  assert len(np.unique(apart)) == count
  again = augmentation.complete(**options)(jax.random.key(1), batch)
  assert (again['points'] != made['points']).all()


def test_changes_keep_to_their_ranges():
  points = np.tile(np.array([[0.5, 0.0]], np.float32), (200, 1))[:, None]
  batch = {'image': np.zeros((200, 4, 4, 3), np.float32), 'points': points}

  def made(**options):
    return augmentation.complete(**options)(jax.random.key(0), batch)['points'][:, 0]

  x, y = made(turn=30.0).T
  angle = np.degrees(np.arctan2(y, x))
  assert -30 <= angle.min() < -25 and 25 < angle.max() <= 30
  np.testing.assert_allclose(np.hypot(x, y), 0.5, atol=1e-6)
  factor = made(zoom=(0.5, 1.5))[:, 0] / 0.5
  assert 0.5 <= factor.min() < 0.55 and 1.45 < factor.max() <= 1.5
  apart = (made(shift=0.1) - points[:, 0]) / 2  # Shares of the side.
  assert (np.abs(apart) <= 0.1 + 1e-6).all() and (
    np.abs(apart).max(axis=0) > 0.09
  ).all()


def test_recoloring_keeps_black_and_white_and_the_order_of_levels():
  levels = np.linspace(0, 255, 64).round().astype(np.uint8)
  image = np.broadcast_to(levels.reshape(1, 8, 8, 1), (20, 8, 8, 3))
  change = augmentation.complete(recolor=0.5)
  made = np.asarray(change(jax.random.key(0), {'image': image})['image'])
  made = made.reshape(20, 64, 3)
  assert made.dtype == np.float32
  np.testing.assert_array_equal(made[:, 0], 0)
  np.testing.assert_array_equal(made[:, -1], 1)
  assert (np.diff(made, axis=1) > 0).all()
  power = np.log(made[:, 32]) / np.log(levels[32] / 255)
  assert np.exp(-0.5) <= power.min() < 0.7 and 1.5 < power.max() <= np.exp(0.5) + 1e-5
  assert len(np.unique(power)) == 60  # Of each channel of each image.


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(turn=-1.0), 'turn must be at least 0'),
    (dict(turn=200.0), 'turn must be at most 180'),
    (dict(zoom=0.0), 'zoom must be at least 0.1'),
    (dict(zoom=(1.2, 0.8)), 'zoom must be a number or'),
    (dict(shift=1.5), 'shift must be at most 1'),
    (dict(shift=(0.0, 0.1)), 'shift must be a number; got'),
    (dict(recolor=-0.1), 'recolor must be at least 0'),
    (dict(recolor=3.0), 'recolor must be at most 2'),
    (dict(turn=float('nan')), 'turn must be a number; got nan'),
  ],
)
def test_ranges_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    augmentation.complete(**options)
