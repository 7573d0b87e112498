import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.encoding import roi_edges
from tests import compiled


def _patches(seed, shape=(2, 3, 16, 16, 1)):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def test_layers_are_those_of_the_paper():
  model = roi_edges.RoiEdgeClassifier(hidden=24)
  variables = jax.eval_shape(
    lambda key: model.init(key, _patches(0), train=True), jax.random.key(0)
  )
  shapes = jax.tree.map(jnp.shape, variables['params'])
  assert shapes['conv0']['kernel'] == (3, 3, 1, 32)
  assert shapes['conv1']['kernel'] == (3, 3, 32, 16)
  # 16 x 16 patches are pooled twice: 4 x 4 cells of 16 channels.
  assert shapes['hidden']['kernel'] == (4 * 4 * 16, 24)
  assert shapes['logit']['kernel'] == (24, 1)
  assert set(variables['batch_stats']) == {'norm0', 'norm1'}


def test_probabilities_are_the_sigmoid_of_the_logits():
  model = roi_edges.RoiEdgeClassifier()
  patches = _patches(1)
  variables = compiled.init(model, patches, train=False)
  logits, probs = compiled.apply(model, variables, patches, train=False)
  chex.assert_shape((logits, probs), (2, 3))
  np.testing.assert_allclose(probs, 1 / (1 + np.exp(-np.asarray(logits))), rtol=1e-5)


def test_every_patch_is_classified_alone_at_prediction():
  model = roi_edges.RoiEdgeClassifier()
  patches = _patches(2)
  variables = compiled.init(model, patches, train=False)
  logits, _ = compiled.apply(model, variables, patches, train=False)
  for b in range(2):
    for p in range(3):
      alone, _ = compiled.apply(
        model, variables, patches[b : b + 1, p : p + 1], train=False
      )
      np.testing.assert_allclose(alone[0, 0], logits[b, p], atol=1e-5)


def test_statistics_of_training_are_over_all_patches():
  model = roi_edges.RoiEdgeClassifier(momentum=0.0)
  patches = _patches(3)
  variables = compiled.init(model, patches, train=True)
  (logits, _), updated = compiled.apply(
    model, variables, patches, train=True, mutable='batch_stats'
  )
  kernel = variables['params']['conv0']['kernel']
  first = jax.lax.conv_general_dilated(
    patches.reshape(6, 16, 16, 1),
    kernel,
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  stats = updated['batch_stats']['norm0']
  np.testing.assert_allclose(stats['mean'], first.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(stats['var'], first.var((0, 1, 2)), atol=1e-5)
  # The same patches in another layout and order give the same logits.
  order = np.array([4, 0, 5, 1, 3, 2])
  (shuffled, _), _ = compiled.apply(
    model,
    variables,
    patches.reshape(1, 6, 16, 16, 1)[:, order],
    train=True,
    mutable='batch_stats',
  )
  np.testing.assert_allclose(shuffled[0], logits.reshape(6)[order], atol=1e-4)


def test_blank_patches_have_finite_gradients():
  model = roi_edges.RoiEdgeClassifier()
  patches = np.zeros((1, 2, 16, 16, 1), np.float32)
  variables = compiled.init(model, patches, train=True)

  def loss(params):
    (logits, _), _ = model.apply(
      {**variables, 'params': params}, patches, train=True, mutable='batch_stats'
    )
    return jnp.sum(logits**2)

  chex.assert_tree_all_finite(compiled.grad(loss, variables['params']))


def test_bfloat16_activations_keep_float32_parameters_and_logits():
  model = roi_edges.RoiEdgeClassifier(dtype=jnp.bfloat16)
  variables = compiled.init(model, _patches(4), train=False)
  outputs = compiled.apply(model, variables, _patches(4), train=False)
  for leaf in jax.tree.leaves((variables, outputs)):
    assert leaf.dtype == jnp.float32


def test_patches_too_small_for_two_poolings_are_refused():
  with pytest.raises(ValueError, match='at least 4'):
    roi_edges.RoiEdgeClassifier().init(
      jax.random.key(0), _patches(5, (1, 1, 3, 8, 1)), train=False
    )
