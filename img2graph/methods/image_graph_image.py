"""Image-graph-image auto-encoding: how encoder, renderer and loss compose.

"Image-Graph-Image Translation via Auto-Encoding", Lu & Dubbelman 2020. An encoder turns
an image into nodes and edges, a differentiable renderer draws them, and the drawing is
compared with the image. The paper's recipe and ours are two configs of this file.

Letters: B batch, N nodes (the capacity), P = N(N-1)/2 node pairs, S side.
"""

from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from img2graph import fitting
from img2graph import geometry
from img2graph import graph as graphs
from img2graph.encoding import backbones
from img2graph.encoding import canonical
from img2graph.encoding import heads
from img2graph.encoding import proposals
from img2graph.encoding import roi_edges
from img2graph.encoding import segment_edges
from img2graph.losses import attention
from img2graph.losses import pyramid
from img2graph.losses import similarity
from img2graph.losses import sparsity
from img2graph.losses import supervised
from img2graph.methods import base
from img2graph.rendering import refinement as refinement_nets
from img2graph.rendering import renderers

# Share of the encoder's own drawing that counts where the image has no ink, and what is
# added to it for full ink.
_WITHOUT_INK, _WITH_INK = 0.3, 1.5


class Encoded(NamedTuple):
  """A graph as the encoder sees it, by node pairs.

  Attributes:
    nodes: a `heads.NodeSet`.
    link_prob: `[B, K]`, probability of the edge given that both its nodes exist.
    pairs: `[B, K]` int32, which node pairs may have an edge (`geometry.node_pairs`);
      None for all P of them, K = P.
  """

  nodes: Any
  link_prob: Any
  pairs: Any = None

  def of_pairs(self, values):
    """Values of nodes `[B, N, ...]` at both ends of the pairs, `[B, K, ...]` each."""
    i, j = geometry.node_pairs(self.nodes.positions.shape[1])
    if self.pairs is None:
      return values[:, i], values[:, j]
    take = jax.vmap(lambda value, index: value[index])
    return tuple(take(values, jnp.asarray(end)[self.pairs]) for end in (i, j))

  def ends(self):
    """Both ends of every pair, `[B, K, 2]` each."""
    return self.of_pairs(self.nodes.positions)

  def pair_prob(self):
    """Probability of both nodes of every pair, `[B, K]` each."""
    return self.of_pairs(self.nodes.prob)

  def weight(self):
    """`[B, K]`, how much of each edge is drawn: both nodes and the edge exist."""
    first, second = self.pair_prob()
    return first * second * self.link_prob


class Target(NamedTuple):
  """What a loss compares with.

  Attributes:
    image: `[B, S, S, 1]`, what the drawing is compared with.
    clean: `[B]`, 1 where that says how a clean drawing looks, 0 where it is but the
      input again, beside others that are not.
    graph: true `Graph`, or None.
  """

  image: Any
  clean: Any
  graph: Any = None


class AutoEncoder(nn.Module):
  """Encoder, renderer and refinement network.

  Attributes:
    node_head: images -> `heads.NodeSet`.
    edge_head: images and the ends of node pairs -> logits `[B, P]`.
    renderer: edges -> drawing `[B, H, W]`.
    refiner: coarse drawing -> refined drawing, or None.
    most_pairs: how many node pairs, those with the most ink between them, may have an
      edge; None for all.
  """

  node_head: nn.Module
  edge_head: nn.Module
  renderer: nn.Module
  refiner: nn.Module | None = None
  most_pairs: int | None = None

  def encode(self, images, progress, train):
    """`[B, S, S, 1]` -> `Encoded`."""
    nodes = self.node_head(images, progress=progress, train=train)
    encoded = Encoded(nodes, None)
    start, end = encoded.ends()
    if self.most_pairs is not None and self.most_pairs < start.shape[1]:
      first, second = jax.lax.stop_gradient(encoded.pair_prob())
      pairs = segment_edges.most_inked(
        images, start, end, first * second, count=self.most_pairs
      )
      encoded = Encoded(nodes, None, pairs)
      start, end = encoded.ends()
    if nodes.drawing is not None:
      # Edges are read from both drawings, the one that is given and the clean one.
      clean = jax.lax.stop_gradient(jax.nn.sigmoid(nodes.drawing))
      images = jnp.concatenate([images, clean[..., None]], axis=-1)
    logits = self.edge_head(images, start, end, train=train)
    return encoded._replace(link_prob=jax.nn.sigmoid(logits.astype(jnp.float32)))

  def draw(self, encoded, height, width, progress, train):
    """`Encoded` -> coarse drawing `[B, H, W, 1]`."""
    start, end = encoded.ends()
    drawing = self.renderer(
      start,
      end,
      encoded.weight(),
      height=height,
      width=width,
      progress=progress,
      train=train,
    )
    return drawing[..., None]

  def __call__(self, images, progress=1.0, train=False):
    """`[B, S, S, 1]` -> (`Encoded`, coarse drawing, refined drawing)."""
    encoded = self.encode(images, progress, train)
    coarse = self.draw(encoded, images.shape[1], images.shape[2], progress, train)
    refined = self.refiner(coarse) if self.refiner is not None else coarse
    return encoded, coarse, refined


