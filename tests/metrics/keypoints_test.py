import dataclasses

import numpy as np
import pytest

from img2graph.metrics import keypoints


def parts(found, points, **options):
  """`Keypoints` of positions in shares of the side, [0, 1]."""
  found, points = np.asarray(found, float), np.asarray(points, float)
  return keypoints.Keypoints(2 * found - 1, 2 * points - 1, **options)


def random_parts(seed, count=40, num_keypoints=3, num_points=4, **options):
  generator = np.random.default_rng(seed)
  found = generator.uniform(size=(count, num_keypoints, 2))
  points = generator.uniform(size=(count, num_points, 2))
  return parts(found, points, **options)


# Found at (1, 0) and at (0, 1), so that the annotations are the rows of the weights:
# (0.5, 0.25) and (0.1, 0.3).
FIT = parts([[[1, 0]], [[0, 1]]], [[[0.5, 0.25]], [[0.1, 0.3]]])


def test_mean_error_by_hand():
  # Regressed: half of both rows, (0.3, 0.275), 0.2 above the annotation; and the first
  # row, (0.5, 0.25), 0.4 above. The eyes are a side and half a side apart.
  test = parts(
    [[[0.5, 0.5]], [[1, 0]]], [[[0.3, 0.475]], [[0.5, 0.65]]], scale=[2.0, 1.0]
  )
  found = keypoints.mean_error(FIT, test)
  assert found == {'error_percent': pytest.approx(100 * (0.2 / 1 + 0.4 / 0.5) / 2)}


def test_mean_error_counts_visible_points_by_hand():
  # One keypoint that never moves: each point is regressed to the mean of where it was
  # seen, (0.2, 0.5) and (0.6, 0.5).
  still = [[[0.5, 0.5]]]
  fit = parts(
    still * 3,
    [[[0.1, 0.5], [0.9, 0.9]], [[0.3, 0.5], [0.6, 0.4]], [[0.9, 0.9], [0.6, 0.6]]],
    visible=[[1, 0], [1, 1], [0, 1]],
  )
  # Visible are three points, 0.1, 0.2 and 0.6 away; the hidden one counts nowhere.
  test = parts(
    still * 2,
    [[[0.2, 0.6], [0.0, 0.0]], [[0.2, 0.7], [0.6, 1.1]]],
    visible=[[1, 0], [1, 1]],
  )
  error = keypoints.mean_error(fit, test)['error_percent']
  assert error == pytest.approx(100 * (0.1 + 0.2 + 0.6) / 3)


@pytest.mark.parametrize('bias', [False, True])
def test_regression_matches_the_normal_equations(bias):
  fit, test = random_parts(0), random_parts(1)
  visible = np.random.default_rng(2).uniform(size=(40, 4)) < 0.6
  fit = dataclasses.replace(fit, visible=visible)

  def design(part):
    rows = ((part.found + 1) / 2).reshape(len(part.found), 6)
    return np.hstack([rows, np.ones((len(rows), 1))]) if bias else rows

  distances = []
  for m in range(4):
    x, y = design(fit)[visible[:, m]], (fit.points[visible[:, m], m] + 1) / 2
    beta = np.linalg.solve(x.T @ x, x.T @ y)
    distances.append(design(test) @ beta - (test.points[:, m] + 1) / 2)
  offsets = np.stack(distances, axis=1)
  if bias:
    actual = keypoints.summed_error(fit, test)['error_pixels']
    expected = 256 * np.abs(offsets).mean(axis=0).sum()
    assert actual == pytest.approx(expected, rel=1e-9)
  protocol = 'biased_error' if bias else 'mean_error'
  actual = keypoints.score(protocol, fit, test)['error_percent']
  expected = 100 * np.linalg.norm(offsets, axis=-1).mean()
  assert actual == pytest.approx(expected, rel=1e-9)


def test_pck_by_hand():
  # (0.5, 0.25) is regressed; the annotations are 5.9 and 6.1 pixels of 256 away, and a
  # third as near as can be, but hidden.
  points = [[[0.5 + 5.9 / 256, 0.25]], [[0.5, 0.25 - 6.1 / 256]], [[0.5, 0.25]]]
  test = parts([[[1, 0]]] * 3, points, visible=[[1], [1], [0]])
  assert keypoints.pck(FIT, test) == {'pck_percent': 50.0}
  assert keypoints.pck(FIT, test, pixels=6.2) == {'pck_percent': 100.0}


