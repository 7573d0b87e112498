"""Tables of "Affinity Graph Supervision for Visual Recognition", Wang et al. 2020.

  --config=configs/affinity.py:RECIPE,SCALE --config.data.dir=FOLDER

RECIPE is `base`, the classifier alone, or `affinity`, supervised by the affinities of
its batches too. SCALE is `paper`: the protocol of its section 6.2 to the letter, 200
epochs of CIFAR-10; `jpeg`: the same of ResNet-20 on an archive of 50,000 of its images,
for a GPU without the set as published; `cpu`: ResNet-20 on 10,000 images for 20 epochs,
which two cores finish; or `smoke` (tests). RECIPE,paper,SET,DEPTH is the protocol of
another row of Table 3: `cifar10` or `cifar100` with 20, 56 or 110 layers,
`tiny_imagenet` with 18, 50 or 101. `sweep` gives the rows of a table:
  3         Table 3: three sets by three networks, base and affinity
  gamma     Figure 5, left: the focal loss's gamma
  weight    Figure 5, right: lambda, the weight of the affinity loss
  forms     the other losses on the mass (section 3.3, supplement F)
  diagonal  what the paper leaves open: an image's affinity to itself
  4         Table 4: run time and memory, by short runs of its own
Data lie in runs/data, as `img2graph/data/labelled.py` says; `data.dir` names another
folder. At all scales but `paper` they are the archive runs/data/cifar10.npz.
"""

import functools

import ml_collections

from configs import simple_shapes

RECIPES = ('base', 'affinity')
SCALES = ('paper', 'jpeg', 'cpu', 'smoke')

# Of the training images, as torch users know them; the paper says nothing of it.
_CIFAR = dict(mean=(0.491, 0.482, 0.447), deviation=(0.247, 0.243, 0.262))
_CIFAR100 = dict(mean=(0.507, 0.487, 0.441), deviation=(0.267, 0.256, 0.276))
_IMAGENET = dict(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))

# Images of a set, but for the tenth of them that validates.
_TRAINED = {'cifar10': 45_000, 'cifar100': 45_000, 'tiny_imagenet': 90_000}

# Accuracies of base and affinity, with their deviations, by set and depth.
_TABLE_3 = {
  ('cifar10', 20): ((91.34, 0.27), (92.03, 0.21)),
  ('cifar10', 56): ((92.24, 0.48), (92.90, 0.35)),
  ('cifar10', 110): ((92.64, 0.59), (93.42, 0.38)),
  ('cifar100', 20): ((66.51, 0.46), (67.27, 0.31)),
  ('cifar100', 56): ((68.36, 0.68), (69.79, 0.59)),
  ('cifar100', 110): ((69.12, 0.63), (70.5, 0.60)),
  ('tiny_imagenet', 18): ((48.35, 0.27), (49.30, 0.21)),
  ('tiny_imagenet', 50): ((49.86, 0.80), (51.04, 0.68)),
  ('tiny_imagenet', 101): ((50.72, 0.82), (51.82, 0.71)),
}

VARIANTS = (
  *(f'{recipe},{scale}' for recipe in RECIPES for scale in SCALES),
  *(f'{recipe},paper,{data},{n}' for recipe in RECIPES for data, n in _TABLE_3),
)


def get_config(variant='affinity,paper'):
  """The config of a variant, 'RECIPE,SCALE' or 'RECIPE,paper,SET,DEPTH'."""
  if variant not in VARIANTS:
    raise ValueError(
      f'affinity has the variants {"; ".join(VARIANTS)}; got {variant!r}.'
    )
  recipe, scale, *setting = variant.split(',')
  c = simple_shapes.shared()
  c.batch_size = 128
  c.panel_every = 0
  c.data = dict(
    source='labelled',
    name='cifar10',
    dir='runs/data',
    part='train',
    valid=0.1,
    test=0.2,  # Of archives; the other sets have a published one.
    seed=0,  # Open: whether each run draws its own validation part.
    most=0,
    flip=True,
    crop=4,
  )
  c.method = dict(
    name='affinity_batch',
    side=32,
    network=dict(kind='cifar', depth=20, num_classes=10),
    affinity=None,
    **_CIFAR,
  )
  if recipe == 'affinity':
    c.method.affinity = dict(
      weight=0.1,
      form='focal',
      gamma=4.0,
      mass='matrix',
      metric='distance',
      diagonal=False,  # Open; see the table `diagonal`.
    )
  c.optim = dict(
    name='sgd',
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    decay_all=True,  # As PyTorch's SGD decays: norms and biases too.
    schedule='piecewise',
    boundaries=(0.5, 0.75),  # Epochs 100 and 150 of 200.
    factors=(0.1, 0.01),
  )
  c.eval = dict(
    kind='classes',
    num_images=50_000,  # All.
    batch_size=128,
    seed=0,
    valid=dict(part='valid'),
    test=dict(part='test'),
  )
  _set_length(c, epochs=200)
  if scale != 'paper':
    c.data.name = 'archive'
    c.data.dir = 'runs/data/cifar10.npz'
  if scale == 'jpeg':
    # Of 50,000 images 10,000 test, and a tenth of the others validates.
    _set_length(c, epochs=200, images=36_000)
  if scale == 'cpu':
    # One of five images: 8,000 train, 2,000 validate, 10,000 test.
    c.data.most = 8_000
    c.eval.valid.most = 2_000
    c.eval.test.most = 10_000
    _set_length(c, epochs=20, images=8_000)
  if scale == 'smoke':
    c.train_steps, c.batch_size = 2, 8
    c.method.network.depth = 8
    c.eval.valid.most = c.eval.test.most = 64
    c.eval_every = c.checkpoint_every = c.log_every = 1
    c.eval.batch_size = 8
  if setting:
    data, depth = setting
    for name, value in _setting(data, int(depth)).items():
      *parents, key = name.split('.')
      place = functools.reduce(getattr, parents, c)
      with place.ignore_type():
        place[key] = ml_collections.ConfigDict(value) if key == 'network' else value
  return c


