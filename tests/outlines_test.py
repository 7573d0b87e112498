"""Tests of img2graph/outlines.py."""

import numpy as np
import pytest

from img2graph import graph as graphs
from img2graph import outlines

SQUARE = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
ROUND = [(0, 1), (1, 2), (2, 3), (3, 0)]


def make(nodes, edges):
  """A graph of what is certain."""
  return graphs.from_lists(np.array(nodes, np.float32), np.array(edges, np.int32))


def corners(graph):
  """Sorted rounded positions of a graph that must be one ring."""
  nodes, edges = graphs.to_lists(graph, 0)
  assert sorted(edges.ravel().tolist()) == sorted(2 * list(range(len(nodes))))
  return rounded(nodes)


def rounded(points):
  return sorted(tuple(np.round(p, 2) + 0.0) for p in np.asarray(points, np.float64))


def turned(points, degrees=20, shift=(0.05, -0.1)):
  angle = np.deg2rad(degrees)
  matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  return np.array(points) @ matrix.T + shift


def expected(points, place=lambda points: points):
  return rounded(place(np.array(points)))


# Nodes and edges that mean the square.
MEANT = {
  'a corner stays open': (
    [(-0.5, -0.4), *SQUARE[1:], (-0.4, -0.5)],
    [(1, 2), (2, 3), (3, 0), (4, 1)],
  ),
  'a corner is overshot': (
    [*SQUARE, (-0.5, -0.62), (-0.61, -0.5)],
    [*ROUND, (0, 4), (0, 5)],
  ),
  'a side is dashed': (
    [*SQUARE, (-0.1, -0.5), (0.0, -0.5), (0.2, -0.5), (0.3, -0.5)],
    [(0, 4), (5, 6), (7, 1), *ROUND[1:]],
  ),
  'a stroke goes on behind the corner, another ends before it': (
    [(-0.5, -0.65), *SQUARE[1:], (-0.42, -0.5)],
    [(1, 2), (2, 3), (3, 0), (4, 1)],
  ),
}


@pytest.mark.parametrize('place', [lambda p: np.array(p), turned])
@pytest.mark.parametrize('name', MEANT)
def test_a_drawing_that_is_nearly_an_outline_becomes_one(name, place):
  nodes, edges = MEANT[name]
  closed = corners(outlines.close(make(place(nodes), edges), 0.13))
  wanted = expected(SQUARE, place)
  if 'dashed' in name:  # The ends of dashes stay where they are, on the side.
    assert set(wanted) <= set(closed)
    assert len(closed) <= len(nodes)
  else:
    assert closed == wanted


@pytest.mark.parametrize(
  'nodes, edges',
  [
    # A cup, whose opening is a quarter of all.
    (SQUARE, ROUND[:3]),
    # A square with a stem, which is a seventh of all.
    ([*SQUARE, (-0.5, -1.17)], [*ROUND, (0, 4)]),
    # A stem and an opening, each of which would do alone.
    (
      [*SQUARE, (-0.15, -0.5), (0.15, -0.5), (0.71, 0.71)],
      [(0, 4), (5, 1), *ROUND[1:], (2, 6)],
    ),
    # A square with a line across, and a loose end.
    ([*SQUARE, (0.55, 0.55)], [*ROUND, (0, 2), (2, 4)]),
    # Two squares, one of them open.
    (
      [*SQUARE, (0.7, 0), (0.9, 0), (0.9, 0.2), (0.7, 0.2), (0.7, 0.02)],
      [*ROUND, (4, 5), (5, 6), (6, 7), (7, 8)],
    ),
    # A line, and a closed square.
    ([(0, 0), (0.5, 0.5)], [(0, 1)]),
    (SQUARE, ROUND),
    ([], np.zeros((0, 2))),
  ],
)
def test_other_drawings_stay_as_they_are(nodes, edges):
  graph = make(np.reshape(nodes, (-1, 2)), edges)
  assert outlines.close(graph, 0.13) is graph


def test_how_much_may_be_otherwise_is_told():
  cup = make(SQUARE, ROUND[:3])
  assert outlines.close(cup, 0.33) is cup
  assert corners(outlines.close(cup, 0.34)) == expected(SQUARE)


