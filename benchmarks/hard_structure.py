"""Scores routes to a graph on generated drawings of hard structure.

  python -m benchmarks.hard_structure --output=results/hard_structure/shipped.json

The test sets are those of `img2graph.data.hard_structure`, 100 images of each kind from
one seed; nothing was chosen by looking at them. Beside the scores of docs/metrics.md
there is one that asks how the drawing hangs together:

structure  share of images whose graph has, nodes of degree 2 contracted, the ends and
           junctions of the true one with their degrees, and all its paths and rings and
           no others: right at 5 % of the side as `path` is.

It is the score of every kind; where nodes have places, exact graphs and edge F1 say
more, and for rings the length F1. A picture of the first images of every kind with the
graphs of the shipped weights is put beside the tables: framed green where the structure
is right, red where it is not.
"""

import argparse
import collections
import pathlib
import sys
import tempfile

import numpy as np
import PIL.Image

from benchmarks import routes
from img2graph import formats
from img2graph import metrics
from img2graph import plotting
from img2graph.data import archives
from img2graph.data import hard_structure
from img2graph.metrics import topology
from img2graph.metrics import triplets

_SHOWN = 6  # images of every kind in the picture
_CELL, _FRAME = 200, 4  # pixels of a cell of the picture, and of its frame


def test_set(kind, num_images):
  """The `Archive` of a kind."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'{kind}.npz'
    hard_structure.write(path, kind, num_images=num_images)
    return archives.load(path)


def structure(graph):
  """What contracting leaves of a graph `(nodes, edges)`, without places.

  Returns:
    `(degrees, paths, rings)`: sorted degrees of the key nodes, and numbers.
  """
  nodes, edges = triplets.clean(graph)[:2]
  keys, paths, rings = topology.contract((nodes, edges))
  degrees = collections.Counter(edges.ravel().tolist())
  return sorted(degrees[k] for k in keys.tolist()), len(paths), len(rings)


def right_structures(archive, predictions):
  """Which images have the right structure, see the top: `[n]` bool."""
  right = []
  for index, true in zip(archive.index.tolist(), archive.graphs(), strict=True):
    found = predictions[index]
    pred = 2 * np.reshape(found['nodes'], (-1, 2)) - 1, found['edges']
    row = metrics.score_graph(true, pred, thresholds=[0.05], extra=True)
    agree, num_pred, _, num_true = row['at']['0.05']['path']
    same = structure(true) == structure(pred)
    right.append(same and agree == num_pred == num_true)
  return np.array(right)


def picture(archive, predictions, right):
  """The first images of an archive with their graphs, side by side, a PIL image."""
  strip = PIL.Image.new('RGB', (_SHOWN * _CELL, _CELL), 'white')
  side = archive.images.shape[-1]
  for i in range(min(_SHOWN, len(archive))):
    found = predictions[int(archive.index[i])]
    nodes_px = side * np.reshape(found['nodes'], (-1, 2))
    document = formats.Document(nodes_px, found['edges'], width=side, height=side)
    cell = plotting.overlay(255 - archive.images[i], document)
    inner = _CELL - 2 * _FRAME
    framed = PIL.Image.new('RGB', (_CELL - 2,) * 2, 'green' if right[i] else 'red')
    framed.paste(cell.resize((inner,) * 2, PIL.Image.Resampling.BOX), (_FRAME,) * 2)
    strip.paste(framed, (i * _CELL, 0))
  return strip


def table(rows):
  """Markdown of the rows, in percent, at 5 % unless the column says other."""
  lines = []
  for row in rows:
    same = [r for r in rows if r['kind'] == row['kind']]
    ratio = next((r for r in same if r['route'] == routes.CLASSICAL_ONE), None)
    route, *cells = routes.cells(row, ratio)
    lines.append([row['kind'], route, routes.percent(row['structure']), *cells])
  first, *others = routes.HEADER
  return routes.markdown(['kind', first, 'structure', *others], lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kinds', nargs='+', default=list(hard_structure.KINDS))
  parser.add_argument('--num_images', type=int, default=100)
  routes.add_arguments(parser)
  options = parser.parse_args(argv)
  try:
    rows, strips = _score_all(options)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  if options.output:
    routes.write_report(options.output, rows, table(rows), seed=0)
    plotting.save_png(
      pathlib.Path(options.output).with_suffix('.png'), np.concatenate(strips)
    )
  return 0


def _score_all(options):
  """Rows of scores, and a strip of pictures of every kind."""
  weighted, classical = routes.from_options(options)
  rows, strips = [], []
  for kind in options.kinds:
    archive = test_set(kind, options.num_images)
    for route in weighted + (classical.routes(kind) if classical else []):
      predictions, row = routes.score(route, archive, warm=options.batch_size)
      right = right_structures(archive, predictions)
      rows.append({'kind': kind, 'structure': float(right.mean())} | row)
      print(table(rows).splitlines()[-1], flush=True)
      if route is weighted[0]:
        strips.append(np.asarray(picture(archive, predictions, right)))
  return rows, strips


if __name__ == '__main__':
  sys.exit(main())
