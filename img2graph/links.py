"""The graph that all images of a class share: keypoints and their links.

What a method of keypoints (`methods.base.Method.keypoints`, AutoLink) finds in single
images is put together here: one graph for all, its parts by spectral clustering, and
pictures of keypoints over frames, each keypoint in its own colour.
"""

import colorsys

import numpy as np

from img2graph import formats
from img2graph import plotting


def shared(documents, threshold=0.5):
  """The mean of the graphs of several images.

  Args:
    documents: list of `formats.Document`, at least one, as a `Predictor` with a method
      of keypoints finds them; a node's id is the number of its keypoint.
    threshold: what the mean probability of an edge, 0 where it is absent, must exceed.

  Returns:
    A `formats.Document` over an image of the size of the first. A keypoint lies at the
    mean of its places, each relative to the size of its image and as heavy as it is
    probable there, and is as probable as on the mean of all images.

  Raises:
    ValueError: there is no document, or one does not tell the size of its image.
  """
  if not documents:
    raise ValueError('one graph for all images needs at least one image.')
  count = 1 + max((int(d.node_ids.max(initial=-1)) for d in documents), default=-1)
  places, seen = np.zeros((count, 2)), np.zeros(count)
  node_prob, edge_prob = np.zeros(count), np.zeros((count, count))
  for document in documents:
    if document.width is None:
      raise ValueError(f'the graph of {document.file} tells no size of its image.')
    ids = document.node_ids
    # Those that are nowhere still have a place.
    weight = np.maximum(document.node_prob, 1e-9)
    shares = document.nodes_px / [document.width, document.height]
    places[ids] += weight[:, None] * shares
    seen[ids] += weight
    node_prob[ids] += document.node_prob / len(documents)
    first, second = np.sort(ids[document.edges], axis=1).reshape(-1, 2).T
    edge_prob[first, second] += document.edge_prob / len(documents)
  (ids,) = np.nonzero(seen)
  places = places[ids] / seen[ids, None]
  edge_prob = edge_prob[np.ix_(ids, ids)].clip(max=1)
  edges = np.argwhere(edge_prob > threshold)
  size = documents[0].width, documents[0].height
  return formats.Document(
    nodes_px=places * size,
    edges=edges,
    node_prob=node_prob[ids].clip(max=1),
    edge_prob=edge_prob[edges[:, 0], edges[:, 1]],
    node_ids=ids,
    width=size[0],
    height=size[1],
    model=documents[0].model,
  )


def spectral_groups(document, count):
  """Keypoints in groups that are linked among themselves, by spectral clustering.

  So AutoLink parts the object from what of the background is the same in all images
  (section 4.4, Figure 7c): the links within each are strong, those between are not.

  Args:
    document: a `formats.Document` with all links, also the weak ones (threshold 0).
    count: of the groups, from 1 to the number of nodes.

  Returns:
    `[n]` int, the group of each node. Group 0 has the most probable links, summed.

  Raises:
    ValueError: the count does not fit, or scikit-learn is not installed, which more
      than one group needs.
  """
  n = len(document.nodes_px)
  if not 1 <= count <= n:
    raise ValueError(f'there can be 1 to {n} groups of {n} nodes; got {count}.')
  if count == 1:
    return np.zeros(n, int)
  try:
    from sklearn import cluster
  except ModuleNotFoundError:
    raise ValueError(
      "groups need scikit-learn: pip install 'img2graph[analysis]'."
    ) from None
  weights = np.full((n, n), 1e-6)  # Clustering wants a connected graph.
  first, second = document.edges.T
  weights[first, second] += document.edge_prob
  weights[second, first] += document.edge_prob
  groups = cluster.SpectralClustering(
    count, affinity='precomputed', assign_labels='cluster_qr', random_state=0
  ).fit_predict(weights)
  inside = [weights[np.ix_(groups == g, groups == g)].sum() for g in range(count)]
  return np.argsort(np.argsort(inside)[::-1])[groups]


def part(document, keep, threshold=0.5):
  """Some nodes of a graph, and the links among them.

  Args:
    document: a `formats.Document`.
    keep: `[n]` bool, which nodes.
    threshold: what an edge must exceed.

  Returns:
    A `formats.Document`; ids stay.
  """
  keep = np.asarray(keep, bool)
  chosen = keep[document.edges].all(axis=1) & (document.edge_prob > threshold)
  number = np.cumsum(keep) - 1
  return formats.Document(
    nodes_px=document.nodes_px[keep],
    edges=number[document.edges[chosen]],
    node_prob=document.node_prob[keep],
    edge_prob=document.edge_prob[chosen],
    node_ids=document.node_ids[keep],
    file=document.file,
    width=document.width,
    height=document.height,
    model=document.model,
  )


def colours(numbers, count):
  """Colours to tell keypoints, or groups, by: `[n, 3]` uint8 RGB.

  Args:
    numbers: `[n]` int, from 0 to below `count`.
    count: how many colours there are.
  """
  wheel = [
    colorsys.hls_to_rgb(k / count, (0.5, 0.68, 0.36)[k % 3], 0.95) for k in range(count)
  ]
  return np.round(255 * np.array(wheel)).astype(np.uint8)[np.asarray(numbers, int)]


def frame(image, document, count, groups=None):
  """Keypoints and links over an image, each keypoint in the colour of its number.

  Args:
    image: as `plotting.overlay` takes it.
    document: a `formats.Document` with the numbers of the keypoints as ids.
    count: number of keypoints, K.
    groups: `[K]` int, of `spectral_groups`, to colour by these instead; None for not.

  Returns:
    A PIL image, RGB.
  """
  numbers = document.node_ids
  if groups is not None:
    numbers, count = np.asarray(groups)[numbers], int(np.max(groups)) + 1
  return plotting.overlay(
    image, document, line=0.008, radius=0.014, colours=colours(numbers, count)
  )