def _set_length(c, *, epochs, images=None):
  """Steps of a run in epochs, each of them validated."""
  images = images or _TRAINED[c.data.name]
  per_epoch = images // c.batch_size
  c.train_steps = epochs * per_epoch
  c.eval_every = c.checkpoint_every = c.log_every = per_epoch


TABLES = {
  '3': 'Accuracy with and without affinity supervision (Table 3)',
  'gamma': 'The power of the focal loss (Figure 5, left)',
  'weight': 'The weight of the affinity loss (Figure 5, right)',
  'forms': 'Losses on the target mass (section 3.3 and supplement F)',
  'diagonal': 'Affinity of an image to itself, in or out',
  '4': 'Run time and memory (Table 4)',
}

# How `launch.figures` draws a table; see its top.
FIGURES = {'3': ('features', 'curves'), 'gamma': 'curves', 'weight': 'curves'}

# Of a run that is there to be timed.
_TIMED_EPOCHS = 3

_ACCURACY = dict(
  columns={
    'test accuracy': ('test/accuracy', 100),
    'validation accuracy': ('valid/accuracy', 100),
    'test target mass': ('test/target_mass', 100),
    'best step': ('best_step', 1),
  },
  about='In percent. The weights that were best in validation are tested, once; '
  'validation and target mass are told of the end, and of the tested weights.',
  notes={
    'jpeg': 'The images are an archive of CIFAR-10 after a compression to JPEG: 36,000 '
    'train, 4,000 validate and 10,000 test; what the paper reports is of 45,000 '
    'original ones.',
    'cpu': 'The images are an archive of CIFAR-10 after a compression to JPEG: 8,000 '
    'train, for 20 epochs, 2,000 validate and 10,000 test; what the paper reports is '
    'of 45,000 original ones and 200 epochs.',
  },
)
FORMS = {name: _ACCURACY for name in TABLES} | {
  '4': dict(
    columns={
      'seconds an epoch': ('/wall_clock/train_seconds', 1 / _TIMED_EPOCHS),
      'images/s': ('/images_per_second', 1),
      'memory of a step MiB': ('/step_memory_mib', 1),
    },
    about=f'Time of training alone, over {_TIMED_EPOCHS} epochs, one run at a time; '
    'memory of one training step, parameters and batch included, as it was compiled. '
    'The paper measured on a Titan XP. The gain is the time that supervision adds.',
    alone=True,
  )
}


def sweep(name):
  """The rows of a table, dicts as of `configs.image_graph_image.sweep`."""
  found = {
    '3': _table_3,
    'gamma': _gamma,
    'weight': _weight,
    'forms': _forms,
    'diagonal': _diagonal,
    '4': _table_4,
  }
  if name not in found:
    raise ValueError(f'affinity has the tables {", ".join(found)}; got {name!r}.')
  yield from found[name]()


def _table_3():
  for (data, depth), published in _TABLE_3.items():
    overrides = _setting(data, depth)
    setting = {'set': data, 'network': f'ResNet-{depth}'}
    for recipe, accuracy in zip(RECIPES, published, strict=True):
      yield dict(
        recipe=recipe,
        row=setting | {'supervision': _SUPERVISION[recipe]},
        overrides=overrides,
        published={'accuracy': accuracy},
        # The small scales have one set and one network.
        scales=('paper',) if overrides else ('paper', 'cpu', 'smoke'),
        **(_against(setting) if recipe == 'affinity' else {}),
      )
  # Rows of their own, since their images are others.
  setting = {'set': 'cifar10 as JPEG', 'network': 'ResNet-20'}
  for recipe, accuracy in zip(RECIPES, _TABLE_3['cifar10', 20], strict=True):
    yield dict(
      recipe=recipe,
      row=setting | {'supervision': _SUPERVISION[recipe]},
      published={'accuracy': accuracy},
      scales=('jpeg',),
      **(_against(setting) if recipe == 'affinity' else {}),
    )


