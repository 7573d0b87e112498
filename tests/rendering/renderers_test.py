"""Tests of img2graph/rendering/renderers.py."""

import functools

import jax
import numpy as np
import pytest

from img2graph.rendering import renderers
from img2graph.rendering import templates
from tests import compiled

RNG = np.random.default_rng(0)
START, END = RNG.uniform(-0.9, 0.9, (2, 2, 6, 2)).astype(np.float32)
WEIGHT = RNG.uniform(0.1, 0.9, (2, 6)).astype(np.float32)
SIZE = {'height': 32, 'width': 32}


def _apply(renderer, weight=WEIGHT, *, progress=1.0, train=False, seed=0, theta=None):
  inputs, options = (START, END, weight), dict(SIZE, progress=progress, train=train)
  variables = compiled.init(renderer, *inputs, **options)
  if theta is not None:
    variables = {'params': {'log_half_width': np.float32(theta)}}
  rngs = {'explore': jax.random.key(seed)}
  return compiled.apply(renderer, variables, *inputs, rngs=rngs, **options)


def _strongest(count, half_width=1.25, compose='soft_or'):
  """The drawing of the strongest edges of each image alone, chosen by numpy."""
  index = np.argsort(-WEIGHT, axis=1)[:, :count]
  rows = np.arange(2)[:, None]
  return compiled.draw_edges(
    START[rows, index],
    END[rows, index],
    0.999 * WEIGHT[rows, index],
    thickness=half_width * 2 / 32,
    profile='antialias',
    compose=compose,
    softness=2.5,
    **SIZE,
  )


def test_the_strongest_edges_are_drawn_and_no_others():
  for count in (1, 3, 6):
    actual = _apply(renderers.SegmentRenderer(max_edges=count))
    np.testing.assert_allclose(actual, _strongest(count), atol=1e-5)
  more = _apply(renderers.SegmentRenderer(max_edges=50))
  np.testing.assert_allclose(more, _strongest(6), atol=1e-5)


@pytest.mark.parametrize('compose', ['max', 'sum'])
def test_edges_that_overlap_add_up_as_asked_for(compose):
  actual = _apply(renderers.SegmentRenderer(max_edges=6, compose=compose))
  np.testing.assert_allclose(actual, _strongest(6, compose=compose), atol=1e-5)
  assert np.abs(actual - _strongest(6)).max() > 0.05


def test_the_learned_width_is_that_of_the_line():
  renderer = renderers.SegmentRenderer(max_edges=2, width_rate=5.0)
  wide = _apply(renderer, theta=np.log(2) / 5)
  np.testing.assert_allclose(wide, _strongest(2, half_width=2.5), atol=1e-5)


def test_edges_that_are_not_drawn_have_no_gradient_and_others_do():
  renderer = renderers.SegmentRenderer(max_edges=2)
  gradient = jax.grad(lambda w: _apply(renderer, w).sum())(WEIGHT)
  drawn = np.argsort(-WEIGHT, axis=1)[:, :2]
  expected = np.zeros_like(WEIGHT, bool)
  np.put_along_axis(expected, drawn, True, axis=1)
  np.testing.assert_array_equal(np.asarray(gradient) > 0, expected)


def test_noise_explores_edges_early_in_training_only():
  renderer = renderers.SegmentRenderer(max_edges=1, noise=5.0, noise_until=0.7)
  quiet = _strongest(1)
  late = _apply(renderer, progress=0.7, train=True)
  np.testing.assert_allclose(late, quiet, atol=1e-5)
  early = [_apply(renderer, progress=0.0, train=True, seed=k) for k in range(4)]
  assert max(np.abs(drawing - quiet).max() for drawing in early) > 0.05


def test_templates_are_drawn_as_the_function_does():
  renderer = renderers.TemplateRenderer(size=16, half_width=1.5)
  actual = _apply(renderer)
  draw = functools.partial(templates.draw_templates, half_width=1.5, **SIZE)
  expected = jax.jit(draw)(templates.line_template(16), START, END, WEIGHT)
  np.testing.assert_allclose(actual, expected, atol=1e-6)
