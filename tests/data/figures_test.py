"""Generated figures: their points are where their parts are."""

import functools

import jax
import numpy as np
import pytest

from img2graph import data
from img2graph import geometry
from img2graph.data import figures

SIDE = 32


@pytest.fixture(scope='module')
def batch():
  source = data.build('figures', side=SIDE, noise=0.0, shade=0.0, ground=0.0)
  assert source.side == SIDE
  return jax.tree.map(
    np.asarray, jax.jit(source.sample, static_argnums=1)(jax.random.key(4), 6)
  )


def test_a_batch_has_images_in_colour_and_points_within_the_margin(batch):
  assert (
    batch['image'].shape == (6, SIDE, SIDE, 3) and batch['image'].dtype == np.float32
  )
  assert batch['points'].shape == (6, len(figures.JOINTS), 2)
  assert batch['image'].min() >= 0 and batch['image'].max() <= 1
  np.testing.assert_array_equal(batch['visible'], 1)
  np.testing.assert_array_equal(batch['scale'], 2)
  extent = np.ptp(batch['points'], axis=1).max(-1)
  assert np.abs(batch['points']).max() < 1 - 2 * figures._MARGIN + 1e-5
  assert extent.min() > 1.4 - 1e-5 and extent.max() < 1.68 + 1e-5


def test_bones_have_the_lengths_of_one_figure_and_bend(batch):
  points = batch['points']
  starts, ends = np.array(figures.BONES).T
  lengths = np.linalg.norm(points[:, starts] - points[:, ends], axis=-1)
  lengths /= lengths[:, :1]
  np.testing.assert_allclose(lengths, np.tile(lengths[:1], (6, 1)), rtol=1e-4)
  arm = points[:, figures.JOINTS.index('left_hand')] - points[:, 1]
  assert np.ptp(np.arctan2(*arm.T)) > 0.2


def test_parts_have_their_colours_where_the_points_are(batch):
  centres = geometry.pixel_centres(SIDE, SIDE)
  for image, points in zip(batch['image'], batch['points'], strict=True):
    # What is painted last is never covered, and the ground is grey.
    place = points[figures.JOINTS.index('right_hand')]
    row, column = np.argwhere((np.abs(centres - place) <= 1 / SIDE + 1e-6).all(-1))[0]
    np.testing.assert_allclose(image[row, column], (0.15, 0.65, 0.30), atol=0.05)
    np.testing.assert_allclose(image[[0, 0, -1, -1], [0, -1, 0, -1]], 0.5, atol=1e-6)


def test_missing_limbs_are_not_painted_and_their_joints_not_visible(batch):
  quiet = dict(side=SIDE, noise=0.0, shade=0.0, ground=0.0, missing=0.5)
  sample = functools.partial(figures.sample, batch_size=6, **quiet)
  some = jax.tree.map(np.asarray, jax.jit(sample)(jax.random.key(4)))
  # Pose and place stay those of the whole figures.
  np.testing.assert_array_equal(some['points'], batch['points'])
  limbs = [[figures.JOINTS.index(n) for n in names] for names in figures.LIMBS.values()]
  others = np.delete(some['visible'], np.ravel(limbs), axis=1)
  np.testing.assert_array_equal(others, 1)
  seen = np.stack([some['visible'][:, joints] for joints in limbs], axis=1)
  np.testing.assert_array_equal(seen[..., 0], seen[..., 1])
  assert 0.2 < seen.mean() < 0.8
  colours = dict(zip(figures.BONES, (bone[6] for bone in figures._BONES), strict=True))
  for joints, there in zip(limbs, seen[..., 0].T, strict=True):
    apart = np.abs(some['image'] - np.float32(colours[tuple(joints)])).max(-1)
    np.testing.assert_array_equal((apart < 0.02).any(axis=(1, 2)), there)


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(missing=1.5), 'data.missing must be at most 1'),
    (dict(side=30), 'multiple of 4'),
    (dict(scale=(0.5, 0.9)), 'data.scale must be at most'),
    (dict(noise=-1), 'data.noise must be at least 0'),
    (dict(noise=(0, 0.1)), 'data.noise must be a number'),
    (dict(bend=(0.5,)), 'data.bend must be a number'),
    (dict(missing=(0, 0.5)), 'data.missing must be a number'),
  ],
)
def test_wrong_options_are_refused(options, words):
  with pytest.raises(ValueError, match=words):
    data.build('figures', **options)
