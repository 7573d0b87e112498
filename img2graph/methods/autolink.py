"""AutoLink: keypoints of one object class and the links between them.

"AutoLink: Self-supervised Learning of Human Skeletons and Object Outlines by Linking
Keypoints", He, Wandt & Rhodin 2022. A detector finds K keypoints in a photograph; lines
between them, weighted by a graph that all photographs share, make an edge map; and a
network that sees this map and a fifth of the photograph's patches must restore the
photograph. What the paper leaves open is as in the authors' code (docs/autolink.md).

Positions are those of `img2graph.geometry` throughout. The authors count from the first
pixel's centre, -1, to the last's, 1, also on the detector's coarser maps, whose cells
then lie a little outside of what they see. With `grid` 'corners' that is kept, exactly:
their position u is ours times S / (S - 1), S the image's side, and so are distances.
With 'cells' a keypoint lies where its map's cells do.

Letters: B batch, K keypoints, P = K(K-1)/2 pairs, S side.
"""

import functools
import numbers
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from img2graph import geometry
from img2graph import graph as graph_lib
from img2graph import ranges
from img2graph import rendering
from img2graph.encoding import affine_maps
from img2graph.encoding import encoder
from img2graph.encoding import keypoints
from img2graph.encoding import masking
from img2graph.losses import perceptual
from img2graph.methods import base
from img2graph.rendering import inpainting

GRIDS = ('corners', 'cells')
MAPS = ('lines', 'channels', 'points')
THICKNESSES = ('fixed', 'shared', 'each')
# What the numbers among the options of losses may be.
_LOSS_BOUNDS = {
  **ranges.each(ranges.NOT_NEGATIVE, 'features', 'pyramid'),
  'scales': ranges.COUNT,
  'seed': ranges.WHOLE,
  'widths': ranges.COUNTS,
}


class Found(NamedTuple):
  """What is found in a batch of images.

  Attributes:
    nodes: `[B, K, 2]` float32, (x, y) in [-1, 1].
    weights: `[B, P]` float32 >= 0, of the pairs, as if both ends were there; `[B, K]`,
      of the keypoints, when the edge map shows no lines.
    presence: `[B, K]` float32 in [0, 1].
  """

  nodes: Any
  weights: Any
  presence: Any


