"""Affinity supervision of mini-batches: a classifier whose batch is a graph.

Wang et al., "Affinity Graph Supervision for Visual Recognition" (2020), section 5: the
images of a batch are the nodes, their affinities the negative half squared distances of
the features that the classifier sees, and those between images of one class should have
the mass (`losses.affinity`). The loss is cross entropy + weight x affinity loss.

The affinities are those of the whole batch, on however many devices it lies.

Letters: B batch, S side, C classes, D features.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from img2graph import ranges
from img2graph.encoding import resnet
from img2graph.losses import affinity as losses
from img2graph.methods import base

NETWORKS = {'cifar': resnet.CifarResNet, 'imagenet': resnet.ResNet}
METRICS = {
  'distance': losses.distance_affinity,
  'product': losses.product_affinity,
}
# The options of the affinity loss; a weight has to be given.
_AFFINITY = dict(
  weight=None,
  metric='distance',
  diagonal=False,
  form='focal',
  gamma=2.0,
  mass='matrix',
)


def affinity_matrix(features, *, metric='distance'):
  """The affinities that the loss supervises.

  Args:
    features: `[N, D]` float.
    metric: of `METRICS`.

  Returns:
    `[N, N]` float32, symmetric.

  Raises:
    ValueError: there is no such metric.
  """
  if metric not in METRICS:
    raise ValueError(
      f'method.affinity.metric must be one of {", ".join(METRICS)}; got {metric!r}.'
    )
  return METRICS[metric](features)


class Classifier(nn.Module):
  """A network that sees colours of mean 0 and deviation 1.

  Attributes:
    network: `(images, train) -> (features, logits)`.
    mean: of the colours, three numbers in [0, 1].
    deviation: of the colours, three positive numbers.
  """

  network: nn.Module
  mean: tuple[float, ...]
  deviation: tuple[float, ...]

  @nn.compact
  def __call__(self, images, *, train=False):
    """`[B, S, S, 3]` in [0, 1] -> (features `[B, D]`, logits `[B, C]`), float32."""
    mean, deviation = (
      jnp.asarray(v)[None, None, None] for v in (self.mean, self.deviation)
    )
    return self.network((images - mean) / deviation, train=train)


def build(
  *,
  train_steps,
  precision,
  network,
  affinity,
  side,
  mean=(0.5,) * 3,
  deviation=(0.25,) * 3,
):
  """The method, from the values of `config.method`.

  Args:
    train_steps: not used: nothing here has a schedule.
    precision: 'float32' or 'bfloat16', of the activations of convolutions.
    network: {'kind': 'cifar' or 'imagenet', 'num_classes', ...}, the options of
      `resnet.CifarResNet` or `resnet.ResNet`.
    affinity: None for the classifier alone; or {'weight': lambda >= 0, 'metric':
      'distance' or 'product', 'diagonal': whether an image's affinity to itself takes
      part, ...}, the options of `losses.affinity.affinity_loss`. With a weight of 0
      the mass is told and changes nothing.
    side: of the images in pixels.
    mean: of the colours of the training images.
    deviation: of the colours of the training images.

  Returns:
    A `base.Method` whose loss needs `batch['label']` `[B]` int, and that classifies.

  Raises:
    ValueError: there is no option of that name, or a value is wrong.
  """
  del train_steps
  if precision not in ('float32', 'bfloat16'):
    raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}.")
  ranges.as_number('method.side', side, **ranges.COUNT)
  _check_colours(mean, deviation)
  model = Classifier(
    network=_build_network(dtype=jnp.dtype(precision), **network),
    mean=tuple(mean),
    deviation=tuple(deviation),
  )
  affinity_fn = None if affinity is None else _build_affinity(affinity)

  def init(key, batch):
    return model.init(key, batch['image'], train=True)

  def loss_fn(variables, batch, key, step):
    del key, step
    labels = batch['label']
    collections = [name for name in variables if name != 'params']
    (features, logits), updated = model.apply(
      variables, batch['image'], train=True, mutable=collections
    )
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    value, metrics = entropy, {'cross_entropy': entropy}
    if affinity_fn is not None:
      more, metrics_of_graph = affinity_fn(features, labels)
      value, metrics = value + more, metrics | metrics_of_graph
    metrics['accuracy'] = (logits.argmax(-1) == labels).mean()
    return value, {'metrics': metrics, 'collections': updated}

  def classify(variables, images):
    return model.apply(variables, images)

  return base.Method(
    init=init,
    loss=loss_fn,
    classify=classify,
    num_classes=model.network.num_classes,
    sides=(side,),
    only_sides=True,
    channels=3,
  )


def _build_network(*, dtype, kind=None, **options):
  if kind not in NETWORKS:
    raise ValueError(
      f'method.network.kind must be one of {", ".join(NETWORKS)}; got {kind!r}.'
    )
  network = NETWORKS[kind]
  fields = [f.name for f in dataclasses.fields(network) if f.init]
  known = [name for name in fields if name not in ('dtype', 'parent', 'name')]
  _check_names('method.network', options, ('kind', *known))
  try:
    return network(dtype=dtype, **options)
  except ValueError as error:
    raise ValueError(f'method.network.{error}') from None


def _check_colours(mean, deviation):
  for name, values in (('mean', mean), ('deviation', deviation)):
    if len(values) != 3 or not all(map(math.isfinite, values)):
      raise ValueError(f'method.{name} must be three numbers; got {tuple(values)}.')
  if min(deviation) <= 0:
    raise ValueError(
      f'method.deviation must be three numbers above 0; got {tuple(deviation)}.'
    )


def _check_names(place, options, known):
  for name in options:
    if name not in known:
      raise ValueError(
        f'{place}.{name} is not an option; the options are {", ".join(known)}.'
      )


def _build_affinity(options):
  """`(features, labels) -> (weighted loss, metrics)`."""
  _check_names('method.affinity', options, _AFFINITY)
  options = _AFFINITY | dict(options)
  for name in ('weight', 'gamma'):
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f'method.affinity.{name} must be a number; got {value!r}.')
    if not 0 <= value < math.inf:
      raise ValueError(
        f'method.affinity.{name} must be finite and not negative; got {value}.'
      )
  for name, known in (
    ('metric', METRICS),
    ('diagonal', (True, False)),
    ('form', losses.FORMS),
    ('mass', losses.MASSES),
  ):
    if options[name] not in known:
      raise ValueError(
        f'method.affinity.{name} must be one of {", ".join(map(str, known))}; '
        f'got {options[name]!r}.'
      )
  weight, metric, diagonal = (options.pop(n) for n in ('weight', 'metric', 'diagonal'))

  def affinity_fn(features, labels):
    if weight == 0:
      features = jax.lax.stop_gradient(features)
    include = True if diagonal else losses.without_self(len(labels))
    value, mass = losses.affinity_loss(
      affinity_matrix(features, metric=metric),
      losses.same_class(labels),
      include=include,
      **options,
    )
    return weight * value, {'affinity': value, 'target_mass': mass}

  return affinity_fn
