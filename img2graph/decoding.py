"""From a probable graph and the ink to the graph that is meant.

An encoder gives every edge a probability of its own, but edges depend on each other: of
two that share a stroke one is enough, and a stroke that no edge shows lacks one. Here
the drawing decides. Of all edges that are not out of the question those are kept that
explain the ink at least cost (`select`), crossings and joints become nodes
(`planarity`), cycles that enclose no paper are opened (`open_filled_cycles`), a drawing
that nearly is one closed outline becomes one (`outlines`), and bends too slight to be
corners are straightened (`chains.simplify`). No learned numbers, no labels: the same
steps follow any method that draws lines.

numpy, one graph at a time: some milliseconds each. Letters: N nodes, M candidate edges,
P points of ink, S side of the drawing in pixels. Positions and distances are in [-1, 1]
units as everywhere, 2 for the side.
"""

import numpy as np
import scipy.ndimage

from img2graph import chains
from img2graph import geometry
from img2graph import graph as graphs
from img2graph import outlines
from img2graph import planarity

# Points of ink beyond these are thinned out evenly: enough for a drawing full of lines.
_MOST_POINTS = 1500
# Candidates beyond these, the costliest, are left out.
_MOST_CANDIDATES = 300
# Samples along a candidate that is looked at for paper.
_SAMPLES = 64
# Ink of this share of the usual level, or more, is full ink; of that the least share
# that counts as ink.
_FULL_INK = 0.8
_LEAST_INK = 0.2
# Nodes and edges less probable than this are out of the question.
_LEAST_NODE_PROB = 0.1
_LEAST_EDGE_PROB = 0.02
# Share of a candidate that may run over paper.
_MOST_PAPER = 0.9
# Pixels of paper (of a drawing of 128) that make a cycle one.
_LEAST_HOLE = 6
# Distance from which a line explains nothing of a point of ink.
_REACH = 0.03
# How far beside an edge its ink is looked for, and pixels by which it must be off.
_BESIDE = 0.06
_SEEN = 1.0
# Nodes nearer than this are one, and nodes nearer than that to an edge lie on it.
MERGE_RADIUS = 0.07
JOINT_RADIUS = 0.06
# Share of a drawing that may be otherwise if it is to become one closed outline. One
# bond at a ring of six, a seventh of a molecule, is meant.
OUTLINE = 0.13


def decode(
  graph,
  drawing,
  *,
  threshold=0.5,
  tolerance=0.06,
  merge_radius=MERGE_RADIUS,
  joint_radius=JOINT_RADIUS,
  follow_tolerance=None,
  outline=OUTLINE,
  right_angles=False,
  **options,
):
  """The graph of a line drawing, from what an encoder believes of it.

  Args:
    graph: `Graph` without batch axes, numpy or jax; all its probabilities count.
    drawing: `[S, S]` float >= 0, ink high, in which the graph was found.
    threshold: in [0, 1); an edge as probable as this has nothing for or against it but
      the ink.
    tolerance: how far a chord may leave the bends it stands for.
    merge_radius: nodes nearer than this are one.
    joint_radius: see `planarity.planarize`.
    follow_tolerance: how far an edge may leave its ink before it is bent, see
      `follow`; None for `tolerance`.
    outline: see `outlines.close`; 0 for a drawing that is cut out of another.
    right_angles: whether an outline that nearly is a rectangle becomes one.
    **options: costs, see `select`.

  Returns:
    `Graph` of numpy arrays whose capacity is its number of nodes. An edge that only the
    ink speaks for has the probability 0.5.

  Raises:
    ValueError: an option is wrong, or the drawing is not square.
  """
  if tolerance < 0:
    raise ValueError(f'tolerance must not be negative; got {tolerance}.')
  if not 0 <= outline <= 1:
    raise ValueError(f'outline must be in [0, 1]; got {outline}.')
  drawing = np.asarray(drawing, np.float32)
  ink = _Ink(drawing, options.get('reach', _REACH))
  chosen = select(graph, ink, threshold=threshold, **options)
  chosen = graphs.canonicalize(chosen, threshold=0, merge_radius=merge_radius)
  chosen = planarity.planarize(chosen, tolerance=joint_radius, threshold=0)
  chosen = open_filled_cycles(chosen, drawing)
  if outline:
    chosen = outlines.close(chosen, outline)
  chosen = follow(
    chosen, ink, tolerance if follow_tolerance is None else follow_tolerance
  )
  chosen = chains.simplify(chosen, tolerance)
  if outline:
    chosen = outlines.fit_corners(chosen, ink.points, ink.weight)
  return outlines.square(chosen) if right_angles else chosen


