"""The canonical form of a graph, relabelling, padding and lists."""

import dataclasses
import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import strategies as st

from img2graph import graph as graph_lib

SEEDS = st.integers(0, 2**32 - 1)
OPTIONS = (
  dict(threshold=0.5, merge_radius=0.02),
  dict(threshold=0.3, merge_radius=0.3),
  dict(threshold=0.3, merge_radius=0.1, contract_angle=90.0),
  dict(threshold=0.3, merge_radius=0.1, contract_angle=170.0, contract_distance=0.4),
)


def random_graph(seed, batch=(), capacity=10, sparsity=6.0):
  """Nodes in the square, some of them close together; probabilities in [0, 1]."""
  rng = np.random.default_rng(seed)
  nodes = rng.uniform(-1, 1, (*batch, capacity, 2))
  # A third of the nodes lies near its predecessor, so that clusters arise.
  near = rng.uniform(size=(*batch, capacity, 1)) < 1 / 3
  nudge = rng.normal(scale=0.1, size=nodes.shape)
  nodes = np.where(near, np.roll(nodes, 1, axis=-2) + nudge, nodes)
  edge_prob = np.triu(rng.uniform(size=(*batch, capacity, capacity)) ** sparsity, 1)
  return graph_lib.Graph(
    nodes=nodes.astype(np.float32),
    node_prob=rng.uniform(0.2, 1, (*batch, capacity)).astype(np.float32),
    edge_prob=(edge_prob + np.swapaxes(edge_prob, -1, -2)).astype(np.float32),
  )


def reference(
  graph, *, threshold, merge_radius, contract_angle=None, contract_distance=None
):
  """The canonical form by networkx in float64: an independent implementation."""
  nodes = graph.nodes.astype(float)
  node_prob, edge_prob = graph.node_prob, graph.edge_prob
  groups = [frozenset([i]) for i in range(len(nodes)) if node_prob[i] > threshold]
  while True:
    centre = {g: nodes[sorted(g)].mean(axis=0) for g in groups}
    close = nx.Graph()
    close.add_nodes_from(groups)
    for a in groups:
      for b in groups:
        if a != b and np.linalg.norm(centre[a] - centre[b]) <= merge_radius:
          close.add_edge(a, b)
    united = [frozenset().union(*c) for c in nx.connected_components(close)]
    if len(united) == len(groups):
      break
    groups = united
  result = nx.Graph()
  for group in groups:
    prob = max(node_prob[i] for i in group)
    result.add_node(min(group), position=centre[group], prob=prob)
  for a in groups:
    for b in groups:
      probs = [edge_prob[i, j] for i in a for j in b if edge_prob[i, j] > threshold]
      if a != b and probs:
        result.add_edge(min(a), min(b), prob=max(probs))
  result.remove_nodes_from(list(nx.isolates(result)))
  while contract_angle is not None:
    candidates = []
    for node in result:
      if result.degree[node] != 2:
        continue
      first, last = result.neighbors(node)
      p, q, r = (result.nodes[v]['position'] for v in (first, node, last))
      into, out = q - p, r - q
      cosine = into @ out / np.linalg.norm(into) / np.linalg.norm(out)
      turn = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
      steps = np.linspace(0, 1, 4001)[:, None]
      away = np.linalg.norm(p + steps * (r - p) - q, axis=1).min()
      near = contract_distance is None or away <= contract_distance
      if turn < contract_angle and near and not result.has_edge(first, last):
        candidates.append((turn, *q, node, first, last))
    if not candidates:
      break
    node, first, last = min(candidates)[3:]
    prob = min(result.edges[node, first]['prob'], result.edges[node, last]['prob'])
    result.remove_node(node)
    result.add_edge(first, last, prob=prob)
  order = sorted(result)
  expected = graph_lib.empty((), graph.capacity)
  for k, node in enumerate(order):
    expected.nodes[k] = result.nodes[node]['position']
    expected.node_prob[k] = result.nodes[node]['prob']
  for a, b, data in result.edges(data=True):
    i, j = order.index(a), order.index(b)
    expected.edge_prob[i, j] = expected.edge_prob[j, i] = data['prob']
  return expected


