"""Losses against true graphs: the upper reference, since labels are what they use.

A true node is the task of one proposal: of those near it the most probable, which is
the one that selection keeps, or the nearest where none is near. The others near a true
node are left alone, since suppression drops them; all the rest should not exist.
Probabilities are not reweighted, so that they come out calibrated, as decoding expects
them.

Letters: B batch, C proposals, P node pairs, N nodes of the true graph. Positions are
(x, y) in [-1, 1]. In true graphs what has a probability above one half is present;
where the others lie does not matter.
"""

import jax
import jax.numpy as jnp
import optax

EPS = 1e-6


def assign(logits, positions, truth, *, radius):
  """The proposal that each true node is the task of.

  Of the free proposals within `radius` the most probable, or else the nearest: the
  nearest alone would change from step to step, and none would become probable. Nodes
  with a probable proposal near them choose first. Nothing here has a gradient.

  Args:
    logits: `[B, C]` float.
    positions: `[B, C, 2]` float.
    truth: `Graph`, nodes `[B, N, 2]`, N <= C.
    radius: in coordinate units.

  Returns:
    `[B, N]` int32, each proposal at most once among the present nodes; that of an
    absent node means nothing.
  """
  if truth.capacity > logits.shape[1]:
    raise ValueError(
      f'{logits.shape[1]} proposals cannot stand for {truth.capacity} nodes.'
    )
  logits, positions = jax.lax.stop_gradient((logits, positions))
  apart = _distance_sq(positions, truth.nodes)  # [B, C, N]
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


def proposal_loss(logits, positions, truth, *, radius):
  """Whether the proposals say which nodes exist, and where.

  Args:
    logits: `[B, C]` float, of the existence of each proposal.
    positions: `[B, C, 2]` float.
    truth: `Graph`, nodes `[B, N, 2]`.
    radius: what is near, in coordinate units; that within which selection keeps one
      proposal only.

  Returns:
    (existence, position): cross entropy of all proposals, and distance along x and y
    of every true node from its proposal, both `[]` float >= 0, per true node of the
    batch.
  """
  present = truth.node_prob > 0.5
  chosen = assign(logits, positions, truth, radius=radius)
  slots = jnp.arange(logits.shape[1])[None, :, None]
  is_task = ((slots == chosen[:, None]) & present[:, None]).any(axis=-1)  # [B, C]
  apart = _distance_sq(jax.lax.stop_gradient(positions), truth.nodes)
  near = ((apart <= radius**2) & present[:, None]).any(axis=-1)
  entropy = optax.sigmoid_binary_cross_entropy(logits, is_task.astype(logits.dtype))
  count = jnp.maximum(present.sum(), 1)
  existence = jnp.where(is_task | ~near, entropy, 0).sum() / count
  found = jnp.take_along_axis(positions, chosen[..., None], axis=1)  # [B, N, 2]
  # Zeroed before the norm: an absent node may lie anywhere, even at NaN.
  offset = jnp.where(present[..., None], found - truth.nodes, 0)
  return existence, jnp.abs(offset).sum() / count


def link_loss(start, end, link_prob, truth, *, radius):
  """Cross entropy of the edges between proposals that stand for true nodes.

  Args:
    start: `[B, P, 2]` float, the first node of each pair.
    end: `[B, P, 2]` float, the second node.
    link_prob: `[B, P]` float in [0, 1], of the edge given both nodes.
    truth: `Graph`, edges `[B, N, N]`.
    radius: how near a node must be to stand for the nearest true node, in coordinate
      units. Pairs without two different true nodes do not count.

  Returns:
    `[]` float >= 0, the mean over the pairs that count; 0 if there is none.
  """
  first, first_found = _nearest(start, truth, radius)
  second, second_found = _nearest(end, truth, radius)
  counts = first_found & second_found & (first != second)
  rows = jnp.take_along_axis(truth.edge_prob, first[..., None], axis=1)  # [B, P, N]
  joined = jnp.take_along_axis(rows, second[..., None], axis=2)[..., 0] > 0.5
  # The floor keeps the gradient finite where a probability is exactly 0 or 1.
  right = jnp.where(joined, link_prob, 1 - link_prob)
  entropy = -jnp.log(jnp.maximum(right, EPS))
  return jnp.where(counts, entropy, 0).sum() / jnp.maximum(counts.sum(), 1)


def _nearest(points, truth, radius):
  """The nearest true node of points `[B, P, 2]`, and whether it is within `radius`."""
  apart = _distance_sq(jax.lax.stop_gradient(points), truth.nodes)
  apart = jnp.where((truth.node_prob > 0.5)[:, None], apart, jnp.inf)
  return jnp.argmin(apart, axis=-1), apart.min(axis=-1) <= radius**2


def _distance_sq(points, nodes):
  """Squared distances of `[B, P, 2]` and `[B, N, 2]`: `[B, P, N]`."""
  x = points[..., None, 0] - nodes[:, None, :, 0]
  y = points[..., None, 1] - nodes[:, None, :, 1]
  return x**2 + y**2
