import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image
from PIL import ImageDraw

from img2graph import data
from img2graph.data import shapes

ALL_SHAPES = tuple(shapes.TEMPLATES)


@functools.lru_cache
def jitted(batch_size, options):
  return jax.jit(lambda key: shapes.sample(key, batch_size, **dict(options)))


def draw(seed, batch_size, **options):
  batch = jitted(batch_size, tuple(options.items()))(jax.random.key(seed))
  return jax.tree.map(np.asarray, batch)


def edges_of(batch, i):
  graph = batch['graph']
  senders, receivers = np.nonzero(np.triu(graph.edge_prob[i]))
  return graph.nodes[i][senders], graph.nodes[i][receivers]


def brute_force_distance(start, end, side):
  """Distance of pixel centres to densely sampled edges, in pixels."""
  t = np.linspace(0, 1, 400)[:, None, None]
  dots = (((1 - t) * start + t * end).reshape(-1, 2) + 1) / 2 * side
  rows, columns = np.mgrid[:side, :side] + 0.5
  offset = np.stack([columns, rows], axis=-1)[:, :, None] - dots
  return np.linalg.norm(offset, axis=-1).min(axis=-1)


def test_image_is_the_coverage_of_the_true_edges():
  batch = draw(0, 6, side=24, shapes=ALL_SHAPES, line_width=2.0)
  for i in range(6):
    distance = brute_force_distance(*edges_of(batch, i), side=24)
    expected = np.clip(1.0 + 0.5 - distance, 0, 1)
    np.testing.assert_allclose(batch['image'][i, :, :, 0], expected, atol=2e-2)


def test_drawing_agrees_with_a_supersampled_polygon_of_pillow():
  batch = draw(1, 8, side=48, line_width=3.0)
  zoom = 16
  for i in range(8):
    canvas = Image.new('L', (48 * zoom, 48 * zoom))
    pen = ImageDraw.Draw(canvas)
    for start, end in zip(*edges_of(batch, i), strict=True):
      line = [tuple((end_ + 1) / 2 * 48 * zoom) for end_ in (start, end)]
      pen.line(line, fill=255, width=3 * zoom)
    expected = np.asarray(canvas.resize((48, 48), Image.Resampling.BOX)) / 255.0
    difference = np.abs(batch['image'][i, :, :, 0] - expected)
    # Round against butt ends differ at the few pixels of the corners.
    assert np.quantile(difference, 0.97) < 0.2
    assert difference.mean() < 0.01


def test_aliased_pixels_are_ink_or_paper_and_lines_stay_connected():
  batch = draw(2, 6, side=24, line_width=0.5, aliased=True)
  for i in range(6):
    distance = brute_force_distance(*edges_of(batch, i), side=24)
    image = batch['image'][i, :, :, 0]
    sure = np.abs(distance - 0.5) > 0.02
    np.testing.assert_array_equal(image[sure], (distance <= 0.5)[sure])


@pytest.mark.parametrize('names', [('line', 'triangle', 'rectangle'), ALL_SHAPES])
def test_vertices_keep_the_margin_and_the_graph_is_consistent(names):
  batch = draw(3, 512, side=4, shapes=names, margin=0.2, scale=(0.1, 1.0))
  graph = batch['graph']
  assert np.abs(graph.nodes).max() <= 0.8 + 1e-6
  np.testing.assert_array_equal(graph.edge_prob, graph.edge_prob.transpose(0, 2, 1))
  assert not graph.edge_prob[:, range(graph.capacity), range(graph.capacity)].any()
  degree = graph.edge_prob.sum(axis=-1)
  np.testing.assert_array_equal(degree > 0, graph.node_prob > 0)
  counts = {
    (len(vertices), len(edges))
    for vertices, edges, _ in map(shapes.TEMPLATES.get, names)
  }
  seen = {
    (int(n), int(e))
    for n, e in zip(graph.node_prob.sum(-1), degree.sum(-1) / 2, strict=True)
  }
  assert seen == counts


