"""Tests of img2graph/methods/affinity_batch.py, its evaluation, and its training."""

import dataclasses
import io
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from img2graph import class_evaluation
from img2graph import methods
from img2graph import weights
from img2graph.losses import affinity
from img2graph.methods import affinity_batch
from img2graph.training import errors
from img2graph.training import logging
from img2graph.training import loop
from img2graph.training import parallel
from tests import compiled

SIDE = 8
NETWORK = dict(kind='cifar', depth=8, width=4, num_classes=3)
SUPERVISED = dict(weight=0.5, form='focal', gamma=2.0)


def build(affinity=SUPERVISED, **changes):
  options = dict(precision='float32', network=NETWORK, affinity=affinity, side=SIDE)
  return methods.build('affinity_batch', train_steps=10, **(options | changes))


def colours(count, seed=0):
  """Images of three classes, each with a colour of its own, and noise."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, count)
  images = (
    0.3 * rng.random((count, SIDE, SIDE, 3)) + 0.5 * np.eye(3)[labels][:, None, None]
  )
  return np.uint8(255 * images), labels.astype(np.int32)


@pytest.fixture(scope='module')
def batch():
  images, labels = colours(12)
  return {'image': jnp.float32(images) / 255, 'label': jnp.asarray(labels)}


@pytest.fixture(scope='module')
def variables(batch):
  return jax.jit(build().init)(jax.random.key(0), batch)


def test_the_loss_is_cross_entropy_and_what_the_graph_lacks(batch, variables):
  value, aux = jax.jit(build().loss)(variables, batch, jax.random.key(0), 0)
  unsupervised = jax.jit(build(affinity=None).loss)
  alone, _ = unsupervised(variables, batch, jax.random.key(0), 0)
  metrics = aux['metrics']
  np.testing.assert_allclose(value - alone, 0.5 * metrics['affinity'], rtol=1e-4)
  np.testing.assert_allclose(alone, metrics['cross_entropy'], rtol=1e-6)
  # In training, features are those that batch statistics give.
  mean, deviation = jnp.float32(0.5), jnp.float32(0.25)
  network = methods.affinity_batch.NETWORKS['cifar'](depth=8, width=4, num_classes=3)
  inner = {name: values['network'] for name, values in variables.items()}
  signed = (batch['image'] - mean) / deviation
  options = dict(train=True, mutable='batch_stats')
  (features, logits), _ = compiled.apply(network, inner, signed, **options)
  expected, mass = affinity.affinity_loss(
    affinity.distance_affinity(features),
    affinity.same_class(batch['label']),
    gamma=2.0,
    include=affinity.without_self(12),
  )
  np.testing.assert_allclose(metrics['affinity'], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['target_mass'], mass, rtol=1e-4)
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label'])
  np.testing.assert_allclose(alone, entropy.mean(), rtol=1e-5)


def test_a_weight_of_zero_tells_the_mass_and_changes_nothing(batch, variables):
  def grads(method):
    f = lambda v: method.loss(v, batch, jax.random.key(0), 0)  # noqa: E731
    return jax.jit(jax.value_and_grad(f, has_aux=True))(variables)

  (_, aux), told = grads(build(affinity=SUPERVISED | {'weight': 0.0}))
  _, alone = grads(build(affinity=None))
  assert 0 < aux['metrics']['target_mass'] < 1
  chex.assert_trees_all_close(told, alone, atol=1e-6)
  _, moved = grads(build())
  differ = jax.tree.map(lambda a, b: abs(a - b).max(), moved, alone)
  assert max(jax.tree.leaves(differ)) > 1e-3


@pytest.mark.parametrize(
  'changes',
  [
    {'metric': 'product'},
    {'diagonal': True},
    {'form': 'l2'},
    {'gamma': 4.0},
    {'mass': 'row'},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_every_option_of_the_affinity_counts(changes):
  features = np.float32(np.random.default_rng(0).normal(size=(7, 3)))
  labels = jnp.array([0, 1, 0, 2, 1, 0, 3])

  def found(**options):
    loss = affinity_batch._build_affinity(dict(weight=3.0, **options))
    return jax.jit(loss)(features, labels)

  value, metrics = found(**changes)
  options = dict(form='focal', gamma=2.0, mass='matrix') | changes
  distance = options.pop('metric', 'distance') == 'distance'
  include = options.pop('diagonal', False) or affinity.without_self(7)
  matrix = affinity.distance_affinity if distance else affinity.product_affinity
  expected, mass = affinity.affinity_loss(
    matrix(features), affinity.same_class(labels), include=include, **options
  )
  np.testing.assert_allclose(value, 3 * expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['target_mass'], mass, rtol=1e-5)
  assert abs(value - found()[0]) > 1e-3


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(network=NETWORK | {'kind': 'vgg'}), "network.kind must be .* got 'vgg'"),
    (dict(network={'depth': 8}), 'network.kind must be one of cifar, imagenet; got No'),
    (dict(network=NETWORK | {'deep': 8}), 'network.deep is not an option; the options'),
    (dict(network=NETWORK | {'stem': 'small'}), 'network.stem is not an option'),
    (dict(network=NETWORK | {'depth': 21}), r'network.depth must be 6n \+ 2'),
    (dict(network=NETWORK | {'depth': '20'}), "network.depth must be a whole .* '20'"),
    (
      dict(network={'kind': 'imagenet', 'depth': 20}),
      'network.depth must be one of 18',
    ),
    (dict(network={'kind': 'imagenet', 'stem': 'big'}), 'network.stem must be one of'),
    (dict(side=0), 'side must be at least 1; got 0'),
    (dict(network=NETWORK | {'num_classes': 0}), 'network.num_classes must be a whole'),
    (dict(affinity=SUPERVISED | {'gama': 4.0}), 'affinity.gama is not an option; the'),
    (dict(deviation=(0.2, 0.0, 0.2)), r'deviation must be .* above 0; got \(0.2, 0.0'),
    (dict(deviation=(0.2,)), 'deviation must be three numbers'),
    (dict(mean=(0.5, float('nan'), 0.5)), 'mean must be three numbers'),
    (dict(affinity={'form': 'focal'}), 'affinity.weight must be a number; got None'),
    (dict(affinity=SUPERVISED | {'weight': -1.0}), 'affinity.weight .* got -1.0'),
    (dict(affinity=SUPERVISED | {'gamma': -1.0}), 'affinity.gamma .* got -1.0'),
    (dict(affinity=SUPERVISED | {'gamma': float('nan')}), 'affinity.gamma .* got nan'),
    (dict(affinity=SUPERVISED | {'gamma': '4'}), "affinity.gamma must be a .* got '4'"),
    (dict(affinity=SUPERVISED | {'metric': 'cosine'}), "affinity.metric .* 'cosine'"),
    (dict(affinity=SUPERVISED | {'form': 'l1'}), "affinity.form must be .* got 'l1'"),
    (dict(affinity=SUPERVISED | {'mass': 'all'}), "affinity.mass must be .* got 'all'"),
    (dict(affinity=SUPERVISED | {'diagonal': 'no'}), "affinity.diagonal .* got 'no'"),
  ],
)
def test_wrong_options_are_named_before_training(changes, message):
  with pytest.raises(ValueError, match=f'^method.{message}') as refused:
    build(**changes)
  assert '\n' not in str(refused.value)


def test_options_may_be_those_of_a_config():
  options = ml_collections.ConfigDict(dict(network=NETWORK, affinity=SUPERVISED))
  method = methods.build(
    'affinity_batch', train_steps=2, precision='float32', side=SIDE, **options
  )
  assert method.num_classes == build().num_classes


def test_scores_are_counted_image_by_image(variables):
  images, labels = colours(11)
  scores = class_evaluation.evaluate(
    build(), variables, {'image': images, 'label': labels}, batch_size=4
  )
  features, logits = build().classify(variables, jnp.float32(images) / 255)
  pairs = zip(logits, labels, strict=True)
  expected = np.mean([row.argmax() == label for row, label in pairs])
  assert scores['images'] == 11 and scores['accuracy'] == pytest.approx(expected)
  order = np.random.default_rng(0).permutation(11)
  masses = [
    affinity.affinity_loss(
      affinity.distance_affinity(features[drawn]),
      affinity.same_class(jnp.asarray(labels[drawn])),
      include=affinity.without_self(4),
    )[1]
    for drawn in (order[:4], order[4:8])
  ]
  assert scores['target_mass'] == pytest.approx(np.mean(masses), rel=1e-4)


def test_some_images_of_a_set_are_of_all_its_classes():
  labels = np.repeat(np.arange(10), 40)
  images = np.zeros((400, SIDE, SIDE, 3), np.uint8)
  zeros = jnp.zeros((40, 10)).at[:, 0].set(1)
  method = dataclasses.replace(
    build(), classify=lambda variables, images: (images[:, 0, 0], zeros[: len(images)])
  )
  data = {'image': images, 'label': labels}
  scores = class_evaluation.evaluate(method, {}, data, batch_size=40, num_images=40)
  assert scores['images'] == 40 and scores['accuracy'] < 0.4
  scores = class_evaluation.evaluate(method, {}, data, batch_size=40, num_images=400)
  assert scores['accuracy'] == pytest.approx(0.1)


def test_negative_labels_are_not_judged():
  data = {'image': colours(3)[0], 'label': np.array([0, -2, 2])}
  with pytest.raises(ValueError, match='must count from 0; got -2'):
    class_evaluation.check(build(), data)


def test_the_mass_of_a_set_that_lies_class_after_class_is_that_of_mixed_batches(
  variables,
):
  images, labels = colours(240)
  by_class = np.argsort(labels, kind='stable')

  def scores(order, **options):
    found = {'image': images[order], 'label': labels[order]}
    return class_evaluation.evaluate(build(), variables, found, batch_size=8, **options)

  mixed, sorted_, again = scores(np.arange(240)), scores(by_class), scores(by_class)
  assert sorted_ == again != scores(by_class, seed=1)
  assert sorted_['accuracy'] == mixed['accuracy']
  # Batches of one class alone would have all of the mass.
  assert abs(sorted_['target_mass'] - mixed['target_mass']) < 0.1
  assert sorted_['target_mass'] < 0.7


def test_four_devices_take_the_step_of_one(batch):
  method = build()
  mesh = parallel.make_mesh()
  assert mesh.size == 4
  variables = jax.jit(method.init)(jax.random.key(0), batch)

  def slopes(params, batch):
    given = variables | {'params': params}
    grad = jax.grad(method.loss, has_aux=True)
    grads, aux = grad(given, batch, jax.random.key(0), 0)
    return grads['params'], aux

  step = jax.jit(slopes)
  alone = step(variables['params'], batch)
  spread = jax.device_put(batch, parallel.sharded(mesh))
  found = step(jax.device_put(variables['params'], parallel.replicated(mesh)), spread)
  assert alone[1]['metrics']['affinity'] > 0.1
  chex.assert_trees_all_close(found, alone, rtol=1e-3, atol=1e-5)


def test_coarse_activations_change_little(batch, variables):
  def gradient(precision):
    method = build(precision=precision)

    def f(params):
      return method.loss(variables | {'params': params}, batch, jax.random.key(0), 0)

    step = jax.jit(jax.value_and_grad(f, has_aux=True))
    (value, _), found = step(variables['params'])
    return float(value), optax.tree.norm(found), found

  fine, length, slopes = gradient('float32')
  coarse, _, found = gradient('bfloat16')
  chex.assert_tree_all_finite((coarse, found))
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype('float32')}
  assert coarse == pytest.approx(fine, rel=0.02) and coarse != fine
  assert optax.tree.norm(optax.tree.sub(found, slopes)) < 0.2 * length


def config(path, **changes):
  found = dict(
    seed=0,
    train_steps=12,
    batch_size=8,
    precision='float32',
    log_every=1,
    eval_every=4,
    checkpoint_every=5,
    panel_every=0,
    keep_checkpoints=5,
    data=dict(source='labelled', name='archive', dir=str(path), crop=1),
    method=dict(name='affinity_batch', network=NETWORK, affinity=SUPERVISED, side=SIDE),
    optim=dict(
      name='sgd', lr=0.05, momentum=0.9, weight_decay=5e-4, schedule='constant'
    ),
    eval=dict(
      kind='classes',
      num_images=100,
      batch_size=8,
      seed=0,
      valid={'part': 'valid', 'valid': 0.4},
      test={'part': 'test'},
    ),
  )
  found['data']['valid'] = 0.4
  return found | changes


def train(found, workdir):
  console = logging.Console(out=io.StringIO(), err=io.StringIO())
  return loop.train(found, workdir, console=console)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run and its archive."""
  folder = tmp_path_factory.mktemp('classes')
  images, labels = colours(60)
  np.savez(folder / 'a.npz', images=images, label=labels)
  return folder, train(config(folder / 'a.npz'), folder / 'run')


