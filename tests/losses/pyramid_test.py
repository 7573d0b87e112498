"""Tests of img2graph/losses/pyramid.py."""

import jax
import numpy as np
import pytest
import skimage.measure

from img2graph.losses import pyramid


def _images(seed=0):
  return np.random.default_rng(seed).random((3, 16, 16)).astype(np.float32)


def test_loss_is_that_of_the_definition():
  a, b = _images(0), _images(1)
  expected = 0
  for s in range(3):
    pool = (1, 2**s, 2**s)
    x = skimage.measure.block_reduce(a, pool, np.mean)
    y = skimage.measure.block_reduce(b, pool, np.mean)
    error = ((x - y) ** 2).sum(axis=(1, 2)).mean()
    expected += error / (y**2).sum(axis=(1, 2)).mean() / 3
  np.testing.assert_allclose(pyramid.pyramid_loss(a, b, scales=3), expected, rtol=1e-5)


def test_equal_images_cost_nothing_and_an_empty_drawing_costs_one():
  target = _images()
  np.testing.assert_allclose(pyramid.pyramid_loss(target, target), 0)
  empty = np.zeros_like(target)
  np.testing.assert_allclose(pyramid.pyramid_loss(empty, target), 1, rtol=1e-6)


def test_with_its_own_energy_an_image_does_not_see_the_others():
  a, b = _images(0), _images(1)
  together = pyramid.pyramid_errors(a, b, own_energy=True)
  alone = pyramid.pyramid_errors(a[1:2], b[1:2], own_energy=True)
  np.testing.assert_allclose(together[1:2], alone, rtol=1e-6)
  assert abs(pyramid.pyramid_errors(a, b)[1] - alone[0]) > 1e-5


def test_empty_targets_have_finite_gradients():
  zero = np.zeros((2, 16, 16), np.float32)
  gradient = jax.grad(lambda a: pyramid.pyramid_loss(a, zero))(zero)
  assert np.isfinite(gradient).all()


def test_sides_that_cannot_be_halved_are_refused():
  with pytest.raises(ValueError, match='multiples of 8'):
    pyramid.pyramid_loss(np.zeros((1, 12, 12)), np.zeros((1, 12, 12)))
