"""Tests of img2graph/encoding/resnet.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from img2graph.encoding import resnet
from tests import compiled


def shapes(model, side):
  images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=True), images)


def count(tree):
  return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ('depth', 'number'), [(20, 269_722), (56, 853_018), (110, 1_727_962)]
)
def test_cifar_networks_have_as_many_parameters_as_published(depth, number):
  # 0.27, 0.85 and 1.7 million in He et al., table 6.
  assert count(shapes(resnet.CifarResNet(depth=depth), 32)['params']) == number


@pytest.mark.parametrize(
  ('depth', 'number'), [(18, 11_689_512), (50, 25_557_032), (101, 44_549_160)]
)
def test_larger_networks_have_as_many_parameters_as_published(depth, number):
  model = resnet.ResNet(depth=depth, num_classes=1000)
  assert count(shapes(model, 64)['params']) == number


@pytest.mark.parametrize(
  ('model', 'side', 'size'),
  [
    (resnet.CifarResNet(depth=8, num_classes=7), 32, 64),
    (resnet.ResNet(depth=18, num_classes=7), 64, 512),
    (resnet.ResNet(depth=50, num_classes=7, stem='small'), 64, 2048),
  ],
)
def test_features_and_logits(model, side, size):
  variables = shapes(model, side)
  images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
  found = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
  assert [x.shape for x in found] == [(2, size), (2, 7)]
  assert {x.dtype for x in found} == {jnp.dtype('float32')}


def _conv(x, kernel, stride):
  """`[H, W, C]` with `[K, K, C, D]`, padded by K // 2, every `stride`-th."""
  edge = kernel.shape[0] // 2
  x = np.pad(x, ((edge, edge), (edge, edge), (0, 0)))
  maps = [
    sum(
      scipy.signal.correlate2d(x[..., i], kernel[..., i, o], 'valid')
      for i in range(x.shape[-1])
    )
    for o in range(kernel.shape[-1])
  ]
  return np.stack(maps, -1)[::stride, ::stride]


def _perturbed(model, images):
  """Variables whose norms all do something."""
  variables = compiled.init(model, images, train=True)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda v: v + 0.1 * rng.uniform(size=v.shape).astype('f'), variables
  )


def _norm(variables, name, x):
  at, stats = variables['params'][name], variables['batch_stats'][name]
  scale = np.asarray(at['scale']) / np.sqrt(np.asarray(stats['var']) + 1e-5)
  return (x - np.asarray(stats['mean'])) * scale + np.asarray(at['bias'])


@pytest.mark.parametrize('shortcut', ['pad', 'project'])
@pytest.mark.parametrize('bottleneck', [False, True])
def test_a_striding_block_is_its_definition(shortcut, bottleneck):
  model = resnet.Block(features=8, stride=2, bottleneck=bottleneck, shortcut=shortcut)
  images = np.random.default_rng(1).normal(size=(1, 7, 6, 4)).astype('f')
  variables = _perturbed(model, images)

  def layer(x, name, stride):
    kernel = np.asarray(variables['params'][f'{name}_conv']['kernel'], float)
    x = _conv(x, kernel, stride)
    return _norm(variables, f'{name}_norm', x)

  strides = (1, 2, 1) if bottleneck else (2, 1)
  y = images[0].astype(float)
  for i, stride in enumerate(strides):
    y = layer(np.maximum(y, 0) if i else y, str(i), stride)
  if shortcut == 'pad':
    short = np.pad(images[0, ::2, ::2], ((0, 0), (0, 0), (2, 2)))
  else:
    short = layer(images[0].astype(float), 'short', 2)
  expected = np.maximum(y + short, 0)
  found = compiled.apply(model, variables, images, train=False)
  np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_bfloat16_keeps_parameters_and_results_in_float32():
  model = resnet.CifarResNet(depth=8, width=4, dtype=jnp.bfloat16)
  images = jnp.ones((2, 16, 16, 3))
  variables = compiled.init(model, images, train=True)
  found = compiled.apply(model, variables, images, train=False)
  assert {x.dtype for x in jax.tree.leaves((variables, found))} == {
    jnp.dtype('float32')
  }


@pytest.mark.parametrize(
  ('network', 'options', 'message'),
  [
    (resnet.CifarResNet, dict(depth=21), 'got 21'),
    (resnet.CifarResNet, dict(width=0), 'width must be a whole number'),
    (resnet.ResNet, dict(depth=19), 'got 19'),
    (resnet.ResNet, dict(stem='large'), "got 'large'"),
    (resnet.Block, dict(shortcut='projekt'), "pad, project; got 'projekt'"),
  ],
)
def test_networks_that_there_are_not(network, options, message):
  with pytest.raises(ValueError, match=message):
    network(**options)
