"""Tests of the GPU kernels, interpreted: they draw what `segments` draws."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.rendering import pallas_segments
from img2graph.rendering import segments

OPTIONS = pallas_segments.Options(
  tile=(4, 8), backward='tile', backward_tile=(4, 8), interpret=True
)


def make_style(height, width, profile='gaussian'):
  return segments._Style(height, width, profile, 2 / np.sqrt(height * width))


def random_edges(seed, batch=2, edges=40, thickness=(0.03, 0.3)):
  """More edges than are judged at once; some are dots, unweighted, equal."""
  rng = np.random.default_rng(seed)
  start, end = rng.uniform(-1, 1, (2, batch, edges, 2))
  weight = rng.uniform(0.02, 1.5, (batch, edges))
  thickness = rng.uniform(*thickness, (batch, edges))
  if edges > 8:
    end[:, 1] = start[:, 1]
    weight[0, 2] = 0
    weight[1, 3] = -1
    for v in (start, end, weight, thickness):
      v[:, 5] = v[:, 4]
  return tuple(v.astype(np.float32) for v in (start, end, weight, thickness))


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw_with_gradients(style, options, arrays, grad):
  """Image and gradients; of `segments` if there are no options."""

  def draw(*arrays):
    if options is None:
      return segments._draw_max(style, *arrays)
    return pallas_segments.draw_max(style, *arrays, options=options)

  image, pull = jax.vjp(draw, *arrays)
  return image, pull(grad)


@functools.partial(jax.jit, static_argnums=(0, 1))
def find_max(style, options, *arrays):
  return pallas_segments.find_max(style, *arrays, with_winner=True, options=options)


def assert_same(style, options, arrays):
  shape = (arrays[0].shape[0], style.height, style.width)
  grad = np.random.default_rng(9).normal(size=shape).astype(np.float32)
  image, grads = draw_with_gradients(style, options, arrays, grad)
  expected, expected_grads = draw_with_gradients(style, None, arrays, grad)
  np.testing.assert_allclose(image, expected, atol=2e-6)
  for actual, wanted in zip(grads, expected_grads, strict=True):
    chex.assert_equal_shape((actual, wanted))
    scale = np.nanmax(np.abs(wanted)) or 1
    np.testing.assert_allclose(actual / scale, wanted / scale, atol=2e-5)
  return image, grads


@pytest.mark.parametrize(
  ('reject', 'backward'), [('none', 'edge'), ('each', 'tile'), ('group', 'tile')]
)
def test_image_and_gradients_are_those_of_segments(reject, backward):
  options = OPTIONS._replace(reject=reject, backward=backward)
  style = make_style(11, 18)
  assert_same(style, options, random_edges(0))
  # Thin lines: most edges are out of the reach of most tiles.
  assert_same(style, options, random_edges(1, thickness=(0.005, 0.02)))
  arrays = random_edges(4, thickness=(0.2, 0.3))
  _, winner = find_max(style, options, *arrays)
  _, expected = segments._find_max(style, *arrays, with_winner=True)
  # At the tips of a dot and of lines of one weight, rounding decides.
  assert np.mean(winner == expected) > 0.99


def test_first_of_equal_edges_wins():
  arrays = tuple(np.repeat(v[:, :1], 40, axis=1) for v in random_edges(3, edges=1))
  _, winner = find_max(make_style(11, 18), OPTIONS, *arrays)
  assert winner.dtype == jnp.int32
  np.testing.assert_array_equal(winner, 0)


@pytest.mark.parametrize('backward', ['edge', 'tile'])
def test_unknown_edges_and_edges_without_weight(backward):
  options, style = OPTIONS._replace(backward=backward), make_style(5, 6)
  start, end, weight, thickness = random_edges(5, batch=5, edges=3)
  for image, array in enumerate((start, weight, thickness)):
    array[image, 1] = np.nan
  weight[3] = [0, -1, 0]
  image, grads = assert_same(style, options, (start, end, weight, thickness))
  assert np.isnan(image[:3]).all()
  np.testing.assert_array_equal(image[3], 0)
  # They may grow.
  assert np.any(grads[2][3] != 0)
  assert np.isfinite(image[3:]).all()


def test_one_edge():
  assert_same(make_style(3, 5), OPTIONS, random_edges(2, batch=1, edges=1))


def test_other_profiles_and_types_are_refused():
  arrays = random_edges(7, edges=2)
  with pytest.raises(ValueError, match='gaussian'):
    pallas_segments.draw_max(make_style(8, 8, 'antialias'), *arrays)
  with pytest.raises(ValueError, match='float32'):
    pallas_segments.draw_max(make_style(8, 8), *(v.astype('float16') for v in arrays))