def test_the_tip_of_an_acute_corner_is_the_end_of_its_spur():
  """Two sides run into each other before they meet."""
  needle = make(
    [(0, 0.1), (-0.1, 0.8), (0.1, 0.8), (0, -0.1)], [(0, 1), (1, 2), (2, 0), (0, 3)]
  )
  assert (0, -0.1) in corners(outlines.close(needle, 0.13))
  # To one side of them, it is a stroke drawn too far.
  beside = make(
    [(0, 0.1), (-0.1, 0.8), (0.1, 0.8), (0.2, 0.1)], [(0, 1), (1, 2), (2, 0), (0, 3)]
  )
  assert (0, 0.1) in corners(outlines.close(beside, 0.13))


def along(points, skip=0.12):
  """Ink along the sides of a polygon, but not near its corners, and weights."""
  t = np.linspace(skip, 1 - skip, 50)[:, None]
  points = np.array(points)
  sides = zip(points, np.roll(points, -1, axis=0), strict=True)
  ink = np.concatenate([a + t * (b - a) for a, b in sides])
  return ink, np.ones(len(ink))


def test_corners_are_where_the_sides_meet():
  inside = 0.93 * turned(SQUARE)
  fitted = outlines.fit_corners(make(inside, ROUND), *along(turned(SQUARE)))
  assert corners(fitted) == expected(SQUARE, turned)
  # No corner goes far.
  near = outlines.fit_corners(make(inside, ROUND), *along(turned(SQUARE)), most=0.01)
  assert corners(near) == expected(inside)


def test_faint_ink_and_ink_at_the_ends_of_a_side_move_no_corner():
  inside, square = 0.93 * turned(SQUARE), turned(SQUARE)
  ink, weight = along(square)
  # A trace of another line along all sides, a bit larger; and corners cut short.
  middle = square.mean(axis=0)
  faint = middle + 1.08 * (ink - middle)
  sides = np.roll(square, -1, axis=0) - square
  t = np.linspace(0, 0.05, 10)[:, None, None]
  ends = np.concatenate([square + t * sides, square + (1 - t) * sides]).reshape(-1, 2)
  cut = middle + 0.86 * (ends - middle)
  points = np.concatenate([ink, faint, cut])
  weight = np.concatenate([weight, np.full(len(faint), 1e-6), np.ones(len(cut))])
  fitted = outlines.fit_corners(make(inside, ROUND), points, weight)
  assert corners(fitted) == expected(SQUARE, turned)


def test_corners_of_what_is_no_single_ring_stay():
  graph = make([*SQUARE, (0, -0.9)], [*ROUND, (0, 4)])
  assert outlines.fit_corners(graph, *along(turned(SQUARE))) is graph


def test_a_corner_between_sides_of_one_direction_stays():
  nodes = [*SQUARE, (0.0, -0.5)]
  edges = [(0, 4), (4, 1), *ROUND[1:]]
  fitted = outlines.fit_corners(make(nodes, edges), *along(SQUARE))
  assert (0, -0.5) in corners(fitted)


def test_what_is_nearly_a_rectangle_becomes_one():
  skewed = turned(
    np.array(SQUARE) * [1, 0.5] + [[0, 0.04], [0, -0.04], [0.03, 0], [0, 0]]
  )
  nodes, edges = graphs.to_lists(outlines.square(make(skewed, ROUND)), 0)
  assert edges.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
  sides = np.roll(nodes, -1, axis=0) - nodes
  np.testing.assert_allclose(
    (sides * np.roll(sides, -1, axis=0)).sum(axis=1), 0, atol=1e-6
  )
  assert np.abs(nodes - skewed).max() < 0.06
  # A rectangle stays what it is.
  exact = turned(np.array(SQUARE) * [1, 0.3])
  same, _ = graphs.to_lists(outlines.square(make(exact, ROUND)), 0)
  np.testing.assert_allclose(same, exact, atol=1e-6)


@pytest.mark.parametrize(
  'nodes',
  [
    SQUARE[:3],
    [(-0.5, -0.5), (0.1, -0.5), (0.9, 0.5), (-0.1, 0.5)],
    # Turns by 77, 77, 77 and 129 degrees.
    [(-0.5, -0.5), (0.5, -0.5), (0.68, 0.28), (0.29, 0.47)],
  ],
)
def test_other_outlines_stay_as_they_are(nodes):
  n = len(nodes)
  graph = make(nodes, [(k, (k + 1) % n) for k in range(n)])
  assert outlines.square(graph) is graph
