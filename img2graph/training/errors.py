"""How a run ends other than well, each told in one sentence.

`UserError` is a mistake in what was asked for; `SaveError` something that could not be
written; `NonFiniteError` a loss that is not a number any more; `PeerError` a run of
several processes that lost one of them.
"""

import contextlib
import errno
import re

import jax

# What the operating system says when there is no room left to write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# How jax tells of a collective whose other side is gone: by the name of a library that
# carries it, or by a status that no mistake of one process alone has.
_PEER_GONE = re.compile(
  '(Gloo|NCCL) |^(UNKNOWN|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): '
)


class UserError(ValueError):
  """What was asked for cannot be done; the message says why, in one sentence."""


class SaveError(OSError):
  """Something could not be written; the message names the last good checkpoint."""


class NonFiniteError(ArithmeticError):
  """The loss or its gradient is not finite; the message names the step."""


class PeerError(RuntimeError):
  """Another process of the run is gone; the message names the last good checkpoint."""


def one_sentence(error):
  """The first line of an exception's message (or its type), without a full stop."""
  if isinstance(error, OSError) and error.strerror:
    place = f': {error.filename}' if error.filename else ''
    return f'{error.strerror}{place}'
  lines = str(error).strip().splitlines()
  return lines[0].rstrip('.') if lines else type(error).__name__


def no_room(error):
  """Whether an exception says that the disk (or a quota) is full.

  Storage libraries pass the words of the operating system on, but not its number.
  """
  if isinstance(error, OSError) and error.errno in _NO_ROOM:
    return True
  words = ('No space left on device', 'File too large', 'Disk quota exceeded')
  return any(word in str(error) for word in words)


def peer_gone(error):
  """Whether an exception says that another process of this run is gone.

  jax raises it as a ValueError or a RuntimeError, depending on where it is noticed.
  """
  if not jax.distributed.is_initialized() or isinstance(error, UserError):
    return False
  kinds = (ValueError, RuntimeError)
  return isinstance(error, kinds) and bool(_PEER_GONE.search(str(error)))


@contextlib.contextmanager
def user_errors(what=''):
  """Turns the ValueError, TypeError and OSError of its body into a `UserError`.

  For code that only reads and checks what a user gave: a TypeError there is a config
  key that a builder does not know. A full disk and another process that is gone are not
  the user's mistake and pass.

  Args:
    what: the part of the config that is used, named in front of the message.
  """
  try:
    yield
  except (UserError, SaveError):
    raise
  except (ValueError, TypeError, OSError) as error:
    if no_room(error) or peer_gone(error):
      raise
    prefix = f'{what}: ' if what else ''
    raise UserError(f'{prefix}{one_sentence(error)}.') from error
