"""Draws what the first seed of each recipe of a table sees: the paper's Figure 3.

  python -m launch.figures --paper=image_graph_image --table=1 --scale=cpu

Takes the weights that `launch.tables` left in the workdir, and draws the first images
of the evaluation: the image with its true graph, and for each recipe its drawing, where
it makes one, its graph and its adjacency matrix. Recipes whose cell is not done are
left out. Writes results/PAPER/figure_TABLE_SCALE.png.
"""

import pathlib
import sys

import jax
from absl import app
from absl import flags
from absl import logging

from img2graph import data
from img2graph import plotting
from img2graph import weights
from img2graph.data import sources
from img2graph.training import errors
from launch import tables

_ROWS = flags.DEFINE_integer('rows', 6, 'How many images.')


def batch_of(config, count):
  """The first images of the evaluation of a config, with their true graphs."""
  options = config.data.to_dict() | config.eval.get('data', {})
  source = data.build(**options)
  if hasattr(source, 'sample'):
    return source.sample(jax.random.key(config.eval.seed), count)
  batch = next(iter(source.iterate(seed=config.eval.seed, batch_size=count)))
  return sources.as_float(batch)


def draw(found, workdir, *, rows):
  """The figure.

  Args:
    found: cells of `tables.cells_of`, of one seed.
    workdir: folder of their runs.
    rows: number of images.

  Returns:
    A PIL image, RGB.

  Raises:
    errors.UserError: there are no weights.
  """
  paths = [pathlib.Path(workdir) / cell.name / 'weights.npz' for cell in found]
  if not any(path.exists() for path in paths):
    raise errors.UserError(f'there are no weights of this table in {workdir}.')
  pictures = {}
  for cell, path in zip(found, paths, strict=True):
    if not path.exists():
      continue
    method, variables, _ = weights.load_method(path)
    # Recipes may see images of other sizes, but not of other shapes.
    batch = jax.device_get(batch_of(cell.config, rows))
    made = jax.device_get(jax.jit(method.reconstruct)(variables, batch['image']))
    options = dict(true_graphs=batch['graph'], rows=rows)
    shown = [batch['image'], made['drawing'], made['graph']]
    if not pictures:
      pictures['image'] = plotting.panel(
        *shown, columns=['input', 'true graph'], **options
      )
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


def run(argv):
  """Does what the flags say."""
  if argv[1:]:
    raise ValueError(f'there is an argument that is no flag: {argv[1]}.')
  values = flags.FLAGS
  module = tables.load(values.paper)
  if values.table == 'all':
    raise ValueError('a figure is that of one table: name it by --table.')
  found = tables.cells_of(
    module, values.table, scale=values.scale, seeds=1, recipes=values.recipes
  )
  picture = draw(found, pathlib.Path(values.workdir) / values.paper, rows=_ROWS.value)
  folder = pathlib.Path(values.output) / values.paper
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'figure_{values.table}_{values.scale}.png'
  plotting.save_png(path, picture)
  print(f'wrote {path}')


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
