"""Runs every entry of a config's sweep, one after another, and collects the results.

  python -m launch.sweep --config=configs/simple_shapes.py --sweep=seeds \\
      --workdir=DIR --output=results/simple_shapes/seeds.jsonl

`sweep(name)` of the config file yields dicts of overrides; '' stands for the default.
An entry's run lies in a folder of its own in the workdir and goes on where it was
stopped. Each finished entry is one line of the output: its overrides and what
`results.json` holds. Entries that stand there with the same config are not run again,
nor those that another worker with the same workdir is at (see `launch.cells`).
Beside the output lies a table of it in Markdown, the mean over seeds in each row, of
the configs as they are now.

Exit status: 0 all is done; 1 an entry failed; 2 a mistake in what was asked for; 3
other workers are at what is missing; 4 something could not be saved; 130 or 143 stopped
and saved.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from img2graph import files
from launch import cells
from launch import processes

_THRESHOLDS = ('0.03', '0.05', '0.08')  # The usual ones.


def _define_flags():
  # Not when this file is imported: others have flags of these names, too.
  config_flags.DEFINE_config_file('config', None, 'FILE[:VARIANT].')
  flags.DEFINE_string('sweep', '', 'Which sweep of the config file.')
  flags.DEFINE_string('workdir', None, 'Folder of the runs.')
  flags.DEFINE_string('output', None, 'JSON lines, one for each entry.')
  flags.mark_flags_as_required(['config', 'workdir', 'output'])


def load_module(config_path):
  """The module of a config file.

  Raises:
    ValueError: there is no such file.
  """
  if not pathlib.Path(config_path).is_file():
    raise ValueError(f'there is no config file {config_path}.')
  spec = importlib.util.spec_from_file_location('sweep_config', config_path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def entries(config_path, name):
  """The dicts of overrides that `sweep(name)` of a config file yields.

  Raises:
    ValueError: the file has no sweep of that name.
  """
  module = load_module(config_path)
  if not hasattr(module, 'sweep'):
    raise ValueError(f'{config_path} has no sweep().')
  return list(module.sweep(name) if name else module.sweep())


def cells_of(config, overrides_list):
  """The cells of the entries of a sweep, those of different configs by other names."""
  found = [
    cells.Cell(
      cells.slug(overrides),
      cells.override(config, overrides),
      {'overrides': overrides},
    )
    for overrides in overrides_list
  ]
  named = {}
  for cell in found:
    named.setdefault(cell.name, set()).add(cell.hash)
  return [
    cell
    if len(named[cell.name]) == 1
    else cell._replace(name=f'{cell.name},{cell.hash}')
    for cell in found
  ]


def table(rows):
  """Markdown table of the lines of an output; seeds of one setting share a row.

  Each cell is the mean and, of several seeds, the lowest value, in percent. Where there
  are no edge triplets it is the mean of what a run tells first, in its own unit.
  The columns are of distances of 3, 5 and 8 % as far as a run was evaluated at them, or
  else of those that there are; a cell without scores is empty, and so is the capacity
  of a method that has none.
  """
  groups = {}
  for row in rows:
    groups.setdefault(_setting(row), []).append(row)
  if any('at' not in row['scores'] for row in rows):
    return _table_of_headlines(groups)
  there = {t for row in rows for t in row['scores']['at']}
  shown = [t for t in _THRESHOLDS if t in there] or sorted(there, key=float)
  columns = [('F1', t, _f1) for t in shown]
  columns.append(('exact', '0.05' if '0.05' in shown else shown[-1], _exact))
  titles = [f'{title} {100 * float(t):g} %' for title, t, _ in columns]
  lines = [
    f'| setting | capacity | seeds | {" | ".join(titles)} | minutes |',
    '|---' * (len(columns) + 4) + '|',
  ]
  for (name, _), group in groups.items():
    minutes = np.mean([row['wall_clock']['total_seconds'] for row in group]) / 60
    capacity = group[0]['config']['method'].get('capacity')
    tested = group[0]['config']['eval'].get('capacities') or [None]
    for k in tested:
      scores = [
        row['scores'] if k is None else row['scores'][f'capacity_{k}'] for row in group
      ]
      figures = [
        _cell([value(s['at'][t]) for s in scores if t in s['at']])
        for _, t, value in columns
      ]
      lines.append(
        f'| {name} | {k or capacity or ""} | {len(group)} | {" | ".join(figures)} '
        f'| {minutes:.1f} |'
      )
  return '\n'.join(lines) + '\n'


def _setting(row):
  """The overrides of a line apart from the seed: (a name, what is theirs alone)."""
  setting = {k: v for k, v in row['overrides'].items() if k != 'seed'}
  return cells.slug(setting), json.dumps(setting, sort_keys=True)


def _f1(scores):
  return scores['edge_lenient']['micro']['f1']


def _exact(scores):
  return scores['exact']


def _table_of_headlines(groups):
  """The table of `{_setting: lines}` by the scores that `loop.headline` names."""
  from img2graph.training import loop

  told = {
    key: [loop.headline(row['scores'], nested=False) for row in group]
    for key, group in groups.items()
  }
  columns = list(
    dict.fromkeys(n for rows in told.values() for row in rows for n in row)
  )
  lines = [
    f'| setting | seeds | {" | ".join(columns)} | minutes |',
    '|---' * (len(columns) + 3) + '|',
  ]
  for key, group in groups.items():
    minutes = np.mean([row['wall_clock']['total_seconds'] for row in group]) / 60
    values = [[row[c] for row in told[key] if c in row] for c in columns]
    figures = [f'{np.mean(v):.4g}' if v else '' for v in values]
    lines.append(f'| {key[0]} | {len(group)} | {" | ".join(figures)} | {minutes:.1f} |')
  return '\n'.join(lines) + '\n'


def draw(output, wanted):
  """Writes the table of an output beside it.

  Args:
    output: path of JSON lines.
    wanted: the cells of the sweep as it is now; lines of other configs stay, and are
      left out of the table.
  """
  rows = cells.read(output)
  last = {row['config_hash']: row for row in rows}
  ours = {}
  for cell in wanted:
    # Entries that come to one config have a line each.
    if row := cells.find(rows, cell) or last.get(cell.hash):
      ours.setdefault((_setting(row), cell.hash), row)
  ours = list(ours.values())
  if others := len(last.keys() - {cell.hash for cell in wanted}):
    print(f'{others} lines of other configs are not in the table.')
  text = table(ours) if ours else 'No entry is done.\n'
  output.parent.mkdir(parents=True, exist_ok=True)
  files.write_atomically(output.with_suffix('.md'), text.encode())


def _cell(values):
  if not values:
    return ''
  text = f'{100 * np.mean(values):.2f}'
  return text if len(values) == 1 else f'{text} (min {100 * min(values):.2f})'


def run(config, overrides_list, workdir, output):
  """Runs what is missing and draws the table; returns the exit status.

  Args:
    config: ConfigDict.
    overrides_list: dicts of `entries`.
    workdir: folder of the runs.
    output: path of the JSON lines.
  """
  from img2graph.training import errors
  from img2graph.training import loop
  from img2graph.training import parallel

  output = pathlib.Path(output)
  try:
    if output.suffix == '.md':
      raise ValueError(f'--output is of JSON lines, its table .md; got {output}.')
    wanted = cells_of(config, overrides_list)
    parallel.use_cores(cells.common_batch_size(wanted))
    tally = cells.run_missing(wanted, workdir, output, train=loop.train)
    draw(output, wanted)
  except (ValueError, errors.UserError) as error:
    print(error, file=sys.stderr)
    return processes.MISTAKE
  except OSError as error:  # A SaveError, or of the table.
    print(error, file=sys.stderr)
    return processes.NOT_SAVED
  if tally.claimed:
    print(f'Other workers are at {len(tally.claimed)} entries.')
  if tally.failed:
    print(f'{len(tally.failed)} entries failed.', file=sys.stderr)
  return cells.exit_status([tally])


def main(argv):
  logging.set_verbosity(logging.ERROR)
  values = flags.FLAGS
  path = config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0]
  try:
    if argv[1:]:
      raise ValueError(f'there are no arguments but flags; got {argv[1]!r}.')
    processes.check_folders(workdir=values.workdir, output=values.output)
    found = entries(path, values.sweep)
  except ValueError as error:
    print(error, file=sys.stderr)
    sys.exit(processes.MISTAKE)
  workdir, output = files.expand(values.workdir), files.expand(values.output)
  sys.exit(run(values.config, found, workdir, output))


if __name__ == '__main__':
  _define_flags()
  app.run(main)
