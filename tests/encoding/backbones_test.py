import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from img2graph.encoding import backbones

# The paper's structure with an eighth of its channels: the tests compile on a CPU.
SMALL = dict(
  stem_features=8, stem_kernel=3, block_features=(16, 8), block_depths=(2, 1)
)


def _images(seed, batch, height=8, width=8):
  return np.random.default_rng(seed).uniform(size=(batch, height, width, 1)).astype('f')


# Compiled as a whole: layer by layer, as in eager mode, takes much longer.
_init = jax.jit(
  lambda model, images: model.init(jax.random.key(0), images, train=True),
  static_argnums=0,
)
_predict = jax.jit(
  lambda model, variables, images: model.apply(variables, images, train=False),
  static_argnums=0,
)


def _train(model, variables, images):
  return model.apply(variables, images, train=True, mutable=['batch_stats'])


_train_alone = jax.jit(_train, static_argnums=0)


def test_default_is_the_papers_network():
  model = backbones.PaperBackbone(num_maps=4)
  images = jax.ShapeDtypeStruct((2, 128, 128, 1), jnp.float32)
  variables = jax.eval_shape(
    lambda key, images: model.init(key, images, train=True), jax.random.key(0), images
  )
  logits = jax.eval_shape(
    lambda v, i: model.apply(v, i, train=False), variables, images
  )
  assert logits.shape == (2, 32, 32, 4)
  params = variables['params']
  blocks = {name: params[name] for name in params if name.startswith('block')}
  # ResNet-50 has three bottlenecks in its first block and four in its second.
  assert sorted(blocks) == [f'block0_{i}' for i in range(3)] + [
    f'block1_{i}' for i in range(4)
  ]
  expand = {name: b['expand_conv']['kernel'].shape for name, b in blocks.items()}
  assert expand['block0_2'] == (1, 1, 32, 128)
  assert expand['block1_3'] == (1, 1, 16, 64)
  assert all('bias' not in b['expand_conv'] for b in blocks.values())
  assert params['stem_conv']['kernel'].shape == (7, 7, 1, 64)


def test_network_matches_numpy_layer_by_layer():
  model = backbones.PaperBackbone(num_maps=2, **SMALL)
  images = _images(0, 8)
  variables = _init(model, images)
  # Running averages and scales that are not 0 and 1, so that they count.
  leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, variables))
  rng = np.random.default_rng(1)
  leaves = [
    leaf + 0.3 * np.abs(rng.normal(size=leaf.shape)) if leaf.ndim == 1 else leaf
    for leaf in leaves
  ]
  variables = jax.tree.unflatten(tree, leaves)
  params, stats = variables['params'], variables['batch_stats']

  def conv(x, kernel):
    kernel = np.asarray(kernel, np.float64)
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum('bhwcij,ijco->bhwo', windows, kernel)

  def norm(x, params, stats):
    x = (x - stats['mean']) / np.sqrt(np.asarray(stats['var'], np.float64) + 1e-5)
    return x * params['scale'] + params['bias']

  def pool(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

  def layer(x, params, stats, name):
    x = conv(x, params[f'{name}_conv']['kernel'])
    return norm(x, params[f'{name}_norm'], stats[f'{name}_norm'])

  x = np.maximum(layer(images.astype(np.float64), params, stats, 'stem'), 0)
  for names in (['block0_0', 'block0_1'], ['block1_0']):
    x = pool(x)
    for name in names:
      y = np.maximum(layer(x, params[name], stats[name], 'reduce'), 0)
      y = np.maximum(layer(y, params[name], stats[name], 'spatial'), 0)
      y = layer(y, params[name], stats[name], 'expand')
      if 'shortcut_conv' in params[name]:
        x = layer(x, params[name], stats[name], 'shortcut')
      x = np.maximum(x + y, 0)
  x = conv(x, params['head_hidden']['kernel']) + params['head_hidden']['bias']
  x = (
    conv(np.maximum(x, 0), params['head_maps']['kernel']) + params['head_maps']['bias']
  )

  actual = _predict(model, variables, images)
  chex.assert_shape(actual, (8, 2, 2, 2))
  np.testing.assert_allclose(actual, x, rtol=1e-3, atol=1e-4 * np.abs(x).max())


def test_training_updates_the_statistics_and_prediction_does_not_mix_images():
  model = backbones.PaperBackbone(num_maps=2, **SMALL)
  images = _images(2, 8)
  variables = _init(model, images)
  _, updated = _train_alone(model, variables, images)
  change = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    variables['batch_stats'],
    updated['batch_stats'],
  )
  assert min(jax.tree.leaves(change)) > 0
  together = _predict(model, variables, images)
  # The other images differ now, and the second one's maps must not.
  others = images[[5, 1, 0, 0, 7, 7, 2, 2]]
  np.testing.assert_allclose(_predict(model, variables, others)[1], together[1])


def test_four_devices_have_the_statistics_and_gradients_of_one():
  model = backbones.PaperBackbone(num_maps=2, **SMALL)
  # Parts that differ, so that statistics of a part are not those of the batch.
  images = _images(3, 8) * np.linspace(0.1, 1, 8, dtype='f').reshape(8, 1, 1, 1)
  variables = _init(model, images)

  def loss(params, stats, images):
    logits, updated = _train(model, {'params': params, 'batch_stats': stats}, images)
    return jnp.mean(logits**2), (updated['batch_stats'], logits)

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  expected = step(variables['params'], variables['batch_stats'], images)
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  replicated, sharded = NamedSharding(mesh, P()), NamedSharding(mesh, P('data'))
  variables = jax.device_put(variables, replicated)
  actual = step(
    variables['params'], variables['batch_stats'], jax.device_put(images, sharded)
  )
  chex.assert_trees_all_close(actual, expected, rtol=2e-3, atol=2e-5)


def test_bfloat16_activations_keep_float32_parameters_statistics_and_logits():
  reference_model = backbones.PaperBackbone(num_maps=2, **SMALL)
  model = reference_model.clone(dtype=jnp.bfloat16)
  images = _images(4, 8)
  initial = jax.eval_shape(lambda images: _init(model, images), images)
  variables = _init(reference_model, images)
  logits, updated = _train_alone(model, variables, images)
  for leaf in jax.tree.leaves((initial, updated, logits)):
    assert leaf.dtype == jnp.float32
  reference, _ = _train_alone(reference_model, variables, images)
  assert 0 < np.abs(logits - reference).max() < 0.1 * np.abs(reference).max()
  # They are not rounded themselves: places would jump by pixels.
  rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
  assert (rounded != logits).mean() > 0.5


def test_images_that_two_poolings_do_not_divide_are_refused():
  model = backbones.PaperBackbone(num_maps=2, **SMALL)
  with pytest.raises(ValueError, match='multiples of 4'):
    model.init(jax.random.key(0), _images(5, 1, 16, 18), train=False)


def test_parameter_names_do_not_depend_on_the_batch():
  model = backbones.PaperBackbone(num_maps=2, **SMALL)
  trees = [
    flax.traverse_util.flatten_dict(
      jax.eval_shape(
        lambda key, batch=batch: model.init(key, _images(6, batch), train=True),
        jax.random.key(0),
      )
    )
    for batch in (1, 3)
  ]
  assert trees[0].keys() == trees[1].keys()
