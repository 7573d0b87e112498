"""The in-painting network: shapes, and what it can and cannot see."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from img2graph.rendering import inpainting
from tests import variables


def test_every_size_reaches_every_pixel_and_gradients_are_finite():
  model = inpainting.InpaintingNet((2, 3, 3))
  x = np.random.default_rng(0).standard_normal((1, 16, 16, 4)).astype(np.float32)
  values = variables.random(model.init, x)

  def value(x, values):
    return model.apply(values, x)[0, 8, 8].sum()

  gradient, of_values = jax.jit(jax.grad(value, argnums=(0, 1)))(x, values)
  # A pixel sees further than the two convolutions of its own size reach...
  reach = np.abs(gradient[0]).max(-1) > 0
  assert reach[:, 8].sum() > 8
  # ...and each doubling block has the features of the size it came from beside it.
  shapes = {'/'.join(p): v.shape for p, v in _flatten(values['params'])}
  assert shapes['down1_0_conv/kernel'] == (3, 3, 3, 3)
  assert shapes['up0_0_conv/kernel'] == (3, 3, 3, 3)
  assert shapes['up1_0_conv/kernel'] == (3, 3, 6, 2)
  assert shapes['last/kernel'] == (3, 3, 4, 3)
  chex.assert_tree_all_finite(of_values)


def test_the_network_is_that_of_plain_convolutions():
  model = inpainting.InpaintingNet((2, 3))
  rng = np.random.default_rng(1)
  x = rng.standard_normal((1, 6, 8, 4)).astype(np.float32)
  # Means and biases count too, and variances so small that their floor does.
  values = jax.tree.map(
    lambda v: v + rng.uniform(0, 0.2, v.shape).astype(np.float32),
    variables.random(model.init, x),
  )
  stats = values['batch_stats']
  for layer in stats.values():
    layer['var'] = np.full_like(layer['var'], 1e-3)
  params = values['params']

  def conv(x, name):
    kernel, bias = params[name]['kernel'], params[name]['bias']
    made = [
      sum(
        scipy.signal.correlate2d(x[..., c], kernel[..., c, d], 'same')
        for c in range(x.shape[-1])
      )
      for d in range(len(bias))
    ]
    return np.stack(made, axis=-1) + bias

  def conv_norm(x, name):
    of, had = params[f'{name}_norm'], stats[f'{name}_norm']
    x = (conv(x, f'{name}_conv') - had['mean']) / np.sqrt(had['var'] + 1e-5)
    return x * of['scale'] + of['bias']

  def leaky(x):
    return np.where(x > 0, x, 0.2 * x)

  skip = leaky(conv(x[0], 'first'))
  down = conv_norm(leaky(conv_norm(skip, 'down0_0')), 'down0_1')
  down = leaky(down.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3)))
  up = jax.image.resize(down, (6, 8, 3), 'bilinear')
  for j in range(2):
    up = leaky(conv_norm(up, f'up0_{j}'))
  expected = conv(np.concatenate([up, skip], axis=-1), 'last')
  actual = jax.jit(model.apply)(values, x)[0]
  np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)


def _flatten(tree, place=()):
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from _flatten(value, (*place, name))
    else:
      yield (*place, name), value


def test_sides_that_cannot_be_halved_so_often_are_refused():
  model = inpainting.InpaintingNet((2, 2, 2))
  with pytest.raises(ValueError, match='multiple of 4; got 6'):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 6, 6, 4)))
