"""Node heads and edge heads: the parts of an encoder that a method composes.

A node head maps images to a `NodeSet`; an edge head maps images and the ends of node
pairs to logits. All heads of a kind are called alike, so that a config can swap them.

Letters: B batch, N nodes, P node pairs, S side of the images.
"""

from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from img2graph.encoding import backbones
from img2graph.encoding import coordinates
from img2graph.encoding import pooling
from img2graph.encoding import proposals
from img2graph.encoding import roi_edges


class NodeSet(NamedTuple):
  """What a node head finds.

  Attributes:
    positions: `[B, N, 2]` float32, (x, y) in [-1, 1].
    prob: `[B, N]` float32 in [0, 1], probability that the node exists.
    attention: `[B, h, w, N]` normalised maps, or None when a head has none.
    drawing: `[B, S, S]` logits of ink without what is rough about the image, or None.
    proposals: (logits `[B, C]`, positions `[B, C, 2]`) of all that the nodes were
      chosen from, or None when a head chooses none.
  """

  positions: Any
  prob: Any
  attention: Any = None
  drawing: Any = None
  proposals: Any = None


class ProposalNodes(nn.Module):
  """The node head made of `ProposalNet` and `select`.

  Attributes:
    net: a `ProposalNet`.
    capacity: number of nodes N.
    min_distance: suppression radius, pixels of the image that `net` sees.
    noise: scale of the Gumbel noise that explores proposals in training.
    noise_until: fraction of training at which that noise has fallen to zero; 0 for
      no noise.
  """

  net: nn.Module
  capacity: int = 8
  min_distance: float = 5.0
  noise: float = 1.0
  noise_until: float = 0.7

  def __call__(self, images, *, progress, train):
    """`[B, S, S, 1]`, training progress in [0, 1] -> `NodeSet`.

    Needs the random stream 'explore' when `train` is set.
    """
    logits, positions, drawing = self.net(images)
    scores = jax.lax.stop_gradient(logits)
    if train and self.noise and self.noise_until:
      scale = self.noise * jnp.clip(1 - progress / self.noise_until, 0, 1)
      key = self.make_rng('explore')
      scores = scores + scale * jax.random.gumbel(key, scores.shape, jnp.float32)
    indices, valid = proposals.select(
      scores,
      jax.lax.stop_gradient(positions),
      num_nodes=self.capacity,
      min_distance=2 * self.min_distance / images.shape[1],
    )
    chosen = jnp.take_along_axis(positions, indices[..., None], axis=1)
    prob = jax.nn.sigmoid(jnp.take_along_axis(logits, indices, axis=1)) * valid
    found = (logits, positions)
    return NodeSet(chosen, prob, drawing=drawing, proposals=found)


class AttentionNodes(nn.Module):
  """The node head of the paper: one attention map per node and its mean (3.2.1).

  Every node exists; those without an edge are dropped from the graph later.

  Attributes:
    backbone: images -> logits `[B, h, w, N]`.
  """

  backbone: backbones.PaperBackbone

  def __call__(self, images, *, progress, train):
    """`[B, S, S, 1]` -> `NodeSet` with attention of maximum 1 (equation 5)."""
    del progress
    probs = coordinates.spatial_softmax(self.backbone(images, train=train))
    positions = coordinates.dsnt(probs)
    attention = coordinates.peak_normalize(probs)
    return NodeSet(positions, jnp.ones_like(positions[..., 0]), attention)


class RoiEdges(nn.Module):
  """The edge head of the paper: a classifier of the box between two nodes (3.2.1).

  Attributes:
    classifier: patches -> (logits, probs).
    size: side of the patches.
    mode: of `pooling.roi_pool`, 'align' or 'max'.
    samples: of `pooling.roi_pool`.
    margin: pixels added to each side of a box.
    min_size: least side of a box, pixels.
    learn_boxes: whether the classifier's gradient reaches the positions.
  """

  classifier: roi_edges.RoiEdgeClassifier
  size: int = 16
  mode: str = 'align'
  samples: int = 2
  margin: float = 2.0
  min_size: float = 8.0
  learn_boxes: bool = False

  def __call__(self, images, start, end, *, train):
    """(`[B, S, S, 1]`, `[B, P, 2]`, `[B, P, 2]`) -> logits `[B, P]`."""
    pixel = 2 / images.shape[1]
    boxes = pooling.segment_boxes(
      start, end, margin=self.margin * pixel, min_size=self.min_size * pixel
    )
    if not self.learn_boxes:
      boxes = jax.lax.stop_gradient(boxes)
    patches = pooling.roi_pool(
      images, boxes, size=self.size, mode=self.mode, samples=self.samples
    )
    logits, _ = self.classifier(patches, train=train)
    return logits
