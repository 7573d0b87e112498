"""Your own folder of line drawings, from images only.

  --config=configs/image_folder.py --config.data.dir=PATH

png, jpg and whatever else pillow reads, of any size, in the folder and below it. There
is no true graph to score against: look at the panels in the workdir, and predict with
the weights that the run leaves there. Variants: `base`, `smoke` (tests).
"""

from configs import line_drawings

VARIANTS = ('base', 'smoke')


def get_config(variant='base'):
  """The config of one variant."""
  c = line_drawings.get_config(variant)
  c.data = dict(
    source='image_folder',
    dir='',
    side=128,
    polarity='auto',  # or 'dark_on_light', 'light_on_dark'
    flip=True,
    rotate=True,
    zoom=(0.8, 1.1),
    shift=0.1,
  )
  if variant == 'base':
    c.start_from = 'shipped'  # '' starts anew.
    c.train_steps = 2000
    c.optim.lr = 5e-4
  else:
    c.data.dir = 'examples'  # The drawings that come with the project.
  return c
