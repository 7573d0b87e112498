"""Graph: the one graph type, its canonical form, and relabelling.

A graph has a fixed *capacity* of N nodes; what is absent has probability 0. Positions
are (x, y) in [-1, 1], see `img2graph.geometry`.
"""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
  """Undirected graphs with a capacity of N nodes; a pytree of numpy or jax arrays.

  Attributes:
    nodes: `[..., N, 2]` float, (x, y) in [-1, 1].
    node_prob: `[..., N]` float in [0, 1], probability that the node exists.
    edge_prob: `[..., N, N]` float in [0, 1], symmetric, zero diagonal: probability
      that the edge exists (not conditioned on its nodes).
  """

  nodes: Any
  node_prob: Any
  edge_prob: Any

  @property
  def capacity(self):
    """Number of node slots, N."""
    return self.nodes.shape[-2]
