"""How well, how fast and in how much memory a large map is predicted in tiles.

  python -m benchmarks.tiles --output=results/benchmarks/tiles.json

A street map of known graph is drawn: a grid of `--blocks` by `--blocks` crossings (a
number for each `--side`; a single one is of the largest, others in proportion), each
moved by up to a fifth of a block, of whose streets one in eight is missing, in lines of
`--line_width` pixels on a canvas of `--side`. It is predicted in a process of its own,
in tiles as `img2graph predict` chooses them (`--tile=auto`) and in one piece. Scores
are those of docs/metrics.md at 16 pixels; a crossing of which only two streets of
nearly one direction are left is a node of the truth, though no image shows it. Seconds
are of the prediction after a first one that compiles, peak memory is of the process.
"""

import argparse
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import PIL.ImageDraw

from benchmarks import routes
from img2graph import metrics

_PIXELS = 16  # distance at which a node or an edge is found

# Runs in a process of its own, so that its peak is the prediction's.
_PROGRAM = """
import json, resource, sys, time
import numpy as np
from benchmarks import tiles
from img2graph import predict

side, blocks, line_width, seed = map(int, sys.argv[1:5])
ink, _ = tiles.street_map(side, blocks, line_width, seed)
predictor = predict.Predictor()
tile = sys.argv[5]
tile = int(tile) if tile.isdigit() else None if tile == 'none' else tile
predictor.predict([ink[: side // 4, : side // 4]], tile=tile, batch_size=1)
begin = time.perf_counter()
(document,) = predictor.predict([ink], tile=tile, batch_size=1)
seconds = time.perf_counter() - begin
print(json.dumps({
  'nodes': document.nodes_px.tolist(),
  'edges': document.edges.tolist(),
  'seconds': seconds,
  'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def street_map(side, blocks, line_width, seed=0):
  """A street map and its graph.

  Args:
    side: pixels.
    blocks: crossings in a row and in a column.
    line_width: pixels.
    seed: int.

  Returns:
    ink `[side, side]` float32, and (nodes `[N, 2]` in pixels, edges `[E, 2]`) without
    crossings that have lost all streets.
  """
  rng = np.random.default_rng(seed)
  block = side / (blocks + 1)
  grid = np.stack(np.meshgrid(np.arange(blocks), np.arange(blocks)), axis=-1) + 1.0
  nodes = (grid + rng.uniform(-0.2, 0.2, grid.shape)).reshape(-1, 2) * block
  number = np.arange(blocks**2).reshape(blocks, blocks)
  across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
  down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
  edges = np.concatenate([across, down])
  edges = edges[rng.random(len(edges)) > 1 / 8]
  image = PIL.Image.new('L', (side, side))
  pen = PIL.ImageDraw.Draw(image)
  for a, b in edges:
    pen.line([*nodes[a], *nodes[b]], fill=255, width=line_width)
  used, edges = np.unique(edges, return_inverse=True)
  ink = np.asarray(image, np.float32) / 255
  return ink, (nodes[used], edges.reshape(-1, 2))


def measure(side, blocks, line_width, tile, seed=0):
  """A row: scores, seconds and peak memory of one map looked at in tiles, or not."""
  arguments = [str(x) for x in (side, blocks, line_width, seed, tile)]
  command = [sys.executable, '-c', _PROGRAM, *arguments]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  found = json.loads(done.stdout)
  _, (nodes, edges) = street_map(side, blocks, line_width, seed)
  true = nodes * 2 / side - 1, edges
  pred = (
    np.array(found['nodes']).reshape(-1, 2) * 2 / side - 1,
    np.array(found['edges'], int).reshape(-1, 2),
  )
  share = _PIXELS / side
  scores = metrics.score_graphs([true], [pred], thresholds=[share])['at'][f'{share:g}']
  return {
    'side': side,
    'blocks': blocks,
    'line_width': line_width,
    'seed': seed,
    'tile': tile,
    'nodes': {'true': len(nodes), 'predicted': len(pred[0])},
    'node_f1': scores['node']['micro']['f1'],
    'edge_f1': scores['edge_strict']['micro']['f1'],
    'seconds': found['seconds'],
    'peak_mib': found['peak_mib'],
  }


def table(rows):
  """Markdown of the rows."""
  lines = [
    [
      f'{row["side"]} px, {row["nodes"]["true"]} nodes',
      row['tile'],
      str(row['nodes']['predicted']),
      *(routes.percent(row[name]) for name in ('node_f1', 'edge_f1')),
      f'{row["seconds"]:.1f}',
      f'{row["peak_mib"]:.0f}',
    ]
    for row in rows
  ]
  header = ['map', 'tiles', 'nodes', 'node F1', 'edge F1', 'seconds', 'peak, MiB']
  return routes.markdown(header, lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--side', type=int, nargs='+', default=[1000, 1000, 2000, 4000])
  parser.add_argument('--blocks', type=int, nargs='+', default=[5, 9, 10, 20])
  parser.add_argument('--line_width', type=int, default=6)
  parser.add_argument('--tile', nargs='+', default=['auto', 'none'])
  parser.add_argument('--output', help='JSON; the table goes beside it')
  options = parser.parse_args(argv)
  all_blocks = options.blocks
  if len(all_blocks) == 1:
    largest = max(options.side)
    all_blocks = [max(2, all_blocks[0] * side // largest) for side in options.side]
  if len(all_blocks) != len(options.side):
    parser.error('--blocks takes one number, or as many as --side.')
  rows = []
  for side, blocks in zip(options.side, all_blocks, strict=True):
    for tile in options.tile:
      rows.append(measure(side, blocks, options.line_width, tile))
      print(table(rows).splitlines()[-1], flush=True)
  text = table(rows)
  print(f'\n{text}')
  if options.output:
    routes.write_report(options.output, rows, text)
  return 0


if __name__ == '__main__':
  sys.exit(main())
