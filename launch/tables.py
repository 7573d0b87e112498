"""Runs the cells of a paper's tables that are missing, and draws the tables.

  python -m launch.tables --paper=image_graph_image --table=1 --seeds=10

A table is what `sweep(TABLE)` of configs/PAPER.py yields, a dict for each row, and a
cell is a row with a seed. Any number of workers may run the same command, on one
machine or on many that share the workdir: each cell is claimed once, and that of a
killed worker is taken up again from its last checkpoint (see `launch.cells`). Each
finished cell is one line of results/PAPER/table_TABLE.jsonl, and the table is drawn
from these lines alone, as table_TABLE.md and, for each scale, table_TABLE_SCALE.png.

--seeds_at_once=K trains up to K seeds of a row in one program (see docs/many_seeds.md);
`auto` or 0 does what is faster: all that are missing of a row on a GPU or TPU, and one
after another on a processor or with several processes. The runs of a table of time and
memory are trained one after another, whatever this says.

--scale=paper is the paper's protocol, --scale=cpu a smaller one that two cores finish;
they are told apart everywhere. --dry_run lists the cells with what is known of their
time. --table=all runs all tables, one after another.

Several processes train each cell together when they are joined as those of
`launch.main` are, by --distributed or by --coordinator, --num_processes and
--process_id; the first of them claims and records.

Exit status: 0 done; 1 a cell failed; 2 a mistake in what was asked for; 3 other
workers are at some cells still; 4 something could not be saved; 5 another process is
gone; 130 or 143 stopped and saved.
"""

import functools
import importlib
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging
from scipy import stats

from img2graph import files
from img2graph import plotting
from img2graph.training import loop
from img2graph.training import parallel
from img2graph.training import record
from launch import cells
from launch import processes

_PAPER = flags.DEFINE_string('paper', None, 'File of configs/ without its ending.')
_TABLE = flags.DEFINE_string('table', 'all', 'Which one, as the file names them.')
_SCALE = flags.DEFINE_string('scale', 'cpu', 'As the file names them.')
_SEEDS = flags.DEFINE_integer('seeds', 10, 'How many there are of each row.')
_AT_ONCE = flags.DEFINE_string('seeds_at_once', '1', 'How many, or auto.')
_RECIPES = flags.DEFINE_list('recipes', None, 'Only the rows of these.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/tables', 'Folder of the runs.')
_OUTPUT = flags.DEFINE_string('output', 'results', 'Folder of the results.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only list the cells.')
_WAIT = flags.DEFINE_bool('wait', False, 'Wait for the cells of other workers.')
processes.define_flags()


def load(paper):
  """The module configs/PAPER.py.

  Raises:
    ValueError: there is none, or it has no tables.
  """
  try:
    module = importlib.import_module(f'configs.{paper}')
  except ModuleNotFoundError as error:
    if error.name != f'configs.{paper}':
      raise
    raise ValueError(f'there is no configs/{paper}.py.') from None
  if not hasattr(module, 'TABLES'):
    raise ValueError(f'configs/{paper}.py has no tables.')
  return module


def cells_of(module, table, *, scale, seeds, recipes=None):
  """The cells of a table, all rows of a seed before those of the next.

  Args:
    module: of `load`.
    table: name of a table.
    scale: name of a scale.
    seeds: how many.
    recipes: names; None for all.

  Returns:
    list of `cells.Cell`.

  Raises:
    ValueError: the config has no such table, scale or recipe, or a row of the table
      has no name or recipe, or what it says is of another form.
  """
  if table not in module.TABLES:
    raise ValueError(
      f'the tables are {", ".join(module.TABLES)} and all; got {table!r}.'
    )
  if scale not in module.SCALES:
    raise ValueError(f'scale must be one of {", ".join(module.SCALES)}; got {scale!r}.')
  unknown = set(recipes or ()) - set(module.RECIPES)
  if unknown:
    raise ValueError(
      f'recipes must be of {", ".join(module.RECIPES)}; got {min(unknown)!r}.'
    )
  if seeds < 1:
    raise ValueError(f'seeds must be at least 1; got {seeds}.')
  # Rows of one config share its cells, for example those of different scores.
  settings = {}
  for row in _rows(module, table):
    if scale not in row.get('scales', module.SCALES):
      continue
    config = module.get_config(f'{row["recipe"]},{scale}')
    config = cells.override(config, row['overrides'])
    key = record.config_hash(cells.plain(config))
    settings.setdefault(key, (config, []))[1].append(row)
  found = []
  for seed in range(seeds):
    for config, rows in settings.values():
      if recipes and not any(row['recipe'] in recipes for row in rows):
        continue
      recipe = rows[0]['recipe']
      cell = cells.Cell(
        '',
        cells.override(config, {'seed': seed}),
        {'table': table, 'scale': scale, 'recipe': recipe, 'rows': rows},
      )
      found.append(cell._replace(name=f'{recipe}_{scale}_{cell.hash}_seed_{seed}'))
  if not found:
    raise ValueError(
      f'table {table} has no row at the scale {scale} of the recipes '
      f'{", ".join(recipes or module.RECIPES)}.'
    )
  return found


