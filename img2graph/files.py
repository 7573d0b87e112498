"""Paths, and files that are there whole or not at all."""

import os
import pathlib
import secrets


def expand(path):
  """A path whose leading `~` is the home folder, as a `pathlib.Path`.

  Shells see to it in words of their own, but not in `--output=~/x`, nor in configs.
  """
  return pathlib.Path(os.path.expanduser(path))


def write_atomically(path, data):
  """Writes bytes to a file so that it is there whole or not at all.

  The bytes go to a temporary file in the same folder, which then takes the name.

  Raises:
    OSError: it cannot be written; names `path`. What was there before is untouched.
  """
  target = pathlib.Path(os.path.realpath(path))
  temporary = target.parent / f'.img2graph-{secrets.token_hex(8)}.tmp'
  try:
    try:
      with open(temporary, 'xb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error