def test_scale_is_the_longer_side_of_the_bounding_box():
  graph = draw(4, 64, side=4, scale=(0.3, 0.6), margin=0.1)['graph']
  extent = np.ptp(graph.nodes, axis=1).max(axis=-1) / 1.8
  assert extent.min() > 0.3 - 1e-5 and extent.max() < 0.6 + 1e-5


def test_default_shapes_are_not_degenerate():
  graph = draw(5, 4096, side=2)['graph']
  for nodes, edges in zip(graph.nodes, graph.edge_prob, strict=True):
    for node in range(4):
      rays = nodes[np.nonzero(edges[node])[0]] - nodes[node]
      lengths = np.linalg.norm(rays, axis=-1)
      assert np.all(lengths / 2 > 0.14)
      if len(rays) == 2:
        cosine = rays[0] @ rays[1] / lengths.prod()
        assert 30 < np.degrees(np.arccos(cosine)) < 120


def proper_crossing(a, b, c, d):
  def side_of(p, q, r):
    (ux, uy), (vx, vy) = q - p, r - p
    return ux * vy - uy * vx

  return (
    side_of(a, b, c) * side_of(a, b, d) < -1e-9
    and side_of(c, d, a) * side_of(c, d, b) < -1e-9
  )


@pytest.mark.filterwarnings('ignore:.*2-dimensional vectors.*')
def test_graphs_are_planar():
  batch = draw(6, 60, side=2, shapes=ALL_SHAPES)
  for i in range(60):
    edges = list(zip(*edges_of(batch, i), strict=True))
    for first in range(len(edges)):
      for second in range(first):
        assert not proper_crossing(*edges[first], *edges[second])


def test_contrast_noise_and_clean_target():
  options = dict(side=32, contrast=0.5, noise=0.05, clean_target=True)
  batch = draw(7, 16, **options)
  assert batch['target'].max() == 1
  clean = batch['target'] == 0
  # Half of the noise is clipped away at zero: its mean square halves.
  np.testing.assert_allclose(np.mean(batch['image'][clean] ** 2), 0.05**2 / 2, rtol=0.1)
  full = batch['target'] == 1
  np.testing.assert_allclose(batch['image'][full].mean(), 0.5, atol=0.01)
  assert 'target' not in draw(7, 16, side=32)


@hypothesis.given(seed=st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=5)
def test_a_seed_gives_the_same_images_and_another_seed_others(seed):
  same = draw(seed, 3, side=8)
  chex.assert_trees_all_equal(draw(seed, 3, side=8), same)
  assert np.any(draw(seed + 1, 3, side=8)['graph'].nodes != same['graph'].nodes)


def test_four_devices_draw_what_one_draws():
  source = data.build('shapes', side=16, noise=0.1, line_width=(1, 3))
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  sharded = jax.jit(
    lambda key: source.sample(key, 8), out_shardings=NamedSharding(mesh, P('data'))
  )(jax.random.key(8))
  assert len(sharded['image'].sharding.device_set) == 4
  single = jax.jit(lambda key: source.sample(key, 8))(jax.random.key(8))
  # The same random numbers; the compiler may round the arithmetic differently.
  chex.assert_trees_all_close(
    jax.tree.map(np.asarray, sharded), jax.tree.map(np.asarray, single), atol=5e-6
  )


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(shapes=('circle',)), 'there is no shape'),
    (dict(shapes=()), 'non-empty'),
    (dict(shapes='line'), 'non-empty list'),
    (dict(side=0), 'side'),
    (dict(line_width=0), 'line_width'),
    (dict(line_width=(3, 1)), 'line_width'),
    (dict(contrast=1.5), 'contrast'),
    (dict(noise=-1), 'noise'),
    (dict(margin=1), 'margin'),
    (dict(scale=(0, 1)), 'scale'),
    (dict(aliased=2), 'aliased'),
    (dict(capacity=3), 'capacity'),
    (dict(contrsat=1), "no option 'contrsat'"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    data.build('shapes', **options)
