import itertools
import json
import pathlib

import numpy as np
import pytest

from img2graph import graph as graph_lib
from img2graph import metrics
from img2graph.metrics import triplets

CASES = json.loads((pathlib.Path(__file__).parent / 'cases.json').read_text())
SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
RING = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])


def _graph(case, side):
  return case[side]['nodes'], case[side]['edges']


def _assert_same(actual, expected, path=''):
  """Nested dicts and sequences of numbers agree to 1e-6, key by key."""
  if isinstance(expected, dict):
    assert actual.keys() == expected.keys(), path
    for key in expected:
      _assert_same(actual[key], expected[key], f'{path}/{key}')
  else:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6, err_msg=path)


def _random_graph(rng, num_nodes):
  """Nodes at least 0.2 apart, so that small shifts leave the matching clear."""
  grid = np.array(list(itertools.product(np.linspace(-0.8, 0.8, 5), repeat=2)))
  nodes = rng.permutation(grid)[:num_nodes] + rng.uniform(-0.1, 0.1, (num_nodes, 2))
  pairs = np.array(list(itertools.combinations(range(num_nodes), 2)))
  return nodes, pairs[rng.random(len(pairs)) < 0.4]


@pytest.mark.parametrize('case', CASES['cases'], ids=lambda case: case['name'])
def test_counts_of_an_image_equal_the_independent_scorer(case):
  row = metrics.score_graph(_graph(case, 'true'), _graph(case, 'pred'), extra=True)
  _assert_same(row, case['expected'])


def test_averages_over_images_equal_the_independent_scorer():
  trues = [_graph(case, 'true') for case in CASES['cases']]
  preds = [_graph(case, 'pred') for case in CASES['cases']]
  _assert_same(metrics.score_graphs(trues, preds, extra=True), CASES['combined'])
  short = metrics.score_graphs(trues, preds)
  assert short.keys() == {'images', 'cleaned', 'at'}
  for name, at in short['at'].items():
    assert at.keys() == {'node', 'edge_strict', 'edge_lenient', 'exact'}
    _assert_same(at, {kind: CASES['combined']['at'][name][kind] for kind in at})


@pytest.mark.parametrize('seed', range(20))
def test_lenient_edges_equal_a_reading_of_the_definition(seed):
  # Strict: predicted edge by predicted edge, over all one-to-one matchings.
  rng = np.random.default_rng(seed)
  true_nodes, true_edges = rng.uniform(-0.15, 0.15, (4, 2)), [[0, 1], [1, 2], [2, 3]]
  pred_nodes = rng.uniform(-0.15, 0.15, (5, 2))
  pred_edges = list(itertools.combinations(range(5), 2))[::2]
  distance = np.linalg.norm(pred_nodes[:, None] - true_nodes[None], axis=-1) / 2
  best = max(
    (
      (sum(k >= 0 for k in choice), -sum(distance[i, k] for i, k in pairs), choice)
      for choice in set(itertools.permutations([0, 1, 2, 3, *[-1] * 5], 5))
      for pairs in [[(i, k) for i, k in enumerate(choice) if k >= 0]]
      if all(distance[i, k] <= 0.05 for i, k in pairs)
    ),
  )[2]
  true_set = {frozenset(edge) for edge in true_edges}
  strict = sum(frozenset((best[i], best[j])) in true_set for i, j in pred_edges)
  label = {}
  for i, k in enumerate(best):
    label[i] = k
    if k < 0:
      nearest = int(distance[i].argmin())
      label[i] = nearest if distance[i, nearest] <= 0.05 else f'extra {i}'
  kept = {frozenset((label[i], label[j])) for i, j in pred_edges}
  kept = {edge for edge in kept if len(edge) == 2}
  at = metrics.score_graph(
    (true_nodes, true_edges), (pred_nodes, pred_edges), thresholds=(0.05,)
  )['at']['0.05']
  assert at['edge_strict'] == (strict, len(pred_edges), strict, 3)
  right = len(kept & true_set)
  assert at['edge_lenient'] == (right, len(kept), right, 3)


def test_one_edge_cut_in_two_is_two_wrong_and_one_missed():
  nodes = np.concatenate([SQUARE, [[0.0, -0.5]]])
  edges = [[0, 4], [4, 1], [1, 2], [2, 3], [3, 0]]
  scores = metrics.score_graphs([(SQUARE, RING)], [(nodes, edges)])['at']['0.05']
  for average in ('micro', 'macro'):
    assert scores['edge_strict'][average]['precision'] == pytest.approx(3 / 5)
    assert scores['edge_strict'][average]['recall'] == pytest.approx(3 / 4)
    assert scores['edge_strict'][average]['f1'] == pytest.approx(2 / 3)
  assert scores['node']['micro']['precision'] == pytest.approx(4 / 5)
  assert scores['exact'] == 0


