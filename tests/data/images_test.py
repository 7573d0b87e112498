import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from img2graph.data import images


def cross(height=20, width=30):
  """A drawing with ink 1 on 0: one row and one column."""
  ink = np.zeros((height, width), np.float32)
  ink[height // 3] = 1
  ink[:, width // 4] = 1
  return ink


def save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  if mode:
    image = image.convert(mode)
  image.save(path, **options)
  return path


def as_bytes(ink):
  return np.round(255 * ink).astype(np.uint8)


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tif', 'gif', 'webp', 'ppm'])
@pytest.mark.parametrize('dark', [True, False])
def test_lossless_formats_give_the_drawing(tmp_path, suffix, dark):
  ink = cross()
  pixels = as_bytes(1 - ink if dark else ink)
  rgb = np.repeat(pixels[..., None], 3, axis=-1)
  options = dict(lossless=True) if suffix == 'webp' else {}
  path = save(tmp_path / f'a.{suffix}', rgb, **options)
  actual = images.read(path)
  assert actual.dtype == np.float32
  np.testing.assert_array_equal(actual, ink)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA'])
def test_modes_of_png_give_the_drawing(tmp_path, mode):
  path = save(tmp_path / 'a.png', as_bytes(1 - cross()), mode)
  np.testing.assert_array_equal(images.read(path), cross())


@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
def test_jpeg_gives_nearly_the_drawing(tmp_path, mode):
  ink = np.zeros((32, 32), np.float32)
  ink[8:16] = 1
  path = save(tmp_path / 'a.jpg', as_bytes(1 - ink), mode, quality=95)
  np.testing.assert_allclose(images.read(path), ink, atol=0.06)


def test_sixteen_and_thirty_two_bits(tmp_path):
  ink = cross() * np.float32(0.5)
  wide = np.round(65535 * (1 - ink))
  np.testing.assert_allclose(
    images.read(save(tmp_path / 'a.png', wide.astype(np.uint16))), ink, atol=1e-4
  )
  np.testing.assert_allclose(
    images.read(save(tmp_path / 'a.tif', wide.astype(np.int32))), ink, atol=1e-4
  )
  np.testing.assert_allclose(images.read(save(tmp_path / 'b.tif', 1 - ink)), ink)
  np.testing.assert_allclose(
    images.read(save(tmp_path / 'c.tif', 255 * (1 - ink))), ink, atol=1e-6
  )


@pytest.mark.parametrize('white', [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize('name, kind', [('a.png', np.uint16), ('a.tif', np.int32)])
def test_wide_files_may_hold_fewer_bits(tmp_path, white, name, kind):
  shades = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
  path = save(tmp_path / name, np.round(white * shades).astype(kind))
  np.testing.assert_allclose(images.read_colours(path), shades, atol=0.5 / white + 1e-6)
  black = save(tmp_path / name, np.zeros((4, 6), kind))
  assert not images.read_colours(black).any()


RAMP = np.arange(0, 256, 17, np.uint8).reshape(1, 16)
CLEAR_HALF = np.repeat([[255, 0]], 8, axis=1).astype(np.uint8)


@pytest.mark.parametrize(
  'name, pixels, expected',
  [
    ('grey.png', RAMP, RAMP),
    ('16_bits.png', RAMP.astype(np.uint16) * 257, RAMP),
    ('32_bits.tif', RAMP.astype(np.int32) * 257, RAMP),
    ('float.tif', RAMP.astype(np.float32) / 255, RAMP),
    ('alpha.png', np.stack([RAMP, CLEAR_HALF], -1), np.where(CLEAR_HALF, RAMP, 255)),
    # A drawing of white strokes would lie on black.
    (
      'light.png',
      np.stack([np.full_like(RAMP, 250), CLEAR_HALF], -1),
      np.where(CLEAR_HALF, 250, 255),
    ),
  ],
)
def test_photographs_keep_their_shades_and_lie_on_white(
  tmp_path, name, pixels, expected
):
  path = save(tmp_path / name, pixels)
  expected = np.repeat(expected[..., None], 3, axis=-1)
  rgb = images.decode(path, images.to_rgb)
  assert rgb.mode == 'RGB'
  np.testing.assert_array_equal(np.asarray(rgb), expected)
  actual = images.read_photograph(path)
  assert actual.dtype == np.float32
  np.testing.assert_allclose(actual, expected / 255, atol=1e-6)


def test_a_transparent_colour_of_a_palette_is_white_in_photographs(tmp_path):
  image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
  image.putpalette([255, 0, 0, 0, 0, 200])
  image.save(tmp_path / 'a.png', transparency=0)
  rgb = images.decode(tmp_path / 'a.png', images.to_rgb)
  np.testing.assert_array_equal(np.asarray(rgb), [[[255] * 3, [0, 0, 200]]])


def test_photographs_without_finite_pixels_are_told(tmp_path):
  path = save(tmp_path / 'a.tif', np.array([[0, np.nan]], np.float32))
  with pytest.raises(images.BadImage, match='a.tif .*not finite'):
    images.read_photograph(path)


@pytest.mark.parametrize('colour', [0, 255])
def test_drawing_in_the_alpha_channel_alone(tmp_path, colour):
  ink = cross()
  pixels = np.full((*ink.shape, 4), colour, np.uint8)
  pixels[..., 3] = as_bytes(ink)
  np.testing.assert_array_equal(images.read(save(tmp_path / 'a.png', pixels)), ink)


def test_transparent_palette(tmp_path):
  ink = cross()
  image = Image.fromarray(as_bytes(ink) // 255)
  image = image.convert('P')
  image.putpalette([255, 0, 0, 0, 0, 0])
  image.save(tmp_path / 'a.png', transparency=0)
  np.testing.assert_array_equal(images.read(tmp_path / 'a.png'), ink)


def test_coloured_ink_counts_in_full(tmp_path):
  ink = cross()
  yellow = np.full((*ink.shape, 3), 255, np.uint8)
  yellow[ink > 0] = (255, 255, 0)
  np.testing.assert_array_equal(images.read(save(tmp_path / 'a.png', yellow)), ink)
  blue = np.zeros((*ink.shape, 3), np.uint8)
  blue[ink > 0] = (0, 0, 255)
  np.testing.assert_array_equal(images.read(save(tmp_path / 'b.png', blue)), ink)


def test_grey_paper_becomes_zero(tmp_path):
  ink = cross()
  grey = np.where(ink > 0, 20, 150).astype(np.uint8)
  actual = images.read(save(tmp_path / 'a.png', grey))
  np.testing.assert_allclose(actual, ink * (130 / 150), atol=1e-6)
  light = images.read(tmp_path / 'a.png', polarity='light_on_dark')
  assert not light.any()


def lit(height, width, light):
  """A grid of dark lines on paper under `light`, as a drawing and as pixels."""
  ink = np.zeros((height, width), np.float32)
  ink[20::40] = ink[21::40] = 1
  ink[:, 30::60] = 1
  return ink, np.round(230 * light * (1 - 0.7 * ink)).astype(np.uint8)


def test_uneven_light_is_no_ink(tmp_path):
  y, x = np.mgrid[:300, :400]
  light = np.exp(-(((x - 100) / 300) ** 2) - ((y - 80) / 300) ** 2)  # A lamp.
  ink, pixels = lit(300, 400, light)
  actual = images.read(save(tmp_path / 'a.png', pixels))
  # All lines are darker than all paper, though the light is not.
  assert pixels[ink == 0].min() < pixels[ink == 1].max()
  inner = np.zeros(ink.shape, bool)
  inner[8:-8, 8:-8] = True
  assert actual[inner & (ink == 1)].min() > 2 * actual[inner & (ink == 0)].max()


def test_under_even_light_all_paper_is_one(tmp_path):
  rng = np.random.default_rng(0)
  _, pixels = lit(300, 400, np.ones((300, 400)))
  noisy = np.clip(pixels + rng.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8)
  assert images.paper_level(1 - noisy / np.float32(255)).shape == ()
  # A filled shape is ink, not paper in the shade.
  filled = pixels.copy()
  filled[100:200, 150:260] = 20
  actual = images.read(save(tmp_path / 'a.png', filled))
  assert actual[100:200, 150:260].min() > 0.5


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(10))
def test_every_exif_orientation_is_followed(tmp_path, suffix, orientation):
  rows, columns = np.mgrid[:32, :48]
  upright = as_bytes(np.exp(-(((rows - 8) / 6) ** 2 + ((columns - 12) / 9) ** 2)))
  stored = {
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.T,
    6: np.rot90(upright),
    7: np.rot90(upright, 2).T,
    8: np.rot90(upright, -1),
  }.get(orientation, upright)
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = dict(lossless=True) if suffix == 'webp' else {}
  path = save(tmp_path / f'a.{suffix}', stored, exif=exif, **options)
  actual = images.read_photograph(path)[..., 0]
  np.testing.assert_allclose(actual, upright / 255, atol=0.06)


def test_wrong_exif_entries_beside_the_orientation_do_no_harm(tmp_path):
  ink = cross()
  # Two entries: to be turned by 90 degrees; and a resolution, a fraction, in letters.
  exif = b'Exif\0\0II*\0\x08\0\0\0\x02\0'
  exif += b'\x12\x01\x03\0\x01\0\0\0\x06\0\0\0' + b'\x1a\x01\x02\0\x03\0\0\x0072\0\0'
  path = save(tmp_path / 'a.png', as_bytes(1 - np.rot90(ink)), exif=exif + bytes(4))
  np.testing.assert_array_equal(images.read(path), ink)


def test_an_image_with_unreadable_exif_entries_is_read_as_it_is(tmp_path):
  ink = cross()
  path = save(tmp_path / 'a.png', as_bytes(1 - ink), exif=b'Exif\0\0no entries')
  np.testing.assert_array_equal(images.read(path), ink)


def test_exif_orientation_is_followed(tmp_path):
  ink = cross(20, 30)
  exif = Image.Exif()
  exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen
  path = save(tmp_path / 'a.png', as_bytes(1 - ink), exif=exif)
  np.testing.assert_array_equal(images.read(path), np.rot90(ink, -1))


@pytest.mark.parametrize('value', [0, 128, 255])
@pytest.mark.parametrize('polarity', images.POLARITIES)
@pytest.mark.parametrize('shape', [(1, 1), (9, 5)])
def test_one_colour_has_no_ink(tmp_path, value, polarity, shape):
  path = save(tmp_path / 'a.png', np.full(shape, value, np.uint8))
  actual = images.read(path, polarity=polarity)
  np.testing.assert_array_equal(actual, np.zeros(shape))


def test_bad_files_are_named_in_one_sentence(tmp_path):
  good = save(tmp_path / 'good.png', as_bytes(1 - cross(200, 300)))
  content = good.read_bytes()
  (tmp_path / 'truncated.png').write_bytes(content[: len(content) // 2])
  (tmp_path / 'header.png').write_bytes(content[:20])
  (tmp_path / 'empty.png').write_bytes(b'')
  (tmp_path / 'pdf.png').write_bytes(b'%PDF-1.4\n%%EOF')
  jpeg = save(tmp_path / 'good.jpg', as_bytes(1 - cross(200, 300))).read_bytes()
  (tmp_path / 'truncated.jpg').write_bytes(jpeg[: len(jpeg) // 2])
  nan = cross()
  nan[0, 0] = np.nan
  save(tmp_path / 'nan.tif', nan)
  infinite = cross()
  infinite[0, 0] = np.inf
  save(tmp_path / 'infinite.tif', infinite)
  (tmp_path / 'folder.png').mkdir()
  for name, reason in [
    ('truncated.png', 'cut off'),
    ('truncated.jpg', 'cut off'),
    ('header.png', 'cut off|not an image'),
    ('empty.png', 'empty'),
    ('pdf.png', 'not an image'),
    ('nan.tif', 'not finite'),
    ('infinite.tif', 'not finite'),
    ('folder.png', 'is a folder'),
    ('missing.png', 'there is no file'),
    ('good.png/inside.png', 'cannot be read'),
  ]:
    with pytest.raises(images.BadImage, match=reason) as caught:
      images.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_pipe_is_told_before_it_is_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')
  for path in (tmp_path / 'pipe.png', os.devnull):
    with pytest.raises(images.BadImage, match=f'{path} must be a regular file'):
      images.read(path)


def test_file_without_permission_is_named(tmp_path, monkeypatch):
  path = save(tmp_path / 'a.png', as_bytes(cross()))

  def refuse(self, *args, **kwargs):
    raise PermissionError(13, 'Permission denied')

  # The owner of everything may read it all, so the refusal is acted.
  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  with pytest.raises(images.BadImage, match='a.png cannot be read .Permission denied'):
    images.read(path)


def test_too_many_pixels_are_refused_and_many_are_read(tmp_path, monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)
  path = save(tmp_path / 'a.png', np.zeros((200, 200), np.uint8))
  with pytest.raises(images.BadImage, match='million pixels'):
    images.read(path)


def test_very_wide_drawing_is_read_and_fitted(tmp_path):
  ink = np.zeros((300, 20_000), np.float32)
  ink[150, 5_000:15_000] = 1
  actual = images.read(save(tmp_path / 'a.png', as_bytes(1 - ink)))
  np.testing.assert_array_equal(actual, ink)
  square, frame = images.fit_square(actual, 64)
  assert np.argwhere(square.max(axis=1) == 1).ravel().tolist() == [32]
  assert np.argwhere(square.max(axis=0) == 1).ravel().tolist() == list(range(16, 48))
  np.testing.assert_allclose(frame.to_pixels(np.zeros(2)), (10_000, 150))


def test_polarity_must_be_known(tmp_path):
  with pytest.raises(ValueError, match='polarity'):
    images.read(tmp_path / 'a.png', polarity='white')


@pytest.mark.parametrize('shape', [(64, 64), (1, 1), (30, 47), (48, 31), (7, 500)])
def test_frame_maps_pixels_to_the_square_and_back(shape):
  frame = images.Frame(*shape)
  points = np.random.default_rng(0).uniform(-1, 1, (50, 2))
  np.testing.assert_allclose(
    frame.from_pixels(frame.to_pixels(points)), points, atol=1e-6
  )
  np.testing.assert_allclose(
    frame.from_image(frame.to_image(points)), points, atol=1e-6
  )
  corners = frame.to_pixels(frame.from_image(np.array([[-1.0, -1.0], [1.0, 1.0]])))
  np.testing.assert_allclose(corners, [(0, 0), shape[::-1]], atol=1e-5)


@pytest.mark.parametrize('shape', [(16, 16), (20, 33), (70, 70), (105, 81), (900, 400)])
def test_a_dot_stays_where_the_frame_says(shape):
  row, column = shape[0] // 3, 2 * shape[1] // 3
  ink = np.zeros(shape, np.float32)
  ink[row, column] = 1
  square, frame = images.fit_square(ink, 64)
  assert square.shape == (64, 64)
  weight = square / square.sum()
  centre = np.arange(64) + 0.5
  found = np.array([weight.sum(0) @ centre, weight.sum(1) @ centre]) / 32 - 1
  expected = frame.from_pixels(np.array([column + 0.5, row + 0.5]))
  np.testing.assert_allclose(found, expected, atol=1.1 / 32)


def test_thin_lines_survive_strong_reduction():
  for extent in (100, 130, 255, 256, 300, 1111):
    ink = np.zeros((extent, extent), np.float32)
    ink[extent // 2] = 1
    square, _ = images.fit_square(ink, 64)
    assert square.max(axis=0).min() > 0.7


def test_square_of_the_same_side_is_unchanged():
  ink = np.random.default_rng(0).random((32, 32), np.float32)
  np.testing.assert_array_equal(images.fit_square(ink, 32)[0], ink)
  wide = ink[:10]
  square, frame = images.fit_square(wide, 32)
  np.testing.assert_array_equal(square[11:21], wide)
  assert frame.offset == (0, 11) and not square[:11].any() and not square[21:].any()


def test_cells_of_an_exact_multiple_are_block_maxima():
  ink = np.random.default_rng(0).random((80, 80), np.float32)
  expected = ink.reshape(8, 10, 8, 10).max(axis=(1, 3))
  np.testing.assert_array_equal(images.fit_square(ink, 8)[0], expected)


def test_empty_ink_and_side_are_refused():
  with pytest.raises(ValueError, match='at least one pixel'):
    images.fit_square(np.zeros((0, 3)), 8)
  with pytest.raises(ValueError, match='side'):
    images.fit_square(np.zeros((3, 3)), 0)


def test_find_lists_images_sorted_and_without_hidden_ones(tmp_path):
  for name in ('b.png', 'a.JPG', 'notes.txt', '.hidden.png', 'sub/c.tif', '.git/d.png'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'x')
  found = [p.relative_to(tmp_path).as_posix() for p in images.find(tmp_path)]
  assert found == ['a.JPG', 'b.png', 'sub/c.tif']


@pytest.mark.parametrize('suffix', ['jpe', 'jfif', 'dib', 'pbm', 'pnm'])
def test_find_knows_every_suffix_of_a_kind_that_is_read(tmp_path, suffix):
  ink = cross()
  path = tmp_path / f'a.{suffix}'
  Image.fromarray(as_bytes(1 - ink)).convert('1').save(path, quality=100)
  assert images.find(tmp_path) == [path]
  np.testing.assert_allclose(images.read(path), ink, atol=0.06)


def test_folders_and_files_may_begin_with_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  path = save(tmp_path / 'a.png', as_bytes(cross()))
  assert images.find('~') == [path]
  np.testing.assert_array_equal(images.read('~/a.png'), images.read(path))


def test_find_follows_links_to_folders_and_reads_each_folder_once(tmp_path):
  for name in ('set/a.png', 'set/sub/b.png', 'store/c.png', 'store/deep/d.png'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')
  for name, target in (
    ('set/linked', 'store'),
    ('set/again', 'set/sub'),
    ('set/sub/up', 'set'),
    ('store/round', 'store'),
    ('set/.hidden', 'store'),
  ):
    (tmp_path / name).symlink_to(tmp_path / target)
  found = [p.relative_to(tmp_path).as_posix() for p in images.find(tmp_path / 'set')]
  assert found == [
    'set/a.png',
    'set/linked/c.png',
    'set/linked/deep/d.png',
    'set/sub/b.png',
  ]


def test_folders_without_images_are_named(tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('x')
  for name, reason in [
    ('empty', 'no images'),
    ('file', 'is a file'),
    ('missing', 'there is no folder'),
  ]:
    with pytest.raises(images.BadImage, match=reason) as caught:
      images.find(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)

  def refuse(path):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(images.BadImage, match='empty cannot be read'):
    images.find(tmp_path / 'empty')
