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
after another on a processor or with several processes.

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

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

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

_THRESHOLDS = ('0.03', '0.05', '0.08')


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
    ValueError: the config has no such table, scale or recipe.
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
  for order, row in enumerate(module.sweep(table)):
    if recipes and row['recipe'] not in recipes:
      continue
    config = module.get_config(f'{row["recipe"]},{scale}')
    config = cells.override(config, row['overrides'])
    key = (row['recipe'], record.config_hash(cells.plain(config)))
    settings.setdefault(key, (config, []))[1].append({'order': order, **row})
  found = []
  for seed in range(seeds):
    for (recipe, _), (config, rows) in settings.items():
      cell = cells.Cell(
        '',
        cells.override(config, {'seed': seed}),
        {'table': table, 'scale': scale, 'recipe': recipe, 'rows': rows},
      )
      found.append(cell._replace(name=f'{recipe}_{scale}_{cell.hash}_seed_{seed}'))
  return found


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
  return line['wall_clock']['total_seconds'] / line.get('seeds_at_once', 1)


def summarize(lines):
  """The rows of a table, from its lines alone.

  Args:
    lines: dicts, of one scale.

  Returns:
    list of dicts in the table's order: 'recipe', 'row', 'published', 'n', and 'scores',
    `{name: (mean, standard deviation)}` in percent, the deviation that of the seeds
    (n - 1), 0 for one seed.
  """
  groups = {}
  for line in lines:
    for row in line['rows']:
      key = (row['order'], row['recipe'])
      groups.setdefault(key, (row, []))[1].append(_scores(line, row['part']))
  found = []
  for _, (row, scores) in sorted(groups.items()):
    stack = {name: [s[name] for s in scores] for name in scores[0]}
    found.append(
      {
        'recipe': row['recipe'],
        'row': row['row'],
        'published': row['published'],
        'n': len(scores),
        'scores': {
          name: (float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0)
          for name, v in stack.items()
        },
      }
    )
  return found


def _scores(line, part):
  scores = line['scores'][part] if part else line['scores']
  found = {}
  for threshold in _THRESHOLDS:
    at = scores['at'][threshold]
    found |= {f'{k}@{threshold}': v for k, v in at['edge_lenient']['micro'].items()}
    found[f'exact@{threshold}'] = at['exact']
  return {name: 100 * value for name, value in found.items()}


_COLUMNS = {
  'P 5 %': 'precision@0.05',
  'R 5 %': 'recall@0.05',
  'F1 3 %': 'f1@0.03',
  'F1 5 %': 'f1@0.05',
  'F1 8 %': 'f1@0.08',
  'exact 5 %': 'exact@0.05',
}


def as_text(rows):
  """A table as lists of texts, the head first.

  Args:
    rows: of `summarize`, at least one.
  """
  names = list(rows[0]['row'])
  printed = {name for row in rows for name in row['published']}
  published = [name for name in ('precision', 'recall', 'f1') if name in printed]
  head = ['recipe', *names]
  head += [f'paper: {n.replace("f1", "F1")}' for n in published]
  table = [[*head, *_COLUMNS, 'n']]
  for row in rows:
    texts = [row['recipe'], *(row['row'].get(name, '') for name in names)]
    texts += [_number(row['published'].get(name)) for name in published]
    texts += [_number(row['scores'][name], row['n'] == 1) for name in _COLUMNS.values()]
    table.append([*texts, str(row['n'])])
  return table


def _number(pair, alone=False):
  """A mean with its deviation, which a seed alone does not have."""
  if pair is None:
    return ''
  return f'{pair[0]:.1f}' if alone else f'{pair[0]:.1f} ± {pair[1]:.1f}'


def markdown(title, lines):
  """The Markdown page of a table, a section for each scale."""
  text = [f'# {title}', '']
  for scale in _scales(lines):
    chosen = [line for line in lines if line['scale'] == scale]
    head, *body = as_text(summarize(chosen))
    text += [f'## Scale: {scale}', '', _about(chosen), '']
    text += [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    text += [f'| {" | ".join(row)} |' for row in body]
    text.append('')
  return '\n'.join(text)


def _scales(lines):
  return sorted({line['scale'] for line in lines})


def _about(lines):
  """What the lines of a scale have in common, in a sentence or two."""
  sides = sorted({line['config']['data']['side'] for line in lines})
  steps = sorted({f'{line["images_seen"]:,}' for line in lines})
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
  return (
    'Mean and standard deviation over n seeds, percent. P, R and F1 are those of edge '
    'triplets, all images together, at distances of up to 3, 5 and 8 % of the side; '
    'exact is the share of images without a mistake. '
    f'Images of {_and(sides)} pixels, {_and(steps)} of them in training; '
    f'{hours:.1f} hours in all on {_and(chips)}; commits {_and(commits)}.'
  )


def _and(values):
  *first, last = map(str, values)
  return f'{", ".join(first)} and {last}' if first else last


def draw(module, table, output):
  """Writes the Markdown page and the pictures of a table, if it has any lines."""
  folder = pathlib.Path(output)
  lines = cells.read(folder / f'table_{table}.jsonl')
  if not lines:
    return
  text = markdown(module.TABLES[table], lines)
  files.write_atomically(folder / f'table_{table}.md', text.encode())
  for scale in _scales(lines):
    rows = summarize([line for line in lines if line['scale'] == scale])
    title = f'{module.TABLES[table]}; scale: {scale}'
    picture = plotting.text_table(as_text(rows), title=title)
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
  module = load(_PAPER.value)
  output = pathlib.Path(_OUTPUT.value) / _PAPER.value
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
  batch_size = min(c.config.batch_size for found in wanted.values() for c in found)
  return processes.run(flags.FLAGS, batch_size, work)


def _run_tables(module, wanted, paths, output):
  """Runs the cells, and draws what there is; returns the exit status."""
  _keep_compiled(pathlib.Path(_WORKDIR.value))
  at_once = seeds_at_once(_AT_ONCE.value, _SEEDS.value)
  status = 0
  for name, found in wanted.items():
    tally = cells.run_missing(
      found,
      pathlib.Path(_WORKDIR.value) / _PAPER.value,
      paths[name],
      train=loop.train,
      train_seeds=train_seeds,
      at_once=at_once,
      others=[path for other, path in paths.items() if other != name],
      wait=_WAIT.value,
    )
    if parallel.is_first():
      draw(module, name, output)
    if tally.interrupted:
      return 128 + tally.interrupted
    if tally.claimed:
      print(f'Table {name}: other workers are at {len(tally.claimed)} cells.')
    if tally.failed:
      print(f'Table {name}: {len(tally.failed)} cells failed.', file=sys.stderr)
    status = max(status, 1 if tally.failed else 3 if tally.claimed else 0)
  return status


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
