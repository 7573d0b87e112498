"""Residual networks for small photographs: features and class logits.

He et al., "Deep Residual Learning for Image Recognition" (2016). `CifarResNet` is their
section 4.2, for 32 x 32 pixels: 6n + 2 layers in three stages of 16, 32 and 64
channels, and short cuts without parameters (option A: every second pixel, new channels
are 0). `ResNet` is their section 4.1, which "Affinity Graph Supervision" (Wang et al.
2020, section 6.2) trains on Tiny ImageNet's 64 x 64 pixels.

Both map images `[B, H, W, C]` to (features `[B, D]`, what the classifier sees; logits
`[B, num_classes]`), float32 whatever `dtype` is. With `train`, batch statistics come
from this batch, and the collection 'batch_stats' must be mutable; under jit with a
sharded batch they are those of the whole batch. Padding is symmetric, as in the
published networks, also where a convolution strides.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from img2graph.encoding import layers

_HE_NORMAL = layers.flat(
  nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'), fan='out'
)

# Layers of the four stages, and whether their blocks are bottlenecks.
_DEPTHS = {
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
}
_STEMS = ('imagenet', 'small')
_SHORTCUTS = ('pad', 'project')


class _Layers(nn.Module):
  """Convolutions and norms of one precision."""

  dtype: Any = jnp.float32
  momentum: float = 0.9

  def conv(self, x, features, size, stride, name):
    return nn.Conv(
      features,
      (size, size),
      strides=stride,
      padding=size // 2,
      use_bias=False,
      kernel_init=_HE_NORMAL,
      dtype=self.dtype,
      conv_general_dilated=layers.conv_general_dilated,
      name=f'{name}_conv',
    )(x)

  def norm(self, x, train, name):
    return nn.BatchNorm(
      use_running_average=not train,
      momentum=self.momentum,
      dtype=self.dtype,
      name=f'{name}_norm',
    )(x)


class Block(_Layers):
  """Residual block: two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1.

  `[B, H, W, C]` to `[B, H/stride, W/stride, features]`.

  Attributes:
    features: number of output channels.
    stride: of the first 3x3 convolution.
    bottleneck: whether it is one, with features / 4 channels inside.
    shortcut: where the shape changes, 'pad' (option A) or 'project' (option B).
  """

  features: int = 16
  stride: int = 1
  bottleneck: bool = False
  shortcut: str = 'project'

  def __post_init__(self):
    if self.shortcut not in _SHORTCUTS:
      raise ValueError(
        f'shortcut must be one of {", ".join(_SHORTCUTS)}; got {self.shortcut!r}.'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x, *, train):
    if self.bottleneck:
      inside = self.features // 4
      plan = ((inside, 1, 1), (inside, 3, self.stride), (self.features, 1, 1))
    else:
      plan = ((self.features, 3, self.stride), (self.features, 3, 1))
    y = x
    for i, (features, size, stride) in enumerate(plan):
      y = nn.relu(y) if i else y
      y = self.norm(self.conv(y, features, size, stride, f'{i}'), train, f'{i}')
    return nn.relu(y + self._short(x, train))

  def _short(self, x, train):
    more = self.features - x.shape[-1]
    if not more and self.stride == 1:
      return x
    if self.shortcut == 'project':
      x = self.conv(x, self.features, 1, self.stride, 'short')
      return self.norm(x, train, 'short')
    x = x[:, :: self.stride, :: self.stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


class CifarResNet(_Layers):
  """The network of 6n + 2 layers: 20, 56 and 110 in the papers.

  Attributes:
    num_classes: of the logits.
    depth: number of layers, 6n + 2.
    width: channels of the first stage; the others have twice and four times as many.
  """

  num_classes: int = 10
  depth: int = 20
  width: int = 16

  def __post_init__(self):
    _check_counts(self, 'num_classes', 'depth', 'width')
    if self.depth < 8 or self.depth % 6 != 2:
      raise ValueError(f'depth must be 6n + 2, for example 20; got {self.depth}.')
    super().__post_init__()

  @nn.compact
  def __call__(self, images, *, train):
    x = self.conv(images.astype(self.dtype), self.width, 3, 1, 'stem')
    x = nn.relu(self.norm(x, train, 'stem'))
    for stage in range(3):
      for layer in range(self.depth // 6):
        x = Block(
          features=self.width * 2**stage,
          stride=2 if stage and not layer else 1,
          shortcut='pad',
          dtype=self.dtype,
          momentum=self.momentum,
          name=f'stage{stage}_{layer}',
        )(x, train=train)
    return _classify(x, self.num_classes)


class ResNet(_Layers):
  """The networks of 18, 34, 50 and 101 layers.

  Attributes:
    num_classes: of the logits.
    depth: number of layers.
    width: channels of the first stage.
    stem: 'imagenet', 7x7 with stride 2 and a pooling, as published; or 'small', 3x3
      without either, which leaves images of 64 pixels four times the resolution.
  """

  num_classes: int = 200
  depth: int = 18
  width: int = 64
  stem: str = 'imagenet'

  def __post_init__(self):
    _check_counts(self, 'num_classes', 'depth', 'width')
    if self.depth not in _DEPTHS:
      raise ValueError(
        f'depth must be one of {", ".join(map(str, _DEPTHS))}; got {self.depth}.'
      )
    if self.stem not in _STEMS:
      raise ValueError(f'stem must be one of {", ".join(_STEMS)}; got {self.stem!r}.')
    super().__post_init__()

  @nn.compact
  def __call__(self, images, *, train):
    small = self.stem == 'small'
    x = images.astype(self.dtype)
    x = self.conv(x, self.width, 3 if small else 7, 1 if small else 2, 'stem')
    x = nn.relu(self.norm(x, train, 'stem'))
    if not small:
      x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    depths, bottleneck = _DEPTHS[self.depth]
    for stage, blocks in enumerate(depths):
      for layer in range(blocks):
        x = Block(
          features=self.width * 2**stage * (4 if bottleneck else 1),
          stride=2 if stage and not layer else 1,
          bottleneck=bottleneck,
          dtype=self.dtype,
          momentum=self.momentum,
          name=f'stage{stage}_{layer}',
        )(x, train=train)
    return _classify(x, self.num_classes)


def _check_counts(module, *names):
  for name in names:
    value = getattr(module, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f'{name} must be a whole number, at least 1; got {value!r}.')


def _classify(x, num_classes):
  """Called by a network's own `__call__`: the features and the logits."""
  features = x.astype(jnp.float32).mean((1, 2))
  return features, nn.Dense(num_classes, name='classifier')(features)
