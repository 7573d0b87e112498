import shutil

import numpy as np
import pytest
from scipy import io

from img2graph.data.photo_sets import human36m
from tests.data.photo_sets import trees


@pytest.fixture
def folder(tmp_path):
  trees.human36m(tmp_path)
  return tmp_path


def test_subjects_and_activities_make_the_parts(folder):
  for part in ('train', 'fit'):
    files = human36m.without_background(folder, part).files
    assert {file.parents[2].name for file in files} == {
      f'S{n}' for n in (1, *range(5, 10))
    }
    assert {f.parent.name.split('.')[0] for f in files} == {'Walking 1', 'Posing'}
  files = human36m.with_background(folder, 'test').files
  assert [file.parents[2].name for file in files] == ['S11'] * 2


def test_the_background_is_grey_or_stays(folder):
  pixels = human36m.without_background(folder, 'test').pixels(0, 16)
  assert (pixels[:8] == 110).all() and np.isin(pixels[8:], (127, 128)).all()
  assert (human36m.with_background(folder, 'test').pixels(0, 16) == 110).all()


def test_joints_are_read_where_they_are_to_be_seen(folder):
  photos = human36m.without_background(folder, 'fit')
  truth = photos.truth(3)
  np.testing.assert_allclose(truth['points'], [[-0.5, 0.5]] * 32)
  assert truth['scale'] == 2 and truth['visible'].tolist() == [1] * 32
  assert human36m.without_background(folder, 'train').truth(0) == {}
  path = folder / 'S11/Landmarks/Posing.54138969/7.mat'
  path.write_bytes(b'nothing')
  with pytest.raises(ValueError, match="7.mat has no 'keypoints_2d' to read"):
    human36m.with_background(folder, 'test').truth(0)


@pytest.mark.parametrize(
  'joints', [np.zeros((31, 2)), np.zeros((2, 32)), np.full((32, 2), np.nan)]
)
def test_joints_that_are_none_are_told(folder, joints):
  path = folder / 'S11/Landmarks/Posing.54138969/7.mat'
  io.savemat(path, {'keypoints_2d': joints})
  with pytest.raises(ValueError, match=r'7.mat: keypoints_2d must be \[32, 2\]'):
    human36m.with_background(folder, 'test').truth(0)


@pytest.mark.parametrize('name', ['WithBackground', 'BackgroudMask', 'Landmarks'])
def test_what_is_missing_is_told_with_its_place(folder, name):
  shutil.rmtree(folder / 'S11' / name)
  with pytest.raises(ValueError, match=f'belongs at .*S11/{name}, but is not there'):
    human36m.without_background(folder, 'test')


def test_no_frame_of_the_activities_is_told(folder):
  for sequence in ('Walking 1.54138969', 'Posing.54138969'):
    shutil.rmtree(folder / 'S11/WithBackground' / sequence)
  with pytest.raises(ValueError, match="no sequence of Directions, .* the part 'test'"):
    human36m.with_background(folder, 'test')
