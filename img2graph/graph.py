"""Graph: the one graph type, its canonical form, relabelling and padding.

A graph has a fixed *capacity* of N nodes; what is absent has probability 0. Positions
are (x, y) in [-1, 1], see `img2graph.geometry`. A node is *present* if its probability
exceeds a threshold, an edge if its own probability and those of both its nodes do.

The functions here take numpy and jax arrays: numpy in, numpy out; jax in, jax out,
also under `jax.jit`. All but `to_lists` take any leading batch axes. They decide, so
they are not meant to be differentiated.
"""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
  """Undirected graphs with a capacity of N nodes; a pytree of numpy or jax arrays.

  Attributes:
    nodes: `[..., N, 2]` float, (x, y) in [-1, 1].
    node_prob: `[..., N]` float in [0, 1], probability that the node exists.
    edge_prob: `[..., N, N]` float in [0, 1], symmetric, zero diagonal: probability
      that the edge exists (not conditioned on its nodes).
  """

  nodes: Any
  node_prob: Any
  edge_prob: Any

  @property
  def capacity(self):
    """Number of node slots, N."""
    return self.nodes.shape[-2]


def check(graph):
  """Checks that the three arrays of a graph fit each other; shapes only.

  Args:
    graph: a `Graph`, of arrays or of anything with a shape (also while tracing).

  Returns:
    The same graph.

  Raises:
    ValueError: a shape is wrong; the message names the attribute and both shapes.
  """
  fields = ('nodes', 'node_prob', 'edge_prob')
  for name in fields:
    if not hasattr(getattr(graph, name), 'shape'):
      kind = type(getattr(graph, name)).__name__
      raise ValueError(f'{name} must be a numpy or jax array; got a {kind}.')
  nodes, node_prob, edge_prob = (tuple(getattr(graph, n).shape) for n in fields)
  if len(nodes) < 2 or nodes[-1] != 2:
    raise ValueError(f'nodes must be [..., N, 2] in (x, y); got {nodes}.')
  if node_prob != nodes[:-1]:
    raise ValueError(
      f'node_prob must be {nodes[:-1]} to fit nodes {nodes}; got {node_prob}.'
    )
  if edge_prob != nodes[:-1] + nodes[-2:-1]:
    raise ValueError(
      f'edge_prob must be {nodes[:-1] + nodes[-2:-1]} to fit nodes {nodes}; '
      f'got {edge_prob}.'
    )
  return graph


def empty(batch_shape, capacity):
  """Graphs without nodes: numpy zeros, float32.

  Args:
    batch_shape: leading axes, a tuple or one int; () for a single graph.
    capacity: number of node slots, N >= 0.

  Returns:
    A `Graph` of `[*batch_shape, N, ...]` arrays.
  """
  if isinstance(batch_shape, numbers.Integral):
    batch_shape = (batch_shape,)
  shape = (*batch_shape, capacity)
  if min(shape) < 0:
    raise ValueError(f'batch shape and capacity must not be negative; got {shape}.')
  return Graph(
    nodes=np.zeros((*shape, 2), np.float32),
    node_prob=np.zeros(shape, np.float32),
    edge_prob=np.zeros((*shape, capacity), np.float32),
  )


