import numpy as np
import pytest
from PIL import Image

from img2graph.data import images
from img2graph.data.photo_sets import base
from img2graph.data.photo_sets import celeba
from img2graph.data.photo_sets import unlabelled
from tests.data.photo_sets import trees


@pytest.fixture
def folder(tmp_path):
  trees.celeba(tmp_path)
  return tmp_path


def numbers(photos):
  return [int(path.stem) for path in photos.files]


def test_the_parts_are_those_of_celeba_and_mafl(folder):
  # 3 is of MAFL's test; 2, on which it fits, is learned from, as published.
  assert numbers(celeba.aligned(folder, 'train')) == [1, 2, 4, 5, 6]
  assert numbers(celeba.aligned(folder, 'fit')) == [2, 7]
  assert numbers(celeba.aligned(folder, 'test')) == [3, 9]


@pytest.mark.parametrize('text', ['', '404: Not Found', '000003.png'])
@pytest.mark.parametrize('photos', [celeba.aligned, celeba.wild])
def test_test_images_are_not_learned_from_for_want_of_their_list(folder, photos, text):
  (folder / 'MAFL/testing.txt').write_text(text)
  with pytest.raises(ValueError, match='testing.txt must name photographs of .*; it '):
    photos(folder, 'train')


def test_small_faces_are_left_out_in_the_wild(folder):
  # 20 x 12 is exactly 30 % of 40 x 20, 15 x 15 is less.
  assert numbers(celeba.wild(folder, 'train')) == [1, 2, 5]
  assert numbers(celeba.wild(folder, 'fit')) == [2, 7]
  trees.photo(folder / 'img_celeba/000007.jpg', (41, 20))
  assert numbers(celeba.wild(folder, 'fit')) == [2]


def test_training_passes_over_what_cannot_be_read(folder, caplog):
  boxes = celeba.aligned(folder, 'train').boxes
  for name in ('img_align_celeba/000001.jpg', 'img_celeba/000002.jpg'):
    (folder / name).write_bytes(b'no image')
  photos = celeba.aligned(folder, 'train')
  assert numbers(photos) == [1, 2, 4, 5, 6]  # Passed over when it is drawn.
  np.testing.assert_array_equal(photos.boxes, boxes)
  assert not caplog.messages
  assert numbers(celeba.wild(folder, 'train')) == [1, 5]
  (message,) = caplog.messages
  assert message.startswith('skipped: ') and '000002.jpg cannot be read' in message
  with pytest.raises(images.BadImage, match='000002.jpg cannot be read'):
    celeba.wild(folder, 'fit')
  for path in folder.glob('img_*/*'):
    path.write_bytes(b'no image')
  with pytest.raises(images.BadImage, match='cannot be read'):
    celeba.aligned(folder, 'train')
  with pytest.raises(images.BadImage, match='none of the 5 photographs can be read'):
    celeba.wild(folder, 'train')


def test_aligned_faces_show_the_middle(folder):
  photos = celeba.aligned(folder, 'test')
  np.testing.assert_allclose(photos.boxes, [[17.8, 21.8, 160.2, 196.2]] * 2)
  # The nose is in the middle, the eyes 40 of 142.4 pixels apart, in units of half that.
  truth = photos.truth(1)
  np.testing.assert_allclose(truth['points'][2], 0, atol=1e-6)
  np.testing.assert_allclose(truth['points'][0], [-20 / 71.2, 0], atol=1e-6)
  np.testing.assert_allclose(truth['points'][4, 1], (149 - 109) / 87.2, rtol=1e-6)
  assert truth['scale'] == pytest.approx(40 / 71.2)
  assert truth['visible'].tolist() == [1] * 5
  assert photos.pixels(1, 8).shape == (8, 8, 3) and (photos.pixels(1, 8) == 90).all()
  # What is shown is where the points are: a spot at the nose is in the middle.
  trees.photo(folder / 'img_align_celeba/000009.jpg', (178, 218), spot=(88, 108))
  pixels = celeba.aligned(folder, 'test').pixels(1, 64)[..., 0].astype(float)
  rows, columns = np.nonzero(pixels)
  weights = pixels[rows, columns]
  assert np.average(columns, weights=weights) == pytest.approx(31.5, abs=0.5)
  assert np.average(rows, weights=weights) == pytest.approx(31.5, abs=0.5)


