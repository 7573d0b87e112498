"""Tests of img2graph/encoding/canonical.py."""

import jax
import numpy as np
import pytest
import scipy.ndimage

from img2graph.encoding import canonical


def _line(side, width, level=1.0):
  """A horizontal line through the middle, `[1, side, side, 1]`."""
  image = np.zeros((1, side, side, 1), np.float32)
  top = (side - width) // 2
  image[0, top : top + width, side // 8 : -side // 8] = level
  return image


def test_side_is_kept_and_values_are_those_of_the_definition():
  image = np.random.default_rng(0).random((2, 64, 64, 1)).astype(np.float32)
  actual = canonical.canonical_image(image, side=64, floor=0.0)
  kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
  for k in range(2):
    blurred = scipy.ndimage.convolve(image[k, ..., 0], kernel, mode='constant')
    blocks = blurred.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    blurred = np.maximum(blurred - np.sort(blocks.ravel())[64], 0)
    level = (blurred**3).sum() / (blurred**2).sum()
    expected = np.clip(blurred / level, 0, 1)
    np.testing.assert_allclose(actual[k, ..., 0], expected, atol=1e-5)


@pytest.mark.parametrize('side', [20, 64, 100, 128, 200])
def test_any_side_gives_the_canonical_side(side):
  actual = canonical.canonical_image(_line(side, 2), side=64)
  assert actual.shape == (1, 64, 64, 1)
  assert actual.max() == 1
  rows = np.asarray(actual[0, :, 32, 0])
  assert abs((rows * np.arange(64)).sum() / rows.sum() - 31.5) < 0.6


def test_a_one_pixel_line_of_a_large_image_stays_at_full_ink():
  actual = canonical.canonical_image(_line(512, 1), side=64)
  assert actual.max() > 0.9


def test_contrast_does_not_matter():
  full = canonical.canonical_image(_line(96, 3))
  dim = canonical.canonical_image(_line(96, 3, level=0.2))
  np.testing.assert_allclose(full, dim, atol=1e-5)


def test_faint_noise_is_removed():
  noise = 0.1 * np.random.default_rng(0).random((1, 64, 64, 1)).astype(np.float32)
  actual = canonical.canonical_image(np.maximum(_line(64, 2), noise), floor=0.15)
  assert actual[0, :20].max() == 0


def test_grey_paper_becomes_white():
  grey = 0.2 + 0.5 * _line(64, 2)
  actual = canonical.canonical_image(grey, floor=0.0)
  # The border is darker than the paper after the blur, and that is all.
  expected = canonical.canonical_image(_line(64, 2), floor=0.0)
  np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_an_empty_image_stays_empty_with_finite_gradient():
  def total(image):
    return canonical.canonical_image(image).sum()

  value, gradient = jax.value_and_grad(total)(np.zeros((1, 64, 64, 1), np.float32))
  assert value == 0
  assert np.isfinite(gradient).all()


def test_images_that_are_not_square_are_refused():
  with pytest.raises(ValueError, match='S, S, 1'):
    canonical.canonical_image(np.zeros((1, 32, 64, 1), np.float32))