def decode_better(graph, refined, drawing, **options):
  """Of a graph and its refined form, both decoded, the one that fits better.

  Args:
    graph: as for `decode`.
    refined: the same after `methods.Method.refine`, or None.
    drawing: `[S, S]` float >= 0.
    **options: see `decode`.

  Returns:
    `Graph`, see `decode`; its `misfit` is never above that of the decoded `graph`.
  """
  before = decode(graph, drawing, **options)
  if refined is None:
    return before
  after = decode(refined, drawing, **options)
  return after if misfit(after, drawing) < misfit(before, drawing) else before


def follow(graph, ink, tolerance):
  """Bends edges that leave their ink by more than a tolerance.

  Across an edge, the ink within `_BESIDE` has a centre; where it lies farthest off, a
  node is put there, and both parts are looked at again. With a tolerance of `_BESIDE`
  or more, nothing changes, nor by less than a pixel of the drawing.

  Args:
    graph: `Graph` without batch axes whose probabilities are 0 or count as present.
    ink: `_Ink`.
    tolerance: in [-1, 1] units.

  Returns:
    `Graph` of numpy arrays; new nodes and the parts of an edge are as probable as the
    edge.
  """
  if tolerance >= _BESIDE:
    return graph
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)
  places, probs = list(nodes), prob.tolist()
  todo = list(edge_prob)
  while todo:
    a, b = todo.pop()
    off, place = ink.farthest_beside(places[a], places[b])
    if off <= max(tolerance, _SEEN * ink.pixel):
      continue
    k = len(places)
    places.append(place)
    probability = edge_prob.pop((a, b))
    probs.append(probability)
    neighbours[k] = {a, b}
    for end, other in ((a, b), (b, a)):
      neighbours[end] = neighbours[end] - {other} | {k}
      edge_prob[end, k] = probability
      todo.append((end, k))
  return chains.from_adjacency(np.array(places), np.array(probs), neighbours, edge_prob)


