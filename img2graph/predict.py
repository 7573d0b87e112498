"""Prediction: weights and images of any size to graphs in pixels of those images.

  document = img2graph.predict_file('drawing.png')
  formats.write(document, 'drawing.json')

An image is fitted into a square (`img2graph.data.images`) of the first of the method's
sides that is not smaller than it, or of the last. Images of one side go through the
method in batches of one size, so that each side compiles once. An image with more
lines than such a square can show goes through in overlapping tiles (`img2graph.tiles`),
and one that a graph of the square does not explain.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import numbers
import pathlib

import jax
import numpy as np

import img2graph
from img2graph import decoding
from img2graph import formats
from img2graph import graph as graphs
from img2graph import tiles
from img2graph import weights
from img2graph.data import images as image_lib

# Fainter than this all over, an image is blank paper: not even asked about.
FAINTEST_INK = 0.02

# How far a chord may leave the curve it stands for, share of the longer side: of the
# image, or of a tile.
TOLERANCE = 0.03

# What may be known of all drawings, see `Predictor.predict`.
PRIORS = ('polygon', 'right_angles')

# Images decoded ahead of the method; few, since one may be large.
_AHEAD = 4

# Tiles at a time, whatever the number of images: one size compiles once.
_TILES = 16

# A graph is judged by its ink unrefined, while its chords are no coarser than this.
_CLOSELY = 0.01

# Pixels of images that wait for another look; with more, a batch is not waited for.
_HELD = 2**25


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
      weights_path: of a file as `img2graph.weights` writes it, or a name of those that
        come with the package (`weights.find`); None for the usual ones.

    Raises:
      ValueError: the file is missing, damaged, or of another version.
    """
    path = weights.find('shipped' if weights_path is None else weights_path)
    self.method, variables, meta = weights.load_method(path)
    self.card = meta['card']
    method = meta['method']['name']
    if self.method.predict is None:
      raise ValueError(
        f'weights {path} are of {method}, which finds no graph in an image.'
      )
    self.name = f'{method}, {path.name}, img2graph {img2graph.__version__}'
    self._variables = jax.device_put(variables)
    self._compiled = functools.cache(self._compile)

  def predict(
    self,
    images,
    *,
    threshold=0.5,
    node_threshold=0.5,
    tolerance=TOLERANCE,
    refine=0,
    tile='auto',
    prior=(),
    batch_size=None,
  ):
    """Graphs of images.

    Args:
      images: sequence of float arrays in [0, 1], each of any size: `[H, W]`, ink 1; of
        a method for photographs `[H, W, 3]`, or `[H, W]` if grey. An array
        `[B, H, W]`, or with channels `[B, H, W, C]`, is a sequence of B images.
      threshold: probability at which an edge is as likely to be kept as left out, as
        far as the ink does not decide; see `decoding.decode`. Of a method of keypoints:
        what the strength of a link, relative to the strongest, must exceed.
      node_threshold: what the probability of a keypoint must exceed; of other methods
        0.5.
      tolerance: how far a chord may leave the curve it stands for, share of the longer
        side of the image, or of a tile: the larger, the fewer nodes a curve has.
      refine: gradient steps that fit the graph to the image through the renderer.
      tile: side of the tiles, in pixels, in which an image that is larger is looked at;
        None for every image in one piece; 'auto' for what suits its lines: tiles
        where they are many, or where one piece leaves ink without an edge, see
        `tiles.choose`.
      prior: what is known of all drawings, some of `PRIORS`: 'polygon', each is one
        closed polygon; 'right_angles', what nearly is a rectangle is one.
      batch_size: images at a time; None for all, but at most 32.

    Returns:
      list of `formats.Document`, one per image in their order; all nodes lie in the
      image. A blank image has an empty graph.

    Raises:
      ValueError: an option or an image is wrong; the message says which.

    Of a method of keypoints (`Method.keypoints`), a node's id is the number of its
    keypoint, and nodes without edges stay.
    """
    _refuse_one_image(images)
    images = list(images)
    if batch_size is None:
      batch_size = max(1, min(32, len(images)))
    options = dict(threshold=threshold, node_threshold=node_threshold)
    options |= dict(tolerance=tolerance, refine=refine, tile=tile, prior=prior)
    found = dict(self.stream(enumerate(images), batch_size=batch_size, **options))
    return [found[i] for i in range(len(images))]

  def stream(
    self,
    tagged,
    *,
    threshold=0.5,
    node_threshold=0.5,
    tolerance=TOLERANCE,
    refine=0,
    tile='auto',
    prior=(),
    batch_size=32,
    on_tiles=None,
  ):
    """Graphs of any number of images, in little memory.

    Only fitted squares are kept, at most a batch of each side, or of tiles; and some
    images that may be looked at once more.

    Args:
      tagged: iterable of (tag, image): an image as for `predict`, and anything hashable
        by which to know it.
      threshold: see `predict`, as the next five.
      node_threshold: of keypoints.
      tolerance: of chords.
      refine: gradient steps.
      tile: side of tiles.
      prior: about the drawings.
      batch_size: images at a time; batches are filled up to it. Tiles have their own.
      on_tiles: called as `on_tiles(tag, done, total)` while an image goes through in
        tiles: at first, and after each batch of them.

    Yields:
      (tag, `formats.Document`), each as soon as its batch is done: not in order.

    Raises:
      ValueError: as `predict`; the message names the tag.
    """
    options = dict(threshold=threshold, node_threshold=node_threshold)
    options |= dict(tolerance=tolerance, refine=refine)
    self.check_options(**options, tile=tile, prior=prior, batch_size=batch_size)
    decode = _decode_options(prior)
    run = functools.partial(self._run, batch_size=batch_size, decode=decode, **options)
    tell = on_tiles or (lambda *_: None)
    waiting = collections.defaultdict(list)  # {side: [((tag, doubt), square, ...)]}

    held = 0  # Pixels of doubtful images since all were last looked at.

    def tiled(tag, ink, side):
      return self._tiled(ink, side, on_tiles=functools.partial(tell, tag), **options)

    def finish(group):
      doubtful = [entry for entry in group if entry[0][1] is not None]
      plainly = dict(tolerance=min(tolerance, _CLOSELY), refine=0)
      close = run(doubtful, **plainly) if doubtful else None
      for (tag, doubt), document in run(group):
        if doubt is not None:
          ink, choice = doubt
          _, fine = next(close)
          if not tiles.is_explained(ink, choice.lines, fine.nodes_px, fine.edges):
            document = tiled(tag, ink, choice.side)
        yield tag, document

    for tag, image in tagged:
      ink = check_image(image, tag, channels=self.method.channels)
      size = ink.shape[:2]
      drawn = self.method.channels == 1
      if drawn and ink.max() < FAINTEST_INK:
        blank = _piece(graphs.empty((), 0), image_lib.Frame(*size))
        yield tag, self._document(blank, size)
        continue
      doubt, tile_side = None, None
      if tile == 'auto' and not prior and drawn:
        choice = tiles.choose(ink, self._canvas)
        if choice is not None and choice.sure:
          tile_side = choice.side
        elif choice is not None and self.method.ink is not None:
          doubt = ink, choice
      elif tile and tile != 'auto' and tile < max(size):
        tile_side = tile
      if tile_side is not None:
        yield tag, tiled(tag, ink, tile_side)
        continue
      side, square, frame = self._fit(ink)
      waiting[side].append(((tag, doubt), square, frame, size))
      held += 0 if doubt is None else ink.size
      if held > _HELD:
        held = 0
        for group in [waiting.pop(side) for side in sorted(waiting)]:
          yield from finish(group)
      elif len(waiting[side]) == batch_size:
        yield from finish(waiting.pop(side))
    for group in waiting.values():
      yield from finish(group)

  def check_options(
    self,
    *,
    polarity='auto',
    threshold=0.5,
    node_threshold=0.5,
    tolerance=TOLERANCE,
    refine=0,
    tile='auto',
    prior=(),
    batch_size=1,
  ):
    """Raises ValueError for options of `read` and `stream` that do not do here."""
    _check_polarity(self.method, polarity)
    method = self.method
    for name, value in (('threshold', threshold), ('node_threshold', node_threshold)):
      if not 0 <= value < 1:
        raise ValueError(f'{name} must be at least 0 and below 1; got {value}.')
    if node_threshold != 0.5 and not method.keypoints:
      raise ValueError(
        'the method of these weights has no keypoints; leave node_threshold at 0.5.'
      )
    if not 0 <= tolerance <= 1:
      raise ValueError(f'tolerance must be in [0, 1]; got {tolerance}.')
    if tolerance != TOLERANCE and method.channels != 1:
      raise ValueError(
        'the method of these weights cuts no curves; '
        f'leave the tolerance at {TOLERANCE}.'
      )
    if refine < 0:
      raise ValueError(f'refine must be 0 or more steps; got {refine}.')
    if refine and method.refine is None:
      raise ValueError('the method of these weights cannot refine; leave refine at 0.')
    whole = isinstance(tile, numbers.Integral) and not isinstance(tile, bool)
    if not (tile is None or tile == 'auto' or (whole and tile >= tiles.LEAST_SIDE)):
      raise ValueError(
        f"tile must be 'auto', None or a number of pixels from {tiles.LEAST_SIDE}; "
        f'got {tile!r}.'
      )
    for name in prior:
      if name not in PRIORS:
        raise ValueError(f'there is no prior {name!r}; there are {", ".join(PRIORS)}.')
    if prior and method.ink is None:
      raise ValueError(
        'the method of these weights decodes nothing, and takes no prior.'
      )
    if method.channels != 1 and whole:
      raise ValueError('photographs are looked at in one piece; take no tiles.')
    if prior and whole:
      raise ValueError('a prior is about drawings in one piece: take no tiles with it.')
    if batch_size < 1:
      raise ValueError(f'batch_size must be at least 1; got {batch_size}.')

  def read(self, path, *, polarity='auto'):
    """The image of a file as this method takes it, ready for `predict`.

    Args:
      path: of the file.
      polarity: of the ink, see `img2graph.data.images.read`; photographs have none.

    Raises:
      ValueError: it is no image.
    """
    if self.method.channels == 1:
      return check_image(image_lib.read(path, polarity=polarity), path)
    _check_polarity(self.method, polarity)
    return check_image(image_lib.read_photograph(path), path, channels=3)

  def _compile(self, refine):
    """Jitted `(variables, images) -> (Graph, refined or None, drawings or None)`."""
    method = self.method

    def run(variables, images):
      graph = method.predict(variables, images)
      refined = method.refine(variables, images, graph, refine) if refine else None
      return graph, refined, method.ink(variables, images) if method.ink else None

    return jax.jit(run)

  @functools.cached_property
  def _canvas(self):
    """Side in pixels of what the method looks at, for its largest images."""
    side = self.method.sides[-1]
    if self.method.ink is None:
      return side
    image = jax.ShapeDtypeStruct((1, side, side, self.method.channels), np.float32)
    return jax.eval_shape(self.method.ink, self._variables, image).shape[1]

  def _fit(self, ink):
    """An image in a square of the method's: side, square, frame."""
    side = next((s for s in self.method.sides if s >= max(ink.shape[:2])), None)
    side = self.method.sides[-1] if side is None else side
    if self.method.channels == 1:
      square, frame = image_lib.fit_square(ink, side)
    else:
      square, frame = image_lib.stretch(ink, side)
    return side, np.asarray(square, np.float32).reshape(side, side, -1), frame

  def _tiled(self, ink, tile_side, *, tolerance, on_tiles, **options):
    """The document of an image, by way of tiles of that side."""
    lines = tiles.measure(ink)
    plan = tiles.plan(*ink.shape, tile_side)
    if lines is not None:
      plan = [tile for tile in plan if tiles.has_ink(ink, tile, tile_side, lines)]
    pieces = []
    on_tiles(0, len(plan))
    for start in range(0, len(plan), _TILES):
      group = []
      for tile in plan[start : start + _TILES]:
        left, top, right, bottom = tile.box
        _, square, frame = self._fit(ink[top:bottom, left:right])
        group.append((tile, square, frame, ink.shape))
      # Curves are straightened later, where the parts of two tiles are one.
      decode = dict(tolerance=0, follow_tolerance=2 * tolerance, outline=0)
      found = self._graphs(group, decode=decode, batch_size=_TILES, **options)
      for (tile, _, frame, _), graph in zip(group, found, strict=True):
        piece = _piece(graph, frame)
        pieces.append(piece._replace(nodes=piece.nodes + tile.box[:2]))
      on_tiles(min(start + _TILES, len(plan)), len(plan))
    # A tile is 2 in the units of `decoding.decode`.
    whole = tiles.stitch(
      pieces,
      plan,
      tile_side,
      ink.shape,
      merge=decoding.MERGE_RADIUS * tile_side / 2,
      joint=decoding.JOINT_RADIUS * tile_side / 2,
    )
    if self.method.ink is not None:
      whole = tiles.straighten(whole, tolerance * tile_side)
    return self._document(whole, ink.shape)

  def _graphs(self, group, *, threshold, node_threshold, refine, batch_size, decode):
    """The final graph of each (tag, square, frame, size) of a batch or less."""
    batch = np.zeros((batch_size, *group[0][1].shape), np.float32)
    for i, (_, square, _, _) in enumerate(group):
      batch[i] = square
    found = self._compiled(refine)(self._variables, batch)
    found = jax.tree.map(np.asarray, found)
    for i in range(len(group)):
      one, refined, drawing = jax.tree.map(lambda x, i=i: x[i], found)
      if self.method.keypoints:
        yield graphs.drop_absent(one, threshold, node_threshold)
      elif drawing is None:
        one = one if refined is None else refined
        yield graphs.canonicalize(one, threshold=threshold)
      else:
        yield decoding.decode_better(
          one, refined, drawing, threshold=threshold, **decode
        )

  def _run(self, group, *, tolerance, decode, **options):
    """(tag, document) of each (tag, square, frame, size) of a batch, or part of one."""
    # In [-1, 1] units the side is 2.
    decode = dict(decode, tolerance=2 * tolerance)
    found = self._graphs(group, decode=decode, **options)
    for (tag, _, frame, size), graph in zip(group, found, strict=True):
      ids = np.flatnonzero(graph.node_prob) if self.method.keypoints else None
      yield tag, self._document(_piece(graph, frame), size, ids)

  def _document(self, piece, size, ids=None):
    """A graph in pixels as a document of an image of (height, width)."""
    height, width = size
    return formats.Document(
      node_ids=ids,
      # The square around a narrow image is wider. And a thousandth of a pixel is more
      # than any method knows.
      nodes_px=np.round(np.clip(piece.nodes, 0, [width, height]), 3),
      edges=piece.edges,
      node_prob=_decimal(piece.node_prob),
      edge_prob=_decimal(piece.edge_prob),
      width=width,
      height=height,
      model=self.name,
    )