def from_lists(nodes, edges, capacity=None, *, node_prob=None, edge_prob=None):
  """One graph from a list of nodes and a list of edges.

  Args:
    nodes: `[n, 2]` float, (x, y) in [-1, 1].
    edges: `[e, 2]` int, pairs of different indices below n, in any order; of an edge
      given twice the larger probability counts.
    capacity: number of node slots, at least n; n if None.
    node_prob: `[n]` float in [0, 1]; ones if None.
    edge_prob: `[e]` float in [0, 1]; ones if None.

  Returns:
    An unbatched numpy `Graph`, float32, the n nodes first.

  Raises:
    ValueError: a shape is wrong, an index is out of range, an edge is a loop, or the
      capacity is smaller than n.
  """
  nodes = np.asarray(nodes, np.float32)
  nodes = nodes.reshape(0, 2) if nodes.size == 0 else nodes
  edges = np.asarray(edges)
  edges = np.zeros((0, 2), np.int32) if edges.size == 0 else edges
  if nodes.ndim != 2 or nodes.shape[1] != 2:
    raise ValueError(f'nodes must be [n, 2] in (x, y); got {nodes.shape}.')
  if edges.ndim != 2 or edges.shape[1] != 2:
    raise ValueError(f'edges must be [e, 2] node indices; got {edges.shape}.')
  if not np.issubdtype(edges.dtype, np.integer):
    raise ValueError(f'edges must be whole numbers; got {edges.dtype}.')
  n, e = len(nodes), len(edges)
  capacity = n if capacity is None else capacity
  if capacity < n:
    raise ValueError(f'a capacity of {capacity} cannot hold {n} nodes.')
  if e and (edges.min() < 0 or edges.max() >= n):
    raise ValueError(
      f'edges must join nodes 0 to {n - 1}; got {edges.min()} to {edges.max()}.'
    )
  if (edges[:, 0] == edges[:, 1]).any():
    raise ValueError('edges must join two different nodes; got a loop.')
  node_prob = np.ones(n) if node_prob is None else np.asarray(node_prob)
  edge_prob = np.ones(e) if edge_prob is None else np.asarray(edge_prob)
  if node_prob.shape != (n,) or edge_prob.shape != (e,):
    raise ValueError(
      f'{n} nodes and {e} edges need as many probabilities; '
      f'got {node_prob.shape} and {edge_prob.shape}.'
    )
  graph = empty((), capacity)
  graph.nodes[:n] = nodes
  graph.node_prob[:n] = node_prob
  for senders, receivers in (edges.T, edges.T[::-1]):
    np.maximum.at(graph.edge_prob, (senders, receivers), edge_prob)
  return graph


def to_lists(graph, threshold=0.5):
  """Nodes and edges that are present in one graph, as numpy arrays.

  Args:
    graph: an unbatched `Graph`, numpy or jax.
    threshold: what probabilities must exceed.

  Returns:
    `(nodes, edges)`: `[n, 2]` float32 positions of the present nodes, isolated ones
    too, in the order of their slots; `[e, 2]` int32 indices into them, i < j, sorted.
  """
  check(graph)
  if graph.nodes.ndim != 2:
    raise ValueError(
      f'to_lists takes one graph, nodes [N, 2]; got nodes {graph.nodes.shape}.'
    )
  binary = binarize(jax.tree.map(np.asarray, graph), threshold)
  (slots,) = np.nonzero(binary.node_prob)
  adjacency = binary.edge_prob[np.ix_(slots, slots)]
  edges = np.argwhere(np.triu(adjacency, 1)).astype(np.int32)
  return binary.nodes[slots].astype(np.float32), edges


def binarize(graph, threshold=0.5):
  """The graph with every probability decided: 1 where present, 0 elsewhere.

  Args:
    graph: a `Graph`, any batch axes.
    threshold: what an edge and both its nodes must exceed.

  Returns:
    A `Graph` of the same shapes and types; positions are untouched.
  """
  check(graph)
  node, edge = _present(graph, threshold)
  return Graph(
    nodes=graph.nodes,
    node_prob=node.astype(graph.node_prob.dtype),
    edge_prob=edge.astype(graph.edge_prob.dtype),
  )


def drop_absent(graph, threshold=0.5, node_threshold=None):
  """The graph without what is absent; what is present keeps its slot.

  Args:
    graph: a `Graph`, any batch axes.
    threshold: what an edge must exceed.
    node_threshold: what a node must exceed, also for its edges; None for `threshold`.

  Returns:
    A `Graph` of the same shapes and types; probabilities and positions of what is
    absent are 0.
  """
  check(graph)
  node, edge = _present(graph, threshold, node_threshold)
  xp = _namespace(graph)
  # Not a product: what is absent may lie anywhere, even at NaN.
  return Graph(
    nodes=xp.where(node[..., None], graph.nodes, 0),
    node_prob=xp.where(node, graph.node_prob, 0),
    edge_prob=xp.where(edge, graph.edge_prob, 0),
  )


