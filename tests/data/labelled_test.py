"""Tests of img2graph/data/labelled.py, on small data of the published layouts."""

import io
import pathlib
import tarfile

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from img2graph import data
from img2graph.data import labelled
from img2graph.data import labelled_tfds


def pictures(count, side=32, seed=0):
  # Smooth, so that JPEG keeps them.
  rng = np.random.default_rng(seed)
  corners = rng.integers(0, 256, (count, 2, 2, 3), np.uint8)
  return np.stack(
    [np.asarray(Image.fromarray(c).resize((side, side))) for c in corners]
  )


def records(images, *labels):
  planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  columns = [np.asarray(v, np.uint8)[:, None] for v in labels]
  return np.concatenate([*columns, planes], 1).tobytes()


@pytest.fixture
def cifar10(tmp_path):
  folder = tmp_path / 'cifar-10-batches-bin'
  folder.mkdir()
  images, labels = pictures(60), np.arange(60) % 10
  for i in range(5):
    part = slice(10 * i, 10 * i + 10)
    (folder / f'data_batch_{i + 1}.bin').write_bytes(
      records(images[part], labels[part])
    )
  (folder / 'test_batch.bin').write_bytes(records(images[50:], labels[50:]))
  return tmp_path, images, labels


def test_cifar10_as_published(cifar10):
  folder, images, labels = cifar10
  test = labelled.load('cifar10', folder, part='test')
  np.testing.assert_array_equal(test.images, images[50:])
  np.testing.assert_array_equal(test.labels, labels[50:])
  assert test.classes == 10 and test.labels.dtype == np.int32
  train = labelled.load('cifar10', folder / 'cifar-10-batches-bin', valid=0.0)
  np.testing.assert_array_equal(train.images, images[:50])


def test_a_packed_archive_is_read_as_it_is(cifar10, tmp_path_factory):
  folder, images, _ = cifar10
  packed = tmp_path_factory.mktemp('packed')
  with tarfile.open(packed / 'cifar-10-binary.tar.gz', 'w:gz') as tar:
    tar.add(folder / 'cifar-10-batches-bin', 'cifar-10-batches-bin')
  found = labelled.load('cifar10', packed, part='test')
  np.testing.assert_array_equal(found.images, images[50:])


def test_a_damaged_packed_archive_is_named(cifar10, tmp_path_factory):
  folder, _, _ = cifar10
  path = tmp_path_factory.mktemp('packed') / 'cifar-10-binary.tar.gz'
  with tarfile.open(path, 'w:gz') as tar:
    tar.add(folder / 'cifar-10-batches-bin', 'cifar-10-batches-bin')
  whole = path.read_bytes()
  half = len(whole) // 2
  damaged = [whole[:half], b'<html>there is no such file</html>']
  # What the inflater says of it depends on where it lies.
  for start in range(0, half, half // 40):
    damaged.append(whole[:start] + 200 * b'\xff' + whole[start + 200 :])
  for content in damaged:
    path.write_bytes(content)
    with pytest.raises(ValueError, match='is damaged, or lacks cifar-10-batches-bin/'):
      labelled.load('cifar10', path.parent)


def test_train_and_valid_share_the_published_part(cifar10):
  folder, images, _ = cifar10

  def numbers(part, **options):
    found = labelled.load('cifar10', folder, part=part, **options)
    return {
      i
      for i, image in enumerate(images)
      if (image == found.images).all((1, 2, 3)).any()
    }

  train, valid = numbers('train'), numbers('valid')
  assert len(valid) == 5 and train | valid == set(range(50)) and not train & valid
  assert numbers('valid') == valid != numbers('valid', seed=1)


def test_cifar100_has_fine_labels(tmp_path):
  images = pictures(4)
  folder = tmp_path / 'cifar-100-binary'
  folder.mkdir()
  (folder / 'train.bin').write_bytes(records(images, [1, 2, 3, 4], [99, 7, 0, 12]))
  found = labelled.load('cifar100', tmp_path, valid=0.0)
  np.testing.assert_array_equal(found.images, images)
  assert found.labels.tolist() == [99, 7, 0, 12] and found.classes == 100


@pytest.fixture
def tiny_imagenet(tmp_path):
  folder = tmp_path / 'tiny-imagenet-200'
  names, images = ['n02', 'n01'], pictures(5, side=64)
  places = [
    'train/n01/images/n01_0',
    'train/n01/images/n01_1',
    'train/n02/images/n02_0',
  ]
  places += ['val/images/val_0', 'val/images/val_1']
  for place, image in zip(places, images, strict=True):
    path = folder / f'{place}.JPEG'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, 'JPEG', quality=95)
  (folder / 'wnids.txt').write_text('\n'.join(names) + '\n')
  (folder / 'val/val_annotations.txt').write_text(
    'val_1.JPEG\tn01\t0\t0\t62\t62\nval_0.JPEG\tn02\t3\t4\t5\t6\n'
  )
  return folder, images