def _piece(graph, frame):
  """A final graph in a square, as a `tiles.Piece` in pixels of its image."""
  # What was not to be there is gone.
  nodes, edges = graphs.to_lists(graph, threshold=0)
  (slots,) = np.nonzero(graph.node_prob > 0)
  return tiles.Piece(
    frame.to_pixels(nodes.astype(np.float64)),
    graph.node_prob[slots],
    edges,
    graph.edge_prob[slots[edges[:, 0]], slots[edges[:, 1]]],
  )


def predict_file(
  path,
  *,
  weights=None,
  polarity='auto',
  threshold=0.5,
  node_threshold=0.5,
  tolerance=TOLERANCE,
  refine=0,
  tile='auto',
  prior=(),
):
  """The graph of one image file.

  Args:
    path: of the image.
    weights: path of a weights file; None for those that come with the package.
    polarity: see `img2graph.data.images.read`.
    threshold: see `Predictor.predict`, as the next five.
    node_threshold: of keypoints.
    tolerance: of chords.
    refine: gradient steps.
    tile: side of tiles.
    prior: about the drawings.

  Returns:
    A `formats.Document`.

  Raises:
    ValueError: the image, the weights or an option is wrong.
  """
  options = dict(threshold=threshold, node_threshold=node_threshold)
  options |= dict(tolerance=tolerance, refine=refine, tile=tile, prior=prior)
  options |= dict(weights=weights, polarity=polarity, batch_size=1)
  found = predict_files([path], **options)
  ((_, document),) = found
  return document


