"""A method over a data set: predicted graphs, and their scores.

Predictions are canonical graphs (`img2graph.graph.canonicalize`) without contraction
unless asked for, as published scores want them, and true graphs are taken as they are.
What is scored is defined on top of `img2graph.metrics.triplets`. Which images are
evaluated, and what is predicted for each, depends neither on the batch size nor on
the number of devices or processes. With a sharding over several processes each predicts
its part of every batch, and all of them read all images and get and score all graphs.

Outside the program predictions are filed as `{index: {'nodes': [[x, y], ...], 'edges':
[[i, j], ...]}}` with the image's number in its archive and (x, y) in [0, 1] of the
image's width and height, so that any scorer can read them.
"""

import functools
import itertools
import json
import os
import pathlib

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph import decoding
from img2graph import files
from img2graph import graph as graphs
from img2graph import metrics
from img2graph.data import archives
from img2graph.data import images as image_lib
from img2graph.data import sources
from img2graph.metrics import triplets

# Images are drawn in chunks of one size, so that the batch size does not choose them.
_CHUNK = 64
_FAR_OUTSIDE = 'a node lies far outside; x and y must be in [0, 1] of the sides.'
# Apart from training: the same seed there must not draw the same images.
_EVALUATION_STREAM = 0x6576616C


@functools.lru_cache(maxsize=32)
def _compiled_sample(sample):
  return jax.jit(sample, static_argnums=1)


# Kept between calls: a training run evaluates many times and compiles once.
@functools.lru_cache(maxsize=32)
def _compiled_predict(method, refine, canonical_options, sharding):
  """Jitted `(variables, images) -> Graph` on the devices of a sharding.

  The graphs are canonical; with `canonical_options` None they are as the method found
  them, and with them come the refined ones, or None, and the drawings `[B, S, S]`.
  """

  def predict(variables, images):
    graph = method.predict(variables, images)
    refined = method.refine(variables, images, graph, refine) if refine else None
    if canonical_options is None:
      return graph, refined, method.ink(variables, images)
    best = graph if refined is None else refined
    return graphs.canonicalize(best, **dict(canonical_options))

  if sharding is None:
    return jax.jit(predict)
  whole = NamedSharding(sharding.mesh, PartitionSpec())
  return jax.jit(predict, in_shardings=(whole, sharding), out_shardings=whole)


def predict_graphs(
  method,
  variables,
  images,
  *,
  batch_size,
  threshold=0.5,
  refine=0,
  merge_radius=0.02,
  contract_angle=None,
  contract_distance=None,
  decode=None,
  sharding=None,
):
  """Predicts canonical graphs of images of one shape.

  Args:
    method: a `methods.base.Method`.
    variables: its variables.
    images: iterable of `[H, W, C]` float32 numpy arrays in [0, 1], all of one shape;
      it is consumed batch by batch.
    batch_size: images at a time; rounded up to a multiple of the devices. The last
      batch is filled up with blank images whose graphs are dropped.
    threshold: what the probabilities of nodes and edges must exceed.
    refine: test-time refinement steps; 0 for none.
    merge_radius: see `graph.canonicalize`, as the next two.
    contract_angle: degrees; None contracts nothing, as published scores want it.
    contract_distance: in [-1, 1] units.
    decode: options of `decoding.decode`, a dict, which then takes the place of
      canonical form, as `img2graph predict` has it; None for published scores.
    sharding: `NamedSharding` of a batch over its leading axis; None for one device.

  Yields:
    one graph per image: `(nodes [n, 2] float32 in [-1, 1], edges [e, 2] int32)`.

  Raises:
    ValueError: an option is wrong, or the method cannot refine.
  """
  if refine < 0:
    raise ValueError(f'refine must be 0 or more steps; got {refine}.')
  if refine and method.refine is None:
    raise ValueError('this method cannot refine its graphs; set refine to 0.')
  if decode is not None and method.ink is None:
    raise ValueError('this method has no line drawings to decode; set decode to None.')
  options = dict(
    threshold=threshold,
    merge_radius=merge_radius,
    contract_angle=contract_angle,
    contract_distance=contract_distance,
  )
  options = None if decode is not None else tuple(options.items())
  run = _compiled_predict(method, refine, options, sharding)
  for found, count in in_batches(
    run, variables, images, batch_size=batch_size, sharding=sharding
  ):
    if decode is None:
      # Canonical graphs keep probabilities below one half if the threshold is lower.
      yield from _unbatched(found, count, threshold=0)
      continue
    for i in range(count):
      one, refined, drawing = jax.tree.map(lambda x, i=i: x[i], found)
      one = decoding.decode_better(one, refined, drawing, threshold=threshold, **decode)
      yield graphs.to_lists(one, 0)


