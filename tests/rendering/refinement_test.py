import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from img2graph.rendering import refinement
from tests import compiled


def _drawing(seed, shape=(2, 9, 12, 1)):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def test_network_matches_scipy():
  model = refinement.RefinementNet(features=3)
  drawing = _drawing(0)
  variables = compiled.init(model, drawing)
  rng = np.random.default_rng(1)
  # Biases and slopes that differ from their first values, so that they count.
  variables = jax.tree.map(
    lambda x: x + 0.2 * rng.normal(size=x.shape).astype('f'), variables
  )
  params = variables['params']
  actual = compiled.apply(model, variables, drawing)
  chex.assert_shape(actual, (2, 9, 12, 1))
  for b in range(2):
    channels = [drawing[b, :, :, 0].astype(np.float64)]
    for layer in range(3):
      kernel = np.asarray(params[f'conv{layer}']['kernel'], np.float64)
      channels = [
        sum(
          scipy.signal.correlate2d(x, kernel[:, :, i, o], mode='same')
          for i, x in enumerate(channels)
        )
        + params[f'conv{layer}']['bias'][o]
        for o in range(kernel.shape[-1])
      ]
      if layer < 2:
        slope = float(params[f'prelu{layer}']['negative_slope'])
        channels = [np.where(x > 0, x, slope * x) for x in channels]
    np.testing.assert_allclose(actual[b, :, :, 0], channels[0], atol=1e-4)


@pytest.mark.parametrize(
  ('start', 'is_pointwise'), [('centred', True), ('random', False)]
)
def test_a_centred_start_keeps_every_pixel_in_its_place(start, is_pointwise):
  model = refinement.RefinementNet(features=4, start=start)
  dot = jnp.zeros((1, 9, 9, 1)).at[0, 3, 5, 0].set(1.0)
  found = compiled.apply(model, compiled.init(model, dot), dot)[0, :, :, 0]
  assert (found[3, 5] != 0).item()
  assert (not jnp.delete(found.ravel(), 3 * 9 + 5).any()) == is_pointwise


def test_an_identical_start_changes_nothing():
  model = refinement.RefinementNet(features=4, start='identity')
  drawing = _drawing(4)
  found = compiled.apply(model, compiled.init(model, drawing), drawing)
  np.testing.assert_allclose(found, drawing, atol=1e-6)


@pytest.mark.parametrize('start', ['centred', 'identity'])
def test_every_tap_of_the_last_layer_can_learn(start):
  model = refinement.RefinementNet(features=4, start=start)
  drawing = _drawing(3)
  variables = compiled.init(model, drawing)
  grads = compiled.grad(lambda v: (model.apply(v, drawing) ** 2).sum(), variables)
  assert (grads['params']['conv2']['kernel'] != 0).all()


def test_a_centred_start_lets_every_tap_learn():
  model = refinement.RefinementNet(features=4, start='centred')
  drawing = _drawing(3)
  variables = compiled.init(model, drawing)
  grads = compiled.grad(lambda v: (model.apply(v, drawing) ** 2).sum(), variables)
  for layer in range(3):
    assert (grads['params'][f'conv{layer}']['kernel'] != 0).all()


def test_default_width_is_the_papers():
  params = jax.eval_shape(
    lambda key: refinement.RefinementNet().init(key, _drawing(2)), jax.random.key(0)
  )['params']
  kernels = [params[f'conv{i}']['kernel'].shape for i in range(3)]
  assert kernels == [(3, 3, 1, 16), (3, 3, 16, 16), (3, 3, 16, 1)]


@pytest.mark.parametrize(
  ('output', 'expected'),
  [
    ('linear', lambda x: x),
    ('clip', lambda x: np.clip(x, 0, 1)),
    ('sigmoid', lambda x: 1 / (1 + np.exp(-x))),
  ],
)
def test_output_activation_is_applied_last(output, expected):
  drawing = 3 * _drawing(3)
  model = refinement.RefinementNet()
  variables = compiled.init(model, drawing, seed=1)
  linear = np.asarray(compiled.apply(model, variables, drawing))
  actual = compiled.apply(model.clone(output=output), variables, drawing)
  np.testing.assert_allclose(actual, expected(linear), atol=1e-5)


def test_empty_canvas_stays_empty_at_first_and_a_mark_reaches_three_pixels():
  drawing = np.zeros((1, 15, 15, 1), np.float32)
  model = refinement.RefinementNet()
  variables = compiled.init(model, drawing)
  np.testing.assert_array_equal(compiled.apply(model, variables, drawing), 0)
  drawing[0, 7, 7] = 1
  changed = np.asarray(compiled.apply(model, variables, drawing))[0, :, :, 0] != 0
  expected = np.zeros((15, 15), bool)
  expected[4:11, 4:11] = True
  np.testing.assert_array_equal(changed, expected)


def test_bfloat16_activations_keep_float32_parameters_and_image():
  model = refinement.RefinementNet(dtype=jnp.bfloat16)
  variables = compiled.init(model, _drawing(4))
  for leaf in jax.tree.leaves(
    (variables, compiled.apply(model, variables, _drawing(4)))
  ):
    assert leaf.dtype == jnp.float32


def test_unknown_output_is_named():
  with pytest.raises(ValueError, match="got 'tanh'"):
    refinement.RefinementNet(output='tanh').init(jax.random.key(0), _drawing(5))


def test_a_limited_network_cannot_amplify():
  drawing = 0.1 * _drawing(5)
  free, limited = (refinement.RefinementNet(limited=flag) for flag in (False, True))
  variables = compiled.init(free, drawing)
  # As training would, to make ink of a trace of it: all values four times as large.
  strong = jax.tree.map(lambda x: 4 * x, variables)
  inside = (slice(None), slice(3, -3), slice(3, -3))  # Beyond the border lies paper.
  amplified, kept = (
    compiled.apply(m, strong, drawing)[inside] for m in (free, limited)
  )
  assert jnp.ptp(amplified) > 2 * jnp.ptp(drawing)
  assert 0 < jnp.ptp(kept) <= jnp.ptp(drawing)


def test_a_limited_network_amplifies_no_negative_values_either():
  drawing = 0.1 * _drawing(5)
  model = refinement.RefinementNet(features=1, limited=True)
  variables = jax.tree.map(np.zeros_like, compiled.init(model, drawing))
  params = variables['params']
  # The drawing is turned over, and slopes are what training might have made of them.
  for layer, tap in enumerate((-1, 1, 1)):
    params[f'conv{layer}']['kernel'][1, 1] = tap
  for slope, expected in ((0.5, -drawing / 4), (5.0, -drawing), (-5.0, drawing)):
    for layer in range(2):
      params[f'prelu{layer}']['negative_slope'] = np.float32(slope)
    found = compiled.apply(model, variables, drawing)
    np.testing.assert_allclose(found, expected, atol=1e-6)