def predict_files(
  paths,
  *,
  weights=None,
  polarity='auto',
  threshold=0.5,
  node_threshold=0.5,
  tolerance=TOLERANCE,
  refine=0,
  tile='auto',
  prior=(),
  batch_size=32,
  on_error=None,
):
  """The graphs of many image files, in little memory.

  Args:
    paths: iterable of paths of images.
    weights: see `predict_file`, as the next seven.
    polarity: of the ink.
    threshold: of probabilities.
    node_threshold: of keypoints.
    tolerance: of chords.
    refine: gradient steps.
    tile: side of tiles.
    prior: about the drawings.
    batch_size: images at a time.
    on_error: called as `on_error(path, error)` for a file that is no image, which is
      then left out; None raises instead.

  Yields:
    (path, `formats.Document`), each as soon as its batch is done: not in order.

  Raises:
    ValueError: the weights or an option is wrong, or an image without `on_error`.
  """
  predictor = _predictor(None if weights is None else pathlib.Path(weights))
  load = functools.partial(predictor.read, polarity=polarity)
  tagged = load_ahead(paths, load, on_error=on_error)
  options = dict(threshold=threshold, node_threshold=node_threshold)
  options |= dict(tolerance=tolerance, refine=refine, tile=tile, prior=prior)
  for path, document in predictor.stream(tagged, batch_size=batch_size, **options):
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


