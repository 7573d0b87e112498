"""Reading of image files as ink, and fitting of drawings into a square.

Ink is float32 in [0, 1]: 1 where the pen went, 0 on paper, whatever the colours of the
file. Coordinates of a square are those of `img2graph.geometry`; pixels of the original
image count from the outer corner of its first pixel, whose centre is (0.5, 0.5).
"""

import dataclasses
import functools
import os
import pathlib
import stat

import numpy as np
import scipy.ndimage
from PIL import ExifTags
from PIL import Image

from img2graph import files as file_lib
from img2graph import geometry

# What our pictures of graphs say of themselves.
MARK = 'img2graph'
POLARITIES = ('auto', 'dark_on_light', 'light_on_dark')
SUFFIXES = frozenset(
  ('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.dib', '.tif', '.tiff', '.gif')
  + ('.webp', '.ppm', '.pgm', '.pbm', '.pnm')
)
# Paper that differs by more than this between places of an image is unevenly lit.
_UNEVEN = 0.1
# Paper is at most this much darker than the median of an image.
_DARKEST_PAPER = 0.4
# How the files of our pictures of graphs end.
_OUR_NAMES = ('_overlay.png', 'strip.png', 'strip.gif', 'affinity.png')
# Only these decoders, here and elsewhere: others run programs (EPS) or are long
# abandoned.
FORMATS = ('PNG', 'JPEG', 'BMP', 'DIB', 'TIFF', 'GIF', 'WEBP', 'PPM')

# Value of the EXIF entry -> what brings the image upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):  # noqa: N818, the file is bad, not the program
  """An image file or folder cannot be used; the message is one sentence naming it."""


def read(path, *, polarity='auto'):
  """The ink of an image file.

  Colour counts as ink: dark ink is 1 - min(R, G, B), so a yellow line on white is as
  good as a black one, and light ink is max(R, G, B). The level of the paper becomes 0:
  the median of all pixels, or, where light is uneven, as on a photograph, that of the
  paper around each place (`paper_level`). An image of one colour has no ink. Of several
  frames or pages the first is read.

  Files of 16 and 32 bits and of floats do not say what is white. It is the smallest
  usual white that holds all values: of 8, 10, 12, 14 or 16 bits, of floats 1, 255 or
  65535. So a file of 16 bits whose brightest pixel is that dark is brightened; one that
  holds 8, 10 or 12 bits of a scanner or a camera is far commoner.

  Args:
    path: a PNG, JPEG, BMP, TIFF, GIF, WebP or PPM file: RGB, grey, palette, CMYK, with
      or without alpha, 1, 8, 16 or 32 bits or float, turned as its EXIF entry says.
    polarity: 'dark_on_light', 'light_on_dark', or 'auto': ink is what lies further from
      the median.

  Returns:
    `[H, W]` float32 in [0, 1].

  Raises:
    BadImage: the file is missing, a folder, a pipe, empty, cut off, unreadable, too
      large (about 178 megapixels), no image, or has pixels that are not finite.
    ValueError: there is no such polarity.
  """
  if polarity not in POLARITIES:
    raise ValueError(f'polarity must be one of {POLARITIES}; got {polarity!r}.')
  colours = read_colours(path)  # [H, W] or [H, W, 3]
  darkest = colours if colours.ndim == 2 else colours.min(axis=-1)
  lightest = colours if colours.ndim == 2 else colours.max(axis=-1)
  if polarity == 'auto':
    # What lies further from the paper is ink; a tie is one colour, without ink.
    below = np.maximum(np.median(darkest) - darkest, 0)
    above = np.maximum(lightest - np.median(lightest), 0)
    is_dark = np.mean(below, dtype=np.float64) >= np.mean(above, dtype=np.float64)
    polarity = 'dark_on_light' if is_dark else 'light_on_dark'
  ink = 1 - darkest if polarity == 'dark_on_light' else lightest
  paper = paper_level(ink)
  return np.clip((ink - paper) / np.maximum(1 - paper, np.float32(1e-6)), 0, 1)


