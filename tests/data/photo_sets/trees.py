"""Tiny folders laid out as the sources of photographs publish them, for tests."""

import pickle
import sys
import types

import numpy as np
from PIL import Image


def photo(path, size=(16, 16), level=None, spot=None):
  """Writes a photograph: one grey level, or black with a white pixel at (x, y)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.full((size[1], size[0], 3), level or 0, np.uint8)
  if spot is not None:
    pixels[spot[1], spot[0]] = 255
  # Without loss, so that levels can be told apart; the suffix does not matter.
  Image.fromarray(pixels).save(path, format='PNG')


def text(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')


def names(numbers):
  return [f'{number:06}.jpg' for number in numbers]


def celeba(folder):
  """Ten images: 1 to 6 are of training, 7 and 8 of validation, 9 and 10 of testing.

  MAFL fits on 2 and 7 and tests on 3 and 9. In the wild even numbers are small faces,
  but for 2 and 8.
  """
  numbers = range(1, 11)
  partition = [0] * 6 + [1] * 2 + [2] * 2
  rows = zip(names(numbers), partition, strict=True)
  text(folder / 'list_eval_partition.txt', [f'{n} {p}' for n, p in rows])
  text(folder / 'MAFL/training.txt', names([2, 7]))
  text(folder / 'MAFL/testing.txt', names([3, 9]))
  header = ['10', 'lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y ...']
  aligned, wild, boxes = (
    list(header),
    list(header),
    ['10', 'image_id x_1 y_1 width height'],
  )
  for number, name in zip(numbers, names(numbers), strict=True):
    photo(folder / 'img_align_celeba' / name, (178, 218), level=10 * number)
    photo(folder / 'img_celeba' / name, (40, 20), level=10 * number)
    # Eyes 40 pixels apart, and the nose in the very middle.
    aligned.append(f'{name} 69 109 109 109 89 109 74 {140 + number} 104 {140 + number}')
    wild.append(f'{name} 10 5 20 5 15 {number} 10 15 20 15')
    large = number % 2 or number in (2, 8)
    boxes.append(f'{name} 5 5 {20 if large else 15} {12 if large else 15}')
  text(folder / 'list_landmarks_align_celeba.txt', aligned)
  text(folder / 'list_landmarks_celeba.txt', wild)
  text(folder / 'list_bbox_celeba.txt', boxes)


def aligned_birds(folder):
  """Three birds to learn from and two to test on."""
  for name, numbers in (('train', [1, 2, 3]), ('test', [4, 5])):
    rows = [f'images/{name}/{n:05}.png' for n in numbers]
    for number, row in zip(numbers, rows, strict=True):
      photo(folder / row, level=10 * number)
    lines = [f'{i},{row},004.Ani/x.jpg,4' for i, row in enumerate(rows)]
    text(folder / f'{name}.csv', ['idx,fname,fname_original,category', *lines])
    marks = np.zeros((len(rows), 15, 3))
    marks[:, 0] = [0.25, 0.75, 1]
    np.save(folder / f'{name}_kp.npy', marks)


def birds(folder, size=(40, 37)):
  """Lists of CMR: six birds, of the classes 1, 2, 3 and 4; numbers name the photos."""
  from scipy import io

  lists = {
    'train': [(1, 1, 1), (2, 2, 1), (3, 4, 1)],
    'val': [(4, 1, 0), (5, 3, 1)],
    'test': [(6, 1, 0), (7, 3, 0), (8, 4, 0)],
  }
  base = folder / 'CUB_200_2011'
  (base / 'cachedir/cub/data').mkdir(parents=True)
  for name, rows in lists.items():
    records = []
    for number, class_id, train in rows:
      rel_path = f'{class_id:03}.Bird/{number}.jpg'
      photo(base / 'images' / rel_path, size, level=10 * number)
      parts = np.zeros((3, 15))
      parts[:, 0] = [10, 12, 1]
      records.append(
        dict(
          rel_path=rel_path,
          class_id=class_id,
          train=train,
          test=1 - train,
          bbox=dict(x1=5.0, y1=6.0, x2=25.0, y2=16.0),
          parts=parts,
        )
      )
    table = np.array(
      [tuple(r.values()) for r in records], [(n, object) for n in records[0]]
    )
    io.savemat(base / f'cachedir/cub/data/{name}_cub_cleaned.mat', {'images': table})


def human36m(folder):
  """One frame of two of the six activities of each subject, and one of another."""
  from scipy import io

  for subject in (1, 5, 6, 7, 8, 9, 11):
    base = folder / f'S{subject}'
    for sequence in ('Walking 1.54138969', 'Posing.54138969', 'Eating.54138969'):
      photo(base / 'WithBackground' / sequence / '7.jpg', level=10 * subject)
      mask = base / 'BackgroudMask' / sequence / '7.png'
      mask.parent.mkdir(parents=True)
      pixels = np.zeros((16, 16), np.uint8)
      pixels[:8] = 255
      Image.fromarray(pixels).save(mask)
      joints = base / 'Landmarks' / sequence / '7.mat'
      joints.parent.mkdir(parents=True)
      io.savemat(joints, {'keypoints_2d': np.full((32, 2), [0.25, 0.75])})


def deepfashion(folder):
  """Two photographs to learn from and one to test on."""
  import json

  for name, count in (('data_train', 2), ('data_test', 1)):
    rows = [f'WOMEN/{name}/{i}.jpg' for i in range(count)]
    for i, row in enumerate(rows):
      photo(folder / 'img' / row, (256, 256), level=10 * i + 10)
    text(
      folder / f'{name}.csv',
      ['id,filename', *(f'{i},{row}' for i, row in enumerate(rows))],
    )
    entries = [
      {'image_path': row, 'keypoints': [[31.5, 255.5]] * 17, 'train': True}
      for row in rows
    ]
    (folder / f'{name}.json').write_text(json.dumps(entries))


def frame_table(path, files, marks, monkeypatch):
  """A pickle such as pandas writes of a table of file names and points.

  Pandas need not be there: its classes are given in name alone.
  """

  def stand_in(module, name):
    made = type(name, (), {'__module__': module})
    modules[module] = modules.get(module, types.ModuleType(module))
    setattr(modules[module], name, made)
    return made

  modules = {n: types.ModuleType(n) for n in ('pandas', 'pandas.core')}
  frame_class = stand_in('pandas.core.frame', 'DataFrame')
  manager_class = stand_in('pandas.core.internals', 'BlockManager')
  for module, content in modules.items():
    monkeypatch.setitem(sys.modules, module, content)
  values = np.empty((2, len(files)), object)
  for i, (file, points) in enumerate(zip(files, marks, strict=True)):
    values[0, i], values[1, i] = file, points
  numbers = np.zeros((1, len(files)), np.int64)
  blocks = [
    {'values': block, 'mgr_locs': slice(0, 4, 2)} for block in (numbers, values)
  ]
  manager, frame = manager_class(), frame_class()
  manager.__dict__['parts'] = {'0.14.1': {'blocks': blocks}}
  frame.__dict__['_data'] = manager
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(frame, protocol=4))


def taichi(folder, monkeypatch):
  """A training video of two frames, two images to fit on and one to test on."""
  for frame in range(2):
    photo(folder / f'train/a#0.mp4/{frame:07}.png', level=100)
  points = np.full((18, 2), [31.5, 127.5])
  points[3] = -1
  for name, count in (('train', 2), ('test', 1)):
    files = [f'{i:05}.png' for i in range(count)]
    for i, file in enumerate(files):
      photo(
        folder / 'eval_images/taichi-256' / name / file, (256, 256), level=10 * i + 10
      )
    table = folder / f'landmark/taichi_{name}_gt.pkl'
    frame_table(table, files, [points] * count, monkeypatch)


def flowers(folder):
  """Oxford 102: photographs 1 to 4; 1 is its trnid, 3 and 4 are its tstid."""
  from scipy import io

  for number in range(1, 5):
    photo(folder / f'jpg/image_{number:05}.jpg', level=10 * number)
  io.savemat(folder / 'setid.mat', {'trnid': [[1]], 'valid': [[2]], 'tstid': [[3, 4]]})


def below(folder, *parts):
  """A photograph in a subfolder of each of some folders."""
  for i, part in enumerate(parts):
    photo(folder / part / 'a/1.jpg', level=10 * i + 10)
