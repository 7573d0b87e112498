"""What a graph costs: ink, edges and nodes. Among equal drawings the smallest wins."""

import jax.numpy as jnp


def graph_cost(start, end, weight, node_prob, *, length, edge, node):
  """Cost of each graph.

  Args:
    start: `[B, E, 2]` float in [-1, 1].
    end: `[B, E, 2]` float in [-1, 1].
    weight: `[B, E]` float in [0, 1], how much of each edge is drawn.
    node_prob: `[B, N]` float in [0, 1].
    length: cost of an edge that is as long as the image is wide.
    edge: cost of an edge of any length.
    node: cost of a node.

  Returns:
    `[B]` float >= 0.
  """
  # The floor keeps the gradient finite for an edge of no length.
  lengths = jnp.sqrt(((start - end) ** 2).sum(-1) + 1e-12) / 2
  return (weight * (length * lengths + edge)).sum(-1) + node * node_prob.sum(-1)


def ramp(progress, *, start, end):
  """0 until `start`, 1 from `end`, linear between; progress is in [0, 1]."""
  return jnp.clip((progress - start) / max(end - start, 1e-6), 0, 1)
