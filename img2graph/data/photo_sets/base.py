"""What every set of photographs offers, and how its files are found.

A set has three parts: 'train', what a model learns from, images alone; 'fit', annotated
images that the regression of `metrics.keypoints` is fitted on; 'test', annotated images
that it is judged on. Positions are (x, y) in [-1, 1] of the part of the photograph that
is shown, -1 and 1 being its outer edges, however it is stretched to a square.
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
from PIL import Image

from img2graph.data import images

# Not absl's logger, which training silences.
_LOG = logging.getLogger(__name__)

PARTS = ('train', 'fit', 'test')


@dataclasses.dataclass(frozen=True)
class Photos:
  """The photographs of one part of a set.

  Attributes:
    files: n paths.
    boxes: `[n, 4]` float, (left, top, right, bottom) in pixels of each photograph of
      what is shown; None for all of it.
    points: `[n, M, 2]` float, (x, y) in [-1, 1] of the box; None if there are none.
    visible: `[n, M]`, 1 where a point is annotated, else 0; None for all.
    scale: `[n]` float > 0, what distances are divided by, in the unit of the points;
      None for the image side, 2.
    turn: turn photographs as their EXIF entries say. Boxes and points of published sets
      are those of the pixels as they are stored.
  """

  files: Sequence[Any]
  boxes: Any = None
  points: Any = None
  visible: Any = None
  scale: Any = None
  turn: bool = False

  def __post_init__(self):
    """Raises ValueError for points, or a scale, that nothing can be judged by."""
    if self.points is not None:
      _check_points(self.points, (len(self.files),), self.files[0])
      known = np.isfinite(self.points).all(axis=-1)  # [n, M]
      if self.visible is not None:
        known |= np.asarray(self.visible) == 0
      if not known.all():
        wrong = self.files[int(np.argmin(known.all(axis=1)))]
        raise ValueError(f'the points of {wrong} must be finite numbers.')
    if self.scale is not None and not (np.asarray(self.scale) > 0).all():
      wrong = self.files[int(np.argmin(np.asarray(self.scale) > 0))]
      raise ValueError(
        f'the points of {wrong} that distances are divided by the distance of, such as '
        'the eyes, must be apart.'
      )

  def __len__(self):
    return len(self.files)

  def paths(self):
    """All files that are read."""
    return list(self.files)

  def pixels(self, index, side):
    """Photograph `index`, stretched to a square: `[side, side, 3]` uint8."""
    box = None if self.boxes is None else tuple(self.boxes[index].tolist())
    return read_square(self.files[index], side, box=box, turn=self.turn)

  def truth(self, index):
    """Annotations of photograph `index`: 'points', 'visible', 'scale'; or nothing."""
    if self.points is None:
      return {}
    visible = None if self.visible is None else self.visible[index]
    return annotation(
      self.points[index],
      visible=visible,
      scale=2.0 if self.scale is None else self.scale[index],
    )


def annotation(points, *, visible=None, scale=2.0):
  """The annotations of one photograph, as they stand in a batch (`data.sources`).

  Args:
    points: `[M, 2]`.
    visible: `[M]`; None for all.
    scale: [] float.

  Raises:
    ValueError: the points have another shape.
  """
  _check_points(points, (), 'a photograph')
  visible = np.ones(len(points)) if visible is None else visible
  return {
    'points': np.asarray(points, np.float32),
    'visible': np.asarray(visible, np.float32),
    'scale': np.float32(scale),
  }


def _check_points(points, leading, name):
  shape = np.shape(points)
  if len(shape) != len(leading) + 2 or shape[:-2] != leading or shape[-1] != 2:
    wanted = ', '.join(map(str, (*leading, 'M', 2)))
    of = f'{name} and the others' if leading else name
    raise ValueError(f'the points of {of} must be [{wanted}], (x, y); got {shape}.')


def stretch(image, side, box=None):
  """A PIL image, or a box of it, stretched to a square: `[side, side, 3]` uint8."""
  image = images.to_rgb(image)
  if image.size != (side, side) or box is not None:
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
  return np.asarray(image)


def read_square(path, side, box=None, *, turn=False):
  """As `stretch`, of a file; raises `images.BadImage` if it cannot be read.

  `turn` turns it as its EXIF entry says.
  """
  return images.decode(path, lambda image: stretch(image, side, box), turn=turn)


def sizes(files, *, skip=False):
  """Width and height in pixels of image files, from their headers.

  Args:
    files: n paths.
    skip: pass over files that cannot be read, each with one warning.

  Returns:
    `[n, 2]` int64; 0 x 0 for those passed over.

  Raises:
    images.BadImage: a file cannot be read; with `skip`, none can.
  """

  def size(path):
    try:
      with Image.open(path, formats=images.FORMATS) as image:
        return image.size
    # Decoders meet damage in many ways.
    except Exception as error:
      if not skip:
        raise images.BadImage(f'{path} cannot be read ({error}).') from None
      _LOG.warning('skipped: %s cannot be read (%s).', path, error)
      return 0, 0

  # Of 160,000 files, which are slow to open one after another.
  with futures.ThreadPoolExecutor(16) as pool:
    found = np.array(list(pool.map(size, files)), np.int64).reshape(-1, 2)
  if len(found) and not found.any():
    raise images.BadImage(f'none of the {len(found)} photographs can be read.')
  return found


def eye_distance(points):
  """Distance of the first two points, `[n]`, in the unit of the points `[n, M, 2]`."""
  return np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)


def need(folder, *names, what):
  """The first of some names that is there in a folder.

  Args:
    folder: path of the set.
    *names: paths in it; several where the source is laid out in different ways.
    what: what it holds and where it comes from, for the message.

  Returns:
    `pathlib.Path`.

  Raises:
    ValueError: none is there; one sentence says what is missing and where it belongs.
  """
  if not str(folder):
    raise ValueError('data.dir must name the folder of the photographs; it is empty.')
  folder = pathlib.Path(folder)
  for name in names:
    if (folder / name).exists():
      return folder / name
  others = f' (or {", ".join(names[1:])} there)' if names[1:] else ''
  raise ValueError(f'{what} belongs at {folder / names[0]}{others}, but is not there.')


def need_all(paths):
  """Raises ValueError unless all of some paths are files; tells how many are not."""
  missing = [path for path in paths if not os.path.isfile(path)]
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(paths)} files of the part are not there; the first '
      f'belongs at {missing[0]}.'
    )


def need_files(folder, names):
  """Paths of files in a folder, of which the first must be there.

  Raises:
    ValueError: there are no names, or the first file is missing.
  """
  paths = [pathlib.Path(folder, name) for name in names]
  if not paths:
    raise ValueError(f'the lists choose no photograph of {folder}.')
  if not paths[0].is_file():
    raise ValueError(
      f'the photograph {paths[0].name} of the lists belongs at {paths[0]}, '
      'but is not there.'
    )
  return paths


def rows(path, columns, separator=None):
  """Rows of a text file with at least so many columns, as lists of text.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read ({error}).') from None
  found = [line.strip().split(separator) for line in text.splitlines()]
  return [row for row in found if len(row) >= columns]


def read_mat(path, name, **options):
  """A variable of a file of MATLAB.

  Args:
    path: the file.
    name: of the variable.
    **options: see `scipy.io.loadmat`.

  Raises:
    ValueError: the file cannot be read, or has no such variable.
  """
  from scipy import io

  try:
    return io.loadmat(path, **options)[name]
  # Damage shows in many ways, of which most are the reader's own.
  except Exception as error:
    raise ValueError(f'{path} has no {name!r} to read ({error}).') from None
