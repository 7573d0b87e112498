"""Edge evidence read from the image along the segment between two nodes.

Letters: B batch, P node pairs, K samples along, A samples across.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from img2graph.encoding import layers


def sample_bilinear(images, points):
  """Bilinear samples of images at points; paper (zero) lies beyond the border.

  Args:
    images: `[B, H, W]` float, or `[B, H, W, C]`.
    points: `[B, ..., 2]` float, (x, y) in [-1, 1]; -1 and 1 are the outer edges.

  Returns:
    `[B, ...]` float, or `[B, ..., C]`.
  """
  if images.ndim == 3:
    return _sample(images[..., None], points[..., 0], points[..., 1])[..., 0]
  return _sample(images, points[..., 0], points[..., 1])


def _sample(images, x, y):
  """`sample_bilinear` of `[B, H, W, C]` at positions x and y, `[B, ...]` each."""
  batch, height, width, channels = images.shape
  # One pixel of paper around the image, so that no corner needs a mask of its own.
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  x = jnp.clip((x + 1) * (width / 2) + 0.5, 0, width + 1)
  y = jnp.clip((y + 1) * (height / 2) + 0.5, 0, height + 1)
  left = jnp.clip(jnp.floor(x), 0, width)
  top = jnp.clip(jnp.floor(y), 0, height)
  fx, fy = x - left, y - top
  index = (top * (width + 1) + left).astype(jnp.int32)
  # The four pixels around a position as one row: one gather instead of four.
  corners = jnp.stack(
    [
      padded[:, :-1, :-1],
      padded[:, :-1, 1:],
      padded[:, 1:, :-1],
      padded[:, 1:, 1:],
    ],
    axis=-2,
  ).reshape(batch, -1, 4 * channels)
  # Clipped once more, since a NaN may become any index.
  found = jax.vmap(lambda rows, i: rows.at[i].get(mode='clip'))(
    corners, index.reshape(batch, -1)
  ).reshape(*index.shape, 4, channels)
  fx, fy = fx[..., None], fy[..., None]
  upper = found[..., 0, :] * (1 - fx) + found[..., 1, :] * fx
  lower = found[..., 2, :] * (1 - fx) + found[..., 3, :] * fx
  return upper * (1 - fy) + lower * fy


def segment_samples(images, start, end, *, along=16, across=3, spread=1.5):
  """Image values on a small grid laid along each segment.

  Args:
    images: `[B, S, S, C]` float.
    start: `[B, P, 2]` float in [-1, 1].
    end: `[B, P, 2]` float in [-1, 1]; may equal `start`.
    along: samples from start to end, both included.
    across: samples perpendicular to the segment (odd: the middle one lies on it).
    spread: distance in pixels of the outermost of these from the segment.

  Returns:
    `[B, P, along, across, C]` float.
  """
  side = images.shape[1]
  edge = end - start
  length = jnp.sqrt((edge**2).sum(-1, keepdims=True) + 1e-12)
  normal = jnp.stack([-edge[..., 1], edge[..., 0]], axis=-1) / length
  t = np.linspace(0, 1, along, dtype=np.float32)[None, None, :, None]
  half = np.linspace(-1, 1, across, dtype=np.float32) if across > 1 else np.zeros(1)
  offsets = (half * spread * 2 / side).astype(np.float32)[None, None, None, :]

  def place(axis):
    first, whole, aside = (v[..., axis, None, None] for v in (start, edge, normal))
    return first + t * whole + offsets * aside

  # x and y apart: with both in the last axis the processor works half as fast.
  return _sample(images, place(0), place(1))


def most_inked(images, start, end, prob=1.0, *, count, along=12, reach=4):
  """The `count` pairs with the most ink under or beside the straight line between.

  Reading an image along every pair of nodes costs most of an encoder's time, and most
  pairs have nothing but paper between them. Here each is looked at in a few places.

  Args:
    images: `[B, S, S, 1]` float.
    start: `[B, P, 2]` float in [-1, 1].
    end: `[B, P, 2]` float in [-1, 1].
    prob: `[B, P]` float in [0, 1], that both nodes exist: pairs of improbable ones
      take no room from others.
    count: how many to take, at most P.
    along: places that are looked at, between both ends.
    reach: pixels beside the line within which ink counts, to about a pixel.

  Returns:
    `[B, count]` int32, the pairs' places in the last axis but one of `start`.
  """
  near = layers.max_pool_2x2(images[..., :1])[..., 0]
  side = near.shape[1]
  near = layers.max_around(near, reach // 2)
  t = ((np.arange(along, dtype=np.float32) + 0.5) / along)[None, None]

  def pixel(axis):
    first, last = start[..., axis, None], end[..., axis, None]
    place = (first + t * (last - first) + 1) * (side / 2)
    return jnp.clip(place.astype(jnp.int32), 0, side - 1)

  index = (pixel(1) * side + pixel(0)).reshape(images.shape[0], -1)
  found = jnp.take_along_axis(near.reshape(images.shape[0], -1), index, axis=1)
  ink = found.reshape(*start.shape[:2], along).mean(axis=-1)
  # Of pairs with as much ink the shorter ones: they are the likelier edges.
  length = jnp.sqrt(((end - start) ** 2).sum(-1) + 1e-12)
  return jax.lax.top_k(jnp.sqrt(prob) * (ink - 0.05 * length), count)[1]


class SegmentEdges(nn.Module):
  """A small perceptron over the samples of each node pair.

  Its output does not depend on the order of the two nodes.

  Attributes:
    along: samples from node to node.
    across: samples across.
    spread: reach across, in pixels.
    hidden: width of the two hidden layers.
  """

  along: int = 16
  across: int = 3
  spread: float = 1.5
  hidden: int = 32

  @nn.compact
  def __call__(self, images, start, end, *, train=False):
    """(`[B, S, S, C]`, `[B, P, 2]`, `[B, P, 2]`) -> logits `[B, P]`."""
    del train  # The same in both.
    # Positions must be moved by the drawing alone: a gradient through the reading
    # would shift nodes to where the classifier is easily satisfied.
    start, end = jax.lax.stop_gradient((start, end))
    samples = segment_samples(
      images,
      start,
      end,
      along=self.along,
      across=self.across,
      spread=self.spread,
    )
    turned = samples[..., ::-1, ::-1, :]  # The same segment read from the other node.
    both = jnp.stack([samples, turned], axis=2)  # [B, P, 2, K, A, C]
    x = both.reshape(*both.shape[:3], -1)
    x = nn.relu(nn.Dense(self.hidden, name='hidden_0')(x))
    x = nn.relu(nn.Dense(self.hidden, name='hidden_1')(x))
    return nn.Dense(1, name='logit')(x)[..., 0].mean(axis=-1)
