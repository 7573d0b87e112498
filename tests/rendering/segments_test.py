"""Tests of drawing segments: brute force, plain autodiff, memory and laws."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph import geometry
from img2graph import graph as graph_lib
from img2graph import rendering
from img2graph.rendering import segments

STYLES = [(p, c) for p in segments.PROFILES for c in segments.COMPOSITIONS]
# Each of them once, where all six together would only cost time.
SOME_STYLES = [('gaussian', 'max'), ('gaussian', 'sum'), ('antialias', 'soft_or')]


def plain_draw(
  start, end, weight, thickness, *, height, width, profile, compose, softness=1.0
):
  """The definition, over `[B, E, H, W]`, for automatic differentiation."""
  x = (2 * np.arange(width) + 1) / width - 1
  y = (2 * np.arange(height) + 1) / height - 1
  points = np.stack(np.meshgrid(x, y), -1).reshape(1, 1, -1, 2).astype(start.dtype)
  batch, edges = start.shape[:2]
  weight = jnp.broadcast_to(weight.reshape((-1, edges)), (batch, edges))[..., None]
  thickness = jnp.asarray(thickness)
  thickness = thickness.reshape((1,) * (2 - thickness.ndim) + thickness.shape)
  thickness = jnp.broadcast_to(thickness, (batch, edges))[..., None]
  distance_sq = geometry.segment_distance_sq(
    points, start[:, :, None, :], end[:, :, None, :]
  )
  if profile == 'gaussian':
    line = jnp.exp(-distance_sq / thickness**2)
  else:
    border = softness * 2 / np.sqrt(height * width)
    line = jnp.clip((thickness + border / 2 - jnp.sqrt(distance_sq)) / border, 0, 1)
  ink = weight * line
  image = {
    'max': lambda: ink.max(1),
    'sum': lambda: ink.sum(1),
    'soft_or': lambda: 1 - jnp.prod(1 - ink, 1),
  }[compose]()
  return image.reshape(batch, height, width)


def random_edges(seed, batch, edges, dtype=np.float32):
  rng = np.random.default_rng(seed)
  start, end = rng.uniform(-1, 1, (2, batch, edges, 2)).astype(dtype)
  weight = rng.uniform(0.2, 0.95, (batch, edges)).astype(dtype)
  thickness = rng.uniform(0.08, 0.3, (batch, edges)).astype(dtype)
  return start, end, weight, thickness


def draw(profile, compose, height=12, width=12, **options):
  """`draw_edges` as a function of its four arrays."""

  @jax.jit
  def function(start, end, weight, thickness):
    return rendering.draw_edges(
      start,
      end,
      weight,
      height=height,
      width=width,
      thickness=thickness,
      profile=profile,
      compose=compose,
      **options,
    )

  return function


def compare_with_plain(arrays, profile, compose, height, width, rtol=1e-8, **options):
  """Value and all four gradients against autodiff, for a random loss."""
  cotangent = np.random.default_rng(9).normal(size=(len(arrays[0]), height, width))
  cotangent = cotangent.astype(arrays[0].dtype)

  def plain(*arrays):
    style = dict(profile=profile, compose=compose, **options)
    return plain_draw(*arrays, height=height, width=width, **style)

  @jax.jit
  def value_and_gradients(arrays):
    results = []
    for function in (draw(profile, compose, height, width, **options), plain):
      image, pull = jax.vjp(function, *arrays)
      results.append((image, pull(jnp.asarray(cotangent))))
    return results

  (image, grads), (expected_image, expected_grads) = value_and_gradients(arrays)
  chex.assert_trees_all_equal_shapes_and_dtypes(grads, expected_grads)
  np.testing.assert_allclose(image, expected_image, atol=1e-10 * rtol / 1e-8)
  for grad, expected in zip(grads, expected_grads, strict=True):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(grad, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize('profile,compose', STYLES)
def test_equals_plain_autodiff_in_float64(profile, compose):
  with jax.enable_x64(True):
    # Another softness than the default; more edges than one step of the loops takes.
    arrays = random_edges(0, 2, 6, np.float64)
    compare_with_plain(arrays, profile, compose, 9, 14, softness=1.5)


@pytest.mark.parametrize('compose', ['max', 'soft_or'])
def test_many_edges_are_drawn_as_few_are(compose):
  # More than one group of the backward loop, and not a multiple of it.
  with jax.enable_x64(True):
    arrays = random_edges(2, 1, 2 * segments._BACKWARD_EDGES + 3, np.float64)
    compare_with_plain(arrays, 'gaussian', compose, 8, 8)


def test_max_goes_through_large_images_in_bands(monkeypatch):
  monkeypatch.setattr(segments, '_BACKWARD_PIXELS', 30)
  with jax.enable_x64(True):
    arrays = random_edges(3, 2, 3, np.float64)
    compare_with_plain(arrays, 'gaussian', 'max', 12, 7)


@pytest.mark.parametrize('profile', segments.PROFILES)
def test_one_reduction_for_accelerators_equals_the_loop_for_cpus(profile):
  # No accelerator is needed: both must give the same sums on any device.
  arrays = [jnp.asarray(v) for v in random_edges(4, 2, 5)]
  style = segments._Style(10, 8, profile, 0.2)
  maps = tuple(jnp.asarray(np.random.default_rng(5).normal(size=(2, 2, 10, 8)), 'f'))

  def slope(value, edges, index, maps):
    return maps[0] + jnp.where(index == 1, maps[1], value)

  @jax.jit
  def both(arrays, maps):
    edges = segments._prepare(*arrays)
    index = jnp.broadcast_to(jnp.arange(5.0)[None], (2, 5))
    return [
      function(style, slope, edges, index, maps)
      for function in (segments._sum_by_rows, segments._sum_at_once)
    ]

  loop, reduction = both(arrays, maps)
  chex.assert_trees_all_close(loop, reduction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(), (5,)])
def test_gradients_have_the_shapes_of_the_inputs(shape):
  start, end, weight, _ = random_edges(3, 2, 5)
  thickness = np.full(shape, 0.1, np.float32)
  # Autodiff of the definition broadcasts by itself.
  compare_with_plain(
    (start, end, weight[0], thickness), 'gaussian', 'sum', 8, 8, rtol=1e-3
  )


def plain_first(start, end, weight, thickness, *, height, width):
  """Plain 'max' whose gradient goes to the first of several equal edges."""
  one = dict(height=height, width=width, profile='gaussian', compose='sum')
  alone = [
    plain_draw(*(v[:, e : e + 1] for v in (start, end, weight, thickness)), **one)
    for e in range(start.shape[1])
  ]
  ink = jnp.stack(alone)
  return jnp.take_along_axis(ink, ink.argmax(0)[None], axis=0)[0]


def nodes_grads(function, senders, receivers, nodes, weight, thickness):
  """Gradients of a random loss with respect to nodes, weights and thicknesses."""
  cotangent = np.random.default_rng(9).normal(size=(len(nodes), 9, 14))

  def loss(nodes, weight, thickness):
    arrays = nodes[:, senders], nodes[:, receivers], weight, thickness
    return (function(*arrays) * cotangent).sum()

  grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(nodes, weight, thickness)
  return [np.asarray(g) for g in grads]


def test_ties_of_max_have_the_gradient_of_the_first():
  # Each edge twice, and the copies first in one order, then in the other.
  with jax.enable_x64(True):
    arrays = random_edges(4, 2, 4, np.float64)
    arrays = [np.concatenate([v, v[:, ::-1]], axis=1) for v in arrays]
    cotangent = np.random.default_rng(9).normal(size=(2, 9, 14))

    def grads(function):
      found = jax.jit(lambda arrays: jax.vjp(function, *arrays)[1](cotangent))(arrays)
      return [np.asarray(g) for g in found]

    actual = grads(draw('gaussian', 'max', 9, 14))
    expected = grads(functools.partial(plain_first, height=9, width=14))
  chex.assert_trees_all_close(actual, expected, rtol=1e-8, atol=1e-8)
  assert all((g[:, 4:] == 0).all() for g in actual)


def test_edges_that_share_an_end_share_what_autodiff_gives_to_it():
  # Equal weights: nearest to a node, all its edges are equally near.
  senders, receivers = np.triu_indices(4, 1)
  with jax.enable_x64(True):
    nodes = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 4, 2))
    inputs = senders, receivers, nodes, np.full((2, 6), 0.7), np.full((2, 6), 0.2)
    plain = functools.partial(plain_first, height=9, width=14)
    actual = nodes_grads(draw('gaussian', 'max', 9, 14), *inputs)
    expected = nodes_grads(plain, *inputs)
  np.testing.assert_allclose(actual[0], expected[0], rtol=1e-8)
  for a, b in zip(actual[1:], expected[1:], strict=True):
    np.testing.assert_allclose(a.sum(1), b.sum(1), rtol=1e-8)


def test_edges_far_away_change_nothing():
  arrays = random_edges(11, 2, 5)
  # Their lines, continued, go through the middle of the image.
  angle = np.random.default_rng(2).uniform(0, 2 * np.pi, (2, 30))
  ray = np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
  far = 20 * ray, 900 * ray
  weight = np.full((2, 30), 0.95, np.float32)
  far = (*far, weight, np.full((2, 30), 0.05, np.float32))
  both = [np.concatenate(v, axis=1) for v in zip(far, arrays, strict=True)]

  def image_and_grads(arrays):
    image, pull = jax.vjp(draw('gaussian', 'max'), *arrays)
    return image, pull(jnp.ones_like(image))

  image, grads = jax.jit(image_and_grads)(both)
  expected_image, expected_grads = jax.jit(image_and_grads)(arrays)
  # The same numbers come in other steps of the loop, in which nothing else differs.
  np.testing.assert_allclose(image, expected_image, atol=1e-6)
  for grad, expected in zip(grads, expected_grads, strict=True):
    np.testing.assert_allclose(grad[:, 30:], expected, rtol=1e-4, atol=1e-5)
    assert (grad[:, :30] == 0).all()


@pytest.mark.parametrize('profile', segments.PROFILES)
def test_max_draws_the_same_with_and_without_winners(profile):
  arrays = [jnp.asarray(v) for v in random_edges(12, 2, 19)]
  style = segments._Style(10, 8, profile, 0.2)
  alone = jax.jit(functools.partial(segments._draw_max, style))(*arrays)
  image, _ = jax.jit(functools.partial(segments._forward_max, style))(*arrays)
  np.testing.assert_allclose(alone, image, rtol=1e-6, atol=1e-7)


def test_gaussian_falls_to_one_over_e_at_the_thickness():
  image = draw('gaussian', 'max', 40, 40)(
    jnp.array([[[-1.0, -0.025]]]), jnp.array([[[1.0, -0.025]]]), jnp.ones(1), 0.1
  )
  # Row 19 is the line itself; rows are 0.05 apart.
  np.testing.assert_allclose(image[0, 19], 1, rtol=1e-5)
  np.testing.assert_allclose(image[0, 21], np.exp(-1), rtol=1e-5)


# With a border of whole pixels the samples add up to exactly the width.
@pytest.mark.parametrize('softness', [1.0, 3.0])
def test_antialias_has_the_ink_of_its_width(softness):
  # A line of half width 3.2 pixels: each column holds 6.4 pixels of ink.
  start, end = jnp.array([[[-3.0, 0.11]]]), jnp.array([[[3.0, 0.11]]])
  image = draw('antialias', 'max', 40, 40, softness=softness)(
    start, end, jnp.ones(1), 3.2 / 20
  )
  np.testing.assert_allclose(image[0].sum(0), 6.4, rtol=1e-4)
  soft = ((image[0] > 0) & (image[0] < 1)).sum(0)
  assert 2 * (softness - 1) <= soft.min() <= soft.max() <= 2 * (softness + 1)


def test_compositions_of_two_crossing_lines():
  start = jnp.array([[[-1.0, 0.0], [0.0, -1.0]]])
  end = -start
  weight = jnp.array([0.5, 0.75])
  expected = {'max': 0.75, 'sum': 1.25, 'soft_or': 1 - 0.5 * 0.25}
  for compose, value in expected.items():
    image = draw('antialias', compose, 9, 9)(start, end, weight, 0.3)
    np.testing.assert_allclose(image[0, 4, 4], value, rtol=1e-6)
    np.testing.assert_allclose(image[0, 4, 0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(image[0, 0, 4], 0.75, rtol=1e-6)
    np.testing.assert_allclose(image[0, 0, 0], 0, atol=1e-6)


def test_full_weights_under_soft_or_have_the_gradient_of_the_other_factors():
  # Three edges over one pixel: factors 0 (weight 1), 0 and 0.5.
  ends = jnp.array([[[-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]]])

  def ink(weight):
    return draw('antialias', 'soft_or', 5, 5)(ends, -ends, weight, 0.5)[0, 2, 2]

  grad = jax.jit(jax.grad(ink))
  np.testing.assert_array_equal(grad(jnp.array([1.0, 0.5, 0.25])), [0.375, 0, 0])
  np.testing.assert_array_equal(grad(jnp.array([1.0, 1.0, 0.25])), [0, 0, 0])
  # A weight above 1 makes a negative factor, which is not the one nearest to 0.
  np.testing.assert_array_equal(grad(jnp.array([2.0, 1.0, 0.25])), [0, -0.75, 0])
  np.testing.assert_allclose(
    grad(jnp.array([0.5, 0.5, 0.25])), [0.375, 0.375, 0.25], rtol=1e-6
  )


def test_soft_or_gradient_is_accurate_for_weights_near_one():
  # Plain autodiff in float32 multiplies the other factors, so it has no trouble.
  start, end, _, thickness = random_edges(6, 1, 6)
  weight = np.array([[1, 1 - 1e-7, 1 - 1e-6, 1, 0.9999, 0.5]], np.float32)
  arrays = (start / 4, end / 4, weight, thickness)
  compare_with_plain(arrays, 'antialias', 'soft_or', 12, 12, rtol=1e-4)


@pytest.mark.parametrize('profile,compose', [*SOME_STYLES, ('antialias', 'max')])
def test_awkward_edges_have_finite_gradients(profile, compose):
  # A dot on a pixel centre, a nearly closed edge, an edge outside, an edge of weight 0.
  start = jnp.array([[[0.0, 0.0], [0.5, 0.5], [5.0, 5.0], [-1.0, 0.0]]])
  end = start + jnp.array([[[0.0, 0.0], [1e-18, 1e-14], [1.0, 1.0], [2.0, 0.0]]])
  arrays = (start, end, jnp.array([[1.0, 0.5, 0.3, 0.0]]), jnp.full((1, 4), 0.1))

  def loss(*arrays):
    return (draw(profile, compose, 7, 7)(*arrays) ** 2).sum()

  grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*arrays)
  chex.assert_tree_all_finite(grads)
  # Both ends of a dot share.
  np.testing.assert_allclose(grads[0][0, 0], grads[1][0, 0], rtol=1e-4, atol=1e-7)


def test_dots_are_discs():
  image = draw('gaussian', 'sum', 9, 9)(
    jnp.zeros((1, 1, 2)), jnp.zeros((1, 1, 2)), jnp.ones(1), 0.4
  )
  distance_sq = (geometry.pixel_centres(9, 9) ** 2).sum(-1)
  np.testing.assert_allclose(image[0], np.exp(-distance_sq / 0.16), rtol=1e-5)


@pytest.mark.parametrize('compose', segments.COMPOSITIONS)
def test_no_edges_give_an_empty_image(compose):
  no_edges = jnp.zeros((2, 0, 2))
  image = draw('gaussian', compose, 3, 4)(no_edges, no_edges, jnp.zeros(0), 0.1)
  np.testing.assert_array_equal(image, np.zeros((2, 3, 4)))
  grad = jax.grad(lambda s: draw('gaussian', compose)(s, s, jnp.zeros(0), 0.1).sum())
  chex.assert_shape(grad(no_edges), (2, 0, 2))


@pytest.mark.parametrize('profile,compose', SOME_STYLES)
def test_edges_without_weight_leave_nothing(profile, compose):
  start, end, weight, thickness = random_edges(7, 2, 6)
  weight[:, 3:] = 0
  function = jax.jit(draw(profile, compose))
  image = function(start, end, weight, thickness)
  fewer = function(start[:, :3], end[:, :3], weight[:, :3], thickness[:, :3])
  np.testing.assert_allclose(image, fewer, atol=1e-6)
  np.testing.assert_array_equal(function(start, end, 0 * weight, thickness), 0)


def test_order_of_edges_and_of_their_ends_does_not_matter():
  start, end, weight, thickness = random_edges(8, 2, 6)
  order = np.random.default_rng(0).permutation(6)
  for profile, compose in (('gaussian', 'max'), ('antialias', 'soft_or')):
    function = jax.jit(draw(profile, compose))
    np.testing.assert_allclose(
      function(start, end, weight, thickness),
      function(end[:, order], start[:, order], weight[:, order], thickness[:, order]),
      atol=1e-5,
    )


@pytest.mark.parametrize('compose', segments.COMPOSITIONS)
def test_not_a_number_is_not_hidden(compose):
  start, end, weight, thickness = random_edges(9, 1, 6)
  weight[0, 1] = np.nan
  image = jax.jit(draw('gaussian', compose))(start, end, weight, thickness)
  assert np.isnan(image).all()


@pytest.mark.parametrize('profile, compose', STYLES)
def test_float32_stays_so_where_float64_is_enabled(profile, compose):
  ends = np.array([[[-0.5, -0.5], [0.5, 0.5]]], np.float32)
  with jax.enable_x64(True):
    draw = functools.partial(
      rendering.draw_edges, height=6, width=5, profile=profile, compose=compose
    )
    image, pull = jax.vjp(
      lambda start: draw(start, -ends, np.ones(2, np.float32), thickness=0.1), ends
    )
    (grad,) = pull(jnp.ones_like(image))
  assert image.dtype == grad.dtype == np.float32


@pytest.mark.parametrize('compose', ['max', 'soft_or'])
def test_vmap_equals_a_loop(compose):
  sets = random_edges(1, 2, 5), random_edges(2, 2, 5)
  arrays = [np.stack(v) for v in zip(*sets, strict=True)]

  def grads(*arrays):
    function = draw('gaussian', compose)
    return jax.grad(lambda *a: (function(*a) ** 2).sum(), argnums=(0, 1, 2, 3))(*arrays)

  mapped = jax.jit(jax.vmap(grads))(*arrays)
  one = jax.jit(grads)
  for i in range(2):
    chex.assert_trees_all_close(
      [g[i] for g in mapped], list(one(*(a[i] for a in arrays))), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('compose', ['max', 'soft_or'])
def test_shards_of_the_batch_are_drawn_where_they_are(compose):
  arrays = random_edges(10, 8, 5)
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  sharded = NamedSharding(mesh, PartitionSpec('data'))

  def image_and_grads(*arrays):
    image, pull = jax.vjp(draw('gaussian', compose), *arrays)
    return image, pull(image)

  expected = jax.jit(image_and_grads)(*arrays)
  function = jax.jit(image_and_grads, in_shardings=sharded, out_shardings=sharded)
  compiled = function.lower(*arrays).compile()
  for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'):
    assert word not in compiled.as_text()
  actual = compiled(*(jax.device_put(v, sharded) for v in arrays))
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('profile,compose', SOME_STYLES)
def test_memory_stays_far_below_one_image_per_edge(profile, compose):
  shapes = [(8, 120, 2), (8, 120, 2), (8, 120), (8, 120)]
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

  def grads(*arrays):
    function = draw(profile, compose, 128, 128)
    return jax.grad(lambda *a: (function(*a) ** 2).sum(), argnums=(0, 1, 2, 3))(*arrays)

  memory = jax.jit(grads).lower(*arrays).compile().memory_analysis()
  one_image_per_edge = 8 * 120 * 128 * 128 * 4
  assert memory.temp_size_in_bytes < one_image_per_edge / 5


def test_memory_of_max_does_not_grow_with_the_edges():
  def temporary(edges):
    shapes = [(4, edges, 2), (4, edges, 2), (4, edges), (4, edges)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def grads(*arrays):
      function = draw('gaussian', 'max', 64, 64)
      return jax.grad(lambda *a: (function(*a) ** 2).sum(), argnums=(0, 1, 2, 3))(
        *arrays
      )

    memory = jax.jit(grads).lower(*arrays).compile().memory_analysis()
    return memory.temp_size_in_bytes

  image = 4 * 64 * 64 * 4
  few, many = temporary(32), temporary(1920)
  # What there is of an edge (ends, weight, frame, sums) is not an image.
  assert many < few + 4 * 1920 * 4 * 60
  assert many < 60 * image


@pytest.mark.parametrize(
  'change,words',
  [
    (dict(start=np.zeros((2, 3))), 'start must be .B, E, 2.'),
    (dict(end=np.zeros((2, 3, 3))), 'end must be .B, E, 2.'),
    (dict(end=np.zeros((2, 4, 2))), 'same shape'),
    (dict(weight=np.zeros(2)), r'weight must be \(3,\) or \(2, 3\)'),
    (dict(weight=1.0), 'weight must be'),
    (dict(thickness=np.ones(4)), 'thickness must be .* or'),
    (dict(thickness=0), 'thickness must be positive'),
    (dict(thickness=-0.1, profile='antialias'), 'thickness must be at least 0'),
    (dict(profile='box'), 'profile must be one of'),
    (dict(compose='min'), 'compose must be one of'),
    (dict(height=0), 'height must be at least 1'),
    (dict(width=-3), 'width must be at least 1'),
    (dict(width=2.5), 'width must be a whole number'),
    (dict(softness=0), 'softness must be'),
  ],
)
def test_wrong_arguments_are_named(change, words):
  arguments = dict(
    start=np.zeros((2, 3, 2)),
    end=np.ones((2, 3, 2)),
    weight=np.ones(3),
    height=4,
    width=4,
    thickness=0.1,
  )
  with pytest.raises(ValueError, match=words):
    rendering.draw_edges(**arguments | change)


def test_graph_is_drawn_edge_by_edge():
  edge_prob = np.zeros((2, 4, 4), np.float32)
  for a, b, prob in ((0, 1, 1.0), (1, 2, 0.75), (0, 3, 0.25)):
    edge_prob[:, a, b] = edge_prob[:, b, a] = prob
  nodes = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2)).astype(np.float32)
  graph = graph_lib.Graph(nodes, np.ones((2, 4), np.float32), edge_prob)
  options = dict(height=10, width=12, thickness=0.1)
  draw_graph = jax.jit(functools.partial(rendering.draw_graph, **options))
  strong = jax.jit(functools.partial(rendering.draw_graph, min_prob=0.25, **options))
  image = strong(graph)
  draw_edges = functools.partial(
    rendering.draw_edges, profile='antialias', compose='soft_or', **options
  )
  expected = jax.jit(draw_edges)(
    nodes[:, [0, 1]],
    nodes[:, [1, 2]],
    jnp.array([1.0, 0.75]),
  )
  np.testing.assert_allclose(image, expected[..., None], atol=1e-6)
  single = draw_graph(jax.tree.map(lambda x: x[0], graph))
  chex.assert_shape(single, (10, 12, 1))
  for capacity in (0, 1):
    empty = rendering.draw_graph(graph_lib.empty((3,), capacity), **options)
    np.testing.assert_array_equal(empty, np.zeros((3, 10, 12, 1)))
