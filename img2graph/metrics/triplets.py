"""Triplet (node, edge, node) precision, recall and F1, with their exact definition.

The paper of Lu and Dubbelman scores graphs as sets of triplets, deletes redundant
predicted triplets first, and reports precision, recall and F1. It gives no distance
threshold and no rule for redundancy; this file states ours. Figures are comparable
with published ones only where these choices agree.

A graph here is a pair `(nodes, edges)`: nodes `[n, 2]` (x, y) in [-1, 1], edges
`[e, 2]` node indices, undirected. Thresholds t are fractions of the image side: t
is a distance of 2t in [-1, 1]. The usual ones are 3, 5 and 8 % of the side.

Cleaning: self-loops are dropped and an edge given twice, either way round, counts
once. `cleaned` is the number of predicted edges dropped in this way. A node may lie
outside of its image by up to the side; a graph with one further away is refused.

At each threshold t:

node          predicted nodes are matched one to one to true nodes at most t apart
              (to within 1e-9 of the side): as many pairs as possible, among those the
              least summed distance. precision = pairs / predicted nodes, recall =
              pairs / true nodes.
edge_strict   a predicted edge is right if its two ends are matched to the two ends
              of one true edge. precision = right / predicted edges, recall = right /
              true edges.
edge_lenient  redundant triplets are removed first: a predicted node that the matching
              left over but that lies within t of a true node stands for the nearest
              such node; edges that thereby join a node to itself vanish, edges that
              thereby become equal count once. Never more wrong edges than strict;
              what extra nodes cost shows in the node precision.
exact         share of images whose graph is entirely right: every node, true and
              predicted, is matched, and so is every edge (strictly).

With `extra=True` also what `img2graph.metrics.topology` (key, path, counts) and
`img2graph.metrics.distance` (length, smd) define.

precision, recall and F1 = 2 p r / (p + r) come in two averages. *micro*: from counts
summed over the images. *macro*: the mean of the per-image figures. If both sides are
empty all three are 1; if only one is, all three are 0; F1 is 0 where p + r is 0.

Traps: a complete graph over the true nodes scores 89 % on lines, triangles and
rectangles in equal numbers (8 of its 10 edges are true), so read `exact` beside F1; one
edge cut in two is one missed and two wrong edges.
"""

import numpy as np

from img2graph import matching
from img2graph.metrics import distance as distance_metrics
from img2graph.metrics import topology

THRESHOLDS = (0.03, 0.05, 0.08)
FIGURES = ('precision', 'recall', 'f1')
# A node lies in [-1, 1], or outside of it by up to the side.
_FARTHEST = 3


def threshold_name(threshold):
  """The name under which a threshold is reported: 0.05 gives '0.05'."""
  return f'{threshold:g}'


def check_thresholds(thresholds):
  """Thresholds as a tuple of floats; ValueError if empty, repeated or not positive."""
  values = tuple(float(t) for t in thresholds)
  if not values or not all(0 < t < np.inf for t in values):
    raise ValueError(
      f'thresholds must be positive fractions of the side; got {values}.'
    )
  if len({threshold_name(t) for t in values}) < len(values):
    raise ValueError(f'thresholds must differ; got {values}.')
  return values


def clean(graph):
  """A graph in the unit of the image side, without redundant edges.

  Args:
    graph: `(nodes, edges)`: nodes `[n, 2]` in [-1, 1], edges `[e, 2]` indices; either
      may be empty. Nodes may lie outside the image, by up to its side.

  Returns:
    nodes `[n, 2]` float64 in [0, 1], edges `[e', 2]` int64 with i < j, unique and
    sorted, and the number of edges that were dropped.

  Raises:
    ValueError: it is no pair, a shape is wrong, a position is not finite or far
      outside, or an edge does not join two of the nodes.
  """
  try:
    nodes, edges = graph
  except (TypeError, ValueError):
    raise ValueError(
      'a graph to score is a pair (nodes, edges), as graph.to_lists makes it of one '
      f'Graph; got {type(graph).__name__}.'
    ) from None
  try:
    nodes = np.asarray(nodes, np.float64)
  except OverflowError:
    raise ValueError('a node position must be a number below 1e308.') from None
  nodes = nodes if nodes.size else nodes.reshape(0, 2)
  if nodes.ndim != 2 or nodes.shape[1] != 2:
    raise ValueError(f'nodes must be [n, 2] in (x, y); got {nodes.shape}.')
  if not np.isfinite(nodes).all():
    raise ValueError('a node position is not finite.')
  # Positions in pixels, say. Pieces of such an edge would take all the memory there is.
  if (np.abs(nodes) > _FARTHEST).any():
    raise ValueError(
      'a node lies far outside; x and y must be in [-1, 1], or outside by up to the '
      f'side; got up to {np.abs(nodes).max():g}.'
    )
  given = np.asarray(edges)
  given = given if given.size else np.zeros((0, 2), np.int64)
  if given.ndim != 2 or given.shape[1] != 2:
    raise ValueError(f'edges must be [e, 2] node indices; got {given.shape}.')
  if given.dtype.kind == 'O' and all(type(i) is int for i in given.flat):
    given = given.clip(-(2**63), 2**63 - 1).astype(np.int64)  # Out of range anyway.
  if given.dtype.kind not in 'iu':
    if given.dtype.kind != 'f' or not (given == np.round(given)).all():
      raise ValueError('an edge index is not a whole number.')
  # Before the cast, which would make another number of one that is too large.
  if given.size and (given.min() < 0 or given.max() >= len(nodes)):
    raise ValueError(
      f'an edge index is out of range: {len(nodes)} nodes, but indices from '
      f'{given.min()} to {given.max()}.'
    )
  edges = given if given.dtype.kind in 'iu' else given.astype(np.int64)
  kept = sorted({(i, j) if i < j else (j, i) for i, j in edges.tolist() if i != j})
  kept = np.array(kept, np.int64).reshape(-1, 2)
  return (nodes + 1) / 2, kept, len(edges) - len(kept)