def test_what_was_best_in_validation_is_tested_and_kept(whole):
  folder, results = whole
  lines = map(json.loads, (folder / 'run' / 'metrics.jsonl').read_text().splitlines())
  valid = {
    line['step']: line['eval/valid_accuracy']
    for line in lines
    if 'eval/valid_accuracy' in line
  }
  assert sorted(valid) == [4, 8, 12]
  scores = results['scores']
  best = max(valid.values())
  assert scores['best_step'] == next(s for s in sorted(valid) if valid[s] == best)
  kept, _, _ = weights.load(folder / 'run' / 'weights.npz')
  best, _, card = weights.load(folder / 'run' / 'best.npz')
  chex.assert_trees_all_equal(kept, best)
  assert card['step'] == scores['best_step']
  test = loop.data.build(**(config(folder / 'a.npz')['data'] | {'part': 'test'})).whole
  found = class_evaluation.evaluate(build(), kept, test, batch_size=8)
  assert found == pytest.approx(scores['test'], rel=1e-4)
  assert len(test['label']) == 12 and scores['valid']['images'] == 19


def test_going_on_in_the_middle_of_an_epoch_changes_no_bit(whole, tmp_path):
  folder, results = whole
  # A run that was stopped after step 5, of which nothing later is left; an epoch has 29
  # images, which are no whole batches.
  short = tmp_path / 'run'
  shutil.copytree(folder / 'run', short)
  for step in (10, 12):
    shutil.rmtree(short / 'checkpoints' / str(step))
  for name in ('results.json', 'weights.npz', 'best.npz'):
    (short / name).unlink()
  told = (short / 'metrics.jsonl').read_text()
  kept = [line for line in told.splitlines() if json.loads(line)['step'] <= 3]
  (short / 'metrics.jsonl').write_text('\n'.join(kept) + '\n')
  # The first evaluation is not told again: it must not have been the best.
  assert results['scores']['best_step'] > 4
  again = train(config(folder / 'a.npz'), short)
  assert again['scores'] == results['scores']

  def steps(run):
    rows = [json.loads(line) for line in (run / 'metrics.jsonl').open()]
    return {r['step']: r['cross_entropy'] for r in rows if 'cross_entropy' in r}

  whole_run, second = steps(folder / 'run'), steps(short)
  assert {k: whole_run[k] for k in range(6, 13)} == {k: second[k] for k in range(6, 13)}
  one, two = (weights.load(f / 'weights.npz')[0] for f in (folder / 'run', short))
  chex.assert_trees_all_equal(one, two)


