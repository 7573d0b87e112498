"""Routes from images to graphs, to be scored side by side on the same images.

A route is weights under `img2graph predict`'s setting, or a classical script that lies
outside of this project: a module with `predict(image, params)`, image `[H, W]` uint8
with 255 = ink, which returns nodes [[x, y], ...] in [0, 1] of the side and edges
[[i, j], ...]. It is loaded from where it lies and may import what lies beside it.

Times are of one process, after a first batch that compiles: by the clock, and of the
processor, whose ratios hold on a busy machine too.
"""

import dataclasses
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from img2graph import evaluation
from img2graph import predict
from img2graph import weights
from img2graph.metrics import topology
from img2graph.metrics import triplets
from img2graph.training import record

THRESHOLDS = (0.015, 0.03, 0.05, 0.08)

# Column -> threshold and kind of the score; F1 where there is one.
FIGURES = {
  'path F1': ('0.05', 'path'),
  'edge F1': ('0.05', 'edge_lenient'),
  'exact': ('0.05', 'exact'),
  'node F1': ('0.05', 'node'),
  'key F1': ('0.05', 'key'),
  'length F1 1.5 %': ('0.015', 'length'),
  'length F1 3 %': ('0.03', 'length'),
}

SHIPPED = 'shipped weights, one setting'
CLASSICAL_TUNED = 'classical, tuned with labels'
CLASSICAL_ONE = 'classical, one setting'


@dataclasses.dataclass(frozen=True)
class Route:
  """A way from images to graphs.

  Attributes:
    name: what it is, for tables.
    settings: dict of plain values, for the record.
    predict: `archive -> {index: {'nodes', 'edges'}}`, as `evaluation` files them.
  """

  name: str
  settings: dict[str, Any]
  predict: Callable[..., Any]


def from_weights(
  name, path, *, refine=0, prior=(), tolerance=predict.TOLERANCE, batch_size=32
):
  """The route of `img2graph predict` with the weights of a file.

  Args:
    name: what it is.
    path: of the weights.
    refine: steps of refinement.
    prior: what is known of the drawings, see `predict.Predictor.predict`.
    tolerance: of chords.
    batch_size: images at a time.

  Raises:
    ValueError: the weights cannot be read.
  """
  predictor = predict.Predictor(path)

  def run(archive):
    tagged = ((int(archive.index[i]), archive.ink(i)) for i in range(len(archive)))
    options = dict(refine=refine, prior=prior, tolerance=tolerance)
    found = predictor.stream(tagged, batch_size=batch_size, **options)
    return {index: filed(document) for index, document in found}

  settings = {
    'weights': pathlib.Path(path).name,
    'refine': refine,
    'tolerance': tolerance,
  }
  if prior:
    settings['prior'] = list(prior)
  return Route(name, settings, run)


def filed(document):
  """A `formats.Document` as `evaluation` files it: positions in [0, 1]."""
  size = [document.width, document.height]
  return {
    'nodes': (document.nodes_px / size).tolist(),
    'edges': document.edges.tolist(),
  }


def load_script(path):
  """The module of a script that lies anywhere, with its neighbours importable.

  Raises:
    ValueError: it is not there, or a package that it needs is missing.
  """
  path = pathlib.Path(path).resolve()
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or not path.is_file():
    raise ValueError(f'{path}: there is no such Python script.')
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(path.parent))
  try:
    spec.loader.exec_module(module)
  except ModuleNotFoundError as error:
    raise ValueError(
      f'{path.name} needs the package {error.name!r}, which is not installed here; '
      'a classical route takes scikit-image, networkx and sknw.'
    ) from None
  finally:
    sys.path.remove(str(path.parent))
  return module


@dataclasses.dataclass(frozen=True)
class Classical:
  """A classical script with its parameters: one set for all images, others by name.

  Attributes:
    script: the module.
    params: `{name: params}`, with 'one' for all images.
  """

  script: Any
  params: dict[str, Any]

  def route(self, name, key):
    """The route with the parameters of a key."""

    def run(archive):
      found = {}
      for i, index in enumerate(archive.index.tolist()):
        nodes, edges = self.script.predict(archive.images[i], self.params[key])
        found[index] = {'nodes': nodes, 'edges': edges}
      return found

    return Route(name, {'params': key} | self.params[key], run)

  def routes(self, *keys):
    """The route tuned for the first of the keys that is there, and that for all."""
    tuned = [self.route(CLASSICAL_TUNED, k) for k in keys if k in self.params][:1]
    return [*tuned, self.route(CLASSICAL_ONE, 'one')]


def load_classical(script_path, params_path):
  """A `Classical` from a script and a JSON file `{name: {'params': {...}}}`.

  Returns:
    None if both paths are None.

  Raises:
    ValueError: either cannot be read, or only one is given.
  """
  if script_path is None and params_path is None:
    return None
  if script_path is None or params_path is None:
    raise ValueError('--classical and --classical_params belong together.')
  try:
    entries = json.loads(pathlib.Path(params_path).read_text())
    params = {key: entry['params'] for key, entry in entries.items()}
    params['one']  # noqa: B018
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{params_path}: not a JSON object of parameters by name, with a 'one' ({error})."
    ) from None
  return Classical(load_script(script_path), params)


