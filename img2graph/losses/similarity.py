"""Structural similarity of two images: SSIM and multi-scale SSIM.

SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
Similarity" (2004). At every position of an 11 x 11 Gaussian window,
  luminance = (2 m_a m_b + c1) / (m_a^2 + m_b^2 + c1)
  contrast-structure = (2 cov_ab + c2) / (var_a + var_b + c2)
with weighted means, variances and covariance, c = (k * data_range)^2; SSIM is the mean
of their product. MS-SSIM: Wang, Simoncelli and Bovik, "Multi-Scale Structural
Similarity for Image Quality Assessment" (2003): the mean contrast-structure of each
scale, and the SSIM of the coarsest, each to the power of its weight, multiplied;
a scale is the 2 x 2 mean of the one before. (Luminance is averaged together with
contrast-structure, as all common implementations do.)

1 means equal images: a loss is 1 minus the similarity. Everything is float32.

Small images: five scales with a window of 11 need 176 pixels, and the sides here are
64 and 128. At a scale whose side is smaller than the window, the window is cut to that
side (a window of 8 with the same sigma for the 8 x 8 pixels which 128 x 128 ends in),
as PyTorch implementations of MS-SSIM do. 'valid' windows then see little of the border
at the coarse scales: one window with sigma 1.5 on 8 x 8 pixels is all there is.
`padding='same'` also places windows that reach over the border, and weighs the pixels
inside only, so that every pixel counts at every scale.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Exponents of the five scales, finest first (Wang et al., 2003, section 3.2).
WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# The coarsest scale needs some structure: a single pixel has no variance.
_MIN_SIDE = 2


def ssim(
  a,
  b,
  *,
  window_size=11,
  sigma=1.5,
  data_range=1.0,
  k1=0.01,
  k2=0.03,
  padding='valid',
):
  """Structural similarity of each pair of images.

  Args:
    a: `[B, H, W, C]` float, H and W at least 2.
    b: `[B, H, W, C]` float.
    window_size: side of the window in pixels, cut to the image's where it is larger.
    sigma: standard deviation of the window in pixels.
    data_range: largest minus smallest possible value.
    k1: > 0, stabilises the luminance where both images are near 0.
    k2: > 0, stabilises the contrast where both images are flat.
    padding: 'valid' (windows inside the image) or 'same' (one window per pixel).

  Returns:
    `[B]` float32 in [-1, 1], mean over windows and channels; 1 for equal images.
  """
  a, b = _check_images(a, b, window_size, padding)
  luminance, structure = _compare(
    a, b, window_size, sigma, (k1 * data_range) ** 2, (k2 * data_range) ** 2, padding
  )
  return (luminance * structure).mean((1, 2, 3))


def ms_ssim(
  a,
  b,
  *,
  weights=WANG_WEIGHTS,
  window_size=11,
  sigma=1.5,
  data_range=1.0,
  k1=0.01,
  k2=0.03,
  padding='valid',
  floor=1e-4,
):
  """Multi-scale structural similarity of each pair of images.

  Args:
    a: `[B, H, W, C]` float, H and W at least 2 * 2^(scales - 1), for five scales 32.
      An odd last row or column does not reach the next scale.
    b: `[B, H, W, C]` float.
    weights: exponent of each scale, finest first; their number is that of the scales.
    window_size: side of the window in pixels, cut to the side of a smaller scale.
    sigma: standard deviation of the window in pixels, the same at each scale.
    data_range: largest minus smallest possible value.
    k1: > 0, stabilises the luminance where both images are near 0.
    k2: > 0, stabilises the contrast where both images are flat.
    padding: 'valid' (windows inside the image) or 'same' (one window per pixel).
    floor: the mean of a scale, which may be negative, is raised to this. Powers below
      1 have an infinite slope at 0; below the floor a scale has no gradient.

  Returns:
    `[B]` float32 in (0, 1], mean over channels; 1 for equal images.
  """
  a, b = _check_images(a, b, window_size, padding)
  side = min(a.shape[1:3])
  if not weights or side < _MIN_SIDE * 2 ** (len(weights) - 1):
    raise ValueError(
      f'MS-SSIM with {len(weights)} scales needs at least one scale and images of at'
      f' least {_MIN_SIDE * 2 ** max(len(weights) - 1, 0)} pixels a side; got {side}:'
      ' give fewer weights.'
    )
  if floor <= 0:
    raise ValueError(f'floor must be positive, for finite gradients; got {floor}.')
  c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
  result = 1.0
  for scale, weight in enumerate(weights):
    luminance, structure = _compare(a, b, window_size, sigma, c1, c2, padding)
    if scale == len(weights) - 1:
      structure = luminance * structure
    else:
      a, b = _halve(a), _halve(b)
    result = result * jnp.maximum(structure.mean((1, 2)), floor) ** weight
  return result.mean(-1)


def _compare(a, b, window_size, sigma, c1, c2, padding):
  """Luminance and contrast-structure of every window, `[B, H', W', C]` each."""
  rows = _window_matrix(a.shape[1], window_size, sigma, padding)
  columns = _window_matrix(a.shape[2], window_size, sigma, padding)

  def mean(x):
    # A product with a banded matrix per axis: on a CPU it takes a thirtieth of the time
    # of XLA's convolution of one channel, and shifted sums lose it in the gradient. The
    # precision matters: variances are differences of almost equal numbers.
    x = jnp.einsum('ih,bhwc->biwc', rows, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum('jw,biwc->bijc', columns, x, precision=jax.lax.Precision.HIGHEST)

  mean_a, mean_b = mean(a), mean(b)
  # Only the sum of the two variances is needed: one filtering less.
  squares = mean_a**2 + mean_b**2
  variances = mean(a**2 + b**2) - squares
  product = mean_a * mean_b
  luminance = (2 * product + c1) / (squares + c1)
  structure = (2 * (mean(a * b) - product) + c2) / (variances + c2)
  return luminance, structure


def _window_matrix(length, window_size, sigma, padding):
  """Weights `[windows, length]` float32 numpy of a 1-D Gaussian; each row sums to 1."""
  size = min(window_size, length)
  if padding == 'valid':
    centres = np.arange(length - size + 1) + (size - 1) / 2
  else:
    centres = np.arange(length)
  offsets = np.arange(length) - centres[:, None]
  weights = np.exp(-(offsets**2) / (2 * sigma**2)) * (abs(offsets) <= (size - 1) / 2)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _halve(x):
  """Means of 2 x 2 pixels, `[B, H, W, C]` to `[B, H//2, W//2, C]`."""
  batch, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _check_images(a, b, window_size, padding):
  if a.ndim != 4 or a.shape != b.shape or min(a.shape[1:3]) < _MIN_SIDE:
    raise ValueError(
      'images must both be [B, H, W, C] with at least 2 pixels a side;'
      f' got {a.shape} and {b.shape}.'
    )
  if window_size < 1:
    raise ValueError(f'window_size must be positive; got {window_size}.')
  if padding not in ('valid', 'same'):
    raise ValueError(f"padding must be 'valid' or 'same'; got {padding!r}.")
  return a.astype(jnp.float32), b.astype(jnp.float32)
