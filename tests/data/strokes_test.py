import functools

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from img2graph import data
from img2graph.data import strokes

CLEAN = dict(
  bend=0,
  wave=0,
  overshoot=0,
  gap=0,
  contrast=1,
  pressure=0,
  background=0,
  aliased=0,
  line_width=2.0,
  target_width=2.0,
  sloppy=1,
  dashes=0,
  words=0,
)
SOMETIMES = ('double', 'circles', 'erased', 'labels', 'distractors', 'blur', 'noise')
# What is 0 is not compiled at all: with almost 0, tests share one program.
NEVER = dict.fromkeys(SOMETIMES, 1e-9)


class Kinds(dict):
  """A dict that can be a key of the cache."""

  def __hash__(self):
    return hash(tuple(self.items()))


@functools.lru_cache
def draw(seed, batch_size, **options):
  batch = strokes.sample(jax.random.key(seed), batch_size, **options)
  return jax.tree.map(np.asarray, batch)


def edges_of(graph, i):
  senders, receivers = np.nonzero(np.triu(graph.edge_prob[i]))
  return senders, receivers


def distance(points, start, end):
  """Distance of points `[P, 2]` to segments `[E, 2]`: `[P, E]`."""
  edge = end - start
  offset = points[:, None] - start[None]
  share = (offset * edge).sum(-1) / (edge**2).sum(-1)
  nearest = start + np.clip(share, 0, 1)[..., None] * edge
  return np.linalg.norm(points[:, None] - nearest, axis=-1)


def pixel_centres(side):
  rows, columns = np.mgrid[:side, :side] + 0.5
  return np.stack([columns, rows], axis=-1).reshape(-1, 2) / side * 2 - 1


# One large batch serves most tests: compiling costs more than drawing.
def default_batch():
  return draw(0, 256, side=32)


def test_target_is_the_drawing_of_the_true_graph():
  batch = default_batch()
  graph, side = batch['graph'], 32
  for i in range(256):
    senders, receivers = edges_of(graph, i)
    far = distance(
      pixel_centres(side), graph.nodes[i][senders], graph.nodes[i][receivers]
    )
    far = far.min(axis=1, initial=np.inf).reshape(side, side) * side / 2
    expected = np.clip(0.5 * 2.0 * side / 64 + 0.5 - far, 0, 1)
    np.testing.assert_allclose(batch['target'][i, :, :, 0], expected, atol=0.03)


def test_graphs_are_planar_and_clear():
  graph = default_batch()['graph']
  for i in range(256):
    senders, receivers = edges_of(graph, i)
    real = np.nonzero(graph.node_prob[i])[0]
    nodes = graph.nodes[i]
    apart = np.linalg.norm(nodes[real][:, None] - nodes[real][None], axis=-1)
    assert apart[~np.eye(len(real), dtype=bool)].min(initial=2) > 0.119
    to_edge = distance(nodes[real], nodes[senders], nodes[receivers])
    for e, ends in enumerate(zip(senders, receivers, strict=True)):
      # A chord may run past a crossing, but it crosses one of the two as steeply.
      others = to_edge[~np.isin(real, ends), e]
      assert others.min(initial=2) > 0.12 * np.sin(np.deg2rad(20)) - 1e-4
      # Where edges cross, both ends of each are on different sides of the other.
      for f in range(e):
        a, b = nodes[senders[e]], nodes[receivers[e]]
        c, d = nodes[senders[f]], nodes[receivers[f]]
        signs = [
          np.linalg.det(np.stack([q - p, r - p]))
          for p, q, r in ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
        ]
        small = 1e-4
        crosses = signs[0] * signs[1] < 0 and signs[2] * signs[3] < 0
        assert not (crosses and np.abs(signs).min() > small)


def test_graphs_are_well_formed():
  graph = default_batch()['graph']
  assert graph.capacity == 16
  assert np.abs(graph.nodes).max() <= 1 + 1e-5
  np.testing.assert_array_equal(graph.edge_prob, graph.edge_prob.transpose(0, 2, 1))
  assert set(np.unique(graph.edge_prob)) == {0, 1}
  degree = graph.edge_prob.sum(axis=-1)
  np.testing.assert_array_equal(degree > 0, graph.node_prob > 0)
  num_nodes = graph.node_prob.sum(axis=-1)
  # Varied: few and many nodes, and hardly ever an empty canvas.
  assert np.mean(num_nodes == 0) < 0.01
  assert num_nodes.max() >= 13 and np.median(num_nodes) >= 5
  assert degree.max() >= 4


