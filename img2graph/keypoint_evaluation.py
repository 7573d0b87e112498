"""A method as a detector of keypoints: its nodes, regressed to annotated points.

The protocols are defined on top of `img2graph.metrics.keypoints`. The nodes are taken
as the method places them, all K of them, whatever their probabilities.
"""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph import evaluation
from img2graph.metrics import keypoints

_TRUTH = ('points', 'visible', 'scale')


# Kept between calls: a training run evaluates many times and compiles once.
@functools.lru_cache(maxsize=32)
def _compiled_nodes(method, sharding):
  """Jitted `(variables, images) -> [B, K, 2]` on the devices of a sharding."""

  def nodes(variables, images):
    return method.predict(variables, images).nodes

  if sharding is None:
    return jax.jit(nodes)
  whole = NamedSharding(sharding.mesh, PartitionSpec())
  return jax.jit(nodes, in_shardings=(whole, sharding), out_shardings=whole)


def find_keypoints(
  method, variables, source, *, num_images=None, batch_size, seed=0, sharding=None
):
  """Nodes that a method finds in annotated photographs, beside the annotations.

  Args:
    method: a `methods.base.Method`.
    variables: its variables.
    source: of `data.sources`, whose batches hold 'points'.
    num_images: at most this many, drawn by the seed; None for all of a `HostSource`.
    batch_size: images at a time.
    seed: int.
    sharding: `NamedSharding` of a batch over its leading axis; None for one device.

  Returns:
    `metrics.keypoints.Keypoints`.

  Raises:
    ValueError: the images have no points, or a number is not positive.
  """
  if num_images is None:
    if not hasattr(source, 'size'):
      raise ValueError('num_images must be given: this source draws without end.')
    num_images = source.size
  if num_images < 1:
    raise ValueError(f'num_images must be positive; got {num_images}.')
  truths = []

  def images():
    for chunk in evaluation.examples(source, num_images=num_images, seed=seed):
      _check_points(chunk)
      truths.append({n: v for n, v in chunk.items() if n in _TRUTH})
      yield from chunk['image']

  run = _compiled_nodes(method, sharding)
  found = [
    nodes[:count]
    for nodes, count in evaluation.in_batches(
      run, variables, images(), batch_size=batch_size, sharding=sharding
    )
  ]
  truth = jax.tree.map(lambda *parts: np.concatenate(parts), *truths)
  return keypoints.Keypoints(np.concatenate(found), **truth)


def check_source(source):
  """Raises ValueError unless images that are read have annotated points."""
  # Those that are drawn need a compilation to tell, and are the same in all parts.
  if hasattr(source, 'iterate'):
    _check_points(next(evaluation.host_batches(source, seed=0, batch_size=1)))


def _check_points(batch):
  if 'points' not in batch:
    raise ValueError(
      'keypoints are judged on images with points; these have none, as is so of the '
      "part 'train' of any set, and of a folder: config.eval.kind may be graph."
    )


def evaluate(method, variables, fit, test, *, protocol, seed=0, **options):
  """Scores of a method by a published protocol.

  Args:
    method: a `methods.base.Method`.
    variables: its variables.
    fit: source of the images that the regression is fitted on.
    test: source of those that are judged.
    protocol: one of `metrics.keypoints.PROTOCOLS`.
    seed: int, draws the images, and the fixed keypoints that stand beside.
    **options: num_images (at most, of either part), batch_size and sharding, see
      `find_keypoints`.

  Returns:
    dict as from `metrics.keypoints.score`, with the numbers of images, 'fit_images' and
    'images', and of keypoints, 'keypoints'.

  Raises:
    ValueError: there is no such protocol, or the parts do not fit it.
  """
  keypoints.check_protocol(protocol)  # Before anything is predicted.
  # Another seed: both parts may be of one source that draws its images.
  fit = find_keypoints(method, variables, fit, seed=seed + 1, **options)
  test = find_keypoints(method, variables, test, seed=seed, **options)
  return keypoints.score(protocol, fit, test, seed=seed) | {
    'images': len(test.found),
    'fit_images': len(fit.found),
    'keypoints': fit.found.shape[1],
  }