class AutoLink(nn.Module):
  """Detector, graph and in-painting network.

  Attributes:
    detector: a `KeypointDetector`.
    inpainter: an `InpaintingNet`.
    scale: what its positions are multiplied with, see `build`.
    thickness: distance at which a line has fallen to 1/e, coordinate units.
    learn_thickness: of `THICKNESSES`.
    edge_map: of `MAPS`.
    rate: what the parameters of edge weights are multiplied with.
    start: logit of edge weights at first.
    learn_alpha: whether the brightness of the masked image is learned, or 1.
    topology: a `Topology` for weights and presence of each image's own, or None.
  """

  detector: nn.Module
  inpainter: nn.Module
  scale: float
  thickness: float
  learn_thickness: str
  edge_map: str
  rate: float
  start: float
  learn_alpha: bool
  topology: nn.Module | None = None

  def setup(self):
    count = self.detector.num_keypoints
    if self.edge_map != 'points':
      count = count * (count - 1) // 2

    def start(key):
      return (self.start + jax.random.normal(key, (count,)) / 10) / self.rate

    self.theta = self.param('edges', start)
    if self.learn_alpha:
      self.alpha = self.param('alpha', lambda _: jnp.ones(()))
    if self.learn_thickness != 'fixed':
      shape = (count,) if self.learn_thickness == 'each' else ()
      self.log_thickness = self.param(
        'log_thickness', lambda _: jnp.full(shape, np.log(self.thickness), jnp.float32)
      )

  def find(self, images, train=False):
    """`[B, S, S, 3]` in [0, 1] -> `Found`."""
    nodes, probs, features = self.detector(2 * images - 1, train=train)
    logits = jnp.broadcast_to(
      self.rate * self.theta[None], (images.shape[0], self.theta.size)
    )
    presence = jnp.ones(nodes.shape[:2], jnp.float32)
    if self.topology is not None:
      present, links = self.topology(probs, features)
      presence, logits = jax.nn.sigmoid(present), logits + links
    return Found(self.scale * nodes, jax.nn.softplus(logits), presence)

  def draw(self, found, side):
    """`Found` -> edge map `[B, S, S, 1]`, of 'channels' `[B, S, S, P]`, >= 0."""
    nodes, weights = found.nodes, self.drawn(found)
    thickness = self.thickness
    if self.learn_thickness != 'fixed':
      thickness = jnp.exp(self.log_thickness)
    size = dict(height=side, width=side)
    if self.edge_map == 'points':
      return rendering.draw_edges(nodes, nodes, weights, thickness=thickness, **size)[
        ..., None
      ]
    senders, receivers = geometry.node_pairs(nodes.shape[1])
    start, end = nodes[:, senders], nodes[:, receivers]
    if self.edge_map == 'lines':
      return rendering.draw_edges(start, end, weights, thickness=thickness, **size)[
        ..., None
      ]
    batch, pairs = weights.shape
    # One line to an image.
    alone = (batch * pairs, 1)
    thickness = jnp.broadcast_to(thickness, (batch, pairs)).reshape(alone)
    lines = rendering.draw_edges(
      start.reshape(*alone, 2),
      end.reshape(*alone, 2),
      weights.reshape(alone),
      thickness=thickness,
      **size,
    )
    return jnp.moveaxis(lines.reshape(batch, pairs, side, side), 1, -1)

  def drawn(self, found):
    """Weights of `Found` as they are drawn: times the presence of keypoints."""
    if self.edge_map == 'points':  # All are there.
      return found.weights
    senders, receivers = geometry.node_pairs(found.presence.shape[1])
    there = found.presence[:, senders] * found.presence[:, receivers]
    return found.weights * there

  def __call__(self, images, keep, train=False):
    """Images and what of them to keep, `[B, S, S, 1]`, to all there is to see.

    Returns:
      (`Found`, edge map, reconstruction `[B, S, S, 3]`, in [0, 1] where it is right).
    """
    found = self.find(images, train)
    edge_map = self.draw(found, images.shape[1])
    return found, edge_map, self.restore(images, keep, edge_map, train)

  def restore(self, images, keep, edge_map, train=False):
    """What is kept of images, and an edge map, to `[B, S, S, 3]`, right in [0, 1]."""
    masked = (2 * images - 1) * keep
    if self.learn_alpha:
      masked = self.alpha * masked
    seen = jnp.concatenate([masked, edge_map], axis=-1)
    return (self.inpainter(seen, train=train) + 1) / 2


