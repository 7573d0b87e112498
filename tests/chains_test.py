"""Tests of img2graph/chains.py."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from img2graph import chains
from img2graph import graph as graphs
from tests import decoding_test


def chain(points):
  edges = {(i, i + 1): 0.9 - 0.01 * i for i in range(len(points) - 1)}
  return decoding_test.believe(points, edges)


def away(points, nodes, edges):
  """Greatest distance of points from the nearest of the edges."""
  return chains.distance(points, nodes[edges[:, 0]], nodes[edges[:, 1]]).min(0).max()


@hypothesis.given(st.integers(0, 1000), st.floats(0.0, 0.2))
def test_a_simpler_chain_stays_within_the_tolerance(seed, tolerance):
  rng = np.random.default_rng(seed)
  turns = np.cumsum(rng.uniform(-0.6, 0.6, 9))
  points = np.cumsum(0.15 * np.stack([np.cos(turns), np.sin(turns)], 1), axis=0) - 0.5
  simple = chains.simplify(chain(points), tolerance)
  nodes, edges = graphs.to_lists(simple, 0)
  assert len(edges) == len(nodes) - 1
  assert away(points, nodes.astype(float), edges) <= tolerance + 1e-6
  # Both ends stay, and a node that stays does not move.
  ends = nodes[np.bincount(edges.ravel()) == 1]
  for end in (points[0], points[-1]):
    assert np.linalg.norm(ends - end, axis=1).min() < 1e-6
  assert np.linalg.norm(nodes[:, None] - points[None], axis=-1).min(1).max() < 1e-6


def test_what_was_dropped_before_stays_within_the_tolerance_too():
  # In few zigzags does an earlier node lie farther off than the one dropped now.
  for seed in range(300):
    rng = np.random.default_rng(seed)
    points = np.stack([np.linspace(-0.9, 0.9, 12), rng.uniform(-0.2, 0.2, 12)], axis=1)
    tolerance = rng.uniform(0.02, 0.3)
    for way in (points, points[::-1]):  # Numbered from either end.
      simple = chains.simplify(chain(way), tolerance, most_turn=180)
      nodes, edges = graphs.to_lists(simple, 0)
      assert away(points, nodes.astype(float), edges) <= tolerance + 1e-6


def test_the_number_of_nodes_of_a_curve_falls_with_the_tolerance():
  angle = np.linspace(0, np.pi, 25)
  points = 0.8 * np.stack([np.cos(angle), np.sin(angle)], 1)
  counts = [
    len(graphs.to_lists(chains.simplify(chain(points), t), 0)[0])
    for t in (0.0, 0.003, 0.01, 0.03, 0.1)
  ]
  assert counts[0] == 25 and counts[-1] <= 5
  assert all(a >= b for a, b in zip(counts[:-1], counts[1:], strict=True))


def test_corners_junctions_and_rings_stay():
  corner = chain([[-0.1, 0.0], [0.0, 0.0], [0.0, 0.1]])
  assert len(decoding_test.found(chains.simplify(corner, 1.0))) == 2
  star = decoding_test.believe(
    [[0, 0], [-0.5, 0], [0.5, 0], [0, 0.5]], {(0, k): 0.9 for k in (1, 2, 3)}
  )
  assert len(decoding_test.found(chains.simplify(star, 1.0))) == 3
  angle = 2 * np.pi * np.arange(12) / 12
  ring = decoding_test.believe(
    0.5 * np.stack([np.cos(angle), np.sin(angle)], 1),
    {tuple(sorted((k, (k + 1) % 12))): 0.9 for k in range(12)},
  )
  nodes, edges = graphs.to_lists(chains.simplify(ring, 1.0, most_turn=180), 0)
  assert len(nodes) == len(edges) == 3


def test_a_chord_is_as_probable_as_the_weakest_edge_it_stands_for():
  line = chain([[-0.6, 0], [-0.2, 0], [0.2, 0], [0.6, 0]])
  simple = chains.simplify(line, 0.01)
  np.testing.assert_allclose(simple.edge_prob, [[0, 0.88], [0.88, 0]], atol=1e-6)


@hypothesis.given(st.integers(0, 10_000))
def test_adjacency_there_and_back_is_the_same_graph(seed):
  rng = np.random.default_rng(seed)
  pairs = [(i, j) for j in range(7) for i in range(j) if rng.random() < 0.3]
  probs = {pair: float(rng.uniform(0.1, 1)) for pair in pairs}
  graph = decoding_test.believe(rng.uniform(-1, 1, (7, 2)), probs)
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)
  assert sorted(edge_prob) == sorted(probs)
  assert all((b in neighbours[a]) and (a in neighbours[b]) for a, b in pairs)
  assert sum(map(len, neighbours.values())) == 2 * len(pairs)
  back = chains.from_adjacency(nodes, prob, neighbours, edge_prob)
  used = sorted({k for pair in pairs for k in pair})
  np.testing.assert_array_equal(back.nodes, graph.nodes[used])
  np.testing.assert_array_equal(back.edge_prob, graph.edge_prob[np.ix_(used, used)])


def test_distances_are_those_of_many_points_of_each_segment():
  rng = np.random.default_rng(0)
  points, first, last = rng.uniform(-1, 1, (20, 2)), *rng.uniform(-1, 1, (2, 6, 2))
  last[0] = first[0]  # A segment that is a point.
  on = first[:, None] + np.linspace(0, 1, 4001)[:, None] * (last - first)[:, None]
  brute = np.linalg.norm(points[None, :, None] - on[:, None], axis=-1).min(axis=-1)
  np.testing.assert_allclose(chains.distance(points, first, last), brute, atol=1e-3)
