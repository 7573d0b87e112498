import numpy as np
import pytest
from PIL import Image

from img2graph.data import images
from img2graph.data.photo_sets import base
from tests.data.photo_sets import trees


def test_photographs_are_stretched_and_turned_to_colours(tmp_path):
  pixels = np.zeros((10, 40), np.uint8)
  pixels[:, 20:] = 200
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  square = base.read_square(tmp_path / 'a.png', 8)
  assert square.shape == (8, 8, 3) and square.dtype == np.uint8
  assert (square[:, :3] == 0).all() and (square[:, 5:] == 200).all()
  right = base.read_square(tmp_path / 'a.png', 8, box=(20, 0, 40, 10))
  assert (right[:, 1:] == 200).all()
  # As it is, if it is of that size: nothing is resampled.
  noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  np.testing.assert_array_equal(base.stretch(Image.fromarray(noise), 8), noise)


def test_sixteen_bits_keep_their_shades(tmp_path):
  ramp = np.arange(0, 256, 17, np.uint8).reshape(4, 4)
  Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / 'a.png')
  square = base.read_square(tmp_path / 'a.png', 4)
  np.testing.assert_array_equal(square, np.repeat(ramp[..., None], 3, axis=-1))


def test_a_photograph_reduced_is_averaged(tmp_path):
  pixels = np.zeros((16, 16, 3), np.uint8)
  pixels[:, ::2] = 200  # Stripes that picking pixels would turn into one colour.
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  middle = base.read_square(tmp_path / 'a.png', 4)[:, 1:3].astype(int)
  assert np.abs(middle - 100).max() < 15


def test_sizes_are_those_of_the_decoders_that_read_photographs(tmp_path):
  Image.new('RGB', (7, 5)).save(tmp_path / 'a.jpg')
  np.testing.assert_array_equal(base.sizes([tmp_path / 'a.jpg']), [[7, 5]])
  Image.new('RGB', (7, 5)).save(tmp_path / 'b.jpg', 'EPS')
  with pytest.raises(images.BadImage, match='b.jpg cannot be read'):
    base.sizes([tmp_path / 'b.jpg'])


def test_truth_has_defaults_for_what_a_set_does_not_say():
  photos = base.Photos(['a'], points=np.zeros((1, 3, 2)))
  truth = photos.truth(0)
  assert truth['visible'].tolist() == [1, 1, 1] and truth['scale'] == 2
  assert {v.dtype for v in truth.values()} == {np.dtype('float32')}
  assert base.Photos(['a']).truth(0) == {}


@pytest.mark.parametrize('shape', [(2, 17, 3), (1, 17, 2), (2, 34), (34, 2), (2,)])
def test_points_are_pairs_for_each_photograph(shape):
  with pytest.raises(ValueError, match=r'of a.png .* must be \[2, M, 2\], .*; got \('):
    base.Photos(['a.png', 'b.png'], points=np.zeros(shape))


def test_points_that_are_no_numbers_are_told_unless_they_are_hidden():
  points = np.zeros((2, 3, 2))
  points[1, 2, 0] = np.nan
  hidden = np.ones((2, 3))
  hidden[1, 2] = 0
  assert len(base.Photos(['a.png', 'b.png'], points=points, visible=hidden)) == 2
  for visible in (None, np.ones((2, 3))):
    with pytest.raises(ValueError, match='points of b.png must be finite numbers'):
      base.Photos(['a.png', 'b.png'], points=points, visible=visible)


@pytest.mark.parametrize('shape', [(17, 3), (17,), (1, 17, 2)])
def test_points_of_one_photograph_are_pairs(shape):
  with pytest.raises(ValueError, match=r'must be \[M, 2\], \(x, y\); got \('):
    base.annotation(np.zeros(shape))


def test_eyes_in_one_place_are_told_before_anything_is_learned():
  points = np.array([[[0, 0], [1, 0]], [[0.5, 0.5], [0.5, 0.5]]])
  with pytest.raises(ValueError, match='b.png .*must be apart'):
    base.Photos(['a.png', 'b.png'], points=points, scale=base.eye_distance(points))


def test_what_is_missing_is_told_with_its_place(tmp_path):
  with pytest.raises(ValueError, match='data.dir must name the folder'):
    base.need('', 'a', what='this')
  with pytest.raises(ValueError) as error:
    base.need(tmp_path, 'a', 'b/c', what='the list')
  place = tmp_path / 'a'
  assert str(error.value) == (
    f'the list belongs at {place} (or b/c there), but is not there.'
  )
  trees.text(tmp_path / 'b/c', ['x'])
  assert base.need(tmp_path, 'a', 'b/c', what='the list') == tmp_path / 'b/c'
  with pytest.raises(ValueError, match='choose no photograph'):
    base.need_files(tmp_path, [])


def test_files_that_are_no_images_are_told(tmp_path):
  trees.text(tmp_path / 'a.jpg', ['no image'])
  with pytest.raises(images.BadImage, match='a.jpg cannot be read'):
    base.sizes([tmp_path / 'a.jpg'])
  with pytest.raises(images.BadImage, match='a.jpg is not an image'):
    base.read_square(tmp_path / 'a.jpg', 8)
