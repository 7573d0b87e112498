import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from img2graph import data
from img2graph.data import images

COUNT = 12


def arrays(count=COUNT):
  """Photographs of one grey level each, with two points and an animal in threes."""
  number = np.arange(count)
  points = np.stack([number / 16, 1 - number / 16], axis=-1)[:, None].repeat(2, axis=1)
  points[0, 1] = -1
  return dict(
    images=np.broadcast_to((10 * number)[:, None, None, None], (count, 8, 8, 3)).astype(
      np.uint8
    ),
    points=points.astype(np.float32),
    points_ok=number != 5,
    animal=number // 3,
    label=number % 2,
    eyes=(number + 1) / 20,
  )


def write(path, **changes):
  values = arrays() | changes
  np.savez(path, **{n: v for n, v in values.items() if v is not None})
  path.with_suffix('.json').write_text(json.dumps({'classes': ['cat', 'dog']}))
  return path


@pytest.fixture
def path(tmp_path):
  return write(tmp_path / 'a.npz')


def read(path, **options):
  """All examples of a part, by number."""
  source = data.build('photo_archive', path=str(path), **(dict(side=8) | options))
  batch = source.whole
  order = np.argsort(batch['image'][:, 0, 0, 0])
  return {n: v[order] for n, v in batch.items()}


