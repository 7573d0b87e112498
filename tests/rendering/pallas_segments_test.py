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


# Not a whole number of tiles.
STYLE = make_style(11, 18)


def random_edges(seed, thickness=(0.03, 0.3)):
  """More edges than are judged at once; some are dots, unweighted, equal."""
  rng = np.random.default_rng(seed)
  start, end = rng.uniform(-1, 1, (2, 4, 36, 2))
  weight = rng.uniform(0.02, 1.5, (4, 36))
  thickness = rng.uniform(*thickness, (4, 36))
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
  if options is None:
    return segments._find_max(style, *arrays, with_winner=True)
  return pallas_segments.find_max(style, *arrays, with_winner=True, options=options)


def assert_same(options, arrays):
  shape = (arrays[0].shape[0], STYLE.height, STYLE.width)
  grad = np.random.default_rng(9).normal(size=shape).astype(np.float32)
  image, grads = draw_with_gradients(STYLE, options, arrays, grad)
  expected, expected_grads = draw_with_gradients(STYLE, None, arrays, grad)
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
  assert_same(options, random_edges(0))
  # Thin lines: most edges are out of the reach of most tiles.
  assert_same(options, random_edges(1, thickness=(0.005, 0.02)))

  start, end, weight, thickness = random_edges(2)
  for image, array in enumerate((start, end, weight)):
    array[image, 2] = np.nan
  weight[3] = 0
  image, grads = assert_same(options, (start, end, weight, thickness))
  assert np.isnan(image[:3]).all()
  np.testing.assert_array_equal(image[3], 0)
  # They may grow.
  assert np.any(grads[2][3] != 0)


def test_they_draw_where_there_is_one_gpu(monkeypatch):
  arrays = random_edges(6)

  def traced(style=STYLE, dtype=np.float32):
    def loss(*arrays):
      return segments._draw_max(style, *arrays).sum()

    with jax.enable_x64(dtype == np.float64):
      return str(jax.make_jaxpr(jax.grad(loss))(*(v.astype(dtype) for v in arrays)))

  assert 'pallas_call' not in traced()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  for count, options in (
    (1, dict(style=make_style(11, 18, 'antialias'))),
    (1, dict(dtype=np.float64)),
    (2, {}),
  ):
    monkeypatch.setattr(jax, 'device_count', lambda count=count: count)
    assert 'pallas_call' not in traced(**options)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  assert traced().count('pallas_call') == 2
  # What has no such GPU after all draws as ever.
  grad = np.ones((4, STYLE.height, STYLE.width), np.float32)
  found = draw_with_gradients.__wrapped__(STYLE, None, arrays, grad)
  monkeypatch.undo()
  expected = draw_with_gradients.__wrapped__(STYLE, None, arrays, grad)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected
  )


def test_winners():
  arrays = random_edges(3, thickness=(0.2, 0.3))
  _, winner = find_max(STYLE, OPTIONS, *arrays)
  assert winner.dtype == jnp.int32
  _, expected = find_max(STYLE, None, *arrays)
  # At a dot and at ends of lines of one weight, rounding decides.
  assert np.mean(winner == expected) > 0.99
  # The first of equals.
  arrays = tuple(np.repeat(v[:, :1], v.shape[1], axis=1) for v in arrays)
  _, winner = find_max(STYLE, OPTIONS, *arrays)
  np.testing.assert_array_equal(winner, 0)


def test_one_edge_smaller_than_a_tile():
  arrays = tuple(v[:1, :1] for v in random_edges(4))
  style = make_style(3, 5)
  image, _ = find_max(style, OPTIONS, *arrays)
  expected, _ = find_max(style, None, *arrays)
  np.testing.assert_allclose(image, expected, atol=2e-6)


def test_other_profiles_and_types_are_refused():
  arrays = random_edges(5)
  with pytest.raises(ValueError, match='gaussian'):
    pallas_segments.draw_max(make_style(8, 8, 'antialias'), *arrays)
  with pytest.raises(ValueError, match='float32'):
    pallas_segments.draw_max(make_style(8, 8), *(v.astype('float16') for v in arrays))
