"""Tests of benchmarks/throughput.py."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import throughput
from configs import image_graph_image
from img2graph.encoding import backbones
from tests.training import toy


def _multiplications(side, kernel, inputs, outputs):
  """Of a convolution on a square; beyond its edge there is nothing to multiply."""
  reach = kernel // 2
  taps = side * kernel - reach * (reach + 1)  # Along one axis, over all places.
  return taps**2 * inputs * outputs


def test_operations_are_those_of_the_convolutions():
  config = image_graph_image.get_config('paper,cpu').method.nodes
  depths = (2, 1)
  model = backbones.PaperBackbone(
    num_maps=4,
    stem_features=16,
    stem_kernel=config.stem_kernel,
    block_features=(32, 16),
    block_depths=depths,
  )
  images = jnp.zeros((3, 32, 32, 1))
  init = functools.partial(model.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), images)

  def forward(params, statistics, images):
    variables = {'params': params, 'batch_stats': statistics}
    return model.apply(variables, images, train=False).sum()

  arguments = variables['params'], variables['batch_stats'], images
  stem = _multiplications(32, config.stem_kernel, 1, 16)
  others, inputs = 0, 16
  for side, features, depth in zip((16, 8), (32, 16), depths, strict=True):
    for _ in range(depth):
      width = features // 4
      others += _multiplications(side, 1, inputs, width)
      others += _multiplications(side, 3, width, width)
      others += _multiplications(side, 1, width, features)
      if inputs != features:
        others += _multiplications(side, 1, inputs, features)
      inputs = features
  others += _multiplications(8, 3, 16, 64) + _multiplications(8, 1, 64, 4)
  counted = throughput.operations(jax.jit(forward).lower(*arguments))
  by_hand = 2 * 3 * (stem + others)
  assert by_hand < counted < 1.1 * by_hand
  # The gradient of each takes two more, but for the images that of the first.
  counted = throughput.operations(jax.jit(jax.grad(forward)).lower(*arguments))
  by_hand = 2 * 3 * (2 * stem + 3 * others)
  assert by_hand < counted < 1.1 * by_hand


def test_bytes_are_those_of_what_is_read_and_written():
  compiled = jax.jit(lambda x: 2 * x).lower(jnp.zeros(1000)).compile()
  assert throughput.traffic(compiled) == pytest.approx(8000, rel=0.01)


def test_peaks_are_known_or_measured(monkeypatch):
  work, bandwidth, known = throughput.peaks('float32')
  assert known == 'measured' and 1e8 < work < 1e15 and 1e8 < bandwidth < 1e13

  class Chip:
    device_kind = 'NVIDIA H100 80GB HBM3'

  monkeypatch.setattr(jax, 'devices', lambda: [Chip()])
  expected = 989.4e12, 3350e9, 'data sheet'
  assert throughput.peaks('bfloat16') == pytest.approx(expected)


def test_a_row_says_speed_shares_and_bound(tmp_path, monkeypatch):
  toy.register(monkeypatch)
  monkeypatch.setattr(throughput, 'at_side', lambda variant, side: toy.get_config())
  monkeypatch.setattr(throughput, 'peaks', lambda dtype: (1e6, 1e15, 'measured'))
  output = tmp_path / 'out' / 'throughput.json'
  arguments = ['--recipes', 'toy', '--precisions', 'float32', '--steps=2']
  arguments += ['--batch_sizes', '8', '16', f'--output={output}']
  assert throughput.main(arguments) == 0
  rows = json.loads(output.read_text())['rows']
  assert [row['batch_size'] for row in rows] == [8, 16]
  for row in rows:
    rate = row['batch_size'] / row['images_per_second']
    assert row['step_ms'] == pytest.approx(1e3 * rate)
    work = row['operations_per_image'] * row['images_per_second']
    devices = jax.device_count()
    assert row['shares']['operations'] == pytest.approx(work / 1e6 / devices)
    # At a million operations in a second.
    assert row['bound'] == 'operations' and row['bytes_per_image'] > 4 * 16 * 16
  assert '| toy | float32 | 16 |' in output.with_suffix('.md').read_text()
  assert throughput.main([*arguments, '--budget=-1']) == 0
  assert json.loads(output.read_text())['left_out'] == [
    'toy float32 8',
    'toy float32 16',
  ]


def test_images_are_drawn_at_the_side_asked_for():
  config = throughput.at_side('paper,paper', 64)
  assert config.data.side == 64 and config.method.sides == (64,)
  assert config.data.source == 'shapes'


def test_a_mistake_is_one_sentence(capsys):
  for arguments in (['--steps=0'], ['--recipes', 'cake']):
    assert throughput.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
