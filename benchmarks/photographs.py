"""Scores `img2graph predict` on photographs and scans of hand-drawn diagrams.

  python -m benchmarks.photographs bpmn_dev.npz --spread=100 --output=FILE.json

The photographs are written as files and predicted as anyone's files are; nothing is
done to them first. The archive holds JPEG files end to end (`data` and `offsets`),
their width and height (`size`), and for every photograph (`node_start`, `edge_start`)
boxes as centre and size in [0, 1] of them (`box`), their kind (`kind`, named in the
`.json` beside the file under `kinds`), and arrows, each with its way points
(`way_start`, `way`, likewise).

The truth is drawn from that: arrows as lines through their way points; boxes as
rectangles, but 'event' as an ellipse and 'gateway' as a diamond. Text, ruled paper,
pools, lanes and dashed frames are not part of it though they are on the paper, so
precision has a ceiling that nobody knows, and recall is what to read. Positions count
in shares of the longer side.

length   as in docs/metrics.md, at 1.5 and 3 %; recall also of arrows and outlines alone
node     at 3 and 5 %, of corners of boxes and diamonds, and ends and bends of arrows
found    share of boxes, and of arrows, of which at least 80 % lies within 1.5 % of a
         predicted line. A scribble over everything finds everything: read `drawn`
         beside it, predicted length over true length.

A picture of photographs spread evenly goes beside the file: the photograph, what is
predicted, and the truth.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
import PIL.Image

from benchmarks import routes
from img2graph import formats
from img2graph import plotting
from img2graph import predict
from img2graph import weights
from img2graph.metrics import distance as distance_metrics
from img2graph.metrics import triplets

_NEEDED = ('data', 'offsets', 'size', 'node_start', 'edge_start', 'box', 'kind')
_NEEDED += ('way_start', 'way')
_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
_TIPS = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)]) / 2
_ANGLES = np.arange(16) * np.pi / 8
_ROUND = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1) / 2
_LENGTH, _NODE = (0.015, 0.03), (0.03, 0.05)
_FOUND_SHARE, _FOUND_REACH = 0.8, 0.015
_SHOWN, _CELL = 10, 384


def load(path):
  """Arrays of an archive of diagrams, and the names of the kinds of boxes.

  Raises:
    ValueError: it is none.
  """
  path = pathlib.Path(path)
  try:
    with np.load(path) as archive:
      arrays = {name: archive[name] for name in _NEEDED}
    kinds = json.loads(path.with_suffix('.json').read_text())['kinds']
  except (OSError, KeyError, ValueError) as error:
    raise ValueError(f'{path}: not an archive of diagrams ({error}).') from None
  return arrays, kinds


def shapes(arrays, kinds, k):
  """What is drawn on photograph k.

  Returns:
    boxes and arrows: lists of `(points [p, 2] in shares of the longer side, closed,
    whether the points are corners)`.
  """
  unit = arrays['size'][k] / arrays['size'][k].max()
  boxes, arrows = [], []
  for n in range(*arrays['node_start'][k : k + 2]):
    kind = kinds[arrays['kind'][n]]
    outline = {'event': _ROUND, 'gateway': _TIPS}.get(kind, _CORNERS)
    centre, size = arrays['box'][n, :2], arrays['box'][n, 2:]
    boxes.append(((centre + outline * size) * unit, True, kind != 'event'))
  for e in range(*arrays['edge_start'][k : k + 2]):
    way = arrays['way'][slice(*arrays['way_start'][e : e + 2])]
    arrows.append((way * unit, False, True))
  return boxes, arrows


def as_graph(drawn):
  """Shapes as one graph: nodes `[n, 2]`, edges `[e, 2]`."""
  nodes, edges, first = [np.zeros((0, 2))], [], 0
  for points, closed, _ in drawn:
    count = len(points)
    nodes.append(points)
    edges += [(first + i, first + i + 1) for i in range(count - 1)]
    edges += [(first + count - 1, first)] * closed
    first += count
  return np.concatenate(nodes), np.array(edges, int).reshape(-1, 2)


def score(boxes, arrows, pred):
  """Counts of one photograph.

  Args:
    boxes: as from `shapes`, as `arrows`.
    arrows: likewise.
    pred: the predicted graph, nodes in shares of the longer side.

  Returns:
    dict of counts `(right, predicted, found, true)`.
  """
  true = as_graph(boxes + arrows)
  parts = {'': true, ' of arrows': as_graph(arrows), ' of outlines': as_graph(boxes)}
  counts = {}
  for part, graph in parts.items():
    found = distance_metrics.length_counts(graph, pred, thresholds=_LENGTH)
    for threshold, values in zip(_LENGTH, found, strict=True):
      counts[f'length{part} {100 * threshold:g} %'] = values
  placed = [points for points, _, corners in boxes + arrows if corners]
  no_edges = np.zeros((0, 2), int)
  for threshold in _NODE:
    counts[f'node {100 * threshold:g} %'] = triplets.triplet_counts(
      (np.concatenate([np.zeros((0, 2)), *placed]), no_edges),
      (pred[0], no_edges),
      threshold=threshold,
    )['node']
  for name, things in (('boxes', boxes), ('arrows', arrows)):
    covered = [
      distance_metrics.length_counts(
        as_graph([thing]), pred, thresholds=[_FOUND_REACH]
      )[0][2:]
      for thing in things
    ]
    found = sum(part >= _FOUND_SHARE * whole for part, whole in covered)
    counts[f'{name} found'] = (0, 0, found, len(things))
  return counts


def document(boxes, arrows, like):
  """The truth as a `formats.Document`, of the size of another."""
  nodes, edges = as_graph(boxes + arrows)
  size = dict(width=like.width, height=like.height)
  edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
  return formats.Document(nodes * max(like.width, like.height), edges, **size)


def table(row):
  """Markdown of the scores, in percent."""
  lines = [
    [name, *(routes.percent(entry.get(key)) for key in ('precision', 'recall', 'f1'))]
    for name, entry in row['scores'].items()
  ]
  text = routes.markdown(['score', 'precision', 'recall', 'F1'], lines)
  return (
    f'{row["images"]} photographs, {row["images_per_second"]:.1f} a second; mean nodes '
    f'predicted {row["nodes"]["predicted"]:.1f}, true {row["nodes"]["true"]:.1f}; '
    f'drawn: predicted length {row["drawn"]:.2f} times the true one.\n\n{text}'
  )


def run(path, *, weights_path, spread, refine):
  """A row of scores, and pictures of some photographs.

  Args:
    path: of the archive.
    weights_path: of the weights.
    spread: only this many photographs, spread evenly; None for all.
    refine: steps of refinement.
  """
  arrays, kinds = load(path)
  count = len(arrays['size'])
  chosen = range(count)
  if spread is not None and spread < count:
    chosen = [k * count // spread for k in range(spread)]
  shown = {chosen[i * len(chosen) // _SHOWN] for i in range(_SHOWN)}
  everything, strips, nodes = [], [], []
  with tempfile.TemporaryDirectory() as folder:
    files = {}
    for k in chosen:
      file = pathlib.Path(folder, f'{k}.jpg')
      file.write_bytes(arrays['data'][slice(*arrays['offsets'][k : k + 2])].tobytes())
      files[file] = k
    options = dict(weights=weights_path, refine=refine)
    predict.predict_file(next(iter(files)), **options)  # Compiles.
    begin = time.perf_counter()
    found = dict(predict.predict_files(files, batch_size=1, **options))
    seconds = time.perf_counter() - begin
    for file, predicted in found.items():
      k = files[file]
      boxes, arrows = shapes(arrays, kinds, k)
      longest = max(predicted.width, predicted.height)
      pred = predicted.nodes_px / longest, predicted.edges
      everything.append(score(boxes, arrows, pred))
      placed = sum(len(points) for points, _, corners in boxes + arrows if corners)
      nodes.append((len(pred[0]), placed))
      if k in shown:
        picture = PIL.Image.open(file).convert('RGB')
        truth = document(boxes, arrows, predicted)
        overlays = [plotting.overlay(picture, d) for d in (predicted, truth)]
        strips.append(_strip([picture, *overlays]))
  sums = {
    name: np.sum([counts[name] for counts in everything], axis=0)
    for name in everything[0]
  }
  scores = {}
  for name, values in sums.items():
    figures = dict(
      zip(triplets.FIGURES, triplets.precision_recall_f1(values).tolist(), strict=True)
    )
    # Of a part of the drawing, or of whole things, only recall means something.
    only_recall = ' of ' in name or 'found' in name
    scores[name] = {'recall': values[2] / values[3]} if only_recall else figures
  length = sums[f'length {100 * _LENGTH[0]:g} %']
  predicted, true = np.mean(nodes, axis=0)
  row = {
    'archive': pathlib.Path(path).stem,
    'images': len(everything),
    'weights': pathlib.Path(weights_path).name,
    'refine': refine,
    'images_per_second': len(everything) / seconds,
    'nodes': {'predicted': predicted, 'true': true},
    'drawn': length[1] / length[3],
    'scores': scores,
  }
  return row, strips


def _strip(pictures):
  """Pictures of one aspect side by side: `[h, n * _CELL, 3]` uint8, h <= _CELL."""
  for picture in pictures:
    picture.thumbnail((_CELL - 4, _CELL - 4))
  height = max(picture.height for picture in pictures) + 4
  strip = PIL.Image.new('RGB', (len(pictures) * _CELL, height), 'white')
  for i, picture in enumerate(pictures):
    strip.paste(picture, (i * _CELL, 0))
  return np.asarray(strip)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('archive')
  parser.add_argument('--shipped', metavar='PATH', help='these instead of the shipped')
  parser.add_argument('--refine', type=int, default=0, metavar='STEPS')
  parser.add_argument('--spread', type=int, help='only this many, spread evenly')
  parser.add_argument('--output', help='JSON; a table and a picture go beside it')
  options = parser.parse_args(argv)
  try:
    row, strips = run(
      options.archive,
      weights_path=options.shipped or weights.shipped(),
      spread=options.spread,
      refine=options.refine,
    )
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  print(table(row))
  if options.output:
    routes.write_report(options.output, [row], table(row))
    plotting.save_png(
      pathlib.Path(options.output).with_suffix('.png'), np.concatenate(strips)
    )
  return 0


if __name__ == '__main__':
  sys.exit(main())
