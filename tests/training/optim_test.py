import jax.numpy as jnp
import numpy as np
import optax
import pytest

from img2graph.training import optim


def run_steps(tx, params, grads, count):
  state = tx.init(params)
  for _ in range(count):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_cosine_falls_from_lr_to_its_final_fraction_after_warmup():
  rate = optim.build_schedule(
    lr=2.0, train_steps=110, warmup_steps=10, final_fraction=0.1
  )
  np.testing.assert_allclose(rate(0), 0)
  np.testing.assert_allclose(rate(5), 1.0)
  np.testing.assert_allclose(rate(10), 2.0)
  np.testing.assert_allclose(rate(60), 2 * 0.55, rtol=1e-6)
  np.testing.assert_allclose(rate(110), 0.2, rtol=1e-6)
  np.testing.assert_allclose(rate(500), 0.2, rtol=1e-6)


def test_cosine_agrees_with_optax():
  ours = optim.build_schedule(lr=3e-3, train_steps=50, final_fraction=0.02)
  theirs = optax.cosine_decay_schedule(3e-3, 50, alpha=0.02)
  for step in range(0, 51, 5):
    np.testing.assert_allclose(ours(step), theirs(step), rtol=1e-5)


def test_piecewise_takes_steps_and_shares_of_the_run():
  rate = optim.build_schedule(
    lr=1.0,
    train_steps=30,
    schedule='piecewise',
    boundaries=(2 / 3, 25),
    factors=(0.1, 0.5),
  )
  found = [float(rate(step)) for step in (0, 19, 20, 24, 25, 29)]
  np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.5, 0.5], rtol=1e-6)


def test_constant_stays():
  rate = optim.build_schedule(lr=0.3, train_steps=10, schedule='constant')
  np.testing.assert_allclose([rate(0), rate(10)], 0.3, rtol=1e-6)


@pytest.mark.parametrize('decay_all', [False, True])
def test_what_decays(decay_all):
  tx, _ = optim.build(
    name='adamw',
    lr=0.1,
    train_steps=9,
    schedule='constant',
    weight_decay=0.5,
    decay_all=decay_all,
  )
  params = {'w': jnp.ones((1, 2)), 'b': jnp.ones(2), 'alpha': jnp.ones(())}
  grads = {n: 0 * p for n, p in params.items()}
  found = run_steps(tx, params, grads, 1)
  np.testing.assert_allclose(found['w'], 0.95 * params['w'], rtol=1e-6)
  for name in ('b', 'alpha'):
    np.testing.assert_allclose(found[name], 0.95 if decay_all else 1, rtol=1e-6)


def test_adam_takes_the_textbook_step():
  tx, _ = optim.build(
    name='adam', lr=0.1, train_steps=9, schedule='constant', b1=0.6, b2=0.9
  )
  grads = {'w': jnp.array([[2.0, -3.0]])}
  found = run_steps(tx, {'w': jnp.zeros((1, 2))}, grads, 2)
  # With equal gradients both bias-corrected means are exact: steps of lr * sign.
  np.testing.assert_allclose(found['w'], [[-0.2, 0.2]], rtol=1e-5)


def test_adams_decays_and_floor_are_those_asked_for():
  tx, _ = optim.build(
    name='adam', lr=1.0, train_steps=9, schedule='constant', b1=0.5, b2=0.75, eps=0.5
  )
  params = {'w': jnp.zeros(1)}
  state = tx.init(params)
  first, state = tx.update({'w': jnp.ones(1)}, state, params)
  second, _ = tx.update({'w': jnp.full(1, -3.0)}, state, params)
  # Means 1 and 1; then (1 / 4 - 3 / 2) / (3 / 4) and (3 / 16 + 9 / 4) / (7 / 16).
  np.testing.assert_allclose(first['w'], -1 / 1.5, rtol=1e-5)
  np.testing.assert_allclose(second['w'], 5 / 3 / (np.sqrt(39 / 7) + 0.5), rtol=1e-5)