def precision_recall_f1(counts):
  """Figures from counts.

  Args:
    counts: `[..., 4]` float >= 0: right and all of the prediction, right and all of
      the truth (numbers, or lengths).

  Returns:
    `[..., 3]` float64 in [0, 1]: precision, recall, F1. See the top of the file for
    empty sides.
  """
  counts = np.asarray(counts, np.float64)
  right_pred, all_pred, right_true, all_true = np.moveaxis(counts, -1, 0)
  one, zero = np.ones_like(all_pred), np.zeros_like(all_pred)
  precision = np.divide(right_pred, all_pred, out=zero.copy(), where=all_pred > 0)
  recall = np.divide(right_true, all_true, out=zero.copy(), where=all_true > 0)
  total = precision + recall
  f1 = np.divide(2 * precision * recall, total, out=zero.copy(), where=total > 0)
  figures = np.stack([precision, recall, f1], axis=-1)
  one_empty = ((all_pred == 0) | (all_true == 0))[..., None]
  both_empty = ((all_pred == 0) & (all_true == 0))[..., None]
  figures = np.where(one_empty, zero[..., None], figures)
  return np.where(both_empty, one[..., None], figures)


def _relabelled(edges, labels):
  """Edges between labels as a set of pairs (i, j), i < j."""
  pairs = labels[edges].tolist()
  return {(i, j) if i < j else (j, i) for i, j in pairs if i != j}


def triplet_counts(true, pred, *, threshold):
  """Counts of one image at one threshold, as defined at the top of the file.

  Args:
    true: `(nodes [n, 2], edges [e, 2])` as from `clean`, in the unit of the side.
    pred: the same for the prediction.
    threshold: float > 0, fraction of the side.

  Returns:
    dict: 'node', 'edge_strict', 'edge_lenient', each `(right, predicted, found, true)`
    counts, and 'exact', a bool.
  """
  distance = matching.pairwise_distance(pred[0], true[0])
  return _triplet_counts(true, pred, distance, threshold)


def _triplet_counts(true, pred, distance, threshold):
  num_true, num_pred = len(true[0]), len(pred[0])
  true_edges, pred_edges = true[1], pred[1]
  assign = matching.match_distances(distance, max_distance=threshold)
  matched = assign >= 0
  pairs = int(matched.sum())
  true_set = set(map(tuple, true_edges.tolist()))

  # A predicted node without a true one gets a label of its own, beyond the true ones.
  strict = np.where(matched, assign, num_true + np.arange(num_pred))
  strict_edges = _relabelled(pred_edges, strict)
  lenient_edges = strict_edges
  if num_true and pairs < num_pred:
    nearest = distance.argmin(axis=1)
    near = distance.min(axis=1) <= threshold + matching.TOLERANCE
    lenient_edges = _relabelled(pred_edges, np.where(~matched & near, nearest, strict))

  right_strict = len(strict_edges & true_set)
  right_lenient = len(lenient_edges & true_set)
  exact = pairs == num_true == num_pred and right_strict == len(true_edges) == len(
    pred_edges
  )
  return {
    'node': (pairs, num_pred, pairs, num_true),
    'edge_strict': (right_strict, len(pred_edges), right_strict, len(true_edges)),
    'edge_lenient': (right_lenient, len(lenient_edges), right_lenient, len(true_edges)),
    'exact': exact,
  }


