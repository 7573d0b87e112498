"""The in-painting network of AutoLink: a masked image and an edge map to the image.

A U-Net: "AutoLink", He, Wandt & Rhodin 2022, section 3.2; what it leaves open is as in
the authors' code.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from img2graph.encoding import keypoints
from img2graph.encoding import resampling


class InpaintingNet(nn.Module):
  """`[B, S, S, D]` to an image `[B, S, S, 3]` float32, of any range.

  Attributes:
    features: channels at full size, at half of it, and so on. S must be a multiple of
      2^(len(features) - 1).
    out_features: channels of the image.
    dtype: of the activations; parameters are float32.
  """

  features: tuple[int, ...] = (64, 128, 256, 512, 512)
  out_features: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train=False):
    check_side(x.shape[1], self.features)

    def conv_norm(x, features, name):
      x = keypoints.conv(features, self.dtype, f'{name}_conv')(x)
      return keypoints.norm(train, self.dtype, f'{name}_norm')(x)

    x = keypoints.leaky_relu(keypoints.conv(self.features[0], self.dtype, 'first')(x))
    skips = []
    for i, features in enumerate(self.features[1:]):
      skips.append(x)
      x = keypoints.leaky_relu(conv_norm(x, features, f'down{i}_0'))
      x = conv_norm(x, features, f'down{i}_1')
      x = keypoints.leaky_relu(resampling.halve(x))
    for i, skip in enumerate(reversed(skips)):
      x = resampling.double(x)
      for j in range(2):
        x = keypoints.leaky_relu(conv_norm(x, skip.shape[-1], f'up{i}_{j}'))
      x = jnp.concatenate([x, skip], axis=-1)
    x = keypoints.conv(self.out_features, self.dtype, 'last')(x)
    return x.astype(jnp.float32)


def check_side(side, features):
  """Raises ValueError unless an `InpaintingNet` takes images of this side."""
  if not features:
    raise ValueError('in-painting needs features at one size at least; there are none.')
  step = 2 ** (len(features) - 1)
  if side % step:
    raise ValueError(
      f'in-painting at {len(features)} sizes needs a side that is a multiple of '
      f'{step}; got {side}.'
    )