def in_batches(run, variables, images, *, batch_size, sharding):
  """Runs a function on images batch by batch, all of one size.

  Args:
    run: `(variables, images [B, H, W, C]) -> pytree of arrays [B, ...]`, jitted.
    variables: of a method.
    images: as `predict_graphs`, as the next two.
    batch_size: images at a time, > 0.
    sharding: `NamedSharding` of a batch over its leading axis; None for one device.

  Yields:
    `(found, count)`: what `run` returned, as numpy arrays, and how many images of the
    batch, the first ones, were asked for.

  Raises:
    ValueError: `batch_size` is not positive.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size must be positive; got {batch_size}.')
  devices = 1
  if sharding is not None:
    devices = sharding.num_devices
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    variables = jax.device_put(variables, whole)
  images = iter(images)
  size = None
  while group := list(itertools.islice(images, size or batch_size)):
    # The first batch settles the size: fewer images than asked for need no more room.
    size = size or -(-len(group) // devices) * devices
    batch = np.zeros((size, *group[0].shape), np.float32)
    batch[: len(group)] = group
    if sharding is not None:
      # Every process holds the whole batch and gives its devices their parts.
      batch = jax.make_array_from_callback(batch.shape, sharding, batch.__getitem__)
    yield jax.tree.map(np.asarray, run(variables, batch)), len(group)


def _unbatched(graph, count, *, threshold):
  """The first `count` graphs of a batch as lists of nodes and edges."""
  for i in range(count):
    yield graphs.to_lists(jax.tree.map(lambda x, i=i: x[i], graph), threshold)


def examples(source, *, num_images, seed):
  """Examples of a source, the same whatever the batch size of what is done with them.

  Args:
    source: of `data.sources`.
    num_images: how many, > 0; of a `HostSource` at most its size, each once.
    seed: int, draws or shuffles.

  Yields:
    batches, dicts of numpy arrays, `num_images` examples in all.
  """
  if hasattr(source, 'sample'):
    sample = _compiled_sample(source.sample)
    stream = jax.random.fold_in(jax.random.key(seed), _EVALUATION_STREAM)
    chunks = (sample(jax.random.fold_in(stream, k), _CHUNK) for k in itertools.count())
  else:
    num_images = min(num_images, source.size)
    chunks = host_batches(source, seed=seed, batch_size=min(_CHUNK, source.size))
  while num_images > 0:
    chunk = sources.as_float(jax.tree.map(np.asarray, next(chunks)))
    count = min(num_images, len(chunk['image']))
    num_images -= count
    yield jax.tree.map(lambda x, count=count: x[:count], chunk)


def host_batches(source, *, seed, batch_size):
  """Batches of a `HostSource` without end, of whole examples even where training has
  none of them: they stay on the devices.

  Args:
    source: a `data.sources.HostSource`.
    seed: int, shuffles.
    batch_size: examples in a batch, at most the source's size.
  """
  if source.whole is None:
    yield from source.iterate(seed=seed, batch_size=batch_size)
    return
  order = np.random.default_rng(seed).permutation(source.size)
  for start in itertools.count(0, batch_size):
    places = order[np.arange(start, start + batch_size) % source.size]
    yield jax.tree.map(lambda x, places=places: x[places], source.whole)


def evaluate(
  method,
  variables,
  data,
  *,
  num_images=None,
  batch_size,
  seed=0,
  thresholds=metrics.THRESHOLDS,
  extra=False,
  **options,
):
  """Scores of a method on a data set.

  Args:
    method: a `methods.base.Method`.
    variables: its variables.
    data: a source of images (`img2graph.data.sources`), an `archives.Archive`, or the
      path of one.
    num_images: how many images. Of an archive they are spread evenly, and all are
      taken if it has fewer; None for all of an archive or of a `HostSource`.
    batch_size: images predicted at a time.
    seed: draws or shuffles the images of a source.
    thresholds: matching distances, fractions of the side.
    extra: also the costlier figures, see `metrics.score_graph`.
    **options: threshold, refine, merge_radius, contract_angle, contract_distance and
      sharding, see `predict_graphs`.

  Returns:
    dict of plain numbers as from `metrics.combine`, with 'predicted': {'nodes',
    'edges'}, their mean numbers per image; of an archive also 'missing'. Of a source
    without true graphs there are only 'images' and 'predicted'.

  Raises:
    ValueError: an option is wrong, or there are no images.
  """
  # Before anything is predicted.
  thresholds = triplets.check_thresholds(thresholds)
  if num_images is not None and num_images < 1:
    raise ValueError(f'num_images must be positive; got {num_images}.')
  if isinstance(data, str | os.PathLike):
    data = archives.load(data, spread=num_images)
  elif isinstance(data, archives.Archive) and num_images is not None:
    count = min(num_images, len(data))
    data = data.take(np.arange(count) * len(data) // count if count else [])
  options = dict(options, batch_size=batch_size)
  if isinstance(data, archives.Archive):
    predictions = predict_archive(method, variables, data, **options)
    scores = score_predictions(data, predictions, thresholds=thresholds, extra=extra)
    found = [(p['nodes'], p['edges']) for p in predictions.values()]
    return scores | {'predicted': _mean_numbers(found)}

  if num_images is None:
    if not hasattr(data, 'size'):
      raise ValueError('num_images must be given: this source draws without end.')
    num_images = data.size
  trues = []

  def images():
    for chunk in examples(data, num_images=num_images, seed=seed):
      if 'graph' in chunk:
        count = len(chunk['image'])
        trues.extend(_unbatched(chunk['graph'], count, threshold=0.5))
      yield from chunk['image']

  found = list(predict_graphs(method, variables, images(), **options))
  if not found:
    raise ValueError('there are no images to evaluate.')
  if not trues:
    return {'images': len(found), 'predicted': _mean_numbers(found)}
  scores = metrics.score_graphs(trues, found, thresholds=thresholds, extra=extra)
  return scores | {'predicted': _mean_numbers(found)}


def _mean_numbers(found):
  """Mean numbers of nodes and of edges of graphs."""
  return {
    'nodes': float(np.mean([len(nodes) for nodes, _ in found])),
    'edges': float(np.mean([len(edges) for _, edges in found])),
  }


def predict_archive(method, variables, archive, *, batch_size, **options):
  """Predicts the graphs of all images of an archive.

  Images are fitted into a square of the first of `method.sides` that is not smaller
  than the image, or of the last.

  Args:
    method: a `methods.base.Method`.
    variables: its variables.
    archive: an `archives.Archive` with images.
    batch_size: images at a time.
    **options: see `predict_graphs`.

  Returns:
    `{index: {'nodes': [[x, y], ...], 'edges': [[i, j], ...]}}`, plain lists: the
    image's number in its file, positions in [0, 1] of its width and height, or outside
    by up to those.
  """
  if not len(archive):
    return {}
  height, width = archive.ink(0).shape
  largest = max(height, width)
  side = next((s for s in method.sides if s >= largest), method.sides[-1])
  frames = []

  def images():
    for i in range(len(archive)):
      square, frame = image_lib.fit_square(archive.ink(i), side)
      frames.append(frame)
      yield np.asarray(square, np.float32)[..., None]

  found = predict_graphs(method, variables, images(), batch_size=batch_size, **options)
  predictions = {}
  for i, (nodes, edges) in enumerate(found):
    nodes_px = frames[i].to_pixels(nodes.astype(np.float64))
    # The square around a narrow image reaches further than positions may lie outside.
    unit = np.clip(nodes_px / np.array([width, height]), -1, 2)
    predictions[int(archive.index[i])] = {
      'nodes': unit.tolist(),
      'edges': edges.tolist(),
    }
  return predictions


def score_predictions(
  archive, predictions, *, thresholds=metrics.THRESHOLDS, extra=True
):
  """Scores predictions against the true graphs of an archive.

  Args:
    archive: an `archives.Archive`; its images are not needed.
    predictions: `{index: {'nodes', 'edges'}}`, see the top of the file. An image
      without an entry counts as an empty prediction; other entries are not looked at.
    thresholds: fractions of the side.
    extra: also the costlier figures, see `metrics.score_graph`.

  Returns:
    dict as from `metrics.combine`, and 'missing', the number of images without entry.

  Raises:
    ValueError: there are no images, no prediction is of this archive, or one is
      wrong; the sentence names the image.
  """
  indices = archive.index.tolist()
  missing = sum(index not in predictions for index in indices)
  if predictions and missing == len(indices) > 0:
    raise ValueError(
      f'none of the {len(predictions)} predictions is of an image of this archive.'
    )
  rows = []
  for index, true in zip(indices, archive.graphs(), strict=True):
    found = predictions.get(index, {'nodes': [], 'edges': []})
    try:
      nodes = np.asarray(found['nodes'], np.float64)
      if _far_outside(nodes):
        raise ValueError(_FAR_OUTSIDE)
      pred = (2 * nodes - 1, found['edges'])
      rows.append(metrics.score_graph(true, pred, thresholds=thresholds, extra=extra))
    except OverflowError:
      raise ValueError(
        f'image {index}: a node position must be a number below 1e308.'
      ) from None
    except (TypeError, ValueError) as error:
      raise ValueError(f'image {index}: {error}') from None
  return metrics.combine(rows) | {'missing': missing}


def write_predictions(path, predictions):
  """Writes predictions as JSON, `{"index": {"nodes": ..., "edges": ...}}`.

  The file appears whole or not at all.

  Raises:
    ValueError: the file cannot be written.
  """
  lines = [f'"{index}": {json.dumps(found)}' for index, found in predictions.items()]
  try:
    files.write_atomically(path, ('{' + ',\n'.join(lines) + '}\n').encode())
  except OSError as error:
    raise ValueError(f'{path}: cannot be written ({error.strerror}).') from None


def read_predictions(path):
  """Reads what `write_predictions` wrote, or another program in its place.

  Returns:
    `{index: {'nodes': [[x, y], ...], 'edges': [[i, j], ...]}}`. What else may be wrong
    with positions and edges is told when they are scored.

  Raises:
    ValueError: the file is not one of predictions, has different graphs of one image,
      or positions are not in [0, 1] of the sides, but in pixels for example; one
      sentence with its name.
  """
  path = pathlib.Path(path)
  try:
    entries = json.loads(path.read_text(encoding='utf-8-sig'))
  except FileNotFoundError:
    raise ValueError(f'{path}: there is no such file of predictions.') from None
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(f'{path}: not a JSON file of predictions ({error}).') from None
  if not isinstance(entries, dict):
    raise ValueError(f'{path}: predictions must be a JSON object by image number.')
  predictions = {}
  for name, found in entries.items():
    if not name.isdecimal():
      raise ValueError(f'{path}: {name!r} is not the number of an image.')
    if not isinstance(found, dict) or not {'nodes', 'edges'} <= found.keys():
      raise ValueError(f"{path}: image {name} must have 'nodes' and 'edges'.")
    if _far_outside(found['nodes']):
      raise ValueError(f'{path}: image {name}: {_FAR_OUTSIDE}')
    graph = {'nodes': found['nodes'], 'edges': found['edges']}
    # As of a folder: the same graph under two names, such as 1 and 01, counts once.
    if predictions.setdefault(int(name), graph) != graph:
      raise ValueError(f'{path}: there are different graphs of image {int(name)}.')
  return predictions


def _far_outside(nodes):
  try:
    return archives.far_outside(nodes).any()
  except (TypeError, ValueError, OverflowError):
    return False  # No positions at all.
