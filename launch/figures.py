"""Draws what the runs of a table found.

  python -m launch.figures --paper=image_graph_image --table=1 --scale=cpu

Takes what `launch.tables` left in the workdir, and leaves out cells that are not done
(of curves, those without an evaluation).
`FIGURES[TABLE]` of configs/PAPER.py says what is drawn, one of these or several:
  graphs    (unless another is said) of the first images of the evaluation the image
            with its true graph, and for the first seed of each row its drawing,
            where it makes one, its graph and its adjacency matrix
  curves    of each row the error and the target mass in validation over the epochs,
            means of the seeds that have them: Figure 5 of affinity supervision,
            which has them of the test set
  features  for the first seed of each recipe's first row, the features of test images
            by t-SNE, coloured by class, which needs scikit-learn: its Figure 6
  scores    the columns of the table over the values of its rows, means and deviations
            of the seeds, from the lines of its results alone: Figures 4 and 5 of
            AutoLink
Writes results/PAPER/figure_TABLE_SCALE.png, and of each further kind
figure_TABLE_KIND_SCALE.png.
"""

import json
import pathlib
import sys

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

from img2graph import affinity_graph
from img2graph import charts
from img2graph import data
from img2graph import evaluation
from img2graph import files
from img2graph import plotting
from img2graph import weights
from img2graph.data import sources
from img2graph.training import errors
from launch import tables

_ROWS = flags.DEFINE_integer('rows', 6, 'How many images, of graphs.')
_POINTS = flags.DEFINE_integer('points', 2_000, 'How many images, of features.')


def batch_of(config, count):
  """The first images of the evaluation of a config, with their true graphs."""
  options = config.data.to_dict() | config.eval.get('data', {})
  source = data.build(**options)
  if hasattr(source, 'sample'):
    return source.sample(jax.random.key(config.eval.seed), count)
  batches = evaluation.host_batches(source, seed=config.eval.seed, batch_size=count)
  return sources.as_float(next(batches))


def draw_graphs(found, workdir, *, rows):
  """The figure of graphs.

  Args:
    found: cells of `tables.cells_of`, of one seed.
    workdir: folder of their runs.
    rows: number of images.

  Returns:
    A PIL image, RGB.

  Raises:
    errors.UserError: there are no weights, or they draw nothing.
  """
  pictures = {}
  for cell, path in _done(found, workdir, 'weights.npz'):
    method, variables, _ = weights.load_method(path)
    if method.reconstruct is None:
      raise errors.UserError(
        f'the method {cell.config.method.name} draws no graphs, so this table has no '
        'figure of them.'
      )
    # Recipes may see images of other sizes, but not of other shapes.
    batch = jax.device_get(batch_of(cell.config, rows))
    made = jax.device_get(jax.jit(method.reconstruct)(variables, batch['image']))
    options = dict(true_graphs=batch.get('graph'), rows=rows)
    shown = [batch['image'], made['drawing'], made['graph']]
    if not pictures:
      columns = ['input', 'true graph'] if 'graph' in batch else ['input']
      pictures['image'] = plotting.panel(*shown, columns=columns, **options)
    columns = ['graph', 'adjacency']
    if cell.config.method.name != 'supervised':  # Those only draw what they found.
      columns = ['drawing', *columns]
      if 'refined' in made:
        columns.insert(1, 'refined')
    title = ', '.join([cell.label['recipe'], *cell.label['rows'][0]['row'].values()])
    pictures[title] = plotting.panel(
      *shown, refined=made.get('refined'), columns=columns, **options
    )
  return plotting.beside(pictures)


def _done(found, workdir, file):
  """(cell, path) of the cells whose folder has a file."""
  paths = ((cell, pathlib.Path(workdir) / cell.name / file) for cell in found)
  paths = [(cell, path) for cell, path in paths if path.exists()]
  if not paths:
    raise errors.UserError(f'there are no {file} of this table in {workdir}.')
  return paths


def draw_curves(found, workdir):
  """The figure of curves.

  Args:
    found: cells of `tables.cells_of`, of any number of seeds.
    workdir: folder of their runs.

  Returns:
    A PIL image, RGB.

  Raises:
    errors.UserError: no run was evaluated.
  """
  runs = {}
  for cell, path in _done(found, workdir, 'metrics.jsonl'):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [
      line | {'epoch': line['step'] / cell.config.eval_every}
      for line in lines
      if 'eval/valid_target_mass' in line
    ]
    if told:
      runs.setdefault(_title(cell), []).append(told)
  if not runs:
    raise errors.UserError(f'no run of this table in {workdir} was evaluated yet.')

  def series(value):
    return {title: _mean(group, value) for title, group in runs.items()}

  return plotting.beside(
    {
      'error': charts.curves(
        series(lambda line: 100 - line['eval/valid_accuracy']),
        x_title='epoch',
        y_title='validation error, %',
      ),
      'target mass': charts.curves(
        series(lambda line: line['eval/valid_target_mass']),
        x_title='epoch',
        y_title='target mass in validation, %',
      ),
    }
  )


