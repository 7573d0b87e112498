"""What ten seeds cost over one: one after another, vmapped, or shared over devices.

  python -m benchmarks.seeds --output=results/benchmarks/seeds.json

For recipes of configs/image_graph_image.py, K seeds (`--seeds`) are trained
- one after another, compiled once,
- vmapped on one device,
- shared over all devices, each holding whole seeds (see `img2graph.training.seeds`); on
  a processor there are those that `JAX_NUM_CPU_DEVICES` makes.

Timed are steps, and whole runs of `--train_steps` steps with compilation, logs,
checkpoints and scores, by the clock and of the processor; the latter says what it costs
when other programs use the machine. Each way has processes of its own. One after
another, a first run compiles and a second reads what it compiled: K cost the first and
K - 1 times the second. What the table says of K seeds is divided by one seed, whose
batch is split over the same devices.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import routes
from benchmarks import throughput
from configs import image_graph_image
from img2graph.training import loop


def time_steps(variant, count, *, steps, rounds):
  """Seconds of a step of `count` seeds: 'clock' and 'processor'."""
  config = image_graph_image.get_config(variant)
  program = throughput.Program(config, count)
  clock, processor = program.time(steps, rounds)
  return {
    'clock': clock,
    'processor': processor,
    'compile': program.compile_seconds,
    'devices': jax.device_count(),
  }


def time_run(variant, first, count, *, train_steps):
  """Seconds of whole runs of `count` seeds, from seed `first` on, at a time."""
  config = image_graph_image.get_config(variant)
  config.train_steps = train_steps
  configs = [config.to_dict() | {'seed': first + i} for i in range(count)]
  began, processor = time.perf_counter(), time.process_time()
  with tempfile.TemporaryDirectory() as folder:
    loop.train_seeds(configs, [pathlib.Path(folder) / str(i) for i in range(count)])
  return {
    'clock': time.perf_counter() - began,
    'processor': time.process_time() - processor,
  }


def _in_process(function, *arguments, devices, cache, **options):
  """What a function of this file returns in a process of its own.

  Args:
    function: its name.
    *arguments: plain values.
    devices: how many it may use; None for all there are.
    cache: folder of compiled programs.
    **options: plain values.
  """
  environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=cache)
  if devices is not None:
    environment |= {'JAX_NUM_CPU_DEVICES': str(devices)}
    visible = environment.get('CUDA_VISIBLE_DEVICES')
    names = visible.split(',') if visible else [str(i) for i in range(devices)]
    environment['CUDA_VISIBLE_DEVICES'] = ','.join(names[:devices])
  call = json.dumps({'function': function, 'arguments': arguments, 'options': options})
  command = [sys.executable, '-m', 'benchmarks.seeds', '--call', call]
  done = subprocess.run(
    command, env=environment, stdout=subprocess.PIPE, text=True, check=True
  )
  return json.loads(done.stdout.splitlines()[-1])


def measure(variant, options):
  """Rows of one recipe: seconds of one seed and of K in each of the ways.

  Args:
    variant: of configs/image_graph_image.py.
    options: of the command line.

  Yields:
    dicts; none for sharing where there is one device.
  """
  step_options = dict(steps=options.steps, rounds=options.rounds)
  run_options = dict(train_steps=options.train_steps)
  count = options.seeds

  def steps(number, place):
    return _in_process('time_steps', variant, number, **place, **step_options)

  def runs(first, number, place):
    # Fresh unless it says otherwise: what is compiled here is to be paid for here.
    if not options.train_steps:
      return None
    return _in_process('time_run', variant, first, number, **place, **run_options)

  for devices in (1, None):
    with tempfile.TemporaryDirectory() as cache:
      place = dict(devices=devices, cache=cache)
      one = {'run': runs(0, 1, place)}
      next_run = runs(1, 1, place)
      one['step'] = steps(1, place)
      found = one['step']['devices']
      if devices is None and found == 1:
        return
      after = {
        'step': {n: count * one['step'][n] for n in ('clock', 'processor')},
        'run': next_run
        and {n: one['run'][n] + (count - 1) * next_run[n] for n in next_run},
      }
      together = {'run': runs(0, count, place), 'step': steps(count, place)}
    way = 'vmapped' if found == 1 else 'shared over devices'
    for name, seconds in (('one after another', after), (way, together)):
      yield {
        'recipe': variant,
        'way': name,
        'seeds': count,
        'devices': found,
        'train_steps': options.train_steps,
        'seconds_of_one': one,
        'seconds_of_all': seconds,
        'over_one': {
          what: {n: seconds[what][n] / one[what][n] for n in ('clock', 'processor')}
          for what in ('step', 'run')
          if one[what]
        },
      }


def table(rows):
  """Markdown of the rows: times one seed."""
  lines = [
    [
      row['recipe'],
      f'{row["way"]} ({row["devices"]})',
      f'{1e3 * row["seconds_of_one"]["step"]["clock"]:.4g}',
      *(
        f'{row["over_one"][what][n]:.2f}' if what in row['over_one'] else '-'
        for what in ('step', 'run')
        for n in ('clock', 'processor')
      ),
    ]
    for row in rows
  ]
  count = rows[0]['seeds']
  header = ['recipe', f'{count} seeds (devices)', 'step of one, ms']
  header += ['steps over one', 'processor', 'runs over one', 'processor']
  return routes.markdown(header, lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--recipes', nargs='+', default=['ours,cpu', 'paper,cpu'], metavar='VARIANT'
  )
  parser.add_argument('--seeds', type=int, default=10)
  parser.add_argument('--steps', type=int, default=10, help='of one measurement')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--train_steps', type=int, default=200, help='of a run; 0: none')
  parser.add_argument('--note', default='', help='for the record')
  parser.add_argument('--output', help='JSON; the table goes beside it')
  parser.add_argument('--call', help=argparse.SUPPRESS)
  options = parser.parse_args(argv)
  if options.call:
    call = json.loads(options.call)
    found = globals()[call['function']](*call['arguments'], **call['options'])
    print(json.dumps(found))
    return 0
  if options.seeds < 2 or min(options.steps, options.rounds) < 1:
    message = '--seeds must be 2 or more, and --steps and --rounds positive.'
    print(message, file=sys.stderr)
    return 2
  unknown = set(options.recipes) - set(image_graph_image.VARIANTS)
  if unknown:
    print(f'there is no recipe {min(unknown)!r}.', file=sys.stderr)
    return 2
  rows = []
  load = os.getloadavg()[0]
  for recipe in options.recipes:
    for row in measure(recipe, options):
      rows.append(row)
      print(table(rows[-1:]).splitlines()[-1], flush=True)
  text = table(rows)
  if options.note:
    text += f'\n{options.note}\n'
  print(f'\n{text}')
  if options.output:
    load = {'before': load, 'after': os.getloadavg()[0]}
    routes.write_report(
      options.output, rows, text, note=options.note, load_average=load
    )
  return 0


if __name__ == '__main__':
  sys.exit(main())
