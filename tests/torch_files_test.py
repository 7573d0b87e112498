"""`.pth` files of both layouts, made here without PyTorch, and files that are none."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from img2graph import torch_files


class Storage:
  """Stands in for a torch storage: numbers under a key."""

  def __init__(self, key, numbers):
    self.key, self.numbers = key, numbers


class Tensor:
  """Pickled as torch does: a call of its function that rebuilds tensors."""

  def __init__(self, storage, offset, shape, stride):
    self.arguments = (storage, offset, shape, stride, False, collections.OrderedDict())

  def __reduce__(self):
    return sys.modules['torch._utils']._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
  def persistent_id(self, value):
    if not isinstance(value, Storage):
      return None
    kind = sys.modules['torch'].FloatStorage
    return ('storage', kind, value.key, 'cpu', len(value.numbers))


@pytest.fixture(autouse=True)
def torch(monkeypatch):
  """Modules that give names to pickles."""
  module, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')

  def _rebuild_tensor_v2():
    raise AssertionError('never called')

  _rebuild_tensor_v2.__module__ = 'torch._utils'
  _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
  utils._rebuild_tensor_v2 = _rebuild_tensor_v2
  module.FloatStorage = type('FloatStorage', (), {'__module__': 'torch'})
  module._utils = utils
  monkeypatch.setitem(sys.modules, 'torch', module)
  monkeypatch.setitem(sys.modules, 'torch._utils', utils)


def pickled(value):
  buffer = io.BytesIO()
  Pickler(buffer, protocol=2).dump(value)
  return buffer.getvalue()


def state_of(arrays, order=None):
  """A state dict of stand-ins, and its storages."""
  storages = [
    Storage(str(i), np.ravel(a).astype('<f4')) for i, a in enumerate(arrays.values())
  ]
  state = collections.OrderedDict()
  for (name, array), storage in zip(arrays.items(), storages, strict=True):
    stride = np.array(array.strides) // array.itemsize
    state[name] = Tensor(storage, 0, array.shape, tuple(stride.tolist()))
  state._metadata = {'': {'version': 1}}
  return state, storages


def write_zip(path, state, storages):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('net/data.pkl', pickled(state))
    archive.writestr('net/byteorder', 'little')
    for storage in storages:
      archive.writestr(f'net/data/{storage.key}', storage.numbers.tobytes())


def write_row(path, state, storages):
  parts = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, state]
  data = b''.join(pickled(part) for part in parts)
  # In an order of its own.
  storages = storages[::-1]
  data += pickled([storage.key for storage in storages])
  for storage in storages:
    data += struct.pack('<q', len(storage.numbers)) + storage.numbers.tobytes()
  path.write_bytes(data)


ARRAYS = {
  'features.0.weight': np.random.default_rng(0).random((4, 3, 3, 3), np.float32),
  'features.0.bias': np.arange(4, dtype=np.float32),
  'scale': np.float32(0.5).reshape(()),
  'classifier.weight': np.ones((2, 5), np.float32),
}


@pytest.mark.parametrize('write', [write_zip, write_row])
def test_both_layouts_are_read(write, tmp_path):
  write(tmp_path / 'net.pth', *state_of(ARRAYS))
  found = torch_files.read(tmp_path / 'net.pth')
  assert list(found) == list(ARRAYS)
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)
  some = torch_files.read(tmp_path / 'net.pth', names={'scale', 'features.0.bias'})
  assert set(some) == {'scale', 'features.0.bias'}
  np.testing.assert_array_equal(some['features.0.bias'], [0, 1, 2, 3])


class Evil:
  def __reduce__(self):
    return print, ('this must not run',)


@pytest.mark.parametrize('write', [write_zip, write_row])
def test_nothing_of_a_file_is_run(write, tmp_path, capsys):
  state, storages = state_of(ARRAYS)
  state['more'] = Evil()
  write(tmp_path / 'evil.pth', state, storages)
  with pytest.raises(
    ValueError, match='evil.pth is no file .*print, which is no tensor'
  ):
    torch_files.read(tmp_path / 'evil.pth')
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
  'shape, stride, words',
  [
    ((3, 4), (1, 3), 'not in order'),
    ((30, 4), (4, 1), 'larger than its storage'),
    ((-3, 4), (4, 1), 'shape'),
  ],
)
def test_tensors_that_lie_are_refused(shape, stride, words, tmp_path):
  storage = Storage('0', np.zeros(12, '<f4'))
  write_zip(tmp_path / 'net.pth', {'x': Tensor(storage, 0, shape, stride)}, [storage])
  with pytest.raises(ValueError, match=words):
    torch_files.read(tmp_path / 'net.pth')


def test_other_files_are_told_in_one_sentence(tmp_path):
  path = tmp_path / 'net.pth'
  with pytest.raises(ValueError, match='net.pth cannot be read'):
    torch_files.read(path)
  write_row(path, *state_of(ARRAYS))
  whole = path.read_bytes()
  for data in (b'', b'text', whole[:-3], whole[: len(whole) // 2], pickled([1, 2])):
    path.write_bytes(data)
    with pytest.raises(ValueError, match='net.pth is no file of PyTorch tensors'):
      torch_files.read(path)
  write_zip(path, [1, 2], [])
  with pytest.raises(ValueError, match='a list, not a dictionary'):
    torch_files.read(path)