def as_sets(graph):
  """Edges with rounded end points and probability: does not depend on numbering."""
  nodes = np.round(np.asarray(graph.nodes, float), 4).tolist()
  edges = np.argwhere(np.triu(graph.edge_prob))
  probs = np.round(np.asarray(graph.edge_prob), 4)
  return (
    sorted((*nodes[i], round(float(p), 4)) for i, p in enumerate(graph.node_prob) if p),
    sorted((sorted([nodes[i], nodes[j]]), probs[i, j]) for i, j in edges),
  )


def to_jax(graph):
  return jax.tree.map(jnp.asarray, graph)


def assert_lists(graph, nodes, edges):
  """The graph holds exactly these nodes, in this order, and these edges."""
  found_nodes, found_edges = graph_lib.to_lists(graph)
  np.testing.assert_allclose(found_nodes, np.reshape(nodes, (-1, 2)), atol=1e-6)
  assert found_edges.tolist() == [list(edge) for edge in edges]


@pytest.mark.parametrize('options', OPTIONS)
@hypothesis.given(seed=SEEDS)
def test_canonical_form_matches_networkx(options, seed):
  graph = random_graph(seed)
  actual = graph_lib.canonicalize(graph, **options)
  chex.assert_trees_all_close(actual, reference(graph, **options), atol=1e-5)


@pytest.mark.parametrize('options', OPTIONS)
@hypothesis.given(seed=SEEDS)
def test_jax_gives_the_same_as_numpy(options, seed):
  graph = random_graph(seed, batch=(2, 3))
  expected = graph_lib.canonicalize(graph, **options)
  actual = graph_lib.canonicalize(to_jax(graph), **options)
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(expected))
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(actual))
  chex.assert_trees_all_equal_shapes_and_dtypes(actual, to_jax(graph))
  chex.assert_trees_all_close(actual, expected, atol=1e-6)


@pytest.mark.parametrize('options', OPTIONS)
@hypothesis.given(seed=SEEDS)
def test_canonicalizing_twice_changes_nothing(options, seed):
  once = graph_lib.canonicalize(random_graph(seed, batch=(4,)), **options)
  chex.assert_trees_all_equal(graph_lib.canonicalize(once, **options), once)


@pytest.mark.parametrize('options', OPTIONS)
@hypothesis.given(seed=SEEDS)
def test_relabelling_changes_only_the_order(options, seed):
  graph = random_graph(seed)
  order = np.random.default_rng(seed).permutation(graph.capacity)
  expected = graph_lib.canonicalize(graph, **options)
  actual = graph_lib.canonicalize(graph_lib.relabel(graph, order), **options)
  for a, b in zip(as_sets(actual), as_sets(expected), strict=True):
    assert len(a) == len(b)
    chex.assert_trees_all_close(a, b, atol=2e-4)


@pytest.mark.parametrize('options', OPTIONS)
@hypothesis.given(seed=SEEDS)
def test_padding_changes_nothing(options, seed):
  graph = random_graph(seed, batch=(2,))
  padded = graph_lib.canonicalize(graph_lib.pad(graph, 13), **options)
  expected = graph_lib.pad(graph_lib.canonicalize(graph, **options), 13)
  chex.assert_trees_all_equal(padded, expected)


def test_jit_and_batch_axes_give_the_same_as_one_graph_at_a_time():
  graph = to_jax(random_graph(3, batch=(2, 2)))
  canonical = functools.partial(
    graph_lib.canonicalize, merge_radius=0.2, contract_angle=90.0
  )
  batched = canonical(graph)
  chex.assert_trees_all_close(jax.jit(canonical)(graph), batched, atol=1e-6)
  single = canonical(jax.tree.map(lambda x: x[1, 0], graph))
  chex.assert_trees_all_close(jax.tree.map(lambda x: x[1, 0], batched), single)