def numbers(path, **options):
  return (read(path, **options)['image'][:, 0, 0, 0] // 10).tolist()


def test_an_archive_may_lie_in_the_home_folder(path, monkeypatch):
  monkeypatch.setenv('HOME', str(path.parent))
  assert numbers('~/a.npz', part='all', classes=('cat',)) == list(range(0, COUNT, 2))


def test_points_are_read_with_their_images(path):
  batch = read(path, part='all', scale='eyes')
  assert numbers(path, part='all') == list(range(COUNT))
  np.testing.assert_allclose(batch['points'][3, 0], [2 * 3 / 16 - 1, 1 - 2 * 3 / 16])
  visible = np.ones((COUNT, 2))
  visible[5] = visible[0, 1] = 0
  np.testing.assert_array_equal(batch['visible'], visible)
  assert batch['scale'][3] == pytest.approx(2 * 4 / 20)
  assert read(path, part='all')['scale'].tolist() == [2] * COUNT
  assert {n: v.dtype.name for n, v in batch.items()} == {
    'image': 'uint8',
    'points': 'float32',
    'visible': 'float32',
    'scale': 'float32',
  }


def test_a_point_that_is_no_number_is_none(path):
  points = arrays()['points']
  points[3, 1] = np.nan
  batch = read(write(path, points=points), part='all')
  assert batch['visible'][3].tolist() == [1, 0]
  assert np.isfinite(batch['points']).all()


def test_parts_share_no_group_and_training_sees_no_point(path):
  parts = {
    part: numbers(path, part=part, split_by='animal', fraction=0.3)
    for part in ('train', 'fit', 'test')
  }
  animals = {part: {n // 3 for n in found} for part, found in parts.items()}
  assert len(animals['test']) == 1 and not animals['test'] & animals['train']
  seen = set(parts['train']) | set(parts['test'])
  assert seen | {5} == set(range(COUNT))
  # Image 5 has no points: it may be learned from, but not fitted on.
  assert set(parts['fit']) == set(parts['train']) - {5}
  assert set(read(path, part='train')) == {'image'}
  again = numbers(path, part='test', split_by='animal', fraction=0.3)
  assert again == parts['test']
  first, other = (numbers(path, part='test', seed=seed) for seed in (0, 1))
  assert len(first) == len(other) == 2 and first != other


def test_classes_are_chosen_by_name_or_number(path):
  odd = [1, 3, 5, 7, 9, 11]
  assert numbers(path, part='all', classes=(1,)) == odd
  parts = [numbers(path, part=p, classes=('dog',)) for p in ('train', 'test')]
  assert sorted(sum(parts, [])) == odd


def test_files_end_to_end_are_decoded_and_stretched(tmp_path):
  files = []
  for level in (10, 200, 100):
    buffer = io.BytesIO()
    Image.new('L', (12, 9), level).save(buffer, format='JPEG')
    files.append(buffer.getvalue())
  path = tmp_path / 'b.npz'
  offsets = np.cumsum([0, *map(len, files)])
  np.savez(path, data=np.frombuffer(b''.join(files), np.uint8), offsets=offsets)
  batch = read(path, part='all', side=5)
  assert set(batch) == {'image'} and batch['image'].shape == (3, 5, 5, 3)
  np.testing.assert_allclose(batch['image'][:, 2, 2, 0], [10, 100, 200], atol=2)
  broken = np.frombuffer(b'no' * (offsets[-1] // 2 + 1), np.uint8)[: offsets[-1]]
  np.savez(path, data=broken, offsets=offsets)
  with pytest.raises(ValueError, match='b.npz: image 0 is damaged'):
    read(path, part='all')


@pytest.mark.parametrize('points', [None, np.full((1, 1, 2), 0.5)])
def test_files_are_turned_as_in_prediction_unless_they_have_points(tmp_path, points):
  upright = np.zeros((8, 8, 3), np.uint8)
  upright[:, 4:] = 200
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned to the right.
  file = tmp_path / 'a.png'
  Image.fromarray(upright).save(file, exif=exif)
  raw = np.frombuffer(file.read_bytes(), np.uint8)
  values = dict(data=raw, offsets=[0, len(raw)], points=points)
  np.savez(tmp_path / 'a.npz', **{n: v for n, v in values.items() if v is not None})
  (found,) = read(tmp_path / 'a.npz', part='all')['image']
  seen = np.round(255 * images.read_photograph(file)).astype(np.uint8)
  assert not np.array_equal(seen, upright)
  np.testing.assert_array_equal(found, seen if points is None else upright)


def test_grey_images_get_three_channels(tmp_path):
  path = write(tmp_path / 'a.npz', images=arrays()['images'][..., 0])
  assert read(path, part='all')['image'].shape == (COUNT, 8, 8, 3)


def test_mirroring_is_left_to_the_step(path):
  key, batch = jax.random.key(0), read(path, part='all')
  batch['image'] = batch['image'] + np.arange(8, dtype=np.float32)[None, None, :, None]
  options = dict(path=str(path), side=8, part='all', on_device=False)
  assert data.build('photo_archive', **options).complete is None
  found = data.build('photo_archive', flip=True, **options).complete(key, batch)
  turned = (found['image'] == batch['image'][:, :, ::-1]).all((1, 2, 3))
  straight = (found['image'] == batch['image']).all((1, 2, 3))
  assert (turned != straight).all() and 0 < turned.sum() < COUNT
  np.testing.assert_array_equal(
    found['points'][..., 0], np.where(turned[:, None], -1, 1) * batch['points'][..., 0]
  )


@pytest.mark.parametrize('flip', (False, True))
def test_batches_on_the_device_are_those_of_the_host(path, flip):
  made = []
  for on_device in (True, False):
    source = data.build(
      'photo_archive',
      path=str(path),
      side=8,
      part='fit',
      flip=flip,
      on_device=on_device,
    )
    assert (source.resident is not None) == on_device
    batches = source.iterate(seed=3, batch_size=8)
    kept = () if source.resident is None else (source.resident,)
    complete = source.complete or (lambda key, batch: batch)
    made.append([complete(jax.random.key(i), next(batches), *kept) for i in range(3)])
  jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize(
  'changes, scale, message',
  [
    # In bytes 2 x - 1 of 0 would be 255.
    (dict(points=np.zeros((COUNT, 2, 2), np.uint8)), '', 'floating-point .* uint8'),
    (dict(points=np.full((COUNT, 2, 2), '0.5')), '', 'floating-point .* <U3'),
    (dict(points_ok=np.full(COUNT, 'no')), '', "'points_ok' must be of numbers"),
    (dict(name=np.full(COUNT, 'Ann')), 'name', "'name' must be of numbers; got <U3"),
  ],
)
def test_arrays_of_another_kind_are_told(tmp_path, changes, scale, message):
  path = write(tmp_path / 'a.npz', **changes)
  with pytest.raises(ValueError, match=message):
    read(path, part='fit', scale=scale)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(part='val'), 'part must be one of train, fit, test, all'),
    (dict(side=0), 'side must be at least 1'),
    (dict(path=''), 'data.path must name the archive'),
    (dict(path='nowhere.npz'), 'nowhere.npz: there is no such archive of photographs'),
    (dict(split_by='bee'), "no field 'bee' .* it has points_ok, animal, label, eyes"),
    (dict(split_by='points'), "no field 'points' with one value"),
    (dict(fraction=1.0), 'fraction must be between 0 and 1'),
    (dict(classes=('cow',)), "no class 'cow'; it has cat, dog"),
    (dict(classes='cat'), "classes must be several names or numbers; got 'cat'"),
    (dict(classes=1), 'classes must be several names or numbers; got 1'),
    (dict(classes=(7,)), r'no image of the classes \[7\]'),
    (dict(classes=('cat', 7, 1)), r'no image of the classes \[7\]'),
    (dict(part='fit', scale='label'), "field 'label' must be above 0"),
  ],
)
def test_wrong_options_are_told_in_one_sentence(path, options, message):
  with pytest.raises(ValueError, match=message):
    data.build('photo_archive', **(dict(path=str(path)) | options))


def test_a_description_without_a_list_of_classes_is_told(path):
  path.with_suffix('.json').write_text('{"classes": 3}')
  with pytest.raises(ValueError, match="a.json: 'classes' must be a list .*; got 3"):
    data.build('photo_archive', path=str(path), classes=('cat',))


def test_what_cannot_be_split_is_named(tmp_path):
  path = write(tmp_path / 'a.npz', animal=np.zeros(12, int))
  with pytest.raises(ValueError, match="the field 'animal' of .*a.npz has 1 groups"):
    data.build('photo_archive', path=str(path), split_by='animal')


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      dict(images=np.zeros((12, 8, 8))),
      'images must be .* uint8, not empty; got float',
    ),
    (dict(images=None), "must have 'images', or 'data' and 'offsets'"),
    (dict(points=np.zeros((11, 2, 2))), r'points must be \[12, M, 2\]'),
    (
      dict(points=np.full((12, 2, 2), 8.0)),
      'image 0: a point lies far outside; x and y must be in',
    ),
    (dict(points_ok=np.zeros(12, bool)), "no image for the part 'fit'"),
    (
      dict(images=None, data=np.zeros(9, np.uint8), offsets=np.array([0, 5])),
      'offsets must ascend from 0 to 9',
    ),
  ],
)
def test_wrong_archives_are_told_in_one_sentence(tmp_path, changes, message):
  path = write(tmp_path / 'a.npz', **changes)
  with pytest.raises(ValueError, match=message) as error:
    data.build('photo_archive', path=str(path), part='fit')
  assert str(path) in str(error.value)