def score_graph(true, pred, *, thresholds=THRESHOLDS, extra=False):
  """Counts of one image, to be averaged by `combine`.

  Args:
    true: the true graph `(nodes [n, 2] in [-1, 1], edges [e, 2])`.
    pred: the predicted graph, likewise.
    thresholds: fractions of the side, positive and different.
    extra: also key, path and length figures, the StreetMover distance and the
      agreements of counts. Costs about ten times as much.

  Returns:
    dict: 'cleaned' and 'at': `{threshold name: {'node', 'edge_strict',
    'edge_lenient': (right, predicted, found, true), 'exact': bool}}`. With `extra`
    also 'key', 'path' and 'length' at each threshold, and 'smd', 'one_sided_empty'
    and 'counts'.

  Raises:
    ValueError: a graph or a threshold is wrong.
  """
  thresholds = check_thresholds(thresholds)
  true = clean(true)[:2]
  *pred, cleaned = clean(pred)
  pairwise = matching.pairwise_distance(pred[0], true[0])
  at = {threshold_name(t): _triplet_counts(true, pred, pairwise, t) for t in thresholds}
  row = {'cleaned': cleaned, 'at': at}
  if not extra:
    return row
  for name, counts in topology.key_and_path_counts(
    true, pred, thresholds=thresholds
  ).items():
    for t, value in zip(thresholds, counts, strict=True):
      at[threshold_name(t)][name] = value
  lengths = distance_metrics.length_counts(true, pred, thresholds=thresholds)
  for t, value in zip(thresholds, lengths, strict=True):
    at[threshold_name(t)]['length'] = value
  row['smd'] = distance_metrics.street_mover_distance(true, pred)
  row['one_sided_empty'] = (len(true[1]) == 0) != (len(pred[1]) == 0)
  row['counts'] = topology.count_agreements(true, pred)
  return row


def combine(rows):
  """Averages rows of `score_graph` over the images.

  Args:
    rows: sequence of dicts of `score_graph`, all with the same options; not empty.

  Returns:
    dict of plain floats and ints: 'images', 'cleaned', and 'at': `{threshold name:
    {'exact', 'node': {'micro': {'precision', 'recall', 'f1'}, 'macro': {...}},
    'edge_strict': ..., 'edge_lenient': ...}}`. With `extra` rows also 'key', 'path',
    'length' at each threshold, 'smd': {'mean', 'median', 'one_sided_empty'} and
    'counts': {'nodes', 'edges', 'components', 'cycles'}.

  Raises:
    ValueError: there are no rows.
  """
  rows = list(rows)
  if not rows:
    raise ValueError('there are no images to score.')
  result = {
    'images': len(rows),
    'cleaned': int(sum(row['cleaned'] for row in rows)),
    'at': {},
  }
  for name, first in rows[0]['at'].items():
    result['at'][name] = at = {}
    for kind in first:
      values = np.array([row['at'][name][kind] for row in rows], np.float64)
      if kind == 'exact':
        at[kind] = float(values.mean())
        continue
      micro = precision_recall_f1(values.sum(axis=0))
      macro = precision_recall_f1(values).mean(axis=0)
      at[kind] = {
        'micro': dict(zip(FIGURES, micro.tolist(), strict=True)),
        'macro': dict(zip(FIGURES, macro.tolist(), strict=True)),
      }
  if 'smd' in rows[0]:
    smd = np.array([row['smd'] for row in rows])
    result['smd'] = {
      'mean': float(smd.mean()),
      'median': float(np.median(smd)),
      'one_sided_empty': float(np.mean([row['one_sided_empty'] for row in rows])),
    }
    result['counts'] = {
      kind: float(np.mean([row['counts'][kind] for row in rows]))
      for kind in rows[0]['counts']
    }
  return result


def score_graphs(trues, preds, *, thresholds=THRESHOLDS, extra=False):
  """Scores predicted graphs against true ones, image by image.

  Args:
    trues: sequence of true graphs `(nodes [n, 2] in [-1, 1], edges [e, 2])`.
    preds: predicted graphs in the same order and number.
    thresholds: fractions of the side.
    extra: also the figures of `topology` and `distance`.

  Returns:
    dict as from `combine`.

  Raises:
    ValueError: the numbers of graphs differ, there are none, or one is wrong; the
      sentence names the image.
  """
  trues, preds = list(trues), list(preds)
  if len(trues) != len(preds):
    raise ValueError(f'{len(trues)} true graphs but {len(preds)} predicted ones.')
  thresholds = check_thresholds(thresholds)
  rows = []
  for index, (true, pred) in enumerate(zip(trues, preds, strict=True)):
    try:
      rows.append(score_graph(true, pred, thresholds=thresholds, extra=extra))
    except ValueError as error:
      raise ValueError(f'image {index}: {error}') from None
  return combine(rows)


def headline(scores):
  """The figures to look at first: triplet F1 (lenient, micro) and exact graphs.

  Args:
    scores: dict as from `combine`; without figures at thresholds there is no headline.

  Returns:
    flat dict of floats in [0, 1], `{'f1@0.05': ..., 'exact@0.05': ...}` for each
    threshold.
  """
  flat = {}
  for name, at in scores.get('at', {}).items():
    flat[f'f1@{name}'] = at['edge_lenient']['micro']['f1']
    flat[f'exact@{name}'] = at['exact']
  return flat
