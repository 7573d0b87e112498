"""Flax modules in tests as one program: one for each operation compiles far longer.

Options (`train=True`, `mutable=('batch_stats',)`, `method='draw'`) must be hashable.
"""

import functools

import jax

from img2graph.rendering import segments

# Likewise.
draw_edges = jax.jit(
  segments.draw_edges,
  static_argnames=('height', 'width', 'profile', 'compose', 'softness'),
)


def init(module, *inputs, seed=0, **options):
  """`module.init(jax.random.key(seed), *inputs, **options)`."""
  return _init(module, jax.random.key(seed), inputs, tuple(options.items()))


def apply(module, variables, *inputs, rngs=None, **options):
  """`module.apply(variables, *inputs, rngs=rngs, **options)`."""
  return _apply(module, variables, inputs, rngs, tuple(options.items()))


def grad(function, *arguments, argnums=0):
  """`jax.grad(function, argnums)(*arguments)`."""
  return jax.jit(jax.grad(function, argnums))(*arguments)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _init(module, key, inputs, options):
  return module.init(key, *inputs, **dict(options))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _apply(module, variables, inputs, rngs, options):
  return module.apply(variables, *inputs, rngs=rngs, **dict(options))
