"""Cells: runs of one setting and seed each, that many workers share.

A cell is claimed by a lock on a file in the workdir, which all workers see, on one
machine or on many. The operating system takes the lock back when a worker dies, however
it dies, and another one goes on from the cell's last checkpoint. What a cell finds is
one line of a file of JSON lines; a cell is done when a line holds its config.
"""

import collections
import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import signal
import time
from typing import Any
from typing import NamedTuple

import jax
import ml_collections

from img2graph import files
from img2graph.training import errors
from img2graph.training import interrupt
from img2graph.training import parallel
from img2graph.training import record

# Between looks at the cells of others, seconds.
_PATIENCE = 2.0
# Of a name, bytes; with what is added it is one that file systems take.
_LONGEST = 200
# What the first process tells the others before such a look; no name of a cell.
_WAITING = '\n'


class Cell(NamedTuple):
  """A run.

  Attributes:
    name: of its folder in the workdir.
    config: ConfigDict, seed included.
    label: `{name: value}`, put in front of what is found in its line.
  """

  name: str
  config: Any
  label: dict[str, Any]

  @property
  def hash(self):
    """Of the config."""
    return record.config_hash(plain(self.config))

  @property
  def row(self):
    """The same for all seeds of a config."""
    return record.config_hash(plain(self.config) | {'seed': None})


class Tally(NamedTuple):
  """What one call did.

  Attributes:
    run: how many cells it finished.
    claimed: names of cells that others are at.
    failed: `{name: sentence}` of cells that could not be finished.
    interrupted: number of the signal that ended the call, or None.
  """

  run: int
  claimed: list[str]
  failed: dict[str, str]
  interrupted: int | None


def exit_status(tallies):
  """Of a command: 128 + a signal, 1 a cell failed, 3 others are at cells, or 0."""
  for tally in tallies:
    if tally.interrupted:
      return 128 + tally.interrupted
  if any(tally.failed for tally in tallies):
    return 1
  return 3 if any(tally.claimed for tally in tallies) else 0


def plain(config):
  """A ConfigDict as nested dicts of what JSON can hold."""
  return json.loads(config.to_json())


def slug(overrides):
  """A folder name for a setting, for example 'data.side=64,seed=3'.

  A long one is cut, and ends with a hash of the whole.
  """
  text = ','.join(f'{key}={value}' for key, value in sorted(overrides.items()))
  name = ''.join(c if c.isalnum() or c in '.,=-_' else '_' for c in text) or 'base'
  if len(name.encode()) <= _LONGEST:
    return name
  return (
    f'{name.encode()[:_LONGEST].decode(errors="ignore")},{record.config_hash(text)}'
  )


def override(config, overrides):
  """A copy of a config with other values.

  Args:
    config: ConfigDict.
    overrides: `{'dotted.key': value}`; a dict as value takes the place of all that is
      under its key.

  Raises:
    ValueError: the config has no such key.
  """
  config = config.copy_and_resolve_references()
  for name, value in overrides.items():
    *parents, key = name.split('.')
    place = config
    for parent in parents:
      place = place.get(parent) if hasattr(place, 'get') else None
    if not isinstance(place, ml_collections.ConfigDict) or key not in place:
      raise ValueError(f'the config has no value {name!r}.')
    with place.ignore_type():
      place[key] = ml_collections.ConfigDict(value) if _is_dict(value) else value
  return config


def common_batch_size(cells):
  """What devices have to divide to divide the batches of all cells; 0 of none."""
  sizes = (cell.config.get('batch_size') for cell in cells)
  # Others are mistakes, and told when the cell is run.
  return math.gcd(*(size for size in sizes if isinstance(size, int)))


def _is_dict(value):
  return isinstance(value, dict | ml_collections.ConfigDict)


