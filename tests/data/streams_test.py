"""Tests of img2graph/data/streams.py."""

import json
import pickle

import numpy as np
import pytest

from img2graph.data import images
from img2graph.data import streams


def _load(index, generator):
  return {'index': np.int32(index), 'draw': np.float32(generator.random())}


def _take(count, **options):
  """Batches of a stream of seven examples."""
  options = {'seed': 0, 'batch_size': 2} | options
  stream = streams.shuffled(_load, 7, **options)
  return [next(stream) for _ in range(count)]


def _all(batches, name='index'):
  return np.concatenate([batch[name] for batch in batches]).tolist()


def test_every_epoch_has_every_example_once_in_another_order():
  indices = _all(_take(7))
  first, second = indices[:7], indices[7:]
  assert sorted(first) == sorted(second) == list(range(7))
  assert first != second


def test_seeds_side_by_side_share_no_order():
  orders = set()
  for seed in range(3):
    stream = streams.shuffled(_load, 7, seed=seed, batch_size=7)
    orders |= {tuple(_all([next(stream)])) for _ in range(3)}
  assert len(orders) == 9


@pytest.mark.parametrize('size', [1, 3])
def test_a_batch_may_be_one_example(size):
  stream = streams.shuffled(
    lambda index, _: {'index': index}, size, seed=0, batch_size=1
  )
  seen = [int(next(stream)['index'][0]) for _ in range(2 * size)]
  assert sorted(seen) == sorted(2 * list(range(size)))


def test_an_example_drawn_twice_draws_other_random_numbers():
  draws = _all(_take(7), 'draw')
  assert len(set(draws)) == 14


def test_processes_hold_the_slices_of_one_batch():
  whole = _take(5, batch_size=4)
  parts = [_take(5, batch_size=4, process_index=k, process_count=2) for k in range(2)]
  for name in ('index', 'draw'):
    for batch, left, right in zip(whole, *parts, strict=True):
      both = np.concatenate([left[name], right[name]])
      np.testing.assert_array_equal(batch[name], both)


def test_a_resumed_stream_goes_on_with_the_same_bits():
  stream = streams.shuffled(_load, 7, seed=5, batch_size=3)
  for _ in range(4):
    next(stream)
  state = stream.get_state()
  expected = [next(stream) for _ in range(4)]
  resumed = streams.shuffled(_load, 7, seed=5, batch_size=3)
  resumed.set_state(state)
  actual = [next(resumed) for _ in range(4)]
  for name in ('index', 'draw'):
    assert _all(actual, name) == _all(expected, name)


def test_a_run_may_go_on_with_another_number_of_workers():
  # What the reader tells of two workers after three batches.
  parts = [{'next_index': 2}, {'next_index': 1}]
  state = json.dumps({'iterators_in_use_states': parts, 'exhausted': [0, 0]}).encode()
  resumed = streams.shuffled(_load, 7, seed=0, batch_size=2)
  resumed.set_state(state)
  assert _all([next(resumed)]) == _all(_take(4)[3:])
  # And what a stream tells does not depend on its workers.
  assert resumed.get_state() == b'{"next_index": 4}'


@pytest.mark.parametrize(
  'options, message',
  [
    ({'batch_size': 3, 'process_count': 2}, 'batch'),
    ({'process_index': 2}, 'process_index'),
    ({'seed': -1}, 'seed'),
    ({'worker_count': -1}, 'worker_count'),
  ],
)
def test_wrong_numbers_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _take(1, **options)


def _load_unless_odd(number):
  if number % 2:
    raise images.BadImage(f'{number} is odd.')
  return number


def _refuse(number):
  raise images.BadImage(f'{number} is bad.')


def test_a_bad_image_gives_way_to_the_next_and_is_told_once(caplog):
  load = streams.Skipping(_load_unless_odd, 4, none_left='none.')
  assert [load(i) for i in (0, 1, 2, 3, 1)] == [0, 2, 2, 0, 2]
  assert caplog.messages == ['skipped: 1 is odd.', 'skipped: 3 is odd.']
  travelled = pickle.loads(pickle.dumps(load))
  assert travelled(3) == 0
  assert len(caplog.messages) == 2


def test_without_any_good_image_there_is_one_sentence():
  load = streams.Skipping(_refuse, 3, none_left='none of 3 images can be read.')
  with pytest.raises(images.BadImage, match='none of 3 images can be read'):
    load(1)
