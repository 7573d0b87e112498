"""Edge probabilities from patches of the image: the classifier of the paper.

Lu and Dubbelman, section 3.2.1: two 3x3 convolutions of 32 and 16 channels, each with
batch normalisation, ReLU and 2 x 2 max-pooling, then two fully connected layers with
ReLU and sigmoid. The hidden size is not given there. Patches come from
`img2graph.encoding.pooling`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from img2graph.encoding import layers


class RoiEdgeClassifier(nn.Module):
  """Whether a patch shows an edge.

  Called with patches `[B, P, h, w, C]`, one per node pair, h and w at least 4, and
  `train`: whether batch statistics come from this batch (over all its patches; the
  collection 'batch_stats' must be mutable) or from the running averages. Returns
  (logits, probs), both `[B, P]` float32, probs = sigmoid(logits).

  Attributes:
    features: channels of the two convolutions (the paper: 32 and 16).
    hidden: size of the first fully connected layer.
    dtype: of the activations; parameters and batch statistics are float32.
    momentum: of the running batch statistics.
  """

  features: tuple[int, int] = (32, 16)
  hidden: int = 64
  dtype: Any = jnp.float32
  momentum: float = 0.9

  @nn.compact
  def __call__(self, patches, *, train):
    if patches.ndim != 5 or min(patches.shape[2:4]) < 4:
      raise ValueError(
        'patches must be [B, P, h, w, C] with h and w at least 4, for two poolings;'
        f' got {patches.shape}.'
      )
    batch, pairs = patches.shape[:2]
    x = patches.reshape((batch * pairs,) + patches.shape[2:])
    for layer, features in enumerate(self.features):
      # Without a bias: the normalisation that follows would remove it.
      x = nn.Conv(
        features,
        (3, 3),
        use_bias=False,
        kernel_init=layers.conv_init,
        dtype=self.dtype,
        name=f'conv{layer}',
      )(x)
      x = nn.BatchNorm(
        use_running_average=not train,
        momentum=self.momentum,
        dtype=self.dtype,
        name=f'norm{layer}',
      )(x)
      x = layers.max_pool_2x2(nn.relu(x))
    x = x.reshape(batch, pairs, -1)
    x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name='hidden')(x))
    x = nn.Dense(1, dtype=self.dtype, name='logit')(x)
    logits = x[..., 0].astype(jnp.float32)
    return logits, nn.sigmoid(logits)
