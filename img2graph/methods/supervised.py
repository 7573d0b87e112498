"""Encoders that learn from true graphs: what the self-supervised ones are held against.

Two recipes. `heatmap` is the fully supervised baseline of "Image-Graph-Image
Translation via Auto-Encoding" (Lu & Dubbelman 2020, section 4): the encoder of that
paper, whose summed attention learns a heat-map of the true nodes at first, and whose
edge classifier, with the node attention frozen, then learns the adjacency of the nodes
that were found. `proposals` is what one would build today: every proposal learns
whether it is a node, by set prediction or by nearness, all at once.

Letters: B batch, N nodes (the capacity), K node pairs, S side.
"""

import jax
import jax.numpy as jnp

from img2graph import ranges
from img2graph import rendering
from img2graph.encoding import canonical
from img2graph.encoding import encoder
from img2graph.losses import drawing as drawing_losses
from img2graph.losses import supervised
from img2graph.methods import base

# Panels show graphs by lines of this width, relative to the image's.
_THICKNESS = 0.04
# What the numbers among the options of losses may be.
_LOSS_BOUNDS = {
  **ranges.each(ranges.NOT_NEGATIVE, 'node', 'position', 'edge', 'drawing_weight'),
  **ranges.each(ranges.POSITIVE, 'sigma', 'radius'),
  'nodes_until': ranges.SHARE,
}