def test_a_photo_is_taken_as_it_is_stored_where_its_points_are(folder):
  path = folder / 'img_celeba/000003.jpg'
  trees.photo(path, (40, 20), spot=(30, 5))
  before = celeba.wild(folder, 'test').pixels(0, 16)
  exif = Image.Exif()
  exif[0x0112] = 6  # To be seen turned by 90 degrees.
  with Image.open(path) as image:
    image.load()
  image.save(path, format='PNG', exif=exif)
  after = celeba.wild(folder, 'test').pixels(0, 16)
  np.testing.assert_array_equal(after, before)
  turned = unlabelled.any_folder(path.parent, 'train')
  (index,) = [i for i, file in enumerate(turned.files) if file.name == path.name]
  assert abs(turned.pixels(index, 16).astype(int) - before).max() > 20


def test_faces_in_the_wild_are_stretched(folder):
  truth = celeba.wild(folder, 'test').truth(0)
  # 40 wide, 20 high: (10, 5), (20, 5) and, of image 3, (15, 3).
  np.testing.assert_allclose(
    truth['points'][:3], [[-0.5, -0.5], [0, -0.5], [-0.25, -0.7]]
  )
  assert truth['scale'] == pytest.approx(0.5)


def test_training_images_come_without_points(folder):
  for photos in (celeba.aligned(folder, 'train'), celeba.wild(folder, 'train')):
    assert photos.truth(0) == {}


def test_the_folders_of_the_download_are_found(folder):
  for kind, names in (
    ('Img', ['img_align_celeba', 'img_celeba']),
    ('Eval', ['list_eval_partition.txt']),
    ('Anno', [p.name for p in folder.glob('list_[lb]*')]),
  ):
    (folder / kind).mkdir()
    for name in names:
      (folder / name).rename(folder / kind / name)
  assert numbers(celeba.aligned(folder, 'train')) == [1, 2, 4, 5, 6]
  assert celeba.aligned(folder, 'fit').points.shape == (2, 5, 2)
  assert celeba.wild(folder, 'fit').points.shape == (2, 5, 2)


@pytest.mark.parametrize(
  'name, part, make',
  [
    ('MAFL/training.txt', 'fit', celeba.aligned),
    ('MAFL/testing.txt', 'train', celeba.aligned),
    ('list_eval_partition.txt', 'train', celeba.wild),
    ('list_landmarks_align_celeba.txt', 'test', celeba.aligned),
    ('list_landmarks_celeba.txt', 'test', celeba.wild),
    ('list_bbox_celeba.txt', 'train', celeba.wild),
    ('img_align_celeba/000003.jpg', 'test', celeba.aligned),
  ],
)
def test_what_is_missing_is_told_with_its_place(folder, name, part, make):
  (folder / name).unlink()
  with pytest.raises(ValueError, match='belongs at .*, but is not there') as error:
    make(folder, part)
  assert str(folder / name) in str(error.value)


def test_damaged_tables_are_told(folder):
  table = folder / 'list_landmarks_align_celeba.txt'
  whole = table.read_text()
  table.write_text(whole.replace('000003.jpg', 'other.jpg'))
  with pytest.raises(ValueError, match='align_celeba.txt has no row of 000003.jpg'):
    celeba.aligned(folder, 'test')
  table.write_text(whole.replace('000003.jpg 69', '000003.jpg x'))
  with pytest.raises(ValueError, match='a row that is not 10 numbers'):
    celeba.aligned(folder, 'test')
  table.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(ValueError, match='align_celeba.txt cannot be read'):
    celeba.aligned(folder, 'test')


def test_eye_distance_is_of_the_first_two_points():
  points = np.array([[[0.0, 0.0], [0.3, 0.4], [9, 9]]])
  np.testing.assert_allclose(base.eye_distance(points), [0.5])
