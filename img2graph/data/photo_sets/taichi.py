"""Tai-Chi-HD: people before any background, 18 points, of which some are missing.

train   frames of the training videos
fit     5,000 images of training videos
test    300 images of test videos
Points are in pixels of 256, -1 where there is none; the scale is the side.

As published (the frames by video-preprocessing, the rest by motion-cosegmentation):
  train/VIDEO/FRAME.png
  eval_images/taichi-256/train/, eval_images/taichi-256/test/
  landmark/taichi_train_gt.pkl, landmark/taichi_test_gt.pkl     (or landmarks/)
The tables are pickles of pandas; they are read without pandas, and nothing that they
name is run.
"""

import pickle

import numpy as np

from img2graph.data import images as image_files
from img2graph.data.photo_sets import base

_SIDE = 256


def photos(folder, part):
  """Photos; see the top of the file."""
  if part == 'train':
    videos = base.need(folder, 'train', what="Tai-Chi-HD's folder of training frames")
    return base.Photos(image_files.find(videos))
  name = 'train' if part == 'fit' else 'test'
  table = base.need(
    folder,
    f'landmark/taichi_{name}_gt.pkl',
    f'landmarks/taichi_{name}_gt.pkl',
    what=f"Tai-Chi-HD's table of points taichi_{name}_gt.pkl",
  )
  images = base.need(
    folder,
    f'eval_images/taichi-256/{name}',
    what=f"Tai-Chi-HD's folder of {name} images of the evaluation",
  )
  names, marks = read_table(table)
  return base.Photos(
    base.need_files(images, names),
    # Pixels count from the centre of the first.
    points=(marks + 0.5) / _SIDE * 2 - 1,
    visible=(np.abs(marks + 1) > 1e-6).all(axis=-1),
  )


def read_table(path):
  """File names and points of a table of pandas.

  Args:
    path: a pickle of a DataFrame with the columns 'file_name' and 'value'.

  Returns:
    list of n names, and `[n, M, 2]` float64 in pixels.

  Raises:
    ValueError: the file is no such table; one sentence names it.
  """
  try:
    with open(path, 'rb') as file:
      table = _Reader(file).load()
    columns = {}
    for block in _object_blocks(table):
      columns |= {type(values[0]): values for values in block}
    return list(columns[str]), np.stack(columns[np.ndarray]).astype(np.float64)
  # Damage and other layouts show in many ways.
  except Exception as error:
    raise ValueError(f'{path} is not a table of points ({error}).') from None


class _Shell:
  """Stands for a class of pandas; keeps what it would be built from."""

  def __init__(self, *parts):
    self.parts = parts

  def __setstate__(self, state):
    self.parts = state


class _Reader(pickle.Unpickler):
  """Reads arrays, and shells in place of whatever is pandas; refuses all else."""

  def find_class(self, module, name):
    if (module.split('.')[0], name) in _ARRAYS:
      return super().find_class(module.replace('numpy.core', 'numpy._core'), name)
    if (module, name) == ('builtins', 'slice'):
      return slice
    if module.split('.')[0] == 'pandas':
      return _Shell
    raise pickle.UnpicklingError(f'it names {module}.{name}')


_ARRAYS = {('numpy', name) for name in ('ndarray', 'dtype', '_reconstruct')}


def _object_blocks(value):
  """Arrays `[columns, n]` of objects in a pickled table, wherever they lie."""
  if isinstance(value, np.ndarray):
    return [value] if value.dtype == object and value.ndim == 2 else []
  if isinstance(value, _Shell):
    value = value.parts
  if isinstance(value, dict):
    value = list(value.values())
  if not isinstance(value, list | tuple):
    return []
  return [block for part in value for block in _object_blocks(part)]