def check_image(image, tag, *, channels=1):
  """An image as `[H, W]`, or `[H, W, 3]`, if `Predictor` takes it.

  Args:
    image: `[H, W]` or `[H, W, 1]` float in [0, 1]; of 3 channels also `[H, W, 3]`.
    tag: its name, for the message.
    channels: that the method takes, 1 or 3.

  Raises:
    ValueError: a shape, type or value is wrong.
  """
  ink = np.asarray(image)
  if ink.ndim == 3 and ink.shape[-1] == 1:
    ink = ink[..., 0]
  if channels == 3 and ink.ndim == 2:
    ink = np.repeat(ink[..., None], 3, axis=-1)
  if ink.shape[2:] != ((3,) if channels == 3 else ()) or ink.ndim < 2 or not ink.size:
    wanted = '[H, W, 3]' if channels == 3 else '[H, W]'
    raise ValueError(f'image {tag} must be {wanted}; got {list(ink.shape)}.')
  if ink.dtype.kind != 'f':
    raise ValueError(f'image {tag} must be float with ink 1; got {ink.dtype}.')
  low, high = float(ink.min()), float(ink.max())  # NaN if any pixel is.
  if not (np.isfinite(low) and np.isfinite(high)):
    raise ValueError(f'image {tag} has pixels that are not finite.')
  if low < 0 or high > 1:
    raise ValueError(f'image {tag} must be in [0, 1]; got {low:g} to {high:g}.')
  return ink


