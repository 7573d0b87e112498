"""Simple Shapes: lines, triangles and rectangles to graphs, without labels.

  --config=configs/simple_shapes.py            ours, 64 px, 2500 steps, 8 proposals
  --config=configs/simple_shapes.py:paper      Lu & Dubbelman 2020, section 3 and 4

Variants: `base`, `128px`, `quick` (quickstart), `smoke` (tests), `paper`, `paper_cpu`
(64 px, half the widths, fewer layers, for a processor), `paper_smoke`.
"""

import ml_collections

VARIANTS = ('base', '128px', 'quick', 'smoke', 'paper', 'paper_cpu', 'paper_smoke')


def get_config(variant='base'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'simple_shapes has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  c = _paper() if variant.startswith('paper') else _ours()
  if variant == '128px':
    c.data.side = 128
  if variant == 'quick':
    c.train_steps = 800
    c.eval_every = 0
    c.eval.capacities = ()
  if variant in ('paper_smoke', 'paper_cpu'):
    # Generated on the device: nothing to prepare.
    c.data = dict(source='shapes', side=128, line_width=1.5)
    del c.eval.data
  if variant == 'paper_smoke':
    c.data.side = 64
    c.method.sides = (64,)
    c.method.nodes.stem_features = 8
    c.method.nodes.block_features = (16, 16)
    c.method.nodes.block_depths = (1, 1)
    c.method.nodes.head_features = 8
    c.method.edges.hidden = 16
  if variant == 'paper_cpu':
    # The same model, smaller in everything that only costs time.
    c.data.side = 64
    c.method.sides = (64,)
    c.method.nodes.stem_features = 32
    c.method.nodes.stem_kernel = 5
    c.method.nodes.block_features = (64, 32)
    c.method.nodes.block_depths = (2, 2)
    c.batch_size = 32
    c.train_steps = 10_000
    c.log_every = 50
    c.eval_every = c.checkpoint_every = c.panel_every = 1000
  if variant.endswith('smoke'):
    c.train_steps = 4
    c.batch_size = 8
    c.log_every = c.eval_every = c.checkpoint_every = c.panel_every = 2
    c.eval.capacities = ()
    c.eval.num_images = 16
    c.eval.batch_size = 8
  return c


def shared():
  """What all configs have in common; a new ConfigDict."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.precision = 'float32'
  c.log_every = 50
  c.eval_every = 500
  c.checkpoint_every = 500
  c.panel_every = 250
  c.keep_checkpoints = 2
  return c


def _ours():
  c = shared()
  c.train_steps = 2500
  c.batch_size = 32
  c.data = dict(
    source='shapes',
    shapes=('line', 'triangle', 'rectangle'),
    side=64,
    line_width=1.5,
    contrast=1.0,
    noise=0.0,
    aliased=False,
  )
  c.method = dict(
    name='image_graph_image',
    capacity=8,  # Larger than the truth, which is harmless; below 8 training is not.
    # None: as in training.
    predict_capacity=ml_collections.config_dict.placeholder(int),
    # Node pairs per node that may have an edge; None: all.
    most_pairs=ml_collections.config_dict.placeholder(int),
    sides=(64, 128, 192, 256, 384, 512),
    canonical_form=dict(side=64, floor=0.15, gain=1.6),
    nodes=dict(
      kind='proposals',
      width=32,
      blocks=4,
      cell=4,
      offset_range=2.0,  # At 1 cell, one orientation of corners may never be found.
      initial_bias=1.0,
      min_distance=5.0,
      noise=1.0,
      noise_until=0.7,
    ),
    edges=dict(kind='segment', along=16, across=3, spread=1.5, hidden=32),
    renderer=dict(
      kind='segments',
      max_edges=12,
      half_width=1.25,
      width_rate=5.0,
      softness=2.5,
      compose='soft_or',
      noise=1.0,
      noise_until=0.7,
    ),
    refiner=None,
    loss=dict(
      kind='pyramid',
      weight=1.3,
      scales=4,
      length_cost=0.05,
      edge_cost=0.02,
      node_cost=0.02,
      cost_ramp=(0.2, 0.5),
    ),
    decision='each',
    fit=dict(max_edges=12),
  )
  c.optim = dict(
    name='adam',
    lr=2e-3,
    b1=0.9,
    b2=0.99,
    schedule='cosine',
    final_fraction=0.02,
    clip_norm=1.0,
  )
  c.eval = dict(
    num_images=1000,
    batch_size=200,
    seed=1,
    thresholds=(0.03, 0.05, 0.08),
    capacities=(4, 5, 6, 8, 16),
    archive='',
  )
  return c


def _paper():
  """Section 3 and 4 of the paper; what it leaves open carries a comment."""
  c = shared()
  c.batch_size = 128
  c.train_steps = 30 * (50_000 // 128)  # 30 epochs.
  c.log_every = 100
  c.eval_every = 1_950  # Five epochs.
  c.checkpoint_every = 390
  c.panel_every = 1_950
  c.data = dict(
    source='tfds_simple_shapes',
    data_dir='runs/data',  # Made when it is not there.
    side=128,
    num_images=50_000,
    line_width=1.5,  # Open; thin, as in the paper's Figure 3.
  )
  c.method = dict(
    name='image_graph_image',
    capacity=4,
    sides=(128,),
    canonical_form=None,
    nodes=dict(
      kind='attention',
      # Open: ResNet-50's own stem, at stride 1, since the poolings reduce by 4.
      stem_features=64,
      stem_kernel=7,
      block_features=(128, 64),
      # Open: as many bottlenecks as ResNet-50 has in its first two blocks.
      block_depths=(3, 4),
      bottleneck_ratio=4,
      # Open: kernels and width of the two convolutions to the maps.
      head_features=64,
      head_kernels=(3, 1),
      momentum=0.9,
    ),
    edges=dict(
      kind='roi',
      features=(32, 16),
      hidden=64,  # Open.
      size=16,
      mode='max',  # ROI pooling as cited (Faster R-CNN): no gradient to the boxes.
      samples=2,
      # Open: an axis-aligned edge has a box without area; pixels.
      margin=2.0,
      min_size=8.0,
      learn_boxes=False,
    ),
    renderer=dict(
      kind='templates',
      # Open: the template and the width at which it is drawn, pixels.
      size=32,
      half_width=1.0,
    ),
    refiner=dict(
      features=16,
      output='linear',  # Open: paper stays exactly paper at the start.
      # Open: the drawing itself, so that the graph comes to lie on the ink. Kernels
      # drawn at random may make ink lighter than paper; then nothing is learned.
      start='identity',
    ),
    loss=dict(
      kind='similarity',
      measure='ms_ssim',
      on='refined',
      overlap_weight=1.0,
      padding='valid',  # Open; the usual implementation.
    ),
    decision='each',
    fit=None,
  )
  c.optim = dict(
    name='adam',
    lr=5e-4,
    b1=0.6,
    b2=0.9,
    schedule='piecewise',
    boundaries=(2 / 3,),  # The last 10 of 30 epochs.
    factors=(0.1,),
  )
  c.eval = dict(
    data=dict(split='test'),
    num_images=1000,
    batch_size=100,
    seed=1,
    thresholds=(0.03, 0.05, 0.08),
    capacities=(),
    archive='',
  )
  return c


def sweep(name='seeds'):
  """Entries of a sweep.

  `seeds`: ten seeds at both sides. `looks`: what must work without retuning: line
  widths, contrast, aliased lines, noise and other sides.
  """
  if name == 'seeds':
    for side in (64, 128):
      for seed in range(10):
        yield {'data.side': side, 'seed': seed}
  elif name == 'looks':
    for side, width in ((64, 1.0), (64, 3.0), (64, 6.0), (128, 1.0), (128, 6.0)):
      yield {'data.side': side, 'data.line_width': width}
    for side in (48, 96, 256):
      yield {'data.side': side}
    for side in (64, 128):
      yield {'data.side': side, 'data.line_width': 1.0, 'data.aliased': True}
      yield {'data.side': side, 'data.contrast': 0.3}
      yield {'data.side': side, 'data.noise': 0.1}
  else:
    raise ValueError(f"simple_shapes has the sweeps 'seeds' and 'looks'; got {name!r}.")