def test_summed_error_by_hand():
  # With a bias a keypoint may lie in the corner: x is 0.25 + found x, y always 0.5.
  fit = parts([[[0, 0]], [[0.5, 0]]], [[[0.25, 0.5]], [[0.75, 0.5]]])
  # Errors: 0.25 and 0 in x, 0 and 0.5 in y, means 0.125 and 0.25; the third is hidden.
  test = parts(
    [[[0.25, 0]], [[0, 0]], [[0, 0]]],
    [[[0.75, 0.5]], [[0.25, 1.0]], [[0, 0]]],
    visible=[[1], [1], [0]],
  )
  assert keypoints.summed_error(fit, test) == {
    'error_pixels': pytest.approx(256 * (0.125 + 0.25))
  }


# Two points that may be exchanged, found by a keypoint that never moves.
SIDES = np.array([[0.25, 0.5], [0.75, 0.5]])


def still(points):
  return parts([[[0.5, 0.5]]] * len(points), points)


def test_swapped_error_by_hand():
  fit = still([SIDES] * 24 + [SIDES[::-1]] * 12)
  # The first regression is to x = 5/12 and 7/12: of the exchanged images the annotation
  # is 1/3 away, and 1/6 the other way round. The second is to SIDES themselves.
  lower = SIDES + [0, 0.1]
  test = still([SIDES[::-1]] * 11 + [lower])
  found = keypoints.swapped_error(fit, test, swap=(1, 0))
  assert found.pop('error_percent') == pytest.approx(100 * 0.1 / 12)
  assert found == {'fit_rounds': 1, 'test_rounds': 1, 'dropped': 0}
  # Ten images that ask for it are left as they are, half a side away.
  test = still([SIDES[::-1]] * 10 + [lower])
  found = keypoints.swapped_error(fit, test, swap=(1, 0))
  assert found['error_percent'] == pytest.approx(100 * (10 * 0.5 + 0.1) / 11)
  assert found['test_rounds'] == 0


def test_swapped_error_drops_outliers_by_hand():
  # One of 11 images is a side below: all are regressed 1/11 too low. Distances are
  # 1/11, ten times, and 10/11; mean 0.1653, deviation of n - 1 0.2467: 0.9091 is beyond
  # 0.9054, and dropped. What is left is met exactly.
  fit = still([SIDES] * 10 + [SIDES + [0, 1.0]])
  found = keypoints.swapped_error(fit, still([SIDES]), swap=(1, 0))
  assert found['dropped'] == 1
  assert found['error_percent'] == pytest.approx(0, abs=1e-9)
  # With five of the others 0.1 below, all are regressed 0.1364 too low. Distances are
  # 0.1364 and 0.0364, five times each, and 0.8636; mean 0.1570, deviation 0.2396 (that
  # of n is 0.2285): 0.8636 is not beyond 0.8760.
  fit = still([SIDES] * 5 + [SIDES + [0, 0.1]] * 5 + [SIDES + [0, 1.0]])
  found = keypoints.swapped_error(fit, still([SIDES]), swap=(1, 0))
  assert found['dropped'] == 0
  assert found['error_percent'] == pytest.approx(100 * 1.5 / 11)


