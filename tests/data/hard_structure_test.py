import collections
import functools
import itertools

import numpy as np
import pytest
from scipy import ndimage
from scipy import spatial

from img2graph import metrics
from img2graph.data import archives
from img2graph.data import hard_structure

KINDS = tuple(hard_structure.KINDS)


@functools.lru_cache
def drawn(kind, count=8):
  """[(image, nodes in pixels, edges)] of the first images of a kind."""
  found = [hard_structure.draw(kind, seed=1, index=i) for i in range(count)]
  return [(image, (nodes + 1) * 64, edges) for image, nodes, edges in found]


def degrees(edges):
  return sorted(collections.Counter(np.ravel(edges).tolist()).values())


def side_of(a, b, c):
  return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


@pytest.mark.parametrize('kind', KINDS)
def test_lines_meet_in_nodes_only_and_keep_the_margin(kind):
  for _, nodes, edges in drawn(kind):
    assert nodes.min() >= 8 - 1e-9 and nodes.max() <= 120 + 1e-9
    for (i, j), (k, m) in itertools.combinations(edges.tolist(), 2):
      if {i, j} & {k, m}:
        continue
      a, b, c, d = nodes[[i, j, k, m]]
      cross = side_of(a, b, c) != side_of(a, b, d)
      assert not (cross and side_of(c, d, a) != side_of(c, d, b))


@pytest.mark.parametrize('kind', KINDS)
def test_drawing_has_the_pieces_and_holes_of_its_graph(kind):
  for image, nodes, edges in drawn(kind):
    parent = np.arange(len(nodes))
    for i, j in edges:
      parent[parent == parent[i]] = parent[j]
    pieces = len(np.unique(parent))
    ink = image > 0.4
    assert ndimage.label(ink, np.ones((3, 3)))[1] == pieces
    # Euler: independent cycles are holes of a planar drawing.
    sizes = np.bincount(ndimage.label(~ink)[0].ravel())[1:]
    # In the wedge of an acute angle a pixel or two of paper may be cut off.
    holes = (sizes > 4).sum() - 1
    assert holes == len(edges) - len(nodes) + pieces


@pytest.mark.parametrize('kind', KINDS)
def test_ink_lies_on_the_graph_and_nowhere_else(kind):
  along = np.linspace(0, 1, 30)[:, None, None]
  centres = np.stack(np.meshgrid(*[np.arange(128) + 0.5] * 2), axis=-1)
  for image, nodes, edges in drawn(kind)[:4]:
    dots = (1 - along) * nodes[edges[:, 0]] + along * nodes[edges[:, 1]]
    dots = dots.reshape(-1, 2)
    # The darkest of the four pixels around a point of a line.
    x, y = (np.floor(dots - 0.5)).astype(int).T
    around = [image[y + dy, x + dx] for dy in (0, 1) for dx in (0, 1)]
    assert np.max(around, axis=0).min() > 0.4
    distance = spatial.cKDTree(dots).query(centres)[0]
    filled = spatial.cKDTree(nodes).query(centres)[0]
    reach = 7 * np.sqrt(2) + 1 if kind == 'filled' else 0
    assert image[(distance > 3.5) & (filled > reach)].max() == 0


def test_every_kind_has_its_structure():
  for _, _, edges in drawn('ring'):
    assert degrees(edges) == [2] * 60
  for _, nodes, edges in drawn('acute', 20):
    apex, a, b = nodes
    assert edges.tolist() == [[0, 1], [0, 2]]
    a, b = a - apex, b - apex
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert 10 <= np.degrees(np.arccos(cosine)) <= 25
  for _, nodes, edges in drawn('degree_6'):
    assert degrees(edges) == [1] * 6 + [6]
    arms = nodes[1:] - nodes[0]
    angles = np.sort(np.degrees(np.arctan2(arms[:, 1], arms[:, 0])))
    between = np.diff(angles, append=angles[0] + 360)
    assert between.min() >= 36 - 1e-6 and between.max() <= 84 + 1e-6
  for i, (_, nodes, edges) in enumerate(drawn('cross_or_tees', 20)):
    assert degrees(edges) == ([1] * 4 + [3, 3] if i % 2 else [1] * 4 + [4])
    if i % 2:
      apart = np.linalg.norm(nodes[0] - nodes[1]) / 128
      assert 0.04 <= apart <= 0.1
      # The arms leave on either side of the line.
      line = nodes[2], nodes[3]
      assert side_of(*line, nodes[4]) == -side_of(*line, nodes[5]) != 0