def build_model(
  *,
  precision,
  num_keypoints,
  side,
  grid,
  detector,
  edges,
  renderer,
  inpainter,
  topology=None,
):
  """The network.

  Args:
    precision: 'float32' or 'bfloat16', of the activations of convolutions.
    num_keypoints: K >= 2.
    side: of the images, S.
    grid: 'corners' for the positions of the authors, 'cells' for those of the
      detector's cells; see the top of the file.
    detector: {'down', 'up'}, see `KeypointDetector`.
    edges: {'rate': what the parameters of edge weights are multiplied with, which
      under Adam is a multiple of their learning rate, 'start': their first logit}.
    renderer: {'sigma_sq': sigma^2 of equation 2, 'thickness': 'fixed', or learned:
      'shared' or 'each' edge its own, 'map': 'lines' in one channel, 'channels', each
      line its own, or 'points' without lines}.
    inpainter: {'features', 'learn_alpha'}, see `InpaintingNet` and `AutoLink`.
    topology: as of `build`.

  Returns:
    An `AutoLink`.

  Raises:
    ValueError: a value is out of range or a name unknown.
  """
  if precision not in ('float32', 'bfloat16'):
    raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}.")
  if not _is_whole(num_keypoints) or num_keypoints < 2:
    raise ValueError(
      f'method.num_keypoints must be a whole number from 2; got {num_keypoints}.'
    )
  _check_options('detector', detector, ('down', 'up'))
  _check_options('edges', edges, ('rate', 'start'))
  _check_options('renderer', renderer, ('sigma_sq',), ('thickness', 'map'))
  _check_options('inpainter', inpainter, ('features', 'learn_alpha'))
  topology = _enabled(topology)
  if not edges['rate'] > 0:
    raise ValueError(f'method.edges.rate must be above 0; got {edges["rate"]}.')
  ranges.check('method.edges', edges, ranges.each(ranges.FINITE, 'rate', 'start'))
  renderer = {'thickness': 'fixed', 'map': 'lines'} | dict(renderer)
  for name, value, known in (
    ('grid', grid, GRIDS),
    ('renderer.map', renderer['map'], MAPS),
    ('renderer.thickness', renderer['thickness'], THICKNESSES),
  ):
    if value not in known:
      raise ValueError(f'method.{name} must be one of {known}; got {value!r}.')
  if not renderer['sigma_sq'] > 0:
    raise ValueError(
      f'method.renderer.sigma_sq must be above 0; got {renderer["sigma_sq"]}.'
    )
  ranges.check('method.detector', detector, ranges.each(ranges.COUNTS, 'down', 'up'))
  ranges.check('method.inpainter', inpainter, {'features': ranges.COUNTS})
  keypoints.check_sides(side=side, **detector)
  features = tuple(inpainter['features'])
  inpainting.check_side(side, features)
  if topology is not None and renderer['map'] == 'points':
    raise ValueError('method.topology needs lines; method.renderer.map is points.')
  dtype = jnp.dtype(precision)
  # From the authors' [-1, 1], of pixel centres, to ours, of outer edges.
  unit, scale = 1.0, 1.0
  if grid == 'corners':
    cells = keypoints.map_side(side=side, **detector)
    unit = (side - 1) / side
    scale = unit * cells / (cells - 1)
  return AutoLink(
    detector=keypoints.KeypointDetector(num_keypoints, side, dtype=dtype, **detector),
    inpainter=inpainting.InpaintingNet(features, dtype=dtype),
    scale=scale,
    thickness=unit * float(np.sqrt(renderer['sigma_sq'])),
    learn_thickness=renderer['thickness'],
    edge_map=renderer['map'],
    rate=edges['rate'],
    start=edges['start'],
    learn_alpha=inpainter['learn_alpha'],
    topology=None
    if topology is None
    else keypoints.Topology(topology['hidden'], topology['presence_bias']),
  )


