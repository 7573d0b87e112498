"""Scores routes to a graph on archives of real drawings, and how fast they are.

  python -m benchmarks.real_drawings --all DIR --output=FILE.json
  python -m benchmarks.real_drawings ARCHIVE.npz:split=KEY ... --output=FILE.json

Every route sees the same images:

- the weights that ship, with the one setting of `img2graph predict`, and with
  `--refine` steps of refinement;
- further weights: `--weights NAME=PATH`, such as a supervised twin;
  `--adapted SET=PATH` for weights adapted without labels to one set, scored on archives
  whose name begins with SET;
- the shipped weights told what is known of a set: `--prior SET=polygon,right_angles`
  (see `img2graph predict`), with another tolerance behind `tolerance=`, such as
  `SET=polygon,tolerance=0.05`; their rows say so and are no part of the one setting;
- a classical route: `--classical SCRIPT.py --classical_params FILE.json` (see
  `benchmarks/routes.py`), with its parameters for the set, which were tuned with labels
  (results/README.md says of which images), and with those that it has for all sets.

An archive may name a part of it behind a colon, for example
`omniglot_graphs.npz:flag=simple` or `kanjivg_graphs.npz:max_p99=3,max_nodes=12` (see
docs/archives.md). `--all DIR` takes `PARTS` of the archives in a folder. Scores are
defined in docs/metrics.md.

Settings are chosen on one half of an archive and judged on the other: `split=KEY` takes
the half that is held out, with no group of KEY in both. KEY is a field of the archive
(user, place, codepoint), `alphabet` (of Omniglot) or `block` (60 images in a row, where
the file does not say what belongs together); `half=look` takes the half to look at.

`discs=N` erases N discs of a radius of `DISC_RADIUS_PX` pixels, their centres on ink
drawn at random, and then `noise=SD` adds Gaussian noise to every pixel (SD with ink as
1, clipped to [0, 1]). Both depend on the image's number in its file alone.

Speed: `JAX_NUM_CPU_DEVICES=1 taskset -c 0` gives one core to all routes. The ratio to
the classical route is of processor times, which hold on a busy machine.
"""

import argparse
import dataclasses
import pathlib
import sys

import numpy as np

from benchmarks import routes
from img2graph import predict
from img2graph import weights
from img2graph.data import archives

_OPTIONS = {
  'split': str,
  'half': str,
  'flag': str,
  'max_nodes': int,
  'min_fit': float,
  'max_p99': float,
  'discs': int,
  'noise': float,
}

DISC_RADIUS_PX = 6

# Name -> how the archive's file name begins, and the part of it.
PARTS = {
  'hds_polygons': ('hds_polygons', 'min_fit=0.95,split=user'),
  'omniglot': ('omniglot_graphs', 'split=alphabet'),
  'omniglot_simple': ('omniglot_graphs', 'flag=simple,split=alphabet'),
  'omniglot_noisy': ('omniglot_graphs', 'flag=simple,split=alphabet,discs=6,noise=0.1'),
  'roads': ('roads', 'split=place'),
  'kanjivg': ('kanjivg_graphs', 'max_p99=3,split=codepoint'),
  'chem': ('chem', 'split=block'),
}

# What the shipped weights shall reach with one setting.
TARGETS = [
  ('omniglot', 'path F1', 0.93),
  ('roads', 'path F1', 0.95),
  ('chem', 'path F1', 0.94),
  ('kanjivg', 'path F1', 0.97),
  ('hds_polygons', 'edge F1', 0.90),
  ('hds_polygons', 'exact', 0.80),
  ('chem', 'edge F1', 0.95),
  ('chem', 'exact', 0.40),
  ('omniglot_simple', 'edge F1', 0.88),
  ('roads', 'edge F1', 0.85),
  ('kanjivg', 'edge F1', 0.93),
  ('omniglot_noisy', 'edge F1', 0.60),
  ('hds_polygons', 'length F1 1.5 %', 0.66),
  ('omniglot', 'length F1 1.5 %', 0.86),
  ('roads', 'length F1 1.5 %', 0.90),
  ('chem', 'length F1 1.5 %', 0.97),
  ('kanjivg', 'length F1 1.5 %', 0.89),
]

ADAPTED = 'weights adapted without labels'
TOLD = 'shipped weights, told: '


def find_parts(folder):
  """`{name: 'PATH:options'}` of `PARTS` in a folder of archives.

  Raises:
    ValueError: an archive is not there, or there are several of its name.
  """
  found = {}
  for name, (begin, options) in PARTS.items():
    paths = sorted(pathlib.Path(folder).glob(f'{begin}*.npz'))
    if len(paths) != 1:
      raise ValueError(
        f'{folder} must hold one archive {begin}*.npz; got {len(paths)}.'
      )
    found[name] = f'{paths[0]}:{options}'
  return found


