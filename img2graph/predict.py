"""Prediction: weights and images of any size to graphs in pixels of those images.

  document = img2graph.predict_file('drawing.png')
  formats.write(document, 'drawing.json')

An image is fitted into a square (`img2graph.data.images`) of the first of the method's
sides that is not smaller than it, or of the last. Images of one side go through the
method in batches of one size, so that each side compiles once.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import pathlib

import jax
import numpy as np

import img2graph
from img2graph import decoding
from img2graph import formats
from img2graph import graph as graphs
from img2graph import weights
from img2graph.data import images as image_lib

# Fainter than this all over, an image is blank paper: not even asked about.
FAINTEST_INK = 0.02

# How far a chord may leave the curve it stands for, share of the longer side.
TOLERANCE = 0.03

# Images decoded ahead of the method; few, since one may be large.
_AHEAD = 4


class Predictor:
  """A method with its weights, ready for images.

  Attributes:
    method: the `methods.base.Method`.
    name: what stands in a document's `model`.
    card: the model card of the weights, a dict.
  """

  def __init__(self, weights_path=None):
    """Loads weights.

    Args:
      weights_path: of a file as `img2graph.weights` writes it; None for those that
        come with the package.

    Raises:
      ValueError: the file is missing, damaged, or of another version.
    """
    path = pathlib.Path(weights.shipped() if weights_path is None else weights_path)
    self.method, variables, meta = weights.load_method(path)
    self.card = meta['card']
    method = meta['method']['name']
    self.name = f'{method}, {path.name}, img2graph {img2graph.__version__}'
    self._variables = jax.device_put(variables)
    self._compiled = functools.cache(self._compile)

  def predict(
    self, images, *, threshold=0.5, tolerance=TOLERANCE, refine=0, batch_size=None
  ):
    """Graphs of images.

    Args:
      images: sequence of `[H, W]` float arrays in [0, 1], ink 1, each of any size.
      threshold: probability at which an edge is as likely to be kept as left out, as
        far as the ink does not decide; see `decoding.decode`.
      tolerance: how far a chord may leave the curve it stands for, share of the longer
        side: the larger, the fewer nodes a curve has.
      refine: gradient steps that fit the graph to the image through the renderer.
      batch_size: images at a time; None for all, but at most 32.

    Returns:
      list of `formats.Document`, one per image in their order. A blank image has an
      empty graph.

    Raises:
      ValueError: an option or an image is wrong; the message says which.
    """
    images = list(images)
    if batch_size is None:
      batch_size = max(1, min(32, len(images)))
    options = dict(threshold=threshold, tolerance=tolerance, refine=refine)
    found = dict(self.stream(enumerate(images), batch_size=batch_size, **options))
    return [found[i] for i in range(len(images))]

  def stream(
    self, tagged, *, threshold=0.5, tolerance=TOLERANCE, refine=0, batch_size=32
  ):
    """Graphs of any number of images, in little memory.

    Only fitted squares are kept, at most a batch of each side.

    Args:
      tagged: iterable of (tag, image): an image as for `predict`, and anything hashable
        by which to know it.
      threshold: see `predict`, as the next two.
      tolerance: of chords.
      refine: gradient steps.
      batch_size: images at a time; batches are filled up to it.

    Yields:
      (tag, `formats.Document`), each as soon as its batch is done: not in order.

    Raises:
      ValueError: as `predict`; the message names the tag.
    """
    _check_options(self.method, threshold, tolerance, refine, batch_size)
    options = dict(threshold=threshold, tolerance=tolerance, refine=refine)
    run = functools.partial(self._run, batch_size=batch_size, **options)
    waiting = collections.defaultdict(list)  # {side: [(tag, square, frame, size)]}
    for tag, image in tagged:
      ink = check_image(image, tag)
      size = ink.shape
      if ink.max() < FAINTEST_INK:
        yield tag, self._document(graphs.empty((), 0), None, size)
        continue
      side = next((s for s in self.method.sides if s >= max(size)), None)
      side = self.method.sides[-1] if side is None else side
      square, frame = image_lib.fit_square(ink, side)
      waiting[side].append((tag, np.asarray(square, np.float32), frame, size))
      if len(waiting[side]) == batch_size:
        yield from run(waiting.pop(side))
    for group in waiting.values():
      yield from run(group)

  def _compile(self, refine):
    """Jitted `(variables, images) -> (Graph, drawings or None)`."""

    def run(variables, images):
      graph = self.method.predict(variables, images)
      if refine:
        graph = self.method.refine(variables, images, graph, refine)
      return graph, self.method.ink(variables, images) if self.method.ink else None

    return jax.jit(run)

  def _run(self, group, *, threshold, tolerance, refine, batch_size):
    """(tag, document) of each (tag, square, frame, size) of a batch, or part of one."""
    batch = np.zeros((batch_size, *group[0][1].shape, 1), np.float32)
    for i, (_, square, _, _) in enumerate(group):
      batch[i, ..., 0] = square
    found = self._compiled(refine)(self._variables, batch)
    found = jax.tree.map(np.asarray, found)
    for i, (tag, _, frame, size) in enumerate(group):
      one, drawing = jax.tree.map(lambda x, i=i: x[i], found)
      if drawing is None:
        one = graphs.canonicalize(one, threshold=threshold)
      else:
        # In [-1, 1] units the side is 2.
        one = decoding.decode(
          one, drawing, threshold=threshold, tolerance=2 * tolerance
        )
      yield tag, self._document(one, frame, size)

  def _document(self, graph, frame, size):
    """A canonical graph in a square, as a document of the image it came from."""
    # What was not to be there is gone.
    nodes, edges = graphs.to_lists(graph, threshold=0)
    (slots,) = np.nonzero(graph.node_prob > 0)
    edge_prob = graph.edge_prob[slots[edges[:, 0]], slots[edges[:, 1]]]
    nodes_px = frame.to_pixels(nodes.astype(np.float64)) if frame else nodes
    height, width = size
    return formats.Document(
      # A thousandth of a pixel is more than any method knows.
      nodes_px=np.round(np.asarray(nodes_px, np.float64), 3),
      edges=edges,
      node_prob=_decimal(graph.node_prob[slots]),
      edge_prob=_decimal(edge_prob),
      width=width,
      height=height,
      model=self.name,
    )


def predict_file(
  path,
  *,
  weights=None,
  polarity='auto',
  threshold=0.5,
  tolerance=TOLERANCE,
  refine=0,
):
  """The graph of one image file.

  Args:
    path: of the image.
    weights: path of a weights file; None for those that come with the package.
    polarity: see `img2graph.data.images.read`.
    threshold: see `Predictor.predict`, as the next two.
    tolerance: of chords.
    refine: gradient steps.

  Returns:
    A `formats.Document`.

  Raises:
    ValueError: the image, the weights or an option is wrong.
  """
  options = dict(threshold=threshold, tolerance=tolerance, refine=refine, batch_size=1)
  found = predict_files([path], weights=weights, polarity=polarity, **options)
  ((_, document),) = found
  return document


def predict_files(
  paths,
  *,
  weights=None,
  polarity='auto',
  threshold=0.5,
  tolerance=TOLERANCE,
  refine=0,
  batch_size=32,
  on_error=None,
):
  """The graphs of many image files, in little memory.

  Args:
    paths: iterable of paths of images.
    weights: see `predict_file`, as the next four.
    polarity: of the ink.
    threshold: of probabilities.
    tolerance: of chords.
    refine: gradient steps.
    batch_size: images at a time.
    on_error: called as `on_error(path, error)` for a file that is no image, which is
      then left out; None raises instead.

  Yields:
    (path, `formats.Document`), each as soon as its batch is done: not in order.

  Raises:
    ValueError: the weights or an option is wrong, or an image without `on_error`.
  """
  predictor = _predictor(None if weights is None else pathlib.Path(weights))
  load = functools.partial(image_lib.read, polarity=polarity)
  tagged = load_ahead(paths, load, on_error=on_error)
  options = dict(
    threshold=threshold, tolerance=tolerance, refine=refine, batch_size=batch_size
  )
  for path, document in predictor.stream(tagged, **options):
    yield path, named(document, path)


def named(document, path):
  """The document with the file name of its image."""
  return dataclasses.replace(document, file=pathlib.Path(path).name)


def load_ahead(paths, load, *, on_error=None):
  """Calls `load(path)` in threads, a few paths ahead of what is asked for.

  Args:
    paths: iterable of paths.
    load: path -> image.
    on_error: `on_error(path, error)` for a ValueError or OSError of `load`, after
      which that path is left out; None raises.

  Yields:
    (path, image) in the order of the paths.
  """
  paths = iter(paths)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    pending = collections.deque()

    def submit():
      for path in paths:
        pending.append((path, pool.submit(load, path)))
        return

    for _ in range(_AHEAD):
      submit()
    try:
      while pending:
        path, future = pending.popleft()
        submit()
        try:
          image = future.result()
        except (ValueError, OSError) as error:
          if on_error is None:
            raise
          on_error(path, error)
          continue
        yield path, image
    finally:
      for _, future in pending:
        future.cancel()


def check_image(image, tag):
  """An image as `[H, W]` if `Predictor` takes it.

  Args:
    image: `[H, W]` or `[H, W, 1]` float in [0, 1].
    tag: its name, for the message.

  Raises:
    ValueError: a shape, type or value is wrong.
  """
  ink = np.asarray(image)
  if ink.ndim == 3 and ink.shape[-1] == 1:
    ink = ink[..., 0]
  if ink.ndim != 2 or 0 in ink.shape:
    raise ValueError(f'image {tag} must be [H, W]; got {list(ink.shape)}.')
  if ink.dtype.kind != 'f':
    raise ValueError(f'image {tag} must be float with ink 1; got {ink.dtype}.')
  low, high = float(ink.min()), float(ink.max())  # NaN if any pixel is.
  if not (np.isfinite(low) and np.isfinite(high)):
    raise ValueError(f'image {tag} has pixels that are not finite.')
  if low < 0 or high > 1:
    raise ValueError(f'image {tag} must be in [0, 1]; got {low:g} to {high:g}.')
  return ink


# Loading and compiling take seconds, so the last few stay.
@functools.lru_cache(maxsize=4)
def _predictor(path):
  return Predictor(path)


def _check_options(method, threshold, tolerance, refine, batch_size):
  if not 0 <= threshold < 1:
    raise ValueError(f'threshold must be at least 0 and below 1; got {threshold}.')
  if not 0 <= tolerance <= 1:
    raise ValueError(f'tolerance must be in [0, 1]; got {tolerance}.')
  if refine < 0:
    raise ValueError(f'refine must be 0 or more steps; got {refine}.')
  if refine and method.refine is None:
    raise ValueError('the method of these weights cannot refine; leave refine at 0.')
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1; got {batch_size}.')


def _decimal(values):
  """float32 values as the float64 of their shortest decimal, `[n]`."""
  return np.array([float(str(v)) for v in np.asarray(values, np.float32)], np.float64)
