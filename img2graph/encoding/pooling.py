"""Patches of the image between nodes: region-of-interest (ROI) pooling.

The bounding box of two nodes, resampled to a fixed size, is what the edge classifier
of Lu and Dubbelman sees (section 3.2.1). Boxes are (x0, y0, x1, y1) in the coordinates
of `img2graph.geometry`, x0 <= x1 and y0 <= y1. Two ways of pooling:

- 'max': ROI pooling of Fast R-CNN (Girshick, 2015) and Faster R-CNN, which the paper
  cites: the box is clipped to the image, rounded outwards to whole pixels and cut
  into size x size bins, overlapping where they cannot be equal; each bin is its
  largest pixel. No gradient reaches the box.
- 'align': ROI-Align (He et al., 2017): each bin is the mean of samples x samples
  points, interpolated bilinearly between pixel centres; beyond the image everything is
  0, paper. The box has a gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import geometry


def pair_boxes(nodes, *, margin=0.0, min_size=0.0):
  """Bounding boxes of all node pairs i < j, in the order of `geometry.node_pairs`.

  Args:
    nodes: `[..., N, 2]` float, (x, y) in [-1, 1].
    margin: added on every side, in coordinate units. A stroke between two corners of
      a box is half outside without one.
    min_size: a box is widened about its centre to at least this width and height. A
      horizontal or vertical edge has a box without area, which would show nothing.

  Returns:
    `[..., N(N-1)/2, 4]`, (x0, y0, x1, y1); it may reach beyond [-1, 1].
  """
  if nodes.ndim < 2 or nodes.shape[-1] != 2:
    raise ValueError(f'nodes must be [..., N, 2] in (x, y); got {nodes.shape}.')
  senders, receivers = geometry.node_pairs(nodes.shape[-2])
  return segment_boxes(
    nodes[..., senders, :], nodes[..., receivers, :], margin=margin, min_size=min_size
  )


def segment_boxes(start, end, *, margin=0.0, min_size=0.0):
  """As `pair_boxes`, of segments given by their ends: twice `[..., P, 2]`."""
  if margin < 0 or min_size < 0:
    raise ValueError(
      f'margin and min_size must not be negative; got {margin} and {min_size}.'
    )
  centre = (start + end) / 2
  half = jnp.maximum(jnp.abs(end - start) / 2 + margin, min_size / 2)
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def roi_pool(images, boxes, *, size=16, mode='align', samples=2):
  """Resamples boxes of images to patches of one size.

  Args:
    images: `[B, H, W, C]` float.
    boxes: `[B, P, 4]` float, (x0, y0, x1, y1), outer edges of the boxes.
    size: height and width of the patches.
    mode: 'align' or 'max', see the top of this file.
    samples: of 'align': points along each side of a bin. A bin larger than
      2 * samples pixels can miss a line between its points.

  Returns:
    `[B, P, size, size, C]`, in the dtype of the images; row r of a patch is its r-th
    part from y0 down to y1.
  """
  if images.ndim != 4:
    raise ValueError(f'images must be [B, H, W, C]; got {images.shape}.')
  if boxes.ndim != 3 or boxes.shape[0] != images.shape[0] or boxes.shape[2] != 4:
    raise ValueError(
      f'boxes must be [B, P, 4] for images {images.shape}; got {boxes.shape}.'
    )
  if size < 1 or samples < 1:
    raise ValueError(f'size and samples must be positive; got {size} and {samples}.')
  x0, y0, x1, y1 = jnp.moveaxis(boxes.astype(jnp.float32), -1, 0)
  height, width = images.shape[1:3]
  if mode == 'align':
    # Bilinear interpolation is separable, so pooling is a product with one matrix
    # per axis. Rows first: they are what shrinks the most memory.
    rows = _align_weights(y0, y1, height, size, samples)
    columns = _align_weights(x0, x1, width, size, samples)
    pooled = jnp.einsum(
      'bpsh,bhwc->bpswc', rows, images.astype(jnp.float32), precision='highest'
    )
    pooled = jnp.einsum('bptw,bpswc->bpstc', columns, pooled, precision='highest')
    return pooled.astype(images.dtype)
  if mode == 'max':
    rows = _max_bins(y0, y1, height, size)
    columns = _max_bins(x0, x1, width, size)
    return jax.vmap(_max_pool)(images, rows, columns)
  raise ValueError(f"mode must be 'align' or 'max'; got {mode!r}.")


def _align_weights(low, high, length, size, samples):
  """How much of each pixel every bin takes, along one axis: `[B, P, size, length]`."""
  # Sampling points as fractions of the box, at the centres of equal parts.
  fractions = ((np.arange(size * samples) + 0.5) / (size * samples)).astype(np.float32)
  fractions = fractions.reshape(1, 1, size, samples)
  low, high = low[..., None, None], high[..., None, None]
  # In pixels; pixel i has its centre at i + 0.5.
  points = (low + (high - low) * fractions + 1) / 2 * length  # [B, P, size, samples]
  centres = (np.arange(length) + 0.5).astype(np.float32).reshape(1, 1, 1, 1, -1)
  tents = jnp.maximum(1 - jnp.abs(points[..., None] - centres), 0)
  return tents.mean(axis=3)


def _max_bins(low, high, length, size):
  """Pixels of every bin, along one axis: `[B, P, size, K]` int32 in [0, length)."""
  first = jnp.clip(jnp.floor((low + 1) / 2 * length), 0, length - 1)
  # At least one pixel, the one that `low` lies in, for a box without area.
  last = jnp.clip(jnp.ceil((high + 1) / 2 * length), first + 1, length)
  first = first.astype(jnp.int32)[..., None]  # [B, P, 1]
  extent = last.astype(jnp.int32)[..., None] - first
  part = np.arange(size, dtype=np.int32).reshape(1, 1, size)
  # Floor and ceil of part * extent / size, in integers so that no rounding moves them.
  start = first + part * extent // size
  stop = first - (-(part + 1) * extent // size)
  # Every bin lists as many pixels as the largest can have; its last one, repeated,
  # does not change the maximum.
  offsets = np.arange(-(-length // size) + 1, dtype=np.int32).reshape(1, 1, 1, -1)
  return jnp.minimum(start[..., None] + offsets, stop[..., None] - 1)


def _max_pool(image, rows, columns):
  """`[H, W, C]`, `[P, size, K]` twice: `[P, size, size, C]`."""
  pooled = image[rows].max(axis=2)  # [P, size, W, C]
  return jax.vmap(lambda rows, columns: rows[:, columns].max(axis=2))(pooled, columns)