def parse_part(text):
  """'PATH[:key=value,...]' to the path and a dict of options."""
  path, _, options = text.partition(':')
  pairs = dict(pair.partition('=')[::2] for pair in options.split(',') if pair)
  for key in pairs:
    if key not in _OPTIONS:
      raise ValueError(f'{text}: no option {key!r}; there are {", ".join(_OPTIONS)}.')
  try:
    return path, {key: _OPTIONS[key](value) for key, value in pairs.items()}
  except ValueError as error:
    raise ValueError(f'{text}: an option is not a number ({error}).') from None


def parse_prior(text):
  """'PRIOR,...[,tolerance=SHARE]' to options of `routes.from_weights`.

  Raises:
    ValueError: there is no such prior, or the tolerance is no number.
  """
  options = {'prior': []}
  for word in text.split(','):
    key, _, value = word.partition('=')
    if key == 'tolerance':
      try:
        options['tolerance'] = float(value)
      except ValueError:
        raise ValueError(f'--prior {text}: {value!r} is not a number.') from None
    elif word in predict.PRIORS:
      options['prior'].append(word)
    else:
      known = ', '.join(predict.PRIORS)
      raise ValueError(f'--prior {text}: no prior {word!r}; there are {known}.')
  return options


def load_part(text, spread):
  """What 'PATH[:key=value,...]' names: the file's name, its `Archive`, the options."""
  path, options = parse_part(text)
  chosen = dict(options)
  key, half = chosen.pop('split', None), chosen.pop('half', 'held_out')
  discs, noise = chosen.pop('discs', 0), chosen.pop('noise', 0.0)
  if half not in ('look', 'held_out'):
    raise ValueError(f"half must be 'look' or 'held_out'; got {half!r}.")
  name = pathlib.Path(path).stem
  archive = archives.load(path, **chosen)
  if key is not None:
    if key == 'block':
      key = np.arange(len(archive)) // 60
    elif key == 'alphabet':
      alphabets = np.array([name.split('/')[0] for name in archive.info['chars']])
      key = alphabets[archive.fields['char']]
    look, held_out = archives.split(archive, key, fraction=0.5, seed=0)
    archive = look if half == 'look' else held_out
  if spread is not None and spread < len(archive):
    archive = archive.take(np.arange(spread) * len(archive) // spread)
  if discs or noise:
    archive = corrupt(archive, discs=discs, noise=noise)
  return name, archive, options


def corrupt(archive, *, discs, noise):
  """An archive with erased discs and noise in its images; see the top of the file.

  Args:
    archive: an `archives.Archive` with images.
    discs: how many are erased.
    noise: standard deviation, ink is 1.
  """
  return dataclasses.replace(
    archive,
    images=np.stack(
      [
        _corrupt(archive.ink(i), int(index), discs, noise)
        for i, index in enumerate(archive.index)
      ]
    ),
  )


def _corrupt(ink, index, discs, noise):
  """An image `[H, W]` in [0, 1] with discs erased and noise added, uint8."""
  rng = np.random.default_rng([0, index])
  rows, columns = np.nonzero(ink > 0.5)
  y, x = np.indices(ink.shape)
  for k in rng.integers(len(rows), size=discs if len(rows) else 0):
    inside = (y - rows[k]) ** 2 + (x - columns[k]) ** 2 <= DISC_RADIUS_PX**2
    ink = np.where(inside, 0, ink)
  ink = np.clip(ink + noise * rng.normal(size=ink.shape), 0, 1)
  return np.round(255 * ink).astype(np.uint8)


def run(parts, always, adapted, classical, *, spread, warm, scorer=None):
  """Rows as from `routes.score`, with 'name', 'archive', 'part' of the part.

  Args:
    parts: `{name: 'PATH[:options]'}`.
    always: routes for all parts; the first is what targets are about.
    adapted: [(begin of an archive's name, route)], for that archive only.
    classical: a `routes.Classical`, or None.
    spread: at most this many images of each part, spread evenly; None for all.
    warm: images before the clock starts.
    scorer: module of another scorer to compare with, or None.
  """
  for name, text in parts.items():
    stem, archive, options = load_part(text, spread)
    chosen = [r for begin, r in adapted if stem.startswith(begin)]
    chosen = [always[0], *chosen, *always[1:]]
    if classical:
      known = [key for key in classical.params if stem.startswith(key)]
      chosen += classical.routes(name, *known)
    for route in chosen:
      predictions, row = routes.score(route, archive, warm=warm)
      row = {'name': name, 'archive': stem, 'part': options} | row
      if scorer:
        row['difference'], _ = routes.differences(
          scorer, archive, predictions, row['scores']
        )
      yield row


def table(rows):
  """Markdown of the rows: F1 in percent, at 5 % unless the column says other."""
  lines = []
  for row in rows:
    part = ', '.join(f'{k}={v}' for k, v in row['part'].items())
    tuned = _find(rows, row['name'], routes.CLASSICAL_TUNED)
    head = [f'{row["archive"]} {part}', f'{row["images"]}']
    lines.append([*head, *routes.cells(row, tuned)])
  return routes.markdown(['archive', 'images', *routes.HEADER], lines)


def targets(rows):
  """What was to be reached, by the shipped weights with one setting.

  Returns:
    list of dicts 'part', 'figure', 'target', 'reached', 'missed_by' (0 if it is not),
    'classical_tuned', 'classical_one' (None without that route), in [0, 1].
  """
  found = []
  for name, column, target in TARGETS:
    row = _find(rows, name, routes.SHIPPED)
    if row is None:
      continue
    reached = routes.figure(row, column)
    classical = {
      key: other and routes.figure(other, column)
      for key, other in (
        ('classical_tuned', _find(rows, name, routes.CLASSICAL_TUNED)),
        ('classical_one', _find(rows, name, routes.CLASSICAL_ONE)),
      )
    }
    found.append(
      {
        'part': name,
        'figure': column,
        'target': target,
        'reached': reached,
        'missed_by': max(0.0, target - reached),
      }
      | classical
    )
  return found


def targets_table(found):
  """Markdown of `targets`, in percent."""
  header = ['part', 'figure', 'target', 'shipped, one setting', 'missed by']
  header += [routes.CLASSICAL_TUNED, routes.CLASSICAL_ONE]
  keys = ['target', 'reached', 'missed_by', 'classical_tuned', 'classical_one']
  lines = [
    [entry['part'], entry['figure'], *(routes.percent(entry[key]) for key in keys)]
    for entry in found
  ]
  return routes.markdown(header, lines)


def _find(rows, name, route):
  """The row of a part and route, or None."""
  fits = (row for row in rows if (row['name'], row['route']) == (name, route))
  return next(fits, None)


def _pairs(texts, option):
  """['NAME=PATH', ...] as a dict."""
  pairs = dict(text.partition('=')[::2] for text in texts)
  for name, path in pairs.items():
    if not name or not path:
      raise ValueError(f'--{option} takes NAME=PATH; got {name + path!r}.')
  return pairs


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('archives', nargs='*', metavar='PATH[:OPTIONS]')
  parser.add_argument('--all', metavar='DIR', help='all PARTS of archives in DIR')
  parser.add_argument('--weights', nargs='+', default=[], metavar='NAME=PATH')
  parser.add_argument('--adapted', nargs='+', default=[], metavar='SET=PATH')
  parser.add_argument('--prior', nargs='+', default=[], metavar='SET=PRIOR,...')
  parser.add_argument('--scorer', metavar='SCRIPT.py', help='compare scores with this')
  parser.add_argument('--spread', type=int, help='only this many, spread evenly')
  routes.add_arguments(parser)
  options = parser.parse_args(argv)
  try:
    rows = _score_all(options)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  found = targets(rows)
  text = table(rows) + ('\n' + targets_table(found) if found else '')
  print(f'\n{text}')
  if options.scorer:
    largest = max(row['difference'] for row in rows)
    print(f'largest difference from {options.scorer}: {largest:.2g}')
  if options.output:
    routes.write_report(options.output, rows, text, targets=found)
  return 0


def _score_all(options):
  parts = {text: text for text in options.archives}
  if options.all:
    parts = find_parts(options.all) | parts
  if not parts:
    raise ValueError('there is nothing to score: name archives, or --all DIR.')
  adapted, told = _pairs(options.adapted, 'adapted'), _pairs(options.prior, 'prior')
  stems = [pathlib.Path(parse_part(text)[0]).stem for text in parts.values()]
  for begin in [*adapted, *told]:
    if not any(stem.startswith(begin) for stem in stems):
      raise ValueError(f'{begin}=...: no archive of that name is scored.')
  batch_size = options.batch_size
  always, classical = routes.from_options(options)
  for name, path in _pairs(options.weights, 'weights').items():
    name = f'weights: {name}'
    always.append(routes.from_weights(name, path, batch_size=batch_size))
  of_sets = [
    (begin, routes.from_weights(ADAPTED, path, batch_size=batch_size))
    for begin, path in adapted.items()
  ]
  path = options.shipped or weights.shipped()
  for begin, text in told.items():
    chosen = dict(parse_prior(text), batch_size=batch_size)
    of_sets.append((begin, routes.from_weights(TOLD + text, path, **chosen)))
  scorer = routes.load_script(options.scorer) if options.scorer else None
  rows = []
  settings = dict(spread=options.spread, warm=batch_size, scorer=scorer)
  for row in run(parts, always, of_sets, classical, **settings):
    rows.append(row)
    print(table(rows).splitlines()[-1], flush=True)
  return rows


if __name__ == '__main__':
  sys.exit(main())