def _rows(module, table):
  """The rows of a table with their 'order' and all that a row may leave out."""
  rows = list(module.sweep(table))
  for order, row in enumerate(rows):
    missing = [name for name in ('recipe', 'row') if name not in row]
    if missing:
      raise ValueError(
        f'row {order + 1} of table {table} lacks {" and ".join(missing)}.'
      )
    # Told now, and not when all cells are run and the table is drawn.
    for name, is_one, what in (
      ('row', lambda v: isinstance(v, str), 'text'),
      ('published', _is_figure, '(number, its deviation or None)'),
    ):
      values = row.get(name, {})
      if not isinstance(values, Mapping) or not all(map(is_one, values.values())):
        raise ValueError(
          f'{name} in row {order + 1} of table {table} must be {{column: {what}}}; '
          f'got {values!r}.'
        )
  defaults = {'overrides': {}, 'published': {}, 'part': ''}
  return [{'order': order} | defaults | row for order, row in enumerate(rows)]


def _is_figure(value):
  return isinstance(value, list | tuple) and len(value) == 2


def estimate(cell, lines):
  """Seconds that a cell takes, from lines of the same recipe and scale; None if none.

  The nearest config counts: a cell of the same row, or else of any row, by its images.
  """
  alike = [
    line
    for line in lines
    if (line['recipe'], line['scale']) == (cell.label['recipe'], cell.label['scale'])
  ]
  orders = {row['order'] for row in cell.label['rows']}
  same = [
    line
    for line in alike
    if line['table'] == cell.label['table']
    and orders & {row['order'] for row in line['rows']}
  ]
  images = cell.config.train_steps * cell.config.batch_size
  rates = [_seconds(line) / line['images_seen'] for line in same or alike]
  return images * float(np.mean(rates)) if rates else None


def _seconds(line):
  """Those of a cell: seeds at once share their time."""
  times = line['wall_clock']
  if 'own_total_seconds' in times:
    return times['own_total_seconds']
  return times['total_seconds'] / line.get('seeds_at_once', 1)


class Form(NamedTuple):
  """How the lines of a table are shown; `FORMS[TABLE]` of configs/PAPER.py.

  Attributes:
    columns: `{title: (place, factor)}`: a score's place in a line's 'scores', keys
      joined by '/', or with '/' in front in the line itself; and what it is multiplied
      by. Of several places, joined by '|', the first that is there.
    about: what the columns are, a sentence or two.
    notes: `{scale: sentence}`, what a scale's figures should not be mistaken for.
    alone: whether each run is trained alone, whatever --seeds_at_once says, because
      its time and memory are what the columns are about.
  """

  columns: dict[str, tuple[str, float]]
  about: str
  notes: Mapping[str, str] = types.MappingProxyType({})
  alone: bool = False


def _triplets(threshold, name):
  return f'at/{threshold}/edge_lenient/micro/{name}', 100


TRIPLETS = Form(
  columns={
    'P 5 %': _triplets('0.05', 'precision'),
    'R 5 %': _triplets('0.05', 'recall'),
    'F1 3 %': _triplets('0.03', 'f1'),
    'F1 5 %': _triplets('0.05', 'f1'),
    'F1 8 %': _triplets('0.08', 'f1'),
    'exact 5 %': ('at/0.05/exact', 100),
  },
  about='In percent. P, R and F1 are those of edge triplets, all images together, at '
  'distances of up to 3, 5 and 8 % of the side; exact is the share of images without a '
  'mistake.',
)


