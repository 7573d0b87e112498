"""Test-time refinement: a few gradient steps on the graph through the renderer.

Lu & Dubbelman (2020, section 1) note that learning by drawing needs no labels and so
can go on at test time. Here the weights of the network stay and the graph itself moves:
positions, edges, and one line width per image.

Letters: B batch, N nodes, P node pairs, M edges that take part, S side.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from img2graph import geometry
from img2graph import graph as graphs
from img2graph import ranges
from img2graph.losses import pyramid
from img2graph.losses import sparsity
from img2graph.rendering import segments

# What the options of `fit_graph` may be, see `ranges.check`.
BOUNDS = {
  **ranges.each(ranges.COUNT, 'max_edges', 'scales'),
  **ranges.each(ranges.NOT_NEGATIVE, 'position_rate', 'edge_rate', 'width_rate'),
  **ranges.each(ranges.NOT_NEGATIVE, 'length_cost', 'edge_cost', 'node_cost'),
  **ranges.each(ranges.POSITIVE, 'half_width', 'softness', 'sharpness'),
}


def fit_graph(
  graph,
  target,
  *,
  num_steps,
  max_edges=24,
  position_rate=0.01,
  edge_rate=0.15,
  width_rate=0.03,
  half_width=1.25,
  softness=2.5,
  scales=4,
  length_cost=0.01,
  edge_cost=0.005,
  node_cost=0.005,
  sharpness=5.0,
):
  """Moves graphs so that their drawings fit the images better.

  Each image is fitted by itself: its result does not depend on the batch. A graph
  whose decided edges (probability over one half) fit worse afterwards than before
  is returned as it came.

  Args:
    graph: `Graph` with nodes `[B, N, 2]`, as a method predicts it.
    target: `[B, S, S, 1]` float in [0, 1], canonical line drawings.
    num_steps: gradient steps; 0 returns the graph as it is.
    max_edges: the strongest this many edges take part, the others are dropped.
    position_rate: learning rate (Adam) of positions, [-1, 1] units.
    edge_rate: learning rate of the logits of nodes and edges.
    width_rate: learning rate of the logarithm of the line's half width.
    half_width: half width at the start, pixels of the target.
    softness: width of a line's soft border, pixels of the target.
    scales: of the pyramid loss.
    length_cost: see `sparsity.graph_cost`.
    edge_cost: the same.
    node_cost: the same.
    sharpness: the logits of edge weights are multiplied by a factor that grows from 1
      to this, which decides between several weak edges that share one stroke.

  Returns:
    `Graph` of the same shape; an edge that took part has its new probability, a node
    that of its most probable edge.
  """
  if num_steps < 0:
    raise ValueError(f'num_steps must not be negative; got {num_steps}.')
  if num_steps == 0:
    return graph
  capacity = graph.capacity
  i, j = (jnp.asarray(x) for x in geometry.node_pairs(capacity))
  pairs = geometry.matrix_to_pairs(graph.edge_prob)
  count = min(max_edges, pairs.shape[-1])
  prob, index = jax.lax.top_k(pairs, count)  # [B, M]
  senders, receivers = i[index], j[index]
  side = target.shape[1]

  def draw(nodes, weight, log_width):
    start = jnp.take_along_axis(nodes, senders[..., None], axis=1)
    end = jnp.take_along_axis(nodes, receivers[..., None], axis=1)
    drawing = segments.draw_edges(
      start,
      end,
      weight,
      height=side,
      width=side,
      thickness=jnp.broadcast_to(
        (half_width * 2 / side * jnp.exp(log_width))[:, None], weight.shape
      ),
      profile='antialias',
      compose='soft_or',
      softness=softness,
    )
    return drawing, start, end

  def weights(params, sharp):
    """Weight of each edge `[B, M]`: as in training both nodes and the edge exist."""
    exists = jax.nn.log_sigmoid(params['exists'])
    log_weight = (
      jax.nn.log_sigmoid(params['edges'])
      + jnp.take_along_axis(exists, senders, axis=1)
      + jnp.take_along_axis(exists, receivers, axis=1)
    )
    # The logit of the weight, times the sharpness; 1 - weight never reaches 0.
    log_rest = jnp.log1p(-0.999 * jnp.exp(log_weight))
    return jax.nn.sigmoid(sharp * (log_weight - log_rest))

  def errors(nodes, weight, log_width):
    """Relative error of each image `[B]`, each by its own energy."""
    drawing, start, end = draw(nodes, weight, log_width)
    error = pyramid.pyramid_errors(
      drawing, target[..., 0], scales=scales, own_energy=True
    )
    return error, start, end

  def loss(params, sharp):
    weight = weights(params, sharp)
    error, start, end = errors(params['nodes'], 0.999 * weight, params['width'])
    cost = sparsity.graph_cost(
      start,
      end,
      weight,
      jax.nn.sigmoid(params['exists']),
      length=length_cost,
      edge=edge_cost,
      node=node_cost,
    )
    return (error + cost).sum()

  params = {
    'nodes': graph.nodes.astype(jnp.float32),
    'exists': _logit(graph.node_prob),
    'edges': _logit(prob),
    'width': jnp.zeros(target.shape[0], jnp.float32),
  }
  rates = {
    'nodes': position_rate,
    'exists': edge_rate,
    'edges': edge_rate,
    'width': width_rate,
  }
  optimizer = optax.multi_transform(
    {
      name: optax.adam(optax.cosine_decay_schedule(rate, num_steps, 0.1))
      for name, rate in rates.items()
    },
    {name: name for name in rates},
  )

  def step(carry, k):
    params, state = carry
    sharp = 1 + (sharpness - 1) * k / num_steps
    updates, state = optimizer.update(jax.grad(loss)(params, sharp), state, params)
    return (optax.apply_updates(params, updates), state), None

  steps = jnp.arange(num_steps, dtype=jnp.float32)
  (fitted, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), steps)
  new_prob = weights(fitted, sharpness)
  new_nodes = jnp.clip(fitted['nodes'], -1, 1)

  # Both are drawn as decided, at the width that was fitted: a fair comparison.
  decided = functools.partial(errors, log_width=fitted['width'])
  before, *_ = decided(params['nodes'], (prob > 0.5).astype(jnp.float32))
  after, *_ = decided(new_nodes, (new_prob > 0.5).astype(jnp.float32))
  better = after <= before  # [B]

  matrix = jnp.zeros_like(pairs)
  rows = jnp.arange(pairs.shape[0])[:, None]
  matrix = geometry.pairs_to_matrix(matrix.at[rows, index].set(new_prob), capacity)
  return graphs.Graph(
    jnp.where(better[:, None, None], new_nodes, graph.nodes),
    jnp.where(better[:, None], matrix.max(-1), graph.node_prob),
    jnp.where(better[:, None, None], matrix, graph.edge_prob),
  )


def _logit(prob):
  """Logit of a probability, kept where it still has a gradient."""
  clipped = jnp.clip(prob, 0.02, 0.98)
  return jnp.log(clipped) - jnp.log1p(-clipped)