def _title(cell):
  """The row of a cell in words."""
  return ', '.join(f'{k}: {v}' for k, v in cell.label['rows'][0]['row'].items())


def _mean(group, value):
  """(epochs, means over the runs that got there) of runs' lines."""
  at = {}
  for line in (line for lines in group for line in lines):
    at.setdefault(line['epoch'], []).append(value(line))
  epochs = sorted(at)
  return epochs, [np.mean(at[epoch]) for epoch in epochs]


def draw_scores(module, table, scale, output):
  """The figure of scores.

  Args:
    module: of `tables.load`.
    table: name of a table whose rows differ in one value.
    scale: name of a scale.
    output: folder of the paper's results.

  Returns:
    A PIL image, RGB.

  Raises:
    errors.UserError: no cell is done.
  """
  path = pathlib.Path(output) / f'table_{table}.jsonl'
  lines = [line for line in tables.read(path) if line['scale'] == scale]
  if not lines:
    raise errors.UserError(f'no cell of this table at this scale is done in {path}.')
  form = tables.form_of(module, table)
  settings = tables.settings_of(module, table, scale=scale)
  rows = tables.summarize(lines, form, settings)
  (name,) = rows[0]['row']
  values = list(dict.fromkeys(row['row'][name] for row in rows))
  series = {}
  for title in form.columns:
    told = [r for r in rows if r['scores'][title]]
    points = [(values.index(r['row'][name]), *r['scores'][title]) for r in told]
    series[title] = tuple(zip(*points, strict=True)) or ((), ())
  return charts.curves(series, x_title=name, y_title='', x_names=values)


def draw_features(found, workdir, *, count):
  """The figure of features.

  Args:
    found: cells of `tables.cells_of`, of one seed.
    workdir: folder of their runs.
    count: number of test images, the first.

  Returns:
    A PIL image, RGB.

  Raises:
    errors.UserError: there are no weights, or scikit-learn is not installed.
  """
  try:
    from sklearn import manifold
  except ModuleNotFoundError:
    raise errors.UserError(
      "the figure of features needs scikit-learn: pip install 'img2graph[analysis]'."
    ) from None
  firsts = {}
  for cell in found:
    firsts.setdefault(cell.label['recipe'], cell)
  pictures = {}
  for cell, path in _done(firsts.values(), workdir, 'weights.npz'):
    options = cell.config.data.to_dict() | cell.config.eval.test.to_dict()
    test = data.build(**options).whole
    features = affinity_graph.load(path).features(test['image'][:count])
    # Fewer than that many neighbours there are not.
    perplexity = min(30, (len(features) - 1) / 3)
    places = manifold.TSNE(
      init='pca', perplexity=perplexity, random_state=0
    ).fit_transform(features)
    pictures[_title(cell)] = charts.points(places, test['label'][:count])
  return plotting.beside(pictures)


def run(argv):
  """Does what the flags say."""
  if argv[1:]:
    raise ValueError(f'there is an argument that is no flag: {argv[1]}.')
  values = flags.FLAGS
  module = tables.load(values.paper)
  if values.table == 'all':
    raise ValueError('a figure is that of one table: name it by --table.')
  kinds = getattr(module, 'FIGURES', {}).get(values.table, 'graphs')
  kinds = (kinds,) if isinstance(kinds, str) else kinds
  folder = files.expand(values.output) / values.paper
  for kind in kinds:
    picture = _draw(kind, module, values, folder)
    folder.mkdir(parents=True, exist_ok=True)
    more = '' if kind == kinds[0] else f'_{kind}'
    path = folder / f'figure_{values.table}{more}_{values.scale}.png'
    plotting.save_png(path, picture)
    print(f'wrote {path}')


def _draw(kind, module, values, folder):
  """The figure of a kind that the flags ask for; `folder` is that of the results."""
  found = tables.cells_of(
    module,
    values.table,
    scale=values.scale,
    seeds=values.seeds if kind == 'curves' else 1,
    recipes=values.recipes,
  )
  workdir = files.expand(values.workdir) / values.paper
  if kind == 'curves':
    return draw_curves(found, workdir)
  if kind == 'scores':
    return draw_scores(module, values.table, values.scale, folder)
  if kind == 'features':
    return draw_features(found, workdir, count=_POINTS.value)
  return draw_graphs(found, workdir, rows=_ROWS.value)


def main(argv):
  logging.set_verbosity(logging.ERROR)
  try:
    run(argv)
  except (ValueError, errors.UserError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  flags.mark_flag_as_required('paper')
  app.run(main)