def test_tiny_imagenet_as_published(tiny_imagenet):
  folder, images = tiny_imagenet
  train = labelled.load('tiny_imagenet', folder.parent, valid=0.0)
  assert train.labels.tolist() == [0, 1, 1] and train.classes == 2
  assert abs(train.images.astype(int) - images[[2, 0, 1]]).mean() < 4
  test = labelled.load('tiny_imagenet', folder, part='test')
  assert test.labels.tolist() == [1, 0]
  assert abs(test.images.astype(int) - images[[4, 3]]).mean() < 4


def test_spaces_behind_the_names_of_tiny_imagenet_do_not_count(tiny_imagenet):
  folder, _ = tiny_imagenet
  (folder / 'wnids.txt').write_text('n02 \nn01\t\n')
  assert labelled.load('tiny_imagenet', folder, valid=0.0).labels.tolist() == [0, 1, 1]


def lose_images(folder):
  (folder / 'train/n01/images/n01_0.JPEG').unlink()
  (folder / 'train/n01/images/n01_1.JPEG').unlink()


def lose_rows(folder):
  (folder / 'val/val_annotations.txt').write_text('\n')


def garble_names(folder):
  (folder / 'wnids.txt').write_bytes(b'\xff\xfe')


def lose_names(folder):
  (folder / 'wnids.txt').write_text('')


@pytest.mark.parametrize(
  ('spoil', 'part', 'message'),
  [
    (lose_images, 'train', 'no images .*train/n01/images, a class .* 1 of 2 classes'),
    (lose_rows, 'test', 'val/val_annotations.txt is empty'),
    (lose_names, 'train', 'wnids.txt is empty'),
    (garble_names, 'train', 'wnids.txt cannot be read'),
  ],
)
def test_what_a_tiny_imagenet_lacks_is_named(tiny_imagenet, spoil, part, message):
  folder, _ = tiny_imagenet
  spoil(folder)
  with pytest.raises(ValueError, match=message):
    labelled.load('tiny_imagenet', folder, part=part)


@pytest.mark.parametrize('files', [False, True])
def test_an_archive_is_parted_by_shares(tmp_path, files):
  images, labels = pictures(40), np.arange(40, dtype=np.uint8) % 4
  arrays = {'images': images}
  if files:
    parts = []
    for image in images:
      buffer = io.BytesIO()
      Image.fromarray(image).save(buffer, 'PNG')
      parts.append(np.frombuffer(buffer.getvalue(), np.uint8))
    ends = np.cumsum([0, *map(len, parts)])
    arrays = {'data': np.concatenate(parts), 'offsets': ends}
  np.savez(tmp_path / 'a.npz', label=labels, **arrays)
  seen = []
  for part, count in (('train', 27), ('valid', 3), ('test', 10)):
    found = labelled.load('archive', tmp_path / 'a.npz', part=part, test=0.25)
    assert len(found.labels) == len(found.images) == count and found.classes == 4
    for image, label in zip(found.images, found.labels, strict=True):
      (i,) = np.flatnonzero((image == images).all((1, 2, 3)))
      assert labels[i] == label
      seen.append(i)
  assert sorted(seen) == list(range(40))


def test_negative_labels_are_refused(cifar10, tmp_path):
  folder, images, _ = cifar10
  np.savez(tmp_path / 'a.npz', images=images[:3], label=[0, -1, 1])
  with pytest.raises(ValueError, match=r'a.npz must count from 0; got -1'):
    labelled.load('archive', tmp_path / 'a.npz')
  options = dict(name='cifar10', folder=folder, data_dir=tmp_path / 'tfds')
  builder = labelled_tfds.Labelled(**options)
  builder._parts['test'].labels[4] = -1  # As sets say that a label is secret.
  builder.download_and_prepare()
  with pytest.raises(ValueError, match="split 'test' in .* got -1, which stands for"):
    labelled.load('tfds', builder.data_dir, part='test')


