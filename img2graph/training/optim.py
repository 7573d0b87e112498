"""Optimizers and learning-rate schedules, built from plain values of a config."""

import math
import numbers

import jax
import jax.numpy as jnp
import optax

from img2graph import ranges

NAMES = ('adam', 'adamw', 'sgd')
SCHEDULES = ('cosine', 'constant', 'piecewise')
_BOUNDS = ranges.each(ranges.DECAY, 'b1', 'b2', 'momentum') | {'eps': ranges.POSITIVE}


def build_schedule(
  *,
  lr,
  train_steps,
  schedule='cosine',
  warmup_steps=0,
  final_fraction=0.0,
  boundaries=(),
  factors=(),
):
  """The learning rate as a function of the step.

  Args:
    lr: highest learning rate, > 0.
    train_steps: length of the run.
    schedule: 'cosine' falls from `lr` to `final_fraction * lr` at the last step;
      'constant'; or 'piecewise': `lr * factors[i]` from `boundaries[i]` on.
    warmup_steps: steps of linear rise from 0, in front of any schedule.
    final_fraction: see 'cosine'.
    boundaries: ascending; an int is a step, a float in (0, 1) a share of the run.
    factors: one per boundary, >= 0, each relative to `lr` (not to the factor before).

  Returns:
    `step -> [] float32`.

  Raises:
    ValueError: a value is out of range or a name unknown.
  """
  if not 0 < lr < math.inf:
    raise ValueError(f'optim.lr must be positive and finite; got {lr}.')
  whole = isinstance(warmup_steps, numbers.Integral)
  if not whole or not 0 <= warmup_steps <= train_steps:
    raise ValueError(
      'optim.warmup_steps must be a whole number between 0 and train_steps '
      f'({train_steps}); got {warmup_steps}.'
    )
  if schedule not in SCHEDULES:
    raise ValueError(
      f'optim.schedule must be one of {", ".join(SCHEDULES)}; got {schedule!r}.'
    )
  if schedule == 'cosine' and not 0 <= final_fraction <= 1:
    raise ValueError(f'optim.final_fraction must be in [0, 1]; got {final_fraction}.')
  if len(boundaries) != len(factors):
    raise ValueError(
      f'optim.boundaries and optim.factors must be equally long; '
      f'got {len(boundaries)} and {len(factors)}.'
    )
  for factor in factors:
    ranges.as_number('each of optim.factors', factor, lowest=0)
  if boundaries and schedule != 'piecewise':
    raise ValueError(f'optim.boundaries need schedule piecewise; got {schedule!r}.')
  steps = [
    round(b * train_steps) if isinstance(b, float) and 0 < b < 1 else b
    for b in boundaries
  ]
  whole = all(not isinstance(b, float) and b == int(b) and b >= 0 for b in steps)
  if not whole or sorted(steps) != steps:
    raise ValueError(
      f'optim.boundaries must ascend, in steps or shares of the run; got {boundaries}.'
    )
  decay_steps = max(train_steps - warmup_steps, 1)

  def learning_rate(step):
    step = jnp.asarray(step, jnp.float32)
    factor = jnp.float32(1)
    if schedule == 'cosine':
      progress = jnp.clip((step - warmup_steps) / decay_steps, 0, 1)
      wave = 0.5 * (1 + jnp.cos(jnp.pi * progress))
      factor = final_fraction + (1 - final_fraction) * wave
    for boundary, value in zip(steps, factors, strict=True):
      factor = jnp.where(step >= boundary, value, factor)
    if warmup_steps:
      factor = factor * jnp.minimum(step / warmup_steps, 1)
    return lr * factor

  return learning_rate


