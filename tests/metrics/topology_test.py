import collections

import networkx
import numpy as np
import pytest

from img2graph.metrics import topology


def _random_graph(rng, num_nodes, density):
  pairs = np.stack(np.triu_indices(num_nodes, 1), axis=-1)
  edges = pairs[rng.random(len(pairs)) < density]
  return rng.uniform(size=(num_nodes, 2)), edges


def _networkx(graph):
  result = networkx.Graph()
  result.add_nodes_from(range(len(graph[0])))
  result.add_edges_from(graph[1].tolist())
  return result


def _contract_by_hand(graph):
  """Replaces nodes of degree 2 one at a time in a multigraph: `(paths, rings)`."""
  multigraph = networkx.MultiGraph(_networkx(graph))
  for node in list(multigraph):
    ends = [end for _, end in multigraph.edges(node)]
    # A loop at the node itself is what is left of a ring.
    if multigraph.degree(node) == 2 and node not in ends:
      multigraph.remove_node(node)
      multigraph.add_edge(*ends)
  rings = [u for u, v in multigraph.edges() if u == v and multigraph.degree(u) == 2]
  paths = collections.Counter(
    tuple(sorted(edge)) for edge in multigraph.edges() if edge[0] not in rings
  )
  return paths, len(rings)


@pytest.mark.parametrize('seed', range(25))
def test_components_and_cycles_equal_networkx(seed):
  rng = np.random.default_rng(seed)
  graph = _random_graph(rng, rng.integers(0, 12), rng.uniform(0, 0.5))
  reference = _networkx(graph)
  components = networkx.number_connected_components(reference)
  assert topology.count_components(graph) == components
  assert topology.count_cycles(graph) == len(networkx.cycle_basis(reference))


@pytest.mark.parametrize('seed', range(40))
def test_contraction_equals_removing_nodes_one_at_a_time(seed):
  rng = np.random.default_rng(seed)
  graph = _random_graph(rng, rng.integers(1, 14), rng.uniform(0.05, 0.25))
  keys, paths, rings = topology.contract(graph)
  degree = dict(_networkx(graph).degree())
  assert keys.tolist() == [i for i in sorted(degree) if degree[i] not in (0, 2)]
  expected_paths, expected_rings = _contract_by_hand(graph)
  actual = collections.Counter((int(keys[i]), int(keys[j])) for i, j in paths)
  assert actual == expected_paths
  assert len(rings) == expected_rings


def test_a_ring_has_its_middle_and_no_key():
  nodes = np.array([[0.1, 0.1], [0.5, 0.1], [0.5, 0.3], [0.9, 0.9]])
  keys, paths, rings = topology.contract((nodes, np.array([[0, 1], [1, 2], [0, 2]])))
  assert len(keys) == 0 and paths == []
  np.testing.assert_allclose(rings, [[0.3, 0.2]])


def test_several_paths_between_the_same_ends_each_count_once():
  # Two ways from 0 to 1, through 2 and through 3; both ends have a tail.
  nodes = np.array(
    [[0.3, 0.5], [0.7, 0.5], [0.5, 0.3], [0.5, 0.7], [0.1, 0.5], [0.9, 0.5]]
  )
  true = (nodes, np.array([[0, 2], [1, 2], [0, 3], [1, 3], [0, 4], [1, 5]]))
  less = (nodes, np.array([[0, 1], [0, 4], [1, 5]]))
  counts = topology.key_and_path_counts(true, true, thresholds=(0.05,))
  assert counts == {'key': [(4, 4, 4, 4)], 'path': [(4, 4, 4, 4)]}
  # Without its second way, 0 and 1 have degree 2: one path from end to end is left.
  counts = topology.key_and_path_counts(true, less, thresholds=(0.05,))
  assert counts == {'key': [(2, 2, 2, 4)], 'path': [(0, 1, 0, 4)]}


def test_cutting_edges_changes_no_key_and_no_path():
  rng = np.random.default_rng(1)
  true = _random_graph(rng, 8, 0.3)
  middles = true[0][true[1]].mean(axis=1)
  added = len(true[0]) + np.arange(len(middles))
  edges = np.concatenate([np.stack([true[1][:, k], added], axis=1) for k in range(2)])
  pred = (np.concatenate([true[0], middles]), edges)
  counts = topology.key_and_path_counts(true, pred, thresholds=(0.03, 0.08))
  for kind in ('key', 'path'):
    for right, all_pred, found, all_true in counts[kind]:
      assert right == all_pred == found == all_true > 0
  assert topology.count_agreements(true, pred) == {
    'nodes': False,
    'edges': False,
    'components': True,
    'cycles': True,
  }


def test_rings_match_within_twice_the_threshold():
  nodes = np.array([[0.2, 0.2], [0.4, 0.2], [0.3, 0.4]])
  edges = np.array([[0, 1], [1, 2], [0, 2]])
  for shift, right in ((0.09, 1), (0.11, 0)):
    pred = (nodes + [shift, 0], edges)
    counts = topology.key_and_path_counts((nodes, edges), pred, thresholds=(0.05,))
    assert counts['path'] == [(right, 1, right, 1)]


def test_graphs_without_edges_have_no_keys_and_no_paths():
  for count in (0, 3):
    graph = (np.zeros((count, 2)), np.zeros((0, 2), int))
    keys, paths, rings = topology.contract(graph)
    assert len(keys) == len(paths) == len(rings) == 0
    assert rings.shape == (0, 2)
    assert topology.count_components(graph) == count
    assert topology.count_cycles(graph) == 0
