"""Your own folder of line drawings, from images only.

  --config=configs/image_folder.py --config.data.dir=PATH

PNG, JPEG, TIFF and the other kinds that `images.SUFFIXES` names, of any size, in the
folder and below it. The shipped weights are adapted to it: half of every batch is from
the folder, to be drawn with its lines thinned to one width, and half is generated,
rough and clean, so that what those taught is not forgotten. There is no true graph to
score against: look at the panels in the workdir, and predict with the weights that the
run leaves there. Variants: `base`, `smoke` (tests).
"""

from configs import line_drawings

VARIANTS = ('base', 'smoke')


def get_config(variant='base'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'image_folder has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  c = line_drawings.get_config(variant)
  generated = c.data.to_dict()
  side = generated.pop('side')
  c.data = dict(
    source='image_folder',
    dir='',
    side=side,
    polarity='auto',  # or 'dark_on_light', 'light_on_dark'
    flip=True,
    rotate=True,
    zoom=(0.8, 1.1),
    shift=0.1,
    target_width=c.data.target_width,  # None: the images as they are.
    rehearse=1,  # Generated drawings for each image; 0: the folder alone.
    generated=generated,
  )
  c.batch_size = 8
  if variant == 'base':
    # The weights whose encoder is that of `line_drawings`; '' starts anew.
    c.start_from = 'line_drawings'
    c.train_steps = 100
    # At 3e-4 roads gained, but molecules and Omniglot lost.
    c.optim.lr = 1e-4
    # What is known already need not be found by chance.
    c.method.nodes.noise = 0.0
    c.method.renderer.noise = 0.0
    c.eval_every = c.checkpoint_every = c.panel_every = 50
  else:
    c.data.dir = 'examples'  # The drawings that come with the project.
    c.data.rehearse = 0
  return c
