import chex
import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from img2graph import data
from img2graph.data import image_folder
from img2graph.data import images
from img2graph.data import sources


def make_folder(path, count=10):
  """Images with one white row each: image i is known by the row."""
  path.mkdir(exist_ok=True)
  for i in range(count):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[i] = 255
    Image.fromarray(pixels).save(path / f'{i:02}.png')
  return path


def rows(batch):
  """Which images a batch holds."""
  return batch['image'][:, :, 5, 0].argmax(axis=-1).tolist()


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def test_batches_hold_every_image_once_per_epoch(tmp_path):
  source = data.build('image_folder', dir=make_folder(tmp_path / 'a'), side=16)
  assert source.size == 10 and source.side == 16
  batches = take(source.iterate(seed=0, batch_size=5), 4)
  assert batches[0]['image'].shape == (5, 16, 16, 1)
  assert batches[0]['image'].dtype == np.float32
  seen = [row for batch in batches for row in rows(batch)]
  assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
  assert seen[:10] != seen[10:]


def test_the_seed_alone_decides_the_order(tmp_path):
  source = data.build('image_folder', dir=make_folder(tmp_path / 'a'), side=16)
  first, same, other = (
    [rows(b) for b in take(source.iterate(seed=s, batch_size=4), 5)] for s in (1, 1, 2)
  )
  assert first == same != other


@pytest.mark.parametrize('num_before', [0, 1, 4])
def test_resuming_gives_the_same_bits(tmp_path, num_before):
  source = data.build(
    'image_folder',
    dir=make_folder(tmp_path / 'a'),
    side=12,
    flip=True,
    rotate=True,
    zoom=(0.8, 1.2),
    shift=0.1,
  )
  iterator = source.iterate(seed=3, batch_size=4)
  take(iterator, num_before)
  state = iterator.get_state()
  assert isinstance(state, bytes)
  expected = take(iterator, 4)
  resumed = source.iterate(seed=3, batch_size=4)
  resumed.set_state(state)
  for actual, wanted in zip(take(resumed, 4), expected, strict=True):
    np.testing.assert_array_equal(actual['image'], wanted['image'])


def test_processes_see_the_slices_of_one_batch(tmp_path):
  source = data.build(
    'image_folder', dir=make_folder(tmp_path / 'a'), side=16, shift=0.05
  )
  whole = take(source.iterate(seed=0, batch_size=4), 3)
  parts = [
    take(source.iterate(seed=0, batch_size=4, process_index=p, process_count=2), 3)
    for p in range(2)
  ]
  for batch, first, second in zip(whole, *parts, strict=True):
    joined = np.concatenate([first['image'], second['image']])
    np.testing.assert_array_equal(joined, batch['image'])


def test_augmentation_flips_turns_scales_and_shifts(tmp_path):
  folder = tmp_path / 'a'
  folder.mkdir()
  pixels = np.zeros((32, 32), np.uint8)
  pixels[4:8, 8:28] = 255  # twenty wide, four high, off the middle
  Image.fromarray(pixels).save(folder / 'a.png')

  def draw(**options):
    source = data.build('image_folder', dir=folder, side=32, **options)
    return next(source.iterate(seed=0, batch_size=32))['image'][..., 0]

  plain = pixels / 255
  flipped = draw(flip=True)
  assert all(
    np.array_equal(x, plain) or np.array_equal(x, plain[:, ::-1]) for x in flipped
  )
  assert len({x.tobytes() for x in flipped}) == 2
  turned = {x.tobytes() for x in draw(rotate=True)}
  assert turned == {np.rot90(plain, k).astype(np.float32).tobytes() for k in range(4)}
  small = draw(zoom=0.5)
  np.testing.assert_allclose(small.sum(axis=(1, 2)), 20.0, rtol=0.05)
  # The middle stays: (18, 6) lies at (16 + 2 / 2, 16 - 10 / 2).
  weights = small[0] / small[0].sum()
  centre = np.arange(32) + 0.5
  np.testing.assert_allclose(weights.sum(0) @ centre, 17, atol=0.1)
  np.testing.assert_allclose(weights.sum(1) @ centre, 11, atol=0.1)
  moved = draw(shift=0.1)
  weights = moved / moved.sum(axis=(1, 2), keepdims=True)
  places = weights.sum(1) @ centre
  assert np.ptp(places) > 2 and np.abs(places - 18).max() <= 3.3