def test_thresholds_may_be_traced():
  graph = to_jax(random_graph(4))
  canonical = jax.jit(
    lambda graph, threshold, radius: graph_lib.canonicalize(
      graph, threshold=threshold, merge_radius=radius
    )
  )
  expected = graph_lib.canonicalize(graph, threshold=0.3, merge_radius=0.3)
  chex.assert_trees_all_close(canonical(graph, 0.3, 0.3), expected, atol=1e-6)


def test_an_edge_needs_its_own_probability_and_both_its_nodes():
  graph = graph_lib.from_lists(
    [[-0.5, 0], [0.5, 0], [0, 0.5], [0, -0.5]],
    [[0, 1], [1, 2], [0, 3]],
    node_prob=[0.9, 0.8, 0.5, 0.7],
    edge_prob=[0.6, 0.9, 0.5],
  )
  actual = graph_lib.canonicalize(graph)
  assert_lists(actual, [[-0.5, 0], [0.5, 0]], [(0, 1)])
  np.testing.assert_allclose(actual.node_prob, [0.9, 0.8, 0, 0], rtol=1e-6)
  assert actual.edge_prob[0, 1] == np.float32(0.6)


def test_coincident_nodes_merge_in_chains_to_their_mean():
  graph = graph_lib.from_lists(
    [[0, 0], [1, 0], [0.015, 0], [0.03, 0], [0, 1]],
    [[0, 1], [3, 1], [2, 4], [0, 2]],
    node_prob=[0.6, 0.7, 0.9, 0.8, 1.0],
    edge_prob=[0.7, 0.9, 0.6, 1.0],
  )
  actual = graph_lib.canonicalize(graph)
  assert_lists(actual, [[0.015, 0], [1, 0], [0, 1]], [(0, 1), (0, 2)])
  np.testing.assert_allclose(actual.node_prob, [0.9, 0.7, 1, 0, 0], rtol=1e-6)
  assert actual.edge_prob[0, 1] == np.float32(0.9)
  assert actual.edge_prob[0, 2] == np.float32(0.6)


def test_a_ring_of_nodes_whose_mean_meets_its_centre_merges_too():
  angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
  ring = 0.03 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  nodes = np.concatenate([ring, [[0.0, 0.0], [0.5, 0.0]]])
  graph = graph_lib.from_lists(nodes, [[0, 13], [12, 13]])
  assert_lists(graph_lib.canonicalize(graph), [[0, 0], [0.5, 0]], [(0, 1)])


def test_two_nodes_that_merge_leave_no_edge_and_no_node():
  graph = graph_lib.from_lists([[0, 0], [0.01, 0]], [[0, 1]])
  actual = graph_lib.canonicalize(graph)
  chex.assert_trees_all_equal(actual, graph_lib.empty((), 2))


def test_a_radius_of_zero_merges_equal_positions_only():
  graph = graph_lib.from_lists([[0, 0], [0, 0], [1e-4, 0]], [[0, 2], [1, 2]])
  actual = graph_lib.canonicalize(graph, merge_radius=0)
  assert_lists(actual, [[0, 0], [1e-4, 0]], [(0, 1)])


def test_isolated_nodes_are_dropped_and_the_rest_keeps_its_order():
  graph = graph_lib.from_lists(
    [[0.9, 0.9], [0.5, 0], [-0.5, 0.5], [0, 0]], [[3, 1]], capacity=6
  )
  actual = graph_lib.canonicalize(graph)
  assert actual.capacity == 6
  assert_lists(actual, [[0.5, 0], [0, 0]], [(0, 1)])
  assert not actual.nodes[2:].any()


