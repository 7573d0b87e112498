"""Tests of img2graph/encoding/heads.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.encoding import backbones
from img2graph.encoding import heads
from img2graph.encoding import proposals
from img2graph.encoding import roi_edges
from tests import compiled


def _head(capacity, **options):
  net = proposals.ProposalNet(width=8, blocks=1)
  return heads.ProposalNodes(net=net, capacity=capacity, **options)


def test_capacity_is_a_limit_and_not_a_parameter():
  images = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  variables = compiled.init(_head(8), images, progress=1.0, train=False)
  wide = compiled.apply(_head(8), variables, images, progress=1.0, train=False)
  small = compiled.apply(_head(3), variables, images, progress=1.0, train=False)
  np.testing.assert_array_equal(wide.positions[:, :3], small.positions)
  np.testing.assert_array_equal(wide.prob[:, :3], small.prob)


def test_nodes_are_some_of_all_proposals():
  images = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  variables = compiled.init(_head(4), images, progress=1.0, train=False)
  nodes = compiled.apply(_head(4), variables, images, progress=1.0, train=False)
  logits, positions = nodes.proposals
  assert logits.shape == (2, 64) and positions.shape == (2, 64, 2)
  best = np.argmax(logits, axis=-1)
  for b in range(2):
    np.testing.assert_array_equal(nodes.positions[b, 0], positions[b, best[b]])
    np.testing.assert_allclose(nodes.prob[b, 0], jax.nn.sigmoid(logits[b, best[b]]))


def test_of_proposals_nearer_than_so_many_pixels_one_is_a_node():
  # In pixels of the image, along x: the second is 4.9 from the first, the third 5.1.
  positions = np.array([[[0, 0], [4.9, 0], [-5.1, 0]]], np.float32) / 16

  class Told(nn.Module):
    def __call__(self, images):
      return jnp.array([[3.0, 2.0, 1.0]]), jnp.asarray(positions), None

  head = heads.ProposalNodes(net=Told(), capacity=3, min_distance=5.0)
  image = np.zeros((1, 32, 32, 1), np.float32)
  nodes = head.apply({}, image, progress=1.0, train=False)
  np.testing.assert_allclose(nodes.positions[0, :2], positions[0, [0, 2]])
  # There is no third node, whatever stands in its place.
  expected = [1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(-1.0)), 0]
  np.testing.assert_allclose(nodes.prob[0], expected, rtol=1e-6)


def test_noise_explores_early_and_falls_silent():
  images = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  head = _head(4, noise=5.0, noise_until=0.7)
  variables = compiled.init(head, images, progress=1.0, train=False)

  def run(progress, train):
    keys = {'explore': jax.random.key(1)}
    return compiled.apply(
      head, variables, images, progress=progress, train=train, rngs=keys
    )

  quiet = run(1.0, False).positions
  np.testing.assert_array_equal(run(0.7, True).positions, quiet)
  assert np.abs(run(0.0, True).positions - quiet).max() > 0.1


def test_positions_and_existence_have_gradients():
  images = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
  head = _head(4)
  variables = compiled.init(head, images, progress=1.0, train=False)

  def total(variables):
    nodes = head.apply(variables, images, progress=1.0, train=False)
    return nodes.positions.sum() + nodes.prob.sum()

  gradient = compiled.grad(total, variables)['params']['net']['head']['kernel']
  assert np.isfinite(gradient).all()
  assert (np.abs(gradient).max(axis=0) > 0).all()


def _attention_head(num_nodes=3):
  backbone = backbones.PaperBackbone(
    num_maps=num_nodes,
    stem_features=4,
    stem_kernel=3,
    block_features=(8, 8),
    block_depths=(1, 1),
    head_features=4,
  )
  return heads.AttentionNodes(backbone=backbone)


def test_attention_nodes_all_exist_and_lie_at_the_mean_of_their_map():
  images = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  head = _attention_head()
  variables = compiled.init(head, images, progress=0.0, train=False)
  nodes = compiled.apply(head, variables, images, progress=0.0, train=False)
  assert nodes.positions.shape == (2, 3, 2)
  np.testing.assert_array_equal(nodes.prob, 1)
  np.testing.assert_allclose(nodes.attention.max(axis=(1, 2)), 1, rtol=1e-6)
  weights = np.asarray(nodes.attention)
  weights = weights / weights.sum(axis=(1, 2), keepdims=True)
  x = (2 * np.arange(8) + 1) / 8 - 1
  expected = np.stack(
    [(weights.sum(1) * x[None, :, None]).sum(1), (weights.sum(2) * x[:, None]).sum(1)],
    axis=-1,
  )
  np.testing.assert_allclose(nodes.positions, expected, atol=1e-5)


def test_roi_edges_pass_gradients_to_positions_only_when_asked():
  images = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
  start = np.array([[[-0.5, -0.4], [0.2, 0.2]]], np.float32)
  end = np.array([[[0.3, 0.5], [0.2, 0.2]]], np.float32)
  for learn in (False, True):
    head = heads.RoiEdges(
      classifier=roi_edges.RoiEdgeClassifier(features=(4, 4), hidden=8),
      learn_boxes=learn,
    )
    variables = compiled.init(head, images, start, end, train=False)

    def total(start, head=head, variables=variables):
      return head.apply(variables, images, start, end, train=False).sum()

    gradient = compiled.grad(total, jnp.asarray(start))
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max() > 0) == learn


class _Ink(nn.Module):
  """In place of a classifier: the mean of each patch."""

  def __call__(self, patches, *, train):
    mean = patches.mean((2, 3, 4))
    return mean, mean


@pytest.mark.parametrize(
  'options, expected',
  [
    # A dot in the middle of a square of 8 x 8 pixels of ink: boxes of 8, 8, 16 and 12.
    (dict(margin=0.0, min_size=8.0, size=4), 1),
    (dict(margin=4.0, min_size=0.0, size=4), 1),
    (dict(margin=0.0, min_size=16.0, size=8), 1 / 4),
    (dict(margin=6.0, min_size=8.0, size=6), 4 / 9),
    # The middle two of three bins of 16 / 3 pixels see some of it; their middle all.
    (dict(margin=0.0, min_size=16.0, size=3, mode='max'), 1),
    (dict(margin=0.0, min_size=16.0, size=3, samples=1), 1 / 9),
  ],
)
def test_boxes_and_patches_of_roi_edges_are_as_asked_for(options, expected):
  image = np.zeros((1, 32, 32, 1), np.float32)
  image[:, 12:20, 12:20] = 1
  middle = np.zeros((1, 1, 2), np.float32)
  head = heads.RoiEdges(classifier=_Ink(), **options)
  found = compiled.apply(head, {}, image, middle, middle, train=False)
  np.testing.assert_allclose(found, [[expected]], rtol=1e-5)