def build(
  *,
  name,
  lr,
  train_steps,
  b1=0.9,
  b2=0.999,
  eps=1e-8,
  momentum=0.0,
  weight_decay=0.0,
  decay_all=False,
  clip_norm=0.0,
  windows=None,
  **schedule,
):
  """The optimizer, from the values of `config.optim`.

  Args:
    name: 'adam', 'adamw' or 'sgd'.
    lr: highest learning rate.
    train_steps: length of the run.
    b1: decay of Adam's mean of gradients, in [0, 1).
    b2: decay of Adam's mean of squared gradients, in [0, 1).
    eps: Adam's floor of the denominator, > 0.
    momentum: of 'sgd', in [0, 1); 0 keeps no velocity.
    weight_decay: of 'adamw' (decoupled) and 'sgd'; acts on arrays of rank 2 and more,
      so neither on biases nor on scales.
    decay_all: whether it acts on all arrays.
    clip_norm: global norm that gradients are clipped to; 0 clips nothing.
    windows: `{name: (start, end)}` as shares of the run: the parameters under that
      name, such as 'node_head', are trained from `start` to before `end` only. Outside
      they stay as they are, bit by bit, and so do their means of gradients. None or
      an empty dict trains all of them all the time.
    **schedule: the other options of `build_schedule`.

  Returns:
    (`optax.GradientTransformation`, `step -> learning rate`).

  Raises:
    ValueError: a value is out of range or a name unknown.
    TypeError: there is no option of that name.
  """
  learning_rate = build_schedule(lr=lr, train_steps=train_steps, **schedule)
  if name not in NAMES:
    raise ValueError(f'optim.name must be one of {", ".join(NAMES)}; got {name!r}.')
  ranges.check('optim', dict(b1=b1, b2=b2, eps=eps, momentum=momentum), _BOUNDS)
  if not all(0 <= v < math.inf for v in (weight_decay, clip_norm)):
    raise ValueError(
      'optim.weight_decay and clip_norm must be finite and must not be negative; '
      f'got {weight_decay} and {clip_norm}.'
    )
  if weight_decay and name == 'adam':
    raise ValueError("optim.weight_decay needs name 'adamw' or 'sgd'; got 'adam'.")
  if momentum and name != 'sgd':
    raise ValueError(f"optim.momentum needs name 'sgd'; got {name!r}.")
  parts = []
  decay = optax.add_decayed_weights(
    weight_decay, mask=None if decay_all else _is_matrix
  )
  if name == 'sgd':
    parts += [decay] if weight_decay else []
    parts += [optax.trace(momentum)] if momentum else []
  else:
    parts.append(optax.scale_by_adam(b1=b1, b2=b2, eps=eps))
    parts += [decay] if weight_decay else []
  if windows:
    tx = optax.chain(*parts) if parts else optax.identity()
    parts = [_windowed(tx, windows, train_steps)]
  if clip_norm:  # Of all parameters, whatever their windows.
    parts.insert(0, optax.clip_by_global_norm(clip_norm))
  # Not inside of the windows, whose optimizers count their own steps.
  parts.append(optax.scale_by_learning_rate(learning_rate))
  return optax.chain(*parts), learning_rate


def _windowed(tx, windows, train_steps):
  """`tx` for each window's parameters at its time, and for the rest at all times."""
  for name, (start, end) in windows.items():
    if not 0 <= start < end <= 1:
      raise ValueError(
        f'optim.windows.{name} must be two ascending shares of the run, from 0 to 1; '
        f'got {start} and {end}.'
      )

  def label(params):
    missing = sorted(windows.keys() - params.keys())
    if missing:
      raise ValueError(
        f'optim.windows names {missing[0]}, but the parameters are those of '
        f'{", ".join(sorted(params))}.'
      )
    return {
      name: jax.tree.map(lambda _, n=name: n if n in windows else '', values)
      for name, values in params.items()
    }

  def within(start, end):
    return lambda step: (step >= start * train_steps) & (step < end * train_steps)

  parts = {
    name: optax.conditionally_mask(tx, within(*window))
    for name, window in windows.items()
  }
  return optax.partition(parts | {'': tx}, label)


def _is_matrix(params):
  return jax.tree.map(lambda p: p.ndim > 1, params)
