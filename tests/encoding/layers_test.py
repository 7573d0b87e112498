import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import linen as nn
from jax import lax

from img2graph.encoding import layers
from img2graph.training import parallel


@pytest.mark.parametrize('shape', [(2, 6, 8, 3), (1, 5, 7, 2), (4, 2, 2, 1)])
def test_max_pool_equals_flax_with_gradient(shape):
  x = jax.random.normal(jax.random.key(0), shape)
  pooled = (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
  weight = jax.random.normal(jax.random.key(1), pooled)

  def total(pool, x):
    return (weight * pool(x)).sum()

  def theirs(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))

  np.testing.assert_array_equal(layers.max_pool_2x2(x), theirs(x))
  actual = jax.grad(lambda x: total(layers.max_pool_2x2, x))(x)
  np.testing.assert_array_equal(actual, jax.grad(lambda x: total(theirs, x))(x))


def test_max_pool_shares_the_gradient_of_ties():
  gradient = jax.grad(lambda x: layers.max_pool_2x2(x).sum())(jnp.zeros((1, 2, 2, 1)))
  np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))


def test_max_pool_needs_two_pixels():
  with pytest.raises(ValueError, match='1 x 4'):
    layers.max_pool_2x2(jnp.zeros((1, 1, 4, 1)))


def test_maximum_around_equals_scipy():
  x = np.random.default_rng(0).random((2, 9, 7)).astype(np.float32)
  for reach in (0, 1, 2):
    size = (1, 2 * reach + 1, 2 * reach + 1)
    expected = scipy.ndimage.maximum_filter(x, size=size, mode='constant')
    np.testing.assert_array_equal(layers.max_around(x, reach), expected)


@pytest.mark.parametrize('fan', ['in', 'out'])
def test_kernels_drawn_flat_are_the_same_numbers(fan):
  init = jax.nn.initializers.variance_scaling(2.0, f'fan_{fan}', 'truncated_normal')
  key, shape = jax.random.key(3), (3, 3, 5, 7)
  np.testing.assert_array_equal(
    layers.flat(init, fan=fan)(key, shape), init(key, shape)
  )


def test_convolution_equals_jax_with_gradients():
  shapes = [(2, 6, 7, 3), (3, 3, 3, 4), (2, 6, 7, 4)]
  x, kernel, weight = (
    jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate(shapes)
  )

  def total(conv, x, kernel):
    form = ('NHWC', 'HWIO', 'NHWC')
    found = conv(x, kernel, (1, 1), 'SAME', dimension_numbers=form)
    return (weight * found).sum(), found

  def both(conv):
    grad = jax.grad(functools.partial(total, conv), argnums=(0, 1), has_aux=True)
    return jax.jit(grad)(x, kernel)

  actual, expected = both(layers.conv_general_dilated), both(lax.conv_general_dilated)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_convolutions_keep_their_operands_in_compiled_steps():
  x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 3))

  def twice(x, kernel):
    for _ in range(2):
      x = jax.nn.relu(
        layers.conv_general_dilated(
          x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
      )
    return x.sum()

  lowered = jax.jit(jax.grad(twice, argnums=1)).lower(x, kernel)
  compiled = lowered.compile(compiler_options=parallel.compiler_options())
  assert ' opt-barrier(' in compiled.as_text()
