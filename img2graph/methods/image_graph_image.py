"""Image-graph-image auto-encoding: how encoder, renderer and loss compose.

"Image-Graph-Image Translation via Auto-Encoding", Lu & Dubbelman 2020. An encoder turns
an image into nodes and edges, a differentiable renderer draws them, and the drawing is
compared with the image. The paper's recipe and ours are two configs of this file.

Letters: B batch, N nodes (the capacity), P = N(N-1)/2 node pairs, S side.
"""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp

from img2graph import fitting
from img2graph import ranges
from img2graph.encoding import canonical
from img2graph.encoding import encoder
from img2graph.losses import attention
from img2graph.losses import drawing as drawing_losses
from img2graph.losses import pyramid
from img2graph.losses import similarity
from img2graph.losses import sparsity
from img2graph.methods import base
from img2graph.rendering import refinement as refinement_nets
from img2graph.rendering import renderers


class AutoEncoder(encoder.Encoder, kw_only=True):
  """Encoder, renderer and refinement network.

  Attributes:
    renderer: edges -> drawing `[B, H, W]`.
    refiner: coarse drawing -> refined drawing, or None.
  """

  renderer: nn.Module
  refiner: nn.Module | None = None

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
    loss: {'kind': 'pyramid' or 'similarity', ...}.
    decision: 'each': an edge is as probable as the least probable of its nodes and
      itself; 'product': as the product of the three.
    fit: options of `fitting.fit_graph`, or None for a method without refinement.
    sides: image sides that `predict` takes, ascending; without a canonical form
      training has images of one of them.
    predict_capacity: capacity of `predict`, if it differs: proposals may be more than
      in training, whose cost grows with their pairs.
    most_pairs: node pairs per node that may have an edge, those with the most ink
      between them; None for all.

  Returns:
    A `base.Method`.

  Raises:
    ValueError: a value is out of range or a name unknown.
  """
  encoder.check(
    capacity=capacity,
    precision=precision,
    decision=decision,
    nodes=nodes,
    predict_capacity=predict_capacity,
  )
  if loss.get('overlap_weight') and nodes.get('kind') != 'attention':
    raise ValueError('method.loss.overlap_weight needs nodes of kind attention.')
  wide = capacity if predict_capacity is None else predict_capacity
  dtype = jnp.dtype(precision)
  net = refinement_nets.RefinementNet
  ranges.check('method.refiner', refiner or {}, {'features': ranges.COUNT})
  _check_fit(fit or {})
  drawn_by = encoder.build_part(
    'renderer', RENDERERS, renderer, bounds=_RENDERER_BOUNDS
  )
  refined_by = None if refiner is None else net(**refiner, dtype=dtype)

  def build_model(size):
    parts = encoder.build_parts(
      capacity=size, nodes=nodes, edges=edges, dtype=dtype, most_pairs=most_pairs
    )
    return AutoEncoder(**parts, renderer=drawn_by, refiner=refined_by)

  model, predictor = build_model(capacity), build_model(wide)
  loss_fn = encoder.build_part('loss', LOSSES, loss, bounds=_LOSS_BOUNDS)

  prepare = canonical.preparation(canonical_form)

  def init(key, batch):
    images = prepare(batch['image'])
    params_key, explore_key = jax.random.split(key)
    keys = {'params': params_key, 'explore': explore_key}
    return model.init(keys, images, 0.0, True)

  def loss_and_aux(variables, batch, key, step):
    images = prepare(batch['image'])
    target = base.target(batch, images, prepare)
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

  def predict(variables, images):
    encoded = predictor.apply(variables, prepare(images), 1.0, False, method='encode')
    return encoded.to_graph(decision)

  def reconstruct(variables, images):
    prepared = prepare(images)
    encoded, coarse, refined = predictor.apply(variables, prepared)
    out = {'graph': encoded.to_graph(decision), 'drawing': coarse}
    if refiner is not None:
      out['refined'] = refined
    return out | encoder.views(
      prepared, encoded.nodes, prepared=canonical_form is not None
    )

  def ink(variables, images):
    prepared = prepare(images)
    encoded = predictor.apply(variables, prepared, 1.0, False, method='encode')
    return encoder.ink(prepared, encoded.nodes)

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
    sides=sides,
    only_sides=canonical_form is None,
  )


RENDERERS = {
  'segments': renderers.SegmentRenderer,
  'templates': renderers.TemplateRenderer,
}

# What the numbers among the options of renderers and losses may be.
_RENDERER_BOUNDS = {
  **ranges.each(ranges.COUNT, 'max_edges', 'size'),
  **ranges.each(ranges.POSITIVE, 'half_width', 'softness'),
  **ranges.each(ranges.NOT_NEGATIVE, 'width_rate', 'noise', 'noise_until'),
  'limit': dict(above=0, highest=1),
}
_LOSS_BOUNDS = {
  **ranges.each(ranges.NOT_NEGATIVE, 'weight', 'drawing_weight', 'overlap_weight'),
  **ranges.each(ranges.NOT_NEGATIVE, 'length_cost', 'edge_cost', 'node_cost'),
  **ranges.each(ranges.COUNT, 'scales', 'window_size'),
  **ranges.each(ranges.POSITIVE, 'sigma', 'data_range', 'k1', 'k2', 'floor'),
}


def _check_fit(options):
  ranges.check('method.fit', options, fitting.BOUNDS)
  try:
    inspect.signature(fitting.fit_graph).bind_partial(**options)
  except TypeError as error:
    raise ValueError(f'method.fit: fit_graph() {error}.') from None


def _graph_cost(length, edge, node, ramp):
  """`(encoded, progress) -> []`: what the graphs cost on average."""
  ramp = ranges.as_range('cost_ramp', ramp, lowest=0)

  def cost_fn(encoded, progress):
    start, end = encoded.ends()
    cost = sparsity.graph_cost(
      start,
      end,
      encoded.weight(),
      encoded.nodes.prob,
      length=length,
      edge=edge,
      node=node,
    ).mean()
    return sparsity.ramp(progress, start=ramp[0], end=ramp[1]) * cost

  return cost_fn


def _pyramid_loss(
  *, weight, scales, length_cost, edge_cost, node_cost, cost_ramp, drawing_weight=0.0
):
  """Our loss: a pyramid of squared errors and what the graph costs.

  `drawing_weight` is that of the encoder's own drawing, if it makes one.
  """
  cost_fn = _graph_cost(length_cost, edge_cost, node_cost, cost_ramp)

  def loss_fn(encoded, coarse, refined, target, progress):
    del coarse
    error = weight * pyramid.pyramid_loss(refined, target.image, scales=scales)
    cost = cost_fn(encoded, progress)
    value, metrics = error + cost, {'error': error, 'cost': cost}
    if encoded.nodes.drawing is None:
      return value, metrics
    own = drawing_losses.drawing_loss(
      encoded.nodes.drawing, target.image[..., 0], target.clean
    )
    return value + drawing_weight * own, metrics | {'drawing': own}

  return loss_fn


def _similarity_loss(
  *,
  measure,
  on,
  overlap_weight,
  weight=1.0,
  length_cost=0.0,
  edge_cost=0.0,
  node_cost=0.0,
  cost_ramp=(0.0, 0.0),
  **options,
):
  """The paper's loss (equations 4 to 6): dissimilarity and conditional overlap.

  The paper has no costs of nodes and edges, beside which `weight` is that of the
  dissimilarity.
  """
  cost_fn = _graph_cost(length_cost, edge_cost, node_cost, cost_ramp)
  measures = {'ms_ssim': similarity.ms_ssim, 'ssim': similarity.ssim}
  if measure not in measures:
    raise ValueError(f"method.loss.measure must be 'ms_ssim' or 'ssim'; got {measure}.")
  if on not in ('refined', 'coarse'):
    raise ValueError(f"method.loss.on must be 'refined' or 'coarse'; got {on!r}.")

  def loss_fn(encoded, coarse, refined, target, progress):
    drawing = refined if on == 'refined' else coarse
    values = measures[measure](drawing, target.image, **options)
    error = weight * (1 - values.mean())
    value, metrics = error, {'error': error}
    if overlap_weight:
      overlap = attention.attention_overlap(encoded.nodes.attention, values)
      value, metrics = value + overlap_weight * overlap, metrics | {'overlap': overlap}
    if length_cost or edge_cost or node_cost:
      cost = cost_fn(encoded, progress)
      value, metrics = value + cost, metrics | {'cost': cost}
    return value, metrics

  return loss_fn


LOSSES = {'pyramid': _pyramid_loss, 'similarity': _similarity_loss}
