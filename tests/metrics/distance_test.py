import numpy as np
import pytest

from img2graph.metrics import distance


def _random_graph(rng, num_nodes):
  pairs = np.stack(np.triu_indices(num_nodes, 1), axis=-1)
  return rng.uniform(size=(num_nodes, 2)), pairs[rng.random(len(pairs)) < 0.5]


LINE = (np.array([[0.2, 0.5], [0.8, 0.5]]), np.array([[0, 1]]))
NOTHING = (np.zeros((0, 2)), np.zeros((0, 2), int))


def test_distance_to_edges_equals_dense_sampling():
  rng = np.random.default_rng(0)
  graph = _random_graph(rng, 5)
  points = rng.uniform(size=(40, 2))
  along = np.linspace(0, 1, 4001)[:, None, None]
  start, end = graph[0][graph[1][:, 0]], graph[0][graph[1][:, 1]]
  samples = (start * (1 - along) + end * along).reshape(-1, 2)
  expected = np.linalg.norm(points[:, None] - samples[None], axis=-1).min(axis=1)
  actual = distance.distance_to_edges(points, graph)
  np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_a_shorter_line_covers_its_own_length_and_the_threshold_beyond():
  pred = (np.array([[0.2, 0.51], [0.5, 0.51]]), np.array([[0, 1]]))
  ((right, all_pred, found, all_true),) = distance.length_counts(
    LINE, pred, thresholds=(0.05,)
  )
  assert right == pytest.approx(all_pred) == pytest.approx(0.3)
  assert all_true == pytest.approx(0.6)
  # A piece is 0.004 long, so the covered length is known to half of that.
  assert found == pytest.approx(0.3 + np.sqrt(0.05**2 - 0.01**2), abs=0.002)


def test_cutting_edges_changes_neither_length_nor_street_mover():
  rng = np.random.default_rng(1)
  true = _random_graph(rng, 6)
  middles = true[0][true[1]].mean(axis=1)
  added = 6 + np.arange(len(middles))
  edges = np.concatenate([np.stack([true[1][:, k], added], axis=1) for k in range(2)])
  cut = (np.concatenate([true[0], middles]), edges)
  for right, all_pred, found, all_true in distance.length_counts(
    true, cut, thresholds=(1e-6, 0.03)
  ):
    assert right == pytest.approx(all_pred) == pytest.approx(all_true)
    assert found == pytest.approx(all_true)
  # The points move by at most half a spacing.
  half_spacing = all_true / distance.NUM_POINTS / 2
  assert distance.street_mover_distance(true, cut) < half_spacing**2


def test_edges_on_top_of_one_another_each_count():
  twice = (np.array([[0.2, 0.5], [0.8, 0.5], [0.8, 0.5]]), np.array([[0, 1], [0, 2]]))
  ((_, all_pred, _, _),) = distance.length_counts(LINE, twice, thresholds=(0.03,))
  assert all_pred == pytest.approx(1.2)


def test_points_are_spread_evenly_over_the_whole_length():
  corner = (np.array([[0.0, 0.0], [0.3, 0.0], [0.3, 0.1]]), np.array([[0, 1], [1, 2]]))
  points = distance.spread_points(corner, 4)
  expected = [[0.05, 0.0], [0.15, 0.0], [0.25, 0.0], [0.3, 0.05]]
  np.testing.assert_allclose(points, expected, atol=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_numbering_and_direction_do_not_move_the_points(seed):
  rng = np.random.default_rng(seed)
  nodes, edges = _random_graph(rng, 6)
  order = rng.permutation(6)
  renumbered = np.argsort(order)[edges][rng.permutation(len(edges)), ::-1]
  np.testing.assert_allclose(
    distance.spread_points((nodes[order], renumbered)),
    distance.spread_points((nodes, edges)),
    atol=1e-12,
  )


@pytest.mark.parametrize('shift', [[0.0, 0.0], [0.1, 0.0], [-0.03, 0.04]])
def test_street_mover_of_a_shift_is_its_squared_length(shift):
  rng = np.random.default_rng(0)
  nodes, edges = _random_graph(rng, 6)
  value = distance.street_mover_distance((nodes, edges), (nodes + shift, edges))
  assert value == pytest.approx(np.sum(np.square(shift)), abs=1e-12)


def test_street_mover_of_parallel_and_longer_lines_is_the_integral():
  # Along a line the optimal plan is monotone: the mean of (0.2 s)^2 over s in (0, 1).
  longer = (np.array([[0.2, 0.5], [1.0, 0.5]]), np.array([[0, 1]]))
  value = distance.street_mover_distance(LINE, longer)
  assert value == pytest.approx(0.04 / 3, rel=1e-3)


def test_empty_graphs_have_their_agreed_values():
  assert distance.street_mover_distance(NOTHING, NOTHING) == 0
  assert distance.street_mover_distance(LINE, NOTHING) == 0.5
  assert distance.street_mover_distance(NOTHING, LINE) == 0.5
  (counts,) = distance.length_counts(LINE, NOTHING, thresholds=(0.05,))
  assert counts == (0, 0, 0, pytest.approx(0.6))
  (counts,) = distance.length_counts(NOTHING, NOTHING, thresholds=(0.05,))
  assert counts == (0, 0, 0, 0)


def test_an_edge_of_no_length_is_a_point():
  point = (np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[0, 1]]))
  np.testing.assert_allclose(distance.spread_points(point, 3), [[0.5, 0.5]] * 3)
  found = distance.distance_to_edges(np.array([[0.5, 0.1]]), point)
  np.testing.assert_allclose(found, [0.4])
  (counts,) = distance.length_counts(LINE, point, thresholds=(0.05,))
  assert counts[1] == 0
  assert counts[2] == pytest.approx(0.1, abs=0.004)