def test_without_roughness_straight_drawings_equal_their_target():
  kinds = dict(polygon=0, quad=1, polyline=1, star=1, tree=1, frame=1)
  never = dict.fromkeys(SOMETIMES, 0)
  batch = draw(1, 32, kinds=Kinds(kinds), side=32, **CLEAN, **never)
  chex.assert_trees_all_close(batch['image'], batch['target'], atol=1e-3)


def test_rough_drawings_stay_near_the_true_edges():
  batch = default_batch()
  graph = batch['graph']
  shares = []
  for i in range(256):
    senders, receivers = edges_of(graph, i)
    start, end = graph.nodes[i][senders], graph.nodes[i][receivers]
    image = batch['image'][i, :, :, 0]
    assert 0 <= image.min() and image.max() <= 1
    ink = image > (np.median(image) + image.max()) / 2
    near = distance(pixel_centres(32), start, end).min(axis=1, initial=2) < 0.25
    shares.append(ink.ravel()[near].sum() / max(ink.sum(), 1))
  assert np.mean(shares) > 0.97


def test_overlapping_strokes_are_split_at_crossings_and_joints():
  points = np.zeros((3, 9, 2), np.float32)
  points[0, :2] = [(-0.5, 0), (0.5, 0)]
  points[1, :2] = [(0.2, -0.5), (0.2, 0.5)]  # crosses the first
  points[2, :2] = [(-0.2, 0), (-0.4, 0.6)]  # starts on the first

  @jax.jit
  def planar(points):
    chords = strokes._chords(points, np.array([2, 2, 2]), np.zeros(3))
    exists, chords = strokes._take_first(chords['valid'], 5, chords)
    relations = strokes._relations(chords['start'], chords['end'])
    taken = strokes._select(chords, exists, relations, capacity=8, min_gap=0.1)
    return taken, strokes._planar_graph(chords, taken, relations, capacity=8)

  taken, graph = jax.tree.map(np.asarray, planar(points))
  assert taken.tolist() == [True, True, True, False, False]
  assert graph.node_prob.sum() == 7 and graph.edge_prob.sum() / 2 == 6
  edges = {
    frozenset(tuple(graph.nodes[n].astype(float).round(4).tolist()) for n in pair)
    for pair in np.argwhere(graph.edge_prob)
  }
  along = [(-0.5, 0.0), (-0.2, 0.0), (0.2, 0.0), (0.5, 0.0)]
  expected = {frozenset(pair) for pair in zip(along, along[1:], strict=False)}
  expected |= {
    frozenset(((0.2, 0.0), (0.2, -0.5))),
    frozenset(((0.2, 0.0), (0.2, 0.5))),
    frozenset(((-0.2, 0.0), (-0.4, 0.6))),
  }
  assert edges == expected
  # A stroke that runs too near to another, or at too flat an angle, is left out.
  points[2, :2] = [(-0.4, 0.05), (0.1, 0.05)]
  assert np.asarray(planar(points)[0]).tolist() == [True, True, False, False, False]
  points[2, :2] = [(-0.5, 0), (0.1, 0.1)]
  assert np.asarray(planar(points)[0]).tolist() == [True, True, False, False, False]


def test_nearly_straight_points_are_dropped():
  points = np.zeros((1, 9, 2), np.float32)
  points[0, :5] = [(0, 0), (0.2, 0.01), (0.4, 0), (0.5, 0.3), (0.8, 0.4)]
  points, count = jax.jit(lambda p: strokes._straighten(p, np.array([5]), 0.05))(points)
  assert count.tolist() == [4]
  kept = [(0, 0), (0.4, 0), (0.5, 0.3), (0.8, 0.4)]
  np.testing.assert_allclose(points[0, :4], kept, atol=1e-6)


def test_smooth_strokes_follow_a_circle():
  angle = 2 * np.pi * np.arange(9) / 8
  points = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None].astype(np.float32)
  chords = strokes._chords(points, np.array([9]), np.ones(1))
  slope = np.tan(np.pi / 8)  # of a circle against a chord of 45 degrees
  np.testing.assert_allclose(chords['slope0'], -slope, rtol=1e-2)
  np.testing.assert_allclose(chords['slope1'], slope, rtol=1e-2)


