"""Tests of img2graph/encoding/segment_edges.py."""

import jax
import numpy as np
import scipy.ndimage

from img2graph.encoding import segment_edges
from tests import compiled


def test_samples_are_those_of_another_interpolator():
  rng = np.random.default_rng(0)
  images = rng.random((2, 13, 17)).astype(np.float32)
  points = rng.uniform(-1.3, 1.3, (2, 50, 2)).astype(np.float32)
  actual = segment_edges.sample_bilinear(images, points)
  for k in range(2):
    rows = (points[k, :, 1] + 1) * 13 / 2 - 0.5
    columns = (points[k, :, 0] + 1) * 17 / 2 - 0.5
    padded = np.pad(images[k], 8)
    expected = scipy.ndimage.map_coordinates(padded, [rows + 8, columns + 8], order=1)
    np.testing.assert_allclose(actual[k], expected, atol=1e-5)


def test_samples_lie_along_and_across_the_segment():
  image = np.zeros((1, 64, 64, 1), np.float32)
  image[0, 32, 10:50] = 1  # Row 32 has its centre at y = 1/64.
  start = np.array([[[2 * 10.5 / 64 - 1, 1 / 64]]], np.float32)
  end = np.array([[[2 * 49.5 / 64 - 1, 1 / 64]]], np.float32)
  samples = segment_edges.segment_samples(image, start, end, spread=1.0)
  assert samples.shape == (1, 1, 16, 3, 1)
  np.testing.assert_allclose(samples[0, 0, :, 1, 0], 1, atol=1e-5)
  np.testing.assert_allclose(samples[0, 0, :, ::2], 0, atol=1e-5)


def test_the_order_of_the_nodes_does_not_matter():
  rng = np.random.default_rng(0)
  images = rng.random((2, 32, 32, 1)).astype(np.float32)
  start, end = rng.uniform(-1, 1, (2, 2, 5, 2)).astype(np.float32)
  net = segment_edges.SegmentEdges()
  variables = compiled.init(net, images, start, end)
  forward = compiled.apply(net, variables, images, start, end)
  backward = compiled.apply(net, variables, images, end, start)
  np.testing.assert_allclose(forward, backward, atol=1e-5)


def test_coincident_nodes_and_gradients_are_finite_and_positions_get_none():
  images = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
  start = np.zeros((1, 2, 2), np.float32)
  end = np.array([[[0, 0], [0.5, 0.5]]], np.float32)
  net = segment_edges.SegmentEdges()
  variables = compiled.init(net, images, start, end)

  def total(variables, start):
    return net.apply(variables, images, start, end).sum()

  by_weights, by_start = compiled.grad(total, variables, start, argnums=(0, 1))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(by_weights))
  np.testing.assert_array_equal(by_start, 0)


def test_pairs_with_ink_between_them_are_taken_and_of_those_the_shorter():
  image = np.zeros((1, 64, 64, 1), np.float32)
  image[0, 32, 10:50] = 1
  ends = [
    ((10, 10), (10, 60)),  # paper
    ((10, 32), (49, 32)),  # the line
    ((12, 35), (48, 30)),  # beside it
    ((12, 32), (30, 32)),  # a part of it
    ((30, 32), (30, 60)),  # away from it
  ]
  start, end = (np.array(ends, np.float32)[None, :, k] / 32 - 1 for k in (0, 1))
  found = segment_edges.most_inked(image, start, end, count=3)
  assert np.asarray(found).tolist() == [[3, 2, 1]]
  prob = np.array([[1, 1, 1, 0.01, 1]], np.float32)
  found = segment_edges.most_inked(image, start, end, prob, count=2)
  assert np.asarray(found).tolist() == [[2, 1]]
