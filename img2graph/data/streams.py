"""Endless shuffled batches of examples that are loaded one by one, resumable.

Every process draws the same global order and loads its own slice of each batch, so a
batch holds the same examples in the same places for any number of processes.
"""

import json
import logging
import threading

import jax
import numpy as np
from absl import flags

from img2graph.data import images
from img2graph.data import sources

# Not absl's logger, which training silences for the sake of orbax.
_LOG = logging.getLogger(__name__)


class _LoadPart:
  """Loads one process's slice of a batch of example numbers; a class, for pickling."""

  def __init__(self, load, seed, first, count):
    self._load = load
    self._seed = seed
    self._slice = slice(first, first + count)

  def __call__(self, batch_number, indices):
    mine = range(len(indices))[self._slice]
    examples = []
    for i in mine:
      place = batch_number * len(indices) + i
      # Keyed by the place in the stream: the same for any number of processes.
      generator = np.random.default_rng((self._seed, place))
      examples.append(self._load(int(indices[i]), generator))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


class Skipping:
  """Loads images by number; of one that cannot be read, the next good one instead.

  Each bad one is told once. Instances travel to worker processes.

  Args:
    load: `(number) -> anything`; raises `images.BadImage` for what cannot be read.
    size: how many numbers there are, from 0.
    none_left: sentence of the `images.BadImage` for when none can be read.
  """

  def __init__(self, load, size, *, none_left):
    self._load, self._size, self._none_left = load, size, none_left
    self._bad = set()
    self._lock = threading.Lock()

  def __getstate__(self):
    # Locks do not travel to worker processes.
    return {k: v for k, v in self.__dict__.items() if k != '_lock'}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def __call__(self, number):
    for step in range(self._size):
      place = (number + step) % self._size
      if place in self._bad:
        continue
      try:
        return self._load(place)
      except images.BadImage as error:
        with self._lock:
          if place not in self._bad:
            _LOG.warning('skipped: %s', error)
          self._bad.add(place)
    raise images.BadImage(self._none_left)


class Stream:
  """Iterator over batches with `get_state() -> bytes` and `set_state(bytes)`.

  The state is the number of batches given, whoever reads them: a run may go on with
  other numbers of processes and of workers.

  Args:
    begin: `(number) -> iterator` over the batches from that number on.
  """

  def __init__(self, begin):
    self._begin = begin
    self._number = 0
    self._iterator = None

  def __iter__(self):
    return self

  def __next__(self):
    if self._iterator is None:
      self._iterator = self._begin(self._number)
    batch = next(self._iterator)
    self._number += 1
    return batch

  def get_state(self):
    """The place in the stream, after the batch that `next` gave last."""
    return json.dumps({'next_index': self._number}).encode()

  def set_state(self, state):
    """Goes on after the place that `get_state` told."""
    state = json.loads(state.decode())
    # What the reader told of its workers, as it was once kept: the batches of each.
    parts = state.get('iterators_in_use_states', [state])
    self._number = sum(part['next_index'] for part in parts)
    self._iterator = None


def shuffled(
  load,
  size,
  *,
  seed,
  batch_size,
  process_index=0,
  process_count=1,
  worker_count=0,
):
  """Batches of all examples in a new order every epoch, without end.

  Args:
    load: `(index, generator) -> example`, a pytree of arrays; `generator` is a numpy
      `Generator` of this place in the stream alone. Runs in threads, or in other
      processes if `worker_count` is not 0.
    size: number of examples, at least 1.
    seed: int >= 0.
    batch_size: of all processes together.
    process_index: which process this is.
    process_count: number of processes.
    worker_count: number of processes that load, in programs run by `absl.app.run`; 0
      loads in threads of this one.

  Returns:
    `Stream` over pytrees of numpy arrays `[batch_size // process_count, ...]`.

  Raises:
    ValueError: a number is wrong, or the reader (grain) is not installed.
  """
  local = sources.local_batch_size(batch_size, process_count)
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index must be in [0, {process_count}); got {process_index}.'
    )
  if seed < 0 or worker_count < 0:
    raise ValueError(
      f'seed and worker_count must not be negative; got {seed} and {worker_count}.'
    )
  try:
    import grain
  except ModuleNotFoundError:
    raise ValueError(
      "reading images from files needs grain: pip install 'img2graph[train]'."
    ) from None
  part = _LoadPart(load, seed, process_index * local, local)
  # Shuffled numbers are batched before anything is loaded.
  # The shuffling adds the epoch to its seed: seeds side by side would share orders.
  (scattered,) = np.random.SeedSequence(seed).generate_state(1)
  order = grain.MapDataset.range(size).shuffle(seed=int(scattered))
  # Without end would be longer than a length can be, if a batch is a single example.
  order = order.repeat(2**62 // size)
  batches = order.batch(batch_size).map_with_index(part)
  options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
  # The reader's worker processes read flags of their own.
  if worker_count and not flags.FLAGS.is_parsed():
    raise ValueError(
      'worker_count above 0 needs a program run by absl.app.run; use 0 elsewhere.'
    )

  def begin(number):
    dataset = batches[number:].to_iter_dataset(options)
    if worker_count:
      workers = grain.MultiprocessingOptions(num_workers=worker_count)
      dataset = dataset.mp_prefetch(workers)
    return iter(dataset)

  return Stream(begin)
