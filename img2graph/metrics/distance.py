"""Scores of the drawn lines, whatever the nodes: covered length, StreetMover distance.

Graphs are `(nodes, edges)` as from `triplets.clean`: positions in [0, 1] of the image
side, edges unique with i < j.

length  at a threshold t, a fraction of the side: a bit of an edge is covered if it is
        at most t from any edge of the other graph. recall = covered true length / true
        length, precision = covered predicted length / predicted length. Each edge is
        cut into equal pieces of at most 0.004 of the side, and a piece counts whole if
        its middle is covered. Curves may be cut into any number of chords; edges drawn
        on top of one another count each.
smd     StreetMover distance: the squared Wasserstein-2 distance between 100 points
        spread evenly along the edges of each graph, by exact assignment: the mean
        squared distance, side = 1 (times 4 for coordinates in [-1, 1]). Points are
        spread along the edges in the order of their coordinates, so that numbering
        does not matter; cutting edges in two moves them by up to half a spacing (1/200
        of the whole length), so values below the square of that, about 3e-4 for common
        drawings, mean "equal". Neither graph has edges: 0. One of the two has none:
        0.5. Published code stops its Sinkhorn iteration after one or two steps and
        reports about half of this value, so the two must not be compared.
"""

import numpy as np
from scipy import optimize

from img2graph import matching

PIECE = 0.004
NUM_POINTS = 100
EMPTY_DISTANCE = 0.5


def _pieces(graph):
  """Middles `[P, 2]` and lengths `[P]` of short equal pieces of all edges."""
  nodes, edges = graph
  start, end = nodes[edges[:, 0]], nodes[edges[:, 1]]
  length = np.hypot(*(end - start).T)
  # An edge of no length has nothing to cover.
  count = np.ceil(length / PIECE).astype(np.int64)  # [E]
  edge = np.repeat(np.arange(len(edges)), count)  # [P]
  number = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
  along = ((number + 0.5) / count[edge])[:, None]
  middles = start[edge] * (1 - along) + end[edge] * along
  return middles, length[edge] / count[edge]


def distance_to_edges(points, graph):
  """Distance of each point to the nearest edge.

  Args:
    points: `[P, 2]` float.
    graph: `(nodes [n, 2], edges [e, 2])` in the same unit.

  Returns:
    `[P]` float64 >= 0; infinite where the graph has no edge.
  """
  nodes, edges = graph
  # In numpy and float64: the metrics must not depend on the precision of the device.
  nearest_sq = np.full(len(points), np.inf)
  for i, j in edges.tolist():
    edge = nodes[j] - nodes[i]
    offset = points - nodes[i]
    length_sq = edge @ edge
    if length_sq > 0:
      along = np.clip(offset @ edge / length_sq, 0, 1)
      offset = offset - along[:, None] * edge
    np.minimum(nearest_sq, (offset**2).sum(axis=1), out=nearest_sq)
  return np.sqrt(nearest_sq)


def length_counts(true, pred, *, thresholds):
  """Covered lengths of one image, as defined at the top of the file.

  Args:
    true: `(nodes [n, 2] in [0, 1], edges [e, 2])`.
    pred: the predicted graph, likewise.
    thresholds: fractions of the side.

  Returns:
    list over thresholds of `(covered predicted, predicted, covered true, true)`
    lengths, in sides.
  """
  true_middles, true_lengths = _pieces(true)
  pred_middles, pred_lengths = _pieces(pred)
  true_distance = distance_to_edges(true_middles, pred)
  pred_distance = distance_to_edges(pred_middles, true)

  def covered(lengths, distance, threshold):
    return float(lengths[distance <= threshold + matching.TOLERANCE].sum())

  return [
    (
      covered(pred_lengths, pred_distance, threshold),
      float(pred_lengths.sum()),
      covered(true_lengths, true_distance, threshold),
      float(true_lengths.sum()),
    )
    for threshold in thresholds
  ]


def spread_points(graph, num_points=NUM_POINTS):
  """Points spread evenly along the edges, the same for any numbering of the nodes.

  Args:
    graph: `(nodes [n, 2], edges [e, 2])` with at least one edge.
    num_points: how many.

  Returns:
    `[num_points, 2]` float64: the middles of as many equal parts of the whole length,
    in the unit of the nodes.
  """
  nodes, edges = graph
  ends = sorted(sorted(pair) for pair in nodes[edges].tolist())
  ends = np.array(ends)  # [E, 2, 2]
  length = np.hypot(*(ends[:, 1] - ends[:, 0]).T)
  upto = np.cumsum(length)
  if upto[-1] <= 0:
    return ends[np.arange(num_points) % len(ends), 0]
  where = (np.arange(num_points) + 0.5) / num_points * upto[-1]
  edge = np.minimum(np.searchsorted(upto, where), len(ends) - 1)
  # An edge of no length is never chosen, except after rounding at the very end.
  safe = np.where(length[edge] > 0, length[edge], 1)
  along = np.clip((where - (upto - length)[edge]) / safe, 0, 1)[:, None]
  return ends[edge, 0] * (1 - along) + ends[edge, 1] * along


def street_mover_distance(true, pred):
  """Exact squared Wasserstein-2 distance between two graphs' points, see the top.

  Args:
    true: `(nodes [n, 2] in [0, 1], edges [e, 2])`.
    pred: the predicted graph, likewise.

  Returns:
    float >= 0, in squared sides.
  """
  if len(true[1]) == 0 and len(pred[1]) == 0:
    return 0.0
  if len(true[1]) == 0 or len(pred[1]) == 0:
    return EMPTY_DISTANCE
  offset = spread_points(true)[:, None, :] - spread_points(pred)[None, :, :]
  cost = (offset**2).sum(axis=2)
  return float(cost[optimize.linear_sum_assignment(cost)].mean())
