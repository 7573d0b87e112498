import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from img2graph import geometry
from img2graph.encoding import pooling
from tests import compiled


def _images(seed, shape):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def _boxes(seed, batch, pairs, reach=1.0):
  ends = np.random.default_rng(seed).uniform(-reach, reach, (batch, pairs, 2, 2))
  return np.concatenate([ends.min(2), ends.max(2)], -1).astype(np.float32)


def test_pair_boxes_hold_both_nodes_in_the_order_of_node_pairs():
  nodes = np.random.default_rng(0).uniform(-1, 1, (3, 5, 2)).astype(np.float32)
  boxes = pooling.pair_boxes(nodes)
  chex.assert_shape(boxes, (3, 10, 4))
  for pair, (i, j) in enumerate(zip(*geometry.node_pairs(5), strict=True)):
    low = np.minimum(nodes[:, i], nodes[:, j])
    high = np.maximum(nodes[:, i], nodes[:, j])
    np.testing.assert_allclose(
      boxes[:, pair], np.concatenate([low, high], -1), atol=1e-6
    )


def test_margin_and_min_size_widen_boxes_about_their_centre():
  nodes = np.array([[0.0, 0.5], [0.4, 0.5]], np.float32)
  wide = pooling.pair_boxes(nodes, margin=0.05, min_size=0.2)
  np.testing.assert_allclose(wide, [[-0.05, 0.4, 0.45, 0.6]], atol=1e-6)


def test_boxes_of_coincident_nodes_have_finite_gradients():
  nodes = np.zeros((1, 3, 2), np.float32)
  images = _images(0, (1, 8, 8, 1))

  def f(nodes):
    boxes = pooling.pair_boxes(nodes, margin=0.1)
    return jnp.sum(pooling.roi_pool(images, boxes, size=4) ** 2)

  chex.assert_tree_all_finite(compiled.grad(f, nodes))


@pytest.mark.parametrize('samples', [1, 3])
def test_align_matches_interpolation_by_scipy(samples):
  images = _images(1, (2, 9, 13, 2))
  boxes = _boxes(2, 2, 4, reach=1.3)  # Some reach beyond the image.
  size = 5
  actual = jax.jit(
    lambda i, b: pooling.roi_pool(i, b, size=size, mode='align', samples=samples)
  )(images, boxes)
  chex.assert_shape(actual, (2, 4, size, size, 2))
  fractions = (np.arange(size * samples) + 0.5) / (size * samples)
  for b in range(2):
    for p in range(4):
      x0, y0, x1, y1 = boxes[b, p]
      rows = (y0 + (y1 - y0) * fractions + 1) / 2 * 9 - 0.5
      columns = (x0 + (x1 - x0) * fractions + 1) / 2 * 13 - 0.5
      grid = np.meshgrid(rows, columns, indexing='ij')
      for c in range(2):
        points = scipy.ndimage.map_coordinates(
          images[b, :, :, c], grid, order=1, mode='grid-constant'
        )
        expected = points.reshape(size, samples, size, samples).mean((1, 3))
        np.testing.assert_allclose(actual[b, p, :, :, c], expected, atol=1e-5)


def test_align_of_the_whole_image_at_its_own_size_is_the_image():
  images = _images(3, (2, 16, 16, 1))
  boxes = np.tile(np.array([-1, -1, 1, 1], np.float32), (2, 1, 1))
  pooled = pooling.roi_pool(images, boxes, size=16, mode='align', samples=1)
  np.testing.assert_allclose(pooled[:, 0], images, atol=1e-6)


