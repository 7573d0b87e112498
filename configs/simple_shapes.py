"""Simple Shapes: lines, triangles and rectangles to graphs, without labels.

  --config=configs/simple_shapes.py            ours, 64 px, 1000 steps, 8 proposals
  --config=configs/simple_shapes.py:paper      Lu & Dubbelman 2020, section 3 and 4

Variants: `base`, `128px`, `quick` (quickstart), `smoke` (tests), `paper`,
`paper_smoke`.
"""

import ml_collections

VARIANTS = ('base', '128px', 'quick', 'smoke', 'paper', 'paper_smoke')


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
  if variant.endswith('smoke'):
    c.train_steps = 4
    c.batch_size = 8
    c.log_every = c.eval_every = c.checkpoint_every = c.panel_every = 2
    c.eval.num_images = 16
    c.eval.batch_size = 8
  return c


def _shared():
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
  c = _shared()
  c.train_steps = 1000
  c.batch_size = 32
  c.data = dict(
    source='shapes',
    shapes=('line', 'triangle', 'rectangle'),
    side=64,
    line_width=1.5,
  )
  c.method = dict(
    name='image_graph_image',
    capacity=8,  # Larger than the truth, which is harmless; below 8 training is not.
    sides=(64, 128, 192, 256, 384, 512),
    canonical_form=dict(side=64, floor=0.15),
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
    capacities=(),
    archive='',
  )
  return c


def _paper():
  c = _shared()
  c.train_steps = 30 * 50_000 // 128
  c.batch_size = 128
  c.data = dict(
    source='tfds_simple_shapes',
    side=128,
  )
  return c


def sweep():
  """Ten seeds at both sides."""
  for side in (64, 128):
    for seed in range(10):
      yield {'data.side': side, 'seed': seed}