def test_swapped_error_matches_a_plain_loop():
  generator = np.random.default_rng(0)
  fit, test = random_parts(3, count=90), random_parts(4, count=60)
  swap = [2, 1, 0, 3]
  x, y = fit.features(False), fit.targets.copy()
  z, t = test.features(False), test.targets.copy()
  # Annotations that follow the keypoints somewhat, half of them exchanged.
  truth = generator.uniform(-0.3, 0.5, (6, 8))
  y = 0.3 * y + (x @ truth).reshape(-1, 4, 2)
  t = 0.3 * t + (z @ truth).reshape(-1, 4, 2)
  y[::2], t[::2] = y[::2][:, swap], t[::2][:, swap]
  fit, test = (
    dataclasses.replace(part, points=2 * p - 1) for part, p in ((fit, y), (test, t))
  )

  def far(regressed, targets):
    return np.array(
      [
        np.mean([np.hypot(*(a - b)) for a, b in zip(r, s, strict=True)])
        for r, s in zip(regressed, targets, strict=True)
      ]
    )

  def beta(x, y):
    return np.linalg.solve(x.T @ x, x.T @ y.reshape(len(y), -1))

  rounds = 0
  while True:
    regressed = (x @ beta(x, y)).reshape(y.shape)
    distance = far(regressed, y)
    wants = distance > far(regressed, y[:, swap])
    if wants.sum() <= 10:
      break
    y[wants] = y[wants][:, swap]
    rounds += 1
  keep = distance < distance.mean() + 3 * distance.std(ddof=1)
  regressed = (z @ beta(x[keep], y[keep])).reshape(t.shape)
  distance, other = far(regressed, t), far(regressed, t[:, swap])
  assert (distance > other).sum() > 10  # Of an exchange of two, one round is enough.
  found = keypoints.swapped_error(fit, test, swap=swap)
  assert found['fit_rounds'] == rounds >= 2
  assert found['dropped'] == (~keep).sum() >= 1
  expected = 100 * np.minimum(distance, other).mean()
  assert found['error_percent'] == pytest.approx(expected, rel=1e-9)


def test_swapping_stops_after_max_rounds():
  # Four points that go round: the annotations need two rounds to come home.
  row = np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
  fit, turn = still([row] * 12), (1, 2, 3, 0)
  test = still([row[[2, 3, 0, 1]]] * 12)
  found = [
    keypoints.swapped_error(fit, test, swap=turn, max_rounds=rounds)
    for rounds in (0, 1, 2, 100)
  ]
  assert [f['test_rounds'] for f in found] == [0, 1, 2, 2]
  errors = [f['error_percent'] for f in found]
  assert errors[0] > errors[1] > errors[2] == errors[3]
  assert errors[3] == pytest.approx(0, abs=1e-9)


def test_the_swap_of_human36m_is_that_in_print():
  expected = list(range(32))
  for a, b in (
    *((1, 6), (2, 7), (3, 8), (4, 9), (5, 10), (17, 25), (18, 26), (19, 27)),
    *((20, 28), (21, 28), (22, 30), (23, 31)),
  ):
    expected[a], expected[b] = b, a
  assert keypoints.HUMAN36M_SWAP == tuple(expected)
  part = random_parts(0, num_points=32)
  assert keypoints.score('swapped_error', part, part)['error_percent'] > 0


@pytest.mark.parametrize('protocol', keypoints.PROTOCOLS)
def test_fixed_keypoints_are_as_good_as_the_mean(protocol):
  count, num_points = (40, 32) if protocol == 'swapped_error' else (40, 4)
  fit = random_parts(0, count, num_points=num_points)
  test = random_parts(1, count, num_points=num_points)
  means = keypoints.mean_points(fit)
  np.testing.assert_allclose(means, fit.points.mean(axis=0))
  scores = keypoints.score(protocol, fit, test, seed=3)
  again = keypoints.score(protocol, fit, test, seed=4)['fixed_keypoints']
  assert scores['fixed_keypoints'] == pytest.approx(again)
  offset = (means - test.points) / 2  # [n, M, 2] in sides
  distance = np.linalg.norm(offset, axis=-1)
  expected = {
    'mean_error': 100 * distance.mean(),
    'biased_error': 100 * distance.mean(),
    'pck': 100 * (distance * 256 < 6).mean(),
    'summed_error': 256 * np.abs(offset).mean(axis=0).sum(),
  }
  if protocol in expected:
    name, value = next(iter(scores['fixed_keypoints'].items()))
    assert value == pytest.approx(expected[protocol])
    assert keypoints.headline(scores) == {
      name: scores[name],
      f'fixed_keypoints/{name}': value,
    }


