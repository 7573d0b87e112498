"""Tests of img2graph/losses/supervised.py."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph import geometry
from img2graph import graph as graphs
from img2graph.losses import supervised

RADIUS = 0.1
_NODES = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (0.0, 0.0)]
_EDGES = [(0, 1), (1, 2), (2, 3)]


def _truth(capacity=6):
  """Two graphs: a chain of four nodes, and an empty one."""
  chain = graphs.from_lists(np.array(_NODES), np.array(_EDGES), capacity=capacity)
  return jax.tree.map(lambda a, b: np.stack([a, b]), chain, graphs.empty((), capacity))


def _proposals(side=8):
  """Logits and positions of a grid of proposals that tells the chain exactly."""
  positions = geometry.pixel_centres(side, side).reshape(-1, 2)
  positions = np.stack([positions, positions])
  logits = np.full(positions.shape[:2], -20.0, np.float32)
  for node in _NODES:
    nearest = np.argmin(((positions[0] - node) ** 2).sum(-1))
    positions[0, nearest] = node
    logits[0, nearest] = 20
  return logits, positions


def _links():
  """Ends and probabilities of all pairs of the chain's nodes, as they truly are."""
  i, j = geometry.node_pairs(len(_NODES))
  nodes = np.array([_NODES, _NODES], np.float32)
  prob = np.array([(a, b) in _EDGES for a, b in zip(i, j, strict=True)], np.float32)
  return nodes[:, i], nodes[:, j], np.stack([prob, prob])


@jax.jit
def proposal_loss(logits, positions, truth):
  chosen = supervised.assign(logits, positions, truth, radius=RADIUS)
  return supervised.proposal_loss(
    logits, positions, truth, chosen=chosen, radius=RADIUS
  )


@jax.jit
def link_loss(start, end, prob, truth):
  return supervised.link_loss(start, end, _logit(prob), truth, radius=RADIUS)


def _logit(prob):
  """Logits of probabilities, +-20 of those that are exactly 0 or 1."""
  return jnp.clip(jnp.log(prob) - jnp.log1p(-prob), -20, 20)


def test_what_is_right_costs_nothing():
  exists, away = proposal_loss(*_proposals(), _truth())
  assert 0 <= exists < 1e-4
  assert away < 1e-6
  assert 0 <= link_loss(*_links(), _truth()) < 1e-4


def test_a_missing_or_surplus_node_costs_its_cross_entropy():
  logits, positions = _proposals()
  (present,) = np.nonzero(logits[0] > 0)
  for place, wrong in ((present[1], -3.0), (0, 3.0)):
    changed = logits.copy()
    changed[0, place] = wrong
    exists, _ = proposal_loss(changed, positions, _truth())
    # One wrong of four true nodes.
    np.testing.assert_allclose(exists, np.log1p(np.exp(3)) / 4, rtol=1e-4)
  changed = logits.copy()
  changed[1, 5] = 3  # In the image without a graph.
  exists, _ = proposal_loss(changed, positions, _truth())
  np.testing.assert_allclose(exists, np.log1p(np.exp(3)) / 4, rtol=1e-4)


def test_a_node_beside_its_place_costs_the_distance():
  logits, positions = _proposals()
  (present,) = np.nonzero(logits[0] > 0)
  positions[0, present[2]] += (0.04, -0.02)
  exists, away = proposal_loss(logits, positions, _truth())
  np.testing.assert_allclose(away, 0.06 / 4, rtol=1e-4)
  assert exists < 1e-4


def test_a_second_proposal_near_a_node_may_be_anything():
  logits, positions = _proposals()
  (present,) = np.nonzero(logits[0] > 0)
  positions[0, 0] = positions[0, present[0]] + 0.5 * RADIUS
  logits[0, 0] = 4  # Less probable than the node's own.
  assert proposal_loss(logits, positions, _truth())[0] < 1e-4
  positions[0, 0] = positions[0, present[0]] + 1.5 * RADIUS
  assert proposal_loss(logits, positions, _truth())[0] > 0.5


