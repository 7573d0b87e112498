"""Drawings that are one closed outline, drawn by hand: closing them, finding corners.

A polygon drawn by hand has corners that stay open, overshoot or are rounded, and dashed
sides. In itself none of that is wrong: strokes of a character end where they end. But
where all of a drawing would be one closed line if little of it were otherwise, that is
what was meant (`close`). Then each corner is where its two sides meet (`fit_corners`),
which rounded and acute corners do not show themselves.

numpy, one graph at a time; positions are in [-1, 1] units. A graph is changed as a
whole or not at all.
"""

import itertools
import math

import numpy as np

from img2graph import chains

# Pieces of an outline beyond these are not tried in all orders.
_MOST_PIECES = 6
# Where sides meet at a sharper angle their lines run into each other before the corner,
# which is then the end of a spur that goes on between them.
_ACUTE = np.cos(np.deg2rad(70))
_AHEAD = np.cos(np.deg2rad(35))
# How far sides are drawn out to meet, for each length of what is open, and beyond that.
_EXTENSION = (2.5, 0.05)
# Ends of one side nearer than this become a single node.
_SAME = 0.07
# Sine of the least angle at which two sides have a corner.
_LEAST_SINE = 0.17
# A side is fitted to the ink near it, this far, without this share at both of its ends.
_REACH = 0.1
_AT_ENDS = 0.1
_SHORTEST_SIDE = 0.1


def close(graph, most):
  """Makes one closed outline of a drawing that nearly is one.

  Spurs are taken away, the shortest first, and free ends are joined, each piece to the
  next around the outline: where their lines meet, if that is near, else by an edge.

  Args:
    graph: `Graph` without batch axes whose probabilities are 0 or count as present.
    most: share of the length of all edges that spurs and what is joined may have.

  Returns:
    `Graph` in which each node has two edges and all are one ring, numpy arrays whose
    capacity is the number of nodes; or `graph` itself, if it is no such outline, or one
    already. Edges that were not there have the probability 0.5.
  """
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)
  neighbours = {k: set(near) for k, near in neighbours.items() if near}
  if not any(len(near) == 1 for near in neighbours.values()):
    return graph
  num_edges = sum(len(near) for near in neighbours.values()) // 2
  if num_edges > len(neighbours):
    return graph  # It has two rings or more.
  length = sum(
    _length(nodes, (a, b)) for a in neighbours for b in neighbours[a] if a < b
  )
  left = _prune(nodes, neighbours, most * length)
  if left is None or any(len(near) > 2 for near in neighbours.values()):
    return graph
  pieces, rings = _pieces(neighbours)
  if rings + bool(pieces) != 1 or len(pieces) > _MOST_PIECES or len(neighbours) < 3:
    return graph
  joins = _best_joins(nodes, pieces)
  if sum(_length(nodes, ends) for ends in joins) > left:
    return graph
  for a, b in joins:
    (before,), (after,) = neighbours[a], neighbours[b]
    if before == b:
      return graph
    corner = _corner(nodes, before, a, b, after)
    if corner is None:
      edge_prob[chains.pair(a, b)] = 0.5
      neighbours[a].add(b)
      neighbours[b].add(a)
    else:  # Node a becomes the corner, and b is no more.
      nodes[a] = corner
      edge_prob[chains.pair(a, after)] = edge_prob[chains.pair(b, after)]
      neighbours[a].add(after)
      neighbours[after] = neighbours[after] - {b} | {a}
      del neighbours[b]
  if len(neighbours) < 3:
    return graph
  return chains.from_adjacency(nodes, prob, neighbours, edge_prob)


def _length(nodes, chain):
  """Length of the way along a chain of nodes."""
  return sum(math.dist(nodes[a], nodes[b]) for a, b in itertools.pairwise(chain))


def _prune(nodes, neighbours, most):
  """Takes spurs away, in place; what is left of `most`, or None if it is too little."""
  while spurs := [spur for k in neighbours if (spur := _spur(neighbours, k))]:
    spur = min(spurs, key=lambda spur: _length(nodes, spur))
    most -= _length(nodes, spur)
    if most < 0:
      return None
    *gone, joint = spur
    neighbours[joint].discard(gone[-1])
    for k in gone:
      del neighbours[k]
    if len(neighbours[joint]) == 2:
      first, second, ahead = (
        (nodes[k] - nodes[joint]) / max(_length(nodes, (k, joint)), 1e-9)
        for k in (*sorted(neighbours[joint]), gone[0])
      )
      middle = first + second
      middle = middle / max(float(np.linalg.norm(middle)), 1e-9)
      if first @ second > _ACUTE and -(ahead @ middle) > _AHEAD:
        nodes[joint] = nodes[gone[0]]
  return most


def _spur(neighbours, k):
  """Nodes from a free end k to the first where three edges or more meet, or None."""
  chain, before = [k], None
  if len(neighbours[k]) != 1:
    return None
  while len(neighbours[chain[-1]] - {before}) == 1:
    (after,) = neighbours[chain[-1]] - {before}
    before = chain[-1]
    chain.append(after)
  return chain if len(neighbours[chain[-1]]) > 2 else None


def _pieces(neighbours):
  """Both ends of each open chain, and the number of rings; no node has three edges."""
  seen, pieces, rings = set(), [], 0
  for k in sorted(neighbours):
    if k in seen:
      continue
    group, rest = {k}, [k]
    while rest:
      new = neighbours[rest.pop()] - group
      group |= new
      rest += new
    seen |= group
    ends = tuple(sorted(j for j in group if len(neighbours[j]) == 1))
    rings += not ends
    pieces += [ends] if ends else []
  return pieces, rings


