"""Planar graphs: a node wherever edges meet.

A long stroke that another one crosses or touches is often found as one edge, since one
edge costs less than two. Where drawings mean a planar graph (roads, letters, plans) the
crossing and the joint are nodes.
"""

import numpy as np

from img2graph import geometry
from img2graph import graph as graphs


def planarize(graph, *, tolerance=0.06, threshold=0.5):
  """Puts a node on every crossing and joins edges to the nodes that lie on them.

  Args:
    graph: `Graph` without batch axes, numpy or jax.
    tolerance: distance in [-1, 1] units within which a node lies on an edge; nodes
      nearer than this to an edge's end do not split it.
    threshold: what is not more probable than this is left out.

  Returns:
    `Graph` of numpy arrays whose capacity is its number of nodes. A node on a crossing
    is as probable as the less probable of the two edges; the parts of an edge are as
    probable as the edge was.
  """
  if not tolerance > 0:
    raise ValueError(f'tolerance must be positive; got {tolerance}.')
  binary = graphs.binarize(graph, threshold)
  nodes, edges = graphs.to_lists(binary, 0)
  kept = np.flatnonzero(np.asarray(binary.node_prob) > 0)
  node_prob = np.asarray(graph.node_prob)[kept].astype(np.float64)
  ends = kept[edges]  # [E, 2] in the graph's own numbers.
  edge_prob = np.asarray(graph.edge_prob)[ends[:, 0], ends[:, 1]].astype(np.float64)
  crossings, of_edges = _crossings(nodes, edges, tolerance)
  nodes = np.concatenate([nodes, crossings]).astype(np.float32)
  node_prob = np.concatenate([node_prob, edge_prob[of_edges].min(axis=1)])
  found = {}
  for (i, j), prob in zip(edges.tolist(), edge_prob, strict=True):
    chain = [i, *_nodes_on(nodes, i, j, tolerance), j]
    for a, b in zip(chain[:-1], chain[1:], strict=True):
      pair = (min(a, b), max(a, b))
      found[pair] = max(prob, found.get(pair, 0))
  pairs = np.array(sorted(found), np.int32).reshape(-1, 2)
  return graphs.from_lists(
    nodes,
    pairs,
    node_prob=node_prob.astype(np.float32),
    edge_prob=np.array([found[tuple(p)] for p in pairs.tolist()], np.float32),
  )


def _crossings(nodes, edges, tolerance):
  """Where two edges cross away from their ends: `[X, 2]`, and both edges `[X, 2]`."""
  first, second = geometry.node_pairs(len(edges))
  shared = (edges[first][:, :, None] == edges[second][:, None, :]).any(axis=(1, 2))
  first, second = first[~shared], second[~shared]
  p, r = nodes[edges[first, 0]], nodes[edges[first, 1]] - nodes[edges[first, 0]]
  q, s = nodes[edges[second, 0]], nodes[edges[second, 1]] - nodes[edges[second, 0]]
  p, q, r, s = (x.astype(np.float64) for x in (p, q, r, s))
  cross = r[:, 0] * s[:, 1] - r[:, 1] * s[:, 0]
  parallel = np.abs(cross) < 1e-9
  safe = np.where(parallel, 1, cross)
  gap = q - p
  t = (gap[:, 0] * s[:, 1] - gap[:, 1] * s[:, 0]) / safe
  u = (gap[:, 0] * r[:, 1] - gap[:, 1] * r[:, 0]) / safe
  points = p + t[:, None] * r
  inside = ~parallel & (t > 0) & (t < 1) & (u > 0) & (u < 1)
  # A crossing beside a node is that node's: it will lie on both edges.
  far = np.linalg.norm(points[:, None] - nodes[None], axis=-1) >= tolerance
  keep = inside & far.all(axis=1)
  points, index = points[keep], np.stack([first, second], axis=1)[keep]
  # Three strokes through one point cross three times: one node is enough.
  chosen = []
  for k in range(len(points)):
    if all(np.linalg.norm(points[k] - points[c]) >= tolerance for c in chosen):
      chosen.append(k)
  return points[chosen].astype(np.float32), index[chosen]


def _nodes_on(nodes, i, j, tolerance):
  """Numbers of the nodes that lie on the edge from i to j, in that order."""
  start, end = nodes[i].astype(np.float64), nodes[j].astype(np.float64)
  edge = end - start
  length = np.linalg.norm(edge)
  if length <= 2 * tolerance:
    return []
  offset = nodes - start
  along = offset @ edge / length
  beside = np.abs(offset[:, 0] * edge[1] - offset[:, 1] * edge[0]) / length
  on = (beside < tolerance) & (along > tolerance) & (along < length - tolerance)
  on[[i, j]] = False
  return sorted(np.flatnonzero(on).tolist(), key=lambda k: along[k])