def test_straight_nodes_are_contracted_only_on_demand():
  nodes = [[-1, 0], [0, 0.05], [1, 0]]
  graph = graph_lib.from_lists(nodes, [[0, 1], [1, 2]], edge_prob=[0.9, 0.7])
  assert_lists(graph_lib.canonicalize(graph), nodes, [(0, 1), (1, 2)])
  actual = graph_lib.canonicalize(graph, contract_angle=10)
  assert_lists(actual, [[-1, 0], [1, 0]], [(0, 1)])
  assert actual.edge_prob[0, 1] == np.float32(0.7)
  # The line turns by 5.7 degrees and is 0.05 from the chord.
  for options in (
    dict(contract_angle=5),
    dict(contract_angle=10, contract_distance=0.04),
  ):
    kept = graph_lib.canonicalize(graph, **options)
    assert_lists(kept, nodes, [(0, 1), (1, 2)])


def test_a_ring_is_contracted_to_a_triangle_at_least():
  angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
  nodes = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  graph = graph_lib.from_lists(nodes, [[i, (i + 1) % 8] for i in range(8)])
  actual = graph_lib.canonicalize(graph, contract_angle=180)
  nodes, edges = graph_lib.to_lists(actual)
  assert len(nodes) == 3 and edges.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_contraction_never_doubles_an_edge():
  # The middle node lies on the edge that joins its neighbours already.
  nodes = [[-1, 0], [0, 0], [1, 0]]
  edges = [(0, 1), (0, 2), (1, 2)]
  actual = graph_lib.canonicalize(graph_lib.from_lists(nodes, edges), contract_angle=30)
  assert_lists(actual, nodes, edges)


def test_a_long_straight_chain_becomes_one_edge_and_corners_stay():
  nodes = [[-1 + 0.2 * i, 0] for i in range(11)] + [[1, 0.5], [1, 1]]
  graph = graph_lib.from_lists(nodes, [[i, i + 1] for i in range(12)])
  actual = graph_lib.canonicalize(graph, contract_angle=5)
  assert_lists(actual, [[-1, 0], [1, 0], [1, 1]], [(0, 1), (1, 2)])


def test_the_input_is_not_changed():
  graph = random_graph(5)
  before = jax.tree.map(np.copy, graph)
  graph_lib.canonicalize(graph, merge_radius=0.5, contract_angle=170)
  graph_lib.binarize(graph, 0.3)
  chex.assert_trees_all_equal(graph, before)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('shape', [((), 0), ((0,), 4), ((2, 0), 3), (3, 5)])
def test_graphs_without_nodes_stay_as_they_are(xp, shape):
  graph = jax.tree.map(xp.asarray, graph_lib.empty(*shape))
  actual = graph_lib.canonicalize(graph, contract_angle=10)
  chex.assert_trees_all_equal(actual, graph)
  chex.assert_trees_all_equal_shapes_and_dtypes(actual, graph)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(threshold=1.5), r'threshold must be in \[0, 1\]; got 1.5'),
    (dict(threshold=float('nan')), 'threshold must be'),
    (dict(merge_radius=-0.1), 'merge_radius must be at least 0; got -0.1'),
    (dict(merge_radius=None), 'must be numbers'),
    (dict(contract_angle=-1), 'contract_angle must be at least 0'),
    (dict(contract_distance=0.1), 'contract_distance needs a contract_angle'),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    graph_lib.canonicalize(random_graph(0), **options)


@pytest.mark.parametrize('xp', [np, jnp])
def test_relabelling_moves_nodes_and_edges_together(xp):
  graph = jax.tree.map(xp.asarray, random_graph(0, batch=(2,), capacity=4))
  order = xp.asarray([2, 0, 3, 1])
  actual = graph_lib.relabel(graph, order)
  for new, old in enumerate([2, 0, 3, 1]):
    np.testing.assert_array_equal(actual.nodes[:, new], graph.nodes[:, old])
    np.testing.assert_array_equal(actual.node_prob[:, new], graph.node_prob[:, old])
    for new2, old2 in enumerate([2, 0, 3, 1]):
      np.testing.assert_array_equal(
        actual.edge_prob[:, new, new2], graph.edge_prob[:, old, old2]
      )
  chex.assert_trees_all_equal(graph_lib.relabel(actual, xp.argsort(order)), graph)


