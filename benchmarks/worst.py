"""Pictures of the images that a route does worst, or best, to see what they share.

  python -m benchmarks.worst 'roads.npz:split=place,half=look' --output=worst.png

The archive is named as for `benchmarks.real_drawings`; look at the half to look at, not
at the one held out. Images are in order of the mean of path F1 and edge F1 (lenient) at
5 %, worst first or, with `--best`, best first. Of each there are side by side the
image, the graph that `img2graph predict` finds over it, and the true one; its number in
the archive and both scores in percent stand above.
"""

import argparse
import pathlib
import sys

import numpy as np
import PIL.Image
import PIL.ImageDraw

from benchmarks import real_drawings
from benchmarks import routes
from img2graph import formats
from img2graph import metrics
from img2graph import plotting
from img2graph import weights

_CELL, _TEXT, _GAP = 132, 14, 6  # pixels


def f1_of_images(archive, predictions):
  """Path F1 and edge F1 of each image at 5 %: `[n, 2]`."""
  scores = []
  for index, true in zip(archive.index.tolist(), archive.graphs(), strict=True):
    found = predictions[index]
    pred = 2 * np.reshape(found['nodes'], (-1, 2)) - 1, found['edges']
    row = metrics.combine(
      [metrics.score_graph(true, pred, thresholds=[0.05], extra=True)]
    )['at']['0.05']
    scores.append([row[kind]['micro']['f1'] for kind in ('path', 'edge_lenient')])
  return np.array(scores).reshape(-1, 2)


def picture(archive, predictions, scores, chosen, columns):
  """A table of pictures, a PIL image.

  Args:
    archive: an `archives.Archive` with images.
    predictions: as from `routes.score`.
    scores: as from `f1_of_images`.
    chosen: places of images in the archive, in order.
    columns: how many images stand side by side.
  """
  width, height = 3 * _CELL + _GAP, _CELL + _TEXT
  rows = -(-len(chosen) // columns)
  table = PIL.Image.new('RGB', (columns * width - _GAP, rows * height), 'white')
  pen = PIL.ImageDraw.Draw(table)
  graphs = archive.graphs()
  for place, k in enumerate(chosen):
    left, top = place % columns * width, place // columns * height
    path, edge = np.round(100 * scores[k]).astype(int)
    pen.text((left + 2, top), f'{archive.index[k]}: {path}, {edge}', fill='black')
    pixels = archive.images[k]
    size = np.array(pixels.shape[1::-1])
    found = predictions[int(archive.index[k])]
    nodes, edges = graphs[k]
    parts = [
      (np.reshape(found['nodes'], (-1, 2)) * size, found['edges']),
      ((nodes + 1) / 2 * size, edges),
    ]
    cells = [PIL.Image.fromarray(255 - pixels).convert('RGB')]
    for nodes_px, edges in parts:
      document = formats.Document(
        nodes_px, np.reshape(edges, (-1, 2)), width=int(size[0]), height=int(size[1])
      )
      cells.append(plotting.overlay(255 - pixels, document, line=0.016, radius=0.022))
    for i, cell in enumerate(cells):
      cell = cell.resize((_CELL - 2,) * 2, PIL.Image.Resampling.LANCZOS)
      table.paste(cell, (left + i * _CELL, top + _TEXT))
  return table


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('archive', metavar='PATH[:OPTIONS]')
  parser.add_argument('--weights', help='a name or file; the shipped ones by default')
  parser.add_argument('--count', type=int, default=40)
  parser.add_argument('--skip', type=int, default=0, help='leave out that many')
  parser.add_argument('--best', action='store_true')
  parser.add_argument('--columns', type=int, default=4)
  parser.add_argument('--spread', type=int, help='only this many, spread evenly')
  parser.add_argument('--output', required=True, help='PNG')
  options = parser.parse_args(argv)
  try:
    path = weights.find(options.weights or 'shipped')
    route = routes.from_weights('', path)
    _, archive, _ = real_drawings.load_part(options.archive, options.spread)
    if options.count < 1 or options.columns < 1 or options.skip < 0:
      raise ValueError('--count and --columns must be positive, --skip not negative.')
    predictions = route.predict(archive)
    scores = f1_of_images(archive, predictions)
    order = np.argsort(scores.mean(axis=1), kind='stable')
    order = order[::-1] if options.best else order
    chosen = order[options.skip : options.skip + options.count]
    if not len(chosen):
      raise ValueError(f'there are only {len(archive)} images.')
    table = picture(archive, predictions, scores, chosen, options.columns)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  plotting.save_png(pathlib.Path(options.output), table)
  return 0


if __name__ == '__main__':
  sys.exit(main())
