"""A method as a classifier: accuracy, and what its batches are as affinity graphs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from img2graph import evaluation
from img2graph.losses import affinity


# Kept between calls: a training run evaluates many times and compiles once.
@functools.lru_cache(maxsize=32)
def _compiled(classify, sharding):
  whole = None if sharding is None else jax.NamedSharding(sharding.mesh, jax.P())
  options = {} if whole is None else dict(in_shardings=(whole, sharding))
  return jax.jit(classify, out_shardings=whole, **options)


def classify(method, variables, images, *, batch_size, sharding=None):
  """Features and logits of images.

  Args:
    method: a `methods.base.Method` that classifies.
    variables: its variables.
    images: `[n, S, S, 3]` uint8.
    batch_size: images at a time.
    sharding: `NamedSharding` of a batch over its leading axis; None for one device.

  Returns:
    (`[n, D]`, `[n, C]`), float32 numpy.

  Raises:
    ValueError: the method knows no classes, or `batch_size` is not positive.
  """
  _check_classifies(method)
  batches = evaluation.in_batches(
    _compiled(method.classify, sharding),
    variables,
    (image / np.float32(255) for image in images),
    batch_size=batch_size,
    sharding=sharding,
  )
  found = [jax.tree.map(lambda x, n=n: x[:n], outputs) for outputs, n in batches]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def check(method, data):
  """Raises ValueError unless a method takes such images and knows their classes.

  Args:
    method: a `methods.base.Method`.
    data: {'image': `[n, S, S, 3]` uint8, 'label': `[n]` int}; None for others.
  """
  _check_classifies(method)
  if data is None or 'label' not in data:
    raise ValueError('classes are judged on labelled images; these have no labels.')
  side, most = data['image'].shape[1], int(data['label'].max())
  if data['label'].min() < 0:
    raise ValueError(f'the labels must count from 0; got {data["label"].min()}.')
  if side not in method.sides:
    raise ValueError(
      f'the images have {side} pixels a side, and the method takes '
      f'{" or ".join(map(str, method.sides))}: set config.method.side.'
    )
  if most >= method.num_classes:
    raise ValueError(
      f'there are labels up to {most}, and the method knows {method.num_classes} '
      'classes, from 0: set the num_classes of its network.'
    )


def _check_classifies(method):
  if method.classify is None:
    raise ValueError(
      'classes are judged of a method that classifies; this one does not.'
    )


def evaluate(
  method, variables, data, *, batch_size, num_images=None, seed=0, sharding=None
):
  """How well a method classifies.

  Args:
    method: as `classify`, also the next.
    variables: of the method.
    data: {'image': `[n, S, S, 3]` uint8, 'label': `[n]` int}.
    batch_size: images at a time, and of an affinity graph.
    num_images: at most this many; None for all.
    seed: of these images and of the batches whose target mass is told. They are drawn,
      since many sets lie class after class: the first would be of few classes.
    sharding: as `classify`.

  Returns:
    {'accuracy', 'cross_entropy', 'target_mass', 'images'}: the share of images whose
    class has the largest logit; the mean cross entropy in nats; the mean target mass of
    batches by distance, without the diagonal ("Affinity Graph Supervision", figure 5),
    0 where no batch is full.

  Raises:
    ValueError: as `classify`.
  """
  images, labels = data['image'], data['label']
  if num_images is not None and num_images < len(labels):
    drawn = np.random.default_rng(seed).permutation(len(labels))
    drawn = np.sort(drawn[:num_images])
    images, labels = images[drawn], labels[drawn]
  features, logits = classify(
    method, variables, images, batch_size=batch_size, sharding=sharding
  )
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  full = len(labels) // batch_size * batch_size
  drawn = np.random.default_rng(seed).permutation(len(labels))[:full]
  return {
    'accuracy': float((logits.argmax(-1) == labels).mean()),
    'cross_entropy': float(entropy.mean()),
    'target_mass': float(
      _target_mass(
        features[drawn].reshape(-1, batch_size, features.shape[-1]),
        labels[drawn].reshape(-1, batch_size),
      )
    ),
    'images': len(labels),
  }


@jax.jit
def _target_mass(features, labels):
  """Mean over batches `[G, B, D]`, `[G, B]`."""
  if not len(labels):
    return 0.0
  log_mass, some = jax.lax.map(
    lambda batch: affinity.log_target_mass(
      affinity.distance_affinity(batch[0]),
      affinity.same_class(batch[1]),
      include=affinity.without_self(labels.shape[1]),
    ),
    (features, labels),
  )
  return jnp.where(some, jnp.exp(log_mass), 0.0).mean()


def headline(scores):
  """The figures to look at first, in percent; empty if the scores are of another kind.

  Args:
    scores: `{part: what `evaluate` returns}`.
  """
  return {
    f'{part}_{name}': 100 * scores[part][name]
    for part in ('valid', 'test')
    for name in ('accuracy', 'target_mass')
    if 'accuracy' in scores.get(part, {})
  }
