"""The keypoint detector of AutoLink, and a topology of each image's own.

"AutoLink", He, Wandt & Rhodin 2022, section 3.1; what it leaves open is as in the
authors' code. Residual blocks halve the image, bilinear ones double the maps again,
and each keypoint is the mean position of one map's softmax. That every image has all
keypoints and the same links is the paper's; `Topology` lifts it.

Letters: B batch, K keypoints, P = K(K-1)/2 pairs, S side, M side of the maps.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from img2graph import geometry
from img2graph.encoding import coordinates
from img2graph.encoding import layers
from img2graph.encoding import resampling

SLOPE = 0.2


# Kaiming's normal for a LeakyReLU of that slope.
kernel_init = layers.flat(
  nn.initializers.variance_scaling(2 / (1 + SLOPE**2), 'fan_in', 'normal')
)


def leaky_relu(x):
  """LeakyReLU of slope 0.2."""
  return nn.leaky_relu(x, SLOPE)


def conv(features, dtype, name):
  """A 3 x 3 convolution as AutoLink starts it."""
  return nn.Conv(
    features,
    (3, 3),
    kernel_init=kernel_init,
    dtype=dtype,
    conv_general_dilated=layers.conv_general_dilated,
    name=name,
  )


def norm(train, dtype, name):
  """Batch normalisation as PyTorch's: momentum 0.9, epsilon 1e-5."""
  return nn.BatchNorm(
    use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
  )


class HalvingConv(nn.Module):
  """A 3 x 3 convolution whose result is halved: `[B, H, W, C]` to `[B, H/2, W/2, D]`.

  Both are linear, so that they are one convolution of 4 x 4 taps with a stride of 2: 16
  products for each value where one after the other takes 36, and none of the four
  times larger map in between is kept.

  Attributes:
    features: D.
    dtype: of the activations; parameters are float32.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    for axis in (0, 1):
      pad = [(0, 0)] * 4
      before, after = list(pad), list(pad)
      before[axis], after[axis] = (1, 0), (0, 1)
      kernel = (jnp.pad(kernel, before) + jnp.pad(kernel, after)) / 2
    x = layers.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      window_strides=(2, 2),
      padding=((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return x + bias.astype(self.dtype)[None, None, None]


class ResidualDown(nn.Module):
  """Residual block at half the size: `[B, H, W, C]` to `[B, H/2, W/2, features]`."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    shortcut = HalvingConv(self.features, self.dtype, name='shortcut_conv')(x)
    shortcut = norm(train, self.dtype, 'shortcut_norm')(shortcut)
    x = HalvingConv(self.features, self.dtype, name='conv0')(x)
    x = leaky_relu(norm(train, self.dtype, 'norm0')(x))
    x = conv(self.features, self.dtype, 'conv1')(x)
    x = norm(train, self.dtype, 'norm1')(x)
    return leaky_relu(x + shortcut)


class KeypointDetector(nn.Module):
  """Images `[B, H, W, C]` -> keypoints, their maps and features.

  Attributes:
    num_keypoints: K.
    side: images are brought to this side first.
    down: channels of the halving blocks.
    up: channels of the doubling blocks; M is side / 2^(len(down) - len(up)).
    dtype: of the activations; parameters, the maps and positions are float32.
  """

  num_keypoints: int
  side: int = 128
  down: tuple[int, ...] = (64, 128, 256, 512)
  up: tuple[int, ...] = (256, 128)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images, *, train=False):
    """Returns (positions `[B, K, 2]`, probs `[B, M, M, K]`, features `[B, M, M, D]`).

    Positions are (x, y) in [-1, 1], between the centres of the first and last cells.
    """
    x = resampling.resize(images, self.side)
    for i, features in enumerate(self.down):
      x = ResidualDown(features, self.dtype, name=f'down{i}')(x, train=train)
    for i, features in enumerate(self.up):
      x = conv(features, self.dtype, f'up{i}_conv')(resampling.double(x))
      x = leaky_relu(norm(train, self.dtype, f'up{i}_norm')(x))
    logits = conv(self.num_keypoints, jnp.float32, 'maps')(x)
    probs = coordinates.spatial_softmax(logits)
    return coordinates.dsnt(probs), probs, x


def check_sides(*, side, down, up):
  """Raises ValueError unless a detector of these attributes has maps of 2 x 2 cells."""
  if side % 2 ** len(down) or side < 2 ** len(down):
    raise ValueError(
      f'{len(down)} halving blocks need a side that is a multiple of '
      f'{2 ** len(down)}; got {side}.'
    )
  if len(up) > len(down):
    raise ValueError(
      f'a detector cannot double more often ({len(up)}) than it halves ({len(down)}).'
    )
  if map_side(side=side, down=down, up=up) < 2:
    raise ValueError('the maps of a detector need 2 x 2 cells at least.')


def map_side(*, side, down, up):
  """Side M of a detector's maps."""
  return side * 2 ** len(up) // 2 ** len(down)


class Topology(nn.Module):
  """Which keypoints and links one image has, from the features at its keypoints.

  Of a keypoint that is the mean of the features under its map, of a link the sum and
  the product of those of its ends. Last layers start at 0: what is learned first is
  what all images share.

  Attributes:
    hidden: channels between.
    presence_bias: logit of presence at first.
  """

  hidden: int = 64
  presence_bias: float = 3.0

  @nn.compact
  def __call__(self, probs, features):
    """(`[B, M, M, K]`, `[B, M, M, D]`) -> logits of presence `[B, K]`, links `[B, P]`.

    Those of links are to be added to the logits of what all images share.
    """
    features = features.astype(jnp.float32)
    at = jnp.einsum('bhwk,bhwd->bkd', probs, features)
    at = nn.LayerNorm(name='norm')(at)
    senders, receivers = geometry.node_pairs(at.shape[1])
    first, second = at[:, np.asarray(senders)], at[:, np.asarray(receivers)]
    pairs = jnp.concatenate([first + second, first * second], axis=-1)
    present = self._head(at, 'presence') + self.presence_bias
    return present, self._head(pairs, 'links')

  def _head(self, x, name):
    x = leaky_relu(nn.Dense(self.hidden, name=f'{name}_hidden')(x))
    zeros = nn.initializers.zeros
    return nn.Dense(1, kernel_init=zeros, name=name)(x)[..., 0]
