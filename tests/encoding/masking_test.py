"""Masks are of whole patches, hidden as often as asked for."""

import jax
import numpy as np
import pytest

from img2graph.encoding import masking


def test_patches_are_hidden_independently_as_often_as_asked_for():
  masks = masking.keep_masks(jax.random.key(0), 400, side=32, blocks=16, ratio=0.8)
  assert masks.shape == (400, 32, 32, 1) and masks.dtype == np.float32
  masks = np.asarray(masks)[..., 0]
  patches = masks[:, ::2, ::2]
  np.testing.assert_array_equal(masks, patches.repeat(2, 1).repeat(2, 2))
  assert set(np.unique(patches)) == {0, 1}
  flat = patches.reshape(400, -1)
  # Of 102,400 coins the standard deviation of the mean is 0.00125.
  assert abs(flat.mean() - 0.2) < 0.006
  # And of the count in a mask 6.4: it is not always the same.
  assert 5 < flat.sum(1).std() < 8
  # Neighbours do not know of each other.
  assert abs(np.corrcoef(flat[:, 0::2].ravel(), flat[:, 1::2].ravel())[0, 1]) < 0.02


def test_a_side_that_is_no_multiple_has_each_pixel_in_its_patch():
  [mask] = masking.keep_masks(jax.random.key(1), 1, side=10, blocks=4, ratio=0.5)
  patches = np.asarray(mask)[[0, 3, 5, 8]][:, [0, 3, 5, 8], 0]
  patch = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
  np.testing.assert_array_equal(mask[..., 0], patches[patch][:, patch])


@pytest.mark.parametrize('ratio, kept', [(0.0, 1), (1.0, 0)])
def test_all_or_nothing(ratio, kept):
  masks = masking.keep_masks(jax.random.key(2), 2, side=8, blocks=4, ratio=ratio)
  np.testing.assert_array_equal(masks, kept)


@pytest.mark.parametrize(
  'options', [dict(blocks=0, ratio=0.5), dict(blocks=4, ratio=2)]
)
def test_masks_that_cannot_be_are_refused(options):
  with pytest.raises(ValueError, match='mask.(blocks|ratio) must be'):
    masking.keep_masks(jax.random.key(0), 1, side=8, **options)
