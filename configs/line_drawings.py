"""Line drawings of many kinds to graphs, without labels: the weights that ship.

  --config=configs/line_drawings.py             128 px, 28 proposals, 64 later
  --config=configs/line_drawings.py:supervised  the same with labels, to compare

Rough strokes are the input and the same strokes, clean, are what is reconstructed; no
graph is used. `supervised` is another recipe: the same encoder sees the same images,
but learns the true graphs that the generator knows. It uses labels, ships nothing, and
says how far the encoder goes when it is told. Variants: `base`, `supervised`, `smoke`
and `supervised_smoke` (tests).
"""

from configs import simple_shapes

VARIANTS = ('base', 'supervised', 'smoke', 'supervised_smoke')


def get_config(variant='base'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'line_drawings has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  c = simple_shapes.get_config('smoke' if variant.endswith('smoke') else 'base')
  # At 64 px the atoms of a molecule or the joints of a character lie closer together
  # than two proposals may.
  c.data = dict(
    source='strokes',
    side=128,
    capacity=24,
    min_gap=0.06,
    line_width=(0.7, 4.5),
    fill=(0.35, 1.0),
    target_width=1.0,
    # Scans show thin lines much fainter than thick ones.
    pressure=(0.0, 0.6),
    contrast=(0.25, 1.0),
    bend=(0.0, 0.35),
    pieces=0.35,
    noise=(0.0, 0.12),
  )
  c.batch_size = 16
  c.method.canonical_form.side = 128
  c.method.capacity = 28
  # More than in training, where every pair of nodes costs time.
  c.method.predict_capacity = 64
  # Pairs of nodes that may have an edge, for each node: reading the image along all
  # pairs of 64 nodes takes longer than everything else.
  c.method.most_pairs = 6
  c.method.nodes.width = 40
  c.method.nodes.blocks = 4
  # A single triangle or a character: what a stroke that sticks out means depends on it.
  c.method.nodes.context = 2
  c.method.nodes.drawing = 96
  # Nodes of real drawings stand close together.
  c.method.nodes.min_distance = 3.5
  # Wide enough to see that a stroke bows beside the straight line between two nodes.
  c.method.edges.along = 24
  c.method.edges.across = 5
  c.method.edges.spread = 4.0
  c.method.edges.hidden = 64
  c.method.renderer.max_edges = 40
  c.method.fit.max_edges = 64
  c.method.loss.scales = 5
  c.method.loss.drawing_weight = 0.3
  # A tenth of what three shapes bear: an edge is a smaller part of these drawings, and
  # costs beyond its share of the ink make it vanish.
  c.method.loss.length_cost = 0.005
  c.method.loss.edge_cost = 0.002
  c.method.loss.node_cost = 0.002
  c.start_from = ''  # 'line_drawings', or the path of weights, to go on from.
  c.eval.capacities = ()
  if variant.startswith('supervised'):
    c.method.name = 'supervised'
    for part in ('renderer', 'refiner', 'fit'):
      del c.method[part]
    c.method.loss = dict(
      kind='proposals',
      matching='near',
      node=1.0,
      position=10.0,
      edge=1.0,
      radius=0.055,
      drawing_weight=c.method.loss.drawing_weight,
    )
    # Every proposal is judged: none has to be found by chance.
    c.method.nodes.noise = 0.0
  if variant.endswith('smoke'):
    c.data.side = c.method.canonical_form.side = 64
    c.method.nodes.update(width=8, blocks=1, context=1, drawing=8)
    c.method.edges.hidden = 8
    if variant == 'supervised_smoke':
      # One variant is enough to compile the generator of strokes.
      c.data = dict(source='shapes', side=64, line_width=1.5)
  else:
    c.train_steps = 9_000
    c.optim.lr = 1.5e-3
    c.eval.num_images = 200
    c.eval_every = c.checkpoint_every = c.panel_every = 1000
  return c
