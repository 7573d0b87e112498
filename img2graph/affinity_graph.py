"""The affinity graph of a set of images: which of them a classifier finds alike.

  classifier = affinity_graph.load('runs/affinity')
  images = [classifier.read(path) for path in paths]
  affinity = classifier.affinity(images)
  document = affinity_graph.build(affinity, files=paths)
  formats.write(document, 'affinity.json')
  affinity_graph.draw(document, images).save('affinity.png')

Nodes are images, and the affinity of two is that which the loss of "Affinity Graph
Supervision for Visual Recognition" (Wang et al. 2020) supervises: by default minus half
the squared distance of their features, 0 for the same image. Strong affinities are the
edges. Positions are pixels of the picture, in which linked images lie near each other.
"""

import dataclasses
import math
from typing import Any
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw

import img2graph
from img2graph import class_evaluation
from img2graph import formats
from img2graph import methods
from img2graph import weights
from img2graph.data import images as image_lib
from img2graph.methods import affinity_batch

# Of the picture, in pixels: an image's side, and the limits of the whole.
_IMAGE = 56
_SIDES = (480, 4096)
_PAPER, _EDGE, _RIM = (255, 255, 255), (31, 119, 180), (60, 60, 60)


class Classifier(NamedTuple):
  """A trained classifier.

  Attributes:
    method: a `methods.Method` that classifies.
    variables: its variables.
    metric: name of its affinity, of `affinity_batch.METRICS`.
    name: what stands in a document's `model`.
  """

  method: methods.Method
  variables: Any
  metric: str
  name: str

  def read(self, path):
    """An image file as the classifier sees it: `[S, S, 3]` uint8, stretched.

    Raises:
      ValueError: it is no image.
    """
    photograph = image_lib.read_photograph(path)
    square, _ = image_lib.stretch(photograph, self.method.sides[0])
    return np.round(255 * square).astype(np.uint8)

  def features(self, images, *, batch_size=128):
    """Of images `[n, S, S, 3]` uint8, `[n, D]` float32."""
    found, _ = class_evaluation.classify(
      self.method, self.variables, images, batch_size=batch_size
    )
    return found

  def affinity(self, images, *, batch_size=128):
    """The affinity matrix of images `[n, S, S, 3]` uint8, `[n, n]` float32."""
    features = self.features(images, batch_size=batch_size)
    return np.asarray(affinity_batch.affinity_matrix(features, metric=self.metric))


def load(path):
  """A trained classifier.

  Args:
    path: of a weights file, or of a run's folder, which has one.

  Raises:
    ValueError: there is none, it is damaged, or its method knows no classes.
  """
  path = weights.find(path)
  method, variables, meta = weights.load_method(path)
  name = meta['method']['name']
  if method.classify is None:
    raise ValueError(f'weights {path} are of {name}, which does not classify images.')
  options = meta['method'].get('affinity') or {}
  return Classifier(
    method,
    variables,
    options.get('metric', 'distance'),
    f'{name}, {path.name}, img2graph {img2graph.__version__}',
  )


def strong_pairs(affinity, *, neighbours=5, threshold=None):
  """The strong affinities.

  Args:
    affinity: `[n, n]` float, symmetric; the diagonal does not count.
    neighbours: a pair is kept if one image is among so many strongest of the other; 0
      for any pair.
    threshold: and if its affinity is no less; None for any.

  Returns:
    `[e, 2]` int, i < j, sorted.

  Raises:
    ValueError: `neighbours` is negative.
  """
  if neighbours < 0:
    raise ValueError(f'neighbours must not be negative; got {neighbours}.')
  affinity = np.array(affinity, float)
  np.fill_diagonal(affinity, -np.inf)
  keep = np.isfinite(affinity)
  if neighbours:
    # Places in each row, the strongest 0.
    order = np.argsort(-affinity, axis=1, kind='stable')
    rank = np.argsort(order, axis=1, kind='stable')
    keep &= (rank < neighbours) | (rank < neighbours).T
  if threshold is not None:
    keep &= affinity >= threshold
  return np.argwhere(np.triu(keep, 1))


def build(affinity, *, files, neighbours=5, threshold=None, name=None, model=None):
  """The graph of strong affinities, laid out in two dimensions.

  Args:
    affinity: `[n, n]` float, symmetric.
    files: names of the n images.
    neighbours: as `strong_pairs`, also the next.
    threshold: an affinity.
    name: of the picture's file, None if there is none.
    model: what the affinities are from.

  Returns:
    A `formats.Document`: nodes have the images' files, edges their affinity.

  Raises:
    ValueError: there are fewer than two images, or networkx is not installed.
  """
  if len(files) < 2:
    raise ValueError(f'an affinity graph needs two images or more; got {len(files)}.')
  pairs = strong_pairs(affinity, neighbours=neighbours, threshold=threshold)
  # Room for nine times the images.
  side = int(np.clip(3 * _IMAGE * math.sqrt(len(files)), *_SIDES))
  margin = _IMAGE
  document = formats.Document(
    nodes_px=np.zeros((len(files), 2)),
    edges=pairs,
    file=name,
    width=side,
    height=side,
    model=model,
    node_files=[str(file) for file in files],
    # float32 knows no more digits.
    edge_affinity=[float(f'{affinity[i, j]:.7g}') for i, j in pairs],
  )
  nodes_px = margin + _lay_out(document) * (side - 2 * margin)
  return dataclasses.replace(document, nodes_px=np.round(nodes_px, 1))


def _lay_out(document):
  """Places `[n, 2]` in [0, 1]: linked nodes near each other, the same every time."""
  graph = formats.to_networkx(document)
  import networkx

  places = networkx.spring_layout(graph, seed=0, iterations=200)
  places = np.array([places[node] for node in range(len(graph))])
  low, high = places.min(0), places.max(0)
  return (places - low) / np.maximum(high - low, 1e-9)


def draw(document, images):
  """The graph as a picture: images in their places, affinities as lines.

  The stronger an affinity among those shown, the darker its line.

  Args:
    document: of `build`.
    images: n uint8 arrays `[h, w, 3]`, in its order.

  Returns:
    A PIL image, RGB, of the document's size.
  """
  canvas = PIL.Image.new('RGB', (document.width, document.height), _PAPER)
  lines = PIL.ImageDraw.Draw(canvas, 'RGBA')
  affinity = document.edge_affinity if len(document.edges) else np.zeros(0)
  # By rank: affinities of some networks differ by orders of magnitude.
  order = np.argsort(affinity, kind='stable')
  for place, k in enumerate(order):
    share = (place + 1) / len(order)
    ends = document.nodes_px[document.edges[k]].ravel().tolist()
    lines.line(ends, fill=(*_EDGE, round(50 + 205 * share)), width=1 + round(2 * share))
  side = _IMAGE if len(images) < 1000 else _IMAGE // 2
  for place, image in zip(document.nodes_px, images, strict=True):
    picture = PIL.Image.fromarray(image).resize((side - 2, side - 2))
    framed = PIL.Image.new('RGB', (side, side), _RIM)
    framed.paste(picture, (1, 1))
    canvas.paste(framed, tuple(np.round(place - side / 2).astype(int).tolist()))
  return canvas