def test_every_graph_of_a_batch_may_have_its_own_permutation():
  graph = random_graph(1, batch=(2,), capacity=3)
  orders = np.array([[0, 1, 2], [2, 0, 1]])
  actual = jax.jit(graph_lib.relabel)(to_jax(graph), orders)
  for b in range(2):
    expected = graph_lib.relabel(jax.tree.map(lambda x, b=b: x[b], graph), orders[b])
    chex.assert_trees_all_equal(jax.tree.map(lambda x, b=b: x[b], actual), expected)


@pytest.mark.parametrize('order', [[0, 1], [0, 1, 1], [1, 2, 3], [[0, 1, 2]]])
def test_what_is_no_permutation_is_refused(order):
  with pytest.raises(ValueError, match='a permutation'):
    graph_lib.relabel(random_graph(0, capacity=3), np.array(order))


@pytest.mark.parametrize('xp', [np, jnp])
def test_padding_adds_absent_slots_and_takes_them_away(xp):
  graph = jax.tree.map(xp.asarray, random_graph(0, batch=(2,), capacity=3))
  padded = graph_lib.pad(graph, 5)
  assert padded.capacity == 5
  chex.assert_trees_all_equal_shapes(padded, graph_lib.empty(2, 5))
  assert not np.any(padded.node_prob[:, 3:]) and not np.any(padded.edge_prob[..., 3:])
  chex.assert_trees_all_equal(graph_lib.pad(padded, 3), graph)
  assert isinstance(padded.nodes, np.ndarray if xp is np else jax.Array)


def test_a_capacity_too_small_for_what_is_present_is_refused():
  graph = graph_lib.from_lists([[0, 0], [1, 1]], [[0, 1]], capacity=4)
  assert graph_lib.pad(graph, 2).capacity == 2
  with pytest.raises(ValueError, match='capacity of 1 would lose nodes: node 1'):
    graph_lib.pad(graph, 1)
  with pytest.raises(ValueError, match='must not be negative'):
    graph_lib.pad(graph, -1)
  with pytest.raises(ValueError, match='only shrink outside jit'):
    jax.jit(lambda graph: graph_lib.pad(graph, 2))(to_jax(graph))


@pytest.mark.parametrize('xp', [np, jnp])
def test_binarizing_decides_nodes_and_edges(xp):
  graph = graph_lib.from_lists(
    [[0, 0], [1, 0], [0, 1]],
    [[0, 1], [1, 2]],
    node_prob=[0.9, 0.6, 0.4],
    edge_prob=[0.7, 0.9],
  )
  actual = graph_lib.binarize(jax.tree.map(xp.asarray, graph))
  np.testing.assert_array_equal(actual.node_prob, [1, 1, 0])
  np.testing.assert_array_equal(actual.edge_prob, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
  np.testing.assert_array_equal(actual.nodes, graph.nodes)
  assert isinstance(actual.nodes, np.ndarray if xp is np else jax.Array)


@pytest.mark.parametrize('xp', [np, jnp])
@hypothesis.given(seed=SEEDS)
def test_lists_and_back_is_the_same_graph(xp, seed):
  binary = graph_lib.binarize(random_graph(seed, capacity=6), 0.3)
  nodes, edges = graph_lib.to_lists(jax.tree.map(xp.asarray, binary))
  assert nodes.dtype == np.float32 and edges.dtype == np.int32
  assert nodes.shape == (int(binary.node_prob.sum()), 2)
  assert (edges[:, 0] < edges[:, 1]).all()
  order = np.argsort(1 - binary.node_prob, kind='stable')
  expected = graph_lib.relabel(binary, order)
  expected.nodes[expected.node_prob == 0] = 0
  chex.assert_trees_all_equal(graph_lib.from_lists(nodes, edges, 6), expected)


def test_lists_of_an_empty_graph():
  nodes, edges = graph_lib.to_lists(graph_lib.from_lists([], [], 3))
  assert nodes.shape == (0, 2) and edges.shape == (0, 2)


def test_an_edge_given_twice_counts_once_with_its_larger_probability():
  graph = graph_lib.from_lists(
    [[0, 0], [1, 1]], [[0, 1], [1, 0], [0, 1]], edge_prob=[0.6, 0.9, 0.7]
  )
  np.testing.assert_allclose(graph.edge_prob, [[0, 0.9], [0.9, 0]], rtol=1e-6)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (([[0, 0, 0]], []), r'nodes must be \[n, 2\]'),
    (([[0, 0]], [[0, 0, 0]]), r'edges must be \[e, 2\]'),
    (([[0, 0]], [[0, 0.5]]), 'whole numbers'),
    (([[0, 0]], [[0, 1]]), 'must join nodes 0 to 0; got 0 to 1'),
    (([[0, 0]], [[-1, 0]]), 'must join nodes 0 to 0; got -1 to 0'),
    (([[0, 0]], [[0, 0]]), 'got a loop'),
    (([[0, 0], [1, 1]], [], 1), 'capacity of 1 cannot hold 2 nodes'),
  ],
)
def test_wrong_lists_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    graph_lib.from_lists(*arguments)


