"""What training carries from step to step, and what a checkpoint holds of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from img2graph.training import errors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of training after `step` steps; a pytree.

  Attributes:
    step: `[]` int32, number of finished steps.
    params: what is trained.
    collections: the method's other variables, for example 'batch_stats'.
    opt_state: of the optimizer.
    ema: exponential moving average of `params`, or None if none is kept.
    nonfinite_step: `[]` int32, the first step (from 1) whose loss or gradient was not
      finite, and -1 if there was none. Kept on the device, so that looking for NaN
      does not hold up every step.
  """

  step: Any
  params: Any
  collections: Any
  opt_state: Any
  ema: Any
  nonfinite_step: Any

  @property
  def variables(self):
    """What the method is trained with."""
    return {'params': self.params, **self.collections}

  @property
  def eval_variables(self):
    """What the method is judged and shipped with: the average, where one is kept."""
    params = self.params if self.ema is None else self.ema
    return {'params': params, **self.collections}


def create(key, batch, *, method, tx, ema=0.0, variables=None):
  """The state before the first step.

  Args:
    key: for the initial parameters.
    batch: as `method.init` takes it.
    method: a `methods.Method`.
    tx: an `optax.GradientTransformation`.
    ema: decay of the moving average of the parameters; 0 keeps none.
    variables: to start from, in place of `method.init`.

  Raises:
    errors.UserError: `method.init` returns no params.
  """
  if variables is None:
    variables = method.init(key, batch)
    is_dict = isinstance(variables, Mapping)
    if not is_dict or 'params' not in variables:
      got = list(variables) if is_dict else 'no dict'
      raise errors.UserError(
        f"config.method: init must return a dict with 'params'; got {got}."
      )
  variables = dict(variables)
  params = jax.tree.map(jnp.asarray, variables.pop('params'))
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=variables,
    opt_state=tx.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
    nonfinite_step=jnp.full((), -1, jnp.int32),
  )


def flatten(state):
  """The arrays of a state by name, such as 'params/conv/kernel'."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def unflatten(arrays, like):
  """The state of the structure of `like` with the arrays of `flatten`."""
  return jax.tree.unflatten(
    jax.tree.structure(like), [arrays[n] for n in flatten(like)]
  )


def fingerprint(arrays):
  """A number that changes with any bit of the arrays, to tell damage on disk.

  Sums of 32-bit words with odd weights, modulo 2^32: one wrong word always shows, and
  unlike a sum of floats it is the same in any order, on any device.

  Args:
    arrays: `{name: array}` of 8-, 16- or 32-bit numbers.

  Returns:
    `[]` uint32.
  """
  # A program for each shape, not one for each set of arrays: it compiles in less time.
  total = jnp.zeros((), jnp.uint32)
  for index, name in enumerate(sorted(arrays)):
    total += _weighted_words(arrays[name], np.uint32(index))
  return total


@jax.jit
def _weighted_words(array, index):
  """The sum of an array's words, each by its weight: `[]` uint32."""
  array = jnp.ravel(array)
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  bits = jnp.dtype(f'uint{8 * array.dtype.itemsize}')
  words = jax.lax.bitcast_convert_type(array, bits).astype(jnp.uint32)
  place = jnp.arange(words.size, dtype=jnp.uint32) + index * jnp.uint32(40503)
  weights = (place * jnp.uint32(2654435761)) | jnp.uint32(1)
  return jnp.sum(words * weights, dtype=jnp.uint32)


def num_params(state):
  """Number of trained values."""
  return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(state.params))
