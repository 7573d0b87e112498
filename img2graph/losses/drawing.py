"""How well a network's own drawing of the clean lines fits them."""

import jax.numpy as jnp
import optax


def drawing_loss(logits, target, clean):
  """Cross entropy of a drawing, relative to the ink there should be.

  Args:
    logits: `[B, H, W]` float, of ink.
    target: `[B, H, W]` float in [0, 1], the lines as they should be.
    clean: `[B]`, 1 for images that count, 0 for the others: those that are their own
      targets, beside others that are not, teach it nothing.

  Returns:
    `[]` float >= 0.
  """
  clean = clean[:, None, None]
  entropy = optax.sigmoid_binary_cross_entropy(logits, target)
  return (clean * entropy).sum() / jnp.maximum((clean * target).sum(), 1.0)
