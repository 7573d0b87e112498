"""Line drawings of many kinds to graphs, without labels: the weights that ship.

  --config=configs/line_drawings.py            64 px, 20 proposals in training, 40 later

Rough strokes are the input and the same strokes, clean, are what is reconstructed; no
graph is used. Variants: `base`, `smoke` (tests).
"""

from configs import simple_shapes

VARIANTS = ('base', 'smoke')


def get_config(variant='base'):
  """The config of one variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'line_drawings has the variants {", ".join(VARIANTS)}; got {variant!r}.'
    )
  c = simple_shapes.get_config('smoke' if variant == 'smoke' else 'base')
  c.data = dict(source='strokes', side=64, capacity=16)
  c.method.capacity = 20
  # More than in training, where every pair of nodes costs time.
  c.method.predict_capacity = 40
  c.method.nodes.width = 40
  c.method.nodes.blocks = 5
  # Nodes of real drawings stand close together.
  c.method.nodes.min_distance = 3.5
  c.method.edges.hidden = 48
  c.method.renderer.max_edges = 28
  c.method.fit.max_edges = 48
  # A third of what three shapes bear: an edge is a smaller part of these drawings, and
  # costs beyond its share of the ink make it vanish.
  c.method.loss.length_cost = 0.01
  c.method.loss.edge_cost = 0.005
  c.method.loss.node_cost = 0.005
  c.eval.capacities = ()
  if variant == 'base':
    c.train_steps = 4000
    c.eval_every = c.checkpoint_every = 1000
    c.panel_every = 1000
  return c