def test_a_graph_with_a_node_too_many_is_not_exact():
  more = np.concatenate([SQUARE, [[0.0, 0.9]]])
  for true, pred in ((SQUARE, more), (more, SQUARE)):
    at = metrics.score_graphs([(true, RING)], [(pred, RING)])['at']['0.05']
    assert at['edge_strict']['micro']['f1'] == 1
    assert at['exact'] == 0


@pytest.mark.parametrize('apart, right', [(0.1, 1), (0.1 + 1e-6, 0)])
def test_a_second_node_stands_for_the_true_one_up_to_the_threshold(apart, right):
  # Node 2 is left over by the matching, and 0.1 is 5 % of the side. Rounding, which is
  # another one in each place, does not matter.
  for x in np.linspace(-0.7, 0.5, 13):
    true = [[x, 0.1], [0.9, 0.1]], [[0, 1]]
    pred = [[x, 0.1], [0.9, 0.1], [x + apart, 0.1]], [[1, 2]]
    counts = metrics.score_graph(true, pred, thresholds=[0.05])['at']['0.05']
    assert counts['edge_strict'] == (0, 1, 0, 1)
    assert counts['edge_lenient'] == (right, 1, right, 1)


def test_a_true_graph_scores_one_and_nothing_scores_zero():
  perfect = metrics.score_graphs([(SQUARE, RING)], [(SQUARE, RING)])['at']
  nothing = metrics.score_graphs([(SQUARE, RING)], [([], [])])['at']
  both_empty = metrics.score_graphs([([], [])], [([], [])])['at']
  for t in ('0.03', '0.05', '0.08'):
    assert perfect[t]['exact'] == both_empty[t]['exact'] == 1
    assert nothing[t]['exact'] == 0
    for kind in ('node', 'edge_strict', 'edge_lenient'):
      for average in ('micro', 'macro'):
        assert set(perfect[t][kind][average].values()) == {1.0}
        assert set(both_empty[t][kind][average].values()) == {1.0}
        assert set(nothing[t][kind][average].values()) == {0.0}


