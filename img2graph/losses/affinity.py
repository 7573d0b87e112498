"""Affinity graphs and their supervision: target mass and the losses on it.

Wang et al., "Affinity Graph Supervision for Visual Recognition" (2020). N entities
(images of a mini-batch, or regions of an image) are the nodes of a graph whose affinity
matrix W `[..., N, N]` comes from their features. A target T selects the entries that
should gain weight, and the target mass is what they have of a softmax,

  M = sum of softmax(W) over T                              equation 3, 'matrix'
  M_i = sum of softmax(W_i) over T_i, one for each row      equation 12, 'row'

The losses (x = 1 - M):

  'focal'      -(1 - M)^gamma log M                         equations 7, 13 and 14
  'log'        -log M                                       supplement F
  'l2'         x^2                                          equation 5
  'smooth_l1'  x^2 if x < 1/2, else x - 1/4                 equation 6
  'entry'      cross entropy of sigmoid(W) with T           equation 15, without a mass

Masses of rows, and entries, are summed, as the paper does. What takes part is a mask of
its own, `include`: the paper does not say whether an entity's affinity to itself does.
What is left out is in neither the softmax nor the target. Where the target is empty
there is nothing to learn: the loss is 0, and its gradient too.

Everything is float32, and the mass is worked out in logarithms, so that a mass of 1e-30
still has its gradient. Leading axes (images, attention heads) are graphs of their own.
"""

import jax
import jax.numpy as jnp
import optax

FORMS = ('focal', 'log', 'l2', 'smooth_l1', 'entry')
MASSES = ('matrix', 'row')


def distance_affinity(features):
  """Negative half squared distances: equation 11.

  Products, not differences, of the features, so no `[N, N, D]` array is made. The mean
  is taken off first, which changes no distance but the rounding of the products.

  Args:
    features: `[..., N, D]` float.

  Returns:
    `[..., N, N]` float32 <= 0, symmetric, exactly 0 on the diagonal.
  """
  x = features.astype(jnp.float32)
  x = x - jax.lax.stop_gradient(x.mean(-2, keepdims=True))
  half = (x**2).sum(-1) / 2
  affinity = _products(x, x) - half[..., :, None] - half[..., None, :]
  same = jnp.eye(x.shape[-2], dtype=bool)
  return jnp.where(same, 0.0, jnp.minimum(affinity, 0.0))


def product_affinity(keys, queries=None):
  """Scaled dot products: equation 9.

  Args:
    keys: `[..., N, D]` float.
    queries: `[..., N, D]` float; None for the keys themselves.

  Returns:
    `[..., N, N]` float32, key m with query n, divided by the root of D.
  """
  keys = keys.astype(jnp.float32)
  queries = keys if queries is None else queries.astype(jnp.float32)
  return _products(keys, queries) / jnp.sqrt(jnp.float32(keys.shape[-1]))


def _products(a, b):
  return jnp.einsum('...md,...nd->...mn', a, b, precision=jax.lax.Precision.HIGHEST)


def same_class(labels):
  """Pairs of one class: section 5.2.

  Args:
    labels: `[..., N]` int.

  Returns:
    `[..., N, N]` bool, true on the diagonal.
  """
  return labels[..., :, None] == labels[..., None, :]


def different_class(labels):
  """Pairs of two classes, as `same_class`; false on the diagonal."""
  return ~same_class(labels)


def different_instance(instances):
  """Pairs of two instances, of the same class or not: supplement E.

  Args:
    instances: `[..., N]` int, a number for each thing.

  Returns:
    `[..., N, N]` bool, false on the diagonal.
  """
  return ~same_class(instances)


def box_target(boxes, true_boxes, true_labels, *, by='class', overlap=0.5):
  """Pairs of regions that lie on different true objects: section 4.1, supplement E.

  Entry (a, b) is true if there are true objects i and j of different classes, where
  region a overlaps with i and b with j by more than `overlap`, as intersection over
  union. A region may overlap with several objects.

  Args:
    boxes: `[..., N, 4]` float, (x0, y0, x1, y1) of the regions.
    true_boxes: `[..., G, 4]` float, of the objects.
    true_labels: `[..., G]` int, their classes; negative for padding.
    by: 'class', or 'instance' for any two different objects.
    overlap: in (0, 1).

  Returns:
    `[..., N, N]` bool, symmetric.

  Raises:
    ValueError: `by` is unknown.
  """
  if by not in ('class', 'instance'):
    raise ValueError(f"by must be 'class' or 'instance'; got {by!r}.")
  there = true_labels >= 0
  lies_on = (iou(boxes, true_boxes) > overlap) & there[..., None, :]
  count = true_labels.shape[-1]
  apart = different_class(true_labels) if by == 'class' else ~jnp.eye(count, dtype=bool)
  on = lies_on.astype(jnp.float32)
  apart = jnp.broadcast_to(apart, (*true_labels.shape, count)).astype(jnp.float32)
  return jnp.einsum('...ai,...ij,...bj->...ab', on, apart, on) > 0


