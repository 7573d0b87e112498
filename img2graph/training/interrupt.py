"""Being asked to stop: SIGTERM and Ctrl-C end a run after the step it is at."""

import contextlib
import signal
import threading

import jax


class Interrupted(BaseException):
  """Raised inside `StopSignal.at_once`; no `except Exception` may swallow it."""


class StopSignal:
  """Catches SIGTERM and SIGINT while it is entered.

  The first signal is noted in `signum`; after it the second Ctrl-C kills as usual.
  Within another `StopSignal` it tells that one too, and knows what that one knows: who
  does several runs stops between them.
  With several processes SIGTERM is left to jax's preemption service (see
  `parallel.stop_agreed`), since all of them must stop after the same step, and Ctrl-C
  is taken for one.
  """

  def __init__(self):
    self.signum = None
    self._before = {}
    self._at_once = False

  @property
  def requested(self):
    """Whether the run was asked to stop."""
    return self.signum is not None

  def __enter__(self):
    # Python allows handlers in the main thread only; elsewhere the caller's stay.
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() > 1:
      self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
    elif main:
      for signum in (signal.SIGTERM, signal.SIGINT):
        self._before[signum] = signal.signal(signum, self._note)
      if self._outer:
        self.signum = self._outer.signum
    return self

  @property
  def _outer(self):
    """The `StopSignal` that this one is within, or None."""
    found = getattr(self._before.get(signal.SIGTERM), '__self__', None)
    return found if isinstance(found, StopSignal) else None

  def __exit__(self, *exception):
    self._restore()

  def _restore(self):
    for signum, handler in self._before.items():
      signal.signal(signum, handler)
    self._before = {}

  def _note(self, signum, frame):
    if self.signum is None and signal.SIGINT in self._before:
      signal.signal(signal.SIGINT, self._before[signal.SIGINT])
    self.signum = signum
    if self._outer:
      self._outer._note(signum, frame)
    if self._at_once:
      raise Interrupted

  def _pass_on(self, signum, frame):
    del frame
    handler = self._before[signum]
    while isinstance(outer := getattr(handler, '__self__', None), StopSignal):
      handler = outer._before[signum]
    signal.signal(signum, handler)
    signal.raise_signal(signal.SIGTERM)

  @contextlib.contextmanager
  def at_once(self):
    """Leaves its body at the signal, by `Interrupted`: for what may be cut short."""
    if self.requested:
      raise Interrupted
    self._at_once = True
    try:
      yield
    finally:
      self._at_once = False
