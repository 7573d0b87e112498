"""Tests of img2graph/decoding.py."""

import numpy as np
import pytest

from img2graph import decoding
from img2graph import graph as graphs
from tests import compiled

HOUSE = (
  np.array([[-0.5, 0.7], [0.5, 0.7], [0.5, -0.1], [-0.5, -0.1], [0.0, -0.7]]),
  [(0, 1), (1, 2), (2, 3), (0, 3), (2, 4), (3, 4)],
)


def draw(nodes, edges, *, side=128, half_width=1.2):
  """`[side, side]` ink of straight lines of that half width in pixels."""
  nodes, edges = np.asarray(nodes, np.float32), np.asarray(edges)
  return np.asarray(
    compiled.draw_edges(
      nodes[edges[:, 0]][None],
      nodes[edges[:, 1]][None],
      np.ones(len(edges), np.float32),
      height=side,
      width=side,
      thickness=half_width * 2 / side,
      profile='antialias',
      compose='max',
    )
  )[0]


def believe(nodes, probs, node_prob=0.9):
  """A graph with `{(i, j): probability}`."""
  nodes = np.asarray(nodes, np.float32)
  edges = np.array(sorted(probs), np.int32).reshape(-1, 2)
  return graphs.from_lists(
    nodes,
    edges,
    node_prob=np.full(len(nodes), node_prob, np.float32),
    edge_prob=np.array([probs[tuple(e)] for e in edges.tolist()], np.float32),
  )


def found(graph):
  """Edges of a graph as a sorted list of pairs of rounded positions."""
  nodes, edges = graphs.to_lists(graph, 0)
  place = [tuple((np.round(n, 2) + 0.0).tolist()) for n in nodes]
  return sorted(tuple(sorted((place[i], place[j]))) for i, j in edges)


def expected(nodes, edges):
  place = [tuple((np.round(n, 2) + 0.0).tolist()) for n in np.float32(nodes)]
  return sorted(tuple(sorted((place[i], place[j]))) for i, j in edges)


ALL_PAIRS = [(i, j) for j in range(5) for i in range(j)]


@pytest.mark.parametrize('half_width', [0.6, 1.2, 3.0])
@pytest.mark.parametrize('side', [64, 128])
@pytest.mark.parametrize('right, wrong', [(0.9, 0.3), (0.6, 0.6), (0.4, 0.1)])
def test_the_ink_decides_where_probabilities_do_not(right, wrong, side, half_width):
  nodes, edges = HOUSE
  probs = {pair: right if pair in edges else wrong for pair in ALL_PAIRS}
  ink = draw(nodes, edges, side=side, half_width=half_width)
  assert found(decoding.decode(believe(nodes, probs), ink)) == expected(nodes, edges)