def test_chords_of_a_molecule_have_one_length_and_the_angles_of_bonds():
  options = dict(side=16, capacity=24, min_gap=0.06, pieces=0, flat=0.3)
  graph = jax.jit(
    lambda key: strokes.sample(key, 128, kinds={'molecule': 1}, **options)['graph']
  )(jax.random.key(2))
  graph = jax.tree.map(np.asarray, graph)
  angles = []
  for i in range(128):
    senders, receivers = edges_of(graph, i)
    edge = graph.nodes[i][receivers] - graph.nodes[i][senders]
    length = np.linalg.norm(edge, axis=1)
    assert len(length) and length.max() / length.min() < 1.005
    # 6 degrees divide the angles of hexagons and pentagons and those between them.
    heading = np.rad2deg(np.arctan2(edge[:, 1], edge[:, 0]))
    turn = (heading - heading[0]) % 6
    assert np.minimum(turn, 6 - turn).max() < 0.5
    for n in range(graph.capacity):
      around = graph.nodes[i][graph.edge_prob[i, n] > 0] - graph.nodes[i][n]
      around = np.sort(np.rad2deg(np.arctan2(around[:, 1], around[:, 0])))
      between = np.diff(around, append=around[:1] + 360)
      angles.extend(np.minimum(between, 360 - between) if len(around) > 1 else [])
  angles = np.array(angles)
  # Inside of hexagons and chains, of pentagons, and beside those.
  bonds = np.abs(angles[:, None] - [120, 108, 126, 132, 144]).min(axis=1) < 0.5
  assert bonds.mean() > 0.98
  assert np.mean(np.abs(angles - 120) < 0.5) > 0.5
  num_nodes, num_edges = graph.node_prob.sum(axis=1), graph.edge_prob.sum((1, 2)) / 2
  assert np.mean(num_edges - num_nodes >= 1) > 0.2  # two rings or more
  assert np.median(num_nodes) >= 10


BARE = CLEAN | NEVER
BARE |= dict(side=64, line_width=0.8, bend=(0.0, 0.25), overshoot=(0.0, 0.08))


@pytest.mark.parametrize(
  'without, added, least_share, most_share',
  [
    ((), (('double', 1),), 0.1, 0.5),
    ((), (('labels', 0.1),), 0.08, 0.35),
    ((('labels', 0.1),), (('labels', 0.1), ('distractors', 0.5)), 0.3, 0.6),
  ],
)
def test_what_is_no_line_changes_the_image_only(
  without, added, least_share, most_share
):
  before = draw(3, 256, **{**BARE, **dict(without)})
  after = draw(3, 256, **{**BARE, **dict(added)})
  chex.assert_trees_all_close(after['target'], before['target'], atol=1e-3)
  chex.assert_trees_all_close(after['graph'], before['graph'], atol=1e-6)
  # Images that are not drawn are what they are at 0.
  difference = np.abs(after['image'] - before['image'])[..., 0]
  changed = difference.max(axis=(1, 2)) > 1e-3
  assert least_share < changed.mean() < most_share
  pixels = pixel_centres(64)
  graph = before['graph']
  for i in np.nonzero(changed)[0]:
    senders, receivers = edges_of(graph, i)
    nodes = graph.nodes[i]
    where = pixels[difference[i].ravel() > 0.01]
    to_edge = distance(where, nodes[senders], nodes[receivers]).min(axis=1) * 32
    if 'distractors' in dict(added):
      ink = pixels[before['image'][i].ravel() > 0.01]
      apart = np.linalg.norm(where[:, None] - ink[None], axis=-1).min() * 32
      assert to_edge.min() > 5 and apart > 4  # one pixel for the borders
    elif 'labels' in dict(added):
      real = nodes[graph.node_prob[i] > 0]
      to_node = np.linalg.norm(where[:, None] - real[None], axis=-1).min(axis=1) * 32
      assert to_node.max() < 4.5 + 1
      assert np.any(after['image'][i] < before['image'][i] - 0.2)  # the erased disc
    else:
      # Ink is only added: second lines, nearer than two strokes may be. A stroke may
      # bow by another pixel.
      assert np.all(after['image'][i] > before['image'][i] - 1e-3)
      second = pixels[difference[i].ravel() > 0.4]
      assert len(second)
      to_edge = distance(second, nodes[senders], nodes[receivers]).min(axis=1) * 32
      assert to_edge.max(initial=0) < 1.1 * 0.12 * 32 + 1


