"""Tiles and stitching: graphs of tiles whose whole is known."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from img2graph import cli
from img2graph import predict
from img2graph import tiles
from img2graph.metrics import topology

SIZE = 1000


def random_streets(seed, spacing):
  """A planar graph `(nodes [N, 2], edges [E, 2])` in an image of 1000 x 1000.

  A shaken grid with holes. Nodes stay half a spacing apart and far from other edges.
  """
  rng = np.random.default_rng(seed)
  count = SIZE // spacing
  grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1)
  nodes = (grid + 0.5 + rng.uniform(-0.2, 0.2, grid.shape)).reshape(-1, 2) * spacing
  number = np.arange(count**2).reshape(count, count)
  across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
  down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
  edges = np.concatenate([across, down])
  edges = edges[rng.random(len(edges)) < 0.7]
  used, edges = np.unique(edges, return_inverse=True)
  return nodes[used], edges.reshape(-1, 2)


def pieces_of(nodes, edges, plan, shake=0, seed=0):
  """What each tile sees of a graph: all within its box, each a bit elsewhere."""
  rng = np.random.default_rng(seed)
  ones = np.ones(len(nodes)), np.asarray(edges), np.full(len(edges), 0.75)
  whole = tiles.Piece(np.asarray(nodes, float), *ones)
  pieces = []
  for tile in plan:
    piece, _ = tiles.clip(whole, tile.box)
    moved = piece.nodes + rng.uniform(-shake, shake, piece.nodes.shape)
    pieces.append(piece._replace(nodes=moved))
  return pieces


def stitch(pieces, plan, side, shape=(SIZE, SIZE)):
  radii = dict(merge=0.035 * side, joint=0.03 * side)
  return tiles.stitch(pieces, plan, side, shape, **radii)


def assert_same(found, nodes, edges, atol):
  """The same graph, whatever the numbers of its nodes."""
  nodes, edges = np.asarray(nodes), np.asarray(edges)
  assert len(found.nodes) == len(nodes)
  away = np.linalg.norm(found.nodes[:, None] - nodes[None], axis=-1)
  name = away.argmin(axis=1)
  assert sorted(name.tolist()) == list(range(len(nodes)))
  assert away.min(axis=1).max() <= atol
  renamed = np.sort(name[found.edges], axis=1)
  assert sorted(renamed.tolist()) == sorted(np.sort(edges, axis=1).tolist())


@hypothesis.given(st.integers(1, 700), st.integers(1, 700), st.integers(32, 400))
def test_cells_cover_every_pixel_once(height, width, side):
  times = np.zeros((2 * height, 2 * width), int)  # Borders may lie in mid-pixel.
  for tile in tiles.plan(height, width, side):
    left, top, right, bottom = tile.box
    assert 0 <= left and 0 <= top and right <= width and bottom <= height
    assert (right - left, bottom - top) == (min(side, width), min(side, height))
    counted = tiles.counted_box(tile, side, (height, width))
    x0, y0, x1, y1 = (int(2 * v) for v in tile.cell)
    times[y0:y1, x0:x1] += 1
    # What counts lies well inside what is seen, but for the border of the image.
    rim = 0.06 * side
    for k, limit in ((0, 0), (1, 0), (2, width), (3, height)):
      assert counted[k] == limit or abs(counted[k] - tile.box[k]) >= rim - 1
  assert (times == 1).all()


@hypothesis.given(st.integers(0, 10**6))
def test_clipping_keeps_what_lies_in_the_box(seed):
  rng = np.random.default_rng(seed)
  nodes = rng.uniform(0, 100, (12, 2))
  nodes[rng.random((12, 2)) < 0.2] = 30  # On the border, and along the axes.
  edges = np.stack([np.arange(11), np.arange(1, 12)], axis=1)
  box = (30, 20, 70, 65)
  piece, is_cut = tiles.clip(
    tiles.Piece(nodes, np.ones(12), edges, np.linspace(0.1, 0.9, 11)), box
  )
  assert ((piece.nodes >= box[:2]) & (piece.nodes <= box[2:])).all()
  on_border = (np.abs(piece.nodes - box[:2]) < 1e-9) | (
    np.abs(piece.nodes - box[2:]) < 1e-9
  )
  assert on_border.any(axis=1)[is_cut].all()
  # Edge by edge the length inside, by sampling.
  for prob, (i, j) in zip(np.linspace(0.1, 0.9, 11), edges, strict=True):
    t = (np.arange(4000) + 0.5)[:, None] / 4000
    samples = nodes[i] + t * (nodes[j] - nodes[i])
    inside = ((samples >= box[:2]) & (samples <= box[2:])).all(axis=1).mean()
    expected = inside * np.linalg.norm(nodes[j] - nodes[i])
    ends = piece.nodes[piece.edges[piece.edge_prob == prob]]
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum()
    np.testing.assert_allclose(length, expected, atol=0.1)


@hypothesis.given(
  st.integers(0, 10**6), st.sampled_from([70, 100, 140]), st.integers(150, 420)
)
def test_stitching_gives_back_the_graph_that_was_cut(seed, spacing, side):
  nodes, edges = random_streets(seed, spacing)
  plan = tiles.plan(SIZE, SIZE, side)
  found = stitch(pieces_of(nodes, edges, plan), plan, side)
  assert_same(found, nodes, edges, 1e-6)
  np.testing.assert_array_equal(found.edge_prob, 0.75)


@pytest.mark.parametrize('seed', [*range(10), 36])
def test_tiles_need_not_agree_to_the_pixel(seed):
  """To about one of a canvas of 128; and their order does not matter."""
  rng = np.random.default_rng(seed)
  nodes, edges = random_streets(seed, int(rng.choice([70, 100, 140])))
  side = int(rng.integers(150, 420))
  plan = tiles.plan(SIZE, SIZE, side)
  shaken = pieces_of(nodes, edges, plan, shake=side / 100, seed=seed)
  order = rng.permutation(len(plan))
  found = stitch([shaken[k] for k in order], [plan[k] for k in order], side)
  assert_same_paths((found.nodes, found.edges), (nodes, edges), 0.02 * side)


def assert_same_paths(found, true, atol):
  """The same graph but for nodes of degree 2."""
  keys, paths, rings = topology.contract(found)
  true_keys, true_paths, true_rings = topology.contract(true)
  assert (len(keys), len(rings)) == (len(true_keys), len(true_rings))
  away = np.linalg.norm(found[0][keys][:, None] - true[0][true_keys][None], axis=-1)
  name = away.argmin(axis=1)
  assert sorted(name.tolist()) == list(range(len(keys)))
  assert away.min(axis=1).max(initial=0) <= atol
  renamed = [tuple(sorted(name[list(path)].tolist())) for path in paths]
  assert sorted(renamed) == sorted(true_paths)


# Tiles of 200 in an image of 500 have cells that end at 175 and 325.
AWKWARD = {
  'along a seam': ([[175, 20], [175, 480]], [[0, 1]]),
  'along it, nearly': ([[170, 20], [181, 480], [30, 400]], [[0, 1], [1, 2]]),
  'a junction on it': (
    [[175, 80], [30, 60], [60, 150], [300, 90]],
    [[0, 1], [0, 2], [0, 3]],
  ),
  'at the corner of four': (
    [[175, 325], [20, 300], [190, 480], [160, 30], [480, 350]],
    [[0, 1], [0, 2], [0, 3], [0, 4]],
  ),
  'beside that corner': (
    [[186, 334], [20, 300], [190, 480], [160, 30], [480, 350]],
    [[0, 1], [0, 2], [0, 3], [0, 4]],
  ),
  'an acute angle': ([[185, 100], [20, 70], [20, 115]], [[0, 1], [0, 2]]),
}


@pytest.mark.parametrize('name', AWKWARD)
@pytest.mark.parametrize('shake', [0, 1.5])
def test_awkward_places(name, shake):
  nodes, edges = AWKWARD[name]
  plan = tiles.plan(500, 500, 200)
  assert plan[0].cell == (0, 0, 175, 175)
  for seed in range(1 if shake == 0 else 10):
    pieces = pieces_of(nodes, edges, plan, shake=shake, seed=seed)
    found = stitch(pieces, plan, 200, (500, 500))
    assert_same(tiles.straighten(found, 5), nodes, edges, 1e-6 + 3 * shake)


def test_an_acute_angle_beside_the_corner_of_four_tiles_has_no_rung():
  plan = tiles.plan(213, 275, 128)
  nodes, edges = [[87, 106], [150.44, 135.58], [127.15, 163.34]], [[0, 1], [0, 2]]
  found = stitch(pieces_of(nodes, edges, plan), plan, 128, (213, 275))
  assert_same(tiles.straighten(found, 0.03 * 128), nodes, edges, 1e-6)


def test_an_edge_that_one_tile_misses():
  plan = tiles.plan(200, 350, 200)  # Cells meet at 175, and count 10 beyond.
  nodes, edges = [[20, 90], [150, 60], [172, 140], [330, 100]], [[0, 1], [1, 2], [2, 3]]
  left, right = pieces_of(nodes, edges, plan)
  nothing = tiles.Piece(*(field[:0] for field in right))
  found = stitch([left, nothing], plan, 200, (200, 350))

  # Short ends beyond a tile's own cell are not kept on its word alone.
  assert_same(found, nodes[:3], edges[:2], 1e-6)
  found = stitch([nothing, right], plan, 200, (200, 350))

  long_end = [165, 140 - 80 * 7 / 22]
  assert_same(found, [*nodes[2:], long_end], [[0, 1], [0, 2]], 1e-6)


def test_a_line_beside_another_is_not_believed():
  plan = tiles.plan(200, 350, 200)
  left, right = pieces_of([[20, 100], [330, 100]], [[0, 1]], plan)
  # The right tile sees it leave by 15 degrees, well before it ends to count.
  nodes, edges = [[195, 100], [330, 100], [100, 125]], np.array([[0, 1], [0, 2]])
  right = tiles.Piece(np.array(nodes), np.ones(3), edges, np.ones(2))
  found = stitch([left, right], plan, 200, (200, 350))
  found = tiles.straighten(found, 1)
  assert_same(found, [[20, 100], [330, 100]], [[0, 1]], 1e-6)


def test_what_one_tile_tells_apart_stays_two():
  plan = tiles.plan(200, 350, 200)
  far = [[100, 30], [100, 170], [250, 30], [250, 170]]
  edges = np.array([[0, 2], [1, 3], [0, 4], [1, 5], [0, 1]])
  pieces = []
  # The right tile's upper node is near both of the left's, in whose cell they lie.
  for x, y in ((172, 99), (173, 102)):
    nodes = np.array([[x, y], [x, y + 7.5], *far])
    pieces.append(tiles.Piece(nodes, np.ones(6), edges, np.ones(5)))
  found = stitch(pieces, plan, 200, (200, 350))
  assert_same(found, [[172, 99], [172, 106.5], *far], edges, 1e-6)


@pytest.mark.parametrize('order', [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4]])
def test_of_two_nodes_near_one_of_another_tile_the_nearer_is_the_same(order):
  plan = tiles.plan(200, 350, 200)
  nodes = [[172, 99], [172, 106], [100, 30], [100, 170], [250, 170]]
  edges = np.array([[0, 1], [0, 2], [1, 3], [1, 4]])
  left = tiles.Piece(
    np.array(nodes)[np.argsort(order)], np.ones(5), np.array(order)[edges], np.ones(4)
  )
  # The right tile sees the second, a bit above, and not the first.
  seen = np.array([[172, 104.5], *nodes[3:]])
  right = tiles.Piece(seen, np.ones(3), np.array([[0, 1], [0, 2]]), np.ones(2))
  found = stitch([left, right], plan, 200, (200, 350))
  assert_same(found, nodes, edges, 1e-6)


def test_a_line_is_as_probable_as_where_it_is_least_probable():
  plan = tiles.plan(200, 350, 200)
  pieces = [
    piece._replace(edge_prob=np.full(1, prob))
    for piece, prob in zip(
      pieces_of([[20, 100], [330, 100]], [[0, 1]], plan), (0.9, 0.6), strict=True
    )
  ]
  found = stitch(pieces, plan, 200, (200, 350))
  assert_same(found, [[20, 100], [330, 100]], [[0, 1]], 1e-6)
  np.testing.assert_allclose(found.edge_prob, [0.6])


def test_a_node_lies_where_the_tile_that_sees_most_around_it_has_it():
  plan = tiles.plan(200, 350, 200)  # Cells meet at 175.
  far = [[100, 30], [250, 170]]
  edges = np.array([[0, 1], [0, 2]])
  for places, best in (([[166, 99], [168, 100]], 0), ([[182, 99], [184, 100]], 1)):
    pieces = [
      tiles.Piece(np.array([place, *far]), np.ones(3), edges, np.ones(2))
      for place in places
    ]
    found = stitch(pieces, plan, 200, (200, 350))
    assert_same(found, [places[best], *far], edges, 1e-6)


def test_nothing_lies_beyond_the_image():
  plan = tiles.plan(100, 300, 120)
  outside = tiles.Piece(
    np.array([[9.0, 50], [9, -4], [-3, 50]]),
    np.ones(3),
    np.array([[0, 1], [0, 2]]),
    np.ones(2),
  )
  empty = tiles.Piece(*(field[:0] for field in outside))
  pieces = [outside] + [empty] * (len(plan) - 1)
  found = stitch(pieces, plan, 120, (100, 300))
  assert_same(found, [[9, 50], [9, 0], [0, 50]], [[0, 1], [0, 2]], 0)
  assert len(stitch([empty] * len(plan), plan, 120, (100, 300)).nodes) == 0
  assert len(stitch([], [], 120, (100, 300)).nodes) == 0


def draw(lines, width, shape):
  """Straight lines `[(x0, y0, x1, y1)]` as ink `[H, W]`."""
  y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
  ink = np.zeros(shape)
  for x0, y0, x1, y1 in lines:
    along = np.array([x1 - x0, y1 - y0])
    t = ((x - x0) * along[0] + (y - y0) * along[1]) / (along**2).sum()
    t = np.clip(t, 0, 1)
    away = np.hypot(x - x0 - t * along[0], y - y0 - t * along[1])
    ink = np.maximum(ink, np.clip(width / 2 + 0.5 - away, 0, 1))
  return ink.astype(np.float32)


MESH = [(5, k, 595, k + 20) for k in range(20, 590, 40)]
MESH += [(k, 5, k - 15, 595) for k in range(30, 590, 40)]


@pytest.mark.parametrize('width', [1, 2, 4, 7, 12])
@pytest.mark.parametrize('ink_level, noise', [(1.0, 0.0), (0.6, 0.08)])
def test_line_widths_are_measured(width, ink_level, noise):
  ink = ink_level * draw(MESH[::2], width, (600, 700))
  ink += noise * np.random.default_rng(0).normal(size=ink.shape)
  lines = tiles.measure(np.clip(ink, 0, 1).astype(np.float32))
  assert abs(lines.width - width) <= 1
  assert abs(lines.level - ink_level) <= 0.25
  # Their borders end where they cross.
  length = sum(np.hypot(x1 - x0, y1 - y0) for x0, y0, x1, y1 in MESH[::2])
  crossings = (len(MESH[::2]) / 2) ** 2
  assert 0.8 <= lines.length / (length - crossings * width) <= 1.1


def test_paper_has_no_lines():
  assert tiles.measure(np.zeros((300, 200), np.float32)) is None
  speck = np.zeros((300, 200), np.float32)
  speck[100:102, 100:102] = 1
  assert tiles.measure(speck) is None


def test_what_is_filled_is_as_long_as_half_its_border():
  ink = np.zeros((300, 400), np.float32)
  ink[50:250, 100:150] = 1
  assert tiles.measure(ink).length == pytest.approx((200 + 50) / 1.13, rel=0.02)


def test_a_blot_of_many_lines_is_long():
  ink = (np.indices((512, 512)).sum(axis=0) % 3 == 0).astype(np.float32)
  lines = tiles.measure(ink)
  # Slanted lines of one pixel, one in three.
  assert lines.length == pytest.approx(512**2 / 3 * 2**0.5, rel=0.3)


@pytest.mark.parametrize('shape', [(300, 300), (513, 513), (1, 5000), (700, 2)])
def test_ink_all_over_is_no_line(shape):
  ink = np.ones(shape, np.float32)
  assert tiles.measure(ink).length == 0
  assert tiles.choose(ink, 128) is None


def test_tiles_are_for_many_lines():
  canvas = 64
  triangle = [(20, 30, 570, 80), (570, 80, 200, 560), (200, 560, 20, 30)]
  shape = (600, 600)
  # One thick polygon, and a mesh on an image that the canvas can show.
  assert tiles.choose(draw(triangle, 20, shape), canvas) is None
  assert tiles.choose(draw(MESH, 2, shape), 600) is None
  assert tiles.choose(np.zeros(shape, np.float32), canvas) is None
  # Few lines are tried in one piece, however fine.
  for lines, width in ((triangle, 2), (MESH[::6], 2), (MESH[::6], 3)):
    assert not tiles.choose(draw(lines, width, shape), canvas).sure
  fine = tiles.choose(draw(MESH, 2, shape), canvas)
  assert fine.sure and fine.side % canvas == 0 and 64 <= fine.side <= 192
  coarse = tiles.choose(draw(MESH[::3], 6, shape), canvas)
  assert coarse.sure and fine.side < coarse.side < 600
  # Many are in tiles even where each is wide enough to be seen.
  wide = tiles.choose(draw(MESH[::2], 8, shape), canvas)
  assert wide.sure and wide.side in (256, 320, 384)


@pytest.mark.parametrize('shape', [(400, 600), (3100, 2100)])
def test_a_graph_explains_the_ink_beside_its_edges(shape):
  height, width = shape
  extent = max(shape)
  house = [(0.1, 0.1, 0.6, 0.1), (0.6, 0.1, 0.6, 0.5), (0.6, 0.5, 0.1, 0.5)]
  house = extent * np.array([*house, (0.1, 0.5, 0.1, 0.1)])
  ink = np.zeros(shape, np.float32)
  for x0, y0, x1, y1 in house.round().astype(int):
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    ink[y0 : y1 + 3, x0 : x1 + 3] = 1
  # A letter is no line, though it is black.
  ink[-extent // 20 :, : extent // 20] = 1
  lines = tiles.measure(ink)

  def explained(lines_of_graph, move=(0, 0)):
    nodes = np.reshape(lines_of_graph, (-1, 2)) + extent * np.array(move)
    edges = np.arange(len(nodes)).reshape(-1, 2)
    return tiles.is_explained(ink, lines, nodes, edges)

  assert explained(house)
  assert explained(house, (0.01, -0.01))
  assert not explained(house, (0.04, 0.04))
  assert not explained(house[:3])
  assert not explained(house[:0])


def test_a_small_drawing_on_a_large_sheet_has_to_be_explained():
  house = np.array([(0, 0, 60, 0), (60, 0, 60, 60), (60, 60, 0, 60), (0, 60, 0, 0)])
  ink = draw(house + [300, 200, 300, 200], 3, (1200, 1000))
  lines = tiles.measure(ink)

  def explained(lines_of_graph):
    nodes = np.reshape(lines_of_graph, (-1, 2)) + [300.0, 200.0]
    return tiles.is_explained(ink, lines, nodes, np.arange(len(nodes)).reshape(-1, 2))

  assert explained(house) and explained(house + 8)
  assert not explained(house[:2])
  assert not explained([(0, 30, 60, 30)])
  assert not explained(house[:0])


@pytest.mark.parametrize('upright', [False, True])
def test_a_line_does_not_explain_a_long_row_of_drawings(upright):
  ink = np.zeros((80, 2000), np.float32)
  squares = []
  for left in range(20, 1900, 120):
    ink[10:70, left : left + 60] = 1
    ink[13:67, left + 3 : left + 57] = 0
    low, high = left + 1.5, left + 58.5
    corners = [(low, 11.5), (high, 11.5), (high, 68.5), (low, 68.5)]
    squares += zip(corners, corners[1:] + corners[:1], strict=True)
  middle = [((20, 40), (1880, 40))]
  ink = ink.T if upright else ink

  def explained(lines_of_graph):
    nodes = np.reshape(lines_of_graph, (-1, 2)).astype(float)
    nodes = nodes[:, ::-1] if upright else nodes
    edges = np.arange(len(nodes)).reshape(-1, 2)
    return tiles.is_explained(ink, tiles.measure(ink), nodes, edges)

  assert explained(squares)
  assert not explained(middle)


def test_noise_and_specks_are_no_ink():
  ink = draw([(20, 20, 150, 190)], 3, (200, 500))
  rng = np.random.default_rng(0)
  ink = np.clip(ink + 0.1 * rng.normal(size=ink.shape), 0, 1).astype(np.float32)
  ink[100, 300] = ink[40, 450] = 1
  lines = tiles.measure(ink)
  plan = tiles.plan(200, 500, 200)
  found = [tiles.has_ink(ink, tile, 200, lines) for tile in plan]
  assert found == [True] + [False] * (len(plan) - 1)


def test_lines_in_one_corner_of_a_dusty_sheet():
  ink = np.zeros((2560, 2560), np.float32)
  ink[100:103, 100:103] = 1
  for row in range(5):
    for column in range(5):
      ink[512 * row + 250 : 512 * row + 253, 512 * column + 250] = 1
  ink[:500:8, :500] = 1
  side = tiles.choose(ink, 128).side
  # As many lines as in a sheet full of them.
  assert side == tiles.choose(np.tile(ink[:512, :512], (5, 5)), 128).side


def test_the_command_knows_the_smallest_tile():
  assert cli._LEAST_TILE == tiles.LEAST_SIDE
  assert cli._PRIORS == predict.PRIORS
