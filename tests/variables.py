"""Variables for models in tests, without compiling their `init`."""

import jax
import numpy as np


def random(init, *args, scale=0.3):
  """Random values in the shapes that `init(key, *args)` has.

  Kernels are normal of that deviation, variances and scales 1, the rest 0.
  """
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(init, jax.random.key(0), *args)

  def make(path, leaf):
    name = path[-1].key
    if name in ('var', 'scale'):
      return np.ones(leaf.shape, np.float32)
    if name == 'kernel':
      return scale * rng.standard_normal(leaf.shape).astype(np.float32)
    return np.zeros(leaf.shape, np.float32)

  return jax.tree_util.tree_map_with_path(make, shapes)
