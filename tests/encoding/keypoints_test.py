"""The detector's parts against plain NumPy and SciPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from img2graph.encoding import keypoints
from tests import variables

SIDE, NUM = 16, 3


@pytest.fixture(scope='module')
def detector():
  model = keypoints.KeypointDetector(NUM, SIDE, down=(4, 6), up=(4,))
  images = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 3))
  return model, variables.random(model.init, images), images


def test_a_halving_convolution_is_a_convolution_and_a_mean():
  x = np.random.default_rng(0).standard_normal((1, 6, 8, 2)).astype(np.float32)
  layer = keypoints.HalvingConv(3)
  params = variables.random(layer.init, x)['params']
  params['bias'] = np.arange(3, dtype=np.float32)
  found = layer.apply({'params': params}, x)
  for d in range(3):
    full = sum(
      scipy.signal.correlate2d(x[0, ..., c], params['kernel'][..., c, d], 'same')
      for c in range(2)
    )
    expected = full.reshape(3, 2, 4, 2).mean(axis=(1, 3)) + d
    np.testing.assert_allclose(found[0, ..., d], expected, atol=1e-5)


def test_positions_are_means_over_the_cells_of_each_map(detector):
  model, values, images = detector
  positions, probs, features = jax.jit(model.apply)(values, images)
  chex.assert_shape(
    (positions, probs, features), [(2, NUM, 2), (2, 8, 8, NUM), (2, 8, 8, 4)]
  )
  centres = (2 * np.arange(8) + 1) / 8 - 1
  for b in range(2):
    for k in range(NUM):
      weights = np.asarray(probs[b, ..., k], np.float64)
      np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
      expected = [(weights * centres).sum(), (weights * centres[:, None]).sum()]
      np.testing.assert_allclose(positions[b, k], expected, atol=1e-6)


def test_images_of_another_side_are_brought_to_the_detectors(detector):
  model, values, images = detector
  small = jax.eval_shape(model.apply, values, images[:, ::2, ::2])
  assert small[1].shape == (2, 8, 8, NUM)


def test_kernels_start_with_kaimings_deviation():
  kernel = keypoints.kernel_init(jax.random.key(0), (3, 3, 64, 128), jnp.float32)
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 1.04 / (9 * 64)), rtol=0.02)
  # Not cut off, as others are.
  assert np.abs(kernel).max() > 3.5 * kernel.std()


def test_statistics_follow_the_batch_with_momentum(detector):
  model, values, images = detector
  _, changed = jax.jit(
    lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'])
  )(values, images)
  layer = {'params': values['params']['down0']['conv0']}
  made = keypoints.HalvingConv(4).apply(layer, images)
  found = changed['batch_stats']['down0']['norm0']
  np.testing.assert_allclose(found['mean'], 0.1 * made.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(found['var'], 0.9 + 0.1 * made.var((0, 1, 2)), rtol=1e-4)


def test_a_topology_starts_as_the_shared_one_and_follows_its_keypoints():
  model = keypoints.Topology(hidden=5, presence_bias=2.0)
  rng = np.random.default_rng(0)
  probs = rng.random((2, 4, 4, NUM), np.float32)
  probs /= probs.sum((1, 2), keepdims=True)
  features = rng.standard_normal((2, 4, 4, 6)).astype(np.float32)
  values = variables.random(model.init, probs, features)
  apply = jax.jit(model.apply)
  present, links = apply(values, probs, features)
  other_present, other_links = apply(values, probs[..., [2, 0, 1]], features)
  np.testing.assert_allclose(other_present, present[:, [2, 0, 1]], atol=1e-5)
  # Of pairs 01, 02, 12, now 20, 21, 01.
  np.testing.assert_allclose(other_links, links[:, [1, 2, 0]], atol=1e-5)
  assert np.ptp(links, axis=1).min() > 1e-3
  start = jax.jit(model.init)(jax.random.key(0), probs, features)
  present, links = apply(start, probs, features)
  np.testing.assert_array_equal(present, np.full((2, NUM), 2))
  np.testing.assert_array_equal(links, np.zeros((2, 3)))


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(side=18), 'multiple of 4; got 18'),
    (dict(up=(4, 4, 4)), 'cannot double more often'),
    (dict(side=4, up=()), '2 x 2 cells'),
  ],
)
def test_sides_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    keypoints.check_sides(**(dict(side=16, down=(4, 6), up=(4,)) | changes))
