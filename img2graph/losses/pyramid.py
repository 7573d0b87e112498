"""Squared error over a pyramid of scales, relative to the ink.

The coarse scales pull a line that lies beside its ink; the fine ones place it.
"""

import jax.numpy as jnp


def pyramid_loss(drawing, target, *, scales=4):
  """Relative squared error of mean-pooled images, averaged over scales.

  At each scale s the images are mean-pooled by 2^s, the squared error is summed over
  pixels, and its batch mean is divided by the batch mean of the target's energy.

  Args:
    drawing: `[B, H, W]` or `[B, H, W, 1]` float.
    target: the same shape.
    scales: number of scales; H and W must be multiples of 2^(scales - 1).

  Returns:
    `[]` float >= 0; 1 for an empty drawing, 0 for equal images.
  """
  return pyramid_errors(drawing, target, scales=scales).mean()


def pyramid_errors(drawing, target, *, scales=4, own_energy=False):
  """As `pyramid_loss`, per image: `[B]` float >= 0; its mean is `pyramid_loss`.

  With `own_energy` each image is relative to its own ink, not to the batch's: then an
  image's value does not depend on the others.
  """
  if scales < 1:
    raise ValueError(f'scales must be at least 1; got {scales}.')
  if drawing.shape != target.shape:
    raise ValueError(
      f'drawing and target must agree; got {drawing.shape} and {target.shape}.'
    )
  shape = drawing.shape[:3]
  a, b = drawing.reshape(shape), target.reshape(shape)
  step = 2 ** (scales - 1)
  if shape[1] % step or shape[2] % step:
    raise ValueError(
      f'{scales} scales need sides that are multiples of {step}; got {shape[1:]}.'
    )
  total = 0
  for s in range(scales):
    if s:
      a, b = _halve(a), _halve(b)
    error = ((a - b) ** 2).sum(axis=(1, 2))
    energy = (b**2).sum(axis=(1, 2))
    energy = energy if own_energy else energy.mean()
    total = total + error / jnp.maximum(energy, 1e-6)
  return total / scales


def _halve(x):
  batch, height, width = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