class _Ink:
  """What a drawing says: points of ink, how wide its lines are, and where paper is.

  Attributes:
    side: S.
    pixel: size of one, in [-1, 1] units.
    strength: `[S, S]` in [0, 1], 1 full ink.
    mask: `[S, S]` bool, what is ink at all.
    half_width: of a line.
    paper: `[S, S]`, 1 where there is no ink within reach, 0 on full ink.
    points: `[P, 2]`, ink.
    weight: `[P]`, of each point; those of a stroke sum to its length if it is dark.
  """

  def __init__(self, drawing, reach):
    if not reach > 0:
      raise ValueError(f'reach must be positive; got {reach}.')
    drawing = np.asarray(drawing, np.float32)
    if drawing.ndim != 2 or drawing.shape[0] != drawing.shape[1]:
      raise ValueError(f'the drawing must be [S, S]; got {list(drawing.shape)}.')
    self.side = side = drawing.shape[0]
    self.pixel = 2 / side
    strength = np.clip(drawing / (_FULL_INK * _level(drawing)), 0, 1)
    self.strength = strength
    self.mask = strength > _LEAST_INK
    dark = strength > 0.5
    inside = scipy.ndimage.distance_transform_edt(dark)[dark]
    # Across a line of w pixels the mean distance to paper is (w + 1)^2 / 4w.
    mean = 2 * max(1.0, float(inside.mean())) - 1 if inside.size else 1.0
    half_width = (mean + (mean**2 - 1) ** 0.5) / 2
    self.half_width = half_width * self.pixel
    self.paper = _paper(strength, reach / self.pixel)
    rows, columns = np.nonzero(self.mask)
    step = -(-len(rows) // _MOST_POINTS) or 1
    pixels = np.stack([columns, rows], axis=1)[::step]
    self.points = (pixels + 0.5) * self.pixel - 1
    self.weight = strength[self.mask][::step] * np.float32(
      step * self.pixel / max(1.0, 2 * half_width)
    )

  def farthest_beside(self, first, last):
    """Where the ink of an edge lies farthest beside it: how far, and there `[2]`.

    0 if the edge is too short to bend; near its ends, ink is that of other edges.
    """
    edge = last - first
    length = float(np.linalg.norm(edge))
    ends = 1.5 * _BESIDE / max(length, 1e-9)
    if ends >= 0.4:
      return 0.0, first
    along = np.linspace(ends, 1 - ends, 16)[:, None]
    across = np.array([-edge[1], edge[0]]) / length
    away = np.arange(-_BESIDE, _BESIDE, self.pixel / 2) + self.pixel / 4
    middle = first + along * edge
    places = middle[:, None] + away[:, None] * across
    index = np.clip(((places + 1) / self.pixel).astype(int), 0, self.side - 1)
    weight = self.strength[index[..., 1], index[..., 0]]
    weight = np.where(weight > _LEAST_INK, weight, 0)
    total = weight.sum(axis=1)
    centre = (weight @ away) / np.maximum(total, 1e-6)
    # Ink that goes on beyond what is looked at is another line's, or turns away.
    fits = (total > 1) & (weight[:, 0] == 0) & (weight[:, -1] == 0)
    off = np.where(fits, np.abs(centre), 0)
    k = int(off.argmax())
    return float(off[k]), middle[k] + centre[k] * across

  def paper_between(self, first, last):
    """Mean paper under segments `[M, 2]` to `[M, 2]`: `[M]` in [0, 1]."""
    along = ((np.arange(_SAMPLES) + 0.5) / _SAMPLES)[None, :, None]
    samples = first[:, None] + (last - first)[:, None] * along
    index = np.clip(((samples + 1) / self.pixel).astype(int), 0, self.side - 1)
    return self.paper[index[..., 1], index[..., 0]].mean(axis=1)


def _level(drawing):
  """Level of the ink: its mean weighted by itself, robust against a bright pixel."""
  square = float((drawing**2).sum())
  return float((drawing**3).sum()) / square if square > 1e-6 else 1.0


def _paper(strength, reach):
  """Least of 1 - ink + (distance / reach)^2 around each pixel, at most 1: `[S, S]`."""
  side, most = strength.shape[0], int(reach)
  padded = np.pad(strength, most)
  paper = np.ones_like(strength)
  for y in range(-most, most + 1):
    for x in range(-most, most + 1):
      away = (x * x + y * y) / reach**2
      if away < 1:
        moved = padded[most + y : most + y + side, most + x : most + x + side]
        np.minimum(paper, 1 - moved + np.float32(away), out=paper)
  return paper


def _is_ink(drawing):
  return drawing > 0.5 * _FULL_INK * _level(drawing)


class _Candidates:
  """Edges that may be kept, what each would cost and what ink it would explain.

  Attributes:
    nodes: `[N, 2]`.
    ends: `[M, 2]` node numbers.
    prob: `[M]`.
    cost: `[M]`, of keeping each, without its nodes.
    unexplained: `[M, P]`, what each leaves unexplained of each point, at most its
      weight.
  """

  def __init__(self, nodes, ends, prob, ink, *, log_odds, reach, edge_cost, prior):
    length = np.linalg.norm(nodes[ends[:, 1]] - nodes[ends[:, 0]], axis=1)
    chosen = np.flatnonzero((length > 2 * ink.pixel) & (prob > _LEAST_EDGE_PROB))
    paper = ink.paper_between(*_ends_of(nodes, ends[chosen]))
    cost = paper * length[chosen] + edge_cost - prior * log_odds[chosen]
    keep = np.flatnonzero(paper < _MOST_PAPER)
    if len(keep) > _MOST_CANDIDATES:
      keep = keep[np.argsort(cost[keep], kind='stable')[:_MOST_CANDIDATES]]
    chosen = chosen[keep]
    self.nodes = nodes
    self.ends = ends[chosen]
    self.prob = prob[chosen]
    self.cost = cost[keep]
    self.unexplained = _unexplained(*_ends_of(nodes, self.ends), ink, reach)

  def extend(self, other):
    """Adds the candidates of `other`, whose nodes begin with these."""
    self.nodes = other.nodes
    for name in ('ends', 'prob', 'cost', 'unexplained'):
      both = [getattr(self, name), getattr(other, name)]
      setattr(self, name, np.concatenate(both))


def _ends_of(nodes, edges):
  """Both ends of edges `[M, 2]`: `[M, 2]` each."""
  return nodes[edges[:, 0]], nodes[edges[:, 1]]


def _unexplained(first, last, ink, reach):
  """What segments from `[M, 2]` to `[M, 2]` leave of each point of ink: `[M, P]`."""
  points, first, last = (np.asarray(x, np.float32) for x in (ink.points, first, last))
  # In place, in single precision: a million numbers for a drawing full of lines.
  left = chains.distance(points, first, last)
  left -= np.float32(ink.half_width)
  left *= np.float32(1 / reach)
  np.clip(left, 0, 1, out=left)
  left *= left
  left *= ink.weight
  return left


def select(
  graph,
  drawing,
  *,
  threshold=0.5,
  reach=_REACH,
  edge_cost=0.024,
  node_cost=0.02,
  end_cost=0.04,
  prior=0.06,
  near=0.25,
):
  """Keeps the edges that explain the ink at least cost.

  A point of ink costs its weight times min(1, (d / reach)^2), with d its distance from
  the nearest line drawn; an edge costs as much for the paper below it, and something
  for being there, as its nodes do, most where a stroke ends; probability is deducted.
  The search goes down from what the encoder decided, one edge in or out at a time.
  Where ink is left over, nodes are put at the ends of it and the search goes on.

  Args:
    graph: `Graph` without batch axes.
    drawing: `[S, S]` float >= 0, or the `_Ink` of it.
    threshold: in [0, 1), see `decode`.
    reach: distance from which a line explains nothing of a point.
    edge_cost: as a length of ink.
    node_cost: the same.
    end_cost: what a node with a single edge costs beyond that: strokes go on.
    prior: length of ink that one unit of log odds is worth.
    near: nodes nearer than this may be joined whatever the encoder believes of it.

  Returns:
    `Graph` of numpy arrays; it has only what was kept.
  """
  if not 0 <= threshold < 1:
    raise ValueError(f'threshold must be in [0, 1); got {threshold}.')
  ink = drawing if isinstance(drawing, _Ink) else _Ink(drawing, reach)
  if not len(ink.points):
    return chains.from_parts(
      np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2), int), np.zeros(0)
    )
  node_prob = np.asarray(graph.node_prob)
  kept = np.flatnonzero(node_prob > _LEAST_NODE_PROB)
  nodes = np.asarray(graph.nodes, np.float64)[kept]
  first, last = geometry.node_pairs(len(kept)) if len(kept) > 1 else ([], [])
  ends = np.stack([first, last], axis=1).astype(int).reshape(-1, 2)
  prob = np.asarray(graph.edge_prob)[kept[ends[:, 0]], kept[ends[:, 1]]]
  costs = dict(reach=reach, edge_cost=edge_cost, prior=prior)
  log_odds = _log_odds(prob) - _log_odds(threshold)
  candidates = _Candidates(nodes, ends, prob, ink, log_odds=log_odds, **costs)
  # What a node of degree 0, 1 and 2 or more costs.
  node_costs = np.array([0, node_cost + end_cost, node_cost])
  kept_edges, left = _search(
    candidates, candidates.prob > threshold, ink.weight, node_costs
  )
  used = np.unique(candidates.ends[kept_edges])
  new = _ends_of_rest(candidates, kept_edges, left, ink, reach)
  count = len(nodes)
  everywhere = np.concatenate([nodes, new])
  others = np.concatenate([used, count + np.arange(len(new))]).astype(int)
  first, last = geometry.node_pairs(len(others)) if len(others) > 1 else ([], [])
  pairs = np.stack([others[first], others[last]], axis=1).reshape(-1, 2)
  apart = np.linalg.norm(everywhere[pairs[:, 0]] - everywhere[pairs[:, 1]], axis=1)
  pairs = pairs[(pairs[:, 1] >= count) | (apart < near)]
  if len(pairs):
    half = np.full(len(pairs), 0.5)
    log_odds = _log_odds(half) - _log_odds(threshold)
    more = _Candidates(everywhere, pairs, half, ink, log_odds=log_odds, **costs)
    candidates.extend(more)
    kept_edges = np.concatenate([kept_edges, np.zeros(len(more.ends), bool)])
    kept_edges, _ = _search(candidates, kept_edges, ink.weight, node_costs)
  edges, prob = candidates.ends[kept_edges], candidates.prob[kept_edges]
  all_prob = np.concatenate([node_prob[kept], np.full(len(new), 0.5)])
  used, edges = np.unique(edges, return_inverse=True)
  return chains.from_parts(
    candidates.nodes[used], all_prob[used], edges.reshape(-1, 2), prob
  )


