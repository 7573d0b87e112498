"""Tests of img2graph/charts.py."""

import numpy as np
import pytest

from img2graph import charts


def where(picture, colour):
  """Mean (row, column) of the pixels of a colour."""
  near = np.abs(np.asarray(picture).astype(int) - colour).max(-1) < 40
  return np.argwhere(near).mean(0)


def test_a_curve_goes_through_its_points():
  # From the lower left corner of the frame to the upper right one, and half as high.
  x = np.linspace(0, 10, 50)
  picture = charts.curves({'one': (x, x), 'two': (x, x / 2)}, x_title='x', y_title='y')
  frame = np.asarray(picture).astype(int)[:, :640]
  full, half = (
    np.abs(frame - charts.COLOURS[k]).max(-1) < 40 for k in (0, 1)
  )  # [H, W] each
  left, right = 64, 640 - 16
  bottom, top = 440 - 48, 16 + 30
  for share in (0.25, 0.5, 0.9):
    column = round(left + share * (right - left))
    for line, height in ((full, share), (half, share / 2)):
      row = np.flatnonzero(line[:, column]).mean()
      assert row == pytest.approx(bottom + height * (top - bottom), abs=2)


def test_what_is_not_finite_is_left_out_and_nothing_is_refused():
  some = charts.curves({'a': ([1, 2], [3, np.nan])}, x_title='', y_title='')
  alone = charts.curves({'a': ([1], [3])}, x_title='', y_title='')
  np.testing.assert_array_equal(np.asarray(some), np.asarray(alone))
  with pytest.raises(ValueError, match='got none'):
    charts.curves({'a': ([1], [np.nan])}, x_title='', y_title='')


def test_a_point_whose_spread_is_no_number_is_left_out():
  some = charts.curves({'a': ([1, 2], [3, 5], [1, np.nan])}, x_title='', y_title='')
  alone = charts.curves({'a': ([1], [3], [1])}, x_title='', y_title='')
  np.testing.assert_array_equal(np.asarray(some), np.asarray(alone))


@pytest.mark.parametrize(
  'y', [(0.3, 0.1 + 0.2), (1, 1 + 1e-14), (-1e16, 2 - 1e16), (0, 5e-324)]
)
def test_a_curve_that_is_constant_but_for_rounding_is_level(y):
  found, level = (
    charts.curves({'a': ([0, 1], values)}, x_title='', y_title='')
    for values in (y, (y[0], y[0]))
  )
  np.testing.assert_array_equal(np.asarray(found), np.asarray(level))


def test_tiny_numbers_have_a_curve():
  y = np.array([1, 3, 2])
  tiny, large = (
    charts.curves({'a': ([0, 1, 2], unit * y)}, x_title='', y_title='')
    for unit in (1e-13, 1.0)
  )
  frames = [np.asarray(picture)[46:392, 64:624] for picture in (tiny, large)]
  np.testing.assert_array_equal(*frames)


def test_named_places_have_their_points_and_the_bars_of_their_spread():
  x, y, spread = [0, 1, 2], [10, 20, 10], [5, 0, 5]
  picture = charts.curves(
    {'a': (x, y, spread)}, x_title='', y_title='', x_names=['u', 'v', 'w']
  )
  curve = np.abs(np.asarray(picture).astype(int)[:, :640] - charts.COLOURS[0]).max(-1)
  rows = [np.flatnonzero(curve[:, 64 + round(560 * k / 6)] < 60) for k in (1, 3, 5)]
  unit = np.abs(rows[0].mean() - rows[1].mean()) / 10  # Pixels.
  for row, value in zip(rows, y, strict=True):
    assert row.mean() == pytest.approx(rows[1].mean() + (20 - value) * unit, abs=2)
  assert np.ptp(rows[0]) == pytest.approx(10 * unit, abs=4)
  assert np.ptp(rows[1]) < 8  # A point alone.


TICKS = [(0, 10), (0.001, 0.0013), (-7, 93), (5, 5), (0, 1e-13), (2e-13, 3e-13)]
TICKS += [(0, 0), (0, 3e20), (1e5, 1e5 + 1e-3), (-2e-200, 7e-200)]


@pytest.mark.parametrize('low, high', TICKS)
def test_ticks_are_few_and_hold_the_range(low, high):
  ticks = charts._ticks(low, high)
  assert 2 <= len(ticks) <= 9
  assert ticks[0] <= low and ticks[-1] >= high
  np.testing.assert_allclose(np.diff(ticks), np.diff(ticks)[0], rtol=1e-6)


def test_points_keep_their_places_and_the_colours_of_their_classes():
  places = [[-2, 0], [0, 0], [2, 1]]
  picture = np.asarray(charts.points(places, [0, 1, 2]))[:, :560]
  found = np.stack([where(picture, charts.COLOURS[k]) for k in range(3)])
  # One scale: four units from left to right, and one from top to bottom.
  np.testing.assert_allclose(found[2] - found[0], [530 / 4, 530], atol=2)
  np.testing.assert_allclose(found[1] - found[0], [0, 530 / 2], atol=2)