def test_a_wrong_edge_costs_its_cross_entropy():
  start, end, prob = _links()
  for pair in (0, 1):  # Nodes 0 and 1 are joined, 0 and 2 are not.
    changed = prob.copy()
    changed[0, pair] = np.abs(prob[0, pair] - 0.9)
    # One of the six pairs of the first graph; the second has none.
    expected = -np.log(0.1) / 6
    np.testing.assert_allclose(
      link_loss(start, end, changed, _truth()), expected, rtol=1e-3
    )


def test_pairs_without_two_true_nodes_do_not_count():
  start, end, prob = _links()
  end = end.copy()
  end[0, 0] += 1.5 * RADIUS  # Stands for no node.
  end[0, 1] = start[0, 1] + 0.5 * RADIUS  # Both stand for the same node.
  prob[0, :2] = 0.5
  assert link_loss(start, end, prob, _truth()) < 1e-4
  prob[0, 2] = 0.5
  np.testing.assert_allclose(
    link_loss(start, end, prob, _truth()), np.log(2) / 4, rtol=1e-3
  )


def test_nodes_choose_the_most_probable_near_or_else_the_nearest():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 40)).astype(np.float32)
  positions = rng.uniform(-1, 1, (3, 40, 2)).astype(np.float32)
  # Crowded, so that several nodes would choose the same.
  nodes = rng.uniform(-0.3, 0.3, (3, 8, 2)).astype(np.float32)
  present = (np.arange(8) < np.array([[8], [5], [0]])).astype(np.float32)
  truth = graphs.Graph(nodes, present, np.zeros((3, 8, 8), np.float32))
  choose = jax.jit(functools.partial(supervised.assign, radius=0.2))
  actual = np.asarray(choose(logits, positions, truth))
  crowded, kinds = False, set()
  for b, count in enumerate((8, 5, 0)):
    distance = np.linalg.norm(positions[b, :, None] - nodes[b, None], axis=-1)
    best_first = np.lexsort((distance.ravel(), *_rank(distance, logits[b])))
    wishes = {}
    for place in best_first:
      proposal, node = divmod(place, 8)
      if node < count:
        wishes.setdefault(node, []).append(proposal)
    crowded |= len({wish[0] for wish in wishes.values()}) < len(wishes)
    taken = set()
    for node, wish in wishes.items():  # In the order of their first wish.
      chosen = next(proposal for proposal in wish if proposal not in taken)
      taken.add(chosen)
      kinds.add(distance[chosen, node] <= 0.2)
      assert actual[b, node] == chosen
  assert crowded and kinds == {True, False}


def _rank(distance, logits):
  """Keys for `lexsort`, the last first: near or not; of the near, the logit."""
  near = distance <= 0.2
  return np.where(near, -logits[:, None], 0).ravel(), ~near.ravel()


def _all(logits, positions, start, end, link_logits, truth):
  exists, away = proposal_loss(logits, positions, truth)
  linked = supervised.link_loss(start, end, link_logits, truth, radius=RADIUS)
  return exists, away, linked


def _rough():
  """An encoder that is wrong in everything a bit."""
  rng = np.random.default_rng(1)
  logits, positions = _proposals()
  start, end, prob = _links()
  logits = logits / 10 + rng.normal(size=logits.shape).astype(np.float32)
  positions = positions + 0.02 * rng.normal(size=positions.shape).astype(np.float32)
  return logits, positions, start, end, np.array(_logit(0.8 * prob + 0.1))


