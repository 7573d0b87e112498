import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph.training import optim
from img2graph.training import state as states
from img2graph.training import step as steps
from tests.training import toy

LR = 0.1


def build(ema=0.0, nan_at=-1):
  method = toy.build_method(
    train_steps=9, precision='float32', capacity=4, width=3, nan_at=nan_at
  )
  tx, _ = optim.build(name='sgd', lr=LR, train_steps=9, schedule='constant')
  batch = {'image': jax.random.uniform(jax.random.key(7), (8, 4, 4, 1))}
  state = states.create(jax.random.key(0), batch, method=method, tx=tx, ema=ema)
  return method, state, step(method, ema), batch


def step(method, ema=0.0):
  tx, rate = optim.build(name='sgd', lr=LR, train_steps=9, schedule='constant')
  step_fn = functools.partial(
    steps.train_step, method=method, tx=tx, learning_rate=rate, ema=ema
  )
  return jax.jit(step_fn)


def test_a_step_descends_the_gradient_of_the_loss_by_finite_differences():
  method, state, step_fn, batch = build()
  key = jax.random.key(5)
  after, metrics = step_fn(state, batch, key)
  folded = jax.random.fold_in(key, 0)

  def loss(bias):
    params = state.params | {'decoder': state.params['decoder'] | {'bias': bias}}
    return method.loss({**state.variables, 'params': params}, batch, folded, 0)[0]

  bias = state.params['decoder']['bias']
  np.testing.assert_allclose(metrics['loss'], loss(bias), rtol=1e-6)
  eps = 1e-2
  for i in (0, 5, 15):
    shift = jnp.zeros_like(bias).at[i].set(eps)
    slope = (loss(bias + shift) - loss(bias - shift)) / (2 * eps)
    moved = (after.params['decoder']['bias'] - bias)[i]
    np.testing.assert_allclose(moved, -LR * slope, rtol=1e-2, atol=1e-6)


def test_a_step_counts_and_updates_collections():
  _, state, step_fn, batch = build()
  after, metrics = step_fn(state, batch, jax.random.key(5))
  assert int(after.step) == 1 and int(after.nonfinite_step) == -1
  expected = 0.1 * batch['image'].reshape(8, -1).mean(0)
  np.testing.assert_allclose(
    after.collections['statistics']['mean'], expected, rtol=1e-5
  )
  assert set(metrics) == {'loss', 'grad_norm', 'learning_rate', 'error'}
  np.testing.assert_allclose(metrics['learning_rate'], LR, rtol=1e-6)


def test_a_loss_need_not_tell_of_collections():
  method, state, step_fn, batch = build()

  def loss(*args):
    value, aux = method.loss(*args)
    return value, {'metrics': aux['metrics']}

  other = dataclasses.replace(method, loss=loss)
  key = jax.random.key(5)
  after, metrics = step_fn(state, batch, key)
  found, same = step(other)(state, batch, key)
  chex.assert_trees_all_equal(found.collections, state.collections)
  chex.assert_trees_all_equal((found.params, same), (after.params, metrics))


def test_every_step_draws_its_own_noise_from_one_key():
  _, state, step_fn, batch = build()
  key = jax.random.key(5)
  first = step_fn(state, batch, key)[1]['loss']
  again = step_fn(state, batch, key)[1]['loss']
  later = step_fn(dataclasses.replace(state, step=state.step + 1), batch, key)[1]
  assert first == again != later['loss']


def test_the_first_step_that_is_not_finite_is_remembered():
  _, state, step_fn, batch = build(nan_at=2)
  found = []
  for _ in range(4):
    state, _ = step_fn(state, batch, jax.random.key(5))
    found.append(int(state.nonfinite_step))
  assert found == [-1, -1, 3, 3]


