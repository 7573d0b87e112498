"""AutoLink: keypoints and their links from photographs of one class, without labels.

  --config=configs/autolink.py:figures    generated figures, 64 px, two CPU cores
  --config=configs/autolink.py:cpu --config.data.dir=PATH    your own photographs
  --config=configs/autolink.py:celeba_wild --config.data.dir=PATH
      --config.method.loss.weights=vgg16.npz

"AutoLink", He, Wandt & Rhodin 2022; docs/autolink.md tells what to change for a folder
of one's own. A variant for each data set of the paper, with its number of keypoints and
its edges as published (`PUBLISHED`); `cpu`, and `cpu_vgg`, half as wide and with the
paper's loss at 64 pixels, which needs vgg16.npz and finds far more; `figures`, `smoke`
(tests).

The tables of the paper, `python -m launch.tables --paper=autolink`: RECIPE,SCALE with
the recipes `general`, one thickness for all data sets, and `tuned`, and the scales
`paper`, whose data lie in runs/data/celeba, cub, human36m, deepfashion and taichi, each
as docs/keypoint_data.md says, and whose loss needs vgg16.npz; `gpu` (the same network,
size, loss and steps, in bfloat16, on the archive runs/data/photos.npz, see
`data/photo_archive.py`), `cpu` and `cpu_vgg` (64 px and the fallback loss or the
paper's on that archive) and `smoke`, which have one thickness, `tuned`. `sweep` gives
the rows:
  1, 2, 3     landmarks of faces, bodies and birds
  4           variants of the edge map
  keypoints, thickness     Figure 4
  mask, patches            Figure 5
"""

from configs import simple_shapes

# Of each data set keypoints, sigma^2 of the edges, and whether images are mirrored.
# Where their code names no thickness it is the paper's for all, 5e-5, and where
# they published no number of keypoints both are those of their horses.
# Of faces in the wild with other numbers of keypoints see `_FACES`.
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
  'horse': (32, 2.5e-4, False),
  'zebra': (32, 2.5e-4, False),
}

# sigma^2 of CelebA in the wild with other numbers of keypoints than 8, as published.
_FACES = {16: 1e-3, 32: 7.5e-4}

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

# How training changes photographs at random, see `img2graph.data.augmentation`.
_UNCHANGED = dict(flip=False, turn=0.0, zoom=(1.0, 1.0), shift=0.0, recolor=0.0)

RECIPES = ('general', 'tuned')
SCALES = ('paper', 'gpu', 'cpu_vgg', 'cpu', 'smoke')
_RECIPES_AT_SCALES = ('general,paper', *(f'tuned,{scale}' for scale in SCALES))
VARIANTS = (*PUBLISHED, 'cpu', 'cpu_vgg', 'figures', 'smoke', *_RECIPES_AT_SCALES)

_GENERAL_SIGMA_SQ = 5e-5  # Of all data sets, section 3.3.


def get_config(variant='celeba_wild'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'autolink has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  if variant in _RECIPES_AT_SCALES:
    return _for_tables(*variant.split(','))
  c = _paper()
  if variant in PUBLISHED:
    keypoints, sigma_sq, flip = PUBLISHED[variant]
    c.method.num_keypoints = keypoints
    c.method.renderer.sigma_sq = sigma_sq
    c.data.name = variant
    c.data.flip = flip
    if variant == 'flowers':
      c.data.zoom, c.data.shift = (1.0, 1.05), 0.025  # Theirs crops .9 to 1 of them.
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
    side=0,  # That of the images.
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
  if variant in ('cpu', 'cpu_vgg'):
    # Photographs want a wider network, and fewer steps of it: without features that
    # know photographs, as wide as the paper's.
    c.method.detector = dict(down=(64, 128, 256, 512), up=(256, 128))
    c.method.inpainter.features = (64, 128, 256, 512)
    c.train_steps = 2000
    if variant == 'cpu_vgg':
      c.method.detector = dict(down=(32, 64, 128, 256), up=(128, 64))
      c.method.inpainter.features = (32, 64, 128, 128)
      c.method.loss = dict(kind='perceptual', weights='vgg16.npz', side=c.method.side)
  if variant == 'figures':
    c.data = dict(source='figures', side=64, missing=0.0)  # Limbs, see data/figures.py.
    c.method.num_keypoints = 12
    c.method.renderer.sigma_sq = 1e-3
    c.method.equivariance.weight = c.method.separation.weight = 0.25
    c.method.separation.distance = 0.08
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
  c = simple_shapes.shared()
  c.start_from = ''  # The path of weights of the same settings, to go on from.
  c.train_steps = 20_000
  c.batch_size = 64
  c.eval_every = c.checkpoint_every = c.panel_every = 1000
  c.data = dict(source='photos', name='folder', dir='', side=128, **_UNCHANGED)
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
    # Links and presence of each image's own, which the paper does not have.
    topology=dict(enabled=False, hidden=64, presence_bias=3.0, cost=0.0),
    # Keypoints move with the image, and keep apart; off, and not in the paper either.
    equivariance=dict(weight=0.0, turn=30.0, zoom=(0.8, 1.2), shift=0.1),
    separation=dict(weight=0.0, distance=0.1),
  )
  c.optim = dict(
    name='adamw', lr=1e-4, schedule='constant', weight_decay=1e-3, decay_all=True
  )
  c.eval = dict(
    kind='graph',
    num_images=256,
    batch_size=64,
    seed=1,
    thresholds=(0.05,),
    capacities=(),
    archive='',
  )
  return c


