"""CUB-200-2011: birds with 15 points, of which many are hidden; the scale is the side.

Aligned, as Lorenz et al. cropped and turned them: the head to the left, no seabirds,
4,735 to learn from and fit, 4,630 to test. As they published it:
  images/train/..., images/test/...
  train.csv, test.csv           idx,fname,fname_original,category
  train_kp.npy, test_kp.npy     [n, 15, 3]: x, y in [0, 1] of the image, visible 0 or 1

All, and the three classes 001 to 003, cropped to the given box: with the lists of CMR,
which Choudhury et al. took. `all` learns from and fits on the list `train` and tests on
`test`. A single class tests on its images in the official test part, out of all three
lists; the official code has no recipe for what is learned from: it is taken to be the
images of the three classes in the official training part. As published:
  CUB_200_2011/images/001.Black_footed_Albatross/...
  CUB_200_2011/cachedir/cub/data/{train,val,test}_cub_cleaned.mat

The crop, to the letter: photographs lose what their sides exceed a multiple of 16 by,
half of it on either side (rounded down on the left and above). The box becomes a square
of its longer side about its middle, cut where it leaves the photograph, and is moved
with the trimmed corner on its left and above, but not on its right and below.
"""

import functools
import itertools

import numpy as np

from img2graph.data.photo_sets import base

_LISTS = ('train', 'val', 'test')
_CLASSES = (1, 2, 3)
# Of each bird in the lists of CMR.
_FIELDS = ('rel_path', 'class_id', 'train', 'test', 'bbox', 'parts')


def aligned(folder, part):
  """Photos of the aligned set; see the top of the file."""
  name = 'test' if part == 'test' else 'train'
  table = base.need(folder, f'{name}.csv', what=f"the aligned birds' list {name}.csv")
  base.need(folder, 'images', what="the aligned birds' folder of photographs")
  files = base.need_files(folder, [row[1] for row in base.rows(table, 2, ',')[1:]])
  if part == 'train':
    return base.Photos(files)
  marks = base.need(folder, f'{name}_kp.npy', what="the aligned birds' points")
  try:
    marks = np.load(marks).astype(np.float64)
  # Damage shows in many ways, of which most are the reader's own.
  except Exception as error:
    raise ValueError(f'{marks} is not an array of points ({error}).') from None
  if marks.shape != (len(files), 15, 3):
    raise ValueError(
      f'{name}_kp.npy of {folder} must be [{len(files)}, 15, 3], a row for each of '
      f'{name}.csv; got {marks.shape}.'
    )
  return base.Photos(files, points=marks[..., :2] * 2 - 1, visible=marks[..., 2])


def everything(folder, part):
  """Photos of all classes; see the top of the file."""
  return _photos(folder, _birds(folder, 'test' if part == 'test' else 'train'), part)


def one_class(folder, part, *, number):
  """Photos of class 1, 2 or 3; see the top of the file."""
  birds = [bird for name in _LISTS for bird in _birds(folder, name)]
  if part == 'test':
    birds = [b for b in birds if b.class_id == number and b.test]
  else:
    birds = [b for b in birds if b.class_id in _CLASSES and b.train]
  return _photos(folder, birds, part)


class_1 = functools.partial(one_class, number=1)
class_2 = functools.partial(one_class, number=2)
class_3 = functools.partial(one_class, number=3)


def _birds(folder, name):
  """The records of one list of CMR."""
  path = base.need(
    folder,
    f'CUB_200_2011/cachedir/cub/data/{name}_cub_cleaned.mat',
    f'cachedir/cub/data/{name}_cub_cleaned.mat',
    what=f"CMR's list {name}_cub_cleaned.mat of CUB",
  )
  birds = base.read_mat(path, 'images', struct_as_record=False, squeeze_me=True)
  birds = np.atleast_1d(birds).tolist()
  if not all(hasattr(bird, name) for bird in birds for name in _FIELDS):
    raise ValueError(f"{path}: 'images' must be records of {', '.join(_FIELDS)}.")
  return birds


def _photos(folder, birds, part):
  images = base.need(
    folder, 'CUB_200_2011/images', 'images', what="CUB's folder of photographs"
  )
  files = base.need_files(images, [str(bird.rel_path) for bird in birds])
  size = base.sizes(files, skip=part == 'train')  # [n, 2]
  good = size.all(axis=1)
  files, birds = (list(itertools.compress(rows, good)) for rows in (files, birds))
  boxes = np.array([[getattr(b.bbox, n) for n in _CORNERS] for b in birds], np.float64)
  marks = np.array([bird.parts for bird in birds], np.float64)  # [n, 3, 15]
  boxes, points, visible = crop(size[good], boxes, marks.transpose(0, 2, 1))
  if part == 'train':
    return base.Photos(files, boxes)
  return base.Photos(files, boxes, points, visible)


_CORNERS = ('x1', 'y1', 'x2', 'y2')


def crop(size, boxes, marks):
  """The published crop, see the top of the file.

  Args:
    size: `[n, 2]` int, (width, height) of the photographs in pixels.
    boxes: `[n, 4]` float, (x1, y1, x2, y2) of the birds.
    marks: `[n, M, 3]` float, (x, y, visible).

  Returns:
    boxes `[n, 4]` in pixels of the whole photographs, points `[n, M, 2]` in [-1, 1] of
    the box, and visible `[n, M]`.
  """
  left, trimmed = (size % 16) // 2, size - size % 16  # [n, 2]
  middle = (boxes[:, :2] + boxes[:, 2:]) / 2
  half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
  low = np.maximum(np.maximum(middle - half, 0) - left, 0)
  high = np.minimum(np.minimum(middle + half, size), trimmed)
  places = marks[..., :2] - left[:, None]
  inside = ((places >= 0) & (places < trimmed[:, None])).all(axis=-1)
  points = (places - low[:, None]) / (high - low)[:, None] * 2 - 1
  visible = (marks[..., 2] == 1) & inside
  return np.concatenate([low + left, high + left], axis=1), points, visible
