import numpy as np
import pytest

from img2graph import ranges


def test_ranges_are_numbers_or_pairs():
  assert ranges.as_range('a', 2) == (2.0, 2.0)
  assert ranges.as_range('a', [1, 2]) == (1.0, 2.0)
  assert ranges.as_range('a', (2,)) == (2.0, 2.0)
  for wrong in ((), (2, 1), (1, 2, 3), np.nan, (0, np.inf)):
    with pytest.raises(ValueError, match='a must be a number or'):
      ranges.as_range('a', wrong)
  with pytest.raises(ValueError, match='at least 1'):
    ranges.as_range('a', 0.5, lowest=1)
  with pytest.raises(ValueError, match='at most 1'):
    ranges.as_range('a', (0, 2), highest=1)


def test_a_number_is_no_pair():
  assert ranges.as_number('a', 2) == 2.0
  for wrong in ((1, 1), np.nan, np.inf):
    with pytest.raises(ValueError, match='a must be a number; got'):
      ranges.as_number('a', wrong)
  with pytest.raises(ValueError, match='at least 1'):
    ranges.as_number('a', 0.5, lowest=1)
