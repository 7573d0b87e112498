"""Tests of img2graph/data/packed_images.py."""

import io

import numpy as np
import pytest
from PIL import EpsImagePlugin
from PIL import Image

from img2graph.data import images
from img2graph.data import packed_images


def _pictures(count):
  return np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3), np.uint8)


def _packed(pictures, kind='PNG', **options):
  files = []
  for picture in pictures:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    files.append(file.getvalue())
  offsets = np.cumsum([0, *map(len, files)])
  return {'data': np.frombuffer(b''.join(files), np.uint8), 'offsets': offsets}


@pytest.mark.parametrize('kind', ['pixels', 'files'])
def test_pixels_and_files_give_the_same_images(kind):
  pictures = _pictures(3)
  arrays = {'images': pictures} if kind == 'pixels' else _packed(pictures)
  assert packed_images.count('a.npz', arrays) == 3
  for i, picture in enumerate(pictures):
    found = packed_images.decode('a.npz', arrays, i, np.asarray)
    np.testing.assert_array_equal(found, picture)


def test_grey_images_become_rgb():
  arrays = {'images': _pictures(2)[..., 0]}
  assert packed_images.count('a.npz', arrays) == 2
  found = packed_images.decode('a.npz', arrays, 1, np.asarray)
  np.testing.assert_array_equal(found, np.repeat(arrays['images'][1][..., None], 3, -1))


def test_files_of_sixteen_bits_keep_their_shades():
  ramp = np.arange(0, 256, 17, np.uint8).reshape(4, 4)
  arrays = _packed([ramp.astype(np.uint16) * 257])
  found = packed_images.decode('a.npz', arrays, 0, np.asarray)
  np.testing.assert_array_equal(found, np.repeat(ramp[..., None], 3, -1))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_files_are_turned_once(kind):
  picture = _pictures(1)[0]
  exif = Image.Exif()
  exif[0x0112] = 6
  arrays = _packed([np.rot90(picture)], kind, exif=exif)
  found = packed_images.decode('a.npz', arrays, 0, np.asarray)
  np.testing.assert_array_equal(found, picture)


def test_a_file_with_unreadable_exif_entries_is_taken_as_it_is():
  pictures = _pictures(1)
  arrays = _packed(pictures, exif=b'Exif\0\0no entries')
  found = packed_images.decode('a.npz', arrays, 0, np.asarray)
  np.testing.assert_array_equal(found, pictures[0])


def test_a_damaged_file_is_named():
  arrays = _packed(_pictures(2))
  arrays['data'] = arrays['data'].copy()
  arrays['data'][arrays['offsets'][1] :] = 0
  with pytest.raises(images.BadImage, match='a.npz: image 1 is damaged'):
    packed_images.decode('a.npz', arrays, 1, np.asarray)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'offsets': np.array([0, 5, 3])}, 'must ascend from 0 to'),
    (
      {'offsets': np.array([0, 5, 3, 9], np.uint64), 'data': np.zeros(9, np.uint8)},
      'ascend',
    ),
    ({'offsets': np.array([[0]])}, r'offsets \[n \+ 1\]'),
    ({'offsets': np.array([0.0, 9.0]), 'data': np.zeros(9, np.uint8)}, 'whole numbers'),
    ({'offsets': np.array([0, 9]), 'data': np.zeros((9, 1), np.uint8)}, 'bytes'),
    ({'images': np.zeros((2, 4, 4), np.float32)}, 'must be .* uint8'),
    ({'images': np.zeros((2, 4, 4, 2), np.uint8)}, 'must be .* uint8'),
    ({'images': np.zeros((0, 4, 4), np.uint8)}, 'not empty'),
  ],
)
def test_another_layout_is_named(change, message):
  arrays = _packed(_pictures(2)) | change
  with pytest.raises(ValueError, match=message):
    packed_images.count('a.npz', arrays)


def test_without_images_what_is_wanted_is_told():
  with pytest.raises(ValueError, match="must have 'images', or 'data' and 'offsets'"):
    packed_images.count('a.npz', {'label': np.zeros(3)})


def test_no_program_runs_for_a_file_of_postscript(monkeypatch):
  ran = []
  monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *a, **k: ran.append(a))
  with pytest.raises(images.BadImage, match='a.npz: image 0 is damaged'):
    packed_images.decode('a.npz', _packed(_pictures(1), 'EPS'), 0, np.asarray)
  assert not ran