def test_neither_padding_nor_numbering_matters():
  expected = _all(*_rough(), _truth())
  padded = _truth(9)
  for place in (np.nan, 0.875):  # Wherever absent nodes may lie, also on a proposal.
    padded.nodes[:, 4:] = place
    np.testing.assert_allclose(_all(*_rough(), padded), expected, rtol=1e-5)
  order = np.array([5, 2, 0, 3, 1, 4])
  relabelled = graphs.relabel(_truth(), order)
  np.testing.assert_allclose(_all(*_rough(), relabelled), expected, rtol=1e-5)


@pytest.mark.parametrize('count', [0, 4])
def test_gradients_are_finite_and_reach_far_nodes(count):
  truth = _truth()
  truth.node_prob[0, count:] = 0
  logits, positions, start, end, links = _rough()
  # As probabilities exactly 0 and 1, and wrong of the first two.
  links[:, :3] = (-200, 30, -30)
  logits[:] = -4  # No proposal believes in a node.

  @jax.jit
  def gradients(logits, positions, links):
    def total(logits, positions, links):
      return sum(_all(logits, positions, start, end, links, truth))

    return jax.grad(total, argnums=(0, 1, 2))(logits, positions, links)

  by_logit, by_position, by_link = gradients(logits, positions, jnp.asarray(links))
  for gradient in (by_logit, by_position, by_link):
    assert np.isfinite(gradient).all()
  assert (by_logit[1] > 0).all()  # Nothing there: all proposals are to vanish.
  assert (by_logit[0] < 0).sum() == count
  assert (by_position[0] != 0).any(axis=-1).sum() == count


@pytest.mark.parametrize('logit', [0.5, 14.0, 17.0, 40.0, 200.0])
def test_an_edge_however_surely_wrong_learns(logit):
  start, end, prob = _links()
  wrong = np.where(prob > 0, -logit, logit).astype(np.float32)
  value, slope = jax.value_and_grad(supervised.link_loss, argnums=2)(
    start, end, jnp.asarray(wrong), _truth(), radius=RADIUS
  )
  assert value == pytest.approx(np.log1p(np.exp(-logit)) + logit, rel=1e-6)
  # All pairs of the first graph count alike; the second has none.
  expected = np.sign(wrong[0]) / (1 + np.exp(-logit)) / 6
  np.testing.assert_allclose(slope[0], expected, rtol=1e-5)
  matched = np.broadcast_to(np.arange(4), (2, 4))
  slope = jax.grad(supervised.adjacency_loss, argnums=1)(matched, wrong, _truth())
  np.testing.assert_allclose(slope[0], expected / 2, rtol=1e-5)


def test_fewer_proposals_than_nodes_are_refused():
  with pytest.raises(ValueError, match='5 proposals cannot stand for 6 nodes'):
    logits, positions = np.zeros((2, 5), np.float32), np.zeros((2, 5, 2), np.float32)
    supervised.assign(logits, positions, _truth(), radius=RADIUS)


def _scattered(seed, count, others):
  """Three random graphs of at most `count` nodes, and as many sets of other nodes."""
  rng = np.random.default_rng(seed)
  nodes = rng.uniform(-1, 1, (3, count, 2)).astype(np.float32)
  present = rng.random((3, count)) < np.array([[0.4], [0.8], [1.1]])
  nodes[~present] = np.nan  # Wherever absent nodes may lie.
  edges = np.triu(rng.random((3, count, count)) < 0.5, 1)
  edges = edges & present[:, None] & present[..., None]
  edges = (edges | edges.swapaxes(1, 2)).astype(np.float32)
  truth = graphs.Graph(nodes, present.astype(np.float32), edges)
  return truth, rng.uniform(-1, 1, (3, others, 2)).astype(np.float32)


def _cheapest(cost):
  """Of `[n, m]`, the cheapest choice of columns for the rows, by brute force."""
  rows, columns = cost.shape
  if rows > columns:
    best = _cheapest(cost.T)
    return np.array([best.tolist().index(r) if r in best else -1 for r in range(rows)])
  ways = itertools.permutations(range(columns), rows)
  return np.array(min(ways, key=lambda way: cost[np.arange(rows), list(way)].sum()))


