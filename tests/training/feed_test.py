import numpy as np
import pytest

from img2graph.training import feed
from tests.training import toy


def iterator(seed=0):
  return toy.source().iterate(seed=seed, batch_size=4)


def test_a_feed_yields_what_its_iterator_yields():
  expected = iterator()
  reader = feed.Feed(iterator())
  for _ in range(5):
    np.testing.assert_array_equal(reader.take()['image'], next(expected)['image'])
  reader.close()


def test_the_position_is_that_of_what_was_taken_not_of_what_was_read():
  reader = feed.Feed(iterator(), ahead=3)
  start = reader.data_state
  batches = [reader.take()['image'] for _ in range(2)]
  position = reader.data_state
  following = reader.take()['image']
  reader.close()
  again = feed.Feed(iterator(), data_state=position)
  np.testing.assert_array_equal(again.take()['image'], following)
  again.close()
  from_start = feed.Feed(iterator(), data_state=start)
  np.testing.assert_array_equal(from_start.take()['image'], batches[0])
  from_start.close()


class Failing(toy.Numbers):
  def __next__(self):
    if self._at == 2:
      raise OSError('image 3 is damaged')
    return super().__next__()


def test_what_the_iterator_raises_comes_where_its_batch_would():
  reader = feed.Feed(Failing(0, 4, 0, 1, 8, 100))
  reader.take()
  reader.take()
  with pytest.raises(OSError, match='image 3 is damaged'):
    reader.take()
  reader.close()


class Ending(toy.Numbers):
  def __next__(self):
    if self._at == 1:
      raise StopIteration
    return super().__next__()


def test_data_that_end_are_an_error():
  reader = feed.Feed(Ending(0, 4, 0, 1, 8, 100))
  reader.take()
  with pytest.raises(ValueError, match='ended before'):
    reader.take()
  reader.close()


def test_a_closed_feed_leaves_no_thread():
  reader = feed.Feed(iterator())
  reader.close()
  assert not reader._thread.is_alive()