def test_of_two_ways_to_draw_a_stroke_one_is_kept():
  nodes = [[-0.8, 0], [0.0, 0.02], [0.8, 0]]
  graph = believe(nodes, {(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.9})
  ink = draw(nodes, [(0, 2)])
  assert found(decoding.decode(graph, ink)) == expected(nodes, [(0, 2)])
  # What is finer than that keeps the node, however little it is off.
  finer, _ = graphs.to_lists(decoding.decode(graph, ink, tolerance=0.01), 0)
  assert np.linalg.norm(finer - nodes[1], axis=1).min() < 1e-6


def test_ink_without_nodes_gets_some():
  nodes, edges = HOUSE
  ink = draw(nodes, [*edges, (0, 4)])
  nothing = graphs.from_lists(np.zeros((0, 2)), np.zeros((0, 2), int))
  stroke = draw([[-0.6, 0.4], [0.7, -0.3]], [(0, 1)])
  positions, pairs = graphs.to_lists(decoding.decode(nothing, stroke), 0)
  assert len(positions) == 2 and len(pairs) == 1
  order = np.argsort(positions[:, 0])
  np.testing.assert_allclose(positions[order], [[-0.6, 0.4], [0.7, -0.3]], atol=0.05)
  # A stem that nobody believed in joins the bar that it touches.
  bar = believe([[-0.8, -0.5], [0.8, -0.5]], {(0, 1): 0.9})
  ink = draw([[-0.8, -0.5], [0.8, -0.5], [0.1, -0.5], [0.1, 0.6]], [(0, 1), (2, 3)])
  _, pairs = graphs.to_lists(decoding.decode(bar, ink), 0)
  assert len(pairs) == 3
  assert sorted(np.bincount(pairs.ravel()).tolist()) == [1, 1, 1, 3]


def test_two_ends_that_ink_joins_are_joined():
  # So short an edge explains next to nothing; that strokes go on speaks for it.
  nodes = [[-0.7, 0.0], [-0.02, 0.0], [0.02, 0.0], [0.7, 0.0]]
  probs = {(0, 1): 0.9, (2, 3): 0.9, (1, 2): 0.4}
  ink = draw(nodes, [(0, 3)])
  kept = found(decoding.select(believe(nodes, probs), ink))
  assert kept == expected(nodes, [(0, 1), (1, 2), (2, 3)])
  apart = found(decoding.select(believe(nodes, probs), ink, end_cost=0.0))
  assert apart == expected(nodes, [(0, 1), (2, 3)])


def test_probabilities_and_threshold_weigh_against_the_ink():
  nodes = [[-0.5, 0.3], [0.5, 0.3], [0.5, 0.2]]
  ink = draw(nodes, [(0, 1)])
  doubtful = believe(nodes, {(0, 1): 0.95, (1, 2): 0.35})
  assert len(found(decoding.select(doubtful, ink, prior=0.01))) == 1
  assert len(found(decoding.select(doubtful, ink, threshold=0.999, prior=0.5))) == 0


def test_an_edge_follows_its_ink_as_closely_as_is_asked():
  angle = np.linspace(0, np.pi, 60)
  arc = 0.6 * np.stack([np.cos(angle), -np.sin(angle)], axis=1)
  ink = draw(arc, [(k, k + 1) for k in range(59)])
  few = arc[[0, 15, 30, 45, 59]]
  graph = believe(few, {(k, k + 1): 0.9 for k in range(4)})
  counts = []
  for tolerance in (0.024, 0.04, 0.06):
    nodes, edges = graphs.to_lists(decoding.decode(graph, ink, tolerance=tolerance), 0)
    counts.append(len(nodes))
    middles = nodes[edges].mean(axis=1)
    off = np.abs(np.linalg.norm(middles, axis=1) - 0.6)
    assert off.max() < tolerance + 0.01
  assert counts[0] > counts[1] >= counts[2]
  # Edges need not follow their ink as closely as bends are kept.
  stiff = decoding.decode(graph, ink, tolerance=0.024, follow_tolerance=0.06)
  assert stiff.capacity == len(few) < counts[0]
  # Another line beside it does not bend an edge.
  both = draw([(-0.7, 0), (0.7, 0), (-0.7, 0.055), (0.7, 0.055)], [(0, 1), (2, 3)])
  one = believe([(-0.7, 0), (0.7, 0)], {(0, 1): 0.9})
  ink = decoding._Ink(both, 0.03)
  assert decoding.follow(one, ink, 0.024).capacity == 2


def test_an_edge_keeps_its_probability_and_a_new_one_has_one_half():
  nodes = [[-0.8, -0.5], [0.8, -0.5], [-0.8, 0.5], [0.8, 0.5]]
  ink = draw(nodes, [(0, 1), (2, 3)])
  graph = decoding.decode(believe(nodes[:2], {(0, 1): 0.7}), ink)
  probs = graph.edge_prob[np.triu_indices(4, 1)]
  np.testing.assert_allclose(np.sort(probs[probs > 0]), [0.5, 0.7])


def test_numbering_does_not_matter():
  nodes, edges = HOUSE
  probs = {pair: 0.7 if pair in edges else 0.5 for pair in ALL_PAIRS}
  ink = draw(nodes, edges)
  graph = believe(nodes, probs)
  turned = graphs.relabel(graph, np.array([3, 0, 4, 2, 1]))
  assert found(decoding.decode(turned, ink)) == found(decoding.decode(graph, ink))


def test_blank_paper_has_an_empty_graph():
  nodes, edges = HOUSE
  graph = believe(nodes, {pair: 0.9 for pair in edges})
  assert decoding.decode(graph, np.zeros((64, 64))).capacity == 0


def test_a_cycle_that_encloses_no_paper_is_opened_at_its_longest_edge():
  wedge = np.array([[-0.6, 0.0], [0.6, 0.05], [0.0, 0.06]])
  triangle = np.array([[-0.6, 0.0], [0.6, 0.05], [0.0, 0.7]])
  edges = [(0, 1), (1, 2), (0, 2)]
  for nodes, kept in ((wedge, [(1, 2), (0, 2)]), (triangle, edges)):
    graph = believe(nodes, {pair: 0.9 for pair in edges})
    opened = decoding.open_filled_cycles(graph, draw(nodes, edges, half_width=3))
    assert found(opened) == expected(nodes, kept)


@pytest.mark.parametrize('side', [128, 256, 512])
def test_whether_a_small_cycle_is_filled_does_not_depend_on_the_pixels(side):
  angle = np.deg2rad([90, 210, 330])
  edges = [(0, 1), (1, 2), (0, 2)]
  for radius, kept in ((0.065, 2), (0.09, 3)):
    nodes = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    graph = believe(nodes, {pair: 0.9 for pair in edges})
    drawing = draw(nodes, edges, side=side, half_width=1.2 * side / 128)
    assert len(found(decoding.open_filled_cycles(graph, drawing))) == kept


def test_a_filled_quadrangle_is_opened_too():
  nodes = np.array([[-0.6, 0.0], [0.6, 0.0], [0.4, 0.05], [-0.4, 0.05]])
  edges = [(0, 1), (1, 2), (2, 3), (0, 3)]
  graph = believe(nodes, {pair: 0.9 for pair in edges})
  opened = decoding.open_filled_cycles(graph, draw(nodes, edges, half_width=3))
  assert found(opened) == expected(nodes, [(1, 2), (2, 3), (0, 3)])


@pytest.mark.parametrize(
  'options, drawing, words',
  [
    (dict(threshold=1.0), np.ones((8, 8)), r'threshold must be in \[0, 1\); got 1.0'),
    (dict(reach=0.0), np.ones((8, 8)), 'reach must be positive; got 0.0'),
    (dict(tolerance=-1.0), np.ones((8, 8)), 'tolerance must not be negative; got -1.0'),
    ({}, np.ones((8, 9)), r'must be \[S, S\]; got \[8, 9\]'),
  ],
)
def test_wrong_options_are_named(options, drawing, words):
  graph = believe([[0, 0], [0.5, 0]], {(0, 1): 0.9})
  with pytest.raises(ValueError, match=words):
    decoding.decode(graph, drawing, **options)


def test_the_drawn_graph_fits_best():
  nodes, edges = HOUSE
  drawing = draw(nodes, edges)
  right = decoding.misfit(believe(nodes, dict.fromkeys(edges, 0.9)), drawing)
  # Nothing is left over and no paper is covered: only edges and nodes cost.
  assert right == pytest.approx(6 * 0.024 + 5 * 0.02, abs=0.02)
  less = believe(nodes, dict.fromkeys(edges[1:], 0.9))
  more = believe(nodes, dict.fromkeys([*edges, (0, 2)], 0.9))
  moved = believe(nodes + [[0.05, 0]] + 0 * nodes, dict.fromkeys(edges, 0.9))
  nothing = believe(nodes, {})
  length = sum(np.linalg.norm(nodes[i] - nodes[j]) for i, j in edges)
  assert decoding.misfit(nothing, drawing) == pytest.approx(length, rel=0.15)
  assert right + 0.5 < decoding.misfit(less, drawing)
  assert right + 0.5 < decoding.misfit(more, drawing)
  assert right < decoding.misfit(moved, drawing) < decoding.misfit(nothing, drawing)


def test_near_ends_are_joined_whatever_the_encoder_believes():
  drawing = draw([[-0.6, 0], [0.6, 0.1]], [(0, 1)])
  nodes = [[-0.6, 0], [-0.05, 0.045], [0.1, 0.06], [0.6, 0.1]]
  graph = believe(nodes, {(0, 1): 0.9, (2, 3): 0.9, (1, 2): 0.0})
  assert len(graphs.to_lists(decoding.select(graph, drawing), 0)[1]) == 3
  apart = decoding.select(graph, drawing, near=0)
  assert len(graphs.to_lists(apart, 0)[1]) == 2


def test_what_is_refined_is_taken_only_if_it_fits_better():
  nodes, edges = HOUSE
  drawing = draw(nodes, edges)
  right = believe(nodes, dict.fromkeys(edges, 0.9))
  wrong = believe(nodes[:2], {(0, 1): 0.9})

  def decoded(graph, refined):
    # Nothing is mended, so that the two differ.
    options = dict(near=0, end_cost=0.0, prior=9.0)
    return found(decoding.decode_better(graph, refined, drawing, **options))

  assert decoded(wrong, right) == decoded(right, wrong) == decoded(right, None)
  assert decoded(wrong, None) != decoded(right, None)
  assert len(decoded(right, None)) == 6
