"""Drawings with lines of any width, redrawn with lines of one width.

What is drawn of a graph has lines of one width. Where an image has others, an encoder
that is to reproduce it would lay edges side by side; so the image is thinned first.
"""

import jax
import jax.numpy as jnp
import numpy as np

from img2graph.encoding import canonical

# (row, column) offsets of the eight neighbours, around from the one above.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def skeleton(mask):
  """Lines of one pixel in the middle of what is set (Rosenfeld 1975).

  Args:
    mask: `[B, H, W]` bool.

  Returns:
    `[B, H, W]` bool, a part of `mask` with the same connected pieces and holes.
  """
  height, width = mask.shape[1:]

  def peel(mask, side):
    padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1)))
    around = [
      padded[:, 1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in _AROUND
    ]
    count = sum(a.astype(jnp.int32) for a in around)
    # Pieces of ink around, which the pixel alone may join: one whose removal would
    # neither part a line nor open a hole has 1.
    pieces = sum(
      (~around[k] & (around[k + 1] | around[(k + 2) % 8])).astype(jnp.int32)
      for k in range(0, 8, 2)
    )
    return mask & (around[side] | (count < 2) | (pieces != 1))

  def step(state):
    mask, _ = state
    thinner = mask
    # One side at a time: from all at once, lines of an even width would vanish.
    for side in (0, 4, 2, 6):
      thinner = peel(thinner, side)
    return thinner, (thinner != mask).any()

  return jax.lax.while_loop(lambda s: s[1], step, (mask, jnp.array(True)))[0]


def redraw(images, *, line_width):
  """Images with all their lines at full ink and of one width.

  Args:
    images: `[B, S, S, 1]` float in [0, 1], ink 1.
    line_width: in pixels, > 0.

  Returns:
    `[B, S, S, 1]` float32 in [0, 1]; empty where there is no ink.
  """
  side = images.shape[1]
  ink = canonical.canonical_image(images, side=side, floor=0.15)[..., 0]
  lines = skeleton(ink > 0.5).astype(jnp.float32)
  reach = int(np.ceil(line_width / 2 + 0.5)) - 1
  padded = jnp.pad(lines, ((0, 0), (reach, reach), (reach, reach)))
  drawn = jnp.zeros_like(lines)
  for r in range(2 * reach + 1):
    for c in range(2 * reach + 1):
      distance = np.hypot(r - reach, c - reach)
      level = np.clip(line_width / 2 + 0.5 - distance, 0, 1)
      if level:
        moved = padded[:, r : r + side, c : c + side]
        drawn = jnp.maximum(drawn, level * moved)
  return drawn[..., None]
