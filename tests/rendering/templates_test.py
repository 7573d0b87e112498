"""Tests of template drawing: another sampler, the distance field, and laws."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from img2graph import rendering
from img2graph.rendering import templates


def random_edges(seed, batch, edges):
  rng = np.random.default_rng(seed)
  start, end = rng.uniform(-0.8, 0.8, (2, batch, edges, 2)).astype(np.float32)
  weight = rng.uniform(0.2, 0.9, (batch, edges)).astype(np.float32)
  return start, end, weight


@functools.partial(jax.jit, static_argnames=('height', 'width', 'half_width'))
def draw(start, end, weight, height=24, width=24, half_width=1.5):
  return rendering.draw_templates(
    rendering.line_template(16),
    start,
    end,
    weight,
    height=height,
    width=width,
    half_width=half_width,
  )


def test_line_template_is_a_soft_line_over_the_full_width():
  template = rendering.line_template(8, half_width=2, softness=2)
  expected = [0, 0.25, 0.75, 1, 1, 0.75, 0.25, 0]
  np.testing.assert_allclose(template, np.tile(np.array(expected)[:, None], (1, 8)))
  assert template.dtype == np.float32
  # The default: as much ink as a line over half the height.
  np.testing.assert_allclose(rendering.line_template(16).sum(0), 8, rtol=1e-6)


@pytest.mark.parametrize(
  'arguments', [(0,), (8, -1), (8, 2, 0), (8, 4), (8, 3, 4), (8.5,)]
)
def test_template_that_cannot_be_drawn_is_refused(arguments):
  with pytest.raises(ValueError):
    rendering.line_template(*arguments)


def test_affine_grid_is_the_map_at_pixel_centres():
  theta = np.random.default_rng(0).normal(size=(2, 3, 2, 3)).astype(np.float32)
  grid = templates.affine_grid(jnp.asarray(theta), height=4, width=5)
  chex.assert_shape(grid, (2, 3, 4, 5, 2))
  for row in range(4):
    for column in range(5):
      point = np.array([2 * (column + 0.5) / 5 - 1, 2 * (row + 0.5) / 4 - 1, 1])
      np.testing.assert_allclose(grid[:, :, row, column], theta @ point, atol=1e-5)


def test_samples_equal_those_of_scipy():
  rng = np.random.default_rng(1)
  image = rng.uniform(size=(5, 7)).astype(np.float32)
  grid = rng.uniform(-1.6, 1.6, (400, 2)).astype(np.float32)
  actual = jax.jit(templates.bilinear_sample)(image, grid)
  pixels = [(grid[:, 1] + 1) / 2 * 5 - 0.5, (grid[:, 0] + 1) / 2 * 7 - 0.5]
  expected = ndimage.map_coordinates(image, pixels, order=1, mode='grid-constant')
  np.testing.assert_allclose(actual, expected, atol=1e-5)
  assert (np.asarray(actual)[np.abs(grid).max(1) > 1.21] == 0).all()


def test_slope_of_a_sampled_ramp_is_that_of_the_ramp():
  with jax.enable_x64(True):
    # 3 + 2 x - y in coordinates.
    x, y = np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 for n in (8, 6)))
    grid = np.random.default_rng(2).uniform(-0.8, 0.8, (20, 2))
    image = 3 + 2 * x - y
    sample = templates.bilinear_sample
    np.testing.assert_allclose(
      sample(image, grid), 3 + 2 * grid[:, 0] - grid[:, 1], rtol=1e-12
    )
    grad = jax.grad(lambda grid: sample(image, grid).sum())(grid)
    np.testing.assert_allclose(grad, np.tile([2.0, -1.0], (20, 1)), rtol=1e-9)


def test_transform_lays_the_template_along_the_edge():
  start, end = jnp.array([0.1, -0.2]), jnp.array([0.5, 0.1])
  theta = templates.edge_transform(start, end, 0.1, shortest=0.01)
  corner = start + 0.1 * jnp.array([-0.6, 0.8])
  points = jnp.stack([start, end, corner])
  mapped = points @ theta[:, :2].T + theta[None, :, 2]
  np.testing.assert_allclose(mapped, [[-1, 0], [1, 0], [-1, 1]], atol=1e-5)


def test_equals_the_distance_field_of_the_same_line():
  # A fine template; away from the ends, which are cut straight here and round there.
  start, end = jnp.array([[[-0.7, -0.5]]]), jnp.array([[[0.6, 0.7]]])
  image = rendering.draw_templates(
    rendering.line_template(64),
    start,
    end,
    jnp.array([0.8]),
    height=48,
    width=48,
    half_width=2.0,
  )
  expected = rendering.draw_edges(
    start,
    end,
    jnp.array([0.8]),
    height=48,
    width=48,
    thickness=2.0 * 2 / 48,
    profile='antialias',
    softness=2.0,
  )
  np.testing.assert_allclose(image[0, 16:36], expected[0, 16:36], atol=0.02)
  assert np.abs(image - expected).mean() < 0.005


@pytest.mark.parametrize('fill', [0.25, 0.5])
@pytest.mark.parametrize('height, width', [(48, 48), (24, 96)])
def test_lines_are_as_wide_as_asked_for_whatever_the_template_and_image(
  fill, height, width
):
  ends = jnp.array([[[0.9, 0.0]]]), jnp.array([[[0.0, 0.9]]])
  for start in ends:
    image = rendering.draw_templates(
      rendering.line_template(64, half_width=32 * fill, softness=8),
      -start,
      start,
      jnp.ones(1),
      height=height,
      width=width,
      half_width=8,
      fill=fill,
    )
    # A pixel is the geometric mean of its sides, 1 / 24 in coordinates.
    lie = int(start[0, 0, 0] == 0)
    across = image[0].sum(lie)[(height, width)[1 - lie] // 2]
    np.testing.assert_allclose(across * 2 / (height, width)[lie], 16 / 24, rtol=0.01)


def test_copies_are_weighted_and_added():
  start, end, weight = random_edges(3, 2, 4)
  image = draw(start, end, weight)
  parts = [
    draw(start[:, [e]], end[:, [e]], jnp.ones(1)) * weight[:, e, None, None]
    for e in range(4)
  ]
  np.testing.assert_allclose(image, sum(parts), atol=1e-5)
  # A straight line looks the same from its other end, and the order is free.
  order = np.array([2, 0, 3, 1])
  turned = draw(end[:, order], start[:, order], weight[:, order])
  np.testing.assert_allclose(image, turned, atol=1e-4)


def test_lines_keep_their_width_whatever_their_length():
  ends = jnp.array([[[0.3, 0.0]], [[0.9, 0.0]]])
  image = draw(-ends, ends, jnp.ones(1), height=32, width=32, half_width=2.5)
  np.testing.assert_allclose(image.sum(1)[:, 16], 5, rtol=0.02)


def test_gradients_equal_differences_in_float64():
  with jax.enable_x64(True):
    start, end, weight = (v.astype(np.float64) for v in random_edges(4, 1, 2))
    cotangent = np.random.default_rng(5).normal(size=(1, 24, 24))

    @jax.jit
    def loss(*arrays):
      return (cotangent * draw(*arrays)).sum()

    arrays = [start, end, weight]
    grads = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
    step = 1e-7
    for k, grad in enumerate(grads):
      expected = np.zeros_like(arrays[k])
      for i in np.ndindex(expected.shape):
        values = []
        for sign in (1, -1):
          moved = [v.copy() for v in arrays]
          moved[k][i] += sign * step
          values.append(loss(*moved))
        expected[i] = (values[0] - values[1]) / (2 * step)
      np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-4)


def test_awkward_edges_are_short_lines_with_finite_gradients():
  start = jnp.array([[[0.0, 0.0], [0.5, 0.5], [5.0, 5.0], [-0.5, 0.0]]])
  end = start + jnp.array([[[0.0, 0.0], [1e-12, -1e-9], [1.0, 1.0], [0.01, 0.0]]])

  def ink(start, end):
    return draw(start, end, jnp.ones(4)).sum()

  grads = jax.jit(jax.grad(ink, argnums=(0, 1)))(start, end)
  chex.assert_tree_all_finite(grads)
  # A pixel long, as wide as any line, and cut softly.
  image = draw(start, end, jnp.array([1.0, 0, 0, 0]))
  np.testing.assert_allclose(image.sum(), 3, rtol=0.05)


def test_an_edge_shorter_than_a_pixel_moves_but_does_not_turn():
  start = np.array([[[0.05, 0.02]]], np.float32)
  cotangent = np.random.default_rng(6).normal(size=(1, 24, 24))

  @jax.jit
  def slopes(start, end):
    def ink(start, end):
      return (cotangent * draw(start, end, jnp.ones(1))).sum()

    return jax.grad(ink, argnums=(0, 1))(start, end)

  for offset in ((0, 0), (1e-6, 2e-6), (0.02, 0.01)):
    by_start, by_end = slopes(start, start + np.array(offset, np.float32))
    # Neither end pulls it longer or round, where slopes would grow like 1 / length.
    np.testing.assert_allclose(by_start, by_end, rtol=1e-3, atol=1e-3)
    assert np.abs(by_start).max() > 1


def test_no_edges_give_an_empty_image():
  no_edges = jnp.zeros((2, 0, 2))
  np.testing.assert_array_equal(draw(no_edges, no_edges, jnp.zeros(0)), 0)


def test_float32_stays_so_where_float64_is_enabled():
  ends = np.array([[[-0.5, -0.5], [0.5, 0.5]]], np.float32)
  template = rendering.line_template(8)
  with jax.enable_x64(True):
    image = rendering.draw_templates(
      template, ends, -ends, np.ones(2, np.float32), height=6, width=5, half_width=1
    )
  assert image.dtype == np.float32


def test_memory_does_not_grow_with_the_edges():
  def temp_size(edges):
    shapes = [(8, edges, 2), (8, edges, 2), (8, edges)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def grads(*arrays):
      return jax.grad(
        lambda *a: (draw(*a, height=64, width=64) ** 2).sum(), argnums=(0, 1)
      )(*arrays)

    memory = jax.jit(grads).lower(*arrays).compile().memory_analysis()
    return memory.temp_size_in_bytes

  assert temp_size(28) < 1.2 * temp_size(3)


@pytest.mark.parametrize(
  'change,words',
  [
    (dict(template=np.zeros(4)), 'template must be'),
    (dict(start=np.zeros((2, 3))), 'start must be'),
    (dict(weight=np.zeros(2)), 'weight must be'),
    (dict(height=0), 'height must be at least 1'),
    (dict(half_width=0), 'half_width must be positive'),
    (dict(fill=1.5), 'fill in'),
  ],
)
def test_wrong_arguments_are_named(change, words):
  arguments = dict(
    template=np.ones((4, 4)),
    start=np.zeros((2, 3, 2)),
    end=np.ones((2, 3, 2)),
    weight=np.ones(3),
    height=4,
    width=4,
    half_width=1,
  )
  with pytest.raises(ValueError, match=words):
    rendering.draw_templates(**arguments | change)


def test_wrong_grids_are_named():
  with pytest.raises(ValueError, match='theta must be'):
    templates.affine_grid(jnp.zeros((3, 2)), height=4, width=4)
  with pytest.raises(ValueError, match='grid must be'):
    templates.bilinear_sample(jnp.zeros((3, 2)), jnp.zeros((4, 3)))
  with pytest.raises(ValueError, match='to sample from'):
    templates.bilinear_sample(jnp.zeros((3, 2, 1)), jnp.zeros((4, 2)))
