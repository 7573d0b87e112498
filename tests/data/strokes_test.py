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
  blur=0,
  noise=0,
  background=0,
  aliased=0,
  line_width=2.0,
  target_width=2.0,
)


@functools.lru_cache
def jitted(batch_size, options):
  return jax.jit(lambda key: strokes.sample(key, batch_size, **dict(options)))


@functools.lru_cache
def draw(seed, batch_size, **options):
  batch = jitted(batch_size, tuple(options.items()))(jax.random.key(seed))
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
  options = dict(CLEAN, side=32, line_width=2.0)
  batch = jax.jit(lambda key: strokes.sample(key, 32, kinds=kinds, **options))(
    jax.random.key(1)
  )
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


def test_a_seed_gives_the_same_images_and_another_seed_others():
  same = jitted(256, (('side', 32),))(jax.random.key(0))
  chex.assert_trees_all_equal(default_batch(), jax.tree.map(np.asarray, same))
  other = jitted(256, (('side', 32),))(jax.random.key(1))
  assert np.any(np.asarray(other['image']) != default_batch()['image'])


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
    (dict(kinds={'star': -1}), 'weights'),
    (dict(side=0), 'side'),
    (dict(capacity=1), 'capacity'),
    (dict(margin=1), 'margin'),
    (dict(min_gap=0), 'min_gap'),
    (dict(blur=0.5), 'blur'),
    (dict(gap=2), 'gap'),
    (dict(wobble=2), "no option 'wobble'"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    data.build('strokes', **options)
