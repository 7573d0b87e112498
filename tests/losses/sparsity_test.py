"""Tests of img2graph/losses/sparsity.py."""

import jax
import numpy as np

from img2graph.losses import sparsity


def test_cost_of_a_graph_worked_out_by_hand():
  # A horizontal edge across half the image, drawn at weight one half.
  start = np.array([[[-0.5, 0.0]]], np.float32)
  end = np.array([[[0.5, 0.0]]], np.float32)
  weight = np.array([[0.5]], np.float32)
  node_prob = np.array([[1.0, 0.5]], np.float32)
  cost = sparsity.graph_cost(
    start, end, weight, node_prob, length=1.0, edge=10.0, node=100.0
  )
  np.testing.assert_allclose(cost, [0.5 * (0.5 + 10) + 150], rtol=1e-6)


def test_coincident_ends_have_finite_gradients():
  zero = np.zeros((1, 1, 2), np.float32)

  def total(start):
    weight = np.ones((1, 1), np.float32)
    return sparsity.graph_cost(
      start, zero, weight, weight, length=1.0, edge=1.0, node=1.0
    ).sum()

  assert np.isfinite(jax.grad(total)(zero)).all()


def test_ramp_rises_between_its_ends():
  values = [sparsity.ramp(p, start=0.2, end=0.6) for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
  np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1], atol=1e-6)
