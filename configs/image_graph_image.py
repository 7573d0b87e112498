"""Tables of "Image-Graph-Image Translation via Auto-Encoding", Lu & Dubbelman 2020.

  --config=configs/image_graph_image.py:RECIPE,SCALE

RECIPE is `paper` (the paper's), `baseline` (its fully supervised one), `ours`, or
`supervised` (our encoder with labels). SCALE is `paper`: the paper's protocol to the
letter, 50,000 images of 128 pixels; `cpu`: one that two cores finish, with smaller
images and fewer steps; or `smoke` (tests). `sweep` gives the rows of a table, which
`python -m launch.tables --paper=image_graph_image --table=1` runs and draws.
"""

from configs import simple_shapes

RECIPES = ('paper', 'baseline', 'ours', 'supervised')
SCALES = ('paper', 'cpu', 'smoke')

_SMALL_NODES = dict(
  stem_features=16, stem_kernel=5, block_features=(32, 32), block_depths=(1, 4)
)

VARIANTS = tuple(f'{recipe},{scale}' for recipe in RECIPES for scale in SCALES)

# Of 15 epochs, the first two train the node attention and the others the edges.
_NODE_SHARE = 2 / 15


def get_config(variant='paper,paper'):
  """The config of a recipe at a scale, 'RECIPE,SCALE'."""
  if variant not in VARIANTS:
    raise ValueError(
      f'image_graph_image has the variants {"; ".join(VARIANTS)}; got {variant!r}.'
    )
  recipe, scale = variant.split(',')
  c = _ours(scale) if recipe in ('ours', 'supervised') else _paper(scale)
  if recipe in ('baseline', 'supervised'):
    c.method.name = 'supervised'
    for part in ('renderer', 'refiner', 'fit'):
      del c.method[part]
  if recipe == 'baseline':
    c.train_steps //= 2  # 15 epochs, where the other recipe has 30.
    c.optim.lr = 3e-4
    nodes_until = _NODE_SHARE
    if scale == 'cpu':
      # Two fifteenths of so few steps are too few for the nodes to come to rest.
      c.train_steps, c.optim.lr, nodes_until = 2_500, 1e-3, 0.6
    c.optim.windows = dict(node_head=(0.0, nodes_until), edge_head=(nodes_until, 1.0))
    c.method.loss = dict(
      kind='heatmap',
      sigma=1.0,  # Open; cells of the maps, 4 pixels each.
      nodes_until=nodes_until,
    )
  if recipe == 'supervised':
    c.method.nodes.noise = 0.0  # Every proposal is judged: none is found by chance.
    c.method.loss = dict(
      kind='proposals',
      matching='hungarian',
      node=1.0,
      position=10.0,
      edge=1.0,
      radius=0.1,
      distance_weight=5.0,
    )
  return c


def _paper(scale):
  if scale != 'cpu':
    return simple_shapes.get_config('paper' if scale == 'paper' else 'paper_smoke')
  # Every part as in the paper, smaller in what only costs time.
  c = simple_shapes.get_config('paper_cpu')
  c.data.side = 48
  c.method.sides = (48,)
  c.method.nodes.update(_SMALL_NODES)
  c.method.refiner.features = 8
  c.batch_size = 16
  c.train_steps = 2_000
  c.eval_every = c.panel_every = 0
  c.checkpoint_every = 500
  return c


def _ours(scale):
  c = simple_shapes.get_config('smoke' if scale == 'smoke' else 'base')
  if scale == 'paper':
    paper = simple_shapes.get_config('paper')
    c.data, c.eval.data = paper.data, paper.eval.data
  # One training serves every capacity of Table 2: what is trained has 8 proposals.
  c.eval.capacities = (4, 5, 6)
  return c


TABLES = {
  '1': 'Self-supervised and fully supervised (Table 1)',
  '2': 'Capacity, the largest number of nodes (Table 2)',
  '3': 'Losses (Table 3)',
  'ablation': 'Each choice of ours switched off alone',
}

_OURS_F1 = {'f1': (67.9, 5.4)}
_OURS_SCORES = {'precision': (57.7, 2.7), 'recall': (84.1, 12.6), **_OURS_F1}


def sweep(name):
  """The rows of a table, dicts.

  Each has 'recipe'; 'row', what it is called, `{column: text}`; and, where there are
  any, 'overrides' of the config and 'published', the paper's mean and standard
  deviation of scores in percent. 'part' names the scores that count, if not the first.
  """
  tables = {
    '1': _table_1,
    '2': _table_2,
    '3': _table_3,
    'ablation': _ablation,
  }
  if name not in tables:
    raise ValueError(
      f'image_graph_image has the tables {", ".join(tables)}; got {name!r}.'
    )
  yield from tables[name]()


def _table_1():
  yield dict(
    recipe='paper',
    row={'method': 'Self-supervised', 'supervision': 'image reconstruction'},
    published=_OURS_SCORES,
  )
  yield dict(
    recipe='baseline',
    row={'method': 'Baseline', 'supervision': 'nodes and edges'},
    published={'precision': (54.0, 5.9), 'recall': (70.9, 5.9), 'f1': (61.3, 5.9)},
  )
  yield dict(
    recipe='ours',
    row={'method': 'Self-supervised', 'supervision': 'image reconstruction'},
  )
  yield dict(
    recipe='supervised',
    row={'method': 'Set prediction', 'supervision': 'nodes and edges'},
  )