def misfit(graph, drawing, *, reach=_REACH, edge_cost=0.024, node_cost=0.02):
  """How badly a graph, as it is, explains a drawing: what `select` makes small.

  Args:
    graph: `Graph` without batch axes; what has a probability above 0 is there.
    drawing: `[S, S]` float >= 0.
    reach: see `select`, as the next two.
    edge_cost: of an edge.
    node_cost: of a node with an edge.

  Returns:
    float >= 0, a length in [-1, 1] units: ink without an edge, paper below edges, and
    the costs of edges and nodes.
  """
  ink = _Ink(drawing, reach)
  nodes, edges = graphs.to_lists(graph, 0)
  if not len(edges):
    return float(ink.weight.sum())
  first, last = _ends_of(nodes.astype(np.float64), edges)
  left = _unexplained(first, last, ink, reach).min(axis=0).sum()
  paper = ink.paper_between(first, last) @ np.linalg.norm(last - first, axis=1)
  num_nodes = len(np.unique(edges))
  return float(left + paper + edge_cost * len(edges) + node_cost * num_nodes)


def _log_odds(prob):
  prob = np.clip(prob, 1e-3, 1 - 1e-3)
  return np.log(prob) - np.log1p(-prob)


def _search(candidates, kept, weight, node_costs):
  """Takes edges in and out, the best first, while that lowers the cost.

  Args:
    candidates: `_Candidates`.
    kept: `[M]` bool, where to start.
    weight: `[P]` of the points of ink.
    node_costs: `[3]`, of a node with no edge, one, and more.

  Returns:
    `[M]` bool and what is left unexplained of each point, `[P]`.
  """
  ends, cost = candidates.ends, candidates.cost
  num_points = candidates.unexplained.shape[1]
  nothing = weight[None]
  kept = kept.copy()
  degree = np.bincount(ends[kept].ravel(), minlength=len(candidates.nodes))
  points = np.arange(num_points)
  left = nothing[0]

  def of_nodes(edges, change):
    """What both nodes of edges cost, were their degrees changed by so many."""
    return node_costs[np.minimum(degree[ends[edges]] + change, 2)].sum(axis=1)

  # Each step lowers the cost, so the search ends; the limit is for bad luck.
  for _ in range(4 * len(cost)):
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    best_gain, best = 0, None
    left = nothing[0]
    if len(inside):
      table = np.concatenate([candidates.unexplained[inside], nothing])
      winner = table.argmin(axis=0)
      left = table[winner, points]
      table[winner, points] = np.inf
      second = np.minimum(table.min(axis=0), nothing[0])
      loss = np.bincount(winner, second - left, minlength=len(table))[:-1]
      gain = cost[inside] - loss + of_nodes(inside, 0) - of_nodes(inside, -1)
      best_gain, best = gain.max(), inside[gain.argmax()]
    if len(outside):
      gain = np.maximum(0, left - candidates.unexplained[outside]).sum(axis=1)
      gain += of_nodes(outside, 0) - of_nodes(outside, 1) - cost[outside]
      if gain.max() > best_gain:
        best_gain, best = gain.max(), outside[gain.argmax()]
    if best_gain <= 1e-6:
      break
    kept[best] = not kept[best]
    degree[ends[best]] += 1 if kept[best] else -1
  return kept, left