def _for_tables(recipe, scale):
  """The config that the rows of tables change."""
  if scale == 'paper':
    c = get_config('celeba_wild')
    c.data.dir = _folder('celeba_wild')
  elif scale in ('gpu', 'cpu_vgg', 'cpu'):
    c = _paper() if scale == 'gpu' else get_config(scale)
    if scale == 'gpu':
      c.precision = 'bfloat16'  # Theirs is float16, by autocast.
      c.eval_every = 2000
    c.data = dict(
      source='photo_archive',
      path='runs/data/photos.npz',
      part='train',
      side=c.method.side,
      **_UNCHANGED,
      split_by='',
      fraction=0.2,
      seed=0,
      label='label',
      classes=(),  # All.
      scale='',
    )
  else:
    c = get_config('smoke')
  if scale != 'paper':
    c.method.num_keypoints = 4 if scale == 'smoke' else 8
    parts = ({}, {}) if scale == 'smoke' else (dict(part='fit'), dict(part='test'))
    c.eval.update(kind='keypoints', protocol='mean_error', fit=parts[0], test=parts[1])
    c.eval.num_images = 16 if scale == 'smoke' else 10**6
    c.panel_every = 0
  if recipe == 'general':
    c.method.renderer.sigma_sq = _GENERAL_SIGMA_SQ
  return c


TABLES = {
  '1': 'Landmarks on CelebA (Table 1)',
  '2': 'Landmarks on human bodies (Table 2)',
  '3': 'Landmarks on CUB birds (Table 3)',
  '4': 'Variants of the edge map (Table 4)',
  'keypoints': 'Number of keypoints (Figure 4)',
  'thickness': 'Thickness of the edges (Figure 4)',
  'mask': 'Share of patches that are hidden (Figure 5)',
  'patches': 'Size of the patches (Figure 5)',
}

# How `launch.figures` draws a table; see its top.
FIGURES = dict.fromkeys(('keypoints', 'thickness', 'mask', 'patches'), 'scores')

_NAMES = ('error_percent', 'pck_percent', 'error_pixels')
_FORM = dict(
  columns={
    'score': ('|'.join(_NAMES), 1),
    'fixed keypoints': ('|'.join(f'fixed_keypoints/{name}' for name in _NAMES), 1),
  },
  about='Error in percent of the distance between the eyes (CelebA) or of the side; '
  'of DeepFashion percent of correct keypoints, more is better; of Taichi summed '
  'pixels of 256. Fixed keypoints know nothing of the image.',
)
FORMS = {name: _FORM for name in TABLES}

# What the authors print for (data set, keypoints): general, with its deviation, and
# tuned.
_PRINTED = {
  ('celeba', 10): ((3.92, 0.69), (3.54, None)),
  ('celeba_wild', 4): ((7.72, 0.47), (6.11, None)),
  ('celeba_wild', 8): ((5.66, 0.29), (5.24, None)),
  ('cub_aligned', 10): ((4.15, 0.24), (3.51, None)),
  ('cub_001', 4): ((20.6, 0.54), (20.2, None)),
  ('cub_002', 4): ((20.34, 0.96), (19.2, None)),
  ('cub_003', 4): ((19.7, 0.91), (18.5, None)),
  ('cub_all', 4): ((11.6, 0.33), (11.3, None)),
  ('human36m', 16): ((2.81, 0.07), (2.76, None)),
  ('deepfashion', 16): ((65.0, 1.2), (66.0, None)),
  ('taichi', 10): ((337.50, 25.08), (316.10, None)),
}
_TABLE_4 = {
  'original': ({}, (5.24, 2.76, 65.8, 316)),
  'alpha not learned': (
    {'method.inpainter.learn_alpha': False},
    (6.39, 2.87, 66.0, 374),
  ),
  'thickness learned, of all': (
    {'method.renderer.thickness': 'shared'},
    (6.12, 3.25, 49.1, 425),
  ),
  'thickness learned, of each': (
    {'method.renderer.thickness': 'each'},
    (5.94, 3.73, 50.2, 311),
  ),
  'a channel for each edge': (
    {'method.renderer.map': 'channels'},
    (5.65, 3.83, 65.1, 407),
  ),
  'keypoints without edges': (
    {'method.renderer.map': 'points'},
    (6.55, 3.58, 52.9, 722),
  ),
}
_TABLE_4_SETS = (
  ('celeba_wild', 8),
  ('human36m', 16),
  ('deepfashion', 16),
  ('taichi', 10),
)
# Those whose data are one archive, or drawn.
_SMALL = SCALES[1:]


