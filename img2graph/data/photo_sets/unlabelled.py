"""Sets without points, to look at: AFHQ, hands, flowers, horses and zebras, any folder.

afhq          train/cat/... and so on; the part 'test' is val/ (StarGAN v2)
hands         Hands/ (11k Hands); all photographs in every part
flowers       jpg/image_00001.jpg ... and setid.mat (Oxford 102): learned from is what
              it calls tstid, 6,149 photographs; the part 'test' is trnid, 1,020
horse, zebra  trainA/ and trainB/; the part 'test' is testA/ and testB/ (CycleGAN). The
              paper leaves out photographs of several animals and turns them all to the
              left, by hand, and publishes no list: remove or mirror yours likewise
folder        all photographs in the folder and below it, in every part

The part 'fit' is that of 'train', without points.
"""

import functools

from img2graph.data import images
from img2graph.data.photo_sets import base


def afhq(folder, part):
  """Photos of animals' faces; see the top of the file."""
  name = 'val' if part == 'test' else 'train'
  return _below(folder, name, what=f"AFHQ's folder {name}")


def hands(folder, part):
  """Photos of hands; see the top of the file."""
  del part
  return _below(folder, 'Hands', what="11k Hands' folder of photographs")


def flowers(folder, part):
  """Photos of flowers; see the top of the file."""
  path = base.need(folder, 'setid.mat', what="Oxford 102's list setid.mat")
  jpg = base.need(folder, 'jpg', what="Oxford 102's folder of photographs jpg")
  numbers = base.read_mat(path, 'trnid' if part == 'test' else 'tstid').ravel()
  names = [f'image_{number:05}.jpg' for number in numbers.tolist()]
  return base.Photos(base.need_files(jpg, names), turn=True)


def _cyclegan(folder, part, *, letter):
  name = ('test' if part == 'test' else 'train') + letter
  return _below(folder, name, what=f"horse2zebra's folder {name}")


horse = functools.partial(_cyclegan, letter='A')
zebra = functools.partial(_cyclegan, letter='B')


def any_folder(folder, part):
  """Photos of any folder; see the top of the file."""
  del part
  files = images.find(base.need(folder, '.', what='the folder of photos'))
  return base.Photos(files, turn=True)


def _below(folder, name, what):
  return base.Photos(images.find(base.need(folder, name, what=what)), turn=True)
