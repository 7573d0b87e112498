"""Losses against true graphs: references, since labels are what they use.

Two ways to learn nodes. From proposals: a true node is the task of one proposal, either
the most probable of those near it, which is the one that selection keeps (`assign`), or
the one of the matching that costs least in all (`assign_hungarian`, as in set
prediction). The others near a true node are left alone, since suppression drops them;
all the rest should not exist. Probabilities are not reweighted, so that they come out
calibrated, as decoding expects them. From attention maps, as the baseline of Lu and
Dubbelman (section 4) does: the maps' sum is compared with a heat-map of the true nodes
(`heatmap_loss`), and the found nodes are matched with the true ones, to tell which of
their pairs have an edge (`match`, `adjacency_loss`).

Letters: B batch, C proposals, K node pairs, N nodes found, M nodes of the true graph.
Positions are (x, y) in [-1, 1]. In true graphs what has a probability above one half is
present; where the others lie does not matter.
"""

import jax
import jax.numpy as jnp
import optax

from img2graph import geometry

# Between two positions.
_FARTHEST = 8**0.5


def assign(logits, positions, truth, *, radius):
  """The proposal that each true node is the task of.

  Of the free proposals within `radius` the most probable, or else the nearest: the
  nearest alone would change from step to step, and none would become probable. Nodes
  with a probable proposal near them choose first. Nothing here has a gradient.

  Args:
    logits: `[B, C]` float.
    positions: `[B, C, 2]` float.
    truth: `Graph`, nodes `[B, M, 2]`, M <= C.
    radius: in coordinate units.

  Returns:
    `[B, M]` int32, each proposal at most once among the present nodes; that of an
    absent node means nothing.
  """
  if truth.capacity > logits.shape[1]:
    raise ValueError(
      f'{logits.shape[1]} proposals cannot stand for {truth.capacity} nodes.'
    )
  logits, positions = jax.lax.stop_gradient((logits, positions))
  apart = _distance_sq(positions, truth.nodes)  # [B, C, M]
  prob = jax.nn.sigmoid(logits)[..., None]
  cost = jnp.where(apart <= radius**2, -prob, apart)
  present = truth.node_prob > 0.5
  order = jnp.argsort(jnp.where(present, cost.min(axis=1), jnp.inf), axis=-1)

  def choose(free, node):
    costs = jnp.take_along_axis(cost, node[:, None, None], axis=2)[..., 0]
    best = jnp.argmin(jnp.where(free, costs, jnp.inf), axis=-1)  # [B]
    return free & (jnp.arange(free.shape[1])[None] != best[:, None]), best

  free = jnp.ones(logits.shape, bool)
  _, chosen = jax.lax.scan(choose, free, order.T)
  back = jnp.argsort(order, axis=-1)
  return jnp.take_along_axis(chosen.T, back, axis=-1).astype(jnp.int32)


def assign_hungarian(logits, positions, truth, *, distance_weight):
  """As `assign`, but the assignment of all true nodes that costs least in all.

  A proposal costs a node their distance along x and y times `distance_weight`, less
  the proposal's probability, as in Carion et al., "End-to-End Object Detection with
  Transformers" (2020), section 3.1.
  """
  if truth.capacity > logits.shape[1]:
    raise ValueError(
      f'{logits.shape[1]} proposals cannot stand for {truth.capacity} nodes.'
    )
  logits, positions = jax.lax.stop_gradient((logits, positions))
  apart = jnp.abs(truth.nodes[:, :, None] - positions[:, None]).sum(-1)  # [B, M, C]
  cost = distance_weight * apart - jax.nn.sigmoid(logits)[:, None]
  return _hungarian(jnp.where((truth.node_prob > 0.5)[..., None], cost, 0))


def _hungarian(cost):
  """The column of each row in the cheapest matching: `[B, R, C]` to `[B, R]`.

  -1 for rows that are left over, if R > C.
  """

  def one(cost):
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.full(cost.shape[0], -1, jnp.int32).at[rows].set(columns)

  return jax.vmap(one)(cost)


def proposal_loss(logits, positions, truth, *, chosen, radius):
  """Whether the proposals say which nodes exist, and where.

  Args:
    logits: `[B, C]` float, of the existence of each proposal.
    positions: `[B, C, 2]` float.
    truth: `Graph`, nodes `[B, M, 2]`.
    chosen: `[B, M]`, the proposal of each true node, see `assign`.
    radius: what is near, in coordinate units; that within which selection keeps one
      proposal only.

  Returns:
    (existence, position): cross entropy of all proposals, and distance along x and y
    of every true node from its proposal, both `[]` float >= 0, per true node of the
    batch.
  """
  present = truth.node_prob > 0.5
  slots = jnp.arange(logits.shape[1])[None, :, None]
  is_task = ((slots == chosen[:, None]) & present[:, None]).any(axis=-1)  # [B, C]
  apart = _distance_sq(jax.lax.stop_gradient(positions), truth.nodes)
  near = ((apart <= radius**2) & present[:, None]).any(axis=-1)
  entropy = optax.sigmoid_binary_cross_entropy(logits, is_task.astype(logits.dtype))
  count = jnp.maximum(present.sum(), 1)
  existence = jnp.where(is_task | ~near, entropy, 0).sum() / count
  found = jnp.take_along_axis(positions, chosen[..., None], axis=1)  # [B, M, 2]
  # Zeroed before the norm: an absent node may lie anywhere, even at NaN.
  offset = jnp.where(present[..., None], found - truth.nodes, 0)
  return existence, jnp.abs(offset).sum() / count