@contextlib.contextmanager
def claim(path):
  """Holds the lock of a file; yields False if another worker does.

  Args:
    path: of the file, which is made and stays.

  Raises:
    errors.UserError: the file system has no locks, or the file cannot be made.
  """
  path = pathlib.Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  except OSError as error:
    raise errors.UserError(
      f'the workdir cannot be used: {errors.one_sentence(error)}.'
    ) from error
  with open(path, 'a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield False
      return
    except OSError as error:
      if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
        raise
      raise errors.UserError(
        f'the file system of {path.parent} has no locks, by which workers share runs; '
        'choose another workdir.'
      ) from error
    yield True  # Closing the file gives the lock back.


def read(path):
  """The lines of a file that `append` wrote, as dicts; none if it is not there.

  Raises:
    errors.UserError: a line is no JSON.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows = []
  for number, line in enumerate(path.read_text().splitlines(), 1):
    try:
      rows.append(json.loads(line))
    except ValueError:
      raise errors.UserError(
        f'{path}, line {number} is damaged: it should be JSON; delete the line, and '
        'its cell is run again.'
      ) from None
  return rows


def append(path, row, lock):
  """Adds a line to a file that others add to, whole or not at all.

  Args:
    path: of the JSON lines.
    row: what JSON can hold.
    lock: path of the lock that guards the file.

  Raises:
    errors.SaveError: it cannot be written.
  """
  path = pathlib.Path(path)
  while True:
    with claim(lock) as held:
      if held:
        try:
          path.parent.mkdir(parents=True, exist_ok=True)
          text = path.read_text() if path.exists() else ''
          files.write_atomically(path, f'{text}{json.dumps(row)}\n'.encode())
        except OSError as error:
          raise errors.SaveError(
            f'a line for {path} cannot be written: {errors.one_sentence(error)}; what '
            'it would tell stays in the workdir, and the same command goes on.'
          ) from error
        return
    time.sleep(0.05)


def _check_output(path):
  """Raises `UserError` if no line can be added to a file, before anything is run."""
  with errors.user_errors('the output cannot be written'):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path.parent, os.W_OK):  # A line is put in by replacing the file.
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def find(rows, cell):
  """The last of rows that a cell's config led to, with its label, or None."""
  label = json.loads(json.dumps(cell.label))  # As it is read.
  same = (row for row in rows[::-1] if row['config_hash'] == cell.hash)
  return next((row for row in same if label.items() <= row.items()), None)


def run_missing(
  cells,
  workdir,
  output,
  *,
  train,
  train_seeds=None,
  at_once=1,
  others=(),
  wait=False,
  say=print,
):
  """Runs the cells that no line tells of and no other worker is at.

  A cell that was run for another file, or with another label, is not run again: its
  line is copied. A cell that fails is left out, and the rest goes on.

  Args:
    cells: list of `Cell`.
    workdir: folder of the runs, the same for all workers.
    output: path of the JSON lines.
    train: `(config, workdir) -> results`, as `loop.train`.
    train_seeds: `(configs, workdirs) -> list of results`, as `loop.train_seeds`; needed
      if `at_once` is more than 1.
    at_once: the most cells, seeds of one row, that are claimed and run together.
    others: paths of further JSON lines, of other tables.
    wait: whether to wait for the cells of others, and to take up those of the dead.
    say: shows a sentence.

  Returns:
    A `Tally`. Where several processes train together, the first claims and records, and
    the others follow; theirs tells of an interruption only.

  Raises:
    errors.UserError: the workdir, or the output, cannot be used.
    errors.SaveError: something could not be written.
  """
  if not parallel.is_first():
    return _follow(cells, pathlib.Path(workdir), train, train_seeds)
  workdir, output = pathlib.Path(workdir), pathlib.Path(output)
  _check_output(output)
  count, failed, stopped = 0, {}, None
  rows = [cell.row if at_once > 1 else None for cell in cells]

  shared = collections.Counter(cell.hash for cell in cells)

  def done(lines, cell):
    """Whether a line tells of a cell, and of a config of its own the last one."""
    if shared[cell.hash] == 1:
      # A label that was another one in between has to be the last again: it counts.
      lines = [line for line in lines if line['config_hash'] == cell.hash][-1:]
    return find(lines, cell) is not None

  def add(cell, results):
    append(output, {**results, **cell.label}, workdir / 'claims' / 'output.lock')

  def known(cell):
    """Results of a cell's config, whatever they were for."""
    rows = (row for path in (output, *others) for row in read(path))
    return next((row for row in rows if row['config_hash'] == cell.hash), None)

  def take(cell, stack):
    """Whether the cell is missing and now ours until the end of `stack`."""
    claimed.discard(cell.name)
    if cell.name in failed or done(read(output), cell):
      return False
    if not stack.enter_context(claim(workdir / 'claims' / f'{cell.name}.lock')):
      claimed.add(cell.name)
      return False
    return not done(read(output), cell)  # Not finished just now.

  def unfinished():
    """Names of the cells that others were at and have not finished since."""
    lines = read(output) if claimed else []
    return {c.name for c in cells if c.name in claimed and not done(lines, c)}

  with interrupt.StopSignal() as stop:
    while True:
      claimed = set()
      for i, cell in enumerate(cells):
        with contextlib.ExitStack() as stack:
          if not take(cell, stack):
            continue
          if results := known(cell):
            add(cell, results)
            continue
          if stop.requested:  # Too late for the run before.
            return Tally(count, sorted(unfinished()), failed, stop.signum)
          group = [cell]
          for other, row in zip(cells[i + 1 :], rows[i + 1 :], strict=True):
            if len(group) == at_once:
              break
            if row == rows[i] and not known(other) and take(other, stack):
              group.append(other)
          say(f'== {", ".join(c.name for c in group)}')
          parallel.first_tells('\n'.join(c.name for c in group))
          found = _train(group, workdir, train, train_seeds)
          for one, results in zip(group, found, strict=True):
            if isinstance(results, Exception):
              say(f'{one.name} failed: {results}')
              failed[one.name] = str(results)
            elif 'interrupted' in results:
              stopped = results['interrupted']
            else:
              count += 1
              add(one, results)
          if stopped:
            return Tally(count, sorted(unfinished()), failed, stopped)
      claimed = unfinished()
      if not (wait and claimed):
        parallel.first_tells('')
        return Tally(count, sorted(claimed), failed, None)
      parallel.first_tells(_WAITING)
      if parallel.stop_agreed(stop.requested):
        signum = stop.signum or signal.SIGTERM  # Of some process.
        return Tally(count, sorted(claimed), failed, int(signum))
      time.sleep(_PATIENCE)


def _follow(cells, workdir, train, train_seeds):
  """Trains what the first process says, until it says no more."""
  named = {cell.name: cell for cell in cells}
  while names := parallel.first_tells(''):
    if names == _WAITING:
      if parallel.stop_agreed(False):
        return Tally(0, [], {}, int(signal.SIGTERM))
      continue
    names = names.split('\n')
    if missing := [name for name in names if name not in named]:
      raise errors.UserError(
        f'the first process is at {missing[0]}, of which this one does not know: the '
        'command must be the same in all processes.'
      )
    group = [named[name] for name in names]
    for results in _train(group, workdir, train, train_seeds):
      if isinstance(results, dict) and 'interrupted' in results:
        return Tally(0, [], {}, results['interrupted'])
  return Tally(0, [], {}, None)


def _train(group, workdir, train, train_seeds):
  """What each cell of a group led to, or the error that it ended with."""
  configs = [cell.config for cell in group]
  workdirs = [str(workdir / cell.name) for cell in group]
  try:
    if len(group) == 1:
      return [train(configs[0], workdirs[0])]
    return train_seeds(configs, workdirs)
  except errors.NonFiniteError as error:
    return [error for _ in group]
  except errors.UserError as error:
    # It may be this process's alone, and the others would wait for it.
    if parallel.joined():
      raise
    return [error for _ in group]
  except jax.errors.JaxRuntimeError as error:
    if parallel.joined() or 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    sentence = errors.one_sentence(error)
  # Another one, out of the handler: it keeps hold of what was in memory.
  return [errors.UserError(f'memory does not suffice ({sentence}).') for _ in group]
