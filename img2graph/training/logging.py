"""What a run tells while it goes on: a progress line, metrics files and TensorBoard.

`metrics.jsonl` holds one JSON object per line, each with its 'step'. A run that is
resumed drops the lines beyond the step it goes on from, so no step is there twice.
"""

import contextlib
import json
import math
import pathlib
import sys
import time

from img2graph import files

_BAR = 24  # Characters of the progress bar.


class Console:
  """Lines for a person: progress on standard output, warnings on standard error.

  Args:
    active: False writes nothing (all processes but the first).
    out: stream of progress; a terminal gets one line that is drawn over.
    err: stream of warnings.
  """

  def __init__(self, *, active=True, out=None, err=None):
    self._active = active
    self._out = out or sys.stdout
    self._err = err or sys.stderr
    self._open_line = 0  # Characters of the unfinished progress line.

  def progress(self, line, done=0.0):
    """Shows how far a run is; `done` in [0, 1]."""
    if not self._active:
      return
    if not self._out.isatty():
      print(line, file=self._out, flush=True)
      return
    full = round(done * _BAR)
    line = f'[{"=" * full}{" " * (_BAR - full)}] {line}'
    print(f'\r{line:<{self._open_line}}', end='', file=self._out, flush=True)
    self._open_line = len(line)

  def say(self, line):
    """Writes a line that stays."""
    if self._active:
      self.end_line()
      print(line, file=self._out, flush=True)

  def warn(self, line):
    """Writes a line that stays, to standard error."""
    if self._active:
      self.end_line()
      print(line, file=self._err, flush=True)

  def end_line(self):
    """Leaves the progress line as it is."""
    if self._open_line:
      print(file=self._out, flush=True)
    self._open_line = 0


class Speed:
  """Steps per second, images per second and time left, pauses not counted.

  Args:
    start_step: finished steps at the start.
    train_steps: finished steps at the end.
    batch_size: images per step.
    clock: seconds as a float.
  """

  def __init__(self, *, start_step, train_steps, batch_size, clock=time.perf_counter):
    self._train_steps = train_steps
    self._batch_size = batch_size
    self._clock = clock
    self._paused = 0.0
    self._start = (start_step, self._now())
    self._last = self._start

  def _now(self):
    return self._clock() - self._paused

  @property
  def seconds(self):
    """Seconds since the start, pauses not counted."""
    return self._now() - self._start[1]

  @contextlib.contextmanager
  def pause(self):
    """Does not count the time of its body, such as an evaluation."""
    began = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - began

  def line(self, step, metrics):
    """The progress line of a step; speeds are those since the line before."""
    now = self._now()
    rate = (step - self._last[0]) / max(now - self._last[1], 1e-9)
    overall = (step - self._start[0]) / max(now - self._start[1], 1e-9)
    self._last = (step, now)
    left = (self._train_steps - step) / max(overall, 1e-9)
    return (
      f'step {step}/{self._train_steps}  {step / self._train_steps:4.0%}  '
      f'loss {metrics["loss"]:.4g}  {_short(rate)} steps/s  '
      f'{_short(rate * self._batch_size)} images/s  {format_seconds(left)} left'
    )


def _short(value):
  # Three digits without an exponent.
  return f'{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}'


def format_seconds(seconds):
  """'1:02:03' or '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{seconds:02}'
  return f'{minutes}:{seconds:02}'


def flatten_scores(scores, prefix=''):
  """The numbers in nested dicts by name, `{'a': {'b': 1}}` -> `{'a/b': 1.0}`."""
  flat = {}
  for name, value in scores.items():
    if isinstance(value, dict):
      flat |= flatten_scores(value, f'{prefix}{name}/')
    elif isinstance(value, int | float) or getattr(value, 'shape', None) == ():
      flat[f'{prefix}{name}'] = float(value)
  return flat


class MetricsFile:
  """`metrics.jsonl`, and TensorBoard's event file where tensorboardX is installed.

  Args:
    workdir: an existing folder.
    start_step: lines beyond this step are dropped, and a last line cut short.
    active: False writes nothing.
  """

  def __init__(self, workdir, *, start_step=0, active=True):
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    kept = list(_complete_rows(path, start_step))
    self._rows = [(row['step'], set(row)) for row, _ in kept]
    self._file = self._events = None
    if active:
      files.write_atomically(path, ''.join(line for _, line in kept).encode())
      self._file = open(path, 'a')
      self._events = _EventFile.open(pathlib.Path(workdir) / 'tensorboard', start_step)

  def has(self, step, prefix):
    """Whether a line of that step with a value whose name starts so is there."""
    return any(
      s == step and any(n.startswith(prefix) for n in names) for s, names in self._rows
    )

  def write(self, step, values):
    """Appends one line; numbers that are not finite become null."""
    finite = {n: v for n, v in values.items() if math.isfinite(v)}
    absent = {n: None for n in values if n not in finite}
    self._rows.append((step, set(values)))
    if self._file is None:
      return
    self._file.write(json.dumps({'step': step, **finite, **absent}) + '\n')
    self._file.flush()
    if self._events is not None:
      self._events.scalars(step, finite)

  def image(self, step, name, pixels):
    """Shows an image `[H, W, 3]` uint8 in TensorBoard."""
    if self._events is not None:
      self._events.image(step, name, pixels)

  def close(self):
    """Closes the files."""
    if self._file is not None:
      self._file.close()
    if self._events is not None:
      self._events.close()


def _complete_rows(path, last_step):
  """Yields (row, line) of the whole lines up to a step."""
  if not path.exists():
    return
  for line in path.read_text(errors='replace').splitlines(keepends=True):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      row = json.loads(line)
      if line.endswith('\n') and row['step'] <= last_step:
        yield row, line


class _EventFile:
  """TensorBoard events, written at once.

  tensorboardX's own SummaryWriter writes in a thread, where a full disk would be
  lost, and the queue before it would fill up and block.
  """

  def __init__(self, directory, start_step):
    from tensorboardX import event_file_writer
    from tensorboardX import proto
    from tensorboardX import summary

    self._summary = summary
    self._event = proto.event_pb2.Event
    directory.mkdir(exist_ok=True)
    self._writer = event_file_writer.EventsWriter(str(directory / 'events'))
    # Tells TensorBoard to forget what an interrupted run wrote beyond this step.
    self._add(step=start_step + 1, file_version='brain.Event:2')
    start = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
    self._add(step=start_step + 1, session_log=start)
    self._writer.flush()

  @classmethod
  def open(cls, directory, start_step):
    """The event file, or None where tensorboardX is not installed."""
    try:
      return cls(directory, start_step)
    except ModuleNotFoundError:
      return None

  def _add(self, **fields):
    self._writer.write_event(self._event(wall_time=time.time(), **fields))

  def scalars(self, step, values):
    for name, value in values.items():
      self._add(step=step, summary=self._summary.scalar(name, value))
    self._writer.flush()

  def image(self, step, name, pixels):
    self._add(step=step, summary=self._summary.image(name, pixels, dataformats='HWC'))
    self._writer.flush()

  def close(self):
    self._writer.close()