def build(
  *,
  train_steps,
  precision,
  capacity,
  canonical_form,
  nodes,
  edges,
  loss,
  decision,
  sides,
  predict_capacity=None,
  most_pairs=None,
):
  """The method, from the values of `config.method`.

  Args:
    train_steps: length of the training run.
    precision: 'float32' or 'bfloat16', of the activations of convolutions.
    capacity: number of nodes N >= 2.
    canonical_form: options of `canonical.canonical_image`, or None.
    nodes: {'kind': 'proposals' or 'attention', ...options of that head}.
    edges: {'kind': 'segment' or 'roi', ...}.
    loss: {'kind': 'heatmap' or 'proposals', ...}, see `LOSSES`.
    decision: see `encoder.Encoded.to_graph`.
    sides: image sides that `predict` takes, ascending; without a canonical form
      training has images of one of them.
    predict_capacity: capacity of `predict`, if it differs.
    most_pairs: node pairs per node that may have an edge; None for all.

  Returns:
    A `base.Method` whose loss needs `batch['graph']`.

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

  def build_model(size):
    return encoder.Encoder(
      **encoder.build_parts(
        capacity=size,
        nodes=nodes,
        edges=edges,
        dtype=jnp.dtype(precision),
        most_pairs=most_pairs,
      )
    )

  if loss.get('kind') == 'heatmap' and nodes.get('kind') != 'attention':
    raise ValueError('method.loss.kind heatmap needs nodes of kind attention.')
  wide = capacity if predict_capacity is None else predict_capacity
  model, predictor = build_model(capacity), build_model(wide)
  loss_fn = encoder.build_part('loss', LOSSES, loss, bounds=_LOSS_BOUNDS)

  prepare = canonical.preparation(canonical_form)

  def init(key, batch):
    params_key, explore_key = jax.random.split(key)
    keys = {'params': params_key, 'explore': explore_key}
    return model.init(keys, prepare(batch['image']), 0.0, True, method='encode')

  def loss_and_aux(variables, batch, key, step):
    images = prepare(batch['image'])
    target = base.target(batch, images, prepare)
    if target.graph is None:
      raise ValueError(
        'method.name supervised needs images with true graphs, such as those of '
        'data.source strokes or shapes.'
      )
    return loss_fn(model, variables, images, target, key, step / train_steps)

  def encode(variables, images):
    return predictor.apply(variables, images, 1.0, False, method='encode')

  def predict(variables, images):
    return encode(variables, prepare(images)).to_graph(decision)

  def reconstruct(variables, images):
    prepared = prepare(images)
    encoded = encode(variables, prepared)
    graph = encoded.to_graph(decision)
    height, width = prepared.shape[1:3]
    drawing = rendering.draw_graph(
      graph, height=height, width=width, thickness=_THICKNESS, min_prob=0.5
    )
    seen = encoder.views(prepared, encoded.nodes, prepared=canonical_form is not None)
    return {'graph': graph, 'drawing': drawing, **seen}

  def ink(variables, images):
    prepared = prepare(images)
    return encoder.ink(prepared, encode(variables, prepared).nodes)

  return base.Method(
    init=init,
    loss=loss_and_aux,
    predict=predict,
    reconstruct=reconstruct,
    ink=ink,
    sides=sides,
    only_sides=canonical_form is None,
  )


def _heatmap_loss(*, sigma, nodes_until):
  """The baseline of the paper.

  Args:
    sigma: standard deviation of the heat-map's Gaussians, in cells of the maps.
    nodes_until: share of the run in which the nodes are learned and nothing else; from
      then on only edges are. An optimizer moves parameters without a gradient too, so
      `optim.windows` must say the same.
  """

  def loss_fn(model, variables, images, target, key, progress):
    del key  # Nothing is explored.
    state = {name: values for name, values in variables.items() if name != 'params'}
    encoded, changed = model.apply(
      variables, images, progress, True, method='encode', mutable=list(state)
    )
    nodes = encoded.nodes
    node_error = supervised.heatmap_loss(nodes.attention, target.graph, sigma=sigma)
    matched = supervised.match(nodes.positions, target.graph)
    edge_error = supervised.adjacency_loss(matched, encoded.link_logits, target.graph)
    # Not a branch, in which convolutions are an order of magnitude slower on a CPU.
    learn_nodes = progress < nodes_until
    value = jnp.where(learn_nodes, node_error, edge_error)
    # Running statistics stay as they are with the parameters.
    is_learned = {'node_head': learn_nodes, 'edge_head': ~learn_nodes}
    collections = {
      name: {
        part: jax.tree.map(
          lambda new, old, part=part: jnp.where(is_learned[part], new, old),
          changed[name][part],
          values[part],
        )
        for part in values
      }
      for name, values in state.items()
    }
    metrics = {'loss': value, 'node_error': node_error, 'edge_error': edge_error}
    return value, {'metrics': metrics, 'collections': collections}

  return loss_fn


def _proposals_loss(
  *,
  matching,
  node,
  position,
  edge,
  radius,
  distance_weight=None,
  drawing_weight=0.0,
):
  """Every proposal learns whether it is a node and where.

  Args:
    matching: 'near': a true node is the task of the most probable proposal near it;
      'hungarian': of that of the matching that costs least.
    node: weight of the cross entropy of nodes.
    position: weight of the distance of nodes.
    edge: weight of the cross entropy of edges.
    radius: what is near, in coordinate units.
    distance_weight: of 'hungarian', how much distance counts against probability.
    drawing_weight: of the encoder's own drawing, if it makes one.
  """
  if matching not in ('near', 'hungarian'):
    raise ValueError(
      f"method.loss.matching must be 'near' or 'hungarian'; got {matching!r}."
    )
  if (matching == 'hungarian') != (distance_weight is not None):
    raise ValueError(
      "method.loss.distance_weight goes with matching 'hungarian'; "
      f'got {distance_weight} with {matching!r}.'
    )
  if distance_weight is not None:
    ranges.as_number('method.loss.distance_weight', distance_weight, lowest=0)

  def loss_fn(model, variables, images, target, key, progress):
    mutable = [name for name in variables if name != 'params']
    encoded, collections = model.apply(
      variables,
      images,
      progress,
      True,
      method='encode',
      rngs={'explore': key},
      mutable=mutable,
    )
    if encoded.nodes.proposals is None:
      raise ValueError('method.loss.kind proposals needs nodes of kind proposals.')
    found, truth = encoded.nodes.proposals, target.graph
    if matching == 'near':
      chosen = supervised.assign(*found, truth, radius=radius)
    else:
      chosen = supervised.assign_hungarian(
        *found, truth, distance_weight=distance_weight
      )
    exists, away = supervised.proposal_loss(*found, truth, chosen=chosen, radius=radius)
    linked = supervised.link_loss(
      *encoded.ends(), encoded.link_logits, truth, radius=radius
    )
    value = node * exists + position * away + edge * linked
    metrics = {'node_error': exists, 'position_error': away, 'edge_error': linked}
    if encoded.nodes.drawing is not None:
      own = drawing_losses.drawing_loss(
        encoded.nodes.drawing, target.image[..., 0], target.clean
      )
      value, metrics = value + drawing_weight * own, metrics | {'drawing': own}
    return value, {'metrics': {'loss': value, **metrics}, 'collections': collections}

  return loss_fn


LOSSES = {'heatmap': _heatmap_loss, 'proposals': _proposals_loss}
