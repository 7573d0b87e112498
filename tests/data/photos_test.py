import logging

import jax
import numpy as np
import pytest

from img2graph import data
from img2graph.data import augmentation
from img2graph.data import images
from img2graph.data import photos
from img2graph.data import sources
from tests.data.photo_sets import trees


def make_folder(path, count=6):
  for i in range(count):
    trees.photo(path / f'{i}.png', level=10 * i + 10)
  return path


def first_epoch(source, batch_size=3):
  batches = source.iterate(seed=0, batch_size=batch_size)
  return [next(batches) for _ in range(source.size // batch_size)]


def test_batches_hold_every_photograph_once(tmp_path):
  source = data.build('photos', name='folder', dir=make_folder(tmp_path), side=8)
  assert (source.size, source.side, source.complete) == (6, 8, None)
  batches = first_epoch(source)
  assert batches[0]['image'].shape == (3, 8, 8, 3)
  assert batches[0]['image'].dtype == np.uint8
  assert set(batches[0]) == {'image'}
  levels = [level for b in batches for level in b['image'][:, 0, 0, 0].tolist()]
  assert sorted(levels) == [10, 20, 30, 40, 50, 60]


def test_a_set_may_lie_in_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(make_folder(tmp_path)))
  assert data.build('photos', name='folder', dir='~', side=8).size == 6


def test_parts_with_points_bring_them(tmp_path):
  trees.celeba(tmp_path)
  options = dict(name='celeba', dir=str(tmp_path), side=16)
  assert set(first_epoch(data.build('photos', **options))[0]) == {'image'}
  source = data.build('photos', **options, part='fit')
  [batch] = first_epoch(source, 2)
  shapes = {n: (v.shape, v.dtype) for n, v in batch.items()}
  assert shapes == {
    'image': ((2, 16, 16, 3), np.uint8),
    'points': ((2, 5, 2), np.float32),
    'visible': ((2, 5), np.float32),
    'scale': ((2,), np.float32),
  }
  # Image and points are of the same photograph: 2 or 7, told by the mouth.
  number = batch['image'][:, 0, 0, 0] // 10
  np.testing.assert_allclose(batch['points'][:, 3, 1], (31 + number) / 87.2, rtol=1e-5)


def test_every_set_is_known_and_says_what_is_missing(tmp_path):
  for name in set(photos.SETS) - {'folder'}:
    for part in ('train', 'fit', 'test'):
      with pytest.raises(ValueError, match='belongs at .*, but is not there'):
        photos.source(name=name, dir=tmp_path, part=part)


def test_only_training_changes_what_is_read(tmp_path):
  folder = make_folder(tmp_path)
  options = dict(name='folder', dir=folder, side=8)
  source = data.build('photos', **options, flip=True)
  assert source.complete is augmentation.flip_half
  turning = data.build('photos', **options, turn=30.0, zoom=(0.8, 1.2), shift=0.1)
  batch = first_epoch(turning)[0]
  assert turning.complete(jax.random.key(0), batch)['image'].dtype == np.float32
  # What is read is the same; the step alone changes it.
  plain = data.build('photos', name='folder', dir=folder, side=8)
  for a, b in zip(first_epoch(source), first_epoch(plain), strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])


def test_what_is_judged_is_all_there_before_anything_is_learned(tmp_path):
  trees.deepfashion(tmp_path / 'clothes')
  options = dict(name='deepfashion', dir=tmp_path / 'clothes', side=8)
  last = tmp_path / 'clothes/img/WOMEN/data_train/1.jpg'
  data.build('photos', **options, part='fit')
  last.unlink()
  with pytest.raises(ValueError, match=f'1 of 2 files .* not there; .*at {last}.$'):
    data.build('photos', **options, part='fit')
  assert data.build('photos', **options, part='train').size == 2  # Passed over.


@pytest.mark.parametrize(
  'name, file, count',
  [
    ('human36m', 'BackgroudMask/Walking 1.54138969/7.png', 6),
    ('human36m', 'Landmarks/Walking 1.54138969/7.mat', 6),
    ('human36m_background', 'Landmarks/Walking 1.54138969/7.mat', 4),
  ],
)
def test_what_lies_beside_photographs_is_there_too(tmp_path, name, file, count):
  trees.human36m(tmp_path)
  (tmp_path / 'S11' / file).unlink()
  words = f'1 of {count} files .*at {tmp_path}/S11/{file}'
  with pytest.raises(ValueError, match=words):
    data.build('photos', name=name, dir=tmp_path, part='test', side=8)


def test_kept_photographs_are_read_once(tmp_path):
  folder = make_folder(tmp_path)
  source = data.build('photos', name='folder', dir=folder, side=8, keep=True)
  before = first_epoch(source)
  for path in folder.glob('*.png'):
    path.unlink()
  again = first_epoch(source)
  np.testing.assert_array_equal(before[1]['image'], again[1]['image'])


def test_bad_files_are_skipped_in_training_alone(tmp_path, caplog):
  folder = make_folder(tmp_path, 3)
  (folder / '1.png').write_bytes(b'no image')
  options = dict(name='folder', dir=folder, side=8)
  with caplog.at_level(logging.WARNING):
    source = data.build('photos', **options)
    levels = {int(b['image'][0, 0, 0, 0]) for b in first_epoch(source, 1)}
  assert levels == {10, 30}  # The next takes the place of the bad one.
  assert caplog.text.count('skipped:') == 1 and '1.png' in caplog.text
  source = data.build('photos', **options, part='test')
  with pytest.raises(images.BadImage, match='1.png is not an image'):
    first_epoch(source, 1)
  for path in folder.glob('*.png'):
    path.write_bytes(b'no image')
  with pytest.raises(images.BadImage, match='none of the 3 photographs'):
    data.build('photos', **options)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(name='celebs'), "no set 'celebs'; there are celeba, "),
    (dict(part='val'), 'part must be one of train, fit, test; got .val'),
    (dict(side=0), 'side must be at least 1 pixel'),
    (dict(dir=''), 'data.dir must name the folder'),
  ],
)
def test_wrong_options_are_told(tmp_path, options, message):
  make_folder(tmp_path)
  with pytest.raises(ValueError, match=message):
    data.build('photos', **(dict(name='folder', dir=tmp_path) | options))


def test_bytes_become_floats_once():
  batch = {'image': np.array([[0, 51, 255]], np.uint8), 'other': 3}
  for made in (sources.as_float(batch), jax.jit(sources.as_float)(batch)):
    assert made['image'].dtype == np.float32 and made['other'] == 3
    np.testing.assert_allclose(made['image'], [[0, 0.2, 1]], rtol=1e-6)
  made = sources.as_float(batch)
  assert isinstance(made['image'], np.ndarray)
  assert sources.as_float(made) is made
