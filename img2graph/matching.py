"""Matching predicted nodes to true nodes, one to one.

Positions are (x, y) in any unit, the same for both sides and for the distance. All
arrays are numpy; the matching runs on the host (Hungarian algorithm of scipy).

The matching has as many pairs as possible, none further apart than `max_distance`,
and among all such matchings the least summed distance. The smallest distance alone
would be wrong: it gives up a pair to bring another one closer together.
"""

import numpy as np
from scipy import optimize

# Two nodes that are meant to be exactly `max_distance` apart still match.
TOLERANCE = 1e-9


def pairwise_distance(pred_nodes, true_nodes):
  """Distances between all nodes: `[m, 2]` and `[n, 2]` to `[m, n]` float64 >= 0."""
  offset = pred_nodes[:, None, :] - true_nodes[None, :, :]  # [m, n, 2]
  return np.hypot(offset[..., 0], offset[..., 1])


def match_distances(distance, *, max_distance):
  """As `match_nodes`, from distances: several thresholds share one matrix.

  Args:
    distance: `[m, n]` float >= 0, predicted node to true node.
    max_distance: float > 0; pairs further apart than this are never matched.

  Returns:
    `[m]` int64: the true node of each predicted node, or -1.
  """
  if not max_distance > 0:
    raise ValueError(f'max_distance must be positive; got {max_distance}.')
  assign = np.full(distance.shape[0], -1)
  if distance.size == 0:
    return assign
  allowed = distance <= max_distance + TOLERANCE
  # An allowed pair costs at most 1, so one more pair outweighs all distances. The limit
  # itself may be infinite.
  longest = distance.max(where=allowed, initial=0) or 1.0
  forbidden = 10.0 * (min(distance.shape) + 1)
  cost = np.where(allowed, distance / longest, forbidden)
  rows, columns = optimize.linear_sum_assignment(cost)
  kept = allowed[rows, columns]
  assign[rows[kept]] = columns[kept]
  return assign


def match_nodes(true_nodes, pred_nodes, *, max_distance):
  """One-to-one matching of predicted to true nodes.

  Args:
    true_nodes: `[n, 2]` float, finite; n may be 0.
    pred_nodes: `[m, 2]` float, finite; m may be 0.
    max_distance: float > 0, in the unit of the nodes.

  Returns:
    `[m]` int64: the true node of each predicted node, or -1 where there is none.

  Raises:
    ValueError: a shape is wrong, a position is not finite, or `max_distance` is not
      positive.
  """
  arrays = []
  for name, nodes in (('true_nodes', true_nodes), ('pred_nodes', pred_nodes)):
    nodes = np.asarray(nodes, np.float64)
    if nodes.ndim != 2 or nodes.shape[1] != 2:
      raise ValueError(f'{name} must be [n, 2] in (x, y); got {nodes.shape}.')
    if not np.isfinite(nodes).all():
      raise ValueError(f'{name} must be finite.')
    arrays.append(nodes)
  true_nodes, pred_nodes = arrays
  distance = pairwise_distance(pred_nodes, true_nodes)
  return match_distances(distance, max_distance=max_distance)