def relabel(graph, permutation):
  """Renumbers the nodes: the new node k is the old node `permutation[..., k]`.

  Args:
    graph: a `Graph`, any batch axes.
    permutation: `[N]`, the same for all graphs, or `[..., N]` int, each a permutation
      of 0 to N-1.

  Returns:
    A `Graph` of the same shapes.
  """
  check(graph)
  xp = _namespace(graph, permutation)
  permutation = xp.asarray(permutation)
  shape = graph.node_prob.shape
  if permutation.shape not in (shape, shape[-1:]):
    raise ValueError(
      f'a permutation of these nodes must be {shape[-1:]} or {shape}; '
      f'got {permutation.shape}.'
    )
  if not isinstance(permutation, jax.core.Tracer):
    expected = np.broadcast_to(np.arange(shape[-1]), permutation.shape)
    if not np.array_equal(np.sort(np.asarray(permutation), axis=-1), expected):
      raise ValueError(f'a permutation must hold each of 0 to {shape[-1] - 1} once.')
  order = xp.broadcast_to(permutation, shape)
  rows = order[..., None]
  edge_prob = xp.take_along_axis(graph.edge_prob, rows, axis=-2)
  return Graph(
    nodes=xp.take_along_axis(graph.nodes, rows, axis=-2),
    node_prob=xp.take_along_axis(graph.node_prob, order, axis=-1),
    edge_prob=xp.take_along_axis(edge_prob, order[..., None, :], axis=-1),
  )


def pad(graph, capacity):
  """The graph with another capacity: absent slots are added, or removed, at the end.

  Args:
    graph: a `Graph`, any batch axes.
    capacity: the new number of node slots. It may be smaller than the old one outside
      `jit` if the slots beyond it are absent (probability 0), as they are after
      `canonicalize`.

  Returns:
    A `Graph` of capacity `capacity`.

  Raises:
    ValueError: a node that is present would be lost, or that cannot be known.
  """
  check(graph)
  xp = _namespace(graph)
  more = capacity - graph.capacity
  if capacity < 0:
    raise ValueError(f'a capacity must not be negative; got {capacity}.')
  if more < 0:
    beyond = graph.node_prob[..., capacity:]
    if isinstance(beyond, jax.core.Tracer):
      raise ValueError(
        f'a capacity can only shrink outside jit; wanted {capacity}, '
        f'the graph has {graph.capacity}.'
      )
    if (beyond > 0).any():
      last = int(np.nonzero(np.asarray(graph.node_prob) > 0)[-1].max())
      raise ValueError(
        f'a capacity of {capacity} would lose nodes: node {last} is present.'
      )
    return Graph(
      nodes=graph.nodes[..., :capacity, :],
      node_prob=graph.node_prob[..., :capacity],
      edge_prob=graph.edge_prob[..., :capacity, :capacity],
    )
  batch = [(0, 0)] * (graph.nodes.ndim - 2)
  return Graph(
    nodes=xp.pad(graph.nodes, [*batch, (0, more), (0, 0)]),
    node_prob=xp.pad(graph.node_prob, [*batch, (0, more)]),
    edge_prob=xp.pad(graph.edge_prob, [*batch, (0, more), (0, more)]),
  )


def canonicalize(
  graph,
  *,
  threshold=0.5,
  merge_radius=0.02,
  contract_angle=None,
  contract_distance=None,
):
  """The canonical form of a graph.

  In this order:
  1. What does not exceed `threshold` is absent, and so is an edge of an absent node.
  2. Nodes within `merge_radius` of each other become one, transitively, until no two
     nodes are that close. It lies at the mean of all nodes that it unites and has
     their largest probability; so has an edge that unites several. Edges inside it
     vanish.
  3. Nodes without an edge are dropped.
  4. If `contract_angle` is given, nodes of degree 2 that lie nearly straight between
     their neighbours are replaced by one edge with the smaller of both probabilities,
     straightest node first (then least x, least y), until none is left. A node whose
     neighbours are joined already stays, so a ring never falls below a triangle.
  5. Present nodes move to the front, in the order of their first slot.

  Args:
    graph: a `Graph`, any batch axes.
    threshold: in [0, 1]; what an edge's probability and those of both its nodes must
      exceed.
    merge_radius: largest distance of nodes to merge, in coordinate units (the image is
      2 wide), >= 0; 0 merges only equal positions.
    contract_angle: a node may be contracted if the line turns there by less than this
      angle, in degrees; None contracts nothing.
    contract_distance: and if it is at most this far from the segment between its
      neighbours, in coordinate units; None for any distance.

  Returns:
    A `Graph` of the same capacity; probabilities are kept where something is present
    and 0 elsewhere, positions of absent nodes are 0. Applying it again changes nothing.
  """
  check(graph)
  _check_option('threshold', threshold, 0, 1)
  _check_option('merge_radius', merge_radius, 0)
  _check_option('contract_angle', contract_angle, 0)
  _check_option('contract_distance', contract_distance, 0)
  if merge_radius is None or threshold is None:
    raise ValueError('threshold and merge_radius must be numbers; got None.')
  if contract_angle is None and contract_distance is not None:
    raise ValueError('contract_distance needs a contract_angle; got None.')
  if graph.capacity == 0:
    return graph
  xp = _namespace(graph)
  dtype = graph.nodes.dtype
  options = dict(
    threshold=xp.asarray(threshold, graph.node_prob.dtype),
    radius=xp.asarray(merge_radius, dtype),
    angle=None if contract_angle is None else xp.asarray(contract_angle, dtype),
    distance=(
      None if contract_distance is None else xp.asarray(contract_distance, dtype)
    ),
  )
  batch = graph.nodes.shape[:-2]
  flat = jax.tree.map(
    lambda x: x.reshape((int(np.prod(batch)), *x.shape[len(batch) :])), graph
  )
  if xp is jnp:
    result = _canonicalize_batch(flat, **options)
  else:
    result = jax.tree.map(np.zeros_like, flat)
    for i in range(len(flat.nodes)):
      single = jax.tree.map(lambda x, i=i: x[i], flat)
      single = _canonicalize_one(np, single, **options)
      result.nodes[i] = single.nodes
      result.node_prob[i] = single.node_prob
      result.edge_prob[i] = single.edge_prob
  return jax.tree.map(lambda x: x.reshape(batch + x.shape[1:]), result)


