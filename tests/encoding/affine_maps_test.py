import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.encoding import affine_maps


def move(images, matrix, offset):
  """`affine_maps.move_images`, all images alike."""
  count = len(images)
  matrix = jnp.broadcast_to(jnp.array(matrix, jnp.float32), (count, 2, 2))
  offset = jnp.broadcast_to(jnp.array(offset, jnp.float32), (count, 2))
  return affine_maps.move_images(images, matrix, offset)


def photographs(count):
  generator = np.random.default_rng(0)
  return generator.integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
  'matrix, offset, expected',
  [
    # y grows down, so that this turns clockwise.
    ([[0, -1], [1, 0]], [0, 0], lambda x: np.rot90(x, -1, axes=(1, 2))),
    ([[-1, 0], [0, 1]], [0, 0], lambda x: x[:, :, ::-1]),
    (
      [[1, 0], [0, 1]],
      [2 / 8, -4 / 8],
      lambda x: x[:, [2, 3, 4, 5, 6, 7, 7, 7]][:, :, [0, 0, 1, 2, 3, 4, 5, 6]],
    ),
  ],
  ids=['turned', 'mirrored', 'shifted'],
)
def test_images_move_as_the_map_says(matrix, offset, expected):
  images = photographs(3).astype(np.float32)
  np.testing.assert_allclose(move(images, matrix, offset), expected(images), atol=1e-3)


def test_enlarging_is_about_the_middle():
  images = photographs(3).astype(np.float32)
  moved = move(images, [[7, 0], [0, 7]], [0, 0])
  # The middle two pixels come to be the outer ones; half way is their mean.
  np.testing.assert_allclose(moved[:, ::7, ::7], images[:, 3:5, 3:5], atol=1e-3)
  middle = moved[:, 3:5, 3:5].mean(axis=(1, 2))
  np.testing.assert_allclose(middle, images[:, 3:5, 3:5].mean(axis=(1, 2)), atol=1e-3)


def test_turn_zoom_and_shifts_are_independent():
  matrix, offset = affine_maps.sample(
    jax.random.key(0), 2000, turn=1.0, zoom=(0.5, 1.5), shift=0.2
  )
  turn = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
  zoom = np.hypot(matrix[:, 1, 0], matrix[:, 0, 0])
  values = np.stack([turn, zoom, offset[:, 0], offset[:, 1]])
  # Of 2,000 the standard deviation of a correlation is 0.022.
  np.testing.assert_allclose(np.corrcoef(values), np.eye(4), atol=0.1)