def sweep(name):
  """The rows of a table, dicts as of `configs.image_graph_image.sweep`."""
  found = {
    '1': lambda: _landmarks(('celeba', 10), ('celeba_wild', 4), ('celeba_wild', 8)),
    '2': lambda: _landmarks(('human36m', 16), ('deepfashion', 16), ('taichi', 10)),
    '3': lambda: _landmarks(
      ('cub_aligned', 10),
      *((f'cub_{part}', 4) for part in ('001', '002', '003', 'all')),
    ),
    '4': _variants,
    'keypoints': lambda: _changes(
      'method.num_keypoints',
      (4, 8, 16, 32),
      lambda k: {'method.renderer.sigma_sq': _FACES[k]} if k in _FACES else {},
    ),
    'thickness': lambda: _changes(
      'method.renderer.sigma_sq', (5e-5, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2)
    ),
    'mask': lambda: _changes('method.mask.ratio', (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)),
    'patches': lambda: _changes('method.mask.blocks', (2, 4, 8, 16, 32)),
  }
  if name not in found:
    raise ValueError(f'autolink has the tables {", ".join(found)}; got {name!r}.')
  yield from found[name]()


def _landmarks(*settings):
  """Rows of both recipes for (data set, keypoints); of an archive at small scales.

  Sets whose own thickness the authors did not publish have no row of their own recipe:
  it would be the general one, whose row tells what they print for both.
  """
  for data, keypoints in settings:
    general, tuned = _PRINTED[data, keypoints]
    known = PUBLISHED[data][1] != _GENERAL_SIGMA_SQ
    yield dict(
      recipe='general',
      row={'set': data, 'K': str(keypoints)},
      overrides=_setting('general', data, keypoints),
      published={'score': general} | ({} if known else {'score, tuned': tuned}),
      scales=('paper',),
    )
    if known:
      yield dict(
        recipe='tuned',
        row={'set': data, 'K': str(keypoints)},
        overrides=_setting('tuned', data, keypoints),
        published={'score': tuned},
        scales=('paper',),
      )
  yield dict(recipe='tuned', row={'set': 'archive', 'K': '8'}, scales=_SMALL)


def _setting(recipe, data, keypoints):
  """Overrides for a data set; none for that of `_for_tables`."""
  here, there = get_config(f'{recipe},paper'), get_config(data)
  _, sigma_sq, flip = PUBLISHED[data]
  wanted = {
    'data.name': data,
    'data.dir': _folder(data),
    'data.flip': flip,
    'method.num_keypoints': keypoints,
    'eval.protocol': there.eval.protocol,
  }
  if recipe == 'tuned':
    wanted['method.renderer.sigma_sq'] = sigma_sq
  flat = here.to_dict()
  differ = {}
  for name, value in wanted.items():
    part, *keys = name.split('.')
    at = flat[part]
    for key in keys:
      at = at[key]
    if at != value:
      differ[name] = value
  return differ


def _folder(data):
  """Where a data set lies; those of one source share it."""
  return f'runs/data/{data.split("_")[0]}'


def _variants():
  """Table 4: the tuned recipe on four data sets; on an archive at small scales."""
  for name, (overrides, printed) in _TABLE_4.items():
    for (data, keypoints), score in zip(_TABLE_4_SETS, printed, strict=True):
      yield dict(
        recipe='tuned',
        row={'edge map': name, 'set': data},
        overrides=_setting('tuned', data, keypoints) | overrides,
        published={'score': (score, None)},
        scales=('paper',),
        **({} if name == 'original' else {'against': _original(data)}),
      )
    yield dict(
      recipe='tuned',
      row={'edge map': name, 'set': 'archive'},
      overrides=overrides,
      scales=_SMALL,
      **({} if name == 'original' else {'against': _original('archive')}),
    )


def _original(data):
  return {'edge map': 'original', 'set': data}


def _changes(name, values, more=lambda value: {}):
  """Rows of one value after the other, on CelebA in the wild or an archive."""
  for value in values:
    yield dict(
      recipe='tuned',
      row={name.split('.')[-1]: f'{value:g}'},
      overrides={name: value, **more(value)},
    )