def link_loss(start, end, link_logits, truth, *, radius):
  """Cross entropy of the edges between proposals that stand for true nodes.

  Args:
    start: `[B, K, 2]` float, the first node of each pair.
    end: `[B, K, 2]` float, the second node.
    link_logits: `[B, K]` float, of the edge given both nodes.
    truth: `Graph`, edges `[B, M, M]`.
    radius: how near a node must be to stand for the nearest true node, in coordinate
      units. Pairs without two different true nodes do not count.

  Returns:
    `[]` float >= 0, the mean over the pairs that count; 0 if there is none.
  """
  first, first_found = _nearest(start, truth, radius)
  second, second_found = _nearest(end, truth, radius)
  counts = first_found & second_found & (first != second)
  rows = jnp.take_along_axis(truth.edge_prob, first[..., None], axis=1)  # [B, K, M]
  joined = jnp.take_along_axis(rows, second[..., None], axis=2)[..., 0] > 0.5
  entropy = _entropy(link_logits, joined)
  return jnp.where(counts, entropy, 0).sum() / jnp.maximum(counts.sum(), 1)


def heatmap(truth, *, height, width, sigma):
  """The heat-map of true nodes: a Gaussian of height 1 at each, the largest of them.

  Args:
    truth: `Graph`, nodes `[B, M, 2]`.
    height: of the map, in cells.
    width: of the map, in cells.
    sigma: standard deviation of the Gaussians, in cells along x.

  Returns:
    `[B, height, width]` float32 in [0, 1].
  """
  grid = jnp.asarray(geometry.pixel_centres(height, width)).reshape(1, -1, 2)
  grid = jnp.broadcast_to(grid, (truth.nodes.shape[0], *grid.shape[1:]))
  cells = _distance_sq(grid, truth.nodes) * (width / 2) ** 2
  present = (truth.node_prob > 0.5)[:, None]
  bumps = jnp.where(present, jnp.exp(-cells / (2 * sigma**2)), 0)
  return bumps.max(axis=-1).reshape(-1, height, width)


def heatmap_loss(attention, truth, *, sigma):
  """Mean squared error of the summed attention maps against the `heatmap`.

  Lu and Dubbelman, section 4: the maps may have any order, so their sum is compared.

  Args:
    attention: `[B, h, w, N]` float in [0, 1], each map with maximum 1.
    truth: `Graph`, nodes `[B, M, 2]`.
    sigma: standard deviation of the Gaussians, in cells.

  Returns:
    `[]` float32 >= 0.
  """
  height, width = attention.shape[1:3]
  wanted = heatmap(truth, height=height, width=width, sigma=sigma)
  return ((attention.sum(-1) - wanted) ** 2).mean()


def match(positions, truth):
  """The true node that each found node stands for; the least summed distance of all.

  Args:
    positions: `[B, N, 2]` float, of the found nodes.
    truth: `Graph`, nodes `[B, M, 2]`.

  Returns:
    `[B, N]` int32, -1 for a found node that is left over. No gradient.
  """
  positions = jax.lax.stop_gradient(positions)
  present = truth.node_prob > 0.5
  cost = jnp.sqrt(_distance_sq(truth.nodes, positions))  # [B, M, N]
  # What is matched with an absent node is left over, and present ones come first.
  found = _hungarian(jnp.where(present[..., None], cost, 2 * _FARTHEST))  # [B, M]
  slots = jnp.arange(positions.shape[1])
  stands = (found[:, None] == slots[None, :, None]) & present[:, None]  # [B, N, M]
  return jnp.where(stands.any(-1), stands.argmax(-1), -1).astype(jnp.int32)


def adjacency_loss(matched, link_logits, truth):
  """Cross entropy of all node pairs, the true edges being those of the matched nodes.

  Args:
    matched: `[B, N]` int32, see `match`.
    link_logits: `[B, K]` float, of all node pairs (`geometry.node_pairs`).
    truth: `Graph`, edges `[B, M, M]`.

  Returns:
    `[]` float >= 0, the mean over pairs.
  """
  i, j = geometry.node_pairs(matched.shape[1])
  first, second = matched[:, i], matched[:, j]
  rows = jnp.take_along_axis(truth.edge_prob, first[..., None], axis=1)  # [B, K, M]
  joined = jnp.take_along_axis(rows, second[..., None], axis=2)[..., 0] > 0.5
  joined &= (first >= 0) & (second >= 0)
  return _entropy(link_logits, joined).mean()


def _entropy(logits, is_true):
  # Of logits: a probability that is exactly 0 or 1 has no gradient any more, however
  # wrong it is.
  return jax.nn.softplus(jnp.where(is_true, -logits, logits))


def _nearest(points, truth, radius):
  """The nearest true node of points `[B, K, 2]`, and whether it is within `radius`."""
  apart = _distance_sq(jax.lax.stop_gradient(points), truth.nodes)
  apart = jnp.where((truth.node_prob > 0.5)[:, None], apart, jnp.inf)
  return jnp.argmin(apart, axis=-1), apart.min(axis=-1) <= radius**2


def _distance_sq(points, nodes):
  """Squared distances of `[B, K, 2]` and `[B, M, 2]`: `[B, K, M]`."""
  x = points[..., None, 0] - nodes[:, None, :, 0]
  y = points[..., None, 1] - nodes[:, None, :, 1]
  return x**2 + y**2
