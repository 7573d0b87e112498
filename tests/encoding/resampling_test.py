"""Resampling against interpolation by SciPy."""

import jax
import numpy as np
import pytest
import scipy.ndimage

from img2graph.encoding import resampling


def interpolate(x, height, width):
  """Bilinear between pixel centres, the border's values beyond: `[B, H, W, C]`."""
  rows = (np.arange(height) + 0.5) * x.shape[1] / height - 0.5
  columns = (np.arange(width) + 0.5) * x.shape[2] / width - 0.5
  grid = np.meshgrid(rows, columns, indexing='ij')
  return np.stack(
    [
      np.stack(
        [
          scipy.ndimage.map_coordinates(x[b, ..., c], grid, order=1, mode='nearest')
          for c in range(x.shape[3])
        ],
        axis=-1,
      )
      for b in range(len(x))
    ]
  )


@pytest.mark.parametrize(
  'function, factor', [(resampling.double, 2), (resampling.halve, 0.5)]
)
def test_doubling_and_halving_are_bilinear(function, factor):
  x = np.random.default_rng(0).random((2, 6, 8, 3), np.float32)
  found = jax.jit(function)(x)
  np.testing.assert_allclose(
    found, interpolate(x, int(6 * factor), int(8 * factor)), atol=1e-6
  )


@pytest.mark.parametrize('side', [9, 16, 5])
def test_resizing_is_bilinear_without_antialiasing(side):
  x = np.random.default_rng(1).random((1, 9, 9, 2), np.float32)
  found = resampling.resize(x, side)
  np.testing.assert_allclose(found, interpolate(x, side, side), atol=1e-6)


def test_odd_sides_are_not_halved():
  with pytest.raises(ValueError, match='even sides; got 3 x 4'):
    resampling.halve(np.zeros((1, 3, 4, 1), np.float32))