def _ends_of_rest(candidates, kept, left, ink, reach):
  """Positions `[K, 2]` for new nodes: both ends, and a bend, of each piece of ink left.

  What lies beside an edge is put on it, and what lies beside a node is that node's.
  """
  rest = np.zeros((ink.side, ink.side), bool)
  index = ((ink.points[left > 0.5 * ink.weight] + 1) / ink.pixel).astype(int)
  rest[index[:, 1], index[:, 0]] = True
  if ink.mask.sum() > len(ink.points):  # Some ink is not among the points.
    rest = scipy.ndimage.binary_dilation(rest) & ink.mask
  pieces, count = scipy.ndimage.label(rest, np.ones((3, 3)))
  edges = candidates.ends[kept]
  first, last = _ends_of(candidates.nodes, edges)
  nodes = candidates.nodes[np.unique(edges)]
  near = 2 * reach + ink.half_width
  found = []
  for k in range(1, count + 1):
    rows, columns = np.nonzero(pieces == k)
    if len(rows) * ink.pixel < 0.08 * max(1.0, 2 * ink.half_width / ink.pixel):
      continue
    points = (np.stack([columns, rows], axis=1) + 0.5) * ink.pixel - 1
    start = points[((points - points.mean(axis=0)) ** 2).sum(axis=1).argmax()]
    end = points[((points - start) ** 2).sum(axis=1).argmax()]
    ends = [start, end]
    beside = chains.distance(points, start[None], end[None])[0]
    if beside.max() > reach + ink.half_width:
      ends.append(points[beside.argmax()])
    for point in ends:
      if len(nodes) and np.linalg.norm(nodes - point, axis=1).min() < 0.75 * near:
        continue
      if len(edges):
        away = chains.distance(point[None], first, last)[:, 0]
        nearest = away.argmin()
        if away[nearest] < near:
          edge = last[nearest] - first[nearest]
          along = (point - first[nearest]) @ edge / max(edge @ edge, 1e-12)
          point = first[nearest] + np.clip(along, 0, 1) * edge
      found.append(point)
  return np.array(found).reshape(-1, 2)


