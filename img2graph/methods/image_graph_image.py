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


class Encoded(NamedTuple):
  """A graph as the encoder sees it, by node pairs.

  Attributes:
    nodes: a `heads.NodeSet`.
    link_prob: `[B, P]`, probability of the edge given that both its nodes exist.
  """

  nodes: Any
  link_prob: Any

  def ends(self):
    """Both ends of every node pair, `[B, P, 2]` each."""
    i, j = geometry.node_pairs(self.nodes.positions.shape[1])
    return self.nodes.positions[:, i], self.nodes.positions[:, j]

  def pair_prob(self):
    """Probability of both nodes of every pair, `[B, P]` each."""
    i, j = geometry.node_pairs(self.nodes.positions.shape[1])
    return self.nodes.prob[:, i], self.nodes.prob[:, j]

  def weight(self):
    """`[B, P]`, how much of each edge is drawn: both nodes and the edge exist."""
    first, second = self.pair_prob()
    return first * second * self.link_prob


class AutoEncoder(nn.Module):
  """Encoder, renderer and refinement network.

  Attributes:
    node_head: images -> `heads.NodeSet`.
    edge_head: images and the ends of node pairs -> logits `[B, P]`.
    renderer: edges -> drawing `[B, H, W]`.
    refiner: coarse drawing -> refined drawing, or None.
  """

  node_head: nn.Module
  edge_head: nn.Module
  renderer: nn.Module
  refiner: nn.Module | None = None

  def encode(self, images, progress, train):
    """`[B, S, S, 1]` -> `Encoded`."""
    nodes = self.node_head(images, progress=progress, train=train)
    i, j = geometry.node_pairs(nodes.positions.shape[1])
    start, end = nodes.positions[:, i], nodes.positions[:, j]
    logits = self.edge_head(images, start, end, train=train)
    return Encoded(nodes, jax.nn.sigmoid(logits.astype(jnp.float32)))

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
    return AutoEncoder(node_head=head, **shared)

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
    target = prepare(batch['target']) if 'target' in batch else images
    progress = step / train_steps
    mutable = [name for name in variables if name != 'params']
    (encoded, coarse, refined), collections = model.apply(
      variables, images, progress, True, rngs={'explore': key}, mutable=mutable
    )
    truth = batch.get('graph')
    value, metrics = loss_fn(encoded, coarse, refined, target, progress, truth)
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
    return out

  def refine(variables, images, graph, num_steps):
    del variables  # The graph is all that moves.
    return fitting.fit_graph(graph, prepare(images), num_steps=num_steps, **fit)

  return base.Method(
    init=init,
    loss=loss_and_aux,
    predict=predict,
    reconstruct=reconstruct,
    refine=None if fit is None else refine,
    ink=lambda images: prepare(images)[..., 0],
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
  *, capacity, dtype, width, blocks, cell, offset_range, initial_bias, **options
):
  net = proposals.ProposalNet(
    width=width,
    blocks=blocks,
    cell=cell,
    offset_range=offset_range,
    initial_bias=initial_bias,
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


def _pyramid_loss(*, weight, scales, length_cost, edge_cost, node_cost, cost_ramp):
  """Our loss: a pyramid of squared errors and what the graph costs."""

  def loss_fn(encoded, coarse, refined, target, progress, truth):
    del coarse, truth
    error = weight * pyramid.pyramid_loss(refined, target, scales=scales)
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
    return error + ramp * cost, {'error': error, 'cost': cost}

  return loss_fn


def _similarity_loss(*, measure, on, overlap_weight, **options):
  """The paper's loss (equations 4 to 6): dissimilarity and conditional overlap."""
  measures = {'ms_ssim': similarity.ms_ssim, 'ssim': similarity.ssim}
  if measure not in measures:
    raise ValueError(f"method.loss.measure must be 'ms_ssim' or 'ssim'; got {measure}.")
  if on not in ('refined', 'coarse'):
    raise ValueError(f"method.loss.on must be 'refined' or 'coarse'; got {on!r}.")

  def loss_fn(encoded, coarse, refined, target, progress, truth):
    del progress, truth
    drawing = refined if on == 'refined' else coarse
    values = measures[measure](drawing, target, **options)
    error = 1 - values.mean()
    if not overlap_weight:
      return error, {'error': error}
    overlap = attention.attention_overlap(encoded.nodes.attention, values)
    return error + overlap_weight * overlap, {'error': error, 'overlap': overlap}

  return loss_fn


def _supervised_loss(*, node, position, edge, radius):
  """Labels instead of the drawing: an upper reference, see `losses.supervised`."""

  def loss_fn(encoded, coarse, refined, target, progress, truth):
    del coarse, refined, target, progress
    if encoded.nodes.proposals is None:
      raise ValueError('method.loss.kind supervised needs nodes of kind proposals.')
    if truth is None:
      raise ValueError(
        'method.loss.kind supervised needs images with true graphs, such as those of '
        'data.source strokes or shapes.'
      )
    exists, away = supervised.proposal_loss(
      *encoded.nodes.proposals, truth, radius=radius
    )
    start, end = encoded.ends()
    linked = supervised.link_loss(start, end, encoded.link_prob, truth, radius=radius)
    terms = {'node_error': exists, 'position_error': away, 'edge_error': linked}
    return node * exists + position * away + edge * linked, terms

  return loss_fn


LOSSES = {
  'pyramid': _pyramid_loss,
  'similarity': _similarity_loss,
  'supervised': _supervised_loss,
}