_SUPERVISION = {'base': 'classes', 'affinity': 'classes and affinities'}


def _against(setting):
  return {'against': setting | {'supervision': _SUPERVISION['base']}}


def _setting(data, depth):
  """Overrides for a set and a network; none for those of `get_config`."""
  if data == 'cifar10':
    return {} if depth == 20 else {'method.network.depth': depth}
  c = get_config('base,paper')
  c.data.name = data
  overrides = {'data.name': data}
  if data == 'cifar100':
    return overrides | {
      'method.network.depth': depth,
      'method.network.num_classes': 100,
      'method.mean': _CIFAR100['mean'],
      'method.deviation': _CIFAR100['deviation'],
    }
  _set_length(c, epochs=90)
  network = dict(kind='imagenet', depth=depth, num_classes=200, stem='imagenet')
  return overrides | {
    'data.crop': 0,
    'method.side': 64,
    'method.network': network,
    'method.mean': _IMAGENET['mean'],
    'method.deviation': _IMAGENET['deviation'],
    'optim.boundaries': (1 / 3, 2 / 3),  # Epochs 30 and 60 of 90.
    'train_steps': c.train_steps,
    'eval_every': c.eval_every,
    'checkpoint_every': c.checkpoint_every,
    'log_every': c.log_every,
  }


def _rows(column, settings, *, base='none (classes alone)'):
  """The base, and one row of `affinity` for each `{text: overrides}`."""
  base = {column: base}
  yield dict(recipe='base', row=base)
  for text, overrides in settings.items():
    yield dict(recipe='affinity', row={column: text}, overrides=overrides, against=base)


def _changes(name, values, default):
  """`{text: overrides}` of the values of an option of the affinity loss."""
  return {
    f'{value:g}': {} if value == default else {f'method.affinity.{name}': value}
    for value in values
  }


def _gamma():
  return _rows('gamma', _changes('gamma', (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 4.0))


def _weight():
  # The base is what a weight of 0 trains, and its mass is told in validation too.
  settings = _changes('weight', (0.01, 0.05, 0.1, 0.5, 1.0), 0.1)
  return _rows('lambda', settings, base='0 (classes alone)')


def _forms():
  # Rows and entries are summed, over N images and N^2 pairs: their weights are those of
  # means, which compare with a mass of the whole matrix.
  weight, count = 0.1, get_config('affinity,paper').batch_size
  rows = {'mass': 'row', 'weight': weight / count}
  entries = {'form': 'entry', 'weight': weight / count**2}
  return _rows(
    'loss',
    {
      'focal, of the matrix': {},
      'focal, mean of rows': {f'method.affinity.{k}': v for k, v in rows.items()},
      'log, of the matrix': {'method.affinity.form': 'log'},
      'smooth L1, of the matrix': {'method.affinity.form': 'smooth_l1'},
      'L2, of the matrix': {'method.affinity.form': 'l2'},
      'mean of entries': {f'method.affinity.{k}': v for k, v in entries.items()},
    },
  )


def _diagonal():
  return _rows('diagonal', {'out': {}, 'in': {'method.affinity.diagonal': True}})


# Of ResNet-110 on CIFAR-10: seconds of an epoch, and memory in MB.
_TABLE_4 = {'base': (34.7, 2117.0), 'affinity': (35.9, 2139.0)}


def _table_4():
  """Short runs of their own: Table 3's may have shared their time with others."""
  for scale in SCALES:
    depth = 110 if scale == 'paper' else 20
    setting = {'network': f'ResNet-{depth}'}
    c = get_config(f'base,{scale}')
    steps = _TIMED_EPOCHS * c.eval_every
    short = {name: steps for name in ('train_steps', 'eval_every', 'checkpoint_every')}
    for recipe in RECIPES:
      seconds, memory = _TABLE_4[recipe]
      told = {'seconds an epoch': (seconds, None), 'memory MB': (memory, None)}
      yield dict(
        recipe=recipe,
        row=setting | {'supervision': _SUPERVISION[recipe]},
        overrides=_setting('cifar10', depth) | short,
        published=told if depth == 110 else {},
        scales=(scale,),
        **(_against(setting) if recipe == 'affinity' else {}),
      )