def test_parallel_lines_are_three_pixels_apart_with_paper_between():
  for image, nodes, edges in drawn('parallel', 12):
    start, end = nodes[edges[:, 0]], nodes[edges[:, 1]]
    along = (end - start)[0] / np.linalg.norm((end - start)[0])
    across = np.array([-along[1], along[0]])
    np.testing.assert_allclose(np.diff(start @ across), 3, atol=1e-9)
    np.testing.assert_allclose(np.diff(end @ across), 3, atol=1e-9)
    middle = (start[:-1] + end[:-1]) / 2 + 1.5 * across
    x, y = (middle - 0.5).T
    assert ndimage.map_coordinates(image, [y, x], order=1).max() < 0.5
    x, y = ((start + end) / 2 - 0.5).T
    assert ndimage.map_coordinates(image, [y, x], order=1).min() > 0.5


def test_filled_nodes_are_solid_and_lines_of_one_pixel_are_thin():
  for image, nodes, _ in drawn('filled'):
    y, x = np.indices(image.shape) + 0.5
    for node in nodes:
      assert image[np.hypot(x - node[0], y - node[1]) <= 3].min() == 1
  for image, nodes, edges in drawn('one_pixel'):
    assert set(np.unique(image)) == {0, 1}
    pixels = np.floor(nodes)
    steps = np.abs(pixels[edges[:, 0]] - pixels[edges[:, 1]]).max(axis=1)
    # No more than one pixel for a step, and the ends of lines are shared.
    assert steps.sum() * 0.9 <= image.sum() <= steps.sum() + 1
    assert image[tuple(pixels.astype(int).T[::-1])].all()


def test_bends_show_and_nodes_are_apart():
  for kind, apart in (('filled', 26), ('one_pixel', 16)):
    for _, nodes, edges in drawn(kind, 20):
      for i, j in itertools.combinations(range(len(nodes)), 2):
        assert np.linalg.norm(nodes[i] - nodes[j]) >= apart
      for k in range(len(nodes)):
        ends = [nodes[i + j - k] - nodes[k] for i, j in edges.tolist() if k in (i, j)]
        if len(ends) == 2:
          cosine = ends[0] @ ends[1] / np.prod(np.linalg.norm(ends, axis=1))
          assert 180 - np.degrees(np.arccos(cosine)) >= 25 - 1e-6


def test_a_set_is_an_archive_and_depends_on_its_seed_alone(tmp_path):
  sets = []
  for name, seed in (('a', 0), ('b', 0), ('c', 3)):
    hard_structure.write(tmp_path / f'{name}.npz', 'acute', num_images=3, seed=seed)
    sets.append(archives.load(tmp_path / f'{name}.npz'))
  first, again, other = sets
  np.testing.assert_array_equal(first.images, again.images)
  assert not np.array_equal(first.images, other.images)
  assert not np.array_equal(first.images[0], first.images[1])
  trues = [hard_structure.draw('acute', seed=0, index=i)[1:] for i in range(3)]
  scores = metrics.score_graphs(trues, first.graphs(), thresholds=[1e-6])
  assert scores['at']['1e-06']['exact'] == 1


def test_unknown_kind_is_one_sentence():
  with pytest.raises(ValueError, match="there is no kind 'spiral'; there are ring"):
    hard_structure.draw('spiral', seed=0, index=0)
