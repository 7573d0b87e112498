"""Tests of benchmarks/autolink_training.py."""

import argparse
from unittest import mock

import jax
import numpy as np
import pytest

from benchmarks import autolink_training
from configs import autolink
from img2graph import methods


def test_hidden_pixels_alone_are_compared():
  whole = np.full((3, 2, 2, 3), 255, np.uint8)
  keep = np.zeros((2, 2, 2, 1), bool)
  keep[:, 0] = True
  restored = np.ones((2, 2, 2, 3), np.float32)
  restored[:, 0] = -7.0  # Was kept: of no account.
  restored[0, 1] = 0.5
  restored[1, 1] = 1.5  # Above white, and so white.
  images = {'test': whole, 'keep': keep}
  assert autolink_training.hidden_error(restored, images) == pytest.approx(25)


def test_fixed_keypoints_look_at_no_image():
  options = autolink.get_config('smoke').method.to_dict()
  with mock.patch.object(
    autolink_training.autolink_method, 'AutoLink', autolink_training.FixedKeypoints
  ):
    method = methods.build(train_steps=1, precision='float32', **options)
  images = jax.random.uniform(jax.random.key(1), (3, 32, 32, 3))
  variables = jax.jit(method.init)(jax.random.key(0), {'image': images})
  assert 'detector' not in variables['params']
  nodes = np.asarray(jax.jit(method.predict)(variables, images).nodes)
  np.testing.assert_array_equal(nodes, nodes[:1].repeat(3, axis=0))
  assert np.ptp(nodes, axis=1).min() > 0.1 and np.abs(nodes).max() < 1


@pytest.mark.parametrize('vgg, variant', [('vgg16.npz', 'cpu_vgg'), (None, 'cpu')])
def test_the_network_is_that_of_the_variant_with_the_loss(vgg, variant):
  options = argparse.Namespace(
    at='cpu', seed=0, steps=2, batch_size=None, vgg=vgg, vgg_side=None, keypoints=8
  )
  vars(options).update(archive='a.npz', scale='', split_by='', flip=True, classes=())
  options.overrides = '{}'
  config = autolink_training.make_config(options)
  assert config.method == autolink.get_config(variant).method


def test_without_vgg_networks_are_as_wide_as_the_papers():
  paper, here = (autolink.get_config(v).method for v in ('celeba_wild', 'cpu'))
  assert here.detector == paper.detector
  assert here.inpainter.features == paper.inpainter.features[:4]