def form_of(module, table):
  """The `Form` of a table: that of edge triplets, if the paper's file has no other."""
  form = getattr(module, 'FORMS', {}).get(table)
  return TRIPLETS if form is None else Form(**form)


def read(path):
  """The lines of a table in the order in which they were written.

  A cell whose label has changed, such as a row that was named anew, has a line for
  each; the last counts.
  """
  return list({line['config_hash']: line for line in cells.read(path)}.values())


def settings_of(module, table, *, scale):
  """What the rows of a table are today: `{row: hash}`, of the config without its seed.

  The key of a row is that of `summarize`. Empty where the scale has no row.
  """
  if scale not in module.SCALES:
    return {}
  try:
    wanted = cells_of(module, table, scale=scale, seeds=1)
  except ValueError:
    return {}
  return {_row_key(row): cell.row for cell in wanted for row in cell.label['rows']}


def _row_key(row):
  return (row['recipe'], *row['row'].items())


def summarize(lines, form=TRIPLETS, settings=None):
  """The rows of a table, from its lines alone.

  Of a row whose setting has changed the lines of today's setting count, or, where there
  are none or it is not known, those of the setting that was first run last.

  Args:
    lines: dicts of `read`, of one scale.
    form: a `Form`.
    settings: of `settings_of`, if known.

  Returns:
    list of dicts in the table's order: 'recipe', 'row', 'published', 'n', and 'scores',
    `{title: (mean, standard deviation)}`, the deviation that of the seeds (n - 1), 0
    for one seed, or `{title: None}` where no line tells of it. A row that is held
    'against' another one has 'gain', what it is above that in the first column: (mean,
    half of the 95 % interval, number of seeds), from the differences of the seeds that
    both have, by Student's t; no interval (None) for one seed.
  """
  by_setting = {}
  for line in lines:
    setting = record.config_hash(line['config'] | {'seed': None})
    for row in line['rows']:
      of_row = by_setting.setdefault(_row_key(row), {})
      _, seeds = of_row.get(setting, (None, {}))
      of_row[setting] = row, seeds | {line['seed']: _scores(line, row['part'], form)}
  groups = {
    key: of_row.get((settings or {}).get(key), [*of_row.values()][-1])
    for key, of_row in by_setting.items()
  }
  found = []
  for row, seeds in sorted(groups.values(), key=lambda group: group[0]['order']):
    stack = {name: [s[name] for s in seeds.values()] for name in form.columns}
    one = {
      'recipe': row['recipe'],
      'row': row['row'],
      'published': row['published'],
      'n': len(seeds),
      'scores': {name: _mean_and_deviation(v) for name, v in stack.items()},
    }
    others = [s for r, s in groups.values() if r['row'] == row.get('against')]
    if others and others[0].keys() & seeds.keys():
      first = next(iter(form.columns))
      both = others[0].keys() & seeds.keys()
      one['gain'] = _interval([seeds[s][first] - others[0][s][first] for s in both])
    found.append(one)
  return found


def _mean_and_deviation(values):
  """Of the values that are told; None if none is."""
  told = [v for v in values if v is not None]
  if not told:
    return None
  return float(np.mean(told)), float(np.std(told, ddof=1)) if len(told) > 1 else 0.0


def _interval(values):
  """(mean, half of its 95 % interval or None, number)."""
  count = len(values)
  if count < 2:
    return float(values[0]), None, count
  spread = np.std(values, ddof=1) / count**0.5
  return float(np.mean(values)), float(stats.t.ppf(0.975, count - 1) * spread), count


def _scores(line, part, form):
  scores = line['scores'][part] if part else line['scores']
  found = {}
  for title, (place, factor) in form.columns.items():
    values = (_at(line, scores, one) for one in place.split('|'))
    # Not every system tells everything, for example memory.
    value = next((value for value in values if value is not None), None)
    found[title] = value if value is None else factor * value
  return found


def _at(line, scores, place):
  """The value at a place, or None."""
  value = line if place.startswith('/') else scores
  for key in place.strip('/').split('/'):
    if key not in value:
      return None
    value = value[key]
  return value


