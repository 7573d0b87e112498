"""One step of training: a pure function that names no device.

A mean over the batch is global, however the batch is sharded, because the step is one
jitted program for all devices.
"""

import jax
import jax.numpy as jnp
import optax

from img2graph.data import sources
from img2graph.training import state as states

# Apart from the keys of the loss, which are those of the steps.
_COMPLETING_STREAM = 0x636F6D70


def train_step(state, batch, key, *, method, tx, learning_rate, ema=0.0):
  """The state after one step on one batch.

  Args:
    state: a `TrainState`.
    batch: as `method.loss` takes it.
    key: one for the whole run; it is folded with the step, so that a resumed run
      draws the same.
    method: a `methods.Method`.
    tx: an `optax.GradientTransformation`.
    learning_rate: `step -> [] float`, for the metrics.
    ema: decay of the moving average of the parameters; 0 keeps none.

  Returns:
    (state, `{name: [] float32}`), the metrics being those of before the update.
  """
  key = jax.random.fold_in(key, state.step)

  def loss_fn(params):
    variables = {'params': params, **state.collections}
    return method.loss(variables, batch, key, state.step)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  (loss, aux), grads = grad_fn(state.params)
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  step = state.step + 1
  failed = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
  first_failure = failed & (state.nonfinite_step < 0)
  average = state.ema
  if ema:
    # A short average at first: the initial parameters are noise.
    decay = jnp.minimum(ema, step / (step + 10))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
  new_state = states.TrainState(
    step=step,
    params=params,
    collections={**state.collections, **aux.get('collections', {})},
    opt_state=opt_state,
    ema=average,
    nonfinite_step=jnp.where(first_failure, step, state.nonfinite_step),
  )
  metrics = {
    'loss': loss,
    'grad_norm': grad_norm,
    'learning_rate': learning_rate(state.step),
    **aux['metrics'],
  }
  return new_state, {n: jnp.asarray(v, jnp.float32) for n, v in metrics.items()}


def sampling_step(step_fn, *, sample, batch_size, sharding):
  """A step that draws its own batch on the devices.

  Args:
    step_fn: `(state, batch, key) -> (state, metrics)`.
    sample: `(key, batch_size) -> batch`, of a `data.sources.DeviceSource`.
    batch_size: examples per step, over all devices.
    sharding: of the leading axis of a batch; None for whatever comes about.

  Returns:
    `(state, key, data_key, resident) -> (state, metrics)`; the last is not looked at.
  """

  def step(state, key, data_key, resident=None):
    del resident
    batch = sample(jax.random.fold_in(data_key, state.step), batch_size)
    return step_fn(state, _place(batch, sharding), key)

  return step


def completing_step(step_fn, *, complete, sharding):
  """A step whose batch is completed on the devices; images become float32 there.

  Args:
    step_fn: `(state, batch, key) -> (state, metrics)`.
    complete: of a `data.sources.HostSource`, or None.
    sharding: of the leading axis of a batch; None for whatever comes about.

  Returns:
    `(state, key, batch, resident) -> (state, metrics)`; the last is what the source
    keeps on the devices, or None.
  """

  def step(state, key, batch, resident=None):
    batch = sources.as_float(batch)
    if complete is not None:
      data_key = jax.random.fold_in(key, _COMPLETING_STREAM)
      data_key = jax.random.fold_in(data_key, state.step)
      kept = () if resident is None else (resident,)
      batch = sources.as_float(_place(complete(data_key, batch, *kept), sharding))
    return step_fn(state, batch, key)

  return step


def _place(batch, sharding):
  if sharding is None:
    return batch
  return jax.lax.with_sharding_constraint(batch, sharding)
