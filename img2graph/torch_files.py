"""Reading PyTorch's `.pth` files of tensors, without PyTorch and without their code.

A `.pth` file is a pickle, which may run any program when it is loaded, and raw numbers.
Here the pickle is read by an unpickler that knows dictionaries, tensors and their
storages and nothing else. Both layouts are read: the zip archive of PyTorch 1.6 and
later, and the row of pickles of before, in which torchvision's VGG16 is published.
"""

import collections
import math
import os
import pathlib
import pickle
import struct
import zipfile
from typing import NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
  'FloatStorage': '<f4',
  'DoubleStorage': '<f8',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': '<i1',
  'ByteStorage': '<u1',
  'BoolStorage': '<?',
}


class _Storage(NamedTuple):
  key: str
  dtype: np.dtype
  count: int


class _Tensor(NamedTuple):
  """What a pickle says of a tensor; its numbers are read later, if they are wanted."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]

  def of(self, numbers):
    """The array, from the numbers of its storage."""
    size = math.prod(self.shape)
    return numbers[self.offset : self.offset + size].reshape(self.shape).copy()


def _rebuild_tensor(storage, offset, shape, stride, *_):
  shape, stride = tuple(shape), tuple(stride)
  if not isinstance(storage, _Storage):
    raise pickle.UnpicklingError('a tensor without a storage')
  if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape)):
    raise pickle.UnpicklingError(f'a tensor of shape {shape}')
  steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
  if any(s != t for s, t, n in zip(stride, steps, shape, strict=True) if n > 1):
    raise pickle.UnpicklingError('a tensor whose numbers are not in order')
  if offset + math.prod(shape) > storage.count:
    raise pickle.UnpicklingError('a tensor larger than its storage')
  return _Tensor(storage, offset, shape)


def _rebuild_parameter(tensor, *_):
  return tensor


_KNOWN = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
}
_KNOWN |= {('torch', name): np.dtype(code) for name, code in _DTYPES.items()}


class _Unpickler(pickle.Unpickler):
  """Builds dictionaries of `_Tensor`s, and refuses whatever else a pickle names."""

  def __init__(self, file):
    super().__init__(file)
    self.storages = {}

  def find_class(self, module, name):
    if (module, name) not in _KNOWN:
      raise pickle.UnpicklingError(f'it holds a {module}.{name}, which is no tensor')
    return _KNOWN[module, name]

  def persistent_load(self, pid):
    kind, dtype, key, _, count = pid[:5]
    view = pid[5] if len(pid) > 5 else None
    if kind != 'storage' or not isinstance(dtype, np.dtype) or view is not None:
      raise pickle.UnpicklingError(f'it holds a {kind}, which is no storage')
    storage = _Storage(str(key), dtype, int(count))
    return self.storages.setdefault(storage.key, storage)


def read(path, names=None):
  """The tensors of a `.pth` file that holds a dictionary of them (a state dict).

  Args:
    path: of the file.
    names: those to read; None for all.

  Returns:
    `{name: numpy array}`, of the names that are there.

  Raises:
    ValueError: the file is missing, damaged, no such dictionary, or holds more than
      tensors; one sentence.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file:
      read_layout = _read_zip if zipfile.is_zipfile(file) else _read_row
      file.seek(0)
      return read_layout(file, names)
  except OSError as error:
    raise ValueError(f'{path} cannot be read ({error.strerror or error}).') from None
  # A pickle that is none fails in many ways.
  except Exception as error:
    raise ValueError(f'{path} is no file of PyTorch tensors ({error}).') from None


def _wanted(found, names):
  """The `_Tensor`s of what a pickle held, by name."""
  if not isinstance(found, dict):
    raise ValueError(f'it holds a {type(found).__name__}, not a dictionary of tensors')
  return {
    name: value
    for name, value in found.items()
    if isinstance(value, _Tensor) and (names is None or name in names)
  }


def _read_zip(file, names):
  archive = zipfile.ZipFile(file)
  [index] = [n for n in archive.namelist() if n.endswith('/data.pkl')]
  folder = index.removesuffix('data.pkl')
  order = f'{folder}byteorder'
  if order in archive.namelist() and archive.read(order) != b'little':
    raise ValueError('its numbers are big-endian')
  with archive.open(index) as stream:
    tensors = _wanted(_Unpickler(stream).load(), names)

  def numbers(storage):
    data = archive.read(f'{folder}data/{storage.key}')
    return np.frombuffer(data, storage.dtype, storage.count)

  return {name: tensor.of(numbers(tensor.storage)) for name, tensor in tensors.items()}


def _read_row(file, names):
  def load():
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.storages

  if load()[0] != _MAGIC or load()[0] != _PROTOCOL:
    raise ValueError('it has neither layout')
  if not load()[0].get('little_endian', True):
    raise ValueError('its numbers are big-endian')
  found, storages = load()
  tensors = _wanted(found, names)
  needed = {tensor.storage.key for tensor in tensors.values()}
  numbers = {}
  # The storages in this order, the count of each in front of its numbers.
  for key in load()[0]:
    storage = storages[str(key)]
    (count,) = struct.unpack('<q', file.read(8))
    if count != storage.count:
      raise ValueError('it is damaged')
    size = count * storage.dtype.itemsize
    if storage.key in needed:
      numbers[storage.key] = np.frombuffer(file.read(size), storage.dtype, count)
    else:
      file.seek(size, os.SEEK_CUR)
  return {name: t.of(numbers[t.storage.key]) for name, t in tensors.items()}