def build(
  *,
  train_steps,
  precision,
  capacity,
  canonical_form,
  nodes,
  edges,
  renderer,
  refiner,
  loss,
  decision,
  fit,
  sides,
  predict_capacity=None,
  most_pairs=None,
):
  """The method, from the values of `config.method` (see configs/simple_shapes.py).

  Args:
    train_steps: length of the training run; schedules are fractions of it.
    precision: 'float32' or 'bfloat16', of the activations of convolutions.
    capacity: number of nodes N >= 2.
    canonical_form: options of `canonical.canonical_image`, or None for images as
      they are.
    nodes: {'kind': 'proposals' or 'attention', ...options of that head}.
    edges: {'kind': 'segment' or 'roi', ...}.
    renderer: {'kind': 'segments' or 'templates', ...}.
    refiner: options of `RefinementNet`, or None.
    loss: {'kind': 'pyramid', 'similarity' or 'supervised', ...}.
    decision: 'each': an edge is as probable as the least probable of its nodes and
      itself; 'product': as the product of the three.
    fit: options of `fitting.fit_graph`, or None for a method without refinement.
    sides: image sides that `predict` takes.
    predict_capacity: capacity of `predict`, if it differs: proposals may be more than
      in training, whose cost grows with their pairs.
    most_pairs: node pairs per node that may have an edge, those with the most ink
      between them; None for all.

  Returns:
    A `base.Method`.
  """
  if capacity < 2:
    raise ValueError(
      f'method.capacity must be at least 2, an edge has two nodes; got {capacity}.'
    )
  if precision not in ('float32', 'bfloat16'):
    raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}.")
  if decision not in ('each', 'product'):
    raise ValueError(f"decision must be 'each' or 'product'; got {decision!r}.")
  wide = capacity if predict_capacity is None else predict_capacity
  if wide != capacity and nodes['kind'] != 'proposals':
    raise ValueError('method.predict_capacity needs nodes of kind proposals.')
  dtype = jnp.dtype(precision)
  net = refinement_nets.RefinementNet
  shared = {
    'edge_head': _build_part('edges', EDGE_HEADS, edges, dtype=dtype),
    'renderer': _build_part('renderer', RENDERERS, renderer),
    'refiner': None if refiner is None else net(**refiner, dtype=dtype),
  }

  def build_model(size):
    head = _build_part('nodes', NODE_HEADS, nodes, capacity=size, dtype=dtype)
    most = None if most_pairs is None else most_pairs * size
    return AutoEncoder(node_head=head, most_pairs=most, **shared)

  model, predictor = build_model(capacity), build_model(wide)
  loss_fn = _build_part('loss', LOSSES, loss)

  def prepare(images):
    if canonical_form is None:
      return images.astype(jnp.float32)
    return canonical.canonical_image(images, **canonical_form)

  def init(key, batch):
    images = prepare(batch['image'])
    params_key, explore_key = jax.random.split(key)
    keys = {'params': params_key, 'explore': explore_key}
    return model.init(keys, images, 0.0, True)

  def loss_and_aux(variables, batch, key, step):
    images = prepare(batch['image'])
    target = Target(images, jnp.ones(images.shape[0]), batch.get('graph'))
    if 'target' in batch:
      drawn = prepare(batch['target'])
      clean = jnp.any(drawn != images, axis=(1, 2, 3)).astype(jnp.float32)
      target = target._replace(image=drawn, clean=clean)
    progress = step / train_steps
    mutable = [name for name in variables if name != 'params']
    (encoded, coarse, refined), collections = model.apply(
      variables, images, progress, True, rngs={'explore': key}, mutable=mutable
    )
    value, metrics = loss_fn(encoded, coarse, refined, target, progress)
    metrics = {
      'loss': value,
      **metrics,
      'nodes': (encoded.nodes.prob > 0.5).sum(-1).mean(),
      'edges': (encoded.weight() > 0.5).sum(-1).mean(),
    }
    return value, {'metrics': metrics, 'collections': collections}

  def to_graph(encoded):
    if decision == 'product':
      pairs = encoded.weight()
    else:
      pairs = jnp.minimum(encoded.link_prob, jnp.minimum(*encoded.pair_prob()))
    if encoded.pairs is not None:
      everywhere = jnp.zeros((pairs.shape[0], wide * (wide - 1) // 2), pairs.dtype)
      put = jax.vmap(lambda zeros, index, values: zeros.at[index].set(values))
      pairs = put(everywhere, encoded.pairs, pairs)
    return graphs.Graph(
      encoded.nodes.positions,
      encoded.nodes.prob,
      geometry.pairs_to_matrix(pairs, wide),
    )

  def predict(variables, images):
    encoded = predictor.apply(variables, prepare(images), 1.0, False, method='encode')
    return to_graph(encoded)

  def reconstruct(variables, images):
    prepared = prepare(images)
    encoded, coarse, refined = predictor.apply(variables, prepared)
    out = {'graph': to_graph(encoded), 'drawing': coarse}
    if refiner is not None:
      out['refined'] = refined
    if canonical_form is not None:
      out['input'] = prepared
    if encoded.nodes.drawing is not None:
      out['clean'] = jax.nn.sigmoid(encoded.nodes.drawing)[..., None]
    return out

  def ink(variables, images):
    prepared = prepare(images)
    if not nodes.get('drawing'):
      return prepared[..., 0]
    encoded = predictor.apply(variables, prepared, 1.0, False, method='encode')
    # Where the image has no ink a line may go on, but has to be clearer than elsewhere.
    given = jnp.minimum(_WITHOUT_INK + _WITH_INK * prepared[..., 0], 1)
    return given * jax.nn.sigmoid(encoded.nodes.drawing)

  def refine(variables, images, graph, num_steps):
    # The graph is all that moves.
    target = ink(variables, images)[..., None]
    return fitting.fit_graph(graph, target, num_steps=num_steps, **fit)

  return base.Method(
    init=init,
    loss=loss_and_aux,
    predict=predict,
    reconstruct=reconstruct,
    refine=None if fit is None else refine,
    ink=ink,
    sides=tuple(sides),
  )


def _build_part(part, kinds, options, **context):
  """Calls `kinds[options['kind']]` with the other options and the context."""
  options = dict(options)
  kind = options.pop('kind')
  if kind not in kinds:
    raise ValueError(
      f'method.{part}.kind must be one of {", ".join(sorted(kinds))}; got {kind!r}.'
    )
  try:
    return kinds[kind](**options, **context)
  except TypeError as error:
    raise ValueError(f'method.{part}: {error}') from None


def _proposal_nodes(
  *,
  capacity,
  dtype,
  width,
  blocks,
  cell,
  offset_range,
  initial_bias,
  context=0,
  drawing=0,
  **options,
):
  net = proposals.ProposalNet(
    width=width,
    blocks=blocks,
    cell=cell,
    offset_range=offset_range,
    initial_bias=initial_bias,
    context=context,
    drawing=drawing,
    dtype=dtype,
  )
  return heads.ProposalNodes(net=net, capacity=capacity, **options)


def _attention_nodes(*, capacity, dtype, **options):
  backbone = backbones.PaperBackbone(num_maps=capacity, dtype=dtype, **options)
  return heads.AttentionNodes(backbone=backbone)


def _roi_edges(*, dtype, features, hidden, **options):
  classifier = roi_edges.RoiEdgeClassifier(
    features=features, hidden=hidden, dtype=dtype
  )
  return heads.RoiEdges(classifier=classifier, **options)


def _segment_edges(*, dtype, **options):
  del dtype  # Small and sensitive: float32.
  return segment_edges.SegmentEdges(**options)


NODE_HEADS = {'proposals': _proposal_nodes, 'attention': _attention_nodes}
EDGE_HEADS = {'segment': _segment_edges, 'roi': _roi_edges}
RENDERERS = {
  'segments': renderers.SegmentRenderer,
  'templates': renderers.TemplateRenderer,
}


def _pyramid_loss(
  *, weight, scales, length_cost, edge_cost, node_cost, cost_ramp, drawing_weight=0.0
):
  """Our loss: a pyramid of squared errors and what the graph costs.

  `drawing_weight` is that of the encoder's own drawing, if it makes one: cross entropy
  with the target, relative to the target's ink. Images that are their own targets,
  beside others that are not, teach it nothing.
  """

  def loss_fn(encoded, coarse, refined, target, progress):
    del coarse
    error = weight * pyramid.pyramid_loss(refined, target.image, scales=scales)
    start, end = encoded.ends()
    cost = sparsity.graph_cost(
      start,
      end,
      encoded.weight(),
      encoded.nodes.prob,
      length=length_cost,
      edge=edge_cost,
      node=node_cost,
    ).mean()
    ramp = sparsity.ramp(progress, start=cost_ramp[0], end=cost_ramp[1])
    value, metrics = error + ramp * cost, {'error': error, 'cost': cost}
    return _with_drawing(value, metrics, encoded, target, drawing_weight)

  return loss_fn


def _with_drawing(value, metrics, encoded, target, weight):
  """Adds the error of the encoder's own drawing, if it makes one."""
  if encoded.nodes.drawing is None:
    return value, metrics
  image, clean = target.image[..., 0], target.clean[:, None, None]
  entropy = optax.sigmoid_binary_cross_entropy(encoded.nodes.drawing, image)
  error = (clean * entropy).sum() / jnp.maximum((clean * image).sum(), 1.0)
  return value + weight * error, metrics | {'drawing': error}


def _similarity_loss(*, measure, on, overlap_weight, **options):
  """The paper's loss (equations 4 to 6): dissimilarity and conditional overlap."""
  measures = {'ms_ssim': similarity.ms_ssim, 'ssim': similarity.ssim}
  if measure not in measures:
    raise ValueError(f"method.loss.measure must be 'ms_ssim' or 'ssim'; got {measure}.")
  if on not in ('refined', 'coarse'):
    raise ValueError(f"method.loss.on must be 'refined' or 'coarse'; got {on!r}.")

  def loss_fn(encoded, coarse, refined, target, progress):
    del progress
    drawing = refined if on == 'refined' else coarse
    values = measures[measure](drawing, target.image, **options)
    error = 1 - values.mean()
    if not overlap_weight:
      return error, {'error': error}
    overlap = attention.attention_overlap(encoded.nodes.attention, values)
    return error + overlap_weight * overlap, {'error': error, 'overlap': overlap}

  return loss_fn


def _supervised_loss(*, node, position, edge, radius, drawing_weight=0.0):
  """Labels instead of the drawing: an upper reference, see `losses.supervised`."""

  def loss_fn(encoded, coarse, refined, target, progress):
    del coarse, refined, progress
    if encoded.nodes.proposals is None:
      raise ValueError('method.loss.kind supervised needs nodes of kind proposals.')
    if target.graph is None:
      raise ValueError(
        'method.loss.kind supervised needs images with true graphs, such as those of '
        'data.source strokes or shapes.'
      )
    exists, away = supervised.proposal_loss(
      *encoded.nodes.proposals, target.graph, radius=radius
    )
    start, end = encoded.ends()
    linked = supervised.link_loss(
      start, end, encoded.link_prob, target.graph, radius=radius
    )
    metrics = {'node_error': exists, 'position_error': away, 'edge_error': linked}
    value = node * exists + position * away + edge * linked
    return _with_drawing(value, metrics, encoded, target, drawing_weight)

  return loss_fn


LOSSES = {
  'pyramid': _pyramid_loss,
  'similarity': _similarity_loss,
  'supervised': _supervised_loss,
}