def test_a_prepared_folder_holds_what_it_was_prepared_from(cifar10, tmp_path):
  folder, _, _ = cifar10
  options = dict(name='cifar10', folder=folder, data_dir=tmp_path / 'tfds')
  builder = labelled_tfds.Labelled(**options)
  builder.download_and_prepare()
  for part in labelled.PARTS:
    expected = labelled.load('cifar10', folder, part=part)
    found = labelled.load('tfds', builder.data_dir, part=part)
    assert found.classes == 10
    order, wanted = (
      np.lexsort(x.images.reshape(len(x.images), -1).T) for x in (found, expected)
    )
    if part == 'test':  # The others are drawn from another order.
      np.testing.assert_array_equal(found.images[order], expected.images[wanted])
      np.testing.assert_array_equal(found.labels[order], expected.labels[wanted])
    assert len(found.labels) == len(expected.labels)
  with pytest.raises(ValueError, match='no dataset_info.json'):
    labelled.load('tfds', tmp_path)
  info = pathlib.Path(builder.data_dir) / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='is not of array_record files'):
    labelled.load('tfds', builder.data_dir)


class Other(labelled_tfds.Labelled):
  """The same in other colours, `mode`, and perhaps with numbers as labels."""

  mode, numbers = 'L', False

  def _info(self):
    channels = len(Image.new(self.mode, (1, 1)).getbands())
    tfds = labelled_tfds.tfds
    label = tfds.features.Scalar(np.int64)
    features = {
      'image': tfds.features.Image(shape=(32, 32, channels), encoding_format='png'),
      'label': label if self.numbers else tfds.features.ClassLabel(num_classes=10),
    }
    return self.dataset_info_from_configs(
      description='', features=tfds.features.FeaturesDict(features)
    )

  def _generate_examples(self, found):
    for i, (image, label) in enumerate(zip(found.images, found.labels, strict=True)):
      png = io.BytesIO()
      Image.fromarray(image).convert(self.mode).save(png, format='png')
      png.seek(0)
      yield i, {'image': png, 'label': int(label)}


def prepared(folder, tmp_path, kind=Other):
  builder = kind(name='cifar10', folder=folder, data_dir=tmp_path / 'tfds')
  builder.download_and_prepare()
  return pathlib.Path(builder.data_dir)


@pytest.mark.parametrize('mode', ['L', 'RGBA'])
def test_other_colours_of_a_prepared_folder_become_rgb(
  cifar10, tmp_path, monkeypatch, mode
):
  folder, images, labels = cifar10
  monkeypatch.setattr(Other, 'mode', mode)
  found = labelled.load('tfds', prepared(folder, tmp_path), part='test')
  expected = [
    np.asarray(Image.fromarray(i).convert(mode).convert('RGB')) for i in images
  ]
  assert found.images.shape == (10, 32, 32, 3) and found.images.dtype == np.uint8
  order = np.argsort(found.labels)  # Of the classes 0 to 9 one each.
  np.testing.assert_array_equal(found.images[order], expected[50:])


def test_labels_of_a_prepared_folder_must_be_classes(cifar10, tmp_path, monkeypatch):
  monkeypatch.setattr(Other, 'numbers', True)
  with pytest.raises(ValueError, match='should be a ClassLabel.*; it is a Scalar'):
    labelled.load('tfds', prepared(cifar10[0], tmp_path))


@pytest.mark.parametrize('name', ['*-test*', 'dataset_info.json'])
@pytest.mark.parametrize('how', ['cut', 'gone'])
def test_a_damaged_prepared_folder_is_told(cifar10, tmp_path, name, how):
  folder = prepared(cifar10[0], tmp_path)
  (path,) = folder.glob(name)
  if how == 'cut':
    path.write_bytes(path.read_bytes()[:30])
  else:
    path.unlink()
  with pytest.raises(ValueError) as caught:
    labelled.load('tfds', folder, part='test')
  assert str(folder) in str(caught.value) and '\n' not in str(caught.value)


def spoil_record(folder):
  path = folder / 'cifar-10-batches-bin/test_batch.bin'
  path.write_bytes(path.read_bytes()[:-1])


def spoil_label(folder):
  path = folder / 'cifar-10-batches-bin/test_batch.bin'
  path.write_bytes(b'\x0b' + path.read_bytes()[1:])


def spoil_file(folder):
  (folder / 'cifar-10-batches-bin/test_batch.bin').unlink()


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (spoil_record, 'is damaged: 30729 bytes'),
    (spoil_label, 'the label 11 is none of 10'),
    (spoil_file, 'unpack cifar-10-binary.tar.gz there'),
  ],
)
def test_what_is_missing_or_damaged_is_named(cifar10, spoil, message):
  folder, _, _ = cifar10
  spoil(folder)
  with pytest.raises(ValueError, match=message):
    labelled.load('cifar10', folder, part='test')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(name='mnist'), "got 'mnist'"),
    (dict(part='dev'), "got 'dev'"),
    (dict(valid=1.0), 'valid must be a share'),
    (dict(seed=-1), 'seed of the parts must not be negative; got -1'),
    (dict(folder='/nowhere'), 'there is no /nowhere; it should hold cifar-10'),
  ],
)
def test_wrong_options_are_named(options, message):
  options = {'name': 'cifar10', 'folder': '.'} | options
  with pytest.raises(ValueError, match=message):
    labelled.load(**options)


