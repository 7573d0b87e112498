"""Human3.6M, the simplified set of Zhang et al. (LMDIS): 128 x 128, 32 joints.

train, fit   subjects 1, 5, 6, 7, 8 and 9
test         subject 11
in both the sequences of six activities. The scale is the side. Without the background,
which is what tables report, masked pixels are mid grey, as the published code has it;
with it (`with_background`) the photographs are as they are.

As published:
  S1/WithBackground/SEQUENCE/FRAME.jpg, S5/... and so on
  S1/BackgroudMask/SEQUENCE/FRAME.png       (spelt so)
  S1/Landmarks/SEQUENCE/FRAME.mat           keypoints_2d [32, 2]: x, y in [0, 1]
"""

import dataclasses
import pathlib

import numpy as np

from img2graph.data.photo_sets import base

ACTIVITIES = ('Directions', 'Discussion', 'Posing', 'Waiting', 'Greeting', 'Walking')
_SUBJECTS = {'train': (1, 5, 6, 7, 8, 9), 'fit': (1, 5, 6, 7, 8, 9), 'test': (11,)}
_GREY = 127.5
_JOINTS = 32


@dataclasses.dataclass(frozen=True)
class _Frames(base.Photos):
  """Frames of videos, whose masks and joints lie beside them in files of their own.

  Attributes:
    masked: whether to leave the background out.
    annotated: whether to read the joints.
  """

  masked: bool = True
  annotated: bool = False

  def paths(self):
    beside = []
    if self.masked:
      beside.append(('BackgroudMask', '.png'))
    if self.annotated:
      beside.append(('Landmarks', '.mat'))
    more = [self._beside(i, *b) for b in beside for i in range(len(self))]
    return super().paths() + more

  def pixels(self, index, side):
    pixels = super().pixels(index, side)
    if not self.masked:
      return pixels
    mask = base.read_square(self._beside(index, 'BackgroudMask', '.png'), side)
    share = mask.astype(np.float32) / 255
    return np.round(pixels * share + _GREY * (1 - share)).astype(np.uint8)

  def truth(self, index):
    if not self.annotated:
      return {}
    path = self._beside(index, 'Landmarks', '.mat')
    points = base.read_mat(path, 'keypoints_2d')
    numbers = points.dtype.kind in 'iuf' and np.isfinite(points).all()
    if points.shape != (_JOINTS, 2) or not numbers:
      raise ValueError(
        f'{path}: keypoints_2d must be [{_JOINTS}, 2], finite numbers; got '
        f'{points.dtype} {points.shape}.'
      )
    return base.annotation(points * 2 - 1)

  def _beside(self, index, folder, suffix):
    file = self.files[index]
    return file.parents[2] / folder / file.parent.name / f'{file.stem}{suffix}'


def without_background(folder, part):
  """Photos on grey; see the top of the file."""
  return _frames(folder, part, masked=True)


def with_background(folder, part):
  """Photos as they are; see the top of the file."""
  return _frames(folder, part, masked=False)


def _frames(folder, part, *, masked):
  files = []
  for subject in _SUBJECTS[part]:
    frames = base.need(
      folder,
      f'S{subject}/WithBackground',
      what=f"Human3.6M's folder of frames of subject {subject}",
    )
    if masked:
      base.need(folder, f'S{subject}/BackgroudMask', what='their folder of masks')
    if part != 'train':
      base.need(folder, f'S{subject}/Landmarks', what='their folder of joints')
    files += _in_order(frames)
  if not files:
    raise ValueError(
      f'{folder} has no sequence of {", ".join(ACTIVITIES)} for the part {part!r}.'
    )
  return _Frames(files, masked=masked, annotated=part != 'train')


def _in_order(frames):
  """Frames of the chosen activities, sequence by sequence."""
  sequences = sorted(p for p in pathlib.Path(frames).iterdir() if p.is_dir())
  return [
    file
    for sequence in sequences
    if sequence.name.startswith(ACTIVITIES)
    for file in sorted(sequence.glob('*.jpg'))
  ]
