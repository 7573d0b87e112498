"""Layers that several encoders share."""

import functools
import math

import jax
import jax.numpy as jnp


def flat(init, fan='in'):
  """An initialiser of kernels `[..., C, D]` that draws them with two axes.

  The numbers are the same, bit for bit, but on processors a random draw of two axes
  compiles in a third of the time of one of four.

  Args:
    init: an initialiser of `jax.nn.initializers`.
    fan: what its variance depends on: 'in' draws `[... * C, D]`, 'out' `[C, ... * D]`.
  """

  def draw(key, shape, dtype=jnp.float32, **options):
    rows = math.prod(shape[:-1]) if fan == 'in' else shape[-2]
    drawn = init(key, (rows, math.prod(shape) // rows), dtype, **options)
    return drawn.reshape(shape)

  return draw


conv_init = flat(jax.nn.initializers.lecun_normal())


def conv_general_dilated(lhs, rhs, *args, **options):
  """`jax.lax.conv_general_dilated` whose operands lie in memory, on processors.

  Given to `flax.linen.Conv` as its `conv_general_dilated`. A convolution's input and
  result, and their gradients, are arrays that the compiler may not work out anew where
  they are used next: for the gradient of a kernel it would follow them back through
  all norms and short cuts before, in every layer (a step of ResNet-20 takes 1.2 times
  as long). It holds together with `training.parallel.compiler_options`, which keep XLA
  from dropping the barriers first, and changes no number. GPUs and TPUs, which fuse
  convolutions with what surrounds them, have none.
  """
  return _kept(jax.lax.conv_general_dilated(_kept(lhs), rhs, *args, **options))


def _kept(x):
  return jax.lax.platform_dependent(
    x, cpu=jax.lax.optimization_barrier, default=lambda x: x
  )


def max_pool_2x2(x):
  """2 x 2 max-pooling with stride 2: `[..., H, W, C]` to `[..., H//2, W//2, C]`.

  An odd last row or column is left out. Where several of the four values are the
  greatest, they share the gradient evenly. As a maximum over axes, and not a windowed
  reduction, since XLA's gradient of the latter is slow on a processor (the step of the
  image-graph-image paper's model takes 1.13 times as long with it).
  """
  height, width, channels = x.shape[-3:]
  if min(height, width) < 2:
    raise ValueError(f'2 x 2 pooling needs 2 x 2 pixels; got {height} x {width}.')
  rows, columns = height // 2, width // 2
  x = x[..., : 2 * rows, : 2 * columns, :]
  return x.reshape(*x.shape[:-3], rows, 2, columns, 2, channels).max(axis=(-4, -2))


def max_around(x, reach):
  """Maximum of each pixel of `[B, H, W]` and those up to `reach` rows and columns away.

  Paper (zero) lies beyond the border.
  """
  for axis in (1, 2):
    size = x.shape[axis]
    padding = [(0, 0)] * x.ndim
    padding[axis] = (reach, reach)
    padded = jnp.pad(x, padding)
    parts = (
      jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(2 * reach + 1)
    )
    x = functools.reduce(jnp.maximum, parts)
  return x