def test_align_gradient_of_the_boxes_is_exact_on_a_bilinear_image():
  def ink(x, y):
    return 0.5 + 0.3 * x - 0.2 * y + 0.4 * x * y

  x, y = np.moveaxis(geometry.pixel_centres(12, 24), -1, 0)
  images = ink(x, y)[None, :, :, None]
  boxes = np.array([[[-0.62, -0.43, 0.31, 0.77]]], np.float32)
  weights = _images(4, (6, 6))
  fractions = (np.arange(6) + 0.5) / 6

  def pooled(boxes):
    patch = pooling.roi_pool(images, boxes, size=6, mode='align', samples=3)
    return jnp.sum(patch[0, 0, :, :, 0] * weights)

  def closed_form(boxes):
    # A bin's mean of a bilinear function is its value at the centre of the bin.
    x0, y0, x1, y1 = boxes[0, 0]
    columns = (x0 + (x1 - x0) * fractions)[None, :]
    rows = (y0 + (y1 - y0) * fractions)[:, None]
    return jnp.sum(ink(columns, rows) * weights)

  np.testing.assert_allclose(jax.jit(pooled)(boxes), closed_form(boxes), rtol=1e-5)
  np.testing.assert_allclose(
    compiled.grad(pooled, boxes), jax.grad(closed_form)(jnp.asarray(boxes)), rtol=1e-4
  )


def _max_by_loops(image, box, size):
  """ROI max-pooling of one image [H, W], bin by bin."""
  height, width = image.shape
  bounds = []
  for low, high, length in ((box[1], box[3], height), (box[0], box[2], width)):
    first = min(max(int(np.floor((low + 1) / 2 * length)), 0), length - 1)
    last = min(max(int(np.ceil((high + 1) / 2 * length)), first + 1), length)
    part = (last - first) / size
    bounds.append(
      [
        (first + int(np.floor(i * part)), first + int(np.ceil((i + 1) * part)))
        for i in range(size)
      ]
    )
  return np.array(
    [[image[r0:r1, c0:c1].max() for c0, c1 in bounds[1]] for r0, r1 in bounds[0]]
  )


def test_max_matches_loops_over_bins():
  # A power of two of bins: then the loops' floats are exact too.
  images = _images(5, (2, 21, 12, 1))
  boxes = _boxes(6, 2, 12, reach=1.2)
  boxes[0, 0] = [-1, -1, 1, 1]
  boxes[0, 1] = [0.3, 0.3, 0.3, 0.3]
  boxes[0, 2] = [1.5, 1.5, 1.7, 1.7]
  actual = jax.jit(lambda i, b: pooling.roi_pool(i, b, size=4, mode='max'))(
    images, boxes
  )
  for b in range(2):
    for p in range(12):
      expected = _max_by_loops(images[b, :, :, 0], boxes[b, p].astype(np.float64), 4)
      np.testing.assert_array_equal(actual[b, p, :, :, 0], expected)


def test_max_keeps_a_thin_line_and_gives_the_box_no_gradient():
  images = np.zeros((1, 64, 64, 1), np.float32)
  images[0, 37] = 1
  boxes = np.array([[[-1, -1, 1, 1]]], np.float32)
  pooled = pooling.roi_pool(images, boxes, size=8, mode='max')
  np.testing.assert_array_equal(pooled[0, 0, :, :, 0].max(1), np.arange(8) == 37 // 8)
  gradient = compiled.grad(
    lambda boxes: pooling.roi_pool(images, boxes, size=8, mode='max').sum(), boxes
  )
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('mode', ['align', 'max'])
def test_transposed_image_and_box_give_the_transposed_patch(mode):
  images, boxes = _images(7, (1, 10, 10, 1)), _boxes(8, 1, 3)
  patch = pooling.roi_pool(images, boxes, size=6, mode=mode)
  transposed = pooling.roi_pool(
    images.transpose(0, 2, 1, 3), boxes[..., [1, 0, 3, 2]], size=6, mode=mode
  )
  np.testing.assert_allclose(transposed, patch.transpose(0, 1, 3, 2, 4), atol=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (dict(images=np.zeros((8, 8, 1)), boxes=np.zeros((1, 1, 4))), 'B, H, W, C'),
    (dict(images=np.zeros((2, 8, 8, 1)), boxes=np.zeros((1, 1, 4))), 'B, P, 4'),
    (
      dict(images=np.zeros((1, 8, 8, 1)), boxes=np.zeros((1, 1, 4)), mode='mean'),
      'mode',
    ),
    (
      dict(images=np.zeros((1, 8, 8, 1)), boxes=np.zeros((1, 1, 4)), size=0),
      'positive',
    ),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    pooling.roi_pool(**arguments)


def test_negative_margins_are_refused():
  with pytest.raises(ValueError, match='negative'):
    pooling.pair_boxes(np.zeros((2, 2)), margin=-0.1)