def _predictor(path):
  """A `Predictor`; the last few stay, since loading and compiling take seconds."""
  path = weights.shipped() if path is None else weights.find(path).resolve()
  try:
    found = path.stat()
  except OSError:
    return Predictor(path)  # It says what is wrong.
  # A file that was written anew is another one.
  return _known_predictor(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4)
def _known_predictor(path, time, size):
  del time, size
  return Predictor(path)


def _check_polarity(method, polarity):
  if method.channels != 1 and polarity != 'auto':
    raise ValueError(
      f"photographs have no polarity: leave it 'auto'; got {polarity!r}."
    )


def _refuse_one_image(images):
  """An image that is not in a list would be a sequence of its rows."""
  dtype = getattr(images, 'dtype', None)
  if dtype is None or dtype.kind == 'O':  # A list, or images of several sizes.
    return
  shape = images.shape
  if len(shape) < 3 or (len(shape) == 3 and shape[-1] in (1, 3)):
    raise ValueError(
      'images must be a sequence of images; '
      f'got one array of the shape {list(shape)}: give [image].'
    )


def _decode_options(prior):
  """Options of `decoding.decode` for what is known of the drawings."""
  outline = 1.0 if 'polygon' in prior else decoding.OUTLINE
  return dict(outline=outline, right_angles='right_angles' in prior)


def _decimal(values):
  """float32 values as the float64 of their shortest decimal, `[n]`."""
  return np.array([float(str(v)) for v in np.asarray(values, np.float32)], np.float64)
