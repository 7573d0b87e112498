"""Tests of img2graph/losses/affinity.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

from img2graph.losses import affinity
from img2graph.training import parallel

LABELS = np.array([0, 1, 0, 2, 1, 0, 3])


def features(seed=0, count=7, size=5, scale=1.0):
  return scale * np.random.default_rng(seed).normal(size=(count, size))


def direct(x, labels, form, gamma, mass, diagonal):
  """(loss, mass) in float64, entry by entry."""
  n = len(x)
  w = np.array([[-((x[i] - x[j]) ** 2).sum() / 2 for j in range(n)] for i in range(n)])
  pairs = [(i, j) for i in range(n) for j in range(n) if diagonal or i != j]
  target = {(i, j) for i, j in pairs if labels[i] == labels[j]}
  if mass == 'matrix':
    groups = [pairs]
  else:
    groups = [[p for p in pairs if p[0] == i] for i in range(n)]
  loss, masses = 0.0, []
  for group in groups:
    if not target & set(group):
      continue
    total = sum(np.exp(w[p]) for p in group)
    m = sum(np.exp(w[p]) for p in group if p in target) / total
    masses.append(m)
    x_ = 1 - m
    loss += {
      'focal': -(x_**gamma) * np.log(m),
      'log': -np.log(m),
      'l2': x_**2,
      'smooth_l1': x_**2 if x_ < 0.5 else x_ - 0.25,
      'entry': 0.0,
    }[form]
  if form == 'entry' and target:
    p = {k: 1 / (1 + np.exp(-w[k])) for k in pairs}
    loss = -sum(np.log(p[k]) if k in target else np.log(1 - p[k]) for k in pairs)
  return loss, np.mean(masses) if masses else 0.0


def loss_of(x, labels, *, diagonal=False, **options):
  include = True if diagonal else affinity.without_self(len(labels))
  matrix = affinity.distance_affinity(x)
  target = affinity.same_class(jnp.asarray(labels))
  return affinity.affinity_loss(matrix, target, include=include, **options)


@pytest.mark.parametrize('diagonal', [False, True])
@pytest.mark.parametrize('mass', affinity.MASSES)
@pytest.mark.parametrize('form', affinity.FORMS)
def test_every_form_is_its_equation(form, mass, diagonal):
  # Off the diagonal no sigmoid of a distance is near 1, whose log(1 - p) is infinite.
  for scale in (0.3, 1.0):
    x = features(scale=scale)
    options = dict(form=form, gamma=3.0, mass=mass)
    found = loss_of(x, LABELS, diagonal=diagonal, **options)
    expected = direct(x, LABELS, diagonal=diagonal, **options)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize('form', affinity.FORMS)
def test_gradients_are_those_of_finite_differences(form):
  for mass in affinity.MASSES:
    f = functools.partial(loss_of, labels=LABELS, form=form, mass=mass, gamma=2.0)
    with jax.enable_x64(True):
      x = jnp.asarray(features(scale=0.5), jnp.float32)
      check_grads(lambda x, f=f: f(x)[0], (x,), order=1, modes='rev', rtol=2e-2)


@pytest.mark.parametrize('diagonal', [False, True])
@pytest.mark.parametrize('mass', affinity.MASSES)
@pytest.mark.parametrize('form', affinity.FORMS)
def test_neither_order_nor_names_of_classes_count(form, mass, diagonal):
  x, order = features(scale=0.5), np.random.default_rng(1).permutation(7)
  names = np.array([5, 3, 9, 0])

  def f(x, labels):
    options = dict(form=form, mass=mass, gamma=2.0, diagonal=diagonal)
    return jax.value_and_grad(loss_of, has_aux=True)(x, labels, **options)

  x = jnp.float32(x)
  expected, slope = f(x, LABELS)
  assert expected[0] > 0.1 and abs(slope).max() > 0.01
  found, moved = f(x[order], LABELS[order])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(moved, slope[order], rtol=1e-4, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, f(x, names[LABELS]), (expected, slope))


@pytest.mark.parametrize('mass', affinity.MASSES)
@pytest.mark.parametrize('form', affinity.FORMS)
def test_without_a_pair_there_is_no_loss_and_no_gradient(form, mass):
  f = functools.partial(loss_of, labels=np.arange(7), form=form, mass=mass)
  (value, found), grad = jax.value_and_grad(f, has_aux=True)(jnp.float32(features()))
  assert value == 0 and found == 0 and not grad.any()


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('scale', [0.0, 1.0, 40.0])
def test_extreme_masses_have_finite_gradients(gamma, scale):
  # Equal features; masses that underflow; two classes whose mass is 1.
  for labels, x in (
    (LABELS, features(scale=scale)),
    (np.repeat([0, 1], 4), scale * np.repeat(np.eye(2), 4, axis=0)),
  ):
    f = functools.partial(loss_of, labels=labels, gamma=gamma)
    (value, _), grad = jax.value_and_grad(f, has_aux=True)(jnp.float32(x))
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_mass_that_underflows_still_pulls():
  x = jnp.float32([[0.0], [0.0], [30.0]])  # The pair (0, 2) has a mass of e^-450.
  grad = jax.grad(lambda x: loss_of(x, [0, 1, 0], gamma=0.0)[0])(x)
  assert grad[2, 0] > 1  # Downhill is towards the first.


def test_a_descent_raises_the_mass():
  x = jnp.float32(features(scale=2.0))
  before = loss_of(x, LABELS)[1]
  step = jax.jit(jax.grad(lambda x: loss_of(x, LABELS)[0]))
  for _ in range(200):
    x = x - 0.1 * step(x)
  assert before < 0.5 and loss_of(x, LABELS)[1] > 0.9


def test_leading_axes_are_graphs_of_their_own():
  x = np.stack([features(0), features(1)])
  labels = np.stack([LABELS, LABELS[::-1]])
  matrix = affinity.distance_affinity(jnp.asarray(x))
  for mass in affinity.MASSES:
    target = affinity.same_class(jnp.asarray(labels))
    loss, found = affinity.affinity_loss(matrix, target, mass=mass)
    for i in range(2):
      one = loss_of(x[i], labels[i], mass=mass, diagonal=True)
      np.testing.assert_allclose((loss[i], found[i]), one, rtol=1e-5)


def test_what_is_left_out_changes_nothing():
  matrix = affinity.distance_affinity(jnp.asarray(features()))
  target = affinity.same_class(jnp.asarray(LABELS))
  there = np.arange(7) < 5  # Two are padding.
  include = there[:, None] & there[None]
  for options in (dict(), dict(mass='row'), dict(form='entry')):
    found = affinity.affinity_loss(matrix, target, include=include, **options)
    few = affinity.affinity_loss(matrix[:5, :5], target[:5, :5], **options)
    np.testing.assert_allclose(found, few, rtol=1e-6)


def test_distances_far_from_the_origin_and_in_bfloat16():
  x = features(size=64)
  expected = -((x[:, None] - x[None]) ** 2).sum(-1) / 2
  far = affinity.distance_affinity(jnp.float32(x) + 100)
  np.testing.assert_allclose(far, expected, rtol=1e-3, atol=1e-3)
  rough = jnp.asarray(x, jnp.bfloat16)
  exact = np.asarray(rough, np.float64)
  expected = -((exact[:, None] - exact[None]) ** 2).sum(-1) / 2
  np.testing.assert_allclose(
    affinity.distance_affinity(rough), expected, rtol=1e-5, atol=1e-4
  )


def test_distances_make_no_array_of_all_differences():
  x = jnp.zeros((64, 32))
  jaxpr = jax.make_jaxpr(jax.grad(lambda x: affinity.distance_affinity(x).sum()))(x)
  largest = max(v.aval.size for e in jaxpr.eqns for v in e.outvars)
  assert largest <= 64 * 64


def test_products_are_scaled():
  keys, queries = features(0), features(1)
  found = affinity.product_affinity(jnp.asarray(keys), jnp.asarray(queries))
  np.testing.assert_allclose(found, keys @ queries.T / np.sqrt(5), rtol=1e-5)
  np.testing.assert_allclose(
    affinity.product_affinity(jnp.asarray(keys)), keys @ keys.T / np.sqrt(5), rtol=1e-5
  )


def test_targets_of_labels():
  same = np.array([[a == b for b in LABELS] for a in LABELS])
  np.testing.assert_array_equal(affinity.same_class(jnp.asarray(LABELS)), same)
  np.testing.assert_array_equal(affinity.different_class(jnp.asarray(LABELS)), ~same)
  np.testing.assert_array_equal(
    affinity.different_instance(jnp.arange(3)), ~np.eye(3, dtype=bool)
  )


def overlap(a, b):
  """Intersection over union of whole-numbered boxes, by counting cells."""
  cells = [
    {(x, y) for x in range(x0, x1) for y in range(y0, y1)} for x0, y0, x1, y1 in (a, b)
  ]
  union = len(cells[0] | cells[1])
  return len(cells[0] & cells[1]) / union if union else 0.0


@pytest.mark.parametrize('by', ['class', 'instance'])
def test_targets_of_boxes_are_those_of_the_definition(by):
  rng = np.random.default_rng(3)
  corner, size = rng.integers(0, 8, (4, 2)), rng.integers(3, 8, (4, 2))
  true_boxes = np.concatenate([corner, corner + size], -1)
  # Regions are true boxes, moved by a cell; one is empty.
  boxes = true_boxes[rng.integers(0, 4, 12)] + rng.integers(-1, 2, (12, 1))
  boxes[5, 2:] = boxes[5, :2]
  labels = np.array([0, 1, 0, -1])  # The last is padding.
  expected = np.zeros((12, 12), bool)
  for a in range(12):
    for b in range(12):
      for i in range(3):
        for j in range(3):
          apart = labels[i] != labels[j] if by == 'class' else i != j
          near = overlap(boxes[a], true_boxes[i]), overlap(boxes[b], true_boxes[j])
          expected[a, b] |= apart and min(near) > 0.5
  found = affinity.box_target(
    *(jnp.asarray(v, jnp.float32) for v in (boxes, true_boxes)),
    jnp.asarray(labels),
    by=by,
  )
  assert expected.any() and not expected.all()
  np.testing.assert_array_equal(found, expected)


def test_boxes_overlap_as_cells_are_counted():
  rng = np.random.default_rng(4)
  corner, size = rng.integers(0, 5, (9, 2)), rng.integers(0, 5, (9, 2))
  boxes = np.concatenate([corner, corner + size], -1)
  expected = [[overlap(a, b) for b in boxes] for a in boxes]
  found = affinity.iou(jnp.float32(boxes), jnp.float32(boxes))
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('mass', affinity.MASSES)
@pytest.mark.parametrize('form', affinity.FORMS)
def test_the_matrix_of_several_devices_is_that_of_the_whole_batch(form, mass):
  x, labels = np.float32(features(count=8)), np.array([0, 1, 2, 3, 0, 1, 2, 3])
  f = lambda x, y: loss_of(x, y, form=form, mass=mass)  # noqa: E731
  f = jax.jit(jax.value_and_grad(f, has_aux=True))
  alone = f(x, labels)
  mesh = parallel.make_mesh()
  assert mesh.size == jax.device_count() == 4
  spread = NamedSharding(mesh, PartitionSpec('data'))
  # On each device alone, no class has a pair.
  found = f(jax.device_put(x, spread), jax.device_put(labels, spread))
  assert len(found[1].sharding.device_set) == 4
  assert alone[0][0] > 0.1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, alone
  )


@pytest.mark.parametrize(
  'options', [dict(form='l3'), dict(mass='column'), dict(gamma=-1.0)]
)
def test_wrong_options_are_named(options):
  with pytest.raises(ValueError, match=str(next(iter(options.values())))):
    loss_of(features(), LABELS, **options)
  with pytest.raises(ValueError, match="got 'box'"):
    affinity.box_target(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.zeros(1), by='box')