def test_what_is_missing_or_beside_changes_the_image_only():
  rough = dict(dashes=0.3, erased=0.3, circles=1, labels=0.1, words=1, sloppy=4)
  before = draw(3, 256, **{**BARE, 'labels': 0.1})
  after = draw(3, 256, **BARE | rough)
  chex.assert_trees_all_close(after['target'], before['target'], atol=1e-3)
  chex.assert_trees_all_close(after['graph'], before['graph'], atol=1e-6)
  difference = (after['image'] - before['image'])[..., 0]
  less, more = difference.min(axis=(1, 2)) < -0.1, difference.max(axis=(1, 2)) > 0.1
  assert 0.4 < less.mean() < 0.8  # dashes, or what was erased, or corners left open
  assert 0.1 < more.mean() < 0.6  # circles, words, or corners overshot


def test_a_lone_polygon_is_drawn_sloppily():
  def beyond(kind):
    """Farthest ink from the true edges of each image, coordinate units."""
    kinds = {'quad': 0, 'frame': 0, kind: 1}
    changes = dict(side=64, kinds=Kinds(kinds), sloppy=5, overshoot=0.05)
    batch = draw(5, 256, **CLEAN | NEVER | changes)
    farthest = []
    for i in range(64):
      senders, receivers = edges_of(batch['graph'], i)
      nodes = batch['graph'].nodes[i]
      ink = pixel_centres(64)[batch['image'][i].ravel() > 0.5]
      far = distance(ink, nodes[senders], nodes[receivers]).min(axis=1)
      farthest.append(far.max(initial=0))
    return np.array(farthest)

  assert np.percentile(beyond('quad'), 80) > 0.12
  assert np.percentile(beyond('frame'), 95) < 0.12


def test_rings_are_strokes_of_molecules_that_close():
  angle = np.arange(9) * np.pi / 3
  hexagon = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1) + [0.1, 0.2]
  points = np.stack([hexagon] * 4).astype(np.float32)
  count = np.array([7, 6, 7, 0])  # closed, open, closed but no molecule, absent
  bonds = np.array([True, True, False, True])
  rings = np.asarray(strokes._rings(points, count, bonds))
  np.testing.assert_allclose(rings[0], [0.1, 0.2, 0.5], atol=1e-6)
  np.testing.assert_array_equal(rings[1:], 0)


def test_circles_lie_inside_their_rings():
  rings = np.array([[5, -3, 20], [0, 0, 0]], np.float32)
  ink = np.asarray(strokes._circles_ink(rings, 2.0, 64, 0.5)).ravel()
  centres = (pixel_centres(64) + 1) * 32
  far = np.linalg.norm(centres - [37, 29], axis=-1)
  radius = far[ink > 0.5]
  assert 0.4 * 20 < radius.min() and radius.max() < 0.7 * 20
  assert ink[np.abs(far - radius.mean()) < 0.4].min() > 0.5  # all around


def test_what_is_erased_is_paper():
  left = strokes._discs_paper(np.array([[10, 20.0], [40, 40]]), np.array([3, -1.0]), 64)
  centres = (pixel_centres(64) + 1) * 32
  far = np.linalg.norm(centres - [10, 20], axis=-1)
  left = np.asarray(left).ravel()
  np.testing.assert_array_equal(left[far < 2.5], 0)
  np.testing.assert_array_equal(left[far > 3.5], 1)


def test_words_grow_away_from_the_middle_and_end_before_a_line():
  places = np.array([[0.7, 0], [-0.7, 0], [0.5, 0.5], [0.5, -0.5]], np.float32)
  radius = np.full(4, 0.05, np.float32)
  exists = np.array([True, True, True, False])
  w = np.array([[0.5, 0.99]] * 4, np.float32)
  wall = np.array([[0.6, 0.3]], np.float32), np.array([[0.6, 0.7]], np.float32)
  more, spots, radii = strokes._words(exists, places, radius, 1.0, *wall, w)
  more = np.asarray(more).reshape(4, -1)
  spots = np.asarray(spots).reshape(4, -1, 2)
  assert more[:2].all() and not more[2, 1:].any() and not more[3].any()
  assert (np.diff(spots[0, :, 0]) > 0.05).all() and spots[0, 0, 0] > 0.7
  assert (np.diff(spots[1, :, 0]) < -0.05).all() and spots[1, 0, 0] < -0.7
  np.testing.assert_array_equal(np.asarray(radii).reshape(4, -1) > 0, more)


