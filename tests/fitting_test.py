"""Tests of img2graph/fitting.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph import fitting
from img2graph import geometry
from img2graph import graph as graphs
from tests import compiled

TRIANGLE = np.array([[-0.6, 0.5], [0.7, 0.4], [0.0, -0.6]], np.float32)
# One compilation serves all tests.
FIT = jax.jit(functools.partial(fitting.fit_graph, num_steps=40, max_edges=6))


def _drawing(nodes, edges):
  """A canonical drawing `[1, 64, 64, 1]` of the given edges."""
  ends = nodes[np.asarray(edges)]  # [E, 2, 2]
  drawing = compiled.draw_edges(
    ends[None, :, 0],
    ends[None, :, 1],
    np.ones(len(edges), np.float32),
    height=64,
    width=64,
    thickness=1.25 * 2 / 64,
    profile='antialias',
    compose='soft_or',
    softness=2.5,
  )
  return np.asarray(drawing)[..., None]


def _graph(nodes, edges, prob):
  """A graph `[1, 4]` with edges of the given probability, one node unused."""
  matrix = np.zeros((1, 4, 4), np.float32)
  for (i, j), p in zip(edges, prob, strict=True):
    matrix[0, i, j] = matrix[0, j, i] = p
  padded = np.concatenate([nodes, np.array([[0.9, 0.9]], np.float32)])[None]
  return graphs.Graph(
    jnp.asarray(padded), jnp.asarray(matrix.max(-1)), jnp.asarray(matrix)
  )


SIDES = [(0, 1), (1, 2), (0, 2)]


def test_nodes_that_are_off_move_onto_the_drawing():
  target = _drawing(TRIANGLE, SIDES)
  moved = TRIANGLE + np.array([[0.05, 0.04], [-0.05, 0.03], [0.04, -0.05]], np.float32)
  fitted = FIT(_graph(moved, SIDES, [0.9] * 3), target)
  error = np.linalg.norm(np.asarray(fitted.nodes)[0, :3] - TRIANGLE, axis=-1)
  assert error.max() < 0.02 < np.linalg.norm(moved - TRIANGLE, axis=-1).min()


def test_a_missing_edge_appears_and_a_wrong_one_vanishes():
  target = _drawing(TRIANGLE, SIDES[:2])
  fitted = FIT(_graph(TRIANGLE, SIDES, [0.8, 0.3, 0.7]), target)
  prob = np.asarray(fitted.edge_prob)[0]
  assert prob[0, 1] > 0.5 and prob[1, 2] > 0.5 and prob[0, 2] < 0.5
  np.testing.assert_array_equal(prob, prob.T)
  np.testing.assert_array_equal(np.diag(prob), 0)


def _fit_error(graph, target):
  nodes = np.asarray(graph.nodes)[0]
  edges = np.argwhere(np.triu(np.asarray(graph.edge_prob)[0]) > 0.5)
  return ((_drawing(nodes, edges) - target) ** 2).sum()


def test_the_fit_never_gets_worse():
  rng = np.random.default_rng(0)
  for _ in range(5):
    target = _drawing(rng.uniform(-0.9, 0.9, (3, 2)).astype(np.float32), SIDES)
    nodes = rng.uniform(-0.9, 0.9, (3, 2)).astype(np.float32)
    start = _graph(nodes, SIDES, rng.uniform(0.3, 0.9, 3))
    fitted = FIT(start, target)
    assert _fit_error(fitted, target) <= 1.05 * _fit_error(start, target) + 1e-3


def test_a_fit_that_went_astray_is_undone_and_no_other_of_its_batch():
  start = _graph(TRIANGLE, SIDES, [0.9] * 3)
  doubtful = _graph(TRIANGLE, SIDES, [0.51] * 3)
  target = _drawing(TRIANGLE, SIDES)
  # Steps as long as the image throw every node off its ink; on blank paper, of the
  # second image, edges that are hardly probable vanish.
  fitted = fitting.fit_graph(
    jax.tree.map(lambda *x: jnp.concatenate(x), start, doubtful),
    np.concatenate([target, 0 * target]),
    num_steps=2,
    max_edges=6,
    position_rate=2.0,
  )
  np.testing.assert_array_equal(fitted.nodes[:1], start.nodes)
  np.testing.assert_array_equal(fitted.edge_prob[:1], start.edge_prob)
  assert (fitted.edge_prob[1] < 0.5).all()


def test_an_edge_is_drawn_as_far_as_it_and_both_its_nodes_exist():
  start = _graph(TRIANGLE, SIDES[:1], [0.9])
  start = dataclasses.replace(start, node_prob=jnp.array([[0.9, 0.8, 0.1, 0.1]]))
  # Nothing moves, and nothing is made sharper.
  rates = dict(position_rate=0.0, edge_rate=0.0, width_rate=0.0, sharpness=1.0)
  target = _drawing(TRIANGLE, SIDES[:1])
  fitted = fitting.fit_graph(start, target, num_steps=1, **rates)
  np.testing.assert_allclose(fitted.edge_prob[0, 0, 1], 0.9 * 0.9 * 0.8, rtol=2e-3)
  np.testing.assert_allclose(fitted.node_prob[0, :2], 0.9 * 0.9 * 0.8, rtol=2e-3)


def test_nodes_come_to_lie_in_the_image():
  # Too far outside for the steps there are.
  across = np.array([[-1.3, 0.05], [1.3, 0.05]], np.float32)
  inside = np.clip(across, -1, 1) - np.float32([[0, 0.05]])
  start = _graph(np.concatenate([across, [[0.5, 0.5]]]), [(0, 1)], [0.9])
  fitted = FIT(start, _drawing(inside, [(0, 1)]))
  nodes = np.asarray(fitted.nodes)[0, :2]
  assert np.abs(nodes).max() <= 1
  np.testing.assert_allclose(nodes, inside, atol=0.03)


def test_an_image_does_not_depend_on_its_batch():
  target = _drawing(TRIANGLE, SIDES)
  other = _drawing(-TRIANGLE, SIDES[:1])
  moved = _graph(TRIANGLE + np.float32(0.04), SIDES, [0.9, 0.4, 0.6])
  both = jax.tree.map(lambda x: jnp.concatenate([x, x]), moved)
  alone = FIT(moved, target)
  fitted = FIT(both, np.concatenate([target, other]))
  np.testing.assert_allclose(fitted.nodes[0], alone.nodes[0], atol=1e-4)
  np.testing.assert_allclose(fitted.edge_prob[0], alone.edge_prob[0], atol=1e-3)


def test_blank_images_and_coincident_nodes_stay_finite():
  same = np.zeros((3, 2), np.float32)
  fitted = FIT(_graph(same, SIDES, [0.5] * 3), np.zeros((1, 64, 64, 1), np.float32))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(fitted))
  assert (geometry.matrix_to_pairs(np.asarray(fitted.edge_prob)) < 0.5).all()


def test_no_steps_change_nothing_and_negative_ones_are_refused():
  graph = _graph(TRIANGLE, SIDES, [0.9] * 3)
  target = _drawing(TRIANGLE, SIDES)
  assert fitting.fit_graph(graph, target, num_steps=0) is graph
  with pytest.raises(ValueError, match='num_steps'):
    fitting.fit_graph(graph, target, num_steps=-1)
