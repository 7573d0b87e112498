"""Scores of keypoints found without labels: regressed to annotated points, then judged.

What a model without labels finds has no names: its K keypoints are turned into the M
points that people marked by a linear regression, fitted on the images of one part (fit)
and judged on those of another (test). All of it is in float64, and in shares of the
image side: (p + 1) / 2 of a position p in [-1, 1].

regression    The features of an image are the 2K numbers of its keypoints, with a bias
              also a constant 1; the weights of each annotated point are those of least
              squares over the images of `fit` where it is visible. Without a bias the
              origin matters: it is the upper left corner of the image. Of several
              solutions (fewer images than features, keypoints that never move) the
              smallest is taken; a point that is never visible gets zeros.
mean_error    No bias. Mean over all visible points of the test images of the distance
              between regressed and annotated point, divided by the scale of the image:
              the distance of the eyes (CelebA, MAFL), or the side of the image (CUB).
biased_error  As mean_error, but with a bias. Nobody publishes it; it tells keypoints
              that follow the image a little from those that move without reason:
              without a bias both may be worse than keypoints that never move, of which
              the regression can make the constant that it lacks.
swapped_error No bias. For people seen from all sides, left and right confused
              (Human3.6M). Fit: regress; where an image's mean distance is greater than
              that to its annotation with left and right exchanged, exchange it; again,
              until at most 10 images ask for it, which are left as they are. Then
              images whose mean distance is not less than mean + 3 standard deviations
              (n - 1) are dropped, and the weights fitted once more. Test: exchange in
              the same way with these weights, then the mean distance divided by the
              scale. The published loop has no end if two fits take turns; here it stops
              after `max_rounds`.
pck           No bias. Share of the visible points that are regressed to less than 6
              pixels of 256 from the annotation (DeepFashion); higher is better.
summed_error  With a bias. For each of the 2M coordinates the mean over the visible test
              images of the absolute error, in pixels of 256; the sum of these
              (Tai-Chi-HD). It grows with M.

Two answers that look at no image stand beside every score: K keypoints that stay at one
random place (`fixed_keypoints`) and the mean annotation of the fit part. By least
squares they are the same: constants can be regressed to the mean and to nothing better.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

# Left and right joints of the 32 of Human3.6M, by the number of the joint each becomes.
# Pairs: legs (1, 6) to (5, 10), arms (17, 25) to (23, 31). In the published code a slip
# makes (21, 29) a (21, 28): joints 20 and 21 both become 28, 28 becomes 21, and 29
# stays. Numbers in print are of that, so it is kept here.
HUMAN36M_SWAP = (
  *(0, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 16),
  *(25, 26, 27, 28, 28, 30, 31, 24, 17, 18, 19, 21, 29, 22, 23),
)
_FEW_SWAPS = 10
_OUTLIER_DEVIATIONS = 3.0
_SIDE = 256  # Pixels, of which `pck` and `summed_error` speak.


@dataclasses.dataclass(frozen=True)
class Keypoints:
  """Found and annotated points of n images; positions in [-1, 1].

  Attributes:
    found: `[n, K, 2]` float, (x, y) of the keypoints of a model.
    points: `[n, M, 2]` float, the annotated ones.
    visible: `[n, M]`, 1 where a point is annotated, else 0; None for all.
    scale: `[n]` float > 0, what distances are divided by, in the unit of the positions;
      None for the image side, 2.
  """

  found: Any
  points: Any
  visible: Any = None
  scale: Any = None

  def __post_init__(self):
    found, points = np.asarray(self.found), np.asarray(self.points)
    for name, value in (('found', found), ('points', points)):
      if value.ndim != 3 or value.shape[-1] != 2 or 0 in value.shape:
        raise ValueError(
          f'{name} must be [n, points, 2], not empty; got {value.shape}.'
        )
    count, num_points = points.shape[:2]
    visible = np.ones((count, num_points)) if self.visible is None else self.visible
    scale = np.full(count, 2.0) if self.scale is None else self.scale
    visible, scale = np.asarray(visible), np.asarray(scale, np.float64)
    if len(found) != count or visible.shape != points.shape[:2]:
      raise ValueError(
        'found, points and visible must be of the same images and points; got '
        f'{found.shape}, {points.shape} and {visible.shape}.'
      )
    if scale.shape != (count,):
      raise ValueError(f'scale must be [{count}]; got {scale.shape}.')
    if not (scale > 0).all():
      raise ValueError(
        f'each scale must be above 0; got {scale[np.argmin(scale > 0)]:g}.'
      )
    if not np.isfinite(found).all():
      raise ValueError('the keypoints that were found are not all finite.')
    if not np.isfinite(points[visible > 0]).all():
      raise ValueError('the annotated points are not all finite.')
    # Frozen, but what was given may have been lists or arrays of a device.
    object.__setattr__(self, 'found', found.astype(np.float64))
    # What is not annotated may be anything, and is multiplied with 0.
    points = np.where(np.isfinite(points), points, 0)
    object.__setattr__(self, 'points', points.astype(np.float64))
    object.__setattr__(self, 'visible', visible > 0)
    object.__setattr__(self, 'scale', scale)

  def features(self, bias):
    """`[n, 2K]` in shares of the side, or `[n, 2K + 1]` with a constant 1 behind."""
    shares = ((self.found + 1) / 2).reshape(len(self.found), -1)
    if not bias:
      return shares
    return np.concatenate([shares, np.ones((len(shares), 1))], axis=1)

  @property
  def targets(self):
    """`[n, M, 2]`, the annotated points in shares of the side."""
    return (self.points + 1) / 2


def fit_regression(features, targets, visible):
  """Weights of least squares, for each point over the images where it is visible.

  Args:
    features: `[n, F]` float.
    targets: `[n, M, 2]` float.
    visible: `[n, M]` bool.

  Returns:
    `[F, M, 2]` float64; zeros for a point that is never visible.
  """
  num_features, num_points = features.shape[1], targets.shape[1]
  if visible.all():  # All points at once.
    flat = targets.reshape(len(targets), -1)
    weights = np.linalg.lstsq(features, flat, rcond=None)[0]
    return weights.reshape(num_features, num_points, 2)
  weights = np.zeros((num_features, num_points, 2))
  for m in range(num_points):
    rows = visible[:, m]
    if rows.any():
      weights[:, m] = np.linalg.lstsq(features[rows], targets[rows, m], rcond=None)[0]
  return weights


def regress(features, weights):
  """Regressed points `[n, M, 2]` of features `[n, F]` and weights `[F, M, 2]`."""
  return np.einsum('nf,fmc->nmc', features, weights)


def _check_parts(fit, test):
  """Raises ValueError unless the parts are of the same points and keypoints."""
  for name, what in (('points', 'annotated points'), ('found', 'keypoints')):
    here, there = getattr(fit, name).shape[1], getattr(test, name).shape[1]
    if here != there:
      raise ValueError(
        f'the fit and test parts must have as many {what}; got {here} and {there}.'
      )
  if not test.visible.any():
    raise ValueError('no point of the test part is visible.')


def _regressed(fit, test, bias):
  """Regressed minus annotated points of the test part, `[n, M, 2]` in sides."""
  _check_parts(fit, test)
  weights = fit_regression(fit.features(bias), fit.targets, fit.visible)
  return regress(test.features(bias), weights) - test.targets


def mean_error(fit, test, *, bias=False):
  """Mean distance over scale, see the top of the file.

  Args:
    fit: `Keypoints` that the regression is fitted on.
    test: `Keypoints` that are judged.
    bias: whether the regression has one.

  Returns:
    {'error_percent': float >= 0}, of the scale.
  """
  distance = np.linalg.norm(_regressed(fit, test, bias), axis=-1)  # [n, M]
  # Scales are in units of [-1, 1], of which a side has two.
  share = distance / (test.scale[:, None] / 2)
  return {'error_percent': float(100 * share[test.visible].mean())}


def pck(fit, test, *, pixels=6.0):
  """Share of the points within some pixels of 256, see the top of the file.

  Args:
    fit: `Keypoints` that the regression is fitted on.
    test: `Keypoints` that are judged.
    pixels: the distance that a correct point is below.

  Returns:
    {'pck_percent': float in [0, 100]}.
  """
  distance = np.linalg.norm(_regressed(fit, test, bias=False), axis=-1)
  correct = distance * _SIDE < pixels
  return {'pck_percent': float(100 * correct[test.visible].mean())}


def summed_error(fit, test):
  """Summed absolute error of all coordinates, see the top of the file.

  Args:
    fit: `Keypoints` that the regression is fitted on.
    test: `Keypoints` that are judged.

  Returns:
    {'error_pixels': float >= 0}, pixels of 256; a point that is visible in no test
    image adds nothing.
  """
  error = np.abs(_regressed(fit, test, bias=True)) * _SIDE  # [n, M, 2]
  seen = test.visible[..., None]
  count = np.maximum(seen.sum(axis=0), 1)
  return {'error_pixels': float(((error * seen).sum(axis=0) / count).sum())}


def swapped_error(fit, test, *, swap=HUMAN36M_SWAP, max_rounds=100):
  """Mean distance over scale with left and right free, see the top of the file.

  Args:
    fit: `Keypoints` that the regression is fitted on; all points visible.
    test: `Keypoints` that are judged; likewise.
    swap: `[M]` int: exchanged point i is annotated point swap[i].
    max_rounds: rounds of exchanging at most, in either part.

  Returns:
    {'error_percent': float >= 0, of the scale, 'fit_rounds': int, 'test_rounds': int,
    'dropped': int}; rounds being those in which annotations were exchanged.

  Raises:
    ValueError: `swap` is not of the annotated points, or some of those are hidden.
  """
  _check_parts(fit, test)
  swap = np.asarray(swap)
  num_points = fit.points.shape[1]
  if swap.shape != (num_points,) or not np.isin(swap, np.arange(num_points)).all():
    raise ValueError(
      f'swap must name one of the {num_points} points for each; got {swap.shape}.'
    )
  if not (fit.visible.all() and test.visible.all()):
    raise ValueError('left and right can be exchanged only where all is visible.')
  features = fit.features(bias=False)
  inverse = np.linalg.pinv(features)  # The features stay, whatever is exchanged.

  def regress_fit(targets):
    return np.einsum(
      'nf,fmc->nmc', features, np.einsum('fn,nmc->fmc', inverse, targets)
    )

  targets, distance, fit_rounds = _exchange(regress_fit, fit.targets, swap, max_rounds)
  kept = distance < distance.mean() + _OUTLIER_DEVIATIONS * _deviation(distance)
  if not kept.any():  # All the same: none is an outlier.
    kept[:] = True
  weights = fit_regression(features[kept], targets[kept], fit.visible[kept])
  regressed = regress(test.features(bias=False), weights)
  _, distance, test_rounds = _exchange(
    lambda targets: regressed, test.targets, swap, max_rounds
  )
  return {
    'error_percent': float(100 * (distance / (test.scale / 2)).mean()),
    'fit_rounds': fit_rounds,
    'test_rounds': test_rounds,
    'dropped': int((~kept).sum()),
  }


def _deviation(values):
  """Standard deviation of n - 1; 0 of a single value."""
  return values.std(ddof=1) if len(values) > 1 else 0.0


def _exchange(regress_to, targets, swap, max_rounds):
  """Exchanges left and right of annotations `[n, M, 2]` that are nearer exchanged.

  Returns:
    the annotations, the mean distance `[n]` of each image, and the number of rounds.
  """
  targets = targets.copy()
  for done in range(max_rounds + 1):
    regressed = regress_to(targets)
    exchanged = targets[:, swap]
    distance = np.linalg.norm(regressed - targets, axis=-1).mean(axis=1)
    other = np.linalg.norm(regressed - exchanged, axis=-1).mean(axis=1)
    nearer = distance > other
    if nearer.sum() <= _FEW_SWAPS or done == max_rounds:
      return targets, distance, done
    targets[nearer] = exchanged[nearer]


def fixed_keypoints(count, num_keypoints, *, seed):
  """K random places, the same in all images: what knows nothing of the image.

  Args:
    count: number of images n.
    num_keypoints: K.
    seed: int >= 0.

  Returns:
    `[n, K, 2]` float64, uniform in [-1, 1].
  """
  places = np.random.default_rng(seed).uniform(-1, 1, (num_keypoints, 2))
  return np.broadcast_to(places, (count, num_keypoints, 2))


def mean_points(fit):
  """Mean annotation of each point over the images of `fit` where it is visible.

  Args:
    fit: `Keypoints`.

  Returns:
    `[M, 2]` float64 in [-1, 1]; the upper left corner for a point never visible.
  """
  seen = fit.visible[..., None]
  count = seen.sum(axis=0)
  mean = (fit.points * seen).sum(axis=0) / np.maximum(count, 1)
  return np.where(count > 0, mean, -1.0)


# Name -> function (fit, test) -> {name: number}, the first being the headline.
PROTOCOLS = {
  'mean_error': mean_error,
  'biased_error': functools.partial(mean_error, bias=True),
  'swapped_error': swapped_error,
  'pck': pck,
  'summed_error': summed_error,
}


def score(protocol, fit, test, *, seed=0):
  """Scores of one protocol, with those of fixed keypoints beside them.

  Args:
    protocol: of `PROTOCOLS`.
    fit: `Keypoints` that the regression is fitted on.
    test: `Keypoints` that are judged.
    seed: of the fixed keypoints.

  Returns:
    dict: what the protocol's function returns, and under 'fixed_keypoints' the same of
    keypoints at random fixed places.

  Raises:
    ValueError: there is no such protocol, or the parts do not fit it.
  """
  check_protocol(protocol)
  rate = PROTOCOLS[protocol]
  num_keypoints = fit.found.shape[1]
  blind = [
    dataclasses.replace(
      part, found=fixed_keypoints(len(part.found), num_keypoints, seed=seed)
    )
    for part in (fit, test)
  ]
  return rate(fit, test) | {'fixed_keypoints': rate(*blind)}


def check_protocol(protocol):
  """Raises ValueError unless there is a protocol of that name."""
  if protocol not in PROTOCOLS:
    known = ', '.join(PROTOCOLS)
    raise ValueError(f'there is no protocol {protocol!r}; there are {known}.')


def headline(scores):
  """The figure to look at first, with that of fixed keypoints.

  Args:
    scores: as from `score`.

  Returns:
    flat dict, `{'error_percent': ..., 'fixed_keypoints/error_percent': ...}` or the
    like; empty if the scores are of another kind.
  """
  if 'fixed_keypoints' not in scores:
    return {}
  blind = scores['fixed_keypoints']
  name = next(iter(blind))
  return {name: scores[name], f'fixed_keypoints/{name}': blind[name]}
