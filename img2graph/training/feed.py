"""Batches from the host, read ahead in a thread while the devices work."""

import queue
import threading


class Feed:
  """Reads ahead from a data iterator and knows the position of what was taken.

  Args:
    iterator: numpy batches, with `get_state` and `set_state`.
    data_state: position to go on from, or None for the beginning.
    ahead: batches that are read ahead.
  """

  def __init__(self, iterator, *, data_state=None, ahead=2):
    if data_state is not None:
      iterator.set_state(data_state)
    self._iterator = iterator
    # The iterator itself is ahead of what was taken: each batch carries its position.
    self.data_state = iterator.get_state()
    self._queue = queue.Queue(ahead)
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._read, name='feed', daemon=True)
    self._thread.start()

  def take(self):
    """The next batch; raises what the iterator raised."""
    batch, data_state, error = self._queue.get()
    if error is not None:
      raise error
    self.data_state = data_state
    return batch

  def close(self):
    """Ends the reading thread."""
    self._closed.set()
    self._thread.join(timeout=10)

  def _read(self):
    while not self._closed.is_set():
      try:
        item = (next(self._iterator), self._iterator.get_state(), None)
      except StopIteration:
        item = (None, None, ValueError('the data ended before training did'))
      except Exception as error:  # Raised again where the batch is taken.
        item = (None, None, error)
      while not self._closed.is_set():
        try:
          self._queue.put(item, timeout=0.1)
          break
        except queue.Full:
          continue
      if item[2] is not None:
        return