def _table_2():
  published = {
    4: _OURS_SCORES,
    5: {'precision': (46.1, 3.5), 'recall': (68.9, 14.9), 'f1': (54.6, 6.9)},
    6: {'precision': (43.2, 6.7), 'recall': (62.0, 12.9), 'f1': (49.9, 5.9)},
    8: {'precision': (31.4, 2.9), 'recall': (62.3, 5.5), 'f1': (41.7, 2.8)},
  }
  for capacity, scores in published.items():
    yield dict(
      recipe='paper',
      row={'capacity': str(capacity)},
      overrides={} if capacity == 4 else {'method.capacity': capacity},
      published=scores,
    )
  for capacity in published:
    yield dict(
      recipe='ours',
      row={'capacity': str(capacity)},
      part='' if capacity == 8 else f'capacity_{capacity}',
    )


def _table_3():
  rows = (
    (True, 'refined', 'ms_ssim', _OURS_F1),
    (False, 'refined', 'ms_ssim', {'f1': (63.2, 8.2)}),
    (True, 'refined', 'ssim', {'f1': (50.3, 17.7)}),
    (True, 'coarse', 'ms_ssim', {'f1': (51.7, 7.1)}),
    (True, 'coarse', 'ssim', {'f1': (12.1, 9.7)}),
  )
  default = {'method.loss.measure': 'ms_ssim', 'method.loss.on': 'refined'}
  for overlap, on, measure, published in rows:
    changes = {'method.loss.measure': measure, 'method.loss.on': on}
    changes = {k: v for k, v in changes.items() if default[k] != v}
    if not overlap:
      changes['method.loss.overlap_weight'] = 0.0
    yield dict(
      recipe='paper',
      row=_losses(overlap, on, measure),
      overrides=changes,
      published=published,
    )
  yield dict(recipe='ours', row=_losses(True, 'coarse', 'pyramid'))
  for overlap, on, measure, _ in rows:
    changes = {
      'method.loss': _similarity_of_ours(measure, on),
      'method.refiner': _REFINER if on == 'refined' else None,
      'eval.capacities': (),
    }
    if not overlap:
      # Two nodes of ours cannot lie on each other because selection keeps one of them:
      # that is what stands for the overlap loss.
      changes['method.nodes.min_distance'] = 0.0
    yield dict(recipe='ours', row=_losses(overlap, on, measure), overrides=changes)


# A network that may amplify would undo the costs of nodes and edges: all become
# improbable (F1 0), and their drawing is refined into the image all the same.
_REFINER = dict(features=8, output='linear', start='identity', limited=True)

# An empty drawing has the pyramid loss 1 (weighted 1.3), SSIM .70 and MS-SSIM .11, on
# average over these images: with these weights it loses as much by each of them, so
# that the costs of nodes and edges weigh the same beside all three.
_WEIGHTS = {'ms_ssim': 1.45, 'ssim': 4.3}


def _losses(overlap, on, measure):
  names = {'ms_ssim': 'MS-SSIM', 'ssim': 'SSIM', 'pyramid': 'pyramid'}
  return {
    'nodes kept apart': 'yes' if overlap else 'no',
    'image': on,
    'measure': names[measure],
  }


def _similarity_of_ours(measure, on):
  """The paper's reconstruction loss with the costs of ours."""
  costs = simple_shapes.get_config('base').method.loss
  return dict(
    kind='similarity',
    measure=measure,
    on=on,
    weight=_WEIGHTS[measure],
    overlap_weight=0.0,
    padding='valid',
    **{n: costs[n] for n in ('length_cost', 'edge_cost', 'node_cost', 'cost_ramp')},
  )


def _ablation():
  paper = simple_shapes.get_config('paper').method
  rows = {
    'ours': {},
    'no canonical form of the image': {'method.canonical_form': None},
    'nodes: one attention map each': {
      'method.nodes': dict(paper.nodes.to_dict(), **_SMALL_NODES),
    },
    'edges: box pooling': {'method.edges': paper.edges.to_dict()},
    'renderer: templates': {'method.renderer': paper.renderer.to_dict()},
    'renderer: width not learned': {'method.renderer.width_rate': 0.0},
    'renderer: sum of edges': {'method.renderer.compose': 'sum'},
    'renderer: all 28 edges drawn': {'method.renderer.max_edges': 28},
    '4 proposals in training': {'method.capacity': 4},
    'nodes not kept apart': {'method.nodes.min_distance': 0.0},
    'offsets of one cell': {'method.nodes.offset_range': 1.0},
    'no exploring of nodes': {'method.nodes.noise': 0.0},
    'no exploring of edges': {'method.renderer.noise': 0.0},
    'loss at full resolution only': {'method.loss.scales': 1},
    'no costs': {
      'method.loss.length_cost': 0.0,
      'method.loss.edge_cost': 0.0,
      'method.loss.node_cost': 0.0,
    },
    'costs from the start': {'method.loss.cost_ramp': (0.0, 0.0)},
    'decision: product': {'method.decision': 'product'},
    'constant learning rate': {'optim.schedule': 'constant'},
  }
  for name, changes in rows.items():
    # Only the first is the same as in the other tables.
    changes = changes | {'eval.capacities': ()} if changes else {}
    yield dict(recipe='ours', row={'switched off': name}, overrides=changes)
