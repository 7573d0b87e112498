"""Coordinates, pixel grids, node pairs and the distance to a segment."""

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from img2graph import geometry


def positions(*shape):
  elements = st.floats(-1, 1, width=32)
  return hnp.arrays(np.float32, (*shape, 2), elements=elements)


def test_pixel_centres_are_half_a_pixel_from_the_edges():
  centres = geometry.pixel_centres(2, 4)
  chex.assert_shape(centres, (2, 4, 2))
  assert centres.dtype == np.float32
  np.testing.assert_allclose(centres[0, :, 0], [-0.75, -0.25, 0.25, 0.75])
  np.testing.assert_allclose(centres[:, 0, 1], [-0.5, 0.5])


def test_pixel_centres_are_one_half_in_pixels():
  centres_px = geometry.to_pixels(geometry.pixel_centres(3, 5), 3, 5)
  rows, columns = np.mgrid[:3, :5]
  expected = np.stack([columns + 0.5, rows + 0.5], axis=-1)
  np.testing.assert_allclose(centres_px, expected, atol=1e-6)


@pytest.mark.parametrize('size', [(0, 4), (4, 0), (-1, 4)])
def test_an_image_without_pixels_is_refused(size):
  with pytest.raises(ValueError, match='at least one pixel'):
    geometry.pixel_centres(*size)


def test_corners_of_the_image_in_pixels():
  corners = np.array([[-1, -1], [1, -1], [1, 1], [0, 0]], np.float32)
  expected = [[0, 0], [7, 0], [7, 3], [3.5, 1.5]]
  np.testing.assert_allclose(geometry.to_pixels(corners, 3, 7), expected)


@hypothesis.given(
  nodes=positions(3, 5), height=st.integers(1, 20_000), width=st.integers(1, 20_000)
)
def test_pixels_and_back_is_the_identity(nodes, height, width):
  nodes_px = geometry.to_pixels(nodes, height, width)
  assert nodes_px.dtype == np.float32
  np.testing.assert_allclose(
    geometry.from_pixels(nodes_px, height, width), nodes, atol=3e-7
  )


def test_jax_and_numpy_agree_on_pixels_for_every_rank():
  rng = np.random.default_rng(0)
  for shape in [(2,), (4, 2), (3, 4, 2)]:
    nodes = rng.uniform(-1, 1, shape).astype(np.float32)
    for convert in (geometry.to_pixels, geometry.from_pixels):
      expected = convert(nodes, 48, 64)
      actual = convert(jnp.asarray(nodes), 48, 64)
      assert isinstance(expected, np.ndarray) and isinstance(actual, jax.Array)
      np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize('num_nodes', [0, 1, 2, 5])
def test_node_pairs_are_all_pairs_in_row_major_order(num_nodes):
  senders, receivers = geometry.node_pairs(num_nodes)
  expected = [(i, j) for i in range(num_nodes) for j in range(i + 1, num_nodes)]
  assert list(zip(senders.tolist(), receivers.tolist(), strict=True)) == expected
  assert senders.dtype == receivers.dtype == np.int32


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('num_nodes', [1, 2, 6])
def test_pairs_to_matrix_puts_each_value_in_both_triangles(xp, num_nodes):
  count = num_nodes * (num_nodes - 1) // 2
  values = np.random.default_rng(0).uniform(size=(2, 3, count)).astype(np.float32)
  expected = np.zeros((2, 3, num_nodes, num_nodes), np.float32)
  for k, (i, j) in enumerate(zip(*geometry.node_pairs(num_nodes), strict=True)):
    expected[..., i, j] = expected[..., j, i] = values[..., k]
  matrix = geometry.pairs_to_matrix(xp.asarray(values), num_nodes)
  assert isinstance(matrix, np.ndarray if xp is np else jax.Array)
  np.testing.assert_array_equal(matrix, expected)
  np.testing.assert_array_equal(geometry.matrix_to_pairs(matrix), values)


def test_pairs_of_another_number_of_nodes_are_refused():
  with pytest.raises(ValueError, match='4 nodes have 6 pairs; got 5'):
    geometry.pairs_to_matrix(np.zeros(5), 4)


@hypothesis.given(points=positions(6), start=positions(6), end=positions(6))
def test_segment_distance_matches_dense_sampling(points, start, end):
  t = np.linspace(0, 1, 2001)[:, None, None]
  samples = (1 - t) * start[None] + t * end[None]
  expected = np.linalg.norm(points[None] - samples, axis=-1).min(axis=0)
  actual = geometry.segment_distance_sq(points, start, end)
  chex.assert_shape(actual, (6,))
  np.testing.assert_allclose(np.sqrt(actual), expected, atol=2e-3)


def test_segment_distance_by_hand():
  start, end = np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])
  points = np.array([[0.5, 0.5], [-1.0, 0.0], [2.0, 1.0], [0.25, 0.0]])
  actual = geometry.segment_distance_sq(points, start, end)
  np.testing.assert_allclose(actual, [0.25, 1.0, 2.0, 0.0])


def test_segment_distance_broadcasts_points_against_edges():
  rng = np.random.default_rng(0)
  points = rng.uniform(-1, 1, (5, 1, 2))
  start, end = rng.uniform(-1, 1, (2, 1, 3, 2))
  actual = geometry.segment_distance_sq(points, start, end)
  chex.assert_shape(actual, (5, 3))
  for p in range(5):
    for e in range(3):
      expected = geometry.segment_distance_sq(points[p, 0], start[0, e], end[0, e])
      np.testing.assert_allclose(actual[p, e], expected, rtol=1e-6)


def test_segment_distance_of_coincident_ends_is_to_a_point_and_has_a_gradient():
  points = jnp.array([[0.3, 0.4], [0.0, 0.0]])
  ends = jnp.zeros((2, 2))
  value, gradients = jax.value_and_grad(
    lambda *x: geometry.segment_distance_sq(*x).sum(), argnums=(0, 1, 2)
  )(points, ends, ends)
  np.testing.assert_allclose(value, 0.25, rtol=1e-6)
  chex.assert_tree_all_finite(gradients)
  np.testing.assert_allclose(gradients[0], 2 * points, rtol=1e-6)
