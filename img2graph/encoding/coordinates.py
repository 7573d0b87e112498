"""Heat-maps to coordinates: 2-D softmax and the spatial to numerical transform (DSNT).

Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks"
(arXiv 1801.07372): a normalised map is a distribution over its cells, and the
coordinates are its mean. Their template (2j - (n + 1))/n, j = 1..n, is exactly the
grid of cell centres of `img2graph.geometry`: (x, y) in [-1, 1], -1 and 1 the outer
edges. Coordinates need more than bfloat16's 8 bits: everything here is float32.
"""

import jax
import jax.numpy as jnp
import numpy as np


def spatial_softmax(logits):
  """Softmax over the cells of each map.

  Args:
    logits: `[..., H, W, N]` float.

  Returns:
    `[..., H, W, N]` float32 > 0; the cells of each map sum to 1.
  """
  _check_maps(logits)
  return jax.nn.softmax(logits.astype(jnp.float32), axis=(-3, -2))


def dsnt(probs):
  """Mean position of each map.

  Args:
    probs: `[..., H, W, N]` float >= 0; the cells of each map must sum to 1.

  Returns:
    `[..., N, 2]` float32, (x, y), between the centres of the first and last cells.
  """
  _check_maps(probs)
  probs = probs.astype(jnp.float32)
  # Sums of products and not matrix products: those may be rounded to bfloat16.
  x = (probs.sum(-3) * _cell_centres(probs.shape[-2], probs.ndim - 1)).sum(-2)
  y = (probs.sum(-2) * _cell_centres(probs.shape[-3], probs.ndim - 1)).sum(-2)
  return jnp.stack([x, y], axis=-1)


def peak_normalize(probs):
  """Scales each map so that its largest cell is 1: the M_att of the paper's eq. 5.

  Args:
    probs: `[..., H, W, N]` float >= 0, each map with a cell > 0, as a softmax has.

  Returns:
    `[..., H, W, N]` float32 in [0, 1]. The gradient passes through the maximum too,
    so it is free of the maps' scale.
  """
  _check_maps(probs)
  probs = probs.astype(jnp.float32)
  return probs / probs.max(axis=(-3, -2), keepdims=True)


def _cell_centres(size, ndim):
  """Centres of `size` cells in [-1, 1], float32, shaped `[1, ..., size, 1]`."""
  centres = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
  return centres.reshape((1,) * (ndim - 2) + (size, 1))


def _check_maps(maps):
  if maps.ndim < 3:
    raise ValueError(f'maps must be [..., H, W, N]; got {maps.shape}.')