@jax.jit
def _canonicalize_batch(graph, *, threshold, radius, angle, distance):
  """`_canonicalize_one` over the first axis; jitted, since eager loops recompile."""
  return jax.vmap(
    lambda single: _canonicalize_one(
      jnp, single, threshold=threshold, radius=radius, angle=angle, distance=distance
    )
  )(graph)


def _canonicalize_one(xp, graph, *, threshold, radius, angle, distance):
  """Canonical form of one graph; `xp` is the array module, see `canonicalize`."""
  node, edge = _present(graph, threshold)
  # From here on, present means probability > 0.
  graph = Graph(
    nodes=xp.where(node[:, None], graph.nodes, 0),
    node_prob=xp.where(node, graph.node_prob, 0),
    edge_prob=xp.where(edge, graph.edge_prob, 0),
  )
  graph = _merge(xp, graph, radius)
  graph = _drop(xp, graph, (graph.edge_prob > 0).any(axis=1))
  if angle is not None:
    graph = _contract(xp, graph, angle, distance)
  order = xp.argsort(~(graph.node_prob > 0), stable=True)
  return Graph(
    nodes=graph.nodes[order],
    node_prob=graph.node_prob[order],
    edge_prob=graph.edge_prob[order][:, order],
  )


def _merge(xp, graph, radius):
  """Unites nodes within `radius`, transitively, until none are; absent is 0."""
  count = graph.node_prob.shape[0]
  slots = xp.arange(count)

  def unite(state):
    # The mean of a cluster may come near another node, hence several passes.
    _, owner, total, size = state
    centre = total / xp.maximum(size, 1)[:, None]
    offset = centre[:, None, :] - centre[None, :, :]
    alive = size > 0
    close = alive[:, None] & alive[None, :] & ((offset**2).sum(-1) <= radius**2)
    label = _components(xp, close)
    moved = (label != slots).any()
    return (
      moved,
      label[owner],
      _scatter(xp, 'add', xp.zeros_like(total), label, total),
      _scatter(xp, 'add', xp.zeros_like(size), label, size),
    )

  present = graph.node_prob > 0
  state = (xp.asarray(True), slots, graph.nodes, present.astype(graph.nodes.dtype))
  _, owner, total, size = _while(xp, lambda state: state[0], unite, state)
  pairs = (owner[:, None], owner[None, :])
  edge_prob = _scatter(
    xp, 'max', xp.zeros_like(graph.edge_prob), pairs, graph.edge_prob
  )
  return Graph(
    nodes=total / xp.maximum(size, 1)[:, None],
    node_prob=_scatter(
      xp, 'max', xp.zeros_like(graph.node_prob), owner, graph.node_prob
    ),
    edge_prob=xp.where(slots[:, None] == slots[None, :], 0, edge_prob),
  )


