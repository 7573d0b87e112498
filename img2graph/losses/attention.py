"""Attention overlap: the auxiliary loss of the image-graph-image paper.

Lu and Dubbelman, eq. 5: where an image is reconstructed worse than the batch is on
average, attention maps that lie on each other are penalised, so that nodes which found
the same corner look for another one. Well reconstructed images are left alone, since
spare maps have to overlap somewhere.
"""

import jax
import jax.numpy as jnp


def attention_overlap(maps, similarity):
  """Mean squared excess of the summed maps over 1, of badly reconstructed images.

  Args:
    maps: `[B, H, W, N]` float in [0, 1], each map with maximum 1, see
      `img2graph.encoding.coordinates.peak_normalize`.
    similarity: `[B]` float, larger is better (the paper: MS-SSIM of image and
      reconstruction). Only compared, so it receives no gradient.

  Returns:
    Scalar float32 >= 0: the mean over all images and cells of relu(sum of maps - 1)^2,
    counted as 0 for images whose similarity is not below the mean of the batch. Both
    means are over the whole arrays, so under jit with a sharded batch over the global
    batch. Does not change when maps are permuted.
  """
  if maps.ndim != 4 or similarity.shape != maps.shape[:1]:
    raise ValueError(
      'maps must be [B, H, W, N] and similarity [B];'
      f' got {maps.shape} and {similarity.shape}.'
    )
  similarity = jax.lax.stop_gradient(similarity.astype(jnp.float32))
  is_bad = similarity < similarity.mean()
  excess = jax.nn.relu(maps.astype(jnp.float32).sum(-1) - 1)
  return jnp.where(is_bad, (excess**2).mean((1, 2)), 0).mean()
