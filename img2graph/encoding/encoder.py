"""A whole encoder: a node head, an edge head, and the graph that they say.

Letters: B batch, N nodes (the capacity), P = N(N-1)/2 node pairs, S side.
"""

from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from img2graph import geometry
from img2graph import graph as graphs
from img2graph import ranges
from img2graph.encoding import backbones
from img2graph.encoding import heads
from img2graph.encoding import proposals
from img2graph.encoding import roi_edges
from img2graph.encoding import segment_edges

DECISIONS = ('each', 'product')

# What the numbers among the options of heads may be.
_NODE_BOUNDS = {
  **ranges.each(ranges.COUNT, 'width', 'cell', 'stem_features', 'stem_kernel'),
  **ranges.each(ranges.COUNT, 'bottleneck_ratio', 'head_features'),
  **ranges.each(ranges.WHOLE, 'blocks', 'context', 'drawing'),
  **ranges.each(ranges.NOT_NEGATIVE, 'min_distance', 'noise', 'noise_until'),
  'offset_range': ranges.POSITIVE,
  'initial_bias': ranges.FINITE,
  'momentum': ranges.DECAY,
  **ranges.each(ranges.TWO_COUNTS, 'block_features', 'block_depths', 'head_kernels'),
}
_EDGE_BOUNDS = {
  **ranges.each(ranges.COUNT, 'hidden', 'along', 'across', 'size', 'samples'),
  **ranges.each(ranges.NOT_NEGATIVE, 'spread', 'margin', 'min_size'),
  'features': ranges.COUNTS,
}

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
    link_logits: `[B, K]`, logits of `link_prob`; None where only that is known.
  """

  nodes: Any
  link_prob: Any
  pairs: Any = None
  link_logits: Any = None

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

  def to_graph(self, decision='each'):
    """The `Graph` of N nodes.

    Args:
      decision: 'each': an edge is as probable as the least probable of its nodes and
        itself; 'product': as the product of the three.
    """
    if decision == 'product':
      prob = self.weight()
    else:
      prob = jnp.minimum(self.link_prob, jnp.minimum(*self.pair_prob()))
    size = self.nodes.positions.shape[1]
    if self.pairs is not None:
      everywhere = jnp.zeros((prob.shape[0], size * (size - 1) // 2), prob.dtype)
      put = jax.vmap(lambda zeros, index, values: zeros.at[index].set(values))
      prob = put(everywhere, self.pairs, prob)
    return graphs.Graph(
      self.nodes.positions, self.nodes.prob, geometry.pairs_to_matrix(prob, size)
    )


class Encoder(nn.Module):
  """Node head and edge head.

  Attributes:
    node_head: images -> `heads.NodeSet`.
    edge_head: images and the ends of node pairs -> logits `[B, P]`.
    most_pairs: how many node pairs, those with the most ink between them, may have an
      edge; None for all.
  """

  node_head: nn.Module
  edge_head: nn.Module
  most_pairs: int | None = None

  def encode(self, images, progress, train):
    """`[B, S, S, 1]`, training progress in [0, 1] -> `Encoded`."""
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
    logits = self.edge_head(images, start, end, train=train).astype(jnp.float32)
    return encoded._replace(link_prob=jax.nn.sigmoid(logits), link_logits=logits)


def ink(images, nodes):
  """What the encoder takes for lines.

  Args:
    images: `[B, S, S, 1]` as the encoder sees them.
    nodes: `heads.NodeSet` of them.

  Returns:
    `[B, S, S]` in [0, 1]: the images, or if the node head makes a drawing of its own
    that drawing where the images have ink too.
  """
  if nodes.drawing is None:
    return images[..., 0]
  # Where the image has no ink a line may go on, but has to be clearer than elsewhere.
  given = jnp.minimum(_WITHOUT_INK + _WITH_INK * images[..., 0], 1)
  return given * jax.nn.sigmoid(nodes.drawing)


def views(images, nodes, *, prepared):
  """What the encoder sees and draws, for panels.

  Args:
    images: `[B, S, S, 1]` as the encoder sees them.
    nodes: `heads.NodeSet` of them.
    prepared: whether these are other than the images that were given.

  Returns:
    dict of `[B, S, S, 1]`: 'input' if `prepared`; 'clean', the drawing of the node head
    if it makes one.
  """
  out = {'input': images} if prepared else {}
  if nodes.drawing is not None:
    out['clean'] = jax.nn.sigmoid(nodes.drawing)[..., None]
  return out


def check(*, capacity, precision, decision, nodes, predict_capacity=None):
  """Raises ValueError for values of `config.method` that no encoder can have."""
  if capacity < 2:
    raise ValueError(
      f'method.capacity must be at least 2, an edge has two nodes; got {capacity}.'
    )
  if precision not in ('float32', 'bfloat16'):
    raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}.")
  if decision not in DECISIONS:
    raise ValueError(
      f'method.decision must be {" or ".join(map(repr, DECISIONS))}; got {decision!r}.'
    )
  if predict_capacity is not None and not predict_capacity >= 2:
    raise ValueError(
      f'method.predict_capacity must be at least 2; got {predict_capacity}.'
    )
  if predict_capacity not in (None, capacity) and nodes.get('kind') != 'proposals':
    raise ValueError('method.predict_capacity needs nodes of kind proposals.')


def build_part(part, kinds, options, *, bounds, **context):
  """Calls `kinds[options['kind']]` with the other options and the context.

  Args:
    part: its name in `config.method`, for messages.
    kinds: functions by name.
    options: dict with 'kind'.
    bounds: what the numbers among them may be, see `ranges.check`.
    **context: what the config does not say there.

  Raises:
    ValueError: there is no such kind, or it has no such option, or not of such a value.
  """
  options = dict(options)
  kind = options.pop('kind', None)
  if kind not in kinds:
    raise ValueError(
      f'method.{part}.kind must be one of {", ".join(sorted(kinds))}; got {kind!r}.'
    )
  ranges.check(f'method.{part}', options, bounds)
  try:
    return kinds[kind](**options, **context)
  except TypeError as error:
    raise ValueError(f'method.{part}: {error}') from None


def build_parts(*, capacity, nodes, edges, dtype, most_pairs=None):
  """The fields of an `Encoder`, from the values of `config.method`.

  Args:
    capacity: number of nodes N >= 2.
    nodes: {'kind': 'proposals' or 'attention', ...options of that head}.
    edges: {'kind': 'segment' or 'roi', ...}.
    dtype: of the activations of convolutions.
    most_pairs: node pairs per node that may have an edge; None for all.

  Raises:
    ValueError: an option is wrong.
  """
  if most_pairs is not None:
    ranges.as_number('method.most_pairs', most_pairs, **ranges.COUNT)
  return {
    'node_head': build_part(
      'nodes', NODE_HEADS, nodes, bounds=_NODE_BOUNDS, capacity=capacity, dtype=dtype
    ),
    'edge_head': build_part(
      'edges', EDGE_HEADS, edges, bounds=_EDGE_BOUNDS, dtype=dtype
    ),
    'most_pairs': None if most_pairs is None else most_pairs * capacity,
  }


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
  if options.get('learn_boxes') and options.get('mode') == 'max':
    raise ValueError(
      "method.edges.learn_boxes needs mode 'align': the largest of a box's pixels say "
      'nothing of where the box is.'
    )
  classifier = roi_edges.RoiEdgeClassifier(
    features=features, hidden=hidden, dtype=dtype
  )
  return heads.RoiEdges(classifier=classifier, **options)


def _segment_edges(*, dtype, **options):
  del dtype  # Small and sensitive: float32.
  return segment_edges.SegmentEdges(**options)


NODE_HEADS = {'proposals': _proposal_nodes, 'attention': _attention_nodes}
EDGE_HEADS = {'segment': _segment_edges, 'roi': _roi_edges}
