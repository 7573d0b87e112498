import json

import numpy as np
import pytest

from img2graph.data.photo_sets import deepfashion
from tests.data.photo_sets import trees


def test_lists_and_points_are_read(tmp_path):
  trees.deepfashion(tmp_path)
  assert len(deepfashion.photos(tmp_path, 'train')) == 2
  assert deepfashion.photos(tmp_path, 'train').truth(0) == {}
  fit = deepfashion.photos(tmp_path, 'fit')
  assert (fit.pixels(1, 8) == 20).all()
  test = deepfashion.photos(tmp_path, 'test')
  assert [str(f.relative_to(tmp_path)) for f in test.files] == [
    'img/WOMEN/data_test/0.jpg'
  ]
  truth = test.truth(0)
  # Pixel 31.5 is 32 of 256 from the left, 255.5 the lower edge.
  np.testing.assert_allclose(truth['points'], [[-0.75, 1]] * 17)
  assert truth['scale'] == 2


def test_points_of_other_photographs_are_refused(tmp_path):
  trees.deepfashion(tmp_path)
  path = tmp_path / 'data_train.json'
  path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
  with pytest.raises(ValueError, match='must tell of the photographs of data_train'):
    deepfashion.photos(tmp_path, 'fit')
  scored = json.loads(path.read_text())
  for entry in scored:
    entry['keypoints'] = [[*point, 0.9] for point in entry['keypoints']]
  path.write_text(json.dumps(scored[::-1]))
  words = r'data_train.json: keypoints must be \[M\]\[x, y\] .*; got \(17, 3\)'
  with pytest.raises(ValueError, match=words):
    deepfashion.photos(tmp_path, 'fit')
  path.write_text('{')
  with pytest.raises(ValueError, match='data_train.json is not the list of points'):
    deepfashion.photos(tmp_path, 'fit')


@pytest.mark.parametrize('name', ['data_test.csv', 'data_test.json', 'img'])
def test_what_is_missing_is_told_with_its_place(tmp_path, name):
  trees.deepfashion(tmp_path)
  (tmp_path / name).rename(tmp_path / 'elsewhere')
  with pytest.raises(ValueError, match=f'belongs at {tmp_path / name}') as error:
    deepfashion.photos(tmp_path, 'test')
  assert str(error.value).endswith('but is not there.')
