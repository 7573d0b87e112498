"""Image to feature maps: the node attention network of the image-graph-image paper.

Lu and Dubbelman, "Image-Graph-Image Translation via Auto-Encoding", section 3.2.1:
the convolutions of ResNet-50 up to its second residual block, with the outputs of the
two blocks reduced to 128 and 64 channels, a 2 x 2 max-pooling before each block, and
two further convolutions to one attention map per node at 1/4 of the resolution. What
the paper leaves open (stem, depth and width of the blocks, kernels of the last two
convolutions) is an attribute of `PaperBackbone`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from img2graph.encoding import layers

# Two poolings of 2 x 2: the maps have 1/4 of the image's height and width.
STRIDE = 4

# He et al. (2015), as in the ResNet paper: convolutions that a ReLU follows.
_HE_INIT = layers.flat(nn.initializers.he_normal())


class Bottleneck(nn.Module):
  """Residual block of ResNet-50: 1x1, 3x3 and 1x1 convolution, each batch-normalised.

  `[B, H, W, D]` to `[B, H, W, features]`. A 1x1 convolution is the short cut where
  the number of channels changes.

  Attributes:
    features: number of output channels.
    width: number of channels of the 3x3 convolution.
    dtype: of the activations; parameters are float32.
    momentum: of the running batch statistics.
  """

  features: int
  width: int
  dtype: Any = jnp.float32
  momentum: float = 0.9

  @nn.compact
  def __call__(self, x, *, train):
    def conv_norm(x, features, size, name):
      x = nn.Conv(
        features,
        (size, size),
        use_bias=False,
        kernel_init=_HE_INIT,
        dtype=self.dtype,
        name=f'{name}_conv',
      )(x)
      return nn.BatchNorm(
        use_running_average=not train,
        momentum=self.momentum,
        dtype=self.dtype,
        name=f'{name}_norm',
      )(x)

    y = nn.relu(conv_norm(x, self.width, 1, 'reduce'))
    y = nn.relu(conv_norm(y, self.width, 3, 'spatial'))
    y = conv_norm(y, self.features, 1, 'expand')
    if x.shape[-1] != self.features:
      x = conv_norm(x, self.features, 1, 'shortcut')
    return nn.relu(x + y)


class PaperBackbone(nn.Module):
  """Node attention logits at 1/4 resolution, as in the paper.

  Called with images `[B, H, W, C]`, H and W multiples of 4, and `train`: whether batch
  statistics come from this batch (and the collection 'batch_stats' is updated, so it
  must be mutable) or from the running averages. Statistics are means over the whole
  batch array, so under jit with a sharded batch they are those of the global batch.
  Returns logits `[B, H/4, W/4, num_maps]`, float32 whatever `dtype` is.

  Attributes:
    num_maps: number of attention maps, one per node (N_max).
    stem_features: channels of the stem convolution; ResNet-50 has 64.
    stem_kernel: side of the stem's kernel; ResNet-50 has 7. Its stride is 1 here,
      since the paper's reduction by 4 comes from the two poolings alone.
    block_features: output channels of the two blocks (the paper: 128 and 64).
    block_depths: number of bottlenecks in each; ResNet-50 has 3 and 4.
    bottleneck_ratio: output channels over channels of the 3x3 convolutions.
    head_features: channels between the last two convolutions.
    head_kernels: sides of the kernels of the last two convolutions.
    dtype: of the activations; parameters and batch statistics are float32.
    momentum: of the running batch statistics.
  """

  num_maps: int
  stem_features: int = 64
  stem_kernel: int = 7
  block_features: tuple[int, int] = (128, 64)
  block_depths: tuple[int, int] = (3, 4)
  bottleneck_ratio: int = 4
  head_features: int = 64
  head_kernels: tuple[int, int] = (3, 1)
  dtype: Any = jnp.float32
  momentum: float = 0.9

  @nn.compact
  def __call__(self, images, *, train):
    if images.ndim != 4 or images.shape[1] % STRIDE or images.shape[2] % STRIDE:
      raise ValueError(
        f'images must be [B, H, W, C] with H and W multiples of {STRIDE};'
        f' got {images.shape}.'
      )
    x = nn.Conv(
      self.stem_features,
      (self.stem_kernel, self.stem_kernel),
      use_bias=False,
      kernel_init=_HE_INIT,
      dtype=self.dtype,
      name='stem_conv',
    )(images)
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=self.momentum,
      dtype=self.dtype,
      name='stem_norm',
    )(x)
    x = nn.relu(x)
    for block, (features, depth) in enumerate(
      zip(self.block_features, self.block_depths, strict=True)
    ):
      x = layers.max_pool_2x2(x)
      for layer in range(depth):
        x = Bottleneck(
          features,
          features // self.bottleneck_ratio,
          dtype=self.dtype,
          momentum=self.momentum,
          name=f'block{block}_{layer}',
        )(x, train=train)
    first, last = self.head_kernels
    x = nn.Conv(
      self.head_features,
      (first, first),
      kernel_init=_HE_INIT,
      dtype=self.dtype,
      name='head_hidden',
    )(x)
    x = nn.relu(x)
    # A softmax of large logits that are rounded to 8 bits moves by a pixel and more.
    return nn.Conv(self.num_maps, (last, last), dtype=jnp.float32, name='head_maps')(
      x.astype(jnp.float32)
    )