def as_text(rows, form=TRIPLETS):
  """A table as lists of texts, the head first.

  Args:
    rows: of `summarize`, at least one.
    form: a `Form`.
  """
  names = list(dict.fromkeys(name for row in rows for name in row['row']))
  published = list(dict.fromkeys(name for row in rows for name in row['published']))
  gains = any('gain' in row for row in rows)
  head = ['recipe', *names]
  head += [f'paper: {n.replace("f1", "F1")}' for n in published]
  head += form.columns
  head += [f'gain in {next(iter(form.columns))}'] if gains else []
  table = [[*head, 'n']]
  for row in rows:
    texts = [row['recipe'], *(row['row'].get(name, '') for name in names)]
    texts += [_number(row['published'].get(name)) for name in published]
    texts += [_number(row['scores'][name], row['n'] == 1) for name in form.columns]
    texts += [_gain(row.get('gain'))] if gains else []
    table.append([*texts, str(row['n'])])
  return table


def _gain(gain):
  """A paired difference with its interval."""
  if gain is None:
    return ''
  mean, half, count = gain
  if half is None:
    return f'{mean:+.2f} (one pair)'
  return f'{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] ({count} pairs)'


def _number(pair, alone=False):
  """A mean with its deviation, which a seed alone, or a lone figure, does not have."""
  if pair is None:
    return ''
  alone = alone or pair[1] is None
  return f'{pair[0]:.1f}' if alone else f'{pair[0]:.1f} ± {pair[1]:.1f}'


def markdown(title, lines, form=TRIPLETS, settings=None):
  """The Markdown page of a table, a section for each scale.

  Args:
    title: a sentence.
    lines: dicts of `read`.
    form: a `Form`.
    settings: `{scale: what settings_of gives}`, if known.
  """
  text = [f'# {title}', '']
  for scale in _scales(lines):
    chosen = [line for line in lines if line['scale'] == scale]
    rows = summarize(chosen, form, (settings or {}).get(scale))
    head, *body = as_text(rows, form)
    text += [f'## Scale: {scale}', '', _about(chosen, form), '']
    text += [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    text += [f'| {" | ".join(row)} |' for row in body]
    text.append('')
  return '\n'.join(text)


def _scales(lines):
  return sorted({line['scale'] for line in lines})


def _about(lines, form):
  """What the lines of a scale have in common, in a sentence or two."""
  sides = {line['config']['data'].get('side') for line in lines} - {None}
  steps = sorted({line['images_seen'] for line in lines})
  hours = sum(map(_seconds, lines)) / 3600
  chips = sorted(
    {
      f'{line["hardware"]["cpu_model"]}'
      if line['hardware']['platform'] == 'cpu'
      else line['hardware']['device_kind']
      for line in lines
    }
  )
  commits = sorted({line['code']['commit'][:10] for line in lines})
  losses = sorted(
    {(line['config']['method'].get('loss') or {}).get('kind') for line in lines}
    - {None},
  )
  images = f'Images of {_and(sorted(sides))} pixels, ' if sides else 'Images, '
  text = f'Mean and standard deviation over n seeds. {form.about} '
  if note := form.notes.get(lines[0]['scale']):
    text += f'{note} '
  text += f'{images}{_and([f"{n:,}" for n in steps])} of them in training; '
  if losses:
    text += f'loss: {_and(losses)}; '
  return text + f'{hours:.1f} hours in all on {_and(chips)}; commits {_and(commits)}.'


def _and(values):
  *first, last = map(str, values)
  return f'{", ".join(first)} and {last}' if first else last


def draw(module, table, output):
  """Writes the Markdown page and the pictures of a table, if it has any lines."""
  folder = pathlib.Path(output)
  lines = read(folder / f'table_{table}.jsonl')
  if not lines:
    return
  form = form_of(module, table)
  settings = {s: settings_of(module, table, scale=s) for s in _scales(lines)}
  text = markdown(module.TABLES[table], lines, form, settings)
  files.write_atomically(folder / f'table_{table}.md', text.encode())
  for scale in _scales(lines):
    chosen = [line for line in lines if line['scale'] == scale]
    rows = summarize(chosen, form, settings[scale])
    title = f'{module.TABLES[table]}; scale: {scale}'
    picture = plotting.text_table(as_text(rows, form), title=title)
    plotting.save_png(folder / f'table_{table}_{scale}.png', picture)


def list_cells(wanted, lines, say=print):
  """Says what is to be done, and how long it takes as far as that is known."""
  total, unknown = 0.0, 0
  for cell in wanted:
    seconds = None if cells.find(lines, cell) else estimate(cell, lines)
    if cells.find(lines, cell):
      what = 'done'
    elif seconds is None:
      what, unknown = 'to do, time unknown', unknown + 1
    else:
      what, total = f'to do, {seconds / 60:.1f} min', total + seconds
    rows = '; '.join(', '.join(r['row'].values()) for r in cell.label['rows'])
    say(f'{cell.name}  {rows}  {what}')
  more = f', and {unknown} cells of unknown time' if unknown else ''
  say(f'{len(wanted)} cells; {total / 3600:.1f} h to do on one such machine{more}.')


def _keep_compiled(workdir):
  """All seeds of a row are one program: what one cell compiled, the others read."""
  kind = record.cpu_model()  # A program is made for one kind of processor.
  folder = workdir / 'compiled' / cells.slug({'cpu': kind})
  jax.config.update('jax_compilation_cache_dir', str(folder.absolute()))


def seeds_at_once(text, seeds):
  """What --seeds_at_once means, a number.

  Args:
    text: the flag.
    seeds: how many there are of a row.

  Raises:
    ValueError: it is neither a number nor `auto`.
  """
  if text in ('auto', '0'):
    alone = jax.process_count() == 1 and jax.default_backend() != 'cpu'
    return seeds if alone else 1
  if not text.isdecimal():
    raise ValueError(f'seeds_at_once must be a number or auto; got {text!r}.')
  return int(text)


def train_seeds(configs, workdirs):
  """As `loop.train_seeds`; half as many at a time if memory does not suffice."""
  try:
    return loop.train_seeds(configs, workdirs)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error) or len(configs) == 1:
      raise
  # Out of the handler, which keeps hold of what was in memory.
  half = len(configs) // 2
  print(f'{len(configs)} seeds do not fit into memory at once: trying {half}.')
  results = train_seeds(configs[:half], workdirs[:half])
  if any(isinstance(r, dict) and 'interrupted' in r for r in results):
    return results + results[:1] * (len(configs) - half)
  return results + train_seeds(configs[half:], workdirs[half:])


