import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import img2graph
from img2graph import weights
from tests import damage
from tests.training import toy


@pytest.fixture(autouse=True)
def toy_method(monkeypatch):
  toy.register(monkeypatch)


def make(path, **changes):
  config = toy.get_config()
  config.method.update(changes)
  method = toy.build_method(
    train_steps=config.train_steps, precision='float32', capacity=4, width=3
  )
  batch = {'image': jnp.zeros((1, 16, 16, 1))}
  variables = method.init(jax.random.key(0), batch)
  weights.save(path, variables, config=config, card={'steps': 20})
  return method, variables


def edit_meta(path, **changes):
  with np.load(path) as file:
    arrays = dict(file)
  meta = json.loads(str(arrays['__meta__'])) | changes
  arrays['__meta__'] = np.array(json.dumps(meta))
  np.savez(path, **arrays)


def test_load_gives_back_what_save_took(tmp_path):
  path = tmp_path / 'w.npz'
  _, variables = make(path)
  found, config, card = weights.load(path)
  chex.assert_trees_all_equal(found, jax.device_get(variables))
  assert config['method'] == toy.get_config().method.to_dict()
  assert config['data']['source'] == 'toy_device' and config['train_steps'] == 20
  assert card == {'steps': 20}


def test_lists_of_the_config_come_back_as_tuples(tmp_path):
  path = tmp_path / 'w.npz'
  config = toy.get_config().to_dict()
  config['method'] = {'name': 'toy', 'sides': (16, (32,)), 'nested': {'a': (1,)}}
  weights.save(path, {'params': {'w': np.zeros(2)}}, config=config)
  assert weights.load(path)[1]['method'] == config['method']


def test_the_file_is_plain_arrays_without_pickle(tmp_path):
  path = tmp_path / 'w.npz'
  make(path)
  with np.load(path, allow_pickle=False) as file:
    assert file['params/decoder/bias'].shape == (256,)
    assert json.loads(str(file['__meta__']))['format'] == 'img2graph-weights/1'


def test_equal_weights_make_equal_files(tmp_path):
  make(tmp_path / 'a.npz')
  make(tmp_path / 'b.npz')
  assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()


def test_variables_for_a_method_of_ones_own_must_fit_it(tmp_path):
  path = tmp_path / 'w.npz'
  method, variables = make(path)
  found = weights.load_variables(path, method)
  chex.assert_trees_all_equal(found, jax.device_get(variables))
  wider = toy.build_method(train_steps=9, precision='float32', capacity=4, width=5)
  with pytest.raises(ValueError, match=r'do not fit this method: params/.* wanted \('):
    weights.load_variables(path, wider)


def test_the_method_that_is_loaded_predicts_as_the_one_that_was_saved(tmp_path):
  path = tmp_path / 'w.npz'
  method, variables = make(path)
  loaded, found, meta = weights.load_method(path)
  images = jnp.zeros((2, 16, 16, 1))
  chex.assert_trees_all_equal(
    loaded.predict(found, images), method.predict(variables, images)
  )
  assert meta['version'] == img2graph.__version__


def cut(path):
  path.write_bytes(path.read_bytes()[:2000])


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


@pytest.mark.parametrize(
  'spoil, words',
  [
    (lambda p: p.unlink(), 'there is no weights file'),
    (lambda p: (p.unlink(), p.mkdir()), 'no weights.npz in the folder'),
    (lambda p: p.write_bytes(b''), 'damaged, or no weights file'),
    (lambda p: p.write_bytes(b'%PDF-1.4 nothing'), 'damaged, or no weights file'),
    (cut, 'damaged, or no weights file'),
    (flip, 'damaged, or no weights file'),
    *((spoil, 'damaged, or no weights file') for spoil in damage.WAYS),
    (lambda p: np.savez(p, __meta__=np.array('[' * 100_000)), 'not a weights file'),
    (lambda p: np.savez(p, a=np.zeros(3)), 'not a weights file of img2graph'),
    (lambda p: np.savez(p, __meta__=np.array('[1]')), 'not a weights file'),
    (lambda p: np.save(p.open('wb'), np.zeros(3)), 'not a weights file'),
    (lambda p: edit_meta(p, format='other/1'), 'not a weights file'),
    (
      lambda p: edit_meta(p, format='img2graph-weights/2'),
      "format 'img2graph-weights/2'; this version of img2graph reads",
    ),
    (lambda p: edit_meta(p, method={'name': 'gone'}), "no method named 'gone'"),
    (
      lambda p: edit_meta(p, method={'name': 'toy', 'colour': 1}),
      'cannot build their method',
    ),
    (
      lambda p: edit_meta(
        p, version='9.9', method={'name': 'toy', 'capacity': 4, 'width': 5}
      ),
      r'img2graph 9.9 and do not fit .* is \(3, 256\); wanted \(5, 256\)',
    ),
  ],
)
def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path, spoil, words):
  path = tmp_path / 'w.npz'
  make(path)
  spoil(path)
  with pytest.raises(ValueError, match=words) as caught:
    weights.load_method(path)
  message = str(caught.value)
  assert '\n' not in message and str(path) in message and message.endswith('.')


def test_the_shipped_weights_lie_in_the_package():
  expected = pathlib.Path(img2graph.__file__).parent / 'pretrained/line_drawings.npz'
  assert weights.shipped() == expected


def test_weights_are_found_by_name_and_by_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert weights.find('shipped') == weights.shipped()
  assert weights.find(pathlib.Path('shipped')) == weights.shipped()
  named = weights.find('line_drawings')
  assert named.name == 'line_drawings.npz' and named.exists()
  assert weights.find('runs/line_drawings') == pathlib.Path('runs/line_drawings')
  assert weights.find('other') == pathlib.Path('other')
  (tmp_path / 'run').mkdir()
  assert weights.find('run') == pathlib.Path('run')
  (tmp_path / 'run/weights.npz').touch()
  assert weights.find('run') == pathlib.Path('run/weights.npz')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert weights.find('~/run') == tmp_path / 'run/weights.npz'
  (tmp_path / 'line_drawings').touch()  # A file of the user goes before ours.
  assert weights.find('line_drawings') == pathlib.Path('line_drawings')
