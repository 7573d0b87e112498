"""Tests of img2graph/methods/supervised.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import image_graph_image
from img2graph import data
from img2graph import graph as graphs
from img2graph import methods
from img2graph.encoding import encoder
from img2graph.encoding import heads
from img2graph.methods import base
from img2graph.methods import supervised
from img2graph.training import optim
from img2graph.training import state as states
from img2graph.training import step as steps

STEPS = 60


@functools.cache
def _recipe(recipe):
  """(config, method, variables, batch) of a smoke variant, with true graphs."""
  config = image_graph_image.get_config(f'{recipe},smoke')
  method = _build(config)
  shapes = data.build('shapes', side=config.data.side, line_width=1.5)
  batch = shapes.sample(jax.random.key(1), 8)
  return config, method, jax.jit(method.init)(jax.random.key(0), batch), batch


def _build(config, **changes):
  options = config.method.to_dict() | changes
  return methods.build(train_steps=STEPS, precision=config.precision, **options)


def test_proposals_learn_from_true_graphs():
  _, method, variables, batch = _recipe('supervised')
  tx = optax.adam(3e-3)

  @jax.jit
  def step(params, opt_state):
    def loss(params):
      return method.loss(variables | {'params': params}, batch, jax.random.key(2), 0)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, (value, aux['metrics'])

  params = variables['params']
  params, opt_state, (first, terms) = step(params, tx.init(params))
  expected = terms['node_error'] + 10 * terms['position_error'] + terms['edge_error']
  np.testing.assert_allclose(first, expected, rtol=1e-5)
  for _ in range(50):
    params, opt_state, (last, terms) = step(params, opt_state)
  assert last < 0.2 * first


class _Told:
  """A model that says of any image what it is told."""

  def __init__(self, encoded):
    self._encoded = encoded

  def apply(self, *args, **options):
    return self._encoded, {}


@pytest.mark.parametrize(
  'options, distance',
  [
    # Within the radius the most probable is taken, however near the others are.
    (dict(matching='near'), 0.09),
    (dict(matching='hungarian', distance_weight=1.0), 0.09),
    (dict(matching='hungarian', distance_weight=100.0), 0.02),
  ],
)
def test_the_loss_of_proposals_is_the_weighted_sum_of_its_parts_by_hand(
  options, distance
):
  # The first two proposals stand for one node, the third for the other.
  positions = jnp.array([[[-0.5, 0.02], [-0.5, 0.09], [0.5, 0.0]]])
  logits = jnp.array([[-2.0, 2.0, 9.0]])
  chosen = positions[:, 1:]
  links = jnp.array([[3.0]])
  nodes = heads.NodeSet(
    chosen,
    jnp.ones((1, 2)),
    drawing=jnp.zeros((1, 8, 8)),
    proposals=(logits, positions),
  )
  encoded = encoder.Encoded(nodes, jax.nn.sigmoid(links), None, links)
  graph = graphs.from_lists(np.array([[-0.5, 0.0], [0.5, 0.0]]), np.array([[0, 1]]))
  graph = jax.tree.map(lambda x: jnp.asarray(x)[None], graph)
  target = base.Target(jnp.ones((1, 8, 8, 1)), jnp.ones(1), graph)
  loss_fn = supervised.LOSSES['proposals'](
    node=2.0, position=30.0, edge=5.0, radius=0.1, drawing_weight=7.0, **options
  )

  @jax.jit
  def loss(encoded):
    return loss_fn(_Told(encoded), {}, None, target, jax.random.key(0), 0.0)

  value, aux = loss(encoded)
  # What is near a node and not its proposal is left alone.
  wrong = {0.02: 2.0, 0.09: -2.0}[distance]
  exists = (np.log1p(np.exp(wrong)) + np.log1p(np.exp(-9))) / 2
  linked = np.log1p(np.exp(-3))
  expected = 2 * exists + 30 * distance / 2 + 5 * linked + 7 * np.log(2)
  assert aux['metrics']['position_error'] == pytest.approx(distance / 2, rel=1e-4)
  assert value == pytest.approx(expected, rel=1e-4)


def test_the_baseline_learns_nodes_at_first_and_then_edges_alone():
  config, method, variables, batch = _recipe('baseline')
  options = config.optim.to_dict()
  tx, rate = optim.build(train_steps=STEPS, **options)
  step = jax.jit(
    functools.partial(steps.train_step, method=method, tx=tx, learning_rate=rate)
  )
  state = states.create(
    jax.random.key(0), batch, method=method, tx=tx, variables=variables
  )
  switch = STEPS * 2 // 15
  found = [state]
  for _ in range(switch + 3):
    state, metrics = step(state, batch, jax.random.key(3))
    found.append(state)
    learned = 'edge_error' if state.step > switch else 'node_error'
    assert metrics['loss'] == metrics[learned] > 0

  def moved(part, first, last):
    a, b = ((s.params[part], s.collections['batch_stats'][part]) for s in (first, last))
    same = [
      np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    ]
    return not all(same)

  before, between, after = found[0], found[switch], found[-1]
  assert moved('node_head', before, between)
  assert not moved('edge_head', before, between)
  # Neither parameters nor running statistics, bit by bit.
  assert not moved('node_head', between, after)
  assert moved('edge_head', between, after)


@pytest.mark.parametrize('recipe', ['baseline', 'supervised'])
def test_predicts_and_draws_graphs(recipe):
  config, method, variables, batch = _recipe(recipe)
  graph = jax.jit(method.predict)(variables, batch['image'])
  assert graph.nodes.shape == (8, config.method.capacity, 2)
  made = jax.jit(method.reconstruct)(variables, batch['image'])
  np.testing.assert_allclose(made['graph'].nodes, graph.nodes, atol=1e-5)
  assert made['drawing'].shape == batch['image'].shape
  side = batch['image'].shape[1]
  assert jax.eval_shape(method.ink, variables, batch['image']).shape == (8, side, side)


@pytest.mark.parametrize(
  'recipe, changes, labels, message',
  [
    ('supervised', {}, False, 'true graphs'),
    ('baseline', {'kind': 'proposals', 'radius': 0.1}, True, 'nodes of kind proposals'),
    ('supervised', {'kind': 'heatmap'}, True, 'nodes of kind attention'),
  ],
)
def test_supervision_needs_labels_and_nodes_of_its_kind(
  recipe, changes, labels, message
):
  config, method, variables, batch = _recipe(recipe)
  batch = {'image': batch['image']} | ({'graph': graphs.empty(8, 4)} if labels else {})
  with pytest.raises(ValueError, match=message):
    if changes:
      other = 'supervised' if recipe == 'baseline' else 'baseline'
      method = _build(config, loss=_recipe(other)[0].method.loss.to_dict())
    jax.eval_shape(method.loss, variables, batch, jax.random.key(0), 0)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'matching': 'best'}, 'method.loss.matching must be'),
    ({'distance_weight': None}, 'goes with matching'),
    ({'colour': 3}, 'method.loss'),
    ({'kind': 'guess'}, 'method.loss.kind'),
    ({'node': -0.5}, 'method.loss.node must be at least 0; got -0.5'),
    ({'position': np.nan}, 'method.loss.position must be a number; got nan'),
    ({'edge': -1.0}, 'method.loss.edge must be at least 0; got -1.0'),
    ({'drawing_weight': np.inf}, 'method.loss.drawing_weight must be a number'),
    ({'radius': 0.0}, 'method.loss.radius must be above 0; got 0.0'),
    ({'distance_weight': -5.0}, 'method.loss.distance_weight must be at least 0'),
  ],
)
def test_wrong_options_are_refused_in_one_sentence(changes, message):
  config = _recipe('supervised')[0]
  with pytest.raises(ValueError, match=message):
    _build(config, loss=config.method.loss.to_dict() | changes)


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('sigma', 0.0, 'above 0; got 0.0'),
    ('nodes_until', np.nan, 'a number; got nan'),
    ('nodes_until', 1.5, 'at most 1; got 1.5'),
  ],
)
def test_numbers_of_the_baseline_that_no_run_can_use_are_refused(name, value, words):
  config = image_graph_image.get_config('baseline,smoke')
  with pytest.raises(ValueError, match=f'^method.loss.{name} must be {words}.$'):
    _build(config, loss=config.method.loss.to_dict() | {name: value})