def test_a_gradient_that_is_not_finite_is_seen_where_the_loss_still_is():
  method, state, _, batch = build()

  def loss(variables, batch, key, step):
    # The root of 0 has an infinite slope.
    root = jnp.sqrt(jnp.square(variables['params']['decoder']['bias']).sum())
    return root, {'metrics': {}}

  flat = state.params | {'decoder': {'bias': jnp.zeros(2)}}
  state = dataclasses.replace(state, params=flat)
  found, metrics = step(dataclasses.replace(method, loss=loss))(
    state, batch, jax.random.key(5)
  )
  assert metrics['loss'] == 0 and found.nonfinite_step == 1


def test_the_average_of_parameters_follows_its_recurrence():
  _, state, step_fn, batch = build(ema=0.2)
  expected = state.params
  for count in range(1, 5):
    state, _ = step_fn(state, batch, jax.random.key(5))
    decay = min(0.2, count / (count + 10))
    expected = jax.tree.map(
      lambda a, p, d=decay: d * a + (1 - d) * p, expected, state.params
    )
  chex.assert_trees_all_close(state.ema, expected, rtol=1e-6)
  assert optax.tree.norm(optax.tree.sub(state.ema, state.params)) > 0


def test_four_devices_draw_and_learn_what_one_does():
  _, state, step_fn, _ = build()

  def sample(key, batch_size):
    keys = jax.random.split(key, batch_size)
    return {'image': jax.vmap(lambda k: jax.random.uniform(k, (4, 4, 1)))(keys)}

  results = []
  for count in (1, 4):
    mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
    sampling = steps.sampling_step(
      step_fn,
      sample=sample,
      batch_size=8,
      sharding=NamedSharding(mesh, PartitionSpec('data')),
    )
    replicated = NamedSharding(mesh, PartitionSpec())
    here = jax.device_put(state, replicated)
    jitted = jax.jit(sampling, out_shardings=replicated)
    for _ in range(3):
      here, _ = jitted(here, jax.random.key(1), jax.random.key(2))
    results.append(jax.device_get(here))
  chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


def test_a_batch_is_completed_anew_in_every_step_and_on_any_number_of_devices():
  _, state, step_fn, batch = build()

  def complete(key, batch):
    more = jax.random.uniform(key, batch['image'].shape)
    return {'image': jnp.concatenate([batch['image'], more])}

  results, losses = [], []
  for count in (1, 4):
    mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
    step = steps.completing_step(
      step_fn, complete=complete, sharding=NamedSharding(mesh, PartitionSpec('data'))
    )
    replicated = NamedSharding(mesh, PartitionSpec())
    here, images = jax.device_put((state, batch), replicated)
    jitted = jax.jit(step, out_shardings=replicated)
    for _ in range(3):
      here, metrics = jitted(here, jax.random.key(1), images)
      losses.append(float(metrics['loss']))
    results.append(jax.device_get(here))
  chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
  # The same step a second time draws the same; another step draws another.
  replay = jitted(jax.device_put(state, replicated), jax.random.key(1), images)
  np.testing.assert_allclose(replay[1]['loss'], losses[0], rtol=1e-6)
  later = dataclasses.replace(state, step=state.step + 1)
  other = jitted(jax.device_put(later, replicated), jax.random.key(1), images)
  assert abs(float(other[1]['loss']) - losses[0]) > 1e-5


def test_completing_a_batch_and_the_loss_have_keys_of_their_own():
  _, state, _, batch = build()
  key = jax.random.key(1)
  drawn = []

  def complete(key, batch):
    drawn.append(key)
    return batch

  def step_fn(state, batch, key):
    drawn.append(jax.random.fold_in(key, state.step))  # As `train_step` does.
    return state, {}

  step = steps.completing_step(step_fn, complete=complete, sharding=None)
  step(state, key, batch)
  of_batch, of_loss = map(jax.random.key_data, drawn)
  assert (of_batch != of_loss).any()


def test_what_needs_no_completion_is_left_as_it_is():
  _, state, step_fn, batch = build()
  step = steps.completing_step(step_fn, complete=None, sharding=None)
  actual, _ = step(state, jax.random.key(1), batch)
  chex.assert_trees_all_equal(actual, step_fn(state, batch, jax.random.key(1))[0])
