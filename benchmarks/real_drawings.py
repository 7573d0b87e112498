"""Scores weights on graph archives of real drawings, and how fast they are.

  python -m benchmarks.real_drawings ARCHIVE.npz [ARCHIVE.npz ...] \\
      --output=results/real_drawings/shipped.json

One setting for all archives, that of `img2graph predict` (`decoding.decode` as it
stands). Each archive may name a part of it behind a
colon, for example `omniglot_graphs.npz:flag=simple` or
`kanjivg_graphs.npz:max_p99=3,max_nodes=12` (see docs/archives.md). Scores are defined
in docs/metrics.md.

Settings are chosen on one half of an archive and judged on the other: `split=KEY` takes
the half that is held out, with no group of KEY in both. KEY is a field of the archive
(user, place, codepoint), `alphabet` (of Omniglot) or `block` (60 images in a row, where
the file does not say what belongs together); `half=look` takes the half to look at.
"""

import argparse
import json
import pathlib
import sys
import time

import jax
import numpy as np

from img2graph import evaluation
from img2graph import metrics
from img2graph import predict
from img2graph import weights
from img2graph.data import archives
from img2graph.training import record

_NUMBERS = {'max_nodes': int, 'min_fit': float, 'max_p99': float}


def parse_part(text):
  """'PATH[:key=value,...]' to the path and the options of `archives.load`."""
  path, _, options = text.partition(':')
  pairs = [pair.split('=', 1) for pair in options.split(',') if pair]
  return path, {key: _NUMBERS.get(key, str)(value) for key, value in pairs}


def load_part(text, spread):
  """What 'PATH[:key=value,...]' names: the file's name, its `Archive`, the options."""
  path, options = parse_part(text)
  chosen = dict(options)
  key, half = chosen.pop('split', None), chosen.pop('half', 'held_out')
  if half not in ('look', 'held_out'):
    raise ValueError(f"half must be 'look' or 'held_out'; got {half!r}.")
  name = pathlib.Path(path).stem
  if key is None:
    return name, archives.load(path, spread=spread, **chosen), options
  archive = archives.load(path, **chosen)
  if key == 'block':
    key = np.arange(len(archive)) // 60
  elif key == 'alphabet':
    alphabets = np.array([name.split('/')[0] for name in archive.info['chars']])
    key = alphabets[archive.fields['char']]
  look, held_out = archives.split(archive, key, fraction=0.5, seed=0)
  archive = look if half == 'look' else held_out
  if spread is not None and spread < len(archive):
    archive = archive.take(np.arange(spread) * len(archive) // spread)
  return name, archive, options


def run(parts, *, weights_path, steps, spread, batch_size):
  """Rows `{'archive', 'part', 'refine', 'images_per_second', 'scores'}`."""
  method, variables, _ = weights.load_method(weights_path)
  variables = jax.device_put(variables)
  for text in parts:
    name, archive, options = load_part(text, spread)
    for refine in steps:
      settings = dict(
        batch_size=batch_size,
        refine=refine,
        decode=dict(tolerance=2 * predict.TOLERANCE),
      )
      few = archive.take(range(min(len(archive), batch_size)))
      evaluation.predict_archive(method, variables, few, **settings)  # Compiles.
      begin = time.perf_counter()
      predictions = evaluation.predict_archive(method, variables, archive, **settings)
      seconds = time.perf_counter() - begin
      row = {
        'archive': name,
        'part': options,
        'images': len(archive),
        'refine': refine,
        'images_per_second': len(archive) / seconds,
        'scores': evaluation.score_predictions(archive, predictions),
      }
      yield row


def table(rows):
  """Markdown of the rows: F1 at 5 %, in percent."""
  lines = [
    '| archive | images | refine | path F1 | edge F1 | exact | node F1 | length F1 3 % '
    '| images/s |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for row in rows:
    at = row['scores']['at']
    part = ', '.join(f'{k}={v}' for k, v in row['part'].items())
    f1 = [at['0.05'][kind]['micro']['f1'] for kind in ('path', 'edge_lenient')]
    f1 += [at['0.05']['exact'], at['0.05']['node']['micro']['f1']]
    f1 += [at['0.03']['length']['micro']['f1']]
    cells = ' | '.join(f'{100 * value:.1f}' for value in f1)
    lines.append(
      f'| {row["archive"]} {part} | {row["images"]} | {row["refine"]} | {cells} '
      f'| {row["images_per_second"]:.0f} |'
    )
  return '\n'.join(lines) + '\n'


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('archives', nargs='+', metavar='ARCHIVE[:OPTIONS]')
  parser.add_argument('--weights', default=None, help='default: those that ship')
  parser.add_argument('--refine', type=int, nargs='+', default=[0, 60])
  parser.add_argument('--spread', type=int, help='only this many, spread evenly')
  parser.add_argument('--batch_size', type=int, default=50)
  parser.add_argument('--output', help='JSON; a table goes beside it')
  options = parser.parse_args(argv)
  path = options.weights or weights.shipped()
  rows = []
  try:
    for row in run(
      options.archives,
      weights_path=path,
      steps=options.refine,
      spread=options.spread,
      batch_size=options.batch_size,
    ):
      rows.append(row)
      print(table(rows).splitlines()[-1], flush=True)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  if options.output:
    output = pathlib.Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    report = {
      'weights': pathlib.Path(path).name,
      'tolerance': predict.TOLERANCE,
      'thresholds': metrics.THRESHOLDS,
      'code': record.code(),
      'versions': record.versions(),
      'hardware': record.hardware(),
      'rows': rows,
    }
    output.write_text(json.dumps(report, indent=1) + '\n')
    output.with_suffix('.md').write_text(table(rows))
  return 0


if __name__ == '__main__':
  sys.exit(main())