def test_micro_pools_counts_and_macro_averages_images():
  two = (SQUARE[:2], [[0, 1]])
  scores = metrics.score_graphs([two, (SQUARE, RING)], [([], []), (SQUARE, RING)])
  node = scores['at']['0.05']['node']
  assert node['micro'] == {'precision': 1.0, 'recall': 4 / 6, 'f1': pytest.approx(0.8)}
  assert node['macro'] == {'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
  assert scores['at']['0.05']['exact'] == 0.5


@pytest.mark.parametrize('seed', range(10))
def test_numbering_and_direction_change_no_figure(seed):
  rng = np.random.default_rng(seed)
  true = _random_graph(rng, 7)
  pred = (true[0] + rng.normal(scale=0.03, size=(7, 2)), _random_graph(rng, 7)[1])
  order = rng.permutation(7)
  edges = np.argsort(order)[pred[1]][rng.permutation(len(pred[1])), ::-1]
  expected = metrics.score_graph(true, pred, extra=True)
  actual = metrics.score_graph(true, (pred[0][order], edges), extra=True)
  _assert_same(actual, expected)


@pytest.mark.parametrize('seed', range(10))
def test_swapping_truth_and_prediction_swaps_precision_and_recall(seed):
  rng = np.random.default_rng(seed)
  true = _random_graph(rng, 6)
  pred = (true[0] + rng.normal(scale=0.05, size=(6, 2)), _random_graph(rng, 6)[1])
  forth = metrics.score_graphs([true], [pred], extra=True)
  back = metrics.score_graphs([pred], [true], extra=True)
  assert forth['smd'] == pytest.approx(back['smd'])
  for t, at in forth['at'].items():
    assert at['exact'] == back['at'][t]['exact']
    for kind in ('node', 'edge_strict', 'key', 'path', 'length'):
      one, other = at[kind]['micro'], back['at'][t][kind]['micro']
      assert one['precision'] == pytest.approx(other['recall'])
      assert one['f1'] == pytest.approx(other['f1'])


def test_mirrored_and_turned_graphs_score_the_same():
  rng = np.random.default_rng(3)
  true = _random_graph(rng, 8)
  pred = (true[0] + rng.normal(scale=0.05, size=(8, 2)), _random_graph(rng, 8)[1])
  expected = metrics.score_graph(true, pred)
  for matrix in ([[-1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 1], [-1, 0]]):
    turned = metrics.score_graph(
      (true[0] @ matrix, true[1]), (pred[0] @ matrix, pred[1])
    )
    assert turned == expected


def test_a_larger_threshold_finds_no_fewer_nodes():
  rng = np.random.default_rng(4)
  true = _random_graph(rng, 9)
  pred = (true[0] + rng.normal(scale=0.08, size=(9, 2)), true[1])
  at = metrics.score_graph(true, pred, thresholds=(0.01, 0.02, 0.04, 0.08, 0.16))['at']
  pairs = [counts['node'][0] for counts in at.values()]
  assert pairs == sorted(pairs)
  assert pairs[0] < pairs[-1]


def test_lenient_never_makes_more_wrong_edges_than_strict():
  for seed in range(30):
    rng = np.random.default_rng(seed)
    true = _random_graph(rng, 6)
    nodes = np.concatenate([true[0], true[0][:3] + 0.02])
    pred = (nodes, rng.integers(0, 9, (10, 2)))
    for counts in metrics.score_graph(true, pred)['at'].values():
      strict, lenient = counts['edge_strict'], counts['edge_lenient']
      assert lenient[0] >= strict[0]
      assert lenient[1] - lenient[0] <= strict[1] - strict[0]


def test_figures_of_many_count_rows_equal_those_of_each():
  rows = np.array(
    [[1, 2, 1, 4], [0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 2], [0, 2, 0, 3]]
  )
  figures = triplets.precision_recall_f1(rows)
  expected = [[1 / 2, 1 / 4, 1 / 3], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
  np.testing.assert_allclose(figures, expected)
  np.testing.assert_allclose(triplets.precision_recall_f1(rows[0]), expected[0])


def test_the_headline_has_triplet_f1_and_exact_share_of_each_threshold():
  pred = (SQUARE + 0.08, RING)
  scores = metrics.score_graphs([(SQUARE, RING)] * 2, [(SQUARE, RING), pred])
  assert metrics.headline(scores) == {
    'f1@0.03': 0.5,
    'exact@0.03': 0.5,
    'f1@0.05': 0.5,
    'exact@0.05': 0.5,
    'f1@0.08': 1.0,
    'exact@0.08': 1.0,
  }
  assert metrics.headline({'images': 3}) == {}


def test_scores_are_plain_json_values():
  scores = metrics.score_graphs([(SQUARE, RING)], [(SQUARE, RING[:2])], extra=True)
  assert json.loads(json.dumps(scores)) == scores


@pytest.mark.parametrize(
  ('pred', 'message'),
  [
    (([[0.0, np.nan]], []), 'image 1: a node position is not finite'),
    (([[0, 10**400]], []), 'image 1: a node position must be a number below 1e308'),
    (([[0.0, 0.0]], [[0, 1]]), 'image 1: an edge index is out of range: 1 nodes'),
    (([[0.0, 0.0]], [[-1, 0]]), 'image 1: an edge index is out of range'),
    (([[0.0, 0.0]], [[0, 1e30]]), r'1 nodes, but indices from 0.0 to 1e\+30'),
    (([[0.0, 0.0]], [[-np.inf, 0]]), '1 nodes, but indices from -inf to 0'),
    (([[0.0, 0.0]], [[0, np.nan]]), 'image 1: an edge index is not a whole number'),
    (([[0.0, 0.0]], [[0, 2**70]]), 'image 1: an edge index is out of range'),
    (([[0.0, 0.0]], [[0, -(10**400)]]), 'image 1: an edge index is out of range'),
    (([[0.0, 0.0]], [[0, None]]), 'image 1: an edge index is not a whole number'),
    (([[0.0, 0.0]] * 2, [[0, 0.5]]), 'image 1: an edge index is not a whole number'),
    (([0.0, 0.0], []), r'image 1: nodes must be \[n, 2\]'),
    (([[0.0, 0.0]] * 3, [[0, 1, 2]]), r'image 1: edges must be \[e, 2\]'),
    (
      graph_lib.empty((), 4),
      'image 1: a graph to score is a pair .* got Graph',
    ),
    (None, 'image 1: a graph to score is a pair .* got NoneType'),
    ((SQUARE, RING, []), 'image 1: a graph to score is a pair .* got tuple'),
  ],
)
def test_a_wrong_graph_is_refused_with_its_image_named(pred, message):
  with pytest.raises(ValueError, match=message):
    metrics.score_graphs([(SQUARE, RING)] * 2, [(SQUARE, RING), pred])


@pytest.mark.parametrize('extra', [False, True])
def test_positions_far_outside_are_refused_by_every_score(extra):
  outside = ([[3.0, -3.0], [0.0, 0.0]], [[0, 1]])
  metrics.score_graphs([outside], [outside], extra=extra)
  for far in (3.001, -1e9, 1e300):
    pair = [(SQUARE, RING)], [([[0.0, far], [0.0, 0.0]], [[0, 1]])]
    for trues, preds in (pair, pair[::-1]):
      with pytest.raises(ValueError, match='image 0: a node lies far outside; x and y'):
        metrics.score_graphs(trues, preds, extra=extra)


@pytest.mark.parametrize('thresholds', [(), (0,), (-0.05,), (np.nan,), (0.05, 0.05)])
def test_wrong_thresholds_are_refused(thresholds):
  with pytest.raises(ValueError, match='thresholds must'):
    metrics.score_graphs([(SQUARE, RING)], [(SQUARE, RING)], thresholds=thresholds)


def test_wrong_numbers_of_graphs_are_refused():
  with pytest.raises(ValueError, match='2 true graphs but 1 predicted'):
    metrics.score_graphs([(SQUARE, RING)] * 2, [(SQUARE, RING)])
  with pytest.raises(ValueError, match='no images to score'):
    metrics.score_graphs([], [])