@pytest.fixture
def archive(tmp_path):
  images = pictures(20, side=8)
  path = tmp_path / 'a.npz'
  np.savez(path, images=images, label=np.arange(20))
  return path, images


def open_source(path, **options):
  return data.build(
    'labelled', name='archive', dir=str(path), test=0.0, valid=0.0, **options
  )


def test_an_epoch_has_every_image_once_and_the_next_in_another_order(archive):
  source = open_source(archive[0])
  batches = source.iterate(seed=3, batch_size=5)
  first, second = (
    np.concatenate([next(batches)['index'] for _ in range(4)]) for _ in '12'
  )
  assert sorted(first) == sorted(second) == list(range(20))
  assert first.tolist() != second.tolist()
  other = next(source.iterate(seed=4, batch_size=20))['index']
  assert other.tolist() != first.tolist()


def test_processes_share_batches_and_positions_are_gone_back_to(archive):
  source = open_source(archive[0])
  whole = source.iterate(seed=0, batch_size=8)
  parts = [
    source.iterate(seed=0, batch_size=8, process_index=i, process_count=2)
    for i in (0, 1)
  ]
  for _ in range(4):  # Over the end of an epoch.
    state = whole.get_state()
    batch = next(whole)['index']
    np.testing.assert_array_equal(
      batch, np.concatenate([next(p)['index'] for p in parts])
    )
  again = source.iterate(seed=0, batch_size=8)
  again.set_state(state)
  np.testing.assert_array_equal(next(again)['index'], batch)


def test_batches_are_the_images_moved(archive):
  path, images = archive
  index = np.arange(20)
  plain = open_source(path, flip=False, crop=0)
  found = plain.complete(jax.random.key(0), {'index': index}, plain.resident)
  np.testing.assert_array_equal(found['image'], images)
  np.testing.assert_array_equal(found['label'], np.arange(20))
  moving = open_source(path, crop=1)
  complete = jax.jit(moving.complete)
  found = complete(jax.random.key(0), {'index': index}, moving.resident)['image']
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  seen = set()
  for i in range(20):
    moves = {
      (flip, dy, dx)
      for flip in (1, -1)
      for dy in range(3)
      for dx in range(3)
      # Flipped before it is padded.
      if (padded[i][:, ::flip][dy : dy + 8, dx : dx + 8] == found[i]).all()
    }
    assert moves
    seen |= moves
  assert len(seen) > 8
  other = complete(jax.random.key(1), {'index': index}, moving.resident)['image']
  assert (np.asarray(other) != found).any()


def test_what_is_sent_batch_by_batch_is_what_devices_pick(archive):
  path, _ = archive
  kept = labelled.source(name='archive', dir=path, crop=2)
  sent = labelled.source(name='archive', dir=path, crop=2, on_device=False)
  assert sent.resident is None and kept.resident is not None
  numbers, batches = (s.iterate(seed=3, batch_size=8) for s in (kept, sent))
  for step in range(4):
    key = jax.random.key(step)
    expected = kept.complete(key, next(numbers), kept.resident)
    chex.assert_trees_all_equal(sent.complete(key, next(batches)), expected)
  state = batches.get_state()
  after = next(batches)
  again = sent.iterate(seed=3, batch_size=8)
  again.set_state(state)
  chex.assert_trees_all_equal(next(again), after)


def test_sets_that_are_too_large_are_sent(archive, monkeypatch):
  path, _ = archive
  whole = labelled.source(name='archive', dir=path).whole
  size = sum(values.nbytes for values in whole.values())

  class Device:
    def __init__(self, limit):
      self.memory_stats = lambda: limit and {'bytes_limit': limit}

  for limits, kept in (
    ([None, None], True),
    ([2 * size, 2 * size], True),
    ([4 * size, 2 * size - 1], False),
  ):
    devices = [Device(limit) for limit in limits]
    monkeypatch.setattr(jax, 'local_devices', lambda devices=devices: devices)
    source = labelled.source(name='archive', dir=path)
    assert (source.resident is not None) == kept


def test_a_part_of_the_images(archive):
  source = open_source(archive[0], most=7)
  assert source.size == 7 == len(source.resident['label'])
  assert len(set(source.resident['label'].tolist())) == 7
