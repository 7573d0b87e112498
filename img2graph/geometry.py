"""Coordinates, pixel grids, node pairs and the distance to a segment.

Positions are (x, y) in [-1, 1]: x grows right, y grows down, and -1 and 1 are the
outer edges of the image, not pixel centres. Pixel (row r, column c) of an H x W
image has its centre at (2(c + 0.5)/W - 1, 2(r + 0.5)/H - 1). A graph with N nodes
has N(N-1)/2 node pairs (i, j), i < j, in row-major order: (0,1), (0,2), ..., (N-2,N-1).

Letters in shapes: B batch, N nodes, E edges, P points or node pairs, H W image.
"""

import jax.numpy as jnp
import numpy as np


def pixel_centres(height, width):
  """Centres of all pixels: `[H, W, 2]` float32 numpy array of (x, y) in (-1, 1)."""
  if height < 1 or width < 1:
    raise ValueError(f'an image needs at least one pixel; got {height} x {width}.')
  x = (2 * np.arange(width) + 1) / width - 1
  y = (2 * np.arange(height) + 1) / height - 1
  return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)


def to_pixels(nodes, height, width):
  """Coordinates in [-1, 1] to pixels; (0, 0) is the outer corner of the first pixel.

  Args:
    nodes: `[..., 2]` float, (x, y) in [-1, 1].
    height: image height in pixels.
    width: image width in pixels.

  Returns:
    `[..., 2]` (x, y) in [0, W] x [0, H]; the first pixel's centre is (0.5, 0.5).
  """
  return (nodes + 1) / 2 * _last_axis(nodes, [width, height])


def from_pixels(nodes_px, height, width):
  """Inverse of `to_pixels`: `[..., 2]` pixels to coordinates in [-1, 1]."""
  return nodes_px / _last_axis(nodes_px, [width, height]) * 2 - 1


def _last_axis(like, values):
  """Values as `[1, ..., 1, 2]` float32, the rank of `like`: no rank is promoted."""
  return np.array(values, np.float32).reshape((1,) * (np.ndim(like) - 1) + (2,))


def node_pairs(num_nodes):
  """All pairs i < j: two `[N(N-1)/2]` int32 numpy arrays, (senders, receivers)."""
  senders, receivers = np.triu_indices(num_nodes, k=1)
  return senders.astype(np.int32), receivers.astype(np.int32)


def pairs_to_matrix(values, num_nodes):
  """Values of node pairs `[..., N(N-1)/2]` to a symmetric `[..., N, N]` matrix.

  The diagonal is zero. numpy in, numpy out; jax in, jax out.
  """
  senders, receivers = node_pairs(num_nodes)
  if values.shape[-1] != len(senders):
    raise ValueError(
      f'{num_nodes} nodes have {len(senders)} pairs; got {values.shape[-1]} values.'
    )
  # A gather from the values with one zero behind them: scatters are slow on TPUs.
  index = np.full((num_nodes, num_nodes), len(senders), np.int32)
  index[senders, receivers] = index[receivers, senders] = np.arange(len(senders))
  xp = np if isinstance(values, np.ndarray) else jnp
  zero = xp.zeros(values.shape[:-1] + (1,), values.dtype)
  return xp.concatenate([values, zero], axis=-1)[..., index]


def matrix_to_pairs(matrix):
  """Upper triangle `[..., N, N]` to the values of node pairs `[..., N(N-1)/2]`."""
  senders, receivers = node_pairs(matrix.shape[-1])
  return matrix[..., senders, receivers]


def segment_distance_sq(points, start, end):
  """Squared distance from points to line segments, elementwise with broadcasting.

  Args:
    points: `[..., 2]` float, (x, y).
    start: `[..., 2]` float, the first end; shapes must broadcast at equal rank.
    end: `[..., 2]` float, the second end; may equal `start`, then the segment is a
      point. Gradients are finite there too.

  Returns:
    `[...]` float >= 0, in the squared unit of the inputs.
  """
  edge = end - start
  offset = points - start
  length_sq = (edge**2).sum(-1)
  # A zero-length edge is a point: without the guard it would be 0 / 0.
  safe = jnp.where(length_sq > 0, length_sq, 1)
  along = jnp.clip((offset * edge).sum(-1) / safe, 0, 1)
  nearest = offset - along[..., None] * edge
  return (nearest**2).sum(-1)
