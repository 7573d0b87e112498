"""The in-painting network: shapes, and what it can and cannot see."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