def test_labels_cut_every_line_through_their_disc():
  side, num = 128, 8
  u = np.random.default_rng(0).uniform(size=(num, 10)).astype(np.float32)
  x, y = np.meshgrid(np.arange(16, 128, 32), np.arange(32, 128, 64))
  places = np.stack([x, y], axis=-1).reshape(num, 2) + np.float32(0.3)
  radius = np.linspace(8, 9, num, dtype=np.float32)
  letter = np.arange(num) != 3
  exists = np.arange(num) != 5
  draw_on = functools.partial(
    jax.jit(strokes._add_glyphs, static_argnames='warp'),
    exists=exists,
    places=places,
    radius=radius,
    letter=letter,
    w=u,
    width=1.0,
    ink_level=0.75,
    aliased=False,
    warp=lambda rows, columns: (0 * rows, 0 * columns),
  )
  black = np.asarray(draw_on(np.ones((side, side), np.float32)))
  white = np.asarray(draw_on(np.zeros((side, side), np.float32)))
  centres = (pixel_centres(side) + 1) * side / 2
  far = np.linalg.norm(centres[:, None] - places[None], axis=-1).T
  for s in range(num):
    disc = black.ravel()[far[s] < radius[s] - 0.5]
    rim = black.ravel()[np.abs(far[s] - (radius[s] - 0.6)) < 0.2]
    mark = white.ravel()[far[s] < radius[s] + 0.5]
    assert white.ravel()[(far[s] > radius[s] + 1) & (far[s] < 14)].max() == 0
    if not exists[s]:
      assert disc.min() == 1 and mark.max() == 0
    elif not letter[s]:
      assert disc.min() == 1 and mark.max() > 0.2
    else:
      # A closed ring without ink lies around the letter.
      assert rim.max() < 0.11
      assert disc.mean() < 0.3 and mark.max() > 0.5


def test_parts_of_a_canvas_lie_apart():
  u = jax.random.uniform(jax.random.key(0), (64, 6))
  boxes = jax.vmap(functools.partial(strokes._boxes, limit=0.9, min_gap=0.1))(u)
  lows, highs = (np.asarray(corner) for corner in boxes)  # [64, 4, 4, 2]
  for num in range(1, 5):
    low, high = lows[:, num - 1, :num], highs[:, num - 1, :num]
    assert np.all(low >= -0.9 - 1e-6) and np.all(high <= 0.9 + 1e-6)
    assert np.all(high - low > 0.4)
    for a in range(num):
      for b in range(a):
        gap = np.maximum(low[:, a] - high[:, b], low[:, b] - high[:, a]).max(axis=-1)
        assert np.all(gap > 0.2 - 1e-6)
    # Two share the canvas by one cut, and each has the whole of the other axis.
    widest = (high - low).max(axis=-1)
    assert num > 2 or np.allclose(widest, 1.8)


def test_a_seed_gives_the_same_images_and_another_seed_others():
  same = strokes.sample(jax.random.key(0), 256, side=32)
  chex.assert_trees_all_equal(default_batch(), jax.tree.map(np.asarray, same))
  other = draw(1, 256, side=32)
  assert np.any(other['image'] != default_batch()['image'])


def test_four_devices_draw_what_one_draws():
  source = data.build('strokes', side=32)
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  sharded = jax.jit(
    lambda key: source.sample(key, 256), out_shardings=NamedSharding(mesh, P('data'))
  )(jax.random.key(0))
  assert len(sharded['image'].sharding.device_set) == 4
  single = default_batch()
  chex.assert_trees_all_close(
    jax.tree.map(np.asarray, sharded['graph']), single['graph'], atol=1e-5
  )
  # Pixels on the very edge of an aliased line may fall either way.
  differs = np.abs(np.asarray(sharded['image']) - single['image']) > 1e-4
  assert differs.mean() < 1e-3


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(kinds={'circle': 1}), 'there is no kind'),
    (dict(kinds={}), 'weights'),
    (dict(kinds=('star',)), 'kinds must be {name: weight}'),
    (dict(kinds={'star': -1}), 'weights'),
    (dict(side=0), 'side'),
    (dict(capacity=1), 'capacity'),
    (dict(margin=1), 'margin'),
    (dict(min_gap=0), 'min_gap'),
    (dict(blur=0.5), 'blur'),
    (dict(gap=2), 'gap'),
    (dict(gap=(0, 0.5)), 'gap must be a number'),
    (dict(double=2), 'double'),
    (dict(labels=-1), 'labels'),
    (dict(distractors=2), 'distractors'),
    (dict(wobble=2), "no option 'wobble'"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    data.build('strokes', **options)