def open_filled_cycles(graph, drawing):
  """Opens the cycles of three or four edges that enclose no paper, at the longest.

  Where a line is wide or strokes run into each other, several chords lie side by side.

  Args:
    graph: `Graph` without batch axes whose probabilities are 0 or count as present.
    drawing: `[S, S]` float >= 0.

  Returns:
    `Graph` of numpy arrays whose capacity is its number of nodes.
  """
  drawing = np.asarray(drawing, np.float32)
  paper = ~_is_ink(drawing)
  least = _LEAST_HOLE * (drawing.shape[0] / 128) ** 2
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)

  def length(a, b):
    return np.linalg.norm(nodes[a] - nodes[b])

  def is_filled(a, b):
    """Whether a shorter way round from a to b encloses no paper."""
    limit = length(a, b)
    ways = [(k,) for k in sorted(neighbours[a] & neighbours[b])]
    for k in sorted(neighbours[a] - {b}):
      ways += [(k, m) for m in sorted(neighbours[k] & neighbours[b] - {a})]
    for way in ways:
      chain = [a, *way, b]
      if all(length(p, q) <= limit for p, q in zip(chain[:-1], chain[1:], strict=True)):
        if _count_inside(nodes[chain], paper) < least:
          return True
    return False

  changed = True
  while changed:
    changed = False
    edges = {(a, b) for a in neighbours for b in neighbours[a] if a < b}
    for a, b in sorted(edges, key=lambda edge: (-length(*edge), edge)):
      if is_filled(a, b):
        neighbours[a].discard(b)
        neighbours[b].discard(a)
        changed = True
  return chains.from_adjacency(nodes, prob, neighbours, edge_prob)


def _count_inside(polygon, mask):
  """Number of pixels of a mask `[S, S]` whose centres lie in a polygon `[K, 2]`."""
  side = mask.shape[0]
  corners = (np.asarray(polygon, np.float64) + 1) * side / 2
  low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, side)
  high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, side)
  x = np.arange(low[0], high[0])[None] + 0.5
  y = np.arange(low[1], high[1])[:, None] + 0.5
  inside = np.zeros((y.shape[0], x.shape[1]), bool)
  for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
    if y0 != y1:
      crosses = (y0 > y) != (y1 > y)
      inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
  return int((inside & mask[low[1] : high[1], low[0] : high[0]]).sum())
