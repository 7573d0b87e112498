"""Images inside an `.npz` file, as pixels or as image files end to end.

images          `[n, H, W, 3]` or `[n, H, W]` uint8; or
data, offsets   `[bytes]` uint8 and `[n + 1]` int: file k is data[offsets[k] :
                offsets[k + 1]], JPEG or what else `images.read` takes
"""

import io

import numpy as np
from PIL import Image

from img2graph.data import images


def count(path, arrays):
  """Number of images.

  Args:
    path: of the file, for messages.
    arrays: dict of what it holds, as `archives.read_arrays` reads it.

  Raises:
    ValueError: it holds no images, or they are not in the layout above.
  """
  if 'images' in arrays:
    pixels = arrays['images']
    colours = pixels.shape[3:] in ((), (3,))
    if pixels.dtype != np.uint8 or pixels.ndim < 3 or not colours or not pixels.size:
      raise ValueError(
        f'{path}: images must be [n, H, W] or [n, H, W, 3] uint8, not empty; got '
        f'{pixels.dtype} {pixels.shape}.'
      )
    return len(pixels)
  if not {'data', 'offsets'} <= arrays.keys():
    raise ValueError(f"{path} must have 'images', or 'data' and 'offsets'.")
  data, offsets = arrays['data'], arrays['offsets']
  whole = offsets.dtype.kind in 'iu' and offsets.ndim == 1 and len(offsets) > 1
  if data.dtype != np.uint8 or data.ndim != 1 or not whole:
    raise ValueError(
      f'{path}: data must be [bytes] uint8, and offsets [n + 1] whole numbers.'
    )
  # Not by differences, which unsigned numbers have none below 0 of.
  descends = (offsets[1:] < offsets[:-1]).any()
  if offsets[0] != 0 or offsets[-1] != len(data) or descends:
    raise ValueError(f'{path}: offsets must ascend from 0 to {len(data)}, the bytes.')
  return len(offsets) - 1


def decode(path, arrays, number, convert, *, turn=True):
  """What a function makes of one image.

  Args:
    path: of the file, for messages.
    arrays: what `count` has looked at.
    number: of the image.
    convert: a function of the PIL image in RGB, see `images.to_rgb`.
    turn: turn a file as its EXIF entry says, as `images.decode` does.

  Raises:
    images.BadImage: the image is damaged.
  """
  if 'images' in arrays:
    return convert(Image.fromarray(arrays['images'][number]).convert('RGB'))
  start, end = arrays['offsets'][number : number + 2].tolist()
  try:
    file = io.BytesIO(arrays['data'][start:end])
    with Image.open(file, formats=images.FORMATS) as image:
      return convert(images.to_rgb(images.turned(image) if turn else image))
  except Exception as error:  # Decoders meet damage in many ways.
    raise images.BadImage(f'{path}: image {number} is damaged ({error}).') from error
