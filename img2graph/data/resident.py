"""Sets that lie in memory whole: on the devices, if they fit there.

Reading and sending images is then no part of a step: the host sends the numbers of a
batch's examples, and the devices pick them.
"""

import functools

import jax
import numpy as np

from img2graph.data import sources


def host_source(whole, *, on_device=None, complete=None):
  """A `HostSource` of examples in memory; every epoch has an order of its own.

  Args:
    whole: dict of numpy arrays `[n, ...]`, 'image' `[n, S, S, C]` among them.
    on_device: whether every device keeps all of it, or each batch, the same one, is
      sent; None to keep what takes at most half of a device's memory.
    complete: `(key, batch) -> batch` for batches of examples, see `HostSource`; None
      for nothing.
  """
  size, side = whole['image'].shape[:2]
  if on_device is None:
    on_device = _fits(sum(values.nbytes for values in whole.values()))

  def iterate(*, seed, batch_size, process_index=0, process_count=1):
    local = sources.local_batch_size(batch_size, process_count)
    order = _Order(size, seed, batch_size, process_index * local, local)
    return order if on_device else _Picked(order, whole)

  return sources.HostSource(
    iterate=iterate,
    side=side,
    size=size,
    complete=functools.partial(_complete, then=complete) if on_device else complete,
    resident=whole if on_device else None,
    whole=whole,
  )


def _complete(key, batch, resident, *, then):
  batch = _pick(resident, batch['index'])
  return batch if then is None else then(key, batch)


def _fits(size):
  """Whether so many bytes are at most half of a device's memory, if it tells."""
  limits = [d.memory_stats() or {} for d in jax.local_devices()]
  return all(size <= found.get('bytes_limit', np.inf) / 2 for found in limits)


class _Order:
  """Numbers of examples, epoch after epoch, in batches that may reach over two."""

  def __init__(self, size, seed, batch_size, first, count):
    self._size, self._seed, self._batch_size = size, seed, batch_size
    self._slice = slice(first, first + count)
    self._at = 0
    self._orders = {}

  def __iter__(self):
    return self

  def __next__(self):
    start = self._at * self._batch_size
    places = np.arange(start, start + self._batch_size)[self._slice]
    epochs = places // self._size
    self._orders = {e: self._order(e) for e in np.unique(epochs).tolist()}
    picked = [
      self._orders[e][p % self._size] for e, p in zip(epochs, places, strict=True)
    ]
    self._at += 1
    return {'index': np.array(picked, np.int32)}

  def _order(self, epoch):
    if epoch in self._orders:
      return self._orders[epoch]
    return np.random.default_rng((self._seed, epoch)).permutation(self._size)

  def get_state(self):
    return str(self._at).encode()

  def set_state(self, state):
    self._at = int(state.decode())


class _Picked:
  """The examples of an `_Order`."""

  def __init__(self, order, whole):
    self._order, self._whole = order, whole
    self.get_state, self.set_state = order.get_state, order.set_state

  def __iter__(self):
    return self

  def __next__(self):
    return _pick(self._whole, next(self._order)['index'])


def _pick(whole, index):
  return {name: values[index] for name, values in whole.items()}
