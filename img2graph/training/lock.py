"""The lock of a workdir: one run is at it at a time, with all its processes.

The first process of a run holds a lock on the file `.lock`. The operating system takes
it back when the process ends, however it ends. Where a file system knows no locks, two
runs in one workdir are not told from each other.
"""

import contextlib
import fcntl
import pathlib
import secrets
import time

from img2graph.training import errors
from img2graph.training import parallel

# How long a run may take to end after it was stopped or lost a process, and a shared
# folder to show to one machine what another one wrote, in seconds.
_PATIENCE = 60.0
_BETWEEN = 0.2


@contextlib.contextmanager
def hold(workdir, *, say=lambda sentence: None):
  """Holds the lock of a workdir while its body runs; call it in all processes.

  Args:
    workdir: folder of the run; made when it is not there.
    say: called with a sentence when another run has to end first.

  Raises:
    errors.UserError: another run is at it, or not all processes see it.
  """
  path = pathlib.Path(workdir) / '.lock'
  with contextlib.ExitStack() as stack:
    word = ''
    if parallel.is_first():
      with errors.user_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(open(path, 'a'))
      _lock(file, path.parent, say)
      word = secrets.token_hex(8)
      with errors.user_errors():
        file.truncate(0)
        file.write(word)
        file.flush()
    _check_seen(path, parallel.first_tells(word))
    yield


def _lock(file, workdir, say):
  end, told = time.monotonic() + _PATIENCE, False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError:
      if time.monotonic() >= end:
        raise errors.UserError(
          f'another run is at {workdir}; wait for its end, or choose another workdir.'
        ) from None
    except OSError:  # There are none on this file system.
      return
    if not told:
      say(f'another run is at {workdir}; waiting up to {_PATIENCE:.0f} s for its end.')
      told = True
    time.sleep(_BETWEEN)


def _check_seen(path, word):
  """Raises `UserError` in all processes unless each finds the first one's word."""
  end = time.monotonic() + _PATIENCE
  while not (seen := _read(path) == word) and time.monotonic() < end:
    time.sleep(_BETWEEN)
  found = parallel.gather_bytes(b'yes' if seen else b'no')
  if b'no' in found:
    raise errors.UserError(
      f'process {found.index(b"no")} does not see what process 0 wrote into the '
      'workdir; it must lie in a folder that all processes share.'
    )


def _read(path):
  try:
    return path.read_text()
  except OSError:
    return None
