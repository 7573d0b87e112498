"""AutoLink: the paper's equations in plain NumPy, and what its switches do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autolink as configs
from img2graph import geometry
from img2graph import graph as graph_lib
from img2graph import methods
from img2graph.encoding import affine_maps
from img2graph.losses import perceptual
from img2graph.methods import autolink
from img2graph.training import optim
from launch import cells
from launch import main
from tests import variables as variables_lib

SIDE, NUM = 16, 4
PAIRS = NUM * (NUM - 1) // 2
RATE = 51.2  # As in the config.


def options(**changes):
  config = configs.get_config('smoke').method
  config.side = SIDE
  config.detector = dict(down=(4, 4), up=(4,))
  config.inpainter.features = (4, 4)
  config.loss.update(widths=(3,), scales=2)
  return cells.override(config, changes).to_dict()


def of_model(method_options):
  """Those that the network is built from."""
  others = ('name', 'mask', 'loss', 'equivariance', 'separation')
  return {n: v for n, v in method_options.items() if n not in others}


def build(**changes):
  return methods.build(train_steps=5, precision='float32', **options(**changes))


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  return {'image': rng.random((2, SIDE, SIDE, 3), np.float32)}


def started():
  """A method and variables, with weights of edges that differ."""
  method = build()
  image = np.zeros((2, SIDE, SIDE, 3), np.float32)
  values = variables_lib.random(method.init, {'image': image})
  # Logits from -2 on.
  values['params']['edges'] = (np.arange(PAIRS, dtype=np.float32) - 2) / RATE
  values['params']['alpha'] = np.float32(1)
  return method, values


def softplus(x):
  return np.log1p(np.exp(x))


def official_map(keypoints, weights, thick, side):
  """Equations 2 to 4 as published, positions and pixels from centre to centre."""
  ticks = np.linspace(-1, 1, side)
  p = np.stack(np.meshgrid(ticks, ticks), -1)[:, :, None]
  senders, receivers = geometry.node_pairs(len(keypoints))
  a, b = keypoints[senders], keypoints[receivers]
  t = ((p - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1)
  t = np.clip(t, 0, 1)[..., None]
  distance_sq = ((p - (a + t * (b - a))) ** 2).sum(-1)
  return (weights * np.exp(-distance_sq / thick)).max(-1)


def test_with_corners_the_edge_map_is_the_published_one(batch):
  _, variables = started()
  model_options = of_model(options(grid='corners'))
  thick = model_options['renderer']['sigma_sq'] = 0.05
  model = autolink.build_model(precision='float32', **model_options)

  @jax.jit
  def see(images):
    keep = jnp.ones((2, SIDE, SIDE, 1))
    found, edge_map, _ = model.apply(variables, images, keep)
    signed = 2 * images - 1
    detector = model.detector.clone(parent=None)
    inner = {n: v['detector'] for n, v in variables.items()}
    return found, edge_map, detector.apply(inner, signed)[1]

  found, edge_map, probs = jax.device_get(see(batch['image']))
  weights = softplus(np.arange(PAIRS) - 2.0)
  np.testing.assert_allclose(found.weights, np.tile(weights, (2, 1)), rtol=1e-5)
  # Expectation over a grid from the first cell's centre, -1, to the last's, 1.
  ticks = np.linspace(-1, 1, probs.shape[1])
  for i in range(2):
    keypoints = np.stack(
      [np.einsum('hwk,w->k', probs[i], ticks), np.einsum('hwk,h->k', probs[i], ticks)],
      axis=-1,
    )
    np.testing.assert_allclose(found.nodes[i], keypoints * (SIDE - 1) / SIDE, atol=1e-5)
    expected = official_map(keypoints, weights, thick, SIDE)
    np.testing.assert_allclose(edge_map[i, ..., 0], expected, atol=1e-5)


@pytest.fixture(scope='module')
def stepped(batch):
  """One step with a topology of each image, compiled once for two tests."""
  method = build(
    **{'edges.rate': 512.0, 'topology': dict(hidden=4, presence_bias=2.0, cost=0.1)}
  )
  # Nothing else is compiled.
  first = jax.jit(lambda key: method.init(key, batch)['params']['edges'])
  logits = 512 * first(jax.random.key(1))
  variables = variables_lib.random(method.init, batch, scale=1.0)
  variables['params'] |= {'edges': logits / 512, 'alpha': jnp.float32(1)}

  @jax.jit
  def step(key):
    def loss(params):
      values = variables | {'params': params}
      value, aux = method.loss(values, batch, key, 0)
      return value, (aux, method.predict(values, batch['image']))

    grad_fn = jax.value_and_grad(loss, has_aux=True)
    (_, (aux, graph)), gradient = grad_fn(variables['params'])
    tx, _ = optim.build(train_steps=5, **configs.get_config().optim)
    updates, _ = tx.update(gradient, tx.init(variables['params']), variables['params'])
    return aux['metrics'], graph, gradient, updates

  return logits, jax.device_get(step(jax.random.key(2))), step(jax.random.key(3))[0]


@pytest.mark.parametrize('weight', [0.0, 1e-30, 1e-20, 1e-6])
def test_links_relative_to_next_to_nothing_have_a_gradient(weight):
  logits = jnp.zeros((1, 3))

  def price(logits):
    return autolink._relative(weight * jnp.exp(logits)).mean()

  value, gradient = jax.value_and_grad(price)(logits)
  assert 0 <= value <= 1 and np.abs(gradient).max() <= 1


def test_the_loss_trains_everything_and_moves_edges_512_times_as_fast(stepped):
  logits, (metrics, _, gradient, updates), other = stepped
  assert logits.shape == (PAIRS,)
  assert np.abs(logits + 4).max() < 0.5 and logits.std() > 0.01
  chex.assert_tree_all_finite((metrics, gradient))
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
  # Named for what it is.
  assert {'fallback_features', 'fallback_pyramid', 'alpha'} < set(metrics)
  assert 'perceptual' not in metrics
  np.testing.assert_allclose(
    metrics['fallback'], metrics['fallback_features'] + metrics['fallback_pyramid']
  )
  assert other['loss'] != metrics['loss']  # Another mask.
  # Adam's first step is the learning rate, whatever the gradient; and a line that is
  # nowhere the brightest has none, and decays.
  moved = gradient['edges'] != 0
  assert moved.any()
  expected = np.where(moved, 0.0512, 1e-4 * 1e-3 * np.abs(logits))
  np.testing.assert_allclose(512 * np.abs(updates['edges']), expected, rtol=0.01)


def test_links_and_presence_may_be_each_images_own_at_a_price(stepped):
  _, (metrics, graph, gradient, _), _ = stepped
  for name in ('presence', 'links'):
    assert np.abs(gradient['topology'][name]['kernel']).max() > 0
  np.testing.assert_allclose(metrics['loss'], metrics['fallback'] + metrics['cost'])
  assert metrics['cost'] > 0
  assert np.ptp(graph.node_prob) > 1e-3 and graph.node_prob.max() < 1
  assert np.abs(graph.edge_prob[0] - graph.edge_prob[1]).max() > 1e-3
  np.testing.assert_array_equal(graph.edge_prob.max((1, 2)), 1)


def test_reconstruct_shows_a_graph_with_relative_weights(batch):
  method, variables = started()
  made = jax.device_get(jax.jit(method.reconstruct)(variables, batch['image']))
  weights = softplus(np.arange(PAIRS) - 2.0)
  np.testing.assert_allclose(made['weights'], np.tile(weights, (2, 1)), rtol=1e-5)
  graph = made['graph']
  np.testing.assert_array_equal(graph.node_prob, 1)
  expected = geometry.pairs_to_matrix(weights / weights.max(), NUM)
  np.testing.assert_allclose(graph.edge_prob[1], expected, rtol=1e-5)
  assert np.abs(graph.nodes).max() < 1
  shapes = {n: made[n].shape for n in ('drawing', 'masked', 'reconstruction')}
  assert shapes == {
    'drawing': (2, SIDE, SIDE, 1),
    'masked': (2, SIDE, SIDE, 3),
    'reconstruction': (2, SIDE, SIDE, 3),
  }
  # What is hidden is mid grey, the rest as it was.
  hidden = np.abs(made['masked'] - 0.5).max(-1) < 1e-6
  np.testing.assert_allclose(
    made['masked'][~hidden], batch['image'][~hidden], atol=1e-6
  )
  assert 0.6 < hidden.mean() < 0.95
  assert (method.channels, method.sides) == (3, (SIDE,))
  predicted = jax.jit(method.predict)(variables, batch['image'])
  chex.assert_trees_all_close(predicted, graph, atol=1e-6)


def find_and_draw(method_options, changes):
  model = autolink.build_model(precision='float32', **of_model(method_options))
  rng = np.random.default_rng(0)
  found = autolink.Found(
    nodes=rng.uniform(-0.8, 0.8, (2, NUM, 2)).astype(np.float32), **changes
  )
  count = changes['weights'].shape[1]
  start = {'edges': np.zeros(count, np.float32), 'alpha': np.float32(1)}
  if method_options['renderer']['thickness'] != 'fixed':
    start['log_thickness'] = np.log(np.float32(0.2))
  draw = jax.jit(
    lambda found: model.apply({'params': start}, found, SIDE, method='draw')
  )
  return found, np.asarray(draw(found))


def test_edge_maps_of_one_channel_of_many_and_of_points():
  weights = np.linspace(0.2, 1.2, 2 * PAIRS, dtype=np.float32).reshape(2, PAIRS)
  changes = dict(weights=weights, presence=np.ones((2, NUM), np.float32))
  thin = {'renderer.sigma_sq': 0.04}
  found, lines = find_and_draw(options(**thin), changes)
  _, each = find_and_draw(options(**thin, **{'renderer.map': 'channels'}), changes)
  assert each.shape == (2, SIDE, SIDE, PAIRS)
  np.testing.assert_allclose(each.max(-1, keepdims=True), lines, atol=1e-6)
  _, learned = find_and_draw(options(**{'renderer.thickness': 'shared'}), changes)
  np.testing.assert_allclose(learned, lines, atol=1e-6)
  changes['weights'] = weights[:, :NUM]
  _, points = find_and_draw(options(**thin, **{'renderer.map': 'points'}), changes)
  offset = (
    geometry.pixel_centres(SIDE, SIDE)[None, :, :, None] - found.nodes[:, None, None]
  )
  expected = np.exp(-(offset**2).sum(-1) / 0.04) * weights[:, None, None, :NUM]
  np.testing.assert_allclose(points[..., 0], expected.max(-1), atol=1e-6)


def test_a_thickness_of_each_edge_is_its_own_and_is_learned():
  method_options = options(**{'renderer.thickness': 'each'})
  model = autolink.build_model(precision='float32', **of_model(method_options))
  rng = np.random.default_rng(1)
  nodes = rng.uniform(-0.8, 0.8, (1, NUM, 2)).astype(np.float32)
  found = autolink.Found(nodes, np.ones((1, PAIRS)), np.ones((1, NUM)))
  thickness = np.linspace(0.05, 0.3, PAIRS).astype(np.float32)
  start = {'edges': np.zeros(PAIRS), 'alpha': np.float32(1)}

  def draw(log_thickness):
    params = start | {'log_thickness': log_thickness}
    drawn = model.apply({'params': params}, found, SIDE, method='draw')
    return drawn.sum(), drawn

  (_, drawn), slope = jax.jit(jax.value_and_grad(draw, has_aux=True))(np.log(thickness))
  senders, receivers = geometry.node_pairs(NUM)
  distance_sq = geometry.segment_distance_sq(
    geometry.pixel_centres(SIDE, SIDE)[:, :, None],
    *(
      np.broadcast_to(nodes[0, k], (SIDE, SIDE, PAIRS, 2)) for k in (senders, receivers)
    ),
  )
  distance_sq = np.asarray(distance_sq)
  expected = np.exp(-distance_sq / thickness**2)
  np.testing.assert_allclose(drawn[0, ..., 0], expected.max(-1), atol=1e-5)
  # Of each pixel the one edge that wins: d/d log s of exp(-d^2 / s^2).
  wins = expected == expected.max(-1, keepdims=True)
  by_hand = (wins * expected * 2 * distance_sq / thickness**2).sum((0, 1))
  np.testing.assert_allclose(slope, by_hand, rtol=1e-3, atol=1e-4)


def test_an_absent_keypoint_takes_its_lines_with_it():
  weights = np.ones((2, PAIRS), np.float32)
  presence = np.array([[1, 1, 0, 1], [1, 0.5, 1, 1]], np.float32)
  _, drawn = find_and_draw(options(), dict(weights=weights, presence=presence))
  without = weights.copy()
  # Pairs 01, 02, 03, 12, 13, 23.
  without[0, [1, 3, 5]] = 0
  without[1, [0, 3, 4]] = 0.5
  whole = dict(weights=without, presence=np.ones((2, NUM), np.float32))
  _, expected = find_and_draw(options(), whole)
  np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_a_link_of_an_absent_keypoint_is_as_improbable_as_it_is_dark(
  batch, monkeypatch
):
  method, variables = started()
  weights = np.array([[5, 1, 1, 1, 1, 1]], np.float32)  # Pairs 01, 02, 03, 12, 13, 23.
  presence = np.array([[1, 0.1, 1, 1]], np.float32)
  nodes = np.zeros((1, NUM, 2), np.float32)
  monkeypatch.setattr(
    autolink.AutoLink, 'find', lambda *args: autolink.Found(nodes, weights, presence)
  )
  found = method.predict(variables, batch['image'][:1])
  expected = np.zeros((NUM, NUM))
  for a, b, p in (
    (0, 1, 0.5),
    (0, 2, 1),
    (0, 3, 1),
    (1, 2, 0.1),
    (1, 3, 0.1),
    (2, 3, 1),
  ):
    expected[a, b] = expected[b, a] = p
  np.testing.assert_allclose(found.edge_prob[0], expected, atol=1e-6)
  np.testing.assert_array_equal(found.node_prob, presence)
  kept = graph_lib.drop_absent(jax.tree.map(lambda x: np.asarray(x[0]), found), 0.5)
  assert kept.edge_prob.sum() == 6  # The triangle of those that are there.


def test_the_cost_of_links_is_of_what_is_drawn_relative_to_the_largest(
  batch, monkeypatch
):
  method = build(topology=dict(hidden=4, presence_bias=-1.0, cost=0.3))
  image = {'image': batch['image'][:1]}
  variables = variables_lib.random(method.init, image)
  variables['params']['alpha'] = np.float32(1)
  # Last layers start at 0: all keypoints are as present as the bias says.
  presence = variables['params']['topology']['presence']
  presence['kernel'] = np.zeros_like(presence['kernel'])
  graph = jax.jit(method.predict)(variables, image['image'])
  np.testing.assert_allclose(graph.node_prob, np.full((1, NUM), 1 / (1 + np.e)))

  nodes = np.linspace(-0.5, 0.5, 2 * NUM, dtype=np.float32).reshape(1, NUM, 2)
  weights = np.array([[5, 1, 1, 1, 1, 1]], np.float32)  # Pairs 01, 02, 03, 12, 13, 23.
  presence = np.array([[1, 0.1, 1, 1]], np.float32)
  monkeypatch.setattr(
    autolink.AutoLink, 'find', lambda *args: autolink.Found(nodes, weights, presence)
  )
  _, aux = jax.jit(method.loss)(variables, image, jax.random.key(0), 0)
  drawn = [0.5, 1, 1, 0.1, 0.1, 1]
  np.testing.assert_allclose(aux['metrics']['cost'], 0.3 * np.mean(drawn), rtol=1e-5)


def test_a_topology_is_switched_on_by_a_flag():
  flags = main.parse(
    [
      'main',
      '--config=configs/autolink.py:smoke',
      '--workdir=w',
      '--config.method.topology.enabled',
      '--config.method.loss.side=16',
    ]
  )
  method = flags.config.method
  assert method.topology.enabled and method.loss.side == 16
  assert not configs.get_config('smoke').method.topology.enabled


def test_the_papers_loss_asks_for_its_weights_when_it_is_first_used(batch, tmp_path):
  config = options()
  config['loss'] = dict(kind='perceptual', weights=str(tmp_path / 'vgg16.pth'), side=16)
  method = methods.build(train_steps=5, precision='float32', **config)
  _, variables = started()
  with pytest.raises(ValueError, match='vgg16.pth.*convert-vgg'):
    jax.eval_shape(method.loss, variables, batch, jax.random.key(0), 0)


def test_keypoints_that_stay_or_meet_have_their_price(batch):
  _, variables = started()
  key = jax.random.key(2)
  plain = build()
  method = build(
    equivariance=dict(weight=3.0, turn=0.0, zoom=1.0, shift=0.2),
    separation=dict(weight=2.0, distance=0.2),
  )
  _, aux = jax.device_get(jax.jit(method.loss)(variables, batch, key, 0))
  _, usual = jax.device_get(jax.jit(plain.loss)(variables, batch, key, 0))
  metrics = aux['metrics']
  assert not {'equivariance', 'separation'} & set(usual['metrics'])
  np.testing.assert_allclose(
    metrics['fallback'], usual['metrics']['fallback'], rtol=1e-5
  )
  added = 3 * metrics['equivariance'] + 2 * metrics['separation']
  np.testing.assert_allclose(metrics['loss'], metrics['fallback'] + added, rtol=1e-6)
  # Statistics are of the images as they are.
  chex.assert_trees_all_close(aux['collections'], usual['collections'])

  model = autolink.build_model(precision='float32', **of_model(options()))

  @jax.jit
  def find(images):
    found, _ = model.apply(
      variables, images, True, method='find', mutable=['batch_stats']
    )
    return found.nodes

  # Shifts have a key of their own.
  matrix, offset = affine_maps.sample(jax.random.fold_in(key, 1), 2, shift=0.2)
  nodes = np.asarray(find(batch['image']))
  moved = find(affine_maps.move_images(batch['image'], matrix, offset))
  wanted = nodes + offset[:, None]
  assert np.abs(wanted).max() < 1
  apart = np.linalg.norm(moved - wanted, axis=-1) / 2
  np.testing.assert_allclose(metrics['equivariance'], apart.mean(), atol=1e-3)
  assert apart.mean() > 0.05
  close = [
    np.exp(-np.sum(((a - b) / 2) ** 2) / (2 * 0.2**2))
    for of_image in nodes
    for i, a in enumerate(of_image)
    for b in of_image[:i]
  ]
  assert len(close) == 2 * PAIRS
  np.testing.assert_allclose(metrics['separation'], np.mean(close), rtol=1e-3)


def test_keypoints_that_leave_the_image_have_no_price(batch):
  _, variables = started()
  away = dict(weight=1.0, turn=0.0, zoom=(40.0, 50.0), shift=0.0)
  method = build(equivariance=away)
  _, aux = jax.jit(method.loss)(variables, batch, jax.random.key(0), 0)
  assert aux['metrics']['equivariance'] == 0


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'grid': 'pixels'}, 'method.grid must be one of'),
    ({'detector.down': (0, 8)}, r'detector.down\[0\] must be at least 1; got 0'),
    ({'detector.up': 8}, 'method.detector.up must be several numbers; got 8'),
    ({'inpainter.features': (8, 8.5)}, r'features\[1\] must be a whole number'),
    ({'loss.widths': (4, -4)}, r'loss.widths\[1\] must be at least 1; got -4'),
    ({'renderer.map': 'curves'}, 'method.renderer.map must be one of'),
    ({'renderer.sigma_sq': 0.0}, 'sigma_sq must be above 0'),
    ({'num_keypoints': 1}, 'num_keypoints must be a whole number from 2; got 1'),
    ({'num_keypoints': 4.5}, 'num_keypoints must be a whole number from 2; got 4.5'),
    ({'edges.rate': 0}, 'edges.rate must be above 0; got 0'),
    ({'mask.blocks': 2.5}, 'mask.blocks must be a whole number from 1 to the side, 16'),
    ({'mask.blocks': 17}, 'mask.blocks must be a whole number from 1 to the side, 16'),
    ({'inpainter.features': ()}, 'features at one size at least'),
    ({'topology': {'cost': -1}}, 'topology.cost must not be negative; got -1'),
    ({'topology': {'hidden': 0}}, 'topology.hidden must be a positive whole number'),
    ({'topology': {'hiden': 8}}, "method.topology has no option 'hiden'; it has enab"),
    ({'renderer': {'thicknes': 'each'}}, "method.renderer has no option 'thicknes'"),
    ({'edges': {'rate': 1.0}}, 'method.edges lacks start'),
    ({'mask': {'ratoi': 0.5}}, "method.mask has no option 'ratoi'"),
    ({'equivariance.weight': -1.0}, 'equivariance.weight must not be negative'),
    ({'equivariance': {'weight': 1.0}}, 'equivariance needs a turn, a zoom or a shift'),
    ({'equivariance': {'weight': 1, 'turn': 200}}, 'turn must be at most 180'),
    ({'equivariance': {'wight': 1}}, "method.equivariance has no option 'wight'"),
    ({'separation.weight': -1.0}, 'separation.weight must not be negative; got -1'),
    ({'separation.distance': 0.0}, 'separation.distance must be above 0; got 0'),
    ({'separation': {'wight': 1}}, "method.separation has no option 'wight'"),
    ({'side': 18}, 'multiple of 4; got 18'),
    ({'mask.ratio': 1.5}, 'mask.ratio must be'),
    ({'loss.kind': 'guess'}, 'method.loss.kind must be'),
    ({'loss.features': -1.0}, 'method.loss.features must be at least 0; got -1'),
    ({'loss.side': -1}, 'method.loss.side must be at least 0; got -1'),
    ({'loss.side': 2.5}, 'method.loss.side must be a whole number; got 2.5'),
    ({'loss.pyramid': np.nan}, 'method.loss.pyramid must be a number; got nan'),
    ({'loss.scales': 0}, 'method.loss.scales must be at least 1; got 0'),
    ({'edges.start': np.nan}, 'method.edges.start must be a number; got nan'),
    ({'topology': {'presence_bias': np.inf}}, 'presence_bias must be a number'),
  ],
)
def test_wrong_options_are_refused_in_one_sentence(changes, words):
  with pytest.raises(ValueError, match=words):
    build(**changes)


@pytest.mark.parametrize('kind', ['perceptual', 'fallback'])
def test_features_are_seen_at_the_side_of_the_images_for_0(kind, batch, monkeypatch):
  params = perceptual.random_features(0, (3,))
  monkeypatch.setattr(perceptual, 'load', lambda path: params)
  rest = dict(seed=0, widths=(3,), features=1.0, pyramid=0.0, scales=1)
  rest = {'weights': 'vgg16.npz'} if kind == 'perceptual' else rest
  images = batch['image']
  expected = perceptual.perceptual_loss(params, images, 1 - images, side=None)
  for side in (0, None):
    loss_fn = autolink.LOSSES[kind](side=side, **rest)
    found, _ = loss_fn(images, 1 - images)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_drawings_in_grey_are_refused():
  method = build()
  with pytest.raises(
    ValueError, match=r'square images in colour.*got \(1, 16, 16, 1\)'
  ):
    jax.eval_shape(method.init, jax.random.key(0), {'image': jnp.zeros((1, 16, 16, 1))})