@pytest.mark.parametrize('count, others', [(4, 4), (3, 6), (6, 4)])
def test_found_nodes_are_matched_as_brute_force_does(count, others):
  truth, positions = _scattered(count, count, others)
  actual = np.asarray(jax.jit(supervised.match)(positions, truth))
  assert actual.shape == (3, others)
  for b in range(3):
    (present,) = np.nonzero(truth.node_prob[b])
    apart = np.linalg.norm(positions[b][:, None] - truth.nodes[b, present], axis=-1)
    expected = np.full(others, -1)
    for node, found in zip(present, _cheapest(apart.T), strict=True):
      if found >= 0:
        expected[found] = node
    assert actual[b].tolist() == expected.tolist()


def test_proposals_are_assigned_as_brute_force_does():
  truth, positions = _scattered(7, 4, 7)
  logits = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
  choose = functools.partial(supervised.assign_hungarian, distance_weight=0.7)
  actual = np.asarray(jax.jit(choose)(logits, positions, truth))
  for b in range(3):
    (present,) = np.nonzero(truth.node_prob[b])
    apart = np.abs(truth.nodes[b, present][:, None] - positions[b]).sum(-1)
    cost = 0.7 * apart - 1 / (1 + np.exp(-logits[b]))
    assert actual[b, present].tolist() == _cheapest(cost).tolist()
  with pytest.raises(ValueError, match='3 proposals cannot stand for 4 nodes'):
    choose(logits[:, :3], positions[:, :3], truth)


def test_the_heat_map_has_a_gaussian_at_each_node():
  truth, _ = _scattered(3, 4, 1)
  actual = supervised.heatmap(truth, height=6, width=8, sigma=1.5)
  assert actual.shape == (3, 6, 8)
  for b, row, column in itertools.product(range(3), range(6), range(8)):
    place = np.array([2 * (column + 0.5) / 8 - 1, 2 * (row + 0.5) / 6 - 1])
    nodes = truth.nodes[b][truth.node_prob[b] > 0.5]
    cells = np.linalg.norm(nodes - place, axis=-1) * 4  # 8 cells are 2 wide.
    expected = np.exp(-(cells**2) / (2 * 1.5**2)).max(initial=0)
    np.testing.assert_allclose(actual[b, row, column], expected, rtol=1e-4, atol=1e-7)


def test_attention_is_compared_by_its_sum():
  truth, _ = _scattered(4, 4, 1)
  rng = np.random.default_rng(5)
  attention = rng.random((3, 6, 8, 4)).astype(np.float32)
  wanted = np.asarray(supervised.heatmap(truth, height=6, width=8, sigma=1.0))
  actual = supervised.heatmap_loss(attention, truth, sigma=1.0)
  expected = np.mean((attention.sum(-1) - wanted) ** 2)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  shuffled = attention[..., [2, 0, 3, 1]]
  actual = supervised.heatmap_loss(shuffled, truth, sigma=1.0)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_adjacency_of_matched_nodes_is_compared_pair_by_pair():
  truth, positions = _scattered(8, 4, 4)
  truth.node_prob[0, 2] = 0
  matched = np.asarray(supervised.match(positions, truth))
  assert (matched < 0).any()  # Some found node is left over.
  i, j = geometry.node_pairs(4)
  prob = np.random.default_rng(6).uniform(0.1, 0.9, (3, 6)).astype(np.float32)
  terms = []
  for b, k in itertools.product(range(3), range(6)):
    first, second = matched[b, i[k]], matched[b, j[k]]
    joined = min(first, second) >= 0 and truth.edge_prob[b, first, second] > 0.5
    terms.append(-np.log(prob[b, k] if joined else 1 - prob[b, k]))
  actual = supervised.adjacency_loss(matched, _logit(prob), truth)
  np.testing.assert_allclose(actual, np.mean(terms), rtol=1e-5)