def test_probabilities_must_be_as_many_as_nodes_and_edges():
  with pytest.raises(ValueError, match='as many probabilities'):
    graph_lib.from_lists([[0, 0], [1, 1]], [[0, 1]], node_prob=[1.0])


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(nodes=np.zeros((4, 3))), r'nodes must be \[..., N, 2\].*\(4, 3\)'),
    (dict(nodes=[[0, 0]]), 'nodes must be a numpy or jax array; got a list'),
    (dict(node_prob=np.zeros(3)), r'node_prob must be \(4,\).*got \(3,\)'),
    (dict(edge_prob=np.zeros((4, 3))), r'edge_prob must be \(4, 4\).*got \(4, 3\)'),
  ],
)
def test_wrong_shapes_are_named(changes, message):
  graph = dataclasses.replace(graph_lib.empty((), 4), **changes)
  with pytest.raises(ValueError, match=message):
    graph_lib.check(graph)
  with pytest.raises(ValueError, match=message):
    graph_lib.canonicalize(graph)


def test_shapes_are_checked_while_tracing():
  graph = graph_lib.empty(2, 4)
  assert jax.eval_shape(graph_lib.check, graph).nodes.shape == (2, 4, 2)
  with pytest.raises(ValueError, match='to_lists takes one graph'):
    graph_lib.to_lists(graph)


@pytest.mark.parametrize('xp', [np, jnp])
def test_what_is_absent_is_dropped_even_where_it_is_no_number(xp):
  graph = graph_lib.Graph(
    xp.asarray([[np.nan, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    xp.asarray([0.0, 0.9, 0.8]),
    xp.asarray([[0, np.nan, 0], [np.nan, 0, 0.7], [0, 0.7, 0]]),
  )
  found = graph_lib.drop_absent(graph)
  chex.assert_tree_all_finite(found)
  chex.assert_trees_all_equal_shapes_and_dtypes(found, graph)


def test_what_is_absent_is_dropped_and_the_rest_stays_in_its_slot():
  graph = graph_lib.Graph(
    np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32),
    np.array([0.4, 0.9, 0.8], np.float32),
    np.array([[0, 0.9, 0.9], [0.9, 0, 0.7], [0.9, 0.7, 0]], np.float32),
  )
  found = graph_lib.drop_absent(graph, 0.5)
  np.testing.assert_array_equal(found.nodes[0], 0)
  np.testing.assert_array_equal(found.nodes[1:], graph.nodes[1:])
  np.testing.assert_array_equal(found.node_prob, np.array([0, 0.9, 0.8], np.float32))
  expected = np.zeros((3, 3), np.float32)
  expected[1, 2] = expected[2, 1] = 0.7
  np.testing.assert_array_equal(found.edge_prob, expected)
