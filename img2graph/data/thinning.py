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
  """Lines of one pixel in the middle of what is set (Zhang & Suen 1984).

  Args:
    mask: `[B, H, W]` bool.

  Returns:
    `[B, H, W]` bool, a part of `mask` with the same connected pieces.
  """
  height, width = mask.shape[1:]

  def peel(mask, first):
    padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1)))
    around = [
      padded[:, 1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in _AROUND
    ]
    count = sum(a.astype(jnp.int32) for a in around)
    # Places where paper turns into ink on the way around: one piece at a border has 1.
    turns = sum(
      (~a & b).astype(jnp.int32)
      for a, b in zip(around, [*around[1:], around[0]], strict=True)
    )
    up, right, down, left = around[::2]
    if first:
      open_side = ~(up & right & down) & ~(right & down & left)
    else:
      open_side = ~(up & right & left) & ~(up & down & left)
    return mask & ~((count >= 2) & (count <= 6) & (turns == 1) & open_side)

  def step(state):
    mask, _ = state
    thinner = peel(peel(mask, True), False)
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
