"""Photographs in one `.npz` file, with or without annotated points.

  images          `[n, H, W, 3]` or `[n, H, W]` uint8; or data and offsets, files end to
                  end, see `data.packed_images`
  points          `[n, M, 2]` float (x, y) in [0, 1] of the width and height; -1 where a
                  point is missing. Optional. With points, files are taken as they are
                  stored, which is what points are about; without, they are turned as
                  their EXIF entries say
  points_ok       `[n]` bool, whether an image has points at all. Optional

Any further array of length n is a *field*: a class, who or what is seen, a distance. A
`.json` of the same name beside the file may hold {'classes': [name, ...]}.

Parts: 'test' is a share of the images, drawn by the values of a field, so that no
animal or place is on both sides; 'train' is the rest, images alone; 'fit' is those of
the rest that have points; 'all' is everything.
"""

import concurrent.futures
import functools

import numpy as np

from img2graph import files
from img2graph.data import archives
from img2graph.data import augmentation
from img2graph.data import packed_images
from img2graph.data import photos
from img2graph.data import resident
from img2graph.data.photo_sets import base

PARTS = (*base.PARTS, 'all')


def source(
  *,
  path,
  part='train',
  side=64,
  flip=False,
  turn=0.0,
  zoom=1.0,
  shift=0.0,
  recolor=0.0,
  split_by='',
  fraction=0.2,
  seed=0,
  label='label',
  classes=(),
  scale='',
  on_device=None,
):
  """A `HostSource` of one part of an archive, decoded once and kept as uint8.

  Args:
    path: the `.npz` file.
    part: 'train', 'fit', 'test' or 'all', see the top of the file.
    side: height and width of the images in pixels; others are stretched to it.
    flip, turn, zoom, shift, recolor: how training changes images at random, on the
      device, see `augmentation.complete`.
    split_by: field whose values are not to be on both sides of the split; '' splits
      image by image.
    fraction: share of the images in the part 'test', in (0, 1).
    seed: of the split.
    label: field of the class, for `classes`.
    classes: names (of the `.json`) or numbers of the classes to read; () for all.
    scale: field with what distances are divided by, in sides; '' for the side.
    on_device: see `resident.host_source`.

  Returns:
    `HostSource` with batches as those of `photos.source`; points only in the parts
    'fit' and 'test', and 'all', of archives that have them.

  Raises:
    ValueError: the file is no such archive, an option does not fit it, or no image is
      left; one sentence.
  """
  photos.check_part(part, PARTS)
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  if not str(path):
    raise ValueError('data.path must name the archive of photographs; it is empty.')
  complete = augmentation.complete(
    flip=flip, turn=turn, zoom=zoom, shift=shift, recolor=recolor
  )
  path = files.expand(path)
  arrays = archives.read_arrays(path, kind='archive of photographs')
  count = packed_images.count(path, arrays)
  rows = _rows_of_classes(path, arrays, count, label, classes)
  truth = {} if part == 'train' else _truth(path, arrays, count, scale)
  if part != 'all':
    groups = np.arange(count) if not split_by else _field(path, arrays, split_by, count)
    test = archives.draw_groups(
      groups[rows],
      fraction=fraction,
      seed=seed,
      name=f'the field {split_by!r} of {path}' if split_by else str(path),
    )
    rows = rows[test if part == 'test' else ~test]
  if truth and part in ('fit', 'test'):
    rows = rows[truth['visible'][rows].any(axis=1)]
  if not len(rows):
    raise ValueError(f'{path} has no image for the part {part!r}.')
  stretch = functools.partial(base.stretch, side=side)
  decode = functools.partial(
    packed_images.decode, path, arrays, convert=stretch, turn='points' not in arrays
  )
  with concurrent.futures.ThreadPoolExecutor() as pool:
    pixels = pool.map(decode, rows.tolist())
    pixels = np.stack(list(pixels))
  whole = {'image': pixels} | {name: values[rows] for name, values in truth.items()}
  return resident.host_source(whole, on_device=on_device, complete=complete)


def _field(path, arrays, name, count):
  if name not in arrays or arrays[name].shape != (count,):
    fields = [n for n, values in arrays.items() if values.shape == (count,)]
    raise ValueError(
      f'{path} has no field {name!r} with one value per image; it has '
      f'{", ".join(fields) or "none"}.'
    )
  return arrays[name]


def _numbers(path, arrays, name, count):
  values = _field(path, arrays, name, count)
  if values.dtype.kind not in 'biuf':
    raise ValueError(
      f'{path}: the field {name!r} must be of numbers; got {values.dtype}.'
    )
  return values


def _rows_of_classes(path, arrays, count, label, classes):
  """Numbers of the images of some classes, `[m]`."""
  if not classes:
    return np.arange(count)
  if isinstance(classes, str | int):
    raise ValueError(f'classes must be several names or numbers; got {classes!r}.')
  names = archives.read_info(path).get('classes', [])
  if not isinstance(names, list):
    beside = path.with_suffix('.json')
    raise ValueError(f"{beside}: 'classes' must be a list of names; got {names!r}.")
  numbers = []
  for name in classes:
    if isinstance(name, str) and name not in names:
      known = ', '.join(map(str, names)) or 'none with a name'
      raise ValueError(f'{path} has no class {name!r}; it has {known}.')
    numbers.append(names.index(name) if isinstance(name, str) else name)
  labels = _field(path, arrays, label, count)
  there = np.isin(numbers, labels).tolist()
  if not all(there):
    absent = [name for name, found in zip(classes, there, strict=True) if not found]
    raise ValueError(f'{path} has no image of the classes {absent}.')
  return np.flatnonzero(np.isin(labels, numbers))


def _truth(path, arrays, count, scale):
  """Points, visibility and scale of all images; {} without points."""
  if 'points' not in arrays:
    return {}
  shares = arrays['points']
  if shares.ndim != 3 or shares.shape[0] != count or shares.shape[2] != 2:
    raise ValueError(f'{path}: points must be [{count}, M, 2]; got {shares.shape}.')
  if shares.dtype.kind != 'f':
    raise ValueError(
      f'{path}: points must be floating-point numbers in [0, 1] of the sides; '
      f'got {shares.dtype}.'
    )
  visible = ((shares != -1) & np.isfinite(shares)).all(axis=-1)
  if 'points_ok' in arrays:
    visible &= _numbers(path, arrays, 'points_ok', count).astype(bool)[:, None]
  far = (visible & archives.far_outside(shares)).any(axis=1)
  if far.any():
    raise ValueError(
      f'{path}: image {int(np.argmax(far))}: a point lies far outside; x and y must be '
      'in [0, 1] of the sides.'
    )
  sides = _numbers(path, arrays, scale, count) if scale else np.ones(count)
  # Without points there is no distance either; nothing is divided by it.
  sides = np.where(visible.any(axis=1), sides, 1)
  if not (sides > 0).all():
    raise ValueError(f'{path}: the field {scale!r} must be above 0 where points are.')
  return {
    'points': np.where(visible[..., None], shares * 2 - 1, 0).astype(np.float32),
    'visible': visible.astype(np.float32),
    'scale': (2 * sides).astype(np.float32),
  }
