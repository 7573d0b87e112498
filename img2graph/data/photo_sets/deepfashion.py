"""DeepFashion, in-shop clothes: the full-body photographs of Lorenz et al.

train, fit   data_train.csv, 10,604
test         data_test.csv, 1,179
Photographs are 256 x 256; the 17 points are those of AlphaPose, in pixels of 256, some
of them outside the photograph. The scale is the side.

As published (the lists beside the in-shop folder Img/img):
  img/WOMEN/..., img/MEN/...                 (or images/)
  data_train.csv, data_test.csv              id,filename
  data_train.json, data_test.json            [{'image_path', 'keypoints': [17][x, y]}]
"""

import json

import numpy as np

from img2graph.data.photo_sets import base

_SIDE = 256


def photos(folder, part):
  """Photos; see the top of the file."""
  name = 'data_test' if part == 'test' else 'data_train'
  table = base.need(folder, f'{name}.csv', what=f"DeepFashion's list {name}.csv")
  images = base.need(
    folder, 'img', 'images', what="DeepFashion's in-shop folder of photographs"
  )
  names = [row[1] for row in base.rows(table, 2, ',')[1:]]
  files = base.need_files(images, names)
  if part == 'train':
    return base.Photos(files)
  path = base.need(folder, f'{name}.json', what=f"DeepFashion's points {name}.json")
  try:
    entries = json.loads(path.read_text())
    same = [entry['image_path'] for entry in entries] == names
    marks = np.array([entry['keypoints'] for entry in entries], np.float64)
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ValueError(f'{path} is not the list of points ({error}).') from None
  if not same:
    raise ValueError(f'{path} must tell of the photographs of {name}.csv in order.')
  if marks.ndim != 3 or marks.shape[2] != 2:
    raise ValueError(
      f'{path}: keypoints must be [M][x, y] of each photograph; got {marks.shape[1:]}.'
    )
  # Pixels count from the centre of the first.
  return base.Photos(files, points=(marks + 0.5) / _SIDE * 2 - 1)
