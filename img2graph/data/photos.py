"""Photographs of one object class, with annotated points where a protocol has them.

`config.data = dict(source='photos', name='celeba_wild', dir=..., part='train', ...)`.
What each set reads, and its parts, stands on top of its file in `data/photo_sets`; the
protocols of their evaluation are those of `metrics.keypoints` (docs/keypoint_data.md
has both in one table).
"""

import functools
import os

from img2graph.data import augmentation
from img2graph.data import sources
from img2graph.data import streams
from img2graph.data.photo_sets import base
from img2graph.data.photo_sets import celeba
from img2graph.data.photo_sets import cub
from img2graph.data.photo_sets import deepfashion
from img2graph.data.photo_sets import human36m
from img2graph.data.photo_sets import taichi
from img2graph.data.photo_sets import unlabelled

# Name -> function (folder, part) -> `base.Photos`.
SETS = {
  'celeba': celeba.aligned,
  'celeba_wild': celeba.wild,
  'cub_aligned': cub.aligned,
  'cub_001': cub.class_1,
  'cub_002': cub.class_2,
  'cub_003': cub.class_3,
  'cub_all': cub.everything,
  'human36m': human36m.without_background,
  'human36m_background': human36m.with_background,
  'deepfashion': deepfashion.photos,
  'taichi': taichi.photos,
  'afhq': unlabelled.afhq,
  'hands': unlabelled.hands,
  'flowers': unlabelled.flowers,
  'horse': unlabelled.horse,
  'zebra': unlabelled.zebra,
  'folder': unlabelled.any_folder,
}


class _Loader:
  """Loads examples by number; what cannot be read is passed over in training."""

  def __init__(self, photos, *, side, keep, skip):
    self._photos = photos
    self._side = side
    self._kept = {} if keep else None
    self._find = self._read
    if skip:
      none_left = f'none of the {len(photos)} photographs can be read.'
      self._find = streams.Skipping(self._read, len(photos), none_left=none_left)

  def __call__(self, index, generator=None):
    del generator  # Flipped on the device.
    return self._find(index)

  def _read(self, index):
    return {'image': self._pixels(index)} | self._photos.truth(index)

  def _pixels(self, index):
    if self._kept is not None and index in self._kept:
      return self._kept[index]
    pixels = self._photos.pixels(index, self._side)
    if self._kept is not None:
      self._kept[index] = pixels
    return pixels


def check_part(part, parts=base.PARTS):
  """Raises ValueError unless the part is one of some."""
  if part not in parts:
    raise ValueError(f'part must be one of {", ".join(parts)}; got {part!r}.')


def source(
  *,
  name,
  dir,
  part='train',
  side=128,
  flip=False,
  turn=0.0,
  zoom=1.0,
  shift=0.0,
  recolor=0.0,
  keep=False,
  worker_count=0,
):
  """A `HostSource` of one part of a set of photographs.

  Photographs, or the part of them that the protocol shows, are stretched to a square
  (Pillow's bilinear, which averages when it reduces). In the part 'train' those that
  cannot be read are skipped with one warning; elsewhere they are an error, since a
  score is of all images, and all must be there at once.

  Args:
    name: of the set, see `SETS`.
    dir: its folder, laid out as its source has it.
    part: 'train', images alone; 'fit' or 'test', with points where the set has them.
    side: height and width of the images in pixels.
    flip, turn, zoom, shift, recolor: how training changes images at random, on the
      device, see `augmentation.complete`.
    keep: keep read images in memory, 3 side^2 bytes each, rather than read them again.
    worker_count: processes that read files; 0 reads in threads.

  Returns:
    `HostSource` with batches {'image': `[B, side, side, 3]` uint8} and, with points,
    'points', 'visible' and 'scale' (`data.sources`).

  Raises:
    ValueError: there is no such set or part, or a file of it is missing; the sentence
      says which, and where it belongs.
    images.BadImage: no photograph can be read.
  """
  if name not in SETS:
    raise ValueError(f'there is no set {name!r}; there are {", ".join(SETS)}.')
  check_part(part)
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  complete = augmentation.complete(
    flip=flip, turn=turn, zoom=zoom, shift=shift, recolor=recolor
  )
  photos = SETS[name](os.path.expanduser(dir), part)
  if part != 'train':  # There, none is passed over.
    base.need_all(photos.paths())
  load = _Loader(photos, side=side, keep=keep, skip=part == 'train')
  load(0)  # Says now, not in training, what cannot be read.
  iterate = functools.partial(
    streams.shuffled, load, len(photos), worker_count=worker_count
  )
  return sources.HostSource(
    iterate=iterate, side=side, size=len(photos), complete=complete
  )
