"""Random masks of image patches, for in-painting."""

import jax
import jax.numpy as jnp
import numpy as np


def keep_masks(key, batch, *, side, blocks=16, ratio=0.8):
  """Masks of square patches, each of which is kept or not, independently.

  Args:
    key: of the randomness.
    batch: number of masks, B.
    side: height and width in pixels, S.
    blocks: patches along a side.
    ratio: probability in [0, 1] that a patch is hidden; how many are is random.

  Returns:
    `[B, S, S, 1]` float32: 1 where the image is kept, 0 where it is hidden. Where S is
    no multiple of `blocks` each pixel takes the patch that its first corner lies in.
  """
  check(blocks=blocks, ratio=ratio, side=side)
  # Drawn flat, which compiles much faster on processors.
  kept = jax.random.uniform(key, (batch * blocks**2,)) >= ratio
  kept = kept.reshape(batch, blocks, blocks)
  patch = np.arange(side) * blocks // side
  return kept[:, patch][:, :, patch, None].astype(jnp.float32)


def check(*, blocks, ratio, side):
  """Raises ValueError unless there are such masks, see `keep_masks`."""
  if not isinstance(blocks, int) or not 1 <= blocks <= side:
    raise ValueError(
      f'mask.blocks must be a whole number from 1 to the side, {side}; got {blocks}.'
    )
  if not 0 <= ratio <= 1:
    raise ValueError(f'mask.ratio must be in [0, 1]; got {ratio}.')