def test_decoupled_weight_decay_spares_vectors():
  options = dict(lr=0.1, train_steps=9, schedule='constant', weight_decay=0.5)
  params = {'kernel': jnp.full((2, 2), 4.0), 'bias': jnp.full((2,), 4.0)}
  grads = {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}
  for name in ('adamw', 'sgd'):
    tx, _ = optim.build(name=name, **options)
    found = run_steps(tx, params, grads, 1)
    np.testing.assert_allclose(found['kernel'], 4 * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(found['bias'], 4.0)


def test_sgd_with_momentum_and_clipping_takes_the_textbook_step():
  tx, _ = optim.build(
    name='sgd',
    lr=1.0,
    train_steps=9,
    schedule='constant',
    momentum=0.5,
    clip_norm=1.0,
  )
  grads = {'w': jnp.array([3.0, 4.0])}  # Clipped to (0.6, 0.8).
  found = run_steps(tx, {'w': jnp.zeros(2)}, grads, 2)
  np.testing.assert_allclose(found['w'], [-0.6 * 2.5, -0.8 * 2.5], rtol=1e-6)


def test_clipping_is_of_all_parameters_whatever_their_windows():
  options = dict(name='sgd', lr=1.0, train_steps=9, schedule='constant', clip_norm=1.0)
  tx, _ = optim.build(**options, windows={'a': (0.0, 1.0)})
  start = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  grads = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  found = run_steps(tx, start, grads, 1)
  np.testing.assert_allclose([found['a'][0], found['b'][0]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(lr=0.0), 'lr must be positive'),
    (dict(name='rmsprop'), "got 'rmsprop'"),
    (dict(schedule='step'), "got 'step'"),
    (dict(warmup_steps=11), 'warmup_steps must be'),
    (dict(final_fraction=2.0), 'final_fraction'),
    (dict(schedule='piecewise', boundaries=(3,), factors=()), 'equally long'),
    (dict(schedule='piecewise', boundaries=(5, 3), factors=(1, 1)), 'must ascend'),
    (dict(boundaries=(3,), factors=(1,)), 'need schedule piecewise'),
    (dict(weight_decay=0.1), "needs name 'adamw'"),
    (dict(clip_norm=-1.0), 'must not be negative'),
    (dict(momentum=0.9), "momentum needs name 'sgd'"),
    (dict(schedule='piecewise', boundaries=(1.0,), factors=(1,)), 'must ascend'),
    (dict(b1=1.0), 'optim.b1 must be below 1; got 1.0'),
    (dict(b1=-0.5), 'optim.b1 must be at least 0; got -0.5'),
    (dict(b2=2.0), 'optim.b2 must be below 1; got 2.0'),
    (dict(b2=np.nan), 'optim.b2 must be a number; got nan'),
    (dict(eps=0.0), 'optim.eps must be above 0; got 0.0'),
    (dict(eps=np.nan), 'optim.eps must be a number; got nan'),
    (dict(name='sgd', momentum=1.0), 'optim.momentum must be below 1; got 1.0'),
    (dict(name='sgd', momentum=-0.5), 'optim.momentum must be at least 0'),
    (dict(name='sgd', momentum=np.nan), 'optim.momentum must be a number; got nan'),
    (dict(clip_norm=np.nan), 'clip_norm must be finite .*; got 0.0 and nan'),
    (dict(name='sgd', weight_decay=np.nan), 'must be finite .*; got nan and 0.0'),
    (dict(name='adamw', weight_decay=np.inf), 'must be finite .*; got inf and 0.0'),
    (dict(lr=np.inf), 'lr must be positive and finite; got inf'),
    (dict(lr=np.nan), 'lr must be positive and finite; got nan'),
    (dict(warmup_steps=2.5), 'warmup_steps must be a whole number .* got 2.5'),
    (
      dict(schedule='piecewise', boundaries=(3,), factors=(-1.0,)),
      'optim.factors must be at least 0; got -1.0',
    ),
    (
      dict(schedule='piecewise', boundaries=(3,), factors=(np.nan,)),
      'optim.factors must be a number; got nan',
    ),
  ],
)
def test_wrong_options_are_named(options, words):
  with pytest.raises(ValueError, match=words):
    optim.build(**(dict(name='adam', lr=1e-3, train_steps=10) | options))


def test_an_unknown_option_is_refused():
  with pytest.raises(TypeError, match='learning_rate'):
    optim.build(name='adam', lr=1e-3, train_steps=10, learning_rate=1)


def test_windows_train_their_parameters_at_their_time_only():
  options = dict(name='adam', lr=0.1, train_steps=10, schedule='constant', eps=1e-30)
  tx, _ = optim.build(**options, windows={'late': (0.5, 0.8), 'early': (0.0, 0.2)})
  params = {name: {'w': jnp.zeros(2)} for name in ('early', 'late', 'other')}
  grads = {name: {'w': jnp.array([2.0, -3.0])} for name in params}
  state = tx.init(params)
  seen = []
  for _ in range(10):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    seen.append({name: float(params[name]['w'][1]) for name in params})
  # Each step of Adam is one of lr from its own first on, exactly 0 outside.
  at = lambda name: np.array([s[name] for s in seen])  # noqa: E731
  np.testing.assert_allclose(at('early'), [0.1] + [0.2] * 9, rtol=1e-5)
  np.testing.assert_allclose(at('late'), [0] * 5 + [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-5)
  np.testing.assert_allclose(at('other'), 0.1 * np.arange(1, 11), rtol=1e-5)
  assert len(set(at('late')[7:])) == 1


@pytest.mark.parametrize(
  'windows, message',
  [
    ({'a': (0.5, 0.5)}, 'optim.windows.a must be two ascending shares'),
    ({'a': (-0.1, 0.5)}, 'optim.windows.a'),
    ({'b': (0.0, 0.5)}, 'optim.windows names b, but the parameters are those of a'),
  ],
)
def test_wrong_windows_are_refused(windows, message):
  options = dict(name='adam', lr=0.1, train_steps=10, schedule='constant')
  with pytest.raises(ValueError, match=message):
    tx, _ = optim.build(**options, windows=windows)
    tx.init({'a': jnp.zeros(2)})