def test_the_best_weights_are_kept_before_their_scores_are_told(
  whole, tmp_path, monkeypatch
):
  folder, _ = whole

  def killed(*arguments):
    raise KeyError('killed')

  monkeypatch.setattr(loop._Run, '_tell', killed)
  with pytest.raises(KeyError, match='killed'):
    train(config(folder / 'a.npz'), tmp_path / 'run')
  assert weights.load(tmp_path / 'run' / 'best.npz')[2]['step'] == 4


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      dict(method=dict(network=dict(NETWORK, num_classes=2))),
      'config.eval: there are labels up to 2, and the method knows 2 classes',
    ),
    (
      dict(method=dict(side=2 * SIDE)),
      f'config.eval: the images have {SIDE} pixels a side, and the method takes',
    ),
    (
      dict(data=dict(source='figures', side=SIDE)),
      'config.eval: classes are judged on labelled images; these have no labels',
    ),
    (
      dict(eval=dict(kind='graph', thresholds=(0.05,), capacities=())),
      'config.eval: kind must not be graph: the method affinity_batch finds no graph',
    ),
  ],
)
def test_data_that_do_not_fit_are_told_before_training(
  whole, tmp_path, changes, message
):
  folder, _ = whole
  wrong = config(folder / 'a.npz')
  if 'data' in changes:
    wrong['eval'] |= dict(valid={}, test={})
  for part, values in changes.items():
    wrong[part] = values if 'source' in values else wrong[part] | values
  with pytest.raises(errors.UserError, match=message):
    train(wrong, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_labels_of_training_that_no_class_has_are_told_before_it(whole, tmp_path):
  folder, _ = whole
  images, labels = colours(60)
  np.savez(tmp_path / 'b.npz', images=images, label=labels + 1)
  wrong = config(tmp_path / 'b.npz')
  for part in ('valid', 'test'):
    wrong['eval'][part]['dir'] = str(folder / 'a.npz')
  message = 'config.data: there are labels up to 3, and the method knows 3 classes'
  with pytest.raises(errors.UserError, match=message):
    train(wrong, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_panels_are_refused(whole):
  folder, _ = whole
  with pytest.raises(errors.UserError, match='panel_every must be 0'):
    train(config(folder / 'a.npz', panel_every=5), folder / 'other')