def _components(xp, adjacent):
  """The least index in the connected component of each node: `[N]` int."""
  count = adjacent.shape[0]
  slots = xp.arange(count)

  def spread(state):
    label, _ = state
    least = xp.where(adjacent, label[None, :], count).min(axis=1)
    least = xp.minimum(label, least)
    return least, (least != label).any()

  state = (slots, xp.asarray(True))
  return _while(xp, lambda state: state[1], spread, state)[0]


def _contract(xp, graph, angle, distance):
  """Replaces nearly straight degree-2 nodes by one edge each; absent is 0."""
  count = graph.node_prob.shape[0]
  slots = xp.arange(count)

  def remove_straightest(state):
    _, graph = state
    nodes, joined = graph.nodes, graph.edge_prob > 0
    first = xp.argmax(joined, axis=1)
    last = count - 1 - xp.argmax(joined[:, ::-1], axis=1)
    into, out = nodes - nodes[first], nodes[last] - nodes
    cross = into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0]
    turn = xp.degrees(xp.arctan2(xp.abs(cross), (into * out).sum(-1)))
    free = (joined.sum(axis=1) == 2) & ~joined[first, last] & (turn < angle)
    if distance is not None:
      chord = nodes[last] - nodes[first]
      length_sq = (chord**2).sum(-1)
      along = (into * chord).sum(-1) / xp.where(length_sq > 0, length_sq, 1)
      away = into - xp.clip(along, 0, 1)[:, None] * chord
      free = free & ((away**2).sum(-1) <= distance**2)
    best = free
    # Ties are broken by position, so that numbering does not matter.
    for value in (turn, nodes[:, 0], nodes[:, 1]):
      value = xp.where(best, value, xp.inf)
      best = best & (value == value.min())
    found = best.any()
    k = xp.argmax(best)
    i, j = first[k], last[k]
    bridge = xp.minimum(graph.edge_prob[k, i], graph.edge_prob[k, j])
    rows, columns = slots[:, None], slots[None, :]
    ends = ((rows == i) & (columns == j)) | ((rows == j) & (columns == i))
    graph = _drop(xp, graph, ~(found & (slots == k)))
    edge_prob = xp.where(found & ends, bridge, graph.edge_prob)
    return found, dataclasses.replace(graph, edge_prob=edge_prob)

  state = (xp.asarray(True), graph)
  return _while(xp, lambda state: state[0], remove_straightest, state)[1]


def _drop(xp, graph, keep):
  """The graph with all nodes where `keep` is false, and their edges, set to 0."""
  return Graph(
    nodes=xp.where(keep[:, None], graph.nodes, 0),
    node_prob=xp.where(keep, graph.node_prob, 0),
    edge_prob=xp.where(keep[:, None] & keep[None, :], graph.edge_prob, 0),
  )


def _present(graph, threshold, node_threshold=None):
  """Which nodes `[..., N]` and edges `[..., N, N]` are present: bool; no loops."""
  node = graph.node_prob > (threshold if node_threshold is None else node_threshold)
  loop = np.eye(graph.capacity, dtype=bool)
  loop = loop.reshape((1,) * (node.ndim - 1) + loop.shape)
  edge = (graph.edge_prob > threshold) & node[..., :, None] & node[..., None, :]
  return node, edge & ~loop


def _while(xp, condition, body, state):
  """`lax.while_loop`, or a plain loop for numpy."""
  if xp is jnp:
    return jax.lax.while_loop(condition, body, state)
  while condition(state):
    state = body(state)
  return state


def _scatter(xp, kind, target, index, values):
  """Adds or takes the maximum ('add', 'max') of values at an index of the target."""
  if xp is jnp:
    return getattr(target.at[index], kind)(values)
  {'add': np.add, 'max': np.maximum}[kind].at(target, index, values)
  return target


def _namespace(*arrays):
  """numpy if nothing in the pytrees is a jax array, else jax.numpy."""
  found = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays))
  return jnp if found else np


def _check_option(name, value, low, high=None):
  """Checks a plain number; None and traced values pass."""
  if value is None or isinstance(value, jax.core.Tracer):
    return
  if not (low <= value and (high is None or value <= high)):
    wanted = f'in [{low}, {high}]' if high is not None else f'at least {low}'
    raise ValueError(f'{name} must be {wanted}; got {value}.')