def add_arguments(parser):
  """Adds the options for routes to an `argparse` parser."""
  parser.add_argument('--shipped', metavar='PATH', help='these instead of the shipped')
  parser.add_argument('--refine', type=int, nargs='+', default=[], metavar='STEPS')
  parser.add_argument('--classical', metavar='SCRIPT.py')
  parser.add_argument('--classical_params', metavar='FILE.json')
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--output', help='JSON; what shows it goes beside it')


def from_options(options):
  """Routes of the shipped weights, without and with refinement, and a `Classical`.

  Raises:
    ValueError: a file cannot be read.
  """
  path, batch_size = options.shipped or weights.shipped(), options.batch_size
  chosen = [from_weights(SHIPPED, path, batch_size=batch_size)]
  for steps in options.refine:
    name = f'shipped weights, {steps} steps of refinement'
    chosen.append(from_weights(name, path, refine=steps, batch_size=batch_size))
  return chosen, load_classical(options.classical, options.classical_params)


def write_report(output, rows, text, **more):
  """Writes rows as JSON, with what they were made by, and their text beside it."""
  report = {
    'thresholds': THRESHOLDS,
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }
  output = pathlib.Path(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  output.write_text(json.dumps(report | more | {'rows': rows}, indent=1) + '\n')
  output.with_suffix('.md').write_text(text)


def score(route, archive, *, warm=32):
  """Predictions and a row of scores of one route on an archive.

  Args:
    route: a `Route`.
    archive: an `archives.Archive` with images.
    warm: images that are predicted before the clock starts.

  Returns:
    predictions `{index: {'nodes', 'edges'}}`, and a dict of 'route', 'settings',
    'images', 'images_per_second', 'images_per_processor_second', 'nodes' (mean numbers:
    'predicted', 'true', and 'true_keys', ends and junctions) and 'scores'.
  """
  if not len(archive):
    raise ValueError('there are no images to score.')
  route.predict(archive.take(range(min(len(archive), warm))))
  clock, processor = time.perf_counter(), time.process_time()
  predictions = route.predict(archive)
  clock, processor = time.perf_counter() - clock, time.process_time() - processor
  keys = [topology.contract(triplets.clean(graph)[:2])[0] for graph in archive.graphs()]
  row = {
    'route': route.name,
    'settings': route.settings,
    'images': len(archive),
    'images_per_second': len(archive) / clock,
    'images_per_processor_second': len(archive) / processor,
    'nodes': {
      'predicted': float(np.mean([len(p['nodes']) for p in predictions.values()])),
      'true': float(archive.num_nodes.mean()),
      'true_keys': float(np.mean([len(k) for k in keys])),
    },
    'scores': evaluation.score_predictions(archive, predictions, thresholds=THRESHOLDS),
  }
  return predictions, row


def figure(row, name):
  """One of `FIGURES` of a row, in [0, 1]; None where no true graph has a key node."""
  threshold, kind = FIGURES[name]
  if kind == 'key' and row['nodes']['true_keys'] == 0:
    return None
  value = row['scores']['at'][threshold][kind]
  return value if kind == 'exact' else value['micro']['f1']


def percent(value):
  """A share as text in percent; a dash for None."""
  return '-' if value is None else f'{100 * value:.1f}'


def cells(row, classical=None):
  """What a table says of a row, a list of texts; see `HEADER`.

  Args:
    row: as from `score`.
    classical: the row of the classical route on the same images, for the ratio of
      images per second of processor time.
  """
  nodes = row['nodes']
  speed = row['images_per_processor_second']
  ratio = speed / classical['images_per_processor_second'] if classical else None
  return [
    row['route'],
    *(percent(figure(row, name)) for name in FIGURES),
    f'{nodes["predicted"]:.1f} ({nodes["true"]:.1f})',
    f'{row["images_per_second"]:.0f}',
    '-' if ratio is None else f'{ratio:.2g}',
  ]


HEADER = ['route', *FIGURES, 'nodes (true)', 'images/s', 'of classical']


def markdown(header, rows):
  """A markdown table of texts."""
  lines = [header, ['---'] * len(header), *rows]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def differences(script, archive, predictions, scores):
  """Largest difference between our scores and those of another scorer.

  Args:
    script: its module, with `score(truth, pred, thresholds)`: graphs by index, nodes in
      [0, 1]; what it returns has the names of `metrics.combine`.
    archive: an `archives.Archive`.
    predictions: as from `score`.
    scores: ours of them.

  Returns:
    float, and the number of figures compared.

  Raises:
    ValueError: a figure of ours is not among theirs.
  """
  graphs = zip(archive.index.tolist(), archive.graphs(), strict=True)
  truth = {index: ((nodes + 1) / 2, edges) for index, (nodes, edges) in graphs}
  pred = {index: (p['nodes'], p['edges']) for index, p in predictions.items()}
  theirs = dict(_flat(script.score(truth, pred, THRESHOLDS)))
  ours = dict(_flat(scores))
  if missing := ours.keys() - theirs.keys():
    raise ValueError(f'the other scorer has no figure {sorted(missing)[0]}.')
  return max(abs(ours[k] - theirs[k]) for k in ours), len(ours)


def _flat(scores, path=()):
  for key, value in scores.items():
    if isinstance(value, dict):
      yield from _flat(value, (*path, key))
    else:
      yield '/'.join((*path, key)), float(value)