def paper_level(ink):
  """The level of the paper of a drawing: one number, or that around each pixel.

  Paper is the lower quartile of each block of pixels, a 32nd of the longer side wide,
  of which the median of 3 x 3 counts, so that a block full of ink does not. If the
  paper of no block is much darker than that of another, it is the median of all pixels.

  Args:
    ink: `[H, W]` float32 in [0, 1], ink high, not empty.

  Returns:
    [] or `[H, W]` float32 in [0, 1].
  """
  median = np.float32(np.median(ink))
  height, width = ink.shape
  block = max(8, -(-max(height, width) // 32))
  rows, columns = -(-height // block), -(-width // block)
  if min(rows, columns) < 3:
    return median
  padded = np.pad(
    ink, ((0, rows * block - height), (0, columns * block - width)), mode='reflect'
  )
  blocks = padded.reshape(rows, block, columns, block).transpose(0, 2, 1, 3)
  levels = np.quantile(blocks.reshape(rows, columns, -1), 0.25, axis=-1)
  levels = scipy.ndimage.median_filter(levels.astype(np.float32), 3)
  # What is as dark as this is ink, a filled shape, and no paper in the shade.
  levels = np.minimum(levels, median + np.float32(_DARKEST_PAPER))
  if np.quantile(levels, 0.98) - np.quantile(levels, 0.02) < _UNEVEN:
    return median
  grid = np.meshgrid(
    (np.arange(height) + 0.5) / block - 0.5,
    (np.arange(width) + 0.5) / block - 0.5,
    indexing='ij',
  )
  return scipy.ndimage.map_coordinates(levels, grid, order=1, mode='nearest')


def read_colours(path):
  """Pixels of an image file in [0, 1]: float32 `[H, W]` if grey, else `[H, W, 3]`.

  Takes and raises what `read` does; alpha is laid on paper.
  """
  colours = decode(path, _to_array)
  if not np.all(np.isfinite(colours)):
    raise BadImage(f'{path} has pixels that are not finite numbers.')
  return np.clip(colours, 0, 1)


def count_pages(path):
  """Pages or frames of an image file, of which `read` takes the first.

  Further views inside a photograph, as telephones write them (MPO), are none.

  Returns:
    int; 1 for what cannot be read, which `read` tells of.
  """
  try:
    with Image.open(file_lib.expand(path), formats=FORMATS) as image:
      return 1 if image.format == 'MPO' else getattr(image, 'n_frames', 1)
  except Exception:  # Decoders meet damage in many ways.
    return 1


def read_photograph(path):
  """Pixels of a photograph in [0, 1], float32 `[H, W, 3]`.

  Takes and raises what `read` does; alpha is laid on white, see `to_rgb`.
  """
  return np.asarray(decode(path, to_rgb), np.float32) / 255


def to_rgb(image):
  """A PIL image of any kind in RGB, as photographs are seen in training and prediction.

  16 and 32 bits and floats keep their shades, of 256 levels; white is as `read` says.
  What is transparent is white, also where drawings would lie on black: that may not
  differ from one photograph of a class to another.

  Raises:
    ValueError: it has pixels that are not finite.
  """
  if image.mode[0] not in 'IF' and not _has_alpha(image):
    return image.convert('RGB')
  colours = _to_array(image, always_on_white=True)
  if not np.all(np.isfinite(colours)):
    raise ValueError('it has pixels that are not finite numbers')
  pixels = np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)
  return Image.fromarray(pixels).convert('RGB')


def decode(path, convert, *, turn=True):
  """What a function makes of an image file.

  Args:
    path: as `read` takes it.
    convert: a function of the loaded PIL image.
    turn: turn it as its EXIF entry says.

  Returns:
    What `convert` returns.

  Raises:
    BadImage: as `read` does.
  """
  path = file_lib.expand(path)
  try:
    if path.is_dir():
      raise BadImage(f'{path} is a folder, not an image file.')
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
      raise BadImage(f'{path} must be a regular file, not a pipe or a device.')
    if status.st_size == 0:
      raise BadImage(f'{path} is an empty file.')
    file = path.open('rb')
  except FileNotFoundError:
    raise BadImage(f'there is no file {path}.') from None
  except OSError as error:
    reason = error.strerror or error
    raise BadImage(f'{path} cannot be read ({reason}).') from error
  with file:
    try:
      with Image.open(file, formats=FORMATS) as image:
        image.load()
        return convert(turned(image) if turn else image)
    except Image.UnidentifiedImageError:
      raise BadImage(f'{path} is not an image of a known format.') from None
    except Image.DecompressionBombError:
      limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
      raise BadImage(f'{path} has more than {limit} million pixels.') from None
    # Decoders meet damage in many ways (zlib, struct, index errors, ...), and one bad
    # file must never stop the others.
    except Exception as error:
      raise BadImage(f'{path} is damaged or cut off ({error}).') from error


def turned(image):
  """A PIL image, turned as its EXIF entry says; as it is if there is none to read.

  Other entries do not count: pixels are good whatever is wrong with those.
  """
  image.load()  # Some decoders turn it themselves, and then say so.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Decoders meet damage in many ways.
    return image
  return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _to_array(image, *, always_on_white=False):
  """A loaded image to float32 `[H, W]` or `[H, W, 3]`, nominally in [0, 1]."""
  mode = image.mode
  if mode[0] in 'IF':
    values = np.asarray(image).astype(np.float32)
    # Such files do not say what is white; the smallest usual range that holds all.
    highest = values.max() if np.all(np.isfinite(values)) else 1
    whites = (1, 255, 65535) if mode == 'F' else (255, 1023, 4095, 16383, 65535)
    white = next((w for w in whites if highest <= w), highest)
    return values / np.float32(white)
  if _has_alpha(image):
    pixels = np.asarray(image.convert('RGBA')).astype(np.float32) / 255
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    on_white, on_black = colour * alpha + (1 - alpha), colour * alpha
    # White strokes on nothing are seen on black only.
    strokes_are_white = on_black.std() > 1.05 * on_white.std()
    return on_black if strokes_are_white and not always_on_white else on_white
  if mode in ('1', 'L'):
    return np.asarray(image.convert('L')).astype(np.float32) / 255
  return np.asarray(image.convert('RGB')).astype(np.float32) / 255


def _has_alpha(image):
  with_alpha = image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa')
  return with_alpha or 'transparency' in image.info


@dataclasses.dataclass(frozen=True)
class Frame:
  """Where an image lies in the square that `fit_square` made of it.

  Attributes:
    height: of the original image in pixels.
    width: likewise.
  """

  height: int
  width: int

  @property
  def extent(self):
    """Side of the square in pixels of the original: its longer side."""
    return max(self.height, self.width)

  @property
  def offset(self):
    """(x, y) in the square of the first corner of the original, in its pixels."""
    extent = self.extent
    return (extent - self.width) // 2, (extent - self.height) // 2

  def to_pixels(self, nodes):
    """Positions `[..., 2]` in [-1, 1] of the square to pixels of the original."""
    return (nodes + 1) * (self.extent / 2) - np.array(self.offset, np.float32)

  def from_pixels(self, nodes_px):
    """Inverse of `to_pixels`."""
    return (nodes_px + np.array(self.offset, np.float32)) * (2 / self.extent) - 1

  def to_image(self, nodes):
    """Positions `[..., 2]` in [-1, 1] of the square to [-1, 1] of the original."""
    size = np.array([self.width, self.height], np.float32)
    return self.to_pixels(nodes) * (2 / size) - 1

  def from_image(self, nodes):
    """Inverse of `to_image`."""
    size = np.array([self.width, self.height], np.float32)
    return self.from_pixels((nodes + 1) / 2 * size)


def fit_square(ink, side):
  """Pads a drawing to a square, centred, and brings it to `side` pixels.

  Enlarging is bilinear. Reducing keeps the darkest part of every cell, since an average
  would let thin lines fade: the maximum of k x k pixels, after a bilinear step to k
  times the side, at least twice as fine as the image, unless it is such a multiple
  already; from four times the side on, the maximum of all pixels of each cell, directly
  and without ever making the padded square.

  Args:
    ink: `[H, W]` float32 in [0, 1].
    side: pixels, at least 1.

  Returns:
    `[side, side]` float32 in [0, 1], and the `Frame` that maps positions back.
  """
  if ink.ndim != 2 or 0 in ink.shape:
    raise ValueError(f'ink must be [H, W] with at least one pixel; got {ink.shape}.')
  if side < 1:
    raise ValueError(f'side must be at least 1 pixel; got {side}.')
  frame = Frame(*ink.shape)
  left, top = frame.offset
  extent = frame.extent
  ink = np.asarray(ink, np.float32)
  if extent >= 4 * side:
    edges = np.round(np.arange(side + 1) * (extent / side)).astype(int)
    return _cell_max(_cell_max(ink, edges - top, 0), edges - left, 1), frame
  square = np.zeros((extent, extent), np.float32)
  square[top : top + frame.height, left : left + frame.width] = ink
  if extent <= side:
    factor = 1
  elif extent % side == 0:
    factor = extent // side
  else:
    # Twice as fine, since a line halfway between two pixels would lose half its ink.
    factor = -(-2 * extent // side)
  if extent != factor * side:
    fine = factor * side
    resized = Image.fromarray(square).resize((fine, fine), Image.Resampling.BILINEAR)
    square = np.clip(np.asarray(resized), 0, 1)
  # Slice by slice: many times as fast as a maximum over two axes of a reshape.
  rows = functools.reduce(np.maximum, (square[k::factor] for k in range(factor)))
  return functools.reduce(
    np.maximum, (rows[:, k::factor] for k in range(factor))
  ), frame


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Where an image lies in the square that `stretch` made of it: all over it.

  Attributes:
    height: of the original image in pixels.
    width: likewise.
  """

  height: int
  width: int

  def to_pixels(self, nodes):
    """Positions `[..., 2]` in [-1, 1] of the square to pixels of the original."""
    return geometry.to_pixels(nodes, self.height, self.width)


def stretch(image, side):
  """Stretches a photograph to a square.

  Bilinear; reducing takes the mean of what is reduced.

  Args:
    image: `[H, W, C]` float32 in [0, 1].
    side: pixels, at least 1.

  Returns:
    `[side, side, C]` float32 in [0, 1], and the `Stretch` that maps positions back.
  """
  frame = Stretch(*image.shape[:2])
  # Pillow's floats are of one channel.
  planes = (
    Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR)
    for plane in np.ascontiguousarray(np.moveaxis(image, -1, 0), np.float32)
  )
  square = np.stack([np.asarray(plane) for plane in planes], axis=-1)
  return np.clip(square, 0, 1), frame


def _cell_max(values, edges, axis):
  """Maximum of the cells [edges[i], edges[i+1]) along an axis; 0 for cells outside."""
  edges = np.clip(edges, 0, values.shape[axis])
  inside = edges[1:] > edges[:-1]
  maxima = np.maximum.reduceat(values, edges[:-1][inside], axis=axis)
  shape = list(values.shape)
  shape[axis] = len(inside)
  cells = np.zeros(shape, np.float32)
  cells[(slice(None),) * axis + (inside,)] = maxima
  return cells


def find(folder):
  """Image files of a folder and its subfolders, by their suffix.

  Hidden ones are left out, and so are pictures of graphs that `img2graph` has written
  there (`is_ours`). Links to folders are followed; a folder that is met again is not
  read again, so that links may go in circles.

  Args:
    folder: path of the folder.

  Returns:
    sorted list of `pathlib.Path`, not empty.

  Raises:
    BadImage: the folder is missing, is a file, cannot be read, or has no images.
  """
  folder = file_lib.expand(folder)
  if not folder.exists():
    raise BadImage(f'there is no folder {folder}.')
  if not folder.is_dir():
    raise BadImage(f'{folder} is a file, not a folder of images.')

  def fail(error):
    reason = error.strerror or error
    raise BadImage(f'folder {error.filename or folder} cannot be read ({reason}).')

  paths, left_out, met = [], 0, {os.path.realpath(folder)}
  for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
    shown = {name: os.path.join(parent, name) for name in folders if name[0] != '.'}
    folders.clear()
    # By name, and links last, so that it is the same everywhere which way is taken.
    for name in sorted(shown, key=lambda n: (os.path.islink(shown[n]), n)):
      real = os.path.realpath(shown[name])
      if real not in met:
        met.add(real)
        folders.append(name)
    for name in files:
      path = pathlib.Path(parent, name)
      if name.startswith('.') or path.suffix.lower() not in SUFFIXES:
        continue
      if is_ours(path):
        left_out += 1
      else:
        paths.append(path)
  if left_out and not paths:
    raise BadImage(f'folder {folder} has no images but pictures of ours.')
  if not paths:
    kinds = ', '.join(sorted(SUFFIXES))
    raise BadImage(f'folder {folder} has no images ({kinds}).')
  return sorted(paths)


def is_ours(path):
  """Whether a file is a picture of graphs that `img2graph` wrote, by name and mark."""
  if not path.name.endswith(_OUR_NAMES):
    return False
  try:
    with Image.open(path, formats=('PNG', 'GIF')) as image:
      mark = image.info.get('Software', image.info.get('comment', b''))
  except Exception:  # Whatever it is, it is not ours.
    return False
  return mark in (MARK, MARK.encode())
