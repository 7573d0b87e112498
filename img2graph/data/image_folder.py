"""A folder of drawings as training images, without labels.

A model that has learned from generated drawings forgets what they taught when it sees
nothing but the folder, whose images are rough and have no clean counterpart. So the
images may be thinned and drawn anew for a target, and the model may rehearse: generated
drawings, rough and clean, join every batch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from img2graph import ranges
from img2graph.data import drawing
from img2graph.data import images
from img2graph.data import sources
from img2graph.data import streams
from img2graph.data import thinning


class _Folder:
  """Loads the images of a folder by number; bad files stand aside for the next."""

  def __init__(self, paths, *, side, polarity, flip, rotate, zoom, shift):
    self._paths = paths
    self._side = side
    self._polarity = polarity
    self._flip = flip
    self._rotate = rotate
    self._zoom = zoom
    self._shift = shift
    none_left = f'none of the {len(paths)} image files can be read, such as {paths[0]}.'
    # `square(index)`: `[side, side]` of image `index`, or of the next good one.
    self.square = streams.Skipping(self._read, len(paths), none_left=none_left)

  def _read(self, index):
    ink = images.read(self._paths[index], polarity=self._polarity)
    return images.fit_square(ink, self._side)[0]

  def __call__(self, index, generator):
    square = self.square(index)
    # Always the same number of draws, so that one option does not change the others.
    flips, turns = generator.integers(2), generator.integers(4)
    zoom, dx, dy = generator.uniform(size=3)
    if self._flip and flips:
      square = square[:, ::-1]
    if self._rotate:
      square = np.rot90(square, turns)
    zoom = drawing.pick(zoom, self._zoom)
    dx, dy = self._shift * (2 * dx - 1), self._shift * (2 * dy - 1)
    if zoom != 1 or dx or dy:
      square = _move(square, zoom, dx, dy)
    return {'image': np.ascontiguousarray(square, np.float32)[..., None]}


def _move(square, zoom, dx, dy):
  """Scales `[S, S]` about its middle and shifts it by shares of the side."""
  side = square.shape[0]
  middle = side / 2
  # Pillow asks where each output pixel comes from.
  x0 = middle - (middle + dx * side) / zoom
  y0 = middle - (middle + dy * side) / zoom
  moved = Image.fromarray(np.ascontiguousarray(square)).transform(
    (side, side),
    Image.Transform.AFFINE,
    (1 / zoom, 0, x0, 0, 1 / zoom, y0),
    resample=Image.Resampling.BILINEAR,
  )
  return np.asarray(moved)


def _generator(rehearse, generated, side):
  """`(key, count) -> batch` of generated drawings; None without rehearsal."""
  if not isinstance(rehearse, int) or rehearse < 0:
    raise ValueError(f'rehearse must be 0, 1, 2 or so on; got {rehearse!r}.')
  if not rehearse:
    return None
  mapping = hasattr(generated, 'keys')
  if not mapping or 'source' not in generated or 'side' in generated:
    raise ValueError(
      "generated must be options of data, with 'source' and without 'side', such as "
      f"{{'source': 'strokes'}}; got {generated!r}."
    )
  # Here, since that module imports this one: when it is asked for it.
  from img2graph import data

  generator = data.build(**generated, side=side)
  if not hasattr(generator, 'sample'):
    raise ValueError(
      f'generated must name a source that draws, such as strokes; '
      f'got {generated["source"]!r}.'
    )
  drawn = jax.eval_shape(
    lambda key: generator.sample(key, 1)['image'], jax.random.key(0)
  )
  if drawn.shape[-1] != 1:
    raise ValueError(
      'generated must name a source of line drawings, of one channel; '
      f'{generated["source"]!r} has {drawn.shape[-1]}.'
    )
  return generator.sample


def _complete(key, batch, *, target_width, rehearse, sample):
  """The batch with its targets and generated drawings, see `source`."""
  images = batch['image']
  target = images
  if target_width is not None:
    target = thinning.redraw(images, line_width=target_width * images.shape[1] / 64)
  if not rehearse:
    return {'image': images, 'target': target}
  drawn = sample(key, rehearse * images.shape[0])
  return {
    'image': jnp.concatenate([images, drawn['image']]),
    'target': jnp.concatenate([target, drawn.get('target', drawn['image'])]),
  }


def source(
  *,
  dir,
  side=64,
  polarity='auto',
  flip=False,
  rotate=False,
  zoom=1.0,
  shift=0.0,
  worker_count=0,
  target_width=None,
  rehearse=0,
  generated=None,
):
  """A `HostSource` of the images in a folder and its subfolders.

  Files that cannot be read are skipped, each with one warning; the next good file of
  the folder takes their place.

  Args:
    dir: the folder; images of any size and kind that `images.read` takes.
    side: height and width of the training images in pixels, see `images.fit_square`.
    polarity: 'auto', 'dark_on_light' or 'light_on_dark'.
    flip: mirror half of the images left to right.
    rotate: turn images by a random multiple of 90 degrees.
    zoom: factor of the size, a number or (low, high), > 0.
    shift: greatest shift along x and y, as a share of the side.
    worker_count: processes that read files; 0 reads in threads.
    target_width: images are to be reproduced with lines of this width in pixels of 64
      (`strokes.target_width`), thinned and drawn anew, > 0; None: as they are.
    rehearse: generated drawings that training adds to each batch, as many for each
      image of the folder; a whole number, 0 for none.
    generated: what draws them, as `data.build` takes it, without `side`; None for
      {'source': 'strokes'}.

  Returns:
    `HostSource` with batches {'image': `[B, side, side, 1]`}. With `target_width` or
    `rehearse` its `complete` makes them {'image', 'target'} of (1 + rehearse) B
    examples, those of the folder first.

  Raises:
    images.BadImage: the folder is missing, unreadable or empty, or no file in it is
      good.
    ValueError: an option is wrong.
  """
  if polarity not in images.POLARITIES:
    raise ValueError(f'polarity must be one of {images.POLARITIES}; got {polarity!r}.')
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  if target_width is not None:
    ranges.as_number('target_width', target_width, lowest=0.1)
  zoom = ranges.as_range('zoom', zoom, lowest=0.01)
  shift = ranges.as_number('shift', shift, lowest=0, highest=1)
  if not str(dir):
    raise ValueError('data.dir must name the folder of images; it is empty.')
  paths = images.find(dir)
  load = _Folder(
    paths,
    side=side,
    polarity=polarity,
    flip=flip,
    rotate=rotate,
    zoom=zoom,
    shift=shift,
  )
  load.square(0)  # Says now, not in training, that no file is good.
  iterate = functools.partial(
    streams.shuffled, load, len(paths), worker_count=worker_count
  )
  sample = _generator(rehearse, generated or {'source': 'strokes'}, side)
  complete = with_targets = None
  if target_width is not None:
    with_targets = functools.partial(
      _complete, None, target_width=target_width, rehearse=0, sample=None
    )
  if rehearse or target_width is not None:
    complete = functools.partial(
      _complete, target_width=target_width, rehearse=rehearse, sample=sample
    )
  return sources.HostSource(
    iterate=iterate,
    side=side,
    size=len(paths),
    complete=complete,
    with_targets=with_targets,
  )
