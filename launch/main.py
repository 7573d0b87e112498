"""Trains or evaluates one config in one workdir.

  python -m launch.main --config=configs/simple_shapes.py --workdir=DIR
  python -m launch.main --config=configs/simple_shapes.py:128px --workdir=DIR \\
      --config.train_steps=2000 --config.optim.lr=1e-3
  python -m launch.main --config=... --workdir=DIR --mode=evaluate

`FILE:VARIANT` names a variant of the config, and `--config.KEY=VALUE` changes a value.
The same command goes on where a stopped or killed run was. Several processes join by
--coordinator, --num_processes and --process_id, or by --distributed on a cluster that
jax knows (Slurm, Open MPI, Kubernetes, Cloud TPU). Without a GPU or TPU, a process
alone makes a device of each core as far as the batch size can be divided by their
number and leaves 8 images or more to each; JAX_NUM_CPU_DEVICES chooses another number.

Exit status: 0 done, or stopped by SIGTERM and saved; 2 a mistake in what was asked
for; 3 the loss was not finite; 4 something could not be saved; 5 another process of the
run is gone; 130 stopped by Ctrl-C and saved, which joined processes take for a SIGTERM.
"""

import os
import re
import signal
import sys

from absl import flags
from absl import logging
from ml_collections import config_flags

from launch import processes

MODES = ('train_and_evaluate', 'train', 'evaluate')


class FlagError(ValueError):
  """The command line cannot be used; the message says why, in one sentence."""


def parse(argv):
  """The flags of a command line.

  Args:
    argv: with the program's name in front.

  Returns:
    `absl.flags.FlagValues`, whose `config` is a locked ConfigDict.

  Raises:
    FlagError: a flag, an override, a variant or a value is wrong.
  """
  # Flags of their own, not absl's global ones: a process may parse several lines.
  values = flags.FlagValues()
  # A module of the line before would lend its get_config to a file without one.
  sys.modules.pop('config_config', None)
  config_flags.DEFINE_config_file(
    'config', None, 'FILE[:VARIANT].', flag_values=values, sys_argv=list(argv)
  )
  options = dict(flag_values=values)
  flags.DEFINE_string('workdir', None, 'Folder of the run.', **options)
  flags.DEFINE_enum('mode', MODES[0], MODES, 'What to do.', **options)
  processes.define_flags(values)
  try:
    rest = values(list(argv))[1:]
  except Exception as error:  # A config file may raise anything.
    raise FlagError(_explain(error, argv)) from error
  if rest:
    raise FlagError(f'there is an argument that is no flag: {rest[0]}.')
  for name in ('config', 'workdir'):
    if not values[name].present:
      raise FlagError(f'--{name} is needed; --help tells more.')
  try:
    processes.check_folders(workdir=values.workdir)
  except ValueError as error:
    raise FlagError(error) from error
  try:
    values.config.to_dict()
  except OSError as error:
    raise FlagError(_explain(error, argv)) from error
  except AttributeError as error:
    raise FlagError(f'get_config of {_place(argv)} gives no ConfigDict.') from error
  return values


def _place(argv):
  """FILE[:VARIANT] of a command line."""
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    if re.fullmatch('--?config', argument):
      return following
    if re.match('--?config=', argument):
      return argument.split('=', 1)[1]
  return '--config'


def _explain(error, argv):
  """One sentence about an exception from parsing the flags."""
  place = _place(argv)
  file = place.split(':')[0]
  # absl and ml_collections wrap what a config file raises, with the whole traceback.
  text = str(error.args[0]) if error.args else type(error).__name__
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  last = re.sub(r'^\w+(Error|Exception): ', '', lines[-1] if lines else '')
  last = f'{last.rstrip(". ")}.'
  if isinstance(error, OSError):
    return f'there is no config file {file} that can be read.'
  if isinstance(error, flags.UnrecognizedFlagError):
    return f'there is no flag --{error.flagname}; --help lists them.'
  if isinstance(error, flags.Error) and 'parsing config file' not in text:
    return f'{lines[0].rstrip(".")}.'
  if "no attribute 'get_config'" in text:
    return f'{file} has no function get_config.'
  if isinstance(error, AttributeError | KeyError):
    for name in [a[1:] for a in argv if re.match(r'--?config\.', a)]:
      key = name.split('=')[0].split('.', 1)[1]
      if key.split('.')[-1] in text or key.split('.')[0] in text:
        hint = re.search('Did you mean "(.+?)"', text)
        hint = (
          f'; did you mean {hint.group(1)!r}?'
          if hint
          else ', and flags change only what it has.'
        )
        return f'{place} has no value {key!r}{hint}'
    if ':' in place:
      return f'{file} has no variant {place.split(":", 1)[1]!r}.'
  return f'{place}: {last}'


def run(argv):
  """Does what a command line says; returns the exit status."""
  if any(a in ('--help', '-help', '-h', '-?', '--helpfull') for a in argv[1:]):
    print(
      __doc__ + f'\nModes: {", ".join(MODES)}. --traceback shows where an error arose.'
    )
    return processes.DONE
  # ml_collections logs what it raises too.
  logging.set_verbosity(logging.ERROR)
  try:
    values = parse(argv)
  except FlagError as error:
    print(error, file=sys.stderr)
    return processes.MISTAKE

  def work():
    from img2graph.training import loop

    workdir = os.path.expanduser(values.workdir)
    if values.mode == 'evaluate':
      results = loop.evaluate(values.config, workdir)
    else:
      with_scores = values.mode == 'train_and_evaluate'
      results = loop.train(values.config, workdir, evaluate=with_scores)
    stopped = results.get('interrupted') == signal.SIGINT
    return 130 if stopped else processes.DONE

  return processes.run(values, values.config.get('batch_size', 1), work)


if __name__ == '__main__':
  sys.exit(run(sys.argv))
