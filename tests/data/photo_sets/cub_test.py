import numpy as np
import pytest
from scipy import io

from img2graph.data import images
from img2graph.data.photo_sets import cub
from tests.data.photo_sets import trees


def numbers(photos):
  return [int(path.stem) for path in photos.files]


def test_aligned_birds_have_lists_and_visible_points(tmp_path):
  trees.aligned_birds(tmp_path)
  assert numbers(cub.aligned(tmp_path, 'train')) == [1, 2, 3]
  assert cub.aligned(tmp_path, 'train').truth(0) == {}
  assert numbers(cub.aligned(tmp_path, 'fit')) == [1, 2, 3]
  test = cub.aligned(tmp_path, 'test')
  assert numbers(test) == [4, 5]
  truth = test.truth(1)
  np.testing.assert_allclose(truth['points'][0], [-0.5, 0.5])
  assert truth['visible'].tolist() == [1] + [0] * 14
  assert truth['scale'] == 2
  assert (test.pixels(1, 4) == 50).all()
  np.save(tmp_path / 'test_kp.npy', np.zeros((3, 15, 3)))
  with pytest.raises(ValueError, match=r'test_kp.npy .* must be \[2, 15, 3\]'):
    cub.aligned(tmp_path, 'test')
  (tmp_path / 'test_kp.npy').write_bytes(b'no array')
  with pytest.raises(ValueError, match='test_kp.npy is not an array of points'):
    cub.aligned(tmp_path, 'test')
  (tmp_path / 'train_kp.npy').unlink()
  with pytest.raises(ValueError, match='points belongs at .*train_kp.npy'):
    cub.aligned(tmp_path, 'fit')


def test_the_lists_choose_all_birds_or_one_class(tmp_path):
  trees.birds(tmp_path)
  assert numbers(cub.everything(tmp_path, 'train')) == [1, 2, 3]
  assert numbers(cub.everything(tmp_path, 'fit')) == [1, 2, 3]
  assert numbers(cub.everything(tmp_path, 'test')) == [6, 7, 8]
  # Of the official training part, classes 1 to 3 of all lists; bird 3 is of class 4.
  assert numbers(cub.class_1(tmp_path, 'fit')) == [1, 2, 5]
  assert numbers(cub.class_1(tmp_path, 'test')) == [4, 6]
  assert numbers(cub.class_3(tmp_path, 'test')) == [7]
  with pytest.raises(ValueError, match='the lists choose no photograph'):
    cub.class_2(tmp_path, 'test')
  (tmp_path / 'CUB_200_2011/cachedir/cub/data/val_cub_cleaned.mat').unlink()
  with pytest.raises(ValueError, match='belongs at .*val_cub_cleaned.mat'):
    cub.class_1(tmp_path, 'fit')


def test_training_passes_over_what_cannot_be_read(tmp_path, caplog):
  trees.birds(tmp_path)
  before = cub.everything(tmp_path, 'train')
  before.files[1].write_bytes(b'no image')
  photos = cub.everything(tmp_path, 'train')
  assert numbers(photos) == [1, 3]
  np.testing.assert_array_equal(photos.boxes, before.boxes[[0, 2]])
  (message,) = caplog.messages
  assert message.startswith(f'skipped: {before.files[1]} cannot be read')
  with pytest.raises(images.BadImage, match='cannot be read'):
    cub.everything(tmp_path, 'fit')


def test_birds_are_cropped_by_hand(tmp_path):
  trees.birds(tmp_path)
  photos = cub.everything(tmp_path, 'test')
  # 40 x 37 loses 8 columns, 4 on the left, and 5 rows, 2 above. The box (5, 6) to (25,
  # 16) becomes a square of 20 about (15, 11): (5, 1) to (25, 21); trimmed, (1, 0) to
  # (25, 21), of which the right and lower edges do not move. In pixels of the whole:
  np.testing.assert_allclose(photos.boxes[0], [5, 2, 29, 23])
  # The point (10, 12) is at (6, 10) of the trimmed one, 5 of 24 and 10 of 21 in.
  truth = photos.truth(0)
  np.testing.assert_allclose(truth['points'][0], [10 / 24 - 1, 20 / 21 - 1], rtol=1e-6)
  assert truth['visible'].tolist() == [1] + [0] * 14 and truth['scale'] == 2
  # The crop shows what the points are of: a spot at (10, 12) lies where the point says.
  path = photos.files[0]
  trees.photo(path, (40, 37), spot=(10, 12))
  pixels = photos.pixels(0, 240)[..., 0].astype(float)
  rows, columns = np.nonzero(pixels)
  where = [np.average(v, weights=pixels[rows, columns]) for v in (columns, rows)]
  # The spot's middle is half a pixel in; points count from its edge.
  edge = (truth['points'][0] + 1) * 120
  np.testing.assert_allclose(np.array(where) + 0.5 - edge, [5, 240 / 42], atol=1.0)


def test_crops_stay_in_the_photograph_and_points_outside_are_hidden():
  size = np.array([[47, 33]])
  marks = np.array([[[3, 5, 1], [46, 20, 1], [20, 20, 0]]], float)
  boxes, points, visible = cub.crop(size, np.array([[0, 4, 46, 30]], float), marks)
  # 15 columns go, 7 on the left, and 1 row, below. The square of 46 leaves the photo.
  np.testing.assert_allclose(boxes, [[7, 0, 39, 32]])
  assert visible.tolist() == [[False, False, False]]
  np.testing.assert_allclose(points[0, 1], [(46 - 7) / 16 - 1, 20 / 16 - 1])


def test_a_list_that_is_none_is_told(tmp_path):
  trees.birds(tmp_path)
  path = tmp_path / 'CUB_200_2011/cachedir/cub/data/train_cub_cleaned.mat'
  path.write_bytes(b'not a list')
  with pytest.raises(ValueError, match="train_cub_cleaned.mat has no 'images' to read"):
    cub.everything(tmp_path, 'train')


def test_a_list_of_other_records_is_told(tmp_path):
  trees.birds(tmp_path)
  path = tmp_path / 'CUB_200_2011/cachedir/cub/data/val_cub_cleaned.mat'
  io.savemat(path, {'images': np.arange(3)})
  with pytest.raises(ValueError, match="val_cub_cleaned.mat: 'images' must be records"):
    cub.class_1(tmp_path, 'test')


def test_aligned_points_that_are_words_are_told(tmp_path):
  trees.aligned_birds(tmp_path)
  np.save(tmp_path / 'test_kp.npy', np.full((2, 15, 3), 'left'))
  with pytest.raises(ValueError, match='test_kp.npy is not an array of points'):
    cub.aligned(tmp_path, 'test')
