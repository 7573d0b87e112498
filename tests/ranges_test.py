import numpy as np
import pytest

from img2graph import ranges


def test_ranges_are_numbers_or_pairs():
  assert ranges.as_range('a', 2) == (2.0, 2.0)
  assert ranges.as_range('a', [1, 2]) == (1.0, 2.0)
  assert ranges.as_range('a', (2,)) == (2.0, 2.0)
  assert ranges.as_range('a', np.float32(2)) == (2.0, 2.0)
  unordered = ((), (2, 1), (1, 2, 3), np.nan, (0, np.inf))
  for wrong in (*unordered, None, 'ab', '1', (0, None), [[1, 2]], {}):
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


@pytest.mark.parametrize(
  'bound, good, wrong, words',
  [
    (ranges.FINITE, -2, '3', "must be a number; got '3'"),
    (ranges.FINITE, -2.5, None, 'must be a number; got None'),
    (ranges.NOT_NEGATIVE, 0, -0.5, 'must be at least 0; got -0.5'),
    (ranges.NOT_NEGATIVE, 0.5, np.nan, 'must be a number; got nan'),
    (ranges.POSITIVE, 1e-9, 0.0, 'must be above 0; got 0.0'),
    (ranges.SHARE, 1, 1.5, 'must be at most 1; got 1.5'),
    (ranges.DECAY, 0, 1.0, 'must be below 1; got 1.0'),
    (ranges.WHOLE, 0, 2.5, 'must be a whole number; got 2.5'),
    (ranges.WHOLE, np.int64(3), -1, 'must be at least 0; got -1'),
    (ranges.COUNT, 1, 0, 'must be at least 1; got 0'),
  ],
)
def test_numbers_of_a_config_are_told_by_their_place(bound, good, wrong, words):
  bounds = ranges.each(bound, 'a', 'other')
  ranges.check('method.loss', {'a': good, 'kind': 'any'}, bounds)
  with pytest.raises(ValueError, match=f'^method.loss.a {words}.$'):
    ranges.check('method.loss', {'a': wrong, 'kind': 'any'}, bounds)


def test_of_several_numbers_each_is_checked():
  bounds = {'a': ranges.COUNTS, 'b': ranges.TWO_COUNTS}
  ranges.check('method', {'a': (1,), 'b': [2, 3]}, bounds)
  ranges.check('method', {'a': ()}, bounds)
  for options, words in (
    ({'a': (1, 0)}, r'a\[1\] must be at least 1; got 0'),
    ({'a': (1.5, 2)}, r'a\[0\] must be a whole number; got 1.5'),
    ({'a': 3}, 'a must be several numbers; got 3'),
    ({'a': '34'}, "a must be several numbers; got '34'"),
    ({'b': (1, 2, 3)}, r'b must be 2 numbers; got \(1, 2, 3\)'),
  ):
    with pytest.raises(ValueError, match=f'^method.{words}.$'):
      ranges.check('method', options, bounds)
