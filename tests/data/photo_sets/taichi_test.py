import collections
import pickle

import numpy as np
import pytest

from img2graph.data.photo_sets import taichi
from tests.data.photo_sets import trees


def test_frames_and_tables_are_read(tmp_path, monkeypatch):
  trees.taichi(tmp_path, monkeypatch)
  train = taichi.photos(tmp_path, 'train')
  assert len(train) == 2 and train.truth(0) == {}
  fit = taichi.photos(tmp_path, 'fit')
  assert [f.name for f in fit.files] == ['00000.png', '00001.png']
  assert (fit.pixels(1, 8) == 20).all()
  truth = taichi.photos(tmp_path, 'test').truth(0)
  np.testing.assert_allclose(truth['points'][0], [-0.75, 0])
  assert truth['visible'].tolist() == [1] * 3 + [0] + [1] * 14
  assert truth['scale'] == 2


def test_tables_run_nothing(tmp_path):
  path = tmp_path / 'table.pkl'
  # Anything but arrays and tables: loading this would call what it names.
  path.write_bytes(pickle.dumps(collections.Counter('a')))
  with pytest.raises(ValueError, match='table.pkl is not .* names collections.Counter'):
    taichi.read_table(path)
  path.write_bytes(b'cos\nsystem\n(S"exit 1"\ntR.')
  with pytest.raises(ValueError, match='it names os.system'):
    taichi.read_table(path)
  path.write_bytes(pickle.dumps(np.zeros(3)))
  with pytest.raises(ValueError, match='table.pkl is not a table of points'):
    taichi.read_table(path)


@pytest.mark.parametrize(
  'name, part',
  [
    ('train', 'train'),
    ('landmark/taichi_train_gt.pkl', 'fit'),
    ('eval_images/taichi-256/test', 'test'),
  ],
)
def test_what_is_missing_is_told_with_its_place(tmp_path, monkeypatch, name, part):
  trees.taichi(tmp_path, monkeypatch)
  (tmp_path / name).rename(tmp_path / 'elsewhere')
  with pytest.raises(ValueError, match=f'belongs at {tmp_path / name}.* is not there'):
    taichi.photos(tmp_path, part)