def _best_joins(nodes, pieces):
  """Pairs of ends that make one ring of all pieces, with the least length."""
  if not pieces:
    return []
  first, rest = pieces[0], pieces[1:]

  def rings():
    for order in itertools.permutations(rest):
      for turned in itertools.product((False, True), repeat=len(order)):
        ways = zip(order, turned, strict=True)
        ring = [first, *(piece[::-1] if turn else piece for piece, turn in ways)]
        yield [(a[1], b[0]) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]

  return min(rings(), key=lambda pairs: sum(_length(nodes, ends) for ends in pairs))


def _corner(nodes, before, a, b, after):
  """Where the lines from `before` to end a and from `after` to end b meet, or None.

  Ends of one line that are near each other meet half way.
  """
  first, second = nodes[a] - nodes[before], nodes[b] - nodes[after]
  gap = nodes[b] - nodes[a]
  lengths = np.linalg.norm(first), np.linalg.norm(second)
  sine = _cross(first, second)
  if abs(sine) <= 2 * _LEAST_SINE * lengths[0] * lengths[1]:
    near = np.linalg.norm(gap) < _SAME
    return (nodes[a] + nodes[b]) / 2 if near else None
  along = _cross(gap, second) / sine, _cross(gap, first) / sine
  limit = _EXTENSION[0] * np.linalg.norm(gap) + _EXTENSION[1]
  ways = zip(along, lengths, strict=True)
  fits = (-0.5 < share and abs(share) * length <= limit for share, length in ways)
  return nodes[a] + along[0] * first if all(fits) else None


def _cross(a, b):
  return a[0] * b[1] - a[1] * b[0]


def ring_of(neighbours):
  """The nodes of a graph that is one ring, in order, or None if it is not."""
  if not neighbours or any(len(near) != 2 for near in neighbours.values()):
    return None
  ring, before = [min(neighbours)], None
  while len(ring) <= len(neighbours):
    after = min(neighbours[ring[-1]] - {before})
    if after == ring[0]:
      break
    before = ring[-1]
    ring.append(after)
  return ring if len(ring) == len(neighbours) else None


def fit_corners(graph, points, weight, most=0.15):
  """Moves the corners of one closed outline to where lines along its sides meet.

  Args:
    graph: `Graph` without batch axes whose probabilities are 0 or count as present.
    points: `[P, 2]` float, ink.
    weight: `[P]` float >= 0, of the points.
    most: farthest that a corner is moved.

  Returns:
    `Graph`, or `graph` itself if it is not one ring.
  """
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)
  neighbours = {k: near for k, near in neighbours.items() if near}
  ring = ring_of(neighbours)
  if ring is None:
    return graph
  first, last = nodes[ring], nodes[ring[1:] + ring[:1]]
  lines = _sides(points, weight, first, last)
  for k, before, after in zip(ring, lines[-1:] + lines[:-1], lines, strict=True):
    if before is None or after is None:
      continue
    (start, direction), (other, across) = before, after
    sine = _cross(direction, across)
    if abs(sine) < _LEAST_SINE:
      continue
    corner = start + _cross(other - start, across) / sine * direction
    if np.linalg.norm(corner - nodes[k]) <= most:
      nodes[k] = corner
  return chains.from_adjacency(nodes, prob, neighbours, edge_prob)


def _sides(points, weight, first, last):
  """For each side a point and a direction of the line along its ink, or None."""
  away = chains.distance(points, first, last)
  nearest = away.argmin(axis=0)
  lines = []
  for k, (start, end) in enumerate(zip(first, last, strict=True)):
    side = end - start
    along = (points - start) @ side / max(float(side @ side), 1e-9)
    own = (nearest == k) & (away[k] < _REACH)
    own &= (along > _AT_ENDS) & (along < 1 - _AT_ENDS)
    if own.sum() < 5 or np.linalg.norm(side) < _SHORTEST_SIDE:
      lines.append(None)
      continue
    middle = np.average(points[own], axis=0, weights=weight[own])
    spread = (points[own] - middle) * np.sqrt(weight[own])[:, None]
    lines.append((middle, np.linalg.svd(spread, full_matrices=False)[2][0]))
  return lines


def square(graph, most=25.0):
  """Makes a rectangle of one closed outline with four corners, if it nearly is one.

  Args:
    graph: as for `close`.
    most: degrees that each corner may be off a right angle.

  Returns:
    `Graph`, or `graph` itself if it is not one ring of four nodes or not near a
    rectangle. The rectangle has the same centre, the mean direction of the sides, and
    their mean lengths.
  """
  nodes, prob, neighbours, edge_prob = chains.adjacency(graph)
  neighbours = {k: near for k, near in neighbours.items() if near}
  ring = ring_of(neighbours)
  if ring is None or len(ring) != 4:
    return graph
  corners = nodes[ring]
  sides = np.roll(corners, -1, axis=0) - corners
  turn = np.arctan2(
    _cross(sides.T, np.roll(sides, -1, axis=0).T),
    (sides * np.roll(sides, -1, axis=0)).sum(axis=1),
  )
  off = np.abs(np.abs(np.rad2deg(turn)) - 90)
  if off.max() > most or abs(np.sign(turn).sum()) != 4:
    return graph
  # Opposite sides have the same direction after a half turn, adjacent ones after a
  # quarter: four times the angle is the same for all.
  complex_sides = sides[:, 0] + 1j * sides[:, 1]
  angle = np.angle((complex_sides**4 / np.abs(complex_sides) ** 3).sum()) / 4
  axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
  middle = corners.mean(axis=0)
  from_middle = (corners - middle) @ axes.T
  half = np.abs(from_middle).mean(axis=0)
  nodes[ring] = middle + np.sign(from_middle) * half @ axes
  return chains.from_adjacency(nodes, prob, neighbours, edge_prob)