def test_generated_drawings_join_the_batch(tmp_path, monkeypatch):
  asked = {}

  def build(**options):
    def sample(key, batch_size):
      drawn = jax.random.uniform(key, (batch_size, 16, 16, 1))
      return {'image': drawn, 'target': drawn / 2, 'graph': 'not for training'}

    asked.update(options)
    return sources.DeviceSource(sample=sample, side=16)

  folder = make_folder(tmp_path / 'a')
  monkeypatch.setattr(data, 'build', build)
  source = image_folder.source(
    dir=folder, side=16, rehearse=2, generated=dict(source='any', noise=0.2)
  )
  assert asked == dict(source='any', side=16, noise=0.2)
  batch = next(source.iterate(seed=0, batch_size=3))
  assert set(batch) == {'image'} and len(batch['image']) == 3
  whole = source.complete(jax.random.key(0), batch)
  assert set(whole) == {'image', 'target'}  # No graph: none may be learned from.
  drawn = jax.random.uniform(jax.random.key(0), (6, 16, 16, 1))
  expected = np.concatenate([batch['image'], drawn])
  np.testing.assert_allclose(whole['image'], expected)
  expected = np.concatenate([batch['image'], drawn / 2])
  np.testing.assert_allclose(whole['target'], expected)


def test_lines_of_a_folder_may_be_thinned_for_the_target(tmp_path):
  folder = tmp_path / 'a'
  folder.mkdir()
  pixels = np.zeros((32, 32), np.uint8)
  pixels[10:17, 4:28] = 255  # A line of seven pixels.
  Image.fromarray(pixels).save(folder / 'a.png')
  source = data.build('image_folder', dir=folder, side=32, target_width=2.0)
  batch = next(source.iterate(seed=0, batch_size=2))
  whole = jax.jit(source.complete)(jax.random.key(0), batch)
  np.testing.assert_array_equal(whole['image'], batch['image'])
  column = np.asarray(whole['target'])[0, :, 16, 0]
  # Two pixels of 64 are one of 32.
  np.testing.assert_array_equal(column, np.arange(32) == 13)
  chex.assert_trees_all_equal(source.with_targets(batch), whole)


def test_a_folder_rehearses_only_when_asked_to(tmp_path):
  source = data.build('image_folder', dir=make_folder(tmp_path / 'a'), side=16)
  assert source.complete is None and source.with_targets is None


def test_bad_files_are_skipped_with_one_warning_each(tmp_path, caplog):
  folder = make_folder(tmp_path / 'a', count=4)
  (folder / '01.png').write_bytes(b'broken')
  (folder / '99.png').write_bytes(b'')
  source = data.build('image_folder', dir=folder, side=16)
  with caplog.at_level('WARNING'):
    batches = take(source.iterate(seed=0, batch_size=5), 4)
  assert {row for batch in batches for row in rows(batch)} == {0, 2, 3}
  skipped = [r.getMessage() for r in caplog.records if 'skipped' in r.getMessage()]
  assert len(skipped) == 2
  assert any('01.png' in line for line in skipped)


def test_folder_without_a_good_file_is_refused(tmp_path):
  (tmp_path / 'a.png').write_bytes(b'broken')
  with pytest.raises(images.BadImage, match='none of the 1 image files'):
    data.build('image_folder', dir=tmp_path)
  with pytest.raises(images.BadImage, match='no folder'):
    data.build('image_folder', dir=tmp_path / 'missing')
  with pytest.raises(ValueError, match='must name the folder'):
    data.build('image_folder', dir='')


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(side=0), 'side'),
    (dict(polarity='up'), 'polarity'),
    (dict(zoom=0), 'zoom'),
    (dict(shift=-1), 'shift'),
    (dict(target_width=0), 'target_width'),
    (dict(target_width=(1, 2)), 'target_width must be a number'),
    (dict(rehearse=-1), 'rehearse must be'),
    (dict(rehearse=0.5), 'rehearse must be'),
    (dict(rehearse=1, generated=dict(source='shapes', colour=3)), 'colour'),
    (dict(rehearse=1, generated=dict(source='image_folder', dir='.')), 'that draws'),
    (dict(rehearse=1, generated=dict(noise=0.1)), "with 'source'"),
    (dict(rehearse=1, generated='strokes'), "with 'source'"),
    (dict(rehearse=1, generated=dict(source='shapes', side=32)), "without 'side'"),
    (dict(rehearse=1, generated=dict(source='figures')), 'of one channel'),
  ],
)
def test_wrong_options_are_named(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    data.build('image_folder', dir=make_folder(tmp_path / 'a', 1), **options)


def test_wrong_batches_are_named(tmp_path):
  source = data.build('image_folder', dir=make_folder(tmp_path / 'a', 2))
  with pytest.raises(ValueError, match='multiple of the number of processes'):
    source.iterate(seed=0, batch_size=3, process_count=2)
  with pytest.raises(ValueError, match='process_index'):
    source.iterate(seed=0, batch_size=2, process_index=2, process_count=2)
  with pytest.raises(ValueError, match='seed'):
    source.iterate(seed=-1, batch_size=2)


def test_worker_processes_need_parsed_flags(tmp_path, monkeypatch):
  folder = make_folder(tmp_path / 'a', 2)
  source = data.build('image_folder', dir=folder, worker_count=1)
  monkeypatch.setattr(flags, 'FLAGS', flags.FlagValues())
  with pytest.raises(ValueError, match='absl.app.run'):
    source.iterate(seed=0, batch_size=2)
