import pytest

from img2graph.data import images
from img2graph.data import photos
from tests.data.photo_sets import trees


@pytest.mark.parametrize(
  'name, train, test',
  [
    ('afhq', 'train', 'val'),
    ('hands', 'Hands', 'Hands'),
    ('horse', 'trainA', 'testA'),
    ('zebra', 'trainB', 'testB'),
  ],
)
def test_folders_make_the_parts(tmp_path, name, train, test):
  trees.below(tmp_path, *{train: 1, test: 1})
  for part, folder in (('train', train), ('fit', train), ('test', test)):
    found = photos.SETS[name](tmp_path, part)
    assert found.files == [tmp_path / folder / 'a/1.jpg']
    assert found.truth(0) == {}
  (tmp_path / test).rename(tmp_path / 'elsewhere')
  with pytest.raises(ValueError, match=f'belongs at {tmp_path / test}, but is not'):
    photos.SETS[name](tmp_path, 'test')


def test_flowers_learn_from_what_their_list_calls_test(tmp_path):
  trees.flowers(tmp_path)
  flowers = photos.SETS['flowers']
  assert [f.stem[-1] for f in flowers(tmp_path, 'train').files] == ['3', '4']
  assert [f.stem[-1] for f in flowers(tmp_path, 'test').files] == ['1']
  (tmp_path / 'setid.mat').write_bytes(b'nothing')
  with pytest.raises(ValueError, match="setid.mat has no 'tstid' to read"):
    flowers(tmp_path, 'train')


def test_any_folder_will_do(tmp_path):
  trees.below(tmp_path, 'x', 'y/z')
  for part in ('train', 'fit', 'test'):
    assert len(photos.SETS['folder'](tmp_path, part)) == 2
  with pytest.raises(ValueError, match='is not there'):
    photos.SETS['folder'](tmp_path / 'nowhere', 'train')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(images.BadImage, match='has no images'):
    photos.SETS['folder'](tmp_path / 'empty', 'train')
