import shutil
import sys

import jax
import numpy as np
import pytest

from img2graph import data
from img2graph.data import shapes
from img2graph.data import simple_shapes_tfds

OPTIONS = dict(num_images=20, num_test_images=3, side=16, line_width=(1.0, 2.0))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def test_examples_are_those_of_the_generator(folder):
  source = data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)
  assert source.size == 20 and source.side == 16
  batch = next(source.iterate(seed=0, batch_size=20))
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
  drawn = jax.jit(
    lambda key: shapes.sample(
      key, simple_shapes_tfds._BATCH, side=16, line_width=(1.0, 2.0)
    )
  )(key)
  drawn = jax.tree.map(lambda a: np.asarray(a)[:20], drawn)
  order = [
    int(np.argmin(np.abs(drawn['graph'].nodes - nodes).sum(axis=(1, 2))))
    for nodes in batch['graph'].nodes
  ]
  assert sorted(order) == list(range(20)) != order
  np.testing.assert_allclose(batch['image'], drawn['image'][order], atol=0.51 / 255)
  for name in ('nodes', 'node_prob', 'edge_prob'):
    np.testing.assert_allclose(
      getattr(batch['graph'], name), getattr(drawn['graph'], name)[order], atol=1e-6
    )


def test_nothing_is_made_twice_and_the_splits_differ(folder, monkeypatch):
  data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)

  def refuse(self, *args):
    raise AssertionError('drawn again')

  monkeypatch.setattr(
    simple_shapes_tfds.SimpleShapes, '_generate_examples', refuse, raising=True
  )
  train = data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)
  test = data.build('tfds_simple_shapes', data_dir=folder, split='test', **OPTIONS)
  assert test.size == 3
  first = next(train.iterate(seed=0, batch_size=20))['graph'].nodes
  second = next(test.iterate(seed=0, batch_size=3))['graph'].nodes
  assert np.abs(first[:, None] - second[None]).sum(axis=(2, 3)).min() > 1e-3


def test_resuming_gives_the_same_bits(folder):
  source = data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)
  iterator = source.iterate(seed=5, batch_size=6)
  next(iterator)
  state = iterator.get_state()
  expected = [next(iterator) for _ in range(4)]
  resumed = source.iterate(seed=5, batch_size=6)
  resumed.set_state(state)
  for wanted in expected:
    jax.tree.map(np.testing.assert_array_equal, next(resumed), wanted)


def test_two_processes_may_make_it_at_once(tmp_path, monkeypatch):
  generate, running = simple_shapes_tfds.SimpleShapes._generate_examples, []

  def overtaken(self, *args):
    if not running:
      running.append('the other')
      running[0] = data.build('tfds_simple_shapes', data_dir=tmp_path, **OPTIONS)
    yield from generate(self, *args)

  monkeypatch.setattr(simple_shapes_tfds.SimpleShapes, '_generate_examples', overtaken)
  source = data.build('tfds_simple_shapes', data_dir=tmp_path, **OPTIONS)
  batches = [next(s.iterate(seed=0, batch_size=4)) for s in (source, running[0])]
  jax.tree.map(np.testing.assert_array_equal, *batches)


@pytest.mark.parametrize('how', ['cut', 'gone'])
def test_what_was_damaged_since_is_told(folder, tmp_path, how):
  data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)
  shutil.copytree(folder, tmp_path / 'copy')
  (path,) = (tmp_path / 'copy').glob('*/*/*/*-test.array_record*')
  if how == 'cut':
    path.write_bytes(path.read_bytes()[:30])
  else:
    path.unlink()
  options = dict(data_dir=tmp_path / 'copy', split='test', **OPTIONS)
  with pytest.raises(ValueError, match='remove that folder') as caught:
    data.build('tfds_simple_shapes', **options)
  assert str(path.parent) in str(caught.value)


def test_tensorflow_is_not_imported(folder):
  data.build('tfds_simple_shapes', data_dir=folder, **OPTIONS)
  assert 'tensorflow' not in sys.modules


def test_default_is_the_data_set_of_the_paper():
  config = simple_shapes_tfds.SimpleShapesConfig()
  assert (config.num_images, config.side) == (50_000, 128)
  assert config.shapes == ('line', 'triangle', 'rectangle')
  assert simple_shapes_tfds.SimpleShapes.name == 'simple_shapes'


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(split='validation'), 'split'),
    (dict(num_images=0), 'num_images'),
    (dict(data_seed=-1), 'seed'),
    (dict(side=0), 'side'),
    (dict(shapes=('circle',)), 'there is no shape'),
  ],
)
def test_wrong_options_are_named_before_anything_is_written(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    data.build('tfds_simple_shapes', data_dir=tmp_path, **options)
  assert not list(tmp_path.iterdir())


def test_data_dir_is_required():
  with pytest.raises(ValueError, match="needs the option 'data_dir'"):
    data.build('tfds_simple_shapes')


def test_too_much_for_one_split_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(simple_shapes_tfds, '_MOST_BYTES', 500)
  with pytest.raises(ValueError, match='fewer or smaller'):
    data.build('tfds_simple_shapes', data_dir=tmp_path, **OPTIONS)
