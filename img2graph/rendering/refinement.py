"""From the coarse drawing to the look of the images: the refinement network.

Lu and Dubbelman, section 3.2.2: three 3x3 convolutions, 16 channels in between, PReLU
between every two. It changes style (line width, softness, brightness), not structure:
its receptive field is 7 x 7 pixels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# Each maps the last layer's values to the image; see `RefinementNet.output`.
_OUTPUTS = {
  'linear': lambda x: x,
  'clip': lambda x: jnp.clip(x, 0, 1),
  'sigmoid': nn.sigmoid,
}


_SMALL_NORMAL = nn.initializers.lecun_normal()


def _centred(key, shape, dtype=jnp.float32):
  """Random where a 3x3 kernel `[3, 3, C, D]` meets the pixel itself, 0 around it."""
  centre = _SMALL_NORMAL(key, (1, 1, *shape[2:]), dtype)
  return jnp.zeros(shape, dtype).at[1:2, 1:2].set(centre)


def _identity(key, shape, dtype=jnp.float32):
  """As `_centred`, but the first channel out is the first channel in."""
  first = jnp.eye(1, shape[2], dtype=dtype)[0]
  return _centred(key, shape, dtype).at[1, 1, :, 0].set(first)


# How the kernels start; see `RefinementNet.start`.
_STARTS = {'random': _SMALL_NORMAL, 'centred': _centred, 'identity': _identity}


class _Conv(nn.Module):
  """A 3x3 convolution; `limited`, no channel out is larger than what it sees."""

  features: int
  start: str
  limited: bool
  dtype: Any

  @nn.compact
  def __call__(self, x):
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param('kernel', _STARTS[self.start], shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape[-1:], jnp.float32)
    if self.limited:
      kernel = kernel / jnp.maximum(1, jnp.abs(kernel).sum((0, 1, 2), keepdims=True))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    numbers = ('NHWC', 'HWIO', 'NHWC')
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', None, None, numbers)
    return x + bias.astype(self.dtype)[None, None, None]


class _PReLU(nn.Module):
  """One slope per layer, 0.25 at first: the usual PReLU; `limited`, at most 1."""

  limited: bool

  @nn.compact
  def __call__(self, x):
    slope = self.param('negative_slope', lambda _: jnp.float32(0.25))
    slope = jnp.clip(slope, -1, 1) if self.limited else slope
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class RefinementNet(nn.Module):
  """Coarse drawing to refined image, `[B, H, W, C]` to `[B, H, W, out_features]`.

  The result is float32 whatever `dtype` is.

  Attributes:
    features: channels between the convolutions (the paper: 16).
    out_features: channels of the refined image.
    output: what follows the last convolution, which the paper does not say. 'linear'
      (nothing) starts with exactly 0, paper, on an empty part of the canvas, and
      leaves the range to the loss; values may lie outside [0, 1]. 'clip' limits them
      but stops the gradient of a pixel that left the range. 'sigmoid' has a gradient
      everywhere but starts with a grey 0.5 on an empty canvas.
    start: of the kernels, which the paper does not say. 'random' (all nine taps) moves
      what is drawn by a pixel or two, and the graph learns to lie that far from the
      ink, which no loss on the refined image sees. 'centred' (the middle tap alone,
      the others 0) starts without a shift; what is drawn may start darker or lighter
      than paper. 'identity' starts with the drawing itself in the first channel.
    limited: whether what is drawn faintly stays faint: two pixels of the result differ
      by no more than the largest difference within the drawing, if both are three
      pixels or more from the border, where zeros are padded. The paper's network
      is free to make any ink out of a trace of it, which does no harm unless edges
      have a cost: then all become improbable, and the network makes up for it.
    dtype: of the activations; parameters are float32.
  """

  features: int = 16
  out_features: int = 1
  output: str = 'linear'
  start: str = 'random'
  limited: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, drawing):
    if self.output not in _OUTPUTS:
      raise ValueError(
        f'output must be one of {sorted(_OUTPUTS)}; got {self.output!r}.'
      )
    if self.start not in _STARTS:
      raise ValueError(f'start must be one of {sorted(_STARTS)}; got {self.start!r}.')
    options = dict(start=self.start, limited=self.limited, dtype=self.dtype)
    x = drawing
    for layer in range(2):
      x = _Conv(self.features, **options, name=f'conv{layer}')(x)
      x = _PReLU(self.limited, name=f'prelu{layer}')(x)
    x = _Conv(self.out_features, **options, name='conv2')(x)
    return _OUTPUTS[self.output](x.astype(jnp.float32))
