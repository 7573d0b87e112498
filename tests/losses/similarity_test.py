import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import skimage.metrics

from img2graph.losses import similarity


def _pair(seed, shape, noise=0.2):
  rng = np.random.default_rng(seed)
  a = rng.uniform(size=shape)
  b = np.clip(a + noise * rng.normal(size=shape), 0, 1)
  return a.astype(np.float32), b.astype(np.float32)


def _drawing(side, shift=0):
  """A thin frame and a diagonal on black: `[1, side, side, 1]`."""
  image = np.zeros((side, side), np.float32)
  low, high = side // 4 + shift, 3 * side // 4 + shift
  image[low:high, [low, high]] = 1
  image[np.arange(low, high), np.arange(low, high)] = 1
  return image[None, :, :, None]


@pytest.mark.parametrize('shape', [(3, 24, 31, 1), (1, 11, 40, 1)])
def test_ssim_matches_scikit_image(shape):
  a, b = _pair(0, shape)
  actual = jax.jit(similarity.ssim)(a, b)
  for i in range(shape[0]):
    expected = skimage.metrics.structural_similarity(
      a[i, :, :, 0],
      b[i, :, :, 0],
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      data_range=1.0,
    )
    assert actual[i] == pytest.approx(expected, abs=1e-4)


def test_ssim_matches_scikit_image_for_other_ranges_and_channels():
  a, b = _pair(1, (1, 20, 20, 3))
  actual = similarity.ssim(255 * a, 255 * b, data_range=255.0, k1=0.02, k2=0.05)
  expected = skimage.metrics.structural_similarity(
    255 * a[0],
    255 * b[0],
    gaussian_weights=True,
    use_sample_covariance=False,
    data_range=255.0,
    K1=0.02,
    K2=0.05,
    channel_axis=-1,
  )
  assert actual[0] == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_one_scale_is_ssim_with_the_same_options():
  a, b = _pair(1, (2, 20, 20, 1))
  scaled = (255 * a, 255 * b)
  options = dict(data_range=255.0, k1=0.02, k2=0.05, window_size=7, sigma=1.2)
  for padding in ('valid', 'same'):
    actual = similarity.ms_ssim(*scaled, weights=(1.0,), padding=padding, **options)
    expected = similarity.ssim(*scaled, padding=padding, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def _numpy_ms_ssim(a, b, weights, window_size=11, sigma=1.5, floor=1e-4):
  """MS-SSIM of two [H, W] images in float64, by dense 2-D convolutions."""
  a, b = a.astype(np.float64), b.astype(np.float64)
  c1, c2 = 0.01**2, 0.03**2
  result = 1.0
  for scale, weight in enumerate(weights):
    axes = []
    for side in a.shape:
      size = min(window_size, side)
      x = np.arange(size) - (size - 1) / 2
      axes.append(np.exp(-(x**2) / (2 * sigma**2)))
    window = np.outer(*axes)
    window /= window.sum()

    def mean(x, window=window):
      return scipy.signal.convolve2d(x, window, mode='valid')

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    cov = mean(a * b) - mean_a * mean_b
    value = (2 * cov + c2) / (var_a + var_b + c2)
    if scale == len(weights) - 1:
      value = value * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    result *= max(value.mean(), floor) ** weight
    a, b = (
      scipy.signal.convolve2d(x, np.full((2, 2), 0.25), mode='valid')[::2, ::2]
      for x in (a, b)
    )
  return result


@pytest.mark.parametrize(
  ('shape', 'scales'), [((2, 176, 180, 1), 5), ((2, 64, 64, 1), 5), ((2, 51, 38, 1), 3)]
)
def test_ms_ssim_matches_numpy(shape, scales):
  a, b = _pair(2, shape, noise=0.4)
  weights = similarity.WANG_WEIGHTS[:scales]
  actual = jax.jit(lambda a, b: similarity.ms_ssim(a, b, weights=weights))(a, b)
  for i in range(shape[0]):
    expected = _numpy_ms_ssim(a[i, :, :, 0], b[i, :, :, 0], weights)
    assert actual[i] == pytest.approx(expected, abs=1e-5)


def test_same_padding_weighs_only_pixels_inside():
  a, b = _pair(3, (1, 12, 9, 1))
  actual = similarity.ssim(a, b, window_size=5, sigma=1.0, padding='same')
  a, b = a[0, :, :, 0].astype(np.float64), b[0, :, :, 0].astype(np.float64)
  values = []
  for row in range(12):
    for column in range(9):
      rows = np.arange(max(row - 2, 0), min(row + 3, 12))
      columns = np.arange(max(column - 2, 0), min(column + 3, 9))
      weights = np.exp(-((rows - row) ** 2)[:, None] / 2 - (columns - column) ** 2 / 2)
      weights /= weights.sum()
      x, y = a[np.ix_(rows, columns)], b[np.ix_(rows, columns)]
      mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
      var = (weights * ((x - mean_x) ** 2 + (y - mean_y) ** 2)).sum()
      cov = (weights * (x - mean_x) * (y - mean_y)).sum()
      luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
      values.append(luminance * (2 * cov + 9e-4) / (var + 9e-4))
  assert actual[0] == pytest.approx(np.mean(values), abs=1e-4)


@pytest.mark.parametrize('padding', ['valid', 'same'])
def test_ms_ssim_is_one_for_equal_images_symmetric_and_falls_with_distance(padding):
  def f(a, b):
    return float(similarity.ms_ssim(a, b, padding=padding)[0])

  image = _drawing(64)
  assert f(image, image) == pytest.approx(1, abs=1e-5)
  shifts = [f(image, _drawing(64, shift)) for shift in (1, 3, 6)]
  assert 1 > shifts[0] > shifts[1] > shifts[2] > 0
  assert f(_drawing(64, 3), image) == pytest.approx(shifts[1], abs=1e-5)


def test_gradients_are_finite_at_equal_black_white_and_opposite_images():
  black, white = (
    np.zeros((1, 64, 64, 1), np.float32),
    np.ones((1, 64, 64, 1), np.float32),
  )
  drawing = _drawing(64)
  pairs = [
    (black, black),
    (white, white),
    (black, white),
    (drawing, drawing),
    (drawing, 1 - drawing),
    (black, drawing),
  ]
  a = np.concatenate([a for a, _ in pairs])
  b = np.concatenate([b for _, b in pairs])

  @jax.jit
  def f(a, b):
    return (similarity.ms_ssim(a, b) + similarity.ssim(a, b)).sum()

  value, gradient = jax.value_and_grad(f, argnums=(0, 1))(a, b)
  chex.assert_tree_all_finite((value, gradient))
  # Black against a drawing must be told what to draw.
  assert np.abs(gradient[0][5]).max() > 0


def test_gradient_matches_differences():
  a, b = _pair(4, (1, 32, 32, 1))
  direction = np.random.default_rng(5).normal(size=a.shape).astype(np.float32)
  f = jax.jit(lambda b: similarity.ms_ssim(a, b)[0])
  expected = (f(b + 1e-2 * direction) - f(b - 1e-2 * direction)) / 2e-2
  actual = jnp.sum(jax.grad(f)(b) * direction)
  np.testing.assert_allclose(actual, expected, rtol=2e-2)


def test_each_image_is_compared_alone_and_in_float32():
  a, b = _pair(6, (3, 32, 32, 1))
  together = similarity.ms_ssim(a, b)
  chex.assert_shape(together, (3,))
  np.testing.assert_allclose(
    together[1:2], similarity.ms_ssim(a[1:2], b[1:2]), atol=1e-6
  )
  assert similarity.ssim(jnp.bfloat16(a), jnp.bfloat16(b)).dtype == jnp.float32


@pytest.mark.parametrize(
  ('side', 'options', 'message'),
  [
    (31, {}, 'at least 32 pixels'),
    (64, {'weights': ()}, 'at least one scale'),
    (64, {'padding': 'reflect'}, 'padding'),
    (64, {'window_size': 0}, 'window_size'),
    (64, {'floor': 0.0}, 'floor'),
  ],
)
def test_wrong_arguments_are_named(side, options, message):
  images = np.zeros((1, side, side, 1), np.float32)
  with pytest.raises(ValueError, match=message):
    similarity.ms_ssim(images, images, **options)


def test_images_of_different_shapes_are_refused():
  with pytest.raises(ValueError, match='B, H, W, C'):
    similarity.ssim(np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 9, 1)))
