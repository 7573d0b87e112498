"""What adapting the weights to a domain gains there, without labels.

  python -m benchmarks.adaptation 'omniglot_graphs.npz:split=alphabet' \\
      --workdir=runs/adapted/omniglot --output=results/real_drawings/adapted.json

Of an archive (named as for `benchmarks.real_drawings`, always with `split=KEY`) the
half to look at gives its images, as files and without their graphs, to

  python -m launch.main --config=configs/image_folder.py --config.data.dir=...

and the adapted weights are scored beside those they started from on the half held out,
of other people, places or alphabets. `--tune` stays within the half to look at: it is
split by the same key once more, to choose settings by. Arguments behind `--` go to
`launch.main`, for example `-- --config.train_steps=300`.

The output holds one row for each part, which a later run of the same part replaces;
a table goes beside it. Adapted weights lie in WORKDIR/weights.npz.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from benchmarks import real_drawings
from img2graph import evaluation
from img2graph import predict
from img2graph import weights
from img2graph.data import archives
from img2graph.training import record
from launch import main as launch_main

_CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'image_folder.py'


def halves(text, *, tune):
  """The archive to adapt to and the archive to score, without a common group.

  Args:
    text: 'PATH:split=KEY[,key=value...]', see `real_drawings.load_part`.
    tune: both from the half that is looked at.

  Raises:
    ValueError: there is no `split`, or a half is chosen already.
  """
  options = real_drawings.parse_part(text)[1]
  if 'split' not in options or 'half' in options:
    raise ValueError(f'{text}: wanted an archive with split=KEY, and without half=.')
  look = real_drawings.load_part(f'{text},half=look', None)[1]
  if not tune:
    return look, real_drawings.load_part(text, None)[1]
  key = options['split']
  if key == 'block':
    key = look.index // 60
  elif key == 'alphabet':
    alphabets = np.array([name.split('/')[0] for name in look.info['chars']])
    key = alphabets[look.fields['char']]
  return archives.split(look, key, fraction=0.4, seed=1)


def score(path, archive, *, batch_size):
  """Scores of weights on an archive, with the one setting of `img2graph predict`."""
  method, variables, _ = weights.load_method(path)
  predictions = evaluation.predict_archive(
    method,
    jax.device_put(variables),
    archive,
    batch_size=batch_size,
    decode=dict(tolerance=2 * predict.TOLERANCE),
  )
  return evaluation.score_predictions(archive, predictions)


def figures(scores):
  """{'path F1', 'edge F1', 'exact' (at 5 %), 'length F1' (at 3 %)} of scores."""
  at = scores['at']['0.05']
  return {
    'path F1': at['path']['micro']['f1'],
    'edge F1': at['edge_lenient']['micro']['f1'],
    'exact': at['exact'],
    'length F1': scores['at']['0.03']['length']['micro']['f1'],
  }


def write_images(archive, folder):
  """Writes the images of an archive, light ink on dark, as PNG; no graph."""
  for i, pixels in enumerate(archive.images):
    Image.fromarray(pixels).save(pathlib.Path(folder) / f'{archive.index[i]:06}.png')


def adapt(archive, workdir, arguments=()):
  """Adapts weights to the images of an archive; returns what the run tells of itself.

  Args:
    archive: an `Archive` with images.
    workdir: folder of the run, which leaves its `weights.npz` there.
    arguments: further arguments of `launch.main`.

  Returns:
    what `results.json` of the run holds.

  Raises:
    ValueError: the training run failed; it has said why.
  """
  with tempfile.TemporaryDirectory() as folder:
    write_images(archive, folder)
    status = launch_main.run(
      [
        'launch.main',
        f'--config={_CONFIG}',
        f'--workdir={workdir}',
        '--mode=train',
        '--config.panel_every=0',  # Pictures take longer to compile than to train.
        f'--config.data.dir={folder}',
        '--config.data.polarity=light_on_dark',
        *arguments,
      ]
    )
  results = pathlib.Path(workdir) / 'results.json'
  if status or not results.exists():  # Stopped by a signal, it leaves no results.
    raise ValueError(f'the adaptation in {workdir} ended early (status {status}).')
  return json.loads(results.read_text())


def compare(text, *, workdir, tune, spread, batch_size, arguments=()):
  """Adapts and scores; returns a row for the output.

  Args:
    text: names the part, see `halves`.
    workdir: folder of the adaptation.
    tune: see `halves`.
    spread: at most this many images are scored, spread evenly; None for all.
    batch_size: of prediction.
    arguments: further arguments of `launch.main`.

  Returns:
    {'archive', 'part', 'tune', 'adapted_to' and 'images' (numbers of images), 'steps',
    'seconds' (of processor time, compilation included), 'before' and 'after' (scores)}.
  """
  seen, other = halves(text, tune=tune)
  if spread is not None and spread < len(other):
    other = other.take(np.arange(spread) * len(other) // spread)
  begin = time.process_time()
  run = adapt(seen, workdir, arguments)
  seconds = time.process_time() - begin
  start = run['config']['start_from']
  paths = {
    'before': weights.find(start),
    'after': pathlib.Path(workdir) / 'weights.npz',
  }
  archive, part = real_drawings.parse_part(text)
  row = {
    'archive': pathlib.Path(archive).stem,
    'part': part,
    'tune': tune,
    'adapted_to': len(seen),
    'images': len(other),
    'steps': run['step'],
    'seconds': seconds,
    'config_hash': run['config_hash'],
  }
  for name, path in paths.items():
    row[name] = score(path, other, batch_size=batch_size)
  return row


def table(rows):
  """Markdown of the rows: F1 at 5 % in percent, before -> after."""
  lines = [
    '| archive | adapted to | scored | steps | processor s | path F1 | edge F1 | exact '
    '| length F1 3 % |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for row in rows:
    before, after = figures(row['before']), figures(row['after'])
    pairs = [f'{100 * before[k]:.1f} -> {100 * after[k]:.1f}' for k in before]
    part = ', '.join(f'{k}={v}' for k, v in row['part'].items())
    part += ', tuning' if row['tune'] else ''
    lines.append(
      f'| {row["archive"]} {part} | {row["adapted_to"]} | {row["images"]} '
      f'| {row["steps"]} | {row["seconds"]:.0f} | {" | ".join(pairs)} |'
    )
  return '\n'.join(lines) + '\n'


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('archive', metavar='ARCHIVE:split=KEY[,OPTIONS]')
  parser.add_argument('--workdir', required=True, help='of the adaptation')
  parser.add_argument('--tune', action='store_true', help='within the first half')
  parser.add_argument('--spread', type=int, help='score only this many, spread evenly')
  parser.add_argument('--batch_size', type=int, default=50)
  parser.add_argument('--output', help='JSON; a table goes beside it')
  parser.epilog = 'Arguments behind -- are those of launch.main.'
  argv = sys.argv[1:] if argv is None else argv
  cut = argv.index('--') if '--' in argv else len(argv)
  options = parser.parse_args(argv[:cut])
  try:
    row = compare(
      options.archive,
      workdir=options.workdir,
      tune=options.tune,
      spread=options.spread,
      batch_size=options.batch_size,
      arguments=argv[cut + 1 :],
    )
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  print(table([row]), end='')
  if options.output:
    write(pathlib.Path(options.output), row)
  return 0


def write(output, row):
  """Adds a row to the JSON at `output`, in place of one of the same part."""
  rows = json.loads(output.read_text())['rows'] if output.exists() else []
  same = ('archive', 'part', 'tune')
  rows = [r for r in rows if any(r[name] != row[name] for name in same)] + [row]
  report = {
    'tolerance': predict.TOLERANCE,
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
    'rows': rows,
  }
  output.parent.mkdir(parents=True, exist_ok=True)
  output.write_text(json.dumps(report, indent=1) + '\n')
  output.with_suffix('.md').write_text(table(rows))


if __name__ == '__main__':
  sys.exit(main())
