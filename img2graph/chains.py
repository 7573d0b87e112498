"""Graphs as chains: who is next to whom, and bends that a straight chord may replace.

numpy; a graph is then its nodes `[N, 2]`, their probabilities `[N]`, `{node: set of
neighbours}` and `{(i, j): probability}` with i < j, which steps change in place.
"""

import numpy as np

from img2graph import graph as graphs


def adjacency(graph):
  """Nodes, their probabilities, who is next to whom, and the probability of each pair.

  What has a probability above 0 is there.
  """
  nodes = np.asarray(graph.nodes, np.float64)
  prob = np.asarray(graph.node_prob)
  neighbours = {int(k): set() for k in np.flatnonzero(prob > 0)}
  matrix = np.asarray(graph.edge_prob)
  edge_prob = {}
  for a, b in np.argwhere(np.triu(matrix, 1) > 0).tolist():
    neighbours[a].add(b)
    neighbours[b].add(a)
    edge_prob[a, b] = float(matrix[a, b])
  return nodes, prob, neighbours, edge_prob


def from_adjacency(nodes, prob, neighbours, edge_prob):
  """The `Graph` of what `adjacency` gives; nodes without an edge are left out."""
  kept = sorted(k for k in neighbours if neighbours[k])
  number = {k: n for n, k in enumerate(kept)}
  pairs = sorted((a, b) for a in kept for b in neighbours[a] if a < b)
  edges = np.array([(number[a], number[b]) for a, b in pairs], int).reshape(-1, 2)
  return from_parts(nodes[kept], prob[kept], edges, [edge_prob[p] for p in pairs])


def from_parts(nodes, node_prob, edges, edge_prob):
  """`Graph` of N nodes from `[N, 2]`, `[N]`, `[E, 2]` and `[E]`."""
  return graphs.from_lists(
    np.asarray(nodes, np.float32),
    np.asarray(edges, np.int32),
    node_prob=np.asarray(node_prob, np.float32),
    edge_prob=np.asarray(edge_prob, np.float32),
  )


def pair(a, b):
  """Two nodes, the lesser first."""
  return (a, b) if a < b else (b, a)


def distance(points, first, last):
  """Distance of points `[P, 2]` from segments `[M, 2]` each: `[M, P]`."""
  # Axis by axis: arrays of pairs would take twice the time.
  edge_x, edge_y = (last - first).T[..., None]
  x, y = points.T[:, None] - first.T[..., None]
  squared = np.maximum(edge_x**2 + edge_y**2, points.dtype.type(1e-12))
  along = np.clip((x * edge_x + y * edge_y) / squared, 0, 1)
  x -= along * edge_x
  y -= along * edge_y
  return np.sqrt(x * x + y * y)


def simplify(graph, tolerance, most_turn=40.0):
  """Straightens chains: drops bends that lie near the chord between their neighbours.

  Args:
    graph: `Graph` without batch axes.
    tolerance: farthest that a node which is dropped, now or before, may lie from the
      chord that stands for it.
    most_turn: degrees; a sharper bend is a corner, however small.

  Returns:
    `Graph` of numpy arrays whose capacity is its number of nodes. A chord is as
    probable as the least probable edge it stands for. Nodes where not two edges meet
    stay, and so do the last three of a ring.
  """
  nodes, prob, neighbours, edge_prob = adjacency(graph)
  straighten(nodes, neighbours, edge_prob, tolerance, most_turn)
  return from_adjacency(nodes, prob, neighbours, edge_prob)


def straighten(nodes, neighbours, edge_prob, tolerance, most_turn=40.0):
  """As `simplify`, in place and for a graph of any size.

  Args:
    nodes: `[N, 2]`.
    neighbours: {node: set of nodes}.
    edge_prob: {(i, j): probability}, i < j.
    tolerance: see `simplify`, as the next.
    most_turn: degrees.
  """
  dropped = {}  # {(a, b): positions that the chord stands for}
  straight = np.cos(np.deg2rad(most_turn))

  def bend(k):
    """Deviation of the chord past node k, or None if k must stay."""
    if len(neighbours[k]) != 2:
      return None
    a, b = sorted(neighbours[k])
    if b in neighbours[a]:
      return None
    before, after = nodes[k] - nodes[a], nodes[b] - nodes[k]
    lengths = np.linalg.norm(before) * np.linalg.norm(after)
    if before @ after < straight * lengths:
      return None
    stands_for = [
      nodes[k],
      *dropped.get(pair(a, k), []),
      *dropped.get(pair(k, b), []),
    ]
    away = distance(np.array(stands_for), nodes[a][None], nodes[b][None]).max()
    return away if away <= tolerance else None

  bends = {k: away for k in neighbours if (away := bend(k)) is not None}
  while bends:
    k = min(bends, key=lambda k: (bends[k], k))
    del bends[k]
    a, b = sorted(neighbours.pop(k))
    pairs = pair(a, k), pair(k, b)
    dropped[pair(a, b)] = [nodes[k]] + sum((dropped.pop(p, []) for p in pairs), [])
    edge_prob[pair(a, b)] = min(edge_prob.pop(p) for p in pairs)
    neighbours[a] = neighbours[a] - {k} | {b}
    neighbours[b] = neighbours[b] - {k} | {a}
    # Only here has anything changed.
    for near in {a, b} | neighbours[a] & neighbours[b]:
      bends.pop(near, None)
      if (away := bend(near)) is not None:
        bends[near] = away