def run(argv):
  """Does what the flags say; returns the exit status."""
  if argv[1:]:
    raise ValueError(f'there is an argument that is no flag: {argv[1]}.')
  processes.check_folders(workdir=_WORKDIR.value, output=_OUTPUT.value)
  module = load(_PAPER.value)
  output = files.expand(_OUTPUT.value) / _PAPER.value
  names = list(module.TABLES) if _TABLE.value == 'all' else [_TABLE.value]
  paths = {name: output / f'table_{name}.jsonl' for name in module.TABLES}
  wanted = {
    name: cells_of(
      module,
      name,
      scale=_SCALE.value,
      seeds=_SEEDS.value,
      recipes=_RECIPES.value,
    )
    for name in names
  }
  if _DRY_RUN.value:
    lines = [line for path in paths.values() for line in cells.read(path)]
    for name in names:
      print(f'Table {name}')
      list_cells(wanted[name], lines)
    return 0
  work = functools.partial(_run_tables, module, wanted, paths, output)
  batch_size = cells.common_batch_size(c for found in wanted.values() for c in found)
  return processes.run(flags.FLAGS, batch_size, work)


def _run_tables(module, wanted, paths, output):
  """Runs the cells, and draws what there is; returns the exit status."""
  _keep_compiled(files.expand(_WORKDIR.value))
  at_once = seeds_at_once(_AT_ONCE.value, _SEEDS.value)
  tallies = []
  for name, found in wanted.items():
    tally = cells.run_missing(
      found,
      files.expand(_WORKDIR.value) / _PAPER.value,
      paths[name],
      train=loop.train,
      train_seeds=train_seeds,
      at_once=1 if form_of(module, name).alone else at_once,
      others=[path for other, path in paths.items() if other != name],
      wait=_WAIT.value,
    )
    if parallel.is_first():
      draw(module, name, output)
    tallies.append(tally)
    if tally.interrupted:
      break
    if tally.claimed:
      print(f'Table {name}: other workers are at {len(tally.claimed)} cells.')
    if tally.failed:
      print(f'Table {name}: {len(tally.failed)} cells failed.', file=sys.stderr)
  return cells.exit_status(tallies)


def main(argv):
  logging.set_verbosity(logging.ERROR)
  try:
    status = run(argv)
  except ValueError as error:
    print(error, file=sys.stderr)
    status = processes.MISTAKE
  sys.exit(status)


if __name__ == '__main__':
  flags.mark_flag_as_required('paper')
  app.run(main)
