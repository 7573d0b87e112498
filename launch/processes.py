"""Programs of one process or of several that jax joins: their flags and their ends."""

import sys
import traceback

from absl import flags

DONE, BUG, MISTAKE, NOT_FINITE, NOT_SAVED = 0, 1, 2, 3, 4


def define_flags(flag_values=flags.FLAGS):
  """Defines the flags that join processes; without them a process is alone."""
  options = dict(flag_values=flag_values)
  flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0.', **options)
  flags.DEFINE_integer('num_processes', None, 'How many there are.', **options)
  flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.', **options)
  flags.DEFINE_bool('distributed', False, 'Join the cluster found.', **options)
  flags.DEFINE_bool('traceback', False, 'Show where an error arose.', **options)


def check_folders(**folders):
  """Raises ValueError for an empty path, which would mean the current folder."""
  for name, path in folders.items():
    if not path:  # As that of a variable of the shell that is not set.
      raise ValueError(f'--{name} must not be empty.')


def run(values, batch_size, work):
  """Joins the other processes, if there are any, and works.

  A process alone makes devices of its cores, if it has no others.

  Args:
    values: of `define_flags`.
    batch_size: what has to be divided by the devices.
    work: `() -> exit status`.

  Returns:
    The exit status: that of `work`, or of the error that it ended with, which is told
    in one sentence.
  """
  # After the flags: a mistake in them is told at once, without loading jax.
  from img2graph.training import errors
  from img2graph.training import parallel

  statuses = {
    errors.UserError: MISTAKE,
    errors.NonFiniteError: NOT_FINITE,
    errors.SaveError: NOT_SAVED,
    errors.PeerError: parallel.PEER_GONE,
  }
  sys.unraisablehook = _unraisablehook
  try:
    with errors.user_errors():
      if values.num_processes is None and not values.distributed:
        parallel.use_cores(batch_size)
      parallel.initialize(
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
        detect=values.distributed,
      )
    return work()
  except tuple(statuses) as error:
    if values.traceback:
      traceback.print_exc()
    print(error, file=sys.stderr)
    status = next(s for kind, s in statuses.items() if isinstance(error, kind))
    parallel.leave(status)
    return status
  except BaseException as error:
    if errors.peer_gone(error):
      print(
        'another process of this run is gone or cannot be reached '
        f'({errors.one_sentence(error)}); the same command in all processes goes on.',
        file=sys.stderr,
      )
      parallel.leave(parallel.PEER_GONE)
    if parallel.joined():
      traceback.print_exc()
      parallel.leave(BUG)
    raise


def _unraisablehook(unraisable):
  # When the first of several concurrent writes of a checkpoint fails, those behind it
  # report to an event loop that is gone. The failure itself is raised in this thread.
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)
