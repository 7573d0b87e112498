import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from img2graph.methods import base
from img2graph.training import errors
from img2graph.training import state as states
from tests.training import toy


def make_state(ema=0.0):
  method = toy.build_method(train_steps=9, precision='float32', capacity=4, width=3)
  batch = {'image': jnp.zeros((2, 8, 8, 1))}
  create = functools.partial(states.create, method=method, tx=optax.adam(1e-3), ema=ema)
  return create(jax.random.key(0), batch)


def test_create_splits_variables_into_params_and_collections():
  state = make_state()
  assert set(state.params) == {'encoder', 'decoder'}
  assert set(state.collections) == {'statistics'}
  assert set(state.variables) == {'params', 'statistics'}
  assert int(state.step) == 0 and int(state.nonfinite_step) == -1
  assert states.num_params(state) == 64 * 3 + 3 * 64 + 64


@pytest.mark.parametrize(
  'made, shown',
  [({'kernel': jnp.zeros(3)}, r"\['kernel'\]"), (jnp.zeros(3), 'no dict')],
)
def test_variables_without_params_are_told(made, shown):
  method = base.Method(init=lambda key, batch: made, loss=None)
  message = f"^config.method: init must return a dict with 'params'; got {shown}.$"
  with pytest.raises(errors.UserError, match=message):
    states.create(jax.random.key(0), {}, method=method, tx=optax.adam(1e-3))


def test_evaluation_takes_the_average_where_one_is_kept():
  state = make_state(ema=0.9)
  assert state.eval_variables['params'] is state.ema
  assert state.variables['params'] is state.params
  plain = make_state()
  assert plain.ema is None
  assert plain.eval_variables['params'] is plain.params


def test_unflatten_inverts_flatten_by_name():
  state = make_state(ema=0.5)
  arrays = states.flatten(state)
  assert arrays['params/encoder/kernel'] is state.params['encoder']['kernel']
  shuffled = dict(reversed(arrays.items()))
  chex.assert_trees_all_equal(states.unflatten(shuffled, state), state)


def test_fingerprint_is_the_one_that_checkpoints_hold():
  arrays = {'b': jnp.asarray([7], jnp.int32), 'a': jnp.asarray([3, 5], jnp.int32)}
  golden = 2654435761
  expected = 3 * 1 + 5 * (golden | 1) + 7 * (40503 * golden % 2**32 | 1)
  assert int(states.fingerprint(arrays)) == expected % 2**32


def test_fingerprint_sees_every_single_bit():
  rng = np.random.default_rng(0)
  arrays = {
    'a': rng.normal(size=(3, 5)).astype(np.float32),
    'b': rng.integers(0, 9, 4).astype(np.int32),
    'c': jnp.asarray(rng.normal(size=6), jnp.bfloat16),
    'd': np.array([True, False]),
  }
  fingerprint = states.fingerprint
  before = int(fingerprint(arrays))
  for name in ('a', 'b'):
    for bit in range(0, 32, 5):
      for place in range(arrays[name].size):
        words = arrays[name].copy()
        words.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
        assert int(fingerprint(arrays | {name: words})) != before
  assert int(fingerprint(arrays | {'d': np.array([True, True])})) != before
  assert int(fingerprint(arrays | {'c': arrays['c'].at[2].add(1)})) != before


def test_fingerprint_sees_values_that_changed_places():
  a, b = jnp.arange(4.0), jnp.arange(4.0) + 9
  before = int(states.fingerprint({'a': a, 'b': b}))
  assert int(states.fingerprint({'a': b, 'b': a})) != before
  assert int(states.fingerprint({'a': a[::-1], 'b': b})) != before