def build(
  *,
  train_steps,
  mask,
  loss,
  topology=None,
  equivariance=None,
  separation=None,
  **model_options,
):
  """The method, from the values of `config.method` (see configs/autolink.py).

  Args:
    train_steps: length of the training run; nothing depends on it.
    mask: {'blocks', 'ratio'}, see `masking.keep_masks`.
    loss: {'kind': 'perceptual', 'weights': path of VGG16's} or {'kind': 'fallback',
      ...}, see `LOSSES`.
    topology: {'hidden', 'presence_bias', 'cost': of the mean of what is drawn, each
      weight relative to the largest, >= 0} for links and presence of each image's own,
      unless it has 'enabled' False; None, too, for one graph for all.
    equivariance: {'weight', 'turn', 'zoom', 'shift'}, not in the paper: keypoints of
      a photograph that is turned, scaled and shifted, as `affine_maps.check` has it,
      are to be those of the photograph, moved alike (Thewlis, Bilen & Vedaldi,
      "Unsupervised learning of object landmarks by factorized spatial embeddings",
      2017). To the loss comes `weight` times their mean distance in sides; None or a
      weight of 0 for nothing.
    separation: {'weight', 'distance'}, not in the paper: to the loss comes `weight`
      times the mean over pairs of keypoints of exp(-d^2 / 2 distance^2), both in sides
      (the separation of Zhang et al., "Unsupervised discovery of object landmarks as
      structural representations", 2018, there a sum). All keypoints in one place move
      with the image as well, and this keeps them from it; None or 0 for nothing.
    **model_options: see `build_model`.

  Returns:
    A `base.Method` of images in colour. Its graphs have all K keypoints, with
    `topology` as probable as they are present. The probability of an edge is its weight
    as it is drawn, with `topology` times the presence of both ends, relative to the
    largest of the image's: the scale of weights is arbitrary, since the network that
    sees them can undo it. `reconstruct` has the weights as they are drawn, 'weights'
    `[B, P]`; 'drawing' is relative in the same way.

  Raises:
    ValueError: a value is out of range or a name unknown.
  """
  del train_steps
  _check_options('mask', mask, ('blocks', 'ratio'))
  masking.check(**mask, side=model_options['side'])
  topology = _enabled(topology)
  cost = 0.0 if topology is None else topology['cost']
  pull, moves = _equivariance(equivariance)
  push, distance = _separation(separation)
  model = build_model(topology=topology, **model_options)
  num_keypoints = model.detector.num_keypoints
  dtype = model.detector.dtype
  loss_fn = encoder.build_part('loss', LOSSES, loss, bounds=_LOSS_BOUNDS)

  def keep_masks(key, images):
    return masking.keep_masks(key, images.shape[0], side=images.shape[1], **mask)

  def init(key, batch):
    images = _check(batch['image'])
    return model.init(key, images, keep_masks(key, images), True)

  def loss_and_aux(variables, batch, key, step):
    del step
    images = _check(batch['image'])
    (found, _, restored), collections = model.apply(
      variables, images, keep_masks(key, images), True, mutable=['batch_stats']
    )
    value, metrics = loss_fn(restored.astype(dtype), images.astype(dtype))
    drawn = model.drawn(found)
    if pull:
      apart = moved_apart(variables, images, found.nodes, key)
      value, metrics = value + pull * apart, metrics | {'equivariance': apart}
    if push:
      close = _closeness(found.nodes, distance)
      value, metrics = value + push * close, metrics | {'separation': close}
    if cost:
      price = cost * _relative(drawn).mean()
      value, metrics = value + price, metrics | {'cost': price}
    metrics = {
      'loss': value,
      **metrics,
      'largest_weight': drawn.max(),
      'edges': (_relative(drawn) > 0.5).sum(-1).mean(),
    }
    if topology is not None:
      metrics['nodes'] = (found.presence > 0.5).sum(-1).mean()
    if model.learn_alpha:
      metrics['alpha'] = variables['params']['alpha']
    return value, {'metrics': metrics, 'collections': collections}

  def moved_apart(variables, images, nodes, key):
    """Mean distance of keypoints of moved images from moved keypoints, in sides."""
    key = jax.random.fold_in(key, 1)  # Masks have the key itself.
    maps = affine_maps.sample(key, images.shape[0], **moves)
    moved = affine_maps.move_images(images, *maps)
    found, _ = model.apply(
      variables, moved, True, method='find', mutable=['batch_stats']
    )
    wanted = affine_maps.move_points(nodes, *maps)
    # What has left the image cannot be found.
    inside = (jnp.abs(jax.lax.stop_gradient(wanted)) < 1).all(axis=-1)
    # A third of a pixel of 64 is added: the root of 0 has no gradient.
    apart_sq = ((found.nodes - wanted) ** 2).sum(axis=-1) + 1e-4
    return (jnp.sqrt(apart_sq) * inside).sum() / jnp.maximum(inside.sum(), 1) / 2

  def to_graph(found):
    edge_prob = jnp.zeros(found.nodes.shape[:2] + (num_keypoints,), jnp.float32)
    if model.edge_map != 'points':
      weights = _relative(model.drawn(found))
      edge_prob = geometry.pairs_to_matrix(weights, num_keypoints)
    return graph_lib.Graph(found.nodes, found.presence, edge_prob)

  def predict(variables, images):
    return to_graph(model.apply(variables, _check(images), method='find'))

  def reconstruct(variables, images):
    images = _check(images)
    keep = keep_masks(jax.random.key(0), images)
    found, edge_map, restored = model.apply(variables, images, keep)
    edge_map = edge_map.max(-1, keepdims=True)
    drawn = model.drawn(found)
    return {
      'graph': to_graph(found),
      'drawing': edge_map / _largest(drawn)[..., None, None],
      'masked': ((2 * images - 1) * keep + 1) / 2,
      'reconstruction': jnp.clip(restored, 0, 1),
      'weights': drawn,
    }

  return base.Method(
    init=init,
    loss=loss_and_aux,
    predict=predict,
    reconstruct=reconstruct,
    sides=(model.detector.side,),
    only_sides=True,
    channels=3,
    keypoints=True,
  )


def _check_options(part, options, needed, more=()):
  """Raises ValueError unless a part of `config.method` has these options, no others."""
  known = (*needed, *more)
  if unknown := sorted(set(options) - set(known)):
    raise ValueError(
      f'method.{part} has no option {unknown[0]!r}; it has {", ".join(known)}.'
    )
  if missing := [name for name in needed if name not in options]:
    raise ValueError(f'method.{part} lacks {", ".join(missing)}.')