def test_a_mean_is_of_the_visible_and_a_point_never_seen_is_in_the_corner():
  points = [[[0.2, 0.4], [0.9, 0.9]], [[0.6, 0.6], [0.1, 0.1]]]
  part = parts([[[0, 0]]] * 2, points, visible=[[1, 0], [0, 0]])
  np.testing.assert_allclose(keypoints.mean_points(part), [[-0.6, -0.2], [-1, -1]])
  # So is what it is regressed to: 0.9 and 0.9, 0.1 and 0.1 away.
  test = dataclasses.replace(part, visible=[[0, 1], [0, 1]])
  error = keypoints.mean_error(part, test)['error_percent']
  assert error == pytest.approx(100 * np.sqrt(2) * (0.9 + 0.1) / 2)


def test_numbering_keypoints_changes_no_score_and_only_a_bias_forgives_a_shift():
  fit, test = random_parts(0), random_parts(1)
  order = [2, 0, 1]

  def changed(change):
    return [dataclasses.replace(p, found=change(p.found)) for p in (fit, test)]

  for protocol in ('mean_error', 'biased_error', 'pck', 'summed_error'):
    expected = keypoints.score(protocol, fit, test)
    renumbered = keypoints.score(protocol, *changed(lambda f: f[:, order]))
    shifted = keypoints.score(protocol, *changed(lambda f: 0.5 * f + 0.2))
    name = next(iter(expected))
    assert renumbered[name] == pytest.approx(expected[name])
    same = shifted[name] == pytest.approx(expected[name])
    biased = protocol in ('biased_error', 'summed_error')
    assert same == biased or protocol == 'pck'


def test_scores_of_another_kind_have_no_headline():
  assert keypoints.headline({'images': 3}) == {}


FOUND, POINTS = np.zeros((3, 2, 2)), np.zeros((3, 4, 2))


@pytest.mark.parametrize(
  'values, message',
  [
    (dict(found=np.zeros((3, 2)), points=POINTS), 'found must be'),
    (dict(found=np.zeros((0, 2, 2)), points=POINTS[:0]), 'not empty'),
    (dict(found=FOUND[:2], points=POINTS), 'of the same images'),
    (dict(found=FOUND, points=POINTS, visible=np.ones((3, 2))), 'of the same images'),
    (dict(found=FOUND, points=POINTS, scale=[1, 1]), r'scale must be \[3\]; got \(2,'),
    (dict(found=FOUND, points=POINTS, scale=[1, 0, 1]), 'must be above 0; got 0'),
    (dict(found=FOUND, points=POINTS, scale=[1, np.nan, 1]), 'above 0; got nan'),
    (dict(found=FOUND, points=POINTS + np.inf), 'annotated points are not all finite'),
    (dict(found=FOUND + np.nan, points=POINTS), 'not all finite'),
  ],
)
def test_wrong_arrays_are_refused_in_one_sentence(values, message):
  with pytest.raises(ValueError, match=message):
    keypoints.Keypoints(**values)


def test_points_that_are_not_annotated_need_be_no_numbers():
  points, visible = POINTS.copy(), np.ones((3, 4))
  points[0, 1], visible[0, 1] = np.nan, 0
  assert np.isfinite(keypoints.Keypoints(FOUND, points, visible).targets).all()
  with pytest.raises(ValueError, match='points are not all finite'):
    keypoints.Keypoints(FOUND, points)


def test_parts_that_do_not_fit_are_refused_in_one_sentence():
  fit = random_parts(0)
  with pytest.raises(ValueError, match='as many annotated points; got 4 and 5'):
    keypoints.mean_error(fit, random_parts(1, num_points=5))
  with pytest.raises(ValueError, match='as many keypoints; got 3 and 2'):
    keypoints.mean_error(fit, random_parts(1, num_keypoints=2))
  with pytest.raises(ValueError, match='no point of the test part is visible'):
    keypoints.pck(fit, random_parts(1, visible=np.zeros((40, 4))))
  with pytest.raises(ValueError, match='one of the 4 points'):
    keypoints.swapped_error(fit, fit)
  hidden = dataclasses.replace(fit, visible=np.eye(40, 4))
  with pytest.raises(ValueError, match='only where all is visible'):
    keypoints.swapped_error(hidden, fit, swap=(1, 0, 3, 2))
  with pytest.raises(ValueError, match="no protocol 'f1'; there are mean_error"):
    keypoints.score('f1', fit, fit)
