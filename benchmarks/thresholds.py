"""How much a score depends on the distance at which a node counts as found.

  python -m benchmarks.thresholds paper=PATH ours=PATH ... \\
      --config=configs/image_graph_image.py:paper,cpu --output=FILE

The paper does not say at what distance a node is found. Weights, by name, are scored on
the evaluation images of one config at many distances, in percent of the side, and in
both ways to average: all triplets together (micro), and image by image (macro). In the
table, F1 of edge triplets, macro in brackets.
"""

import argparse
import sys

from benchmarks import routes
from img2graph import data
from img2graph import evaluation
from img2graph import weights
from launch import sweep

PERCENT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)


def load_config(text):
  """The config of FILE[:VARIANT]."""
  path, _, variant = text.partition(':')
  module = sweep.load_module(path)
  return module.get_config(variant) if variant else module.get_config()


def measure(path, config, *, num_images):
  """A row of scores of one weights file, by threshold."""
  method, variables, _ = weights.load_method(path)
  options = config.data.to_dict() | config.eval.get('data', {})
  scores = evaluation.evaluate(
    method,
    variables,
    data.build(**options),
    num_images=num_images,
    batch_size=config.eval.batch_size,
    seed=config.eval.seed,
    thresholds=tuple(p / 100 for p in PERCENT),
  )
  return {
    'f1': {
      name: {way: at['edge_lenient'][way]['f1'] for way in ('micro', 'macro')}
      for name, at in scores['at'].items()
    },
    'exact': {name: at['exact'] for name, at in scores['at'].items()},
  }


def table(rows):
  """Markdown: F1 of each row at each distance."""
  names = list(rows[0]['f1'])
  lines = [
    [row['name']]
    + [
      f'{100 * row["f1"][n]["micro"]:.1f} ({100 * row["f1"][n]["macro"]:.1f})'
      for n in names
    ]
    for row in rows
  ]
  return routes.markdown(['F1 at', *(f'{p} %' for p in PERCENT)], lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('weights', nargs='+', help='NAME=PATH')
  parser.add_argument('--config', required=True, help='FILE[:VARIANT]')
  parser.add_argument('--num_images', type=int, help="default: the config's")
  parser.add_argument('--output', help='JSON; the table goes beside it')
  options = parser.parse_args(argv)
  try:
    config = load_config(options.config)
    rows = []
    for text in options.weights:
      name, equals, path = text.partition('=')
      if not equals:
        raise ValueError(f'weights must be NAME=PATH; got {text!r}.')
      count = options.num_images or config.eval.num_images
      rows.append({'name': name} | measure(path, config, num_images=count))
  except (OSError, ValueError) as error:
    print(error, file=sys.stderr)
    return 2
  text = table(rows)
  print(text)
  if options.output:
    routes.write_report(options.output, rows, text, config=options.config)
  return 0


if __name__ == '__main__':
  sys.exit(main())
