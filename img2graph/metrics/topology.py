"""Scores of how a graph hangs together: key nodes, paths, components, cycles.

Where a curve is cut into edges is a matter of taste. These scores do not depend on it:
they contract nodes of degree 2. Graphs are `(nodes, edges)` as from `triplets.clean`:
positions in [0, 1] of the image side, edges unique with i < j. At a threshold t, a
fraction of the side:

key     matching as for nodes (one to one, at most t apart), but only of the *key
        nodes*: those with at least one edge and a degree other than 2, that is ends and
        junctions. precision = pairs / predicted, recall = pairs / true.
path    the edges between two key nodes, through nodes of degree 2 only, form a *path*.
        It may start and end in the same key node, and several may join the same two;
        each counts. Edges that meet no key node form a *ring*. A predicted path is
        right if its ends are matched to the two ends of a true path that no other
        predicted path has taken. Rings are matched one to one by their middle (of the
        bounding box of their nodes), at most 2t apart. precision = right / predicted,
        recall = right / true, of paths and rings together.
counts  whether the numbers of nodes, edges, connected components (an isolated node is
        one) and independent cycles (edges - nodes + components) agree.
"""

import collections

import numpy as np

from img2graph import matching


def _group(count, pairs):
  """Labels of `count` things, equal where a chain of pairs joins them (union-find)."""
  parent = list(range(count))

  def root(i):
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  for i, j in pairs:
    parent[root(i)] = root(j)
  return [root(i) for i in range(count)]


def count_components(graph):
  """Number of connected components; an isolated node is one."""
  return len(set(_group(len(graph[0]), graph[1].tolist())))


def count_cycles(graph):
  """Number of independent cycles: edges - nodes + components."""
  return len(graph[1]) - len(graph[0]) + count_components(graph)


def contract(graph):
  """Contracts all nodes of degree 2.

  Args:
    graph: `(nodes [n, 2], edges [e, 2])`, edges unique and without self-loops.

  Returns:
    keys: `[k]` int64, ascending indices of the nodes of a degree other than 0 and 2.
    paths: list of `(i, j)`, i <= j, positions in `keys`; one for each path.
    rings: `[r, 2]` float64, the middle of the bounding box of each ring.
  """
  nodes, edges = graph
  edge_list = edges.tolist()
  incident = collections.defaultdict(list)
  for e, ends in enumerate(edge_list):
    for i in ends:
      incident[i].append(e)
  keys = sorted(i for i, found in incident.items() if len(found) != 2)
  position = {i: k for k, i in enumerate(keys)}
  # The two edges of a node of degree 2 lie on the same path or ring.
  joints = [found for found in incident.values() if len(found) == 2]
  chains = collections.defaultdict(list)
  for e, label in enumerate(_group(len(edge_list), joints)):
    chains[label].extend(edge_list[e])
  paths, rings = [], []
  for members in chains.values():
    # Each end of a chain is listed once; inner nodes are not keys.
    ends = sorted(position[i] for i in members if i in position)
    if ends:
      paths.append(tuple(ends))
    else:
      rings.append((nodes[members].min(axis=0) + nodes[members].max(axis=0)) / 2)
  return np.array(keys, np.int64), paths, np.array(rings).reshape(-1, 2)


def key_and_path_counts(true, pred, *, thresholds):
  """Counts of key nodes and paths of one image, as defined at the top of the file.

  Args:
    true: `(nodes [n, 2] in [0, 1], edges [e, 2])`.
    pred: the predicted graph, likewise.
    thresholds: fractions of the side.

  Returns:
    dict: 'key' and 'path', each a list over thresholds of counts `(right, predicted,
    found, true)`.
  """
  true_keys, true_paths, true_rings = contract(true)
  pred_keys, pred_paths, pred_rings = contract(pred)
  key_distance = matching.pairwise_distance(pred[0][pred_keys], true[0][true_keys])
  ring_distance = matching.pairwise_distance(pred_rings, true_rings)
  num_pred = len(pred_paths) + len(pred_rings)
  num_true = len(true_paths) + len(true_rings)
  available = collections.Counter(true_paths)
  result = {'key': [], 'path': []}
  for threshold in thresholds:
    assign = matching.match_distances(key_distance, max_distance=threshold)
    pairs = int((assign >= 0).sum())
    found = collections.Counter(
      tuple(sorted((int(assign[i]), int(assign[j])))) for i, j in pred_paths
    )
    # An unmatched end is -1, which no true path has.
    right = (found & available).total()
    rings = matching.match_distances(ring_distance, max_distance=2 * threshold)
    right += int((rings >= 0).sum())
    result['key'].append((pairs, len(pred_keys), pairs, len(true_keys)))
    result['path'].append((right, num_pred, right, num_true))
  return result


def count_agreements(true, pred):
  """Whether 'nodes', 'edges', 'components', 'cycles' agree in number: dict of bools."""
  return {
    'nodes': len(true[0]) == len(pred[0]),
    'edges': len(true[1]) == len(pred[1]),
    'components': count_components(true) == count_components(pred),
    'cycles': count_cycles(true) == count_cycles(pred),
  }
