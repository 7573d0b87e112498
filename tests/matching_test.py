import itertools

import numpy as np
import pytest

from img2graph import matching


def _best_by_enumeration(true_nodes, pred_nodes, max_distance):
  """(pairs, summed distance) of the best matching, over all injective ones."""
  distance = np.linalg.norm(pred_nodes[:, None] - true_nodes[None], axis=-1)
  best = (0, 0.0)
  slots = list(range(len(true_nodes))) + [-1] * len(pred_nodes)
  for choice in set(itertools.permutations(slots, len(pred_nodes))):
    cost = [distance[i, k] for i, k in enumerate(choice) if k >= 0]
    if all(c <= max_distance for c in cost):
      candidate = (len(cost), -sum(cost))
      best = max(best, candidate)
  return best[0], -best[1]


@pytest.mark.parametrize('seed', range(30))
def test_matching_equals_enumeration_of_all_matchings(seed):
  rng = np.random.default_rng(seed)
  true_nodes = rng.uniform(size=(rng.integers(0, 5), 2))
  pred_nodes = rng.uniform(size=(rng.integers(0, 4), 2))
  assign = matching.match_nodes(true_nodes, pred_nodes, max_distance=0.5)
  matched = assign >= 0
  assert len(set(assign[matched])) == matched.sum()
  cost = np.linalg.norm(pred_nodes[matched] - true_nodes[assign[matched]], axis=-1)
  assert (cost <= 0.5).all()
  pairs, total = _best_by_enumeration(true_nodes, pred_nodes, 0.5)
  assert matched.sum() == pairs
  np.testing.assert_allclose(cost.sum(), total, atol=1e-12)


@pytest.mark.parametrize('unit', [0.01, 1, 1000])
def test_a_further_pair_is_worth_more_than_a_closer_one(unit):
  # Nearest first would pair pred 0 with true 1 and leave the others over.
  true_nodes = unit * np.array([[0.0, 0.0], [1.0, 0.0]])
  pred_nodes = unit * np.array([[0.95, 0.0], [1.9, 0.0]])
  assign = matching.match_nodes(true_nodes, pred_nodes, max_distance=unit)
  np.testing.assert_array_equal(assign, [0, 1])


def test_nodes_exactly_at_the_limit_match():
  for limit in (0.03, 0.05, 0.08):
    pred = [[0.1 + limit, 0.7]]
    assert matching.match_nodes([[0.1, 0.7]], pred, max_distance=limit)[0] == 0
    pred = [[0.1 + limit + 1e-6, 0.7]]
    assert matching.match_nodes([[0.1, 0.7]], pred, max_distance=limit)[0] == -1


def test_scaling_nodes_and_limit_changes_nothing():
  rng = np.random.default_rng(0)
  true_nodes, pred_nodes = rng.uniform(size=(2, 9, 2))
  expected = matching.match_nodes(true_nodes, pred_nodes, max_distance=0.2)
  actual = matching.match_nodes(
    2 * true_nodes - 1, 2 * pred_nodes - 1, max_distance=0.4
  )
  np.testing.assert_array_equal(actual, expected)


def test_without_a_limit_the_nearest_still_match():
  rng = np.random.default_rng(0)
  true_nodes, pred_nodes = rng.uniform(size=(2, 9, 2))
  expected = matching.match_nodes(true_nodes, pred_nodes, max_distance=2)
  actual = matching.match_nodes(true_nodes, pred_nodes, max_distance=np.inf)
  np.testing.assert_array_equal(actual, expected)


def test_swapping_the_sides_gives_the_same_pairs():
  rng = np.random.default_rng(1)
  true_nodes, pred_nodes = rng.uniform(size=(7, 2)), rng.uniform(size=(10, 2))
  forth = matching.match_nodes(true_nodes, pred_nodes, max_distance=0.3)
  back = matching.match_nodes(pred_nodes, true_nodes, max_distance=0.3)
  assert {(k, i) for i, k in enumerate(forth) if k >= 0} == {
    (i, k) for i, k in enumerate(back) if k >= 0
  }


def test_empty_sides_give_no_pairs():
  none, two = np.zeros((0, 2)), np.zeros((2, 2))
  assert matching.match_nodes(none, none, max_distance=1).shape == (0,)
  assert matching.match_nodes(two, none, max_distance=1).shape == (0,)
  np.testing.assert_array_equal(
    matching.match_nodes(none, two, max_distance=1), [-1, -1]
  )


@pytest.mark.parametrize(
  ('true_nodes', 'pred_nodes', 'limit', 'message'),
  [
    (np.zeros((2, 3)), np.zeros((2, 2)), 0.1, r'true_nodes must be \[n, 2\]'),
    (np.zeros((2, 2)), np.zeros(2), 0.1, r'pred_nodes must be \[n, 2\]'),
    (np.zeros((2, 2)), [[0, np.nan]], 0.1, 'pred_nodes must be finite'),
    (np.zeros((2, 2)), np.zeros((2, 2)), 0, 'max_distance must be positive; got 0'),
    (np.zeros((2, 2)), np.zeros((2, 2)), np.nan, 'max_distance must be positive'),
  ],
)
def test_wrong_input_is_refused_in_one_sentence(true_nodes, pred_nodes, limit, message):
  with pytest.raises(ValueError, match=message):
    matching.match_nodes(true_nodes, pred_nodes, max_distance=limit)
