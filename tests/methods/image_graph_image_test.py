"""Tests of img2graph/methods/image_graph_image.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import line_drawings
from configs import simple_shapes
from img2graph import data
from img2graph import fitting
from img2graph import methods
from img2graph.encoding import encoder
from img2graph.encoding import heads
from img2graph.methods import base
from img2graph.methods import image_graph_image
from launch import cells


@functools.cache
def _recipe(variant):
  """(config, method, variables, batch) of a smoke variant."""
  config = simple_shapes.get_config(variant)
  method = _build(config)
  shapes = data.build('shapes', side=config.data.side, line_width=1.5)
  batch = shapes.sample(jax.random.key(1), 8)
  batch = {'image': batch['image']}
  variables = jax.jit(method.init)(jax.random.key(0), batch)
  return config, method, variables, batch


@functools.cache
def _clean_recipe():
  """Of line drawings, whose encoder draws too and looks at few pairs."""
  config = line_drawings.get_config('smoke')
  method = _build(config)
  source = data.build('shapes', side=64, line_width=1.5)
  batch = {'image': source.sample(jax.random.key(1), 4)['image']}
  return config, method, jax.jit(method.init)(jax.random.key(0), batch), batch


def _build(config, **changes):
  options = config.method.to_dict() | changes
  return methods.build(train_steps=100, precision=config.precision, **options)


def _loss(method, variables, batch, seed=0):
  """The loss at the first step, as one program."""
  key = jax.random.key(seed)
  return jax.jit(lambda v, b: method.loss(v, b, key, 0)[0])(variables, batch)


VARIANTS = ['smoke', 'paper_smoke']


def test_pairs_without_ink_have_no_edge_and_the_others_what_all_would_give():
  config, method, variables, batch = _clean_recipe()
  everything = _build(config, most_pairs=None)
  few = jax.jit(method.predict)(variables, batch['image'])
  all_ = jax.jit(everything.predict)(variables, batch['image'])
  capacity = few.capacity
  np.testing.assert_allclose(few.nodes, all_.nodes, atol=1e-6)
  kept = np.asarray(few.edge_prob) > 0
  assert (kept.sum(axis=(1, 2)) / 2 <= config.method.most_pairs * capacity).all()
  assert kept.sum() < (np.asarray(all_.edge_prob) > 0).sum()
  np.testing.assert_allclose(
    np.asarray(few.edge_prob)[kept], np.asarray(all_.edge_prob)[kept], atol=1e-5
  )


def test_the_ink_that_graphs_explain_is_what_the_encoder_draws():
  _, method, variables, batch = _clean_recipe()
  ink = np.asarray(jax.jit(method.ink)(variables, batch['image']))
  out = jax.jit(method.reconstruct)(variables, batch['image'])
  clean = np.asarray(out['clean'])[..., 0]
  given = np.asarray(out['input'])[..., 0]
  # What the image has no ink for counts less.
  np.testing.assert_allclose(ink[given > 0.5], clean[given > 0.5], atol=1e-5)
  np.testing.assert_allclose(ink[given == 0], 0.3 * clean[given == 0], atol=1e-5)
  assert (given > 0.5).any() and (given == 0).any()
  # It learns from the target, not from the image.

  @jax.jit
  def entropy(params, target):
    aux = method.loss(
      variables | {'params': params}, batch | {'target': target}, jax.random.key(2), 0
    )[1]
    return aux['metrics']['drawing']

  params = variables['params']
  images = np.asarray(batch['image'])
  blank, half = np.zeros_like(images), np.zeros_like(images)
  half[:, :, :32] = 1
  nudged = jax.tree.map(lambda x: x, params)
  head = nudged['node_head']['net']['drawing']
  nudged['node_head']['net']['drawing'] = head | {'bias': head['bias'] + 1}
  # An image that is its own target, beside others, does not say what is clean.
  mixed = np.concatenate([images[:2], half[2:]])
  assert entropy(params, mixed) == pytest.approx(float(entropy(params, half)), rel=0.1)
  assert entropy(params, images) == 0
  assert entropy(nudged, half) < entropy(params, half)
  assert entropy(nudged, blank) > entropy(params, blank)


def test_graphs_are_fitted_to_that_ink_with_the_options_of_the_config(monkeypatch):
  config, method, variables, batch = _clean_recipe()
  options = {}

  def fit_graph(graph, target, **given):
    options.update(given)
    return target

  monkeypatch.setattr(fitting, 'fit_graph', fit_graph)
  refine = jax.jit(lambda v, x: (method.refine(v, x, None, 7), method.ink(v, x)))
  target, ink = refine(variables, batch['image'])
  np.testing.assert_allclose(target[..., 0], ink, atol=1e-6)
  assert options == config.method.fit.to_dict() | {'num_steps': 7}


@pytest.mark.parametrize('variant', VARIANTS)
def test_gradients_reach_every_parameter_and_are_finite(variant):
  _, method, variables, batch = _recipe(variant)
  if 'refiner' in variables['params']:
    # At the very start its random channels are not looked at.
    moved = jax.tree.map(lambda p: p + 0.01, variables['params']['refiner'])
    variables = variables | {'params': variables['params'] | {'refiner': moved}}

  @jax.jit
  def gradients(variables):
    def loss(params):
      return method.loss(variables | {'params': params}, batch, jax.random.key(2), 50)

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  (value, aux), grads = gradients(variables)
  assert value.shape == () and np.isfinite(value)
  assert float(aux['metrics']['loss']) == float(value)
  assert set(aux['collections']) == set(variables) - {'params'}
  for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(gradient).all(), path
    assert np.abs(gradient).max() > 0, path


@pytest.mark.parametrize('variant', VARIANTS)
def test_predictions_are_graphs_in_range(variant):
  config, method, variables, batch = _recipe(variant)
  graph = jax.jit(method.predict)(variables, batch['image'])
  capacity = config.method.capacity
  assert graph.nodes.shape == (8, capacity, 2)
  assert graph.edge_prob.shape == (8, capacity, capacity)
  assert np.abs(graph.nodes).max() < 1.5
  for prob in (graph.node_prob, graph.edge_prob):
    assert 0 <= np.min(prob) and np.max(prob) <= 1
  np.testing.assert_array_equal(graph.edge_prob, np.swapaxes(graph.edge_prob, 1, 2))
  again = jax.jit(method.reconstruct)(variables, batch['image'])
  np.testing.assert_allclose(again['graph'].nodes, graph.nodes, atol=1e-5)
  assert again['drawing'].shape[0] == 8 and again['drawing'].shape[-1] == 1


def test_each_image_is_predicted_by_itself():
  _, method, variables, batch = _recipe('smoke')
  predict = jax.jit(method.predict)
  together = predict(variables, batch['image'])
  alone = predict(variables, batch['image'][3:4])
  np.testing.assert_allclose(together.nodes[3], alone.nodes[0], atol=1e-4)
  np.testing.assert_allclose(together.edge_prob[3], alone.edge_prob[0], atol=1e-4)


def test_a_larger_capacity_only_adds_nodes():
  config, method, variables, batch = _recipe('smoke')
  wide = _build(config, capacity=12)
  few = jax.jit(method.predict)(variables, batch['image'])
  many = jax.jit(wide.predict)(variables, batch['image'])
  np.testing.assert_allclose(few.nodes, many.nodes[:, :8], atol=1e-5)


def test_prediction_may_have_more_nodes_than_training():
  config, method, variables, batch = _recipe('smoke')
  wide = _build(config, predict_capacity=12)
  expected = _build(config, capacity=12)
  actual = jax.jit(wide.predict)(variables, batch['image'])
  np.testing.assert_array_equal(
    actual.nodes, jax.jit(expected.predict)(variables, batch['image']).nodes
  )
  same, alone = (_loss(m, variables, batch) for m in (wide, method))
  np.testing.assert_allclose(same, alone, rtol=1e-6)


def test_an_edge_is_decided_by_its_least_probable_part():
  config, method, variables, batch = _recipe('smoke')
  each = jax.jit(method.predict)(variables, batch['image'])
  by_product = _build(config, decision='product')
  product = jax.jit(by_product.predict)(variables, batch['image'])
  assert (np.asarray(product.edge_prob) <= np.asarray(each.edge_prob) + 1e-6).all()
  ends = np.minimum(each.node_prob[:, :, None], each.node_prob[:, None, :])
  assert (np.asarray(each.edge_prob) <= ends + 1e-6).all()


def test_a_target_replaces_the_image_in_the_loss_only():
  _, method, variables, batch = _recipe('smoke')
  plain = _loss(method, variables, batch, 3)
  same = _loss(method, variables, batch | {'target': batch['image']}, 3)
  other = _loss(method, variables, batch | {'target': batch['image'][::-1]}, 3)
  np.testing.assert_allclose(plain, same, rtol=1e-6)
  assert abs(float(other) - float(plain)) > 1e-3


def test_bfloat16_stays_near_float32():
  config, method, variables, batch = _recipe('smoke')
  low = methods.build(train_steps=100, precision='bfloat16', **config.method.to_dict())
  expected, actual = (_loss(m, variables, batch) for m in (method, low))
  np.testing.assert_allclose(actual, expected, rtol=0.05)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'capacity': 1}, 'at least 2'),
    ({'capacity': 0}, 'at least 2'),
    ({'decision': 'vote'}, 'decision'),
    ({'nodes': {'kind': 'crystal_ball'}}, 'method.nodes.kind'),
    ({'loss': {'kind': 'pyramid', 'colour': 3}}, 'method.loss'),
    ({'loss': {'kind': 'similarity', 'overlap_weight': 1.0}}, 'needs nodes of kind'),
    ({'nodes': {}}, 'method.nodes.kind must be one of'),
    ({'predict_capacity': 1}, 'predict_capacity must be at least 2'),
    ({'most_pairs': 0}, 'most_pairs must be at least 1'),
    ({'fit': {'steep': 4}}, "method.fit: .* unexpected keyword argument 'steep'"),
    ({'canonical_form': {'side': 0}}, 'canonical_form.side must be at least 1'),
    (
      {
        'edges': {
          'kind': 'roi',
          'mode': 'max',
          'learn_boxes': True,
          'features': (4,),
          'hidden': 4,
        }
      },
      "learn_boxes needs mode 'align'",
    ),
  ],
)
def test_wrong_options_are_refused_in_one_sentence(changes, message):
  config = simple_shapes.get_config('smoke')
  with pytest.raises(ValueError, match=message):
    _build(config, **changes)


@pytest.mark.parametrize(
  'variant, name, value, words',
  [
    ('smoke', 'loss.weight', -1.3, 'at least 0; got -1.3'),
    ('smoke', 'loss.weight', np.nan, 'a number; got nan'),
    ('smoke', 'loss.length_cost', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'loss.edge_cost', np.inf, 'a number; got inf'),
    ('smoke', 'loss.node_cost', np.nan, 'a number; got nan'),
    ('smoke', 'loss.scales', 0, 'at least 1; got 0'),
    ('smoke', 'loss.scales', 2.5, 'a whole number; got 2.5'),
    ('paper_smoke', 'loss.overlap_weight', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'nodes.blocks', -1, 'at least 0; got -1'),
    ('smoke', 'nodes.width', 2.5, 'a whole number; got 2.5'),
    ('smoke', 'nodes.noise', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'nodes.noise_until', np.nan, 'a number; got nan'),
    ('smoke', 'nodes.min_distance', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'nodes.offset_range', 0.0, 'above 0; got 0.0'),
    ('smoke', 'nodes.initial_bias', np.nan, 'a number; got nan'),
    ('paper_smoke', 'nodes.momentum', 1.0, 'below 1; got 1.0'),
    ('paper_smoke', 'nodes.stem_features', 0, 'at least 1; got 0'),
    ('smoke', 'edges.across', -1, 'at least 1; got -1'),
    ('smoke', 'edges.spread', np.nan, 'a number; got nan'),
    ('paper_smoke', 'edges.margin', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'renderer.max_edges', -1, 'at least 1; got -1'),
    ('smoke', 'renderer.half_width', -1.25, 'above 0; got -1.25'),
    ('smoke', 'renderer.softness', 0.0, 'above 0; got 0.0'),
    ('smoke', 'renderer.width_rate', np.nan, 'a number; got nan'),
    ('smoke', 'renderer.noise', -0.5, 'at least 0; got -0.5'),
    ('smoke', 'renderer.noise_until', -0.5, 'at least 0; got -0.5'),
    ('paper_smoke', 'renderer.size', 0, 'at least 1; got 0'),
    ('paper_smoke', 'refiner.features', 0, 'at least 1; got 0'),
    ('smoke', 'fit.max_edges', -1, 'at least 1; got -1'),
    ('smoke', 'canonical_form.floor', 1.0, 'below 1; got 1.0'),
    ('smoke', 'canonical_form.gain', np.nan, 'a number; got nan'),
    ('smoke', 'most_pairs', 2.5, 'a whole number; got 2.5'),
    ('paper_smoke', 'nodes.block_depths', (1, 1, 1), r'2 numbers; got \(1, 1, 1\)'),
    ('paper_smoke', 'edges.features', 8, 'several numbers; got 8'),
  ],
)
def test_numbers_that_no_run_can_use_are_refused(variant, name, value, words):
  config = simple_shapes.get_config(variant)
  options = cells.override(config.method, {name: value}).to_dict()
  with pytest.raises(ValueError, match=f'^method.{name} must be {words}.$'):
    methods.build(train_steps=100, precision='float32', **options)


@pytest.mark.parametrize('measure', ['ssim', 'ms_ssim'])
def test_the_weight_of_a_similarity_is_that_of_the_error_alone(measure):
  target = base.Target(_recipe('smoke')[3]['image'], clean=None)
  drawing = 0.5 * target.image
  options = dict(measure=measure, overlap_weight=0.0, padding='valid')

  def error(on, weight):
    loss_fn = image_graph_image.LOSSES['similarity'](on=on, weight=weight, **options)
    coarse, refined = (drawing, 0 * drawing)
    return loss_fn(None, coarse, refined, target, 0.0)[1]['error'].item()

  assert error('coarse', 3.0) == pytest.approx(3 * error('coarse', 1.0), rel=1e-5)
  assert error('refined', 1.0) > error('coarse', 1.0) + 0.05


# Of the graph below: a quarter of an edge, half a side long, and nodes of 1.7 in all.
COSTS = dict(length_cost=1.0, edge_cost=10.0, node_cost=100.0, cost_ramp=(0.2, 0.6))
COST = 0.25 * (0.5 + 10) + 170


def _encoded(batch, **parts):
  """Three nodes in each image, of which the first two may have an edge."""
  positions = jnp.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]).repeat(batch, axis=0)
  prob = jnp.array([[1.0, 0.5, 0.2]]).repeat(batch, axis=0)
  links = jnp.array([[0.5, 0.0, 0.0]]).repeat(batch, axis=0)
  return encoder.Encoded(heads.NodeSet(positions, prob, **parts), links)


def test_our_loss_is_the_weighted_sum_of_its_parts_by_hand():
  # All ink, of which nothing is drawn; our own drawing has logits of 0 everywhere.
  target = base.Target(jnp.ones((2, 8, 8, 1)), jnp.ones(2))
  loss_fn = image_graph_image.LOSSES['pyramid'](
    weight=2.0, scales=2, drawing_weight=3.0, **COSTS
  )
  encoded = _encoded(2, drawing=jnp.zeros((2, 8, 8)))
  for progress, share in ((0.2, 0), (0.4, 0.5), (0.9, 1)):
    value, metrics = loss_fn(encoded, None, 0 * target.image, target, progress)
    expected = {'error': 2.0, 'cost': share * COST, 'drawing': np.log(2)}
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert value == pytest.approx(2 + share * COST + 3 * np.log(2), rel=1e-5)


def test_the_papers_loss_is_the_weighted_sum_of_its_parts_by_hand():
  # The first image is drawn as it is, the second is not drawn at all.
  images = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  target = base.Target(jnp.asarray(images), None)
  drawing = images * np.array([1, 0], np.float32)[:, None, None, None]
  # Only in the second, the worse of the two, do both maps lie on each other: by 1.
  maps = np.ones((2, 4, 4, 2), np.float32) * np.array([0.5, 1])[:, None, None, None]
  loss_fn = image_graph_image.LOSSES['similarity'](
    measure='ssim', on='coarse', overlap_weight=4.0, **COSTS
  )
  encoded = _encoded(2, attention=jnp.asarray(maps, jnp.float32))
  value, metrics = loss_fn(encoded, drawing, None, target, 0.4)
  assert metrics['overlap'] == pytest.approx(0.5)
  assert metrics['cost'] == pytest.approx(COST / 2, rel=1e-5)
  assert 0.4 < metrics['error'] < 0.6
  assert value == pytest.approx(float(metrics['error']) + 2 + COST / 2, rel=1e-5)


def test_losses_are_told_how_far_training_is(monkeypatch):
  config, _, variables, batch = _recipe('smoke')

  def progress_alone():
    return lambda encoded, coarse, refined, target, progress: (progress, {})

  monkeypatch.setitem(image_graph_image.LOSSES, 'progress', progress_alone)
  method = _build(config, loss={'kind': 'progress'})
  told = jax.jit(lambda step: method.loss(variables, batch, jax.random.key(0), step)[0])
  assert told(25) == pytest.approx(0.25)
