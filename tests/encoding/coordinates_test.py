import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from img2graph import geometry
from img2graph.encoding import coordinates


def _logits(seed, shape):
  return 3 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_softmax_matches_numpy_and_sums_to_one():
  logits = _logits(0, (2, 5, 7, 3))
  actual = coordinates.spatial_softmax(logits)
  expected = np.exp(logits.astype(np.float64))
  expected /= expected.sum((1, 2), keepdims=True)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_allclose(np.sum(actual, (1, 2)), 1, atol=1e-6)


def test_softmax_of_huge_logits_is_finite_and_float32():
  logits = jnp.asarray(1e4 * _logits(1, (1, 4, 4, 2)), jnp.bfloat16)
  probs = coordinates.spatial_softmax(logits)
  assert probs.dtype == jnp.float32
  chex.assert_tree_all_finite(probs)


@hypothesis.given(row=st.integers(0, 5), column=st.integers(0, 8))
def test_dsnt_of_a_single_cell_is_its_centre(row, column):
  probs = np.zeros((6, 9, 1), np.float32)
  probs[row, column] = 1
  actual = coordinates.dsnt(probs)
  np.testing.assert_allclose(
    actual[0], geometry.pixel_centres(6, 9)[row, column], atol=1e-6
  )


def test_dsnt_grid_is_the_formula_of_its_paper():
  # (2j - (n + 1)) / n for j = 1..n, the x template of Nibali et al., section 3.
  n = 5
  for j in range(1, n + 1):
    probs = np.zeros((3, n, 1), np.float32)
    probs[1, j - 1] = 1
    x, y = coordinates.dsnt(probs)[0]
    assert x == pytest.approx((2 * j - (n + 1)) / n, abs=1e-6)
    assert y == pytest.approx(0, abs=1e-6)


def test_dsnt_is_the_mean_position():
  probs = np.asarray(coordinates.spatial_softmax(_logits(2, (2, 6, 8, 3))))
  centres = geometry.pixel_centres(6, 8)
  actual = coordinates.dsnt(probs)
  chex.assert_shape(actual, (2, 3, 2))
  for b in range(2):
    for n in range(3):
      expected = (probs[b, :, :, n, None] * centres).sum((0, 1))
      np.testing.assert_allclose(actual[b, n], expected, atol=1e-6)


def test_mirrored_maps_have_mirrored_coordinates():
  probs = coordinates.spatial_softmax(_logits(3, (1, 6, 8, 2)))
  nodes = coordinates.dsnt(probs)
  np.testing.assert_allclose(
    coordinates.dsnt(probs[:, :, ::-1]), nodes * np.array([[[-1, 1]]]), atol=1e-6
  )
  np.testing.assert_allclose(
    coordinates.dsnt(probs.transpose(0, 2, 1, 3)), nodes[..., ::-1], atol=1e-6
  )


def test_peak_normalised_maps_keep_ratios_and_have_maximum_one():
  probs = coordinates.spatial_softmax(_logits(4, (2, 4, 5, 3)))
  maps = coordinates.peak_normalize(probs)
  np.testing.assert_allclose(np.max(maps, (1, 2)), 1)
  expected = np.asarray(probs) / np.asarray(probs).max((1, 2), keepdims=True)
  np.testing.assert_allclose(maps, expected, rtol=1e-6)


@pytest.mark.parametrize('scale', [0.0, 1.0, 1e4])
def test_gradients_are_finite_for_flat_and_for_peaked_maps(scale):
  def f(logits):
    probs = coordinates.spatial_softmax(logits)
    return jnp.sum(coordinates.dsnt(probs) ** 2) + jnp.sum(
      coordinates.peak_normalize(probs) ** 2
    )

  gradient = jax.jit(jax.grad(f))(scale * _logits(5, (1, 4, 4, 2)))
  chex.assert_tree_all_finite(gradient)


def test_maps_of_low_rank_are_refused():
  with pytest.raises(ValueError, match=r'\[..., H, W, N\]'):
    coordinates.dsnt(np.zeros((4, 4)))
