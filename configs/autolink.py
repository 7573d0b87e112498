"""AutoLink: keypoints and their links from photographs of one class, without labels.

  --config=configs/autolink.py:figures    generated figures, 64 px, two CPU cores
  --config=configs/autolink.py:cpu --config.data.dir=PATH    your own photographs
  --config=configs/autolink.py:celeba_wild --config.data.dir=PATH
      --config.method.loss.weights=vgg16.npz

"AutoLink", He, Wandt & Rhodin 2022; docs/autolink.md tells what to change for a folder
of one's own. A variant for each data set of the paper, with its number of keypoints and
its edges as published (`PUBLISHED`); `cpu`, `figures`, and `smoke` (tests).
"""

import ml_collections

# Of each data set keypoints, sigma^2 of the edges, and whether images are mirrored.
# Where the authors published no thickness it is the paper's for all, 5e-5, and where
# they published no number of keypoints it is that of their horses.
PUBLISHED = {
  'celeba': (10, 5e-5, True),
  'celeba_wild': (8, 2.5e-3, True),
  'cub_aligned': (10, 5e-5, False),
  'cub_001': (4, 5e-2, False),
  'cub_002': (4, 5e-2, False),
  'cub_003': (4, 5e-2, False),
  'cub_all': (4, 5e-2, False),
  'human36m': (16, 5e-5, False),
  'human36m_background': (16, 5e-5, True),
  'deepfashion': (16, 5e-5, False),
  'taichi': (10, 5e-4, True),
  'afhq': (32, 2.5e-4, True),
  'hands': (32, 2.5e-4, True),
  'flowers': (32, 2.5e-4, True),
  'horse': (32, 2.5e-4, True),
  'zebra': (32, 2.5e-4, False),
}

# How those with annotated points are judged, see docs/keypoint_data.md.
PROTOCOLS = {
  'celeba': 'mean_error',
  'celeba_wild': 'mean_error',
  'cub_aligned': 'mean_error',
  'cub_001': 'mean_error',
  'cub_002': 'mean_error',
  'cub_003': 'mean_error',
  'cub_all': 'mean_error',
  'human36m': 'swapped_error',
  'human36m_background': 'swapped_error',
  'deepfashion': 'pck',
  'taichi': 'summed_error',
}

VARIANTS = (*PUBLISHED, 'cpu', 'figures', 'smoke')


def get_config(variant='celeba_wild'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'autolink has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  c = _paper()
  if variant in PUBLISHED:
    keypoints, sigma_sq, flip = PUBLISHED[variant]
    c.method.num_keypoints = keypoints
    c.method.renderer.sigma_sq = sigma_sq
    c.data.name = variant
    c.data.flip = flip
    if variant in PROTOCOLS:
      c.eval.update(
        kind='keypoints',
        protocol=PROTOCOLS[variant],
        fit=dict(part='fit'),
        test=dict(part='test'),
        num_images=10**6,  # All.
      )
      c.eval_every = 0  # At the end.
    return c
  c.method.loss = dict(
    kind='fallback',  # Needs no weights; another loss than the paper's.
    seed=0,
    widths=(16, 32, 64),
    features=1.0,
    pyramid=1.0,
    scales=4,
    side=None,
  )
  c.method.side = c.data.side = 64
  c.method.grid = 'cells'
  c.method.detector = dict(down=(16, 32, 64), up=(32,))
  c.method.inpainter.features = (16, 32, 64, 64)
  c.method.renderer.sigma_sq = 2.5e-3
  c.batch_size = 16
  c.train_steps = 4000
  # At ten times the paper's rate, edge weights move as fast as theirs.
  c.optim.lr = 1e-3
  c.method.edges.rate = 51.2
  c.optim.schedule = 'cosine'
  c.eval_every = c.checkpoint_every = c.panel_every = 500
  if variant == 'figures':
    c.data = dict(source='figures', side=64)
    c.method.num_keypoints = 12
    c.eval.update(kind='keypoints', protocol='mean_error', fit={}, test={})
  if variant == 'smoke':
    c.data = dict(source='figures', side=32)
    c.method.num_keypoints = 4
    c.method.side = 32
    c.method.detector = dict(down=(8, 8), up=(8,))
    c.method.inpainter.features = (8, 8)
    c.method.loss.widths = (4,)
    c.batch_size = 8
    c.train_steps = 4
    c.log_every = c.eval_every = c.checkpoint_every = c.panel_every = 2
    c.eval.num_images = 16
    c.eval.batch_size = 8
  return c


def _paper():
  """What all data sets share."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.train_steps = 20_000
  c.batch_size = 64
  c.precision = 'float32'
  c.log_every = 50
  c.eval_every = c.checkpoint_every = c.panel_every = 1000
  c.keep_checkpoints = 2
  c.data = dict(source='photos', name='folder', dir='', side=128, flip=False)
  c.method = dict(
    name='autolink',
    num_keypoints=8,
    side=128,
    grid='corners',  # 'cells': positions where the detector's cells are.
    detector=dict(down=(64, 128, 256, 512), up=(256, 128)),
    edges=dict(rate=512.0, start=-4.0),
    renderer=dict(sigma_sq=2.5e-3, thickness='fixed', map='lines'),
    mask=dict(blocks=16, ratio=0.8),
    inpainter=dict(features=(64, 128, 256, 512, 512), learn_alpha=True),
    # vgg16-397923af.pth of torchvision, or what `img2graph convert-vgg` makes of it.
    loss=dict(kind='perceptual', weights='vgg16.npz', side=224),
    topology=None,  # dict(hidden=64, presence_bias=3.0, cost=0.0): of each image's own.
  )
  c.optim = dict(
    name='adamw', lr=1e-4, schedule='constant', weight_decay=1e-3, decay_all=True
  )
  c.eval = dict(
    num_images=256,
    batch_size=64,
    seed=1,
    thresholds=(0.05,),
    capacities=(),
    archive='',
  )
  return c
