"""Tests of img2graph/data/thinning.py."""

import jax
import numpy as np
import pytest
import scipy.ndimage
from skimage import morphology

from img2graph.data import thinning


def _drawings():
  """Four drawings of lines of four widths, `[4, 48, 48]`."""
  rows, columns = np.mgrid[:48, :48] + 0.5
  ring = np.abs(np.hypot(rows - 20, columns - 22) - 13)
  slanted = np.abs(rows - 0.5 * columns - 12)
  distance = np.minimum(ring, slanted)
  widths = np.array([1.5, 3, 5, 8])[:, None, None]
  return np.clip(widths / 2 + 0.5 - distance[None], 0, 1).astype(np.float32)


skeleton = jax.jit(thinning.skeleton)
redraw = jax.jit(thinning.redraw, static_argnames='line_width')


def test_skeletons_are_thin_whole_and_beside_those_of_another_library():
  masks = np.zeros((4, 54, 54), bool)  # No line ends at the border: no open holes.
  masks[:, 3:-3, 3:-3] = _drawings() > 0.5
  masks[3, 40:45, 5:12] = True  # A spot.
  for mask, thin in zip(masks, np.asarray(skeleton(masks)), strict=True):
    assert not (thin & ~mask).any()
    pieces = [scipy.ndimage.label(m, np.ones((3, 3)))[1] for m in (mask, thin)]
    assert pieces[0] == pieces[1]
    holes = [scipy.ndimage.label(~m)[1] for m in (mask, thin)]
    assert holes[0] == holes[1]
    assert not scipy.ndimage.binary_erosion(thin, np.ones((3, 3))).any()
    other = morphology.skeletonize(mask)
    for here, there in ((thin, other), (other, thin)):
      # Only at the ends of lines they may differ.
      away = scipy.ndimage.distance_transform_edt(~there)[here]
      assert np.quantile(away, 0.95) < 2
    assert abs(thin.sum() / other.sum() - 1) < 0.3


def test_any_blots_keep_their_pieces_and_holes():
  noise = np.random.default_rng(0).random((16, 40, 40))
  blots = scipy.ndimage.gaussian_filter(noise, (0, 1, 1)) > 0.52
  blots[0] = False
  blots[0, 9:11, 20:22] = True  # Two by two pixels.
  masks = np.pad(blots, ((0, 0), (1, 1), (1, 1)))
  for mask, thin in zip(masks, np.asarray(skeleton(masks)), strict=True):
    pieces = [scipy.ndimage.label(m, np.ones((3, 3)))[1] for m in (mask, thin)]
    holes = [scipy.ndimage.label(~m)[1] for m in (mask, thin)]
    assert pieces[0] == pieces[1] > 0 and holes[0] == holes[1]


@pytest.mark.parametrize('width', [1, 2, 3, 4])
def test_diagonal_lines_of_any_width_stay(width):
  rows, columns = np.mgrid[:48, :48] + 0.5
  distance = np.abs(rows - columns - [[[0.0]], [[0.5]]]) / np.sqrt(2)
  images = np.clip(width / 2 + 0.5 - distance, 0, 1).astype(np.float32)
  drawn = np.asarray(redraw(images[..., None], line_width=2.0))[..., 0]
  assert (drawn.max(axis=2)[:, 8:-8] > 0.9).all()


def test_lines_of_any_width_become_lines_of_one_width():
  images = _drawings()
  drawn = np.asarray(redraw(images[..., None], line_width=2.5))[..., 0]
  assert drawn.min() >= 0 and drawn.max() == 1
  for i in range(4):
    thin = morphology.skeletonize(images[i] > 0.5)
    # Along slanted lines pixels are further apart than 1.
    assert 2 < drawn[i].sum() / thin.sum() < 3.2
    middle = scipy.ndimage.distance_transform_edt(~thin)
    assert middle[drawn[i] > 0].max() < 5
    assert (drawn[i][thin] > 0.3).mean() > 0.9


def test_faint_lines_count_as_much_as_dark_ones():
  images = _drawings()[..., None]
  np.testing.assert_allclose(
    redraw(0.3 * images, line_width=2.5), redraw(images, line_width=2.5), atol=1e-6
  )


def test_empty_paper_stays_empty():
  assert not np.asarray(
    redraw(np.zeros((4, 48, 48, 1), np.float32), line_width=2)
  ).any()


def test_clean_drawings_change_little():
  clean = _drawings()[1:2, ..., None]  # Three pixels wide.
  images = np.repeat(clean, 4, axis=0)
  drawn = np.asarray(redraw(images, line_width=3.0))
  assert np.abs(drawn - images).sum() < 0.35 * images.sum()
