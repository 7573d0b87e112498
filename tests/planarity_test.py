"""Tests of img2graph/planarity.py."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from img2graph import geometry
from img2graph import graph as graphs
from img2graph import planarity


def _planar(nodes, edges, **options):
  """Nodes and edges, as lists, of the planar graph of lists."""
  nodes = np.array(nodes, np.float32)
  edges = np.array(edges, np.int32).reshape(-1, 2)
  found = planarity.planarize(graphs.from_lists(nodes, edges), **options)
  graphs.check(found)
  return graphs.to_lists(found)


def test_a_crossing_becomes_a_node_of_four_edges():
  nodes, edges = _planar([[-1, 0], [1, 0], [0, -1], [0.2, 1]], [[0, 1], [2, 3]])
  np.testing.assert_allclose(nodes[4], [0.1, 0], atol=1e-6)
  assert edges.tolist() == [[0, 4], [1, 4], [2, 4], [3, 4]]


def test_a_node_on_an_edge_splits_it():
  nodes, edges = _planar([[-1, 0], [1, 0], [0, 0.05], [0, 1]], [[0, 1], [2, 3]])
  assert len(nodes) == 4
  assert edges.tolist() == [[0, 2], [1, 2], [2, 3]]


def test_a_long_edge_over_two_short_ones_is_the_two_short_ones():
  _, edges = _planar([[-1, 0], [0, 0.01], [1, 0]], [[0, 1], [1, 2], [0, 2]])
  assert edges.tolist() == [[0, 1], [1, 2]]


def test_three_strokes_through_one_point_share_one_node():
  angles = np.deg2rad([0, 60, 120])
  ends = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  nodes, edges = _planar(np.concatenate([ends, -ends]), [[0, 3], [1, 4], [2, 5]])
  assert len(nodes) == 7
  np.testing.assert_allclose(nodes[6], 0, atol=1e-6)
  assert edges.tolist() == [[k, 6] for k in range(6)]


def test_planar_graphs_and_empty_ones_stay_as_they_are():
  nodes = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]]
  found, edges = _planar(nodes, [[0, 1], [1, 2], [0, 2]])
  np.testing.assert_array_equal(found, np.float32(nodes))
  assert edges.tolist() == [[0, 1], [0, 2], [1, 2]]
  found, edges = _planar(np.zeros((0, 2)), [])
  assert len(found) == len(edges) == 0


def test_parts_inherit_the_probability_and_absent_edges_do_not_cross():
  nodes = np.float32([[-1, 0], [1, 0], [0, -1], [0, 1], [0.9, 0.9]])
  edges = np.array([[0, 1], [2, 3], [0, 4]])
  prob = np.float32([0.9, 0.7, 0.2])
  graph = graphs.from_lists(nodes, edges, edge_prob=prob)
  found = planarity.planarize(graph)
  np.testing.assert_allclose(found.edge_prob[[0, 1, 2, 3], 5], [0.9, 0.9, 0.7, 0.7])
  np.testing.assert_allclose(found.node_prob[5], 0.7)
  assert (np.asarray(found.edge_prob)[:, 4] == 0).all()


def test_where_edges_lie_on_each_other_the_more_probable_counts():
  nodes = np.float32([[-1, 0], [0, 0.01], [1, 0]])
  edges = np.array([[0, 1], [1, 2], [0, 2]])
  graph = graphs.from_lists(nodes, edges, edge_prob=np.float32([0.9, 0.6, 0.7]))
  found = planarity.planarize(graph)
  np.testing.assert_allclose(found.edge_prob[1], [0.9, 0, 0.7])


@hypothesis.given(st.integers(0, 10_000))
def test_no_edges_cross_away_from_nodes(seed):
  rng = np.random.default_rng(seed)
  nodes = rng.uniform(-1, 1, (6, 2)).astype(np.float32)
  first, second = geometry.node_pairs(6)
  edges = np.stack([first, second], axis=1)[rng.random(15) < 0.4]
  tolerance = 0.02
  found, pairs = _planar(nodes, edges, tolerance=tolerance)
  # Independent: sample both edges densely; where they meet there must be a node.
  t = np.linspace(0, 1, 400)[:, None]
  for k, (a, b) in enumerate(pairs):
    for c, d in pairs[k + 1 :]:
      if {a, b} & {c, d}:
        continue
      one = found[a] * (1 - t) + found[b] * t
      other = found[c] * (1 - t) + found[d] * t
      gaps = np.linalg.norm(one[:, None] - other[None], axis=-1)
      i, j = np.unravel_index(gaps.argmin(), gaps.shape)
      if gaps[i, j] < 0.004:
        # Bending an edge through a node beside it moves it by the tolerance at most.
        nearest = np.linalg.norm(found - one[i], axis=-1).min()
        assert nearest < 6 * tolerance


def test_a_tolerance_of_zero_is_refused():
  with pytest.raises(ValueError, match='tolerance'):
    _planar([[0, 0], [1, 1]], [[0, 1]], tolerance=0)
