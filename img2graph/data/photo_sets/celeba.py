"""CelebA, aligned and in the wild, with the test people of MAFL.

train   the training part of CelebA (list_eval_partition.txt, 0) without the 1,000 test
        images of MAFL: 161,962 images. The paper says "without MAFL (160k)"; the
        published list, and IMM before it, leave out the test images only, so 15,461
        images that the regression is fitted on are learned from, without their points.
fit     MAFL's training.txt, 19,000.
test    MAFL's testing.txt, 1,000.

Points are left eye, right eye, nose, left and right mouth corner; the scale is the
distance of the eyes, measured in the square. Aligned photographs (178 x 218) show the
middle 80 % of either side, as IMM and LMDIS have it (DVE 70 %); the paper does not
say. In the wild they are shown whole, and those whose face box has less than 30 % of
the area are left out: 45,609, 5,379 and 283 remain.

As published:
  img_align_celeba/, img_celeba/     000001.jpg ...      (or below Img/)
  list_eval_partition.txt                                (or below Eval/)
  list_landmarks_align_celeba.txt, list_landmarks_celeba.txt, list_bbox_celeba.txt
                                                         (or below Anno/)
  MAFL/training.txt, MAFL/testing.txt
"""

import numpy as np

from img2graph.data.photo_sets import base

_SHOWN = 0.8
_SMALLEST_FACE = 0.3


def aligned(folder, part):
  """Photos of the aligned set; see the top of the file."""
  names = _names(folder, part)
  files = _files(folder, 'img_align_celeba', names)
  size = _common_size(files, skip=part == 'train')
  margin = (1 - _SHOWN) / 2 * size
  box = np.concatenate([margin, size - margin])
  boxes = np.broadcast_to(box, (len(files), 4))
  if part == 'train':
    return base.Photos(files, boxes)
  table = base.need(
    folder,
    'list_landmarks_align_celeba.txt',
    'Anno/list_landmarks_align_celeba.txt',
    what="CelebA's table of aligned landmarks",
  )
  marks = _table(table, names, 10).reshape(-1, 5, 2)
  points = (marks - box[:2]) / (box[2:] - box[:2]) * 2 - 1
  return base.Photos(files, boxes, points, scale=base.eye_distance(points))


def wild(folder, part):
  """Photos of the set in the wild; see the top of the file."""
  names = np.array(_names(folder, part))
  files = _files(folder, 'img_celeba', names)
  boxes = base.need(
    folder,
    'list_bbox_celeba.txt',
    'Anno/list_bbox_celeba.txt',
    what="CelebA's table of face boxes",
  )
  size = base.sizes(files, skip=part == 'train')  # [n, 2]
  face = _table(boxes, names, 4)  # x, y, width, height
  large = face[:, 2] * face[:, 3] >= _SMALLEST_FACE * size.prod(axis=1)
  large &= size.all(axis=1)  # Not those that were passed over.
  files = [file for file, keep in zip(files, large, strict=True) if keep]
  if not files:
    raise ValueError(f'no face of {folder} fills 30 % of its photograph.')
  if part == 'train':
    return base.Photos(files)
  table = base.need(
    folder,
    'list_landmarks_celeba.txt',
    'Anno/list_landmarks_celeba.txt',
    what="CelebA's table of landmarks in the wild",
  )
  marks = _table(table, names[large], 10).reshape(-1, 5, 2)
  points = marks / size[large][:, None] * 2 - 1
  return base.Photos(files, points=points, scale=base.eye_distance(points))


def _common_size(files, *, skip):
  """Width and height `[2]`: of the first, or with `skip`, the first that is good."""
  for file in files:
    try:
      return base.sizes([file])[0]
    except ValueError:
      # Told when training draws it.
      if not skip or file is files[-1]:
        raise


def _names(folder, part):
  """File names of a part."""
  lists = {
    name: base.need(folder, f'MAFL/{name}.txt', what=f"MAFL's list {name}.txt")
    for name in ('training', 'testing')
  }
  if part != 'train':
    chosen = lists['training' if part == 'fit' else 'testing']
    return [row[0] for row in base.rows(chosen, 1)]
  partition = base.need(
    folder,
    'list_eval_partition.txt',
    'Eval/list_eval_partition.txt',
    what="CelebA's list of training, validation and test images",
  )
  numbers = {name: number for name, number, *_ in base.rows(partition, 2)}
  test = [row[0] for row in base.rows(lists['testing'], 1)]
  strange = [name for name in test if name not in numbers]
  # A list that is not MAFL's would let test images be learned from.
  if not test or strange:
    found = f'names {strange[0]!r}' if strange else 'is empty'
    raise ValueError(
      f'{lists["testing"]} must name photographs of {partition}; it {found}.'
    )
  test = set(test)
  return [n for n, number in numbers.items() if number == '0' and n not in test]


def _files(folder, images, names):
  images = base.need(
    folder, images, f'Img/{images}', what=f"CelebA's folder of photographs {images}"
  )
  return base.need_files(images, names)


def _table(path, names, columns):
  """Rows `[n, columns]` of a table of CelebA, whose first word is the file name."""
  rows = {row[0]: row[1:] for row in base.rows(path, columns + 1)}
  try:
    return np.array([rows[name][:columns] for name in names], np.float64)
  except KeyError as error:
    raise ValueError(f'{path} has no row of {error.args[0]}.') from None
  except ValueError:
    raise ValueError(f'{path} has a row that is not {columns} numbers.') from None