def iou(a, b):
  """Intersection over union of boxes.

  Args:
    a: `[..., N, 4]` float, (x0, y0, x1, y1).
    b: `[..., G, 4]` float.

  Returns:
    `[..., N, G]` float in [0, 1]; 0 where both boxes are empty.
  """
  a, b = a[..., :, None, :], b[..., None, :, :]

  def area(low, high):
    return jnp.prod(jnp.maximum(high - low, 0), axis=-1)

  low = jnp.maximum(a[..., :2], b[..., :2])
  high = jnp.minimum(a[..., 2:], b[..., 2:])
  both = area(low, high)
  union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - both
  return both / jnp.where(union > 0, union, 1)


def without_self(count):
  """`include` for graphs without an entity's affinity to itself: `[N, N]` bool."""
  return ~jnp.eye(count, dtype=bool)


def log_target_mass(affinity, target, *, include=True, mass='matrix'):
  """Logarithm of the target mass.

  Args:
    affinity: `[..., N, N]` float.
    target: `[..., N, N]` bool.
    include: `[..., N, N]` bool, the entries that take part; True for all.
    mass: 'matrix' or 'row'.

  Returns:
    (`[...]` or, for rows, `[..., N]` float32 <= 0; the same shape of bool, whether
    there is any target), 0 and false where there is none.

  Raises:
    ValueError: `mass` is unknown.
  """
  if mass not in MASSES:
    raise ValueError(f'mass must be one of {", ".join(MASSES)}; got {mass!r}.')
  axes = (-2, -1) if mass == 'matrix' else (-1,)
  affinity, target, include = _take_part(affinity, target, include)
  some = target.any(axes)
  # An empty sum has no logarithm: without any target, all that takes part counts.
  none = ~jnp.expand_dims(some, axes)
  chosen = jnp.where(none, True, target)
  every = jnp.where(none, True, include)
  found = _log_sum(affinity, chosen, axes) - _log_sum(affinity, every, axes)
  return jnp.where(some, jnp.minimum(found, 0.0), 0.0), some


def _take_part(affinity, target, include):
  affinity = affinity.astype(jnp.float32)
  include = jnp.broadcast_to(jnp.asarray(include, bool), affinity.shape)
  return affinity, jnp.broadcast_to(target, affinity.shape) & include, include


def _log_sum(affinity, chosen, axes):
  return jax.nn.logsumexp(affinity, axis=axes, where=chosen)


def affinity_loss(
  affinity, target, *, form='focal', gamma=2.0, mass='matrix', include=True
):
  """The affinity loss L_G of each graph.

  Args:
    affinity: `[..., N, N]` float.
    target: `[..., N, N]` bool.
    form: of `FORMS`, see above.
    gamma: of 'focal', >= 0; 0 is 'log'.
    mass: 'matrix' or 'row'; 'entry' has none.
    include: `[..., N, N]` bool, the entries that take part; True for all.

  Returns:
    (`[...]` float32 >= 0, the loss; `[...]` float32 in [0, 1], the target mass, of rows
    the mean over those that have a target; 0 where there is no target).

  Raises:
    ValueError: `form`, `mass` or `gamma` is wrong.
  """
  if form not in FORMS:
    raise ValueError(f'form must be one of {", ".join(FORMS)}; got {form!r}.')
  if gamma < 0:
    raise ValueError(f'gamma must not be negative; got {gamma}.')
  log_mass, some = log_target_mass(affinity, target, include=include, mass=mass)
  found = jnp.where(some, jnp.exp(log_mass), 0.0)
  if form == 'entry':
    affinity, target, include = _take_part(affinity, target, include)
    entropy = optax.sigmoid_binary_cross_entropy(affinity, target.astype(jnp.float32))
    value = jnp.where(include & target.any((-2, -1), keepdims=True), entropy, 0.0)
    value = value.sum((-2, -1))
  else:
    value = jnp.where(some, _on_mass(form, gamma, log_mass), 0.0)
    value = value.sum(-1) if mass == 'row' else value
  if mass == 'row':
    found = found.sum(-1) / jnp.maximum(some.sum(-1), 1)
  return value, found


def _on_mass(form, gamma, log_mass):
  rest = -jnp.expm1(log_mass)  # 1 - M, exact for a mass near 1.
  if form == 'l2':
    return rest**2
  if form == 'smooth_l1':
    return jnp.where(rest < 0.5, rest**2, rest - 0.25)
  if form == 'log' or gamma == 0:
    return -log_mass
  # A power below 1 has an infinite slope at 0.
  return -(jnp.maximum(rest, 1e-30) ** gamma) * log_mass