def _enabled(topology):
  """All options of a topology, or None for none."""
  usual = {'enabled': True, 'hidden': 64, 'presence_bias': 3.0, 'cost': 0.0}
  _check_options('topology', topology or {}, (), tuple(usual))
  topology = usual | dict(topology or {'enabled': False})
  if not _is_whole(topology['hidden']) or topology['hidden'] < 1:
    raise ValueError(
      'method.topology.hidden must be a positive whole number; got '
      f'{topology["hidden"]}.'
    )
  if not topology['cost'] >= 0:
    raise ValueError(
      f'method.topology.cost must not be negative; got {topology["cost"]}.'
    )
  bounds = ranges.each(ranges.FINITE, 'presence_bias', 'cost')
  ranges.check('method.topology', topology, bounds)
  return topology if topology['enabled'] else None


def _equivariance(options):
  """(weight, what `affine_maps.sample` takes) of `build`'s option."""
  options = dict(options or {})
  _check_options('equivariance', options, (), ('weight', 'turn', 'zoom', 'shift'))
  weight = options.pop('weight', 0.0)
  if not weight >= 0:
    raise ValueError(f'method.equivariance.weight must not be negative; got {weight}.')
  moves = affine_maps.check(**options)
  if weight and moves is None:
    raise ValueError('method.equivariance needs a turn, a zoom or a shift.')
  return weight, moves


def _separation(options):
  """(weight, distance) of `build`'s option."""
  usual = {'weight': 0.0, 'distance': 0.1}
  options = dict(options or {})
  _check_options('separation', options, (), tuple(usual))
  weight, distance = (usual | options).values()
  if not weight >= 0:
    raise ValueError(f'method.separation.weight must not be negative; got {weight}.')
  if not distance > 0:
    raise ValueError(f'method.separation.distance must be above 0; got {distance}.')
  return weight, distance


def _closeness(nodes, distance):
  """How near keypoints `[B, K, 2]` are to one another, [] in [0, 1]; see `build`."""
  senders, receivers = geometry.node_pairs(nodes.shape[1])
  # From twice the side to the side.
  apart_sq = ((nodes[:, senders] - nodes[:, receivers]) ** 2).sum(axis=-1) / 4
  return jnp.exp(-apart_sq / (2 * distance**2)).mean()


def _is_whole(value):
  return isinstance(value, numbers.Integral)


def _check(images):
  if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
    raise ValueError(
      f'autolink wants square images in colour, [B, S, S, 3]; got {images.shape}.'
    )
  return images


def _largest(weights):
  """The largest weight of each image, `[B, 1]` > 0."""
  # All may have become 0; the gradient of what is divided by it has its square.
  return jnp.maximum(weights.max(-1, keepdims=True), 1e-12)


def _relative(weights):
  """Weights relative to the largest of the image, in [0, 1]."""
  return weights / _largest(weights)


def _side_of_features(side):
  """The side at which features are seen, from an option of losses: None for 0, too."""
  if side is not None:
    ranges.as_number('method.loss.side', side, **ranges.WHOLE)
  return side or None


def _perceptual_loss(*, weights, side=perceptual.VGG_SIDE):
  """The paper's loss, with VGG16 from the file `weights`.

  The file is read when the loss is first used: whoever predicts needs none. `side` is
  that at which features are seen, None or 0 for that of the images.
  """
  side = _side_of_features(side)
  load = functools.cache(perceptual.load)

  def loss_fn(images, targets):
    value = perceptual.perceptual_loss(load(weights), images, targets, side=side)
    return value, {'perceptual': value}

  return loss_fn


def _fallback_loss(*, seed, widths, features, pyramid, scales, side=None):
  """A loss that needs no weights: random features and a pyramid of colours.

  `features` and `pyramid` are the weights of the two; `side` is that at which features
  are seen, None or 0 for that of the images.
  """
  side = _side_of_features(side)
  params = perceptual.random_features(seed, widths)

  def loss_fn(images, targets):
    first = features * perceptual.perceptual_loss(params, images, targets, side=side)
    second = pyramid * perceptual.pyramid_loss(
      images.astype(jnp.float32), targets.astype(jnp.float32), scales=scales
    )
    terms = {'fallback_features': first, 'fallback_pyramid': second}
    return first + second, {'fallback': first + second, **terms}

  return loss_fn


LOSSES = {'perceptual': _perceptual_loss, 'fallback': _fallback_loss}
