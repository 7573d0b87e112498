"""Graph files: JSON, GraphML, SVG, GeoJSON, DOT, npz, and networkx graphs.

Outside the program, positions are pixels of the original image: x grows right, y grows
down, and (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5).
`Document` is what a file holds; `from_graph` and `to_graph` convert it. Every format
holds all of it, and a number is written with the fewest digits that read back equal.

  JSON      {"format": "img2graph/1", "image": {"file", "width", "height"},
            "nodes": [{"id", "x", "y", "prob"}],
            "edges": [{"source", "target", "prob"}], "model"}
  GraphML   keys x, y, prob of nodes and prob of edges; the graph has format, file,
            width, height and model
  SVG       the viewBox is the image, so that the graph lies on the drawing; circles
            and lines with data attributes, from which it is read back
  GeoJSON   Points and LineStrings. The coordinates are pixels, y down, not degrees
  DOT       Graphviz; x and y as above, and pos="x,y!" with y up, as Graphviz draws
  npz       nodes [1, n, 2] in [0, 1] of the image's width and height, num_nodes [1],
            edges [1, e, 2], num_edges [1], as in archives of many graphs; beside
            them the exact nodes_px, node_ids, node_prob, edge_prob, and the image

A graph of images (`affinity_graph`) has two things more: nodes have a file, edges an
affinity. In npz these are node_files and edge_affinity.

Where a file leaves out a probability it is 1; what says nothing of the image leaves it
None. Reading raises ValueError, one sentence with the file and the problem. Writing is
atomic: there is the whole file or what was there before.
"""

import base64
import dataclasses
import io
import json
import math
import numbers
import pathlib
import re
import reprlib
import xml.etree.ElementTree
from typing import Any

import numpy as np

from img2graph import files
from img2graph import geometry
from img2graph import graph as graph_lib

FORMAT = 'img2graph/1'

# What one flat list of names calls these; bare width and height are Graphviz's own.
_FLAT_NAMES = {
  'file': 'image_file',
  'width': 'image_width',
  'height': 'image_height',
  'model': 'model',
}

# What graphs of images have beside.
_OF_IMAGES = ('node_files', 'edge_affinity')

# Modes of PIL images that a PNG holds as they are.
_PNG_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16')

_EDGE_COLOUR, _NODE_COLOUR = '#1f77b4', '#d62728'


@dataclasses.dataclass(frozen=True, eq=False)
class Document:
  """One undirected graph over an image, as files hold it.

  The constructor takes anything that numpy turns into these arrays, orders the edges
  (i < j, sorted), and checks everything.

  Attributes:
    nodes_px: `[n, 2]` float64, (x, y) in pixels of the original image, finite; nodes
      may lie outside of it.
    edges: `[e, 2]` int32, indices into the nodes (not ids); no loops, none twice.
    node_prob: `[n]` float64 in [0, 1]; None stands for ones.
    edge_prob: `[e]` float64 in [0, 1]; None stands for ones.
    node_ids: `[n]` int64 >= 0, all different; None stands for 0 to n-1.
    file: name of the image file, or None.
    width: width of the image in pixels, or None if unknown, then height is None too.
    height: height of the image in pixels, or None.
    model: what found the graph, or None.
    node_files: names of the image files that the nodes stand for, `[n]` texts, or None.
    edge_affinity: `[e]` float64, finite, or None.

  Raises:
    ValueError: something of this does not hold; the message says what.
  """

  nodes_px: Any
  edges: Any
  node_prob: Any = None
  edge_prob: Any = None
  node_ids: Any = None
  file: str | None = None
  width: int | None = None
  height: int | None = None
  model: str | None = None
  node_files: Any = None
  edge_affinity: Any = None

  def __post_init__(self):
    nodes_px = _array(self.nodes_px, float, (-1, 2), 'nodes')
    n = len(nodes_px)
    node_ids = np.arange(n) if self.node_ids is None else self.node_ids
    node_ids = _array(node_ids, np.int64, (n,), 'node ids')
    edges = _array(self.edges, np.int64, (-1, 2), 'edges')
    e = len(edges)
    node_prob = np.ones(n) if self.node_prob is None else self.node_prob
    node_prob = _array(node_prob, float, (n,), 'node probabilities')
    edge_prob = np.ones(e) if self.edge_prob is None else self.edge_prob
    edge_prob = _array(edge_prob, float, (e,), 'edge probabilities')
    # What is empty reads back as what is not there.
    affinity = self.edge_affinity if e else None
    files_of_nodes = self.node_files if n else None
    if affinity is not None:
      affinity = _array(affinity, float, (e,), 'affinities')
      if not np.isfinite(affinity).all():
        raise ValueError('an affinity is not finite.')
    if files_of_nodes is not None:
      try:
        # The letters of one text are no texts.
        one = isinstance(files_of_nodes, str)
        files_of_nodes = () if one else tuple(files_of_nodes)
      except TypeError:
        files_of_nodes = ()
      texts = all(isinstance(name, str) for name in files_of_nodes)
      if len(files_of_nodes) != n or not texts:
        raise ValueError(f'{n} nodes need as many files, texts, or none at all.')

    for k in np.flatnonzero(~np.isfinite(nodes_px).all(axis=1)):
      raise ValueError(f'node {node_ids[k]} has a coordinate that is not finite.')
    if (node_ids < 0).any():
      raise ValueError(f'node ids must not be negative; got {node_ids.min()}.')
    values, counts = np.unique(node_ids, return_counts=True)
    for value in values[counts > 1]:
      raise ValueError(f'there are several nodes with the id {value}.')
    for name, probs in (('node', node_prob), ('edge', edge_prob)):
      for k in np.flatnonzero(~((probs >= 0) & (probs <= 1))):
        raise ValueError(f'a probability of {name} {k} is {probs[k]}, not in [0, 1].')
    if e and (edges.min() < 0 or edges.max() >= n):
      raise ValueError(
        f'edges must join nodes of index 0 to {n - 1}; '
        f'got {edges.min()} to {edges.max()}.'
      )
    edges = np.sort(edges, axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, edge_prob = edges[order], edge_prob[order]
    affinity = None if affinity is None else affinity[order]
    for i, _ in edges[edges[:, 0] == edges[:, 1]]:
      raise ValueError(f'an edge joins node {node_ids[i]} with itself.')
    for i, j in edges[1:][(edges[1:] == edges[:-1]).all(axis=1)]:
      raise ValueError(
        f'the edge from node {node_ids[i]} to node {node_ids[j]} is there twice.'
      )
    for name in ('file', 'model'):
      value = getattr(self, name)
      if value is not None and not isinstance(value, str):
        raise ValueError(f'{name} must be text or null; got {reprlib.repr(value)}.')
    if (self.width is None) != (self.height is None):
      raise ValueError('an image needs both a width and a height, or neither.')
    for name in ('width', 'height'):
      value = getattr(self, name)
      if value is None:
        continue
      value = _whole(value, f'the image {name}')
      if value < 1:
        raise ValueError(f'the image {name} must be at least 1 pixel; got {value}.')
      object.__setattr__(self, name, value)
    for name, value in (
      ('nodes_px', nodes_px),
      ('edges', edges.astype(np.int32)),
      ('node_prob', node_prob),
      ('edge_prob', edge_prob),
      ('node_ids', node_ids),
      ('edge_affinity', affinity),
      ('node_files', files_of_nodes),
    ):
      object.__setattr__(self, name, value)

  def __eq__(self, other):
    if not isinstance(other, Document):
      return NotImplemented
    return all(
      np.array_equal(getattr(self, field.name), getattr(other, field.name))
      for field in dataclasses.fields(self)
    )

  __hash__ = None


def from_graph(graph, *, width, height, file=None, model=None, threshold=0.5):
  """What is present in one graph, as a document.

  Args:
    graph: an unbatched `Graph`, numpy or jax.
    width: width of the original image in pixels.
    height: height of the original image in pixels.
    file: name of the image file.
    model: what found the graph.
    threshold: what probabilities must exceed, see `graph.to_lists`.

  Returns:
    A `Document`; its nodes are numbered from 0.
  """
  nodes, edges = graph_lib.to_lists(graph, threshold)
  slots = np.flatnonzero(np.asarray(graph.node_prob) > threshold)
  edge_prob = np.asarray(graph.edge_prob)[slots[edges[:, 0]], slots[edges[:, 1]]]
  width = _whole(width, 'the image width')
  height = _whole(height, 'the image height')
  if min(width, height) < 1:
    raise ValueError(f'an image needs at least one pixel; got {height} x {width}.')
  return Document(
    nodes_px=_shortest_pixels(nodes, height, width),
    edges=edges,
    node_prob=_shortest(np.asarray(graph.node_prob)[slots]),
    edge_prob=_shortest(edge_prob),
    file=file,
    width=width,
    height=height,
    model=model,
  )


def to_graph(document, capacity=None):
  """The graph of a document, in coordinates of [-1, 1].

  Args:
    document: a `Document` with the size of its image.
    capacity: number of node slots, at least n; n if None.

  Returns:
    An unbatched numpy `Graph`, float32, its nodes in the order of the document.

  Raises:
    ValueError: the size of the image is not known, the capacity is too small, or it is
      no document.
  """
  _check_document(document)
  if document.width is None:
    raise ValueError('a graph in pixels needs the size of its image; got none.')
  nodes = geometry.from_pixels(document.nodes_px, document.height, document.width)
  return graph_lib.from_lists(
    nodes,
    document.edges,
    capacity,
    node_prob=document.node_prob,
    edge_prob=document.edge_prob,
  )


def write(document, path, format=None):
  """Writes a document to a file, in a format of `FORMATS` or that of its suffix.

  Raises:
    ValueError: there is no such format, or it is no document.
    OSError: the file cannot be written; what was there before is untouched.
  """
  _check_document(document)
  writer, _ = FORMATS[_format_of(path, format)]
  writer(document, path)


def read(path, format=None):
  """Reads a document from a file, in a format of `FORMATS` or that of its suffix.

  Raises:
    ValueError: there is no such format, or the file is missing or not a graph of it.
  """
  _, reader = FORMATS[_format_of(path, format)]
  return reader(path)


def write_json(document, path):
  """Writes JSON, `img2graph/1`, one node or edge on a line."""
  files.write_atomically(path, _json_text(*_json_parts(document)).encode())


def read_json(path):
  """Reads what `write_json` writes."""
  return _read(path, 'JSON', lambda data: _from_json(_load_json(data)))


def write_geojson(document, path):
  """Writes a GeoJSON FeatureCollection; the coordinates are pixels, y down."""
  features = []
  for node in _node_dicts(document):
    point = [node.pop('x'), node.pop('y')]
    properties = {'kind': 'node', **node}
    features.append(_feature(node['id'], 'Point', point, properties))
  points = document.nodes_px.tolist()
  for (i, j), edge in zip(document.edges, _edge_dicts(document), strict=True):
    name = f'{edge["source"]}-{edge["target"]}'
    line = [points[i], points[j]]
    features.append(_feature(name, 'LineString', line, {'kind': 'edge', **edge}))
  head = {
    'type': 'FeatureCollection',
    FORMAT.split('/')[0]: {
      'format': FORMAT,
      'image': _image_dict(document),
      'model': document.model,
      'coordinates': 'pixels of the image, x right, y down, (0, 0) its outer corner',
    },
  }
  files.write_atomically(path, _json_text(head, {'features': features}, {}).encode())


def read_geojson(path):
  """Reads what `write_geojson` writes."""
  return _read(path, 'GeoJSON', lambda data: _from_geojson(_load_json(data)))


def write_graphml(document, path):
  """Writes GraphML with the keys x, y and prob."""
  values = {'format': FORMAT, **_image_dict(document), 'model': document.model}
  kinds = {'width': 'int', 'height': 'int'}
  lines = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
  ]
  node_names = ['x', 'y', 'prob'] + ['file'] * (document.node_files is not None)
  edge_names = ['prob'] + ['affinity'] * (document.edge_affinity is not None)
  keys = [('graph', name, kinds.get(name, 'string')) for name in values]
  keys += [('node', n, 'string' if n == 'file' else 'double') for n in node_names]
  keys += [('edge', name, 'double') for name in edge_names]
  for where, name, kind in keys:
    lines.append(
      f'  <key id="{where}_{name}" for="{where}" attr.name="{name}" '
      f'attr.type="{kind}"/>'
    )
  lines.append('  <graph id="G" edgedefault="undirected">')
  for name, value in values.items():
    if value is not None:
      lines.append(f'    <data key="graph_{name}">{_escape_xml(str(value))}</data>')
  for node in _node_dicts(document):
    data = _graphml_data('node', node, node_names)
    lines.append(f'    <node id="{node["id"]}">{data}</node>')
  for edge in _edge_dicts(document):
    ends = f'source="{edge["source"]}" target="{edge["target"]}"'
    lines.append(f'    <edge {ends}>{_graphml_data("edge", edge, edge_names)}</edge>')
  lines += ['  </graph>', '</graphml>', '']
  files.write_atomically(path, '\n'.join(lines).encode())


def _graphml_data(where, values, names):
  return ''.join(
    f'<data key="{where}_{name}">{_escape_xml(str(values[name]))}</data>'
    for name in names
  )


def read_graphml(path):
  """Reads what `write_graphml` writes, or another GraphML file with its keys."""
  return _read(path, 'GraphML', lambda data: _from_graphml(_load_xml(data, 'graphml')))


def write_svg(document, path, *, background=None):
  """Writes an SVG picture whose viewBox is the image.

  Args:
    document: a `Document`; without an image size, the viewBox surrounds its nodes.
    path: the file to write.
    background: what to show below the graph, fitted to the viewBox: None, the address
      of an image (a name relative to the SVG file, or a data URI), or an image to
      embed: a PIL image or a uint8 array `[H, W]`, `[H, W, 1]` or `[H, W, 3]`.

  Raises:
    ValueError: the background is another array, or a PIL image of numbers, not colours.
  """
  x, y, width, height = _view_box(document)
  # Sizes follow the image, so that a graph looks alike on small and large ones.
  radius = repr(round(max(width, height) / 80, 3))
  stroke = repr(round(max(width, height) / 200, 3))
  attributes = {
    'xmlns': 'http://www.w3.org/2000/svg',
    'viewBox': ' '.join(f'{value:.12g}' for value in (x, y, width, height)),
    'data-format': FORMAT,
    'data-file': document.file,
    'data-width': document.width,
    'data-height': document.height,
    'data-model': document.model,
  }
  lines = ['<?xml version="1.0" encoding="UTF-8"?>', _tag('svg', attributes, '')]
  if document.file is not None:
    lines.append(f'  <title>{_escape_xml(document.file)}</title>')
  if background is not None:
    href = background if isinstance(background, str) else _data_uri(background)
    image = dict(href=href, x=x, y=y, width=width, height=height)
    lines.append('  ' + _tag('image', {**image, 'preserveAspectRatio': 'none'}))
  lines.append(
    f'  <g id="edges" stroke="{_EDGE_COLOUR}" stroke-width="{stroke}" '
    'stroke-linecap="round">'
  )
  points = document.nodes_px.tolist()
  for (i, j), edge in zip(document.edges, _edge_dicts(document), strict=True):
    line = {
      'id': f'edge-{edge["source"]}-{edge["target"]}',
      **dict(zip(('x1', 'y1', 'x2', 'y2'), points[i] + points[j], strict=True)),
      'stroke-opacity': _opacity(edge['prob']),
      **{f'data-{key}': value for key, value in edge.items()},
    }
    lines.append('    ' + _tag('line', line))
  lines += [
    '  </g>',
    f'  <g id="nodes" fill="{_NODE_COLOUR}" stroke="white" stroke-width="{stroke}">',
  ]
  for node in _node_dicts(document):
    circle = {
      'id': f'node-{node["id"]}',
      'cx': node['x'],
      'cy': node['y'],
      'r': radius,
      'fill-opacity': _opacity(node['prob']),
      'data-id': node['id'],
      'data-prob': node['prob'],
      'data-file': node.get('file'),
    }
    lines.append('    ' + _tag('circle', circle))
  lines += ['  </g>', '</svg>', '']
  files.write_atomically(path, '\n'.join(lines).encode())


def read_svg(path):
  """Reads what `write_svg` writes; where circles were moved, their new positions."""
  return _read(path, 'SVG', lambda data: _from_svg(_load_xml(data, 'svg')))


def write_dot(document, path):
  """Writes a Graphviz graph; `neato -n` draws it in place.

  x and y are pixels, y down; in `pos` y grows up, from the lower edge of the image.
  """
  height = document.height or 0
  values = {flat: getattr(document, name) for name, flat in _FLAT_NAMES.items()}
  graph_attributes = _dot_attributes({'format': FORMAT, **values})
  lines = [
    'graph img2graph {',
    f'  graph [{graph_attributes}];',
    '  node [shape=point];',
  ]
  for node in _node_dicts(document):
    name = node.pop('id')
    node['pos'] = f'{node["x"]!r},{height - node["y"]!r}!'
    lines.append(f'  {name} [{_dot_attributes(node)}];')
  for edge in _edge_dicts(document):
    ends = f'{edge.pop("source")} -- {edge.pop("target")}'
    lines.append(f'  {ends} [{_dot_attributes(edge)}];')
  lines += ['}', '']
  # A file name may hold what UTF-8 cannot: half of a surrogate pair.
  files.write_atomically(path, '\n'.join(lines).encode(errors='replace'))


def read_dot(path):
  """Reads what `write_dot` writes, also after Graphviz has rewritten it."""
  return _read(path, 'DOT', lambda data: _from_dot(data.decode('utf-8-sig')))


def write_npz(document, path):
  """Writes an npz file: an archive of one graph, and the document exactly."""
  arrays = {
    'format': np.array(FORMAT),
    'nodes_px': document.nodes_px,
    'node_ids': document.node_ids,
    'node_prob': document.node_prob,
    'edge_prob': document.edge_prob,
    'num_nodes': np.array([len(document.nodes_px)], np.int32),
    'edges': document.edges[None],
    'num_edges': np.array([len(document.edges)], np.int32),
  }
  if document.width is not None:
    size = np.array([[document.width, document.height]], float)
    arrays['nodes'] = (document.nodes_px / size)[None]
  for name, flat_name in _FLAT_NAMES.items():
    if getattr(document, name) is not None:
      arrays[flat_name] = np.array(getattr(document, name))
  for name in _OF_IMAGES:
    if getattr(document, name) is not None:
      arrays[name] = np.array(getattr(document, name))
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  files.write_atomically(path, buffer.getvalue())


def read_npz(path):
  """Reads what `write_npz` writes."""
  return _read(path, 'npz', _from_npz)


def to_networkx(document):
  """A `networkx.Graph`: nodes are the ids with x, y, prob (pixels), edges have prob.

  Nodes have file, and edges affinity, if the document has them. Format, file, width,
  height and model are attributes of the graph. What is None is left out.

  Raises:
    ValueError: networkx is not installed, or it is no document.
  """
  _check_document(document)
  networkx = _networkx()
  values = {'format': FORMAT, **_image_dict(document), 'model': document.model}
  result = networkx.Graph(**{k: v for k, v in values.items() if v is not None})
  for node in _node_dicts(document):
    result.add_node(node.pop('id'), **node)
  for edge in _edge_dicts(document):
    result.add_edge(edge.pop('source'), edge.pop('target'), **edge)
  return result


def from_networkx(graph):
  """The document of a `networkx.Graph` like those of `to_networkx`.

  Args:
    graph: undirected; its nodes are whole numbers with the attributes x and y in
      pixels and perhaps prob; edges have perhaps prob.

  Raises:
    ValueError: something is missing or not so; the message says what.
  """
  if graph.is_directed():
    raise ValueError('a networkx graph must be undirected; got a directed one.')
  return _assemble(
    [{**data, 'id': node} for node, data in graph.nodes(data=True)],
    [
      {**data, 'source': source, 'target': target}
      for source, target, data in graph.edges(data=True)
    ],
    graph.graph,
    graph.graph.get('model'),
  )


# Each format's name, which is the suffix of its files too: (writer, reader).
FORMATS = {
  'json': (write_json, read_json),
  'graphml': (write_graphml, read_graphml),
  'svg': (write_svg, read_svg),
  'geojson': (write_geojson, read_geojson),
  'dot': (write_dot, read_dot),
  'npz': (write_npz, read_npz),
}


def _check_document(document):
  if not isinstance(document, Document):
    raise ValueError(
      'a document must be a formats.Document, as formats.from_graph makes it of one '
      f'Graph; got {type(document).__name__}.'
    )


def _format_of(path, name):
  """The name of a format, given or from a suffix."""
  wanted = ', '.join(FORMATS)
  if name is None:
    name = pathlib.Path(path).suffix[1:].lower()
    if name not in FORMATS:
      raise ValueError(f'{path} needs one of these suffixes: {wanted}.')
  if name not in FORMATS:
    raise ValueError(
      f'a graph format must be one of {wanted}; got {reprlib.repr(name)}.'
    )
  return name


def _read(path, kind, parse):
  """`parse` of the file's bytes; every problem becomes one sentence with its name."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise ValueError(f'cannot read {path}: {error.strerror}.') from None
  try:
    return parse(data)
  except UnicodeDecodeError:
    problem = 'it is not text in UTF-8'
  except RecursionError:
    problem = 'it is nested too deeply'
  except ValueError as error:
    problem = str(error).rstrip('.')
  raise ValueError(f'{path} is not a readable {kind} graph file: {problem}.')


def _assemble(nodes, edges, image, model):
  """The document of nodes and edges as dictionaries of numbers, edges by node id."""
  index = {}
  for k, node in enumerate(nodes):
    name = _whole(_item(node, 'id', f'node {k}'), 'a node id')
    if name in index:
      raise ValueError(f'there are several nodes with the id {name}.')
    index[name] = k
  pairs = []
  for k, edge in enumerate(edges):
    for end in ('source', 'target'):
      name = _whole(_item(edge, end, f'edge {k}'), f'the {end} of edge {k}')
      if name not in index:
        raise ValueError(f'edge {k} needs node {name}, which is not there.')
      pairs.append(index[name])
  xy = [
    _number(_item(node, axis, f'node {node["id"]}'), f'{axis} of node {node["id"]}')
    for node in nodes
    for axis in ('x', 'y')
  ]
  if not isinstance(image, dict):
    raise ValueError(f'the image must be an object or null; got {reprlib.repr(image)}.')
  return Document(
    nodes_px=np.reshape(np.array(xy, float), (-1, 2)),
    edges=np.reshape(np.array(pairs, np.int64), (-1, 2)),
    node_prob=[_prob(node, f'node {node["id"]}') for node in nodes],
    edge_prob=[_prob(edge, f'edge {k}') for k, edge in enumerate(edges)],
    node_ids=list(index),
    file=image.get('file'),
    width=image.get('width'),
    height=image.get('height'),
    model=model,
    node_files=_of_all(nodes, 'file'),
    edge_affinity=_of_all(edges, 'affinity'),
  )


def _of_all(items, name):
  """The values of all items, or None where one has none."""
  return [item[name] for item in items] if all(name in i for i in items) else None


def _node_dicts(document):
  """`[{id, x, y, prob}]` in Python numbers, and the file if there are any."""
  names = ('id', 'x', 'y', 'prob')
  columns = (document.node_ids, *document.nodes_px.T, document.node_prob)
  rows = zip(*(column.tolist() for column in columns), strict=True)
  found = [dict(zip(names, row, strict=True)) for row in rows]
  return _with(found, 'file', document.node_files)


def _edge_dicts(document):
  """`[{source, target, prob}]` in Python numbers, and the affinity if there are any."""
  ends = document.node_ids[document.edges].tolist()
  found = [
    {'source': source, 'target': target, 'prob': prob}
    for (source, target), prob in zip(ends, document.edge_prob.tolist(), strict=True)
  ]
  affinity = document.edge_affinity
  return _with(found, 'affinity', None if affinity is None else affinity.tolist())


def _with(items, name, values):
  """Dictionaries with one value more each, or as they are if there are none."""
  if values is None:
    return items
  return [item | {name: value} for item, value in zip(items, values, strict=True)]


def _image_dict(document):
  return {name: getattr(document, name) for name in ('file', 'width', 'height')}


# JSON and GeoJSON.


def _json_parts(document):
  lists = {'nodes': _node_dicts(document), 'edges': _edge_dicts(document)}
  head = {'format': FORMAT, 'image': _image_dict(document)}
  return head, lists, {'model': document.model}


def _json_text(head, lists, tail):
  """One JSON object; each item of a list on a line of its own."""
  parts = [f'{_json(key)}: {_json(value)}' for key, value in head.items()]
  for key, items in lists.items():
    lines = ',\n'.join(f'    {_json(item)}' for item in items)
    parts.append(f'{_json(key)}: [\n{lines}\n  ]' if items else f'{_json(key)}: []')
  parts += [f'{_json(key)}: {_json(value)}' for key, value in tail.items()]
  return '{\n  ' + ',\n  '.join(parts) + '\n}\n'


def _json(value):
  text = json.dumps(value, ensure_ascii=False, allow_nan=False)
  # File names of bytes that are not UTF-8 have lone surrogates: \u can hold them.
  return text if _is_utf8(text) else json.dumps(value, allow_nan=False)


def _is_utf8(text):
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _load_json(data):
  """Any JSON value of bytes."""
  text = data.decode('utf-8-sig')
  if not text.strip():
    raise ValueError('it is empty.')
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f'it is no JSON at line {error.lineno}, column {error.colno} ({error.msg}).'
    ) from None


def _check_format(found):
  if found != FORMAT:
    raise ValueError(f'its format must be "{FORMAT}"; got {reprlib.repr(found)}.')


def _from_json(value):
  if not isinstance(value, dict):
    raise ValueError(f'it must be a JSON object; got a {type(value).__name__}.')
  _check_format(value.get('format'))
  image = value.get('image')
  nodes, edges = (_dicts(value, name, 'the file') for name in ('nodes', 'edges'))
  return _assemble(nodes, edges, {} if image is None else image, value.get('model'))


def _feature(name, kind, coordinates, properties):
  return {
    'type': 'Feature',
    'id': name,
    'geometry': {'type': kind, 'coordinates': coordinates},
    'properties': properties,
  }


def _from_geojson(value):
  if not isinstance(value, dict) or value.get('type') != 'FeatureCollection':
    raise ValueError('it must be a FeatureCollection.')
  about = value.get('img2graph')
  if not isinstance(about, dict):
    raise ValueError('it has no "img2graph" object with the image and the format.')
  _check_format(about.get('format'))
  nodes, edges = [], []
  for k, feature in enumerate(_dicts(value, 'features', 'the file')):
    properties = feature.get('properties')
    if not isinstance(properties, dict):
      raise ValueError(f'feature {k} has no properties.')
    if properties.get('kind') == 'edge':
      edges.append(properties)
    elif properties.get('kind') == 'node':
      place = feature.get('geometry')
      point = place.get('coordinates') if isinstance(place, dict) else None
      if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f'feature {k} is a node without coordinates [x, y].')
      nodes.append({**properties, 'x': point[0], 'y': point[1]})
    else:
      raise ValueError(
        f'feature {k} is of the kind {reprlib.repr(properties.get("kind"))}.'
      )
  image = about.get('image')
  return _assemble(nodes, edges, {} if image is None else image, about.get('model'))


# GraphML and SVG.


def _escape_xml(text):
  """Text for XML content and attributes; what XML cannot hold becomes U+FFFD."""
  text = re.sub(
    '[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]', '\ufffd', text
  )
  # A parser turns bare white space of attributes into blanks.
  return re.sub('[&<>"\t\n\r]', lambda match: f'&#{ord(match[0])};', text)


def _tag(name, attributes, end='/'):
  """One tag; attributes that are None are left out."""
  pairs = (
    f' {key}="{_escape_xml(str(value))}"'
    for key, value in attributes.items()
    if value is not None
  )
  return f'<{name}{"".join(pairs)}{end}>'


def _load_xml(data, root_name):
  """The root element of XML bytes; tags lose their namespaces."""
  if not data.strip():
    raise ValueError('it is empty.')
  try:
    root = xml.etree.ElementTree.fromstring(data)
  except (xml.etree.ElementTree.ParseError, LookupError) as error:
    raise ValueError(f'it is no XML ({error}).') from None
  for element in root.iter():
    element.tag = element.tag.rpartition('}')[2]
  if root.tag != root_name:
    raise ValueError(f'its outer element must be <{root_name}>; got <{root.tag}>.')
  return root


def _from_graphml(root):
  names, defaults = {}, {}
  for key in root.findall('key'):
    names[key.get('id')] = name = key.get('attr.name')
    if key.find('default') is not None:
      where = key.get('for', 'all')
      for place in ('graph', 'node', 'edge') if where == 'all' else (where,):
        defaults[place, name] = key.findtext('default', '')

  def values(element):
    found = {name: text for (tag, name), text in defaults.items() if tag == element.tag}
    for data in element.findall('data'):
      found[names.get(data.get('key'))] = data.text or ''
    return found

  graph = root.find('graph')
  if graph is None:
    raise ValueError('it has no <graph>.')
  directed = [edge.get('directed') == 'true' for edge in graph.findall('edge')]
  if graph.get('edgedefault') == 'directed' or any(directed):
    raise ValueError('a GraphML graph must be undirected; got a directed one.')
  nodes = [
    _node_values({**values(node), **node.attrib}) for node in graph.findall('node')
  ]
  edges = [
    _edge_values({**values(edge), **edge.attrib}) for edge in graph.findall('edge')
  ]
  about = values(graph)
  image = {'file': about.get('file'), **_numbers(about, ('width', 'height'))}
  return _assemble(nodes, edges, image, about.get('model'))


def _from_svg(root):
  _check_format(root.get('data-format'))
  for element in root.iter():
    if 'transform' in element.attrib:
      raise ValueError(f'a <{element.tag}> has a transform, which moves its nodes.')

  def data(element):
    keys = {'cx': 'x', 'cy': 'y'}
    return {keys.get(k, k.removeprefix('data-')): v for k, v in element.attrib.items()}

  nodes = [
    _node_values(data(element))
    for element in root.iter('circle')
    if 'data-id' in element.attrib
  ]
  edges = [
    _edge_values(data(element))
    for element in root.iter('line')
    if 'data-source' in element.attrib
  ]
  sizes = {
    n: v for n in ('width', 'height') if (v := root.get(f'data-{n}')) is not None
  }
  image = {'file': root.get('data-file'), **_numbers(sizes, sizes)}
  return _assemble(nodes, edges, image, root.get('data-model'))


def _view_box(document):
  """x, y, width and height of the image, or of a box around the nodes."""
  if document.width is not None:
    return 0, 0, document.width, document.height
  if not len(document.nodes_px):
    return 0, 0, 1, 1
  low, high = document.nodes_px.min(axis=0), document.nodes_px.max(axis=0)
  margin = max(0.05 * float((high - low).max()), 0.5)
  return (*(low - margin).tolist(), *(high - low + 2 * margin).tolist())


def _opacity(prob):
  """Opacity of something with this probability: faint things stay visible."""
  return round(0.25 + 0.75 * prob, 3)


def _data_uri(picture):
  """A picture as the address of a PNG that contains it."""
  from img2graph import plotting

  mode = getattr(picture, 'mode', None)
  if mode in ('I', 'F'):
    raise ValueError(f'a background must have colours or greys; got the mode {mode}.')
  # An array, or of a mode that no PNG has.
  if mode not in _PNG_MODES:
    picture = plotting.from_uint8(picture)
  buffer = io.BytesIO()
  picture.save(buffer, 'PNG')
  return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()


# DOT.

_DOT_TOKEN = re.compile(
  r'(?P<space>\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)'
  r'|"(?P<quoted>(?:[^"\\]|\\.)*)"'
  r'|(?P<sign>--|->|[{}\[\];,=])'
  r'|(?P<name>[^\W\d]\w*|-?(?:\.\d+|\d+(?:\.\d*)?))',
  re.DOTALL,
)


def _dot_attributes(values):
  """`name="value"` pairs; values that are None are left out."""
  pairs = (
    (name, str(value).replace('\\', '\\\\').replace('"', '\\"'))
    for name, value in values.items()
    if value is not None
  )
  return ', '.join(f'{name}="{value}"' for name, value in pairs)


def _unescape_dot(match):
  """What an escape stands for; a line's end in a text that goes on is nothing."""
  return match[1].strip('\n')


def _dot_tokens(text):
  """`[(kind, value)]` with the kinds sign and name; a last ('end', '') closes it."""
  tokens, position = [], 0
  while position < len(text):
    match = _DOT_TOKEN.match(text, position)
    if match is None:
      line = text.count('\n', 0, position) + 1
      raise ValueError(f'{text[position]!r} in line {line} is not understood.')
    position = match.end()
    if match.lastgroup == 'quoted':
      # At once: a backslash that is escaped escapes no line's end behind it.
      value = re.sub(r'\\([\\"\n])', _unescape_dot, match['quoted'])
      tokens.append(('name', value))
    elif match.lastgroup != 'space':
      tokens.append((match.lastgroup, match[match.lastgroup]))
  return [*tokens, ('end', '')]


def _from_dot(text):
  tokens = _dot_tokens(text)
  if tokens[0] == ('end', ''):
    raise ValueError('it is empty.')
  place = 0

  def take(*wanted):
    """The next token if it is wanted, else an error."""
    nonlocal place
    kind, value = tokens[place]
    if kind not in wanted and not (kind == 'sign' and value in wanted):
      names = {'name': 'a name', 'end': 'the end of the file'}
      expected = ' or '.join(names.get(w, repr(w)) for w in wanted)
      found = names['end'] if kind == 'end' else reprlib.repr(value)
      raise ValueError(f'{expected} must come where there is {found}.')
    place += 1
    return value

  def ahead(*signs):
    return tokens[place][0] == 'sign' and tokens[place][1] in signs

  def attributes():
    found = {}
    while ahead('['):
      take('[')
      while not ahead(']'):
        name = take('name', ']')
        take('=')
        found[name] = take('name')
        if ahead(',', ';'):
          take(',', ';')
      take(']')
    return found

  kind = take('name')
  if kind == 'strict':
    kind = take('name')
  if kind != 'graph':
    raise ValueError(f'it must begin with "graph"; got {reprlib.repr(kind)}.')
  if not ahead('{'):
    take('name')
  take('{')
  about, nodes, edges = {}, [], []
  # What a statement says of all later nodes or edges; '' is Graphviz's for nothing.
  common = {'graph': about, 'node': {}, 'edge': {}}
  while not ahead('}'):
    name = take('name', '}')
    if name in common and ahead('['):
      found = attributes()
      common[name].update({k: v for k, v in found.items() if v or name == 'graph'})
    elif ahead('='):
      take('=')
      about[name] = take('name')
    elif ahead('--'):
      chain = [name]
      while ahead('--'):
        take('--')
        chain.append(take('name'))
      found = common['edge'] | attributes()
      for source, target in zip(chain[:-1], chain[1:], strict=True):
        edges.append({**found, 'source': source, 'target': target})
    else:
      nodes.append({**common['node'], **attributes(), 'id': name})
    if ahead(';'):
      take(';')
  take('}')
  take('end')
  _check_format(about.get('format'))
  sizes = {'width': about.get('image_width'), 'height': about.get('image_height')}
  sizes = {name: text for name, text in sizes.items() if text is not None}
  return _assemble(
    [_node_values(node) for node in nodes],
    [_edge_values(edge) for edge in edges],
    {'file': about.get('image_file'), **_numbers(sizes, sizes)},
    about.get('model'),
  )


# npz.


def _from_npz(data):
  if not data:
    raise ValueError('it is empty.')
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    # A zip file may hold things that are not arrays; np.load gives their bytes.
    arrays = {k: v for k, v in arrays.items() if isinstance(v, np.ndarray)}
  # Damage shows in many ways: in the zip file, its compression, the arrays' headers.
  except Exception:
    raise ValueError('it is no npz archive, or it is cut off or damaged.') from None
  for name in ('format', 'nodes_px', 'node_ids', 'node_prob', 'edges', 'edge_prob'):
    if name not in arrays:
      raise ValueError(f'it has no array {name!r}.')
  _check_format(_scalar(arrays['format']))
  if arrays['edges'].ndim != 3 or len(arrays['edges']) != 1:
    raise ValueError(f'edges must be [1, e, 2]; got {arrays["edges"].shape}.')
  return Document(
    nodes_px=arrays['nodes_px'],
    edges=arrays['edges'][0],
    node_prob=arrays['node_prob'],
    edge_prob=arrays['edge_prob'],
    node_ids=arrays['node_ids'],
    **{
      name: _scalar(arrays[flat_name])
      for name, flat_name in _FLAT_NAMES.items()
      if flat_name in arrays
    },
    **{name: arrays[name].tolist() for name in _OF_IMAGES if name in arrays},
  )


def _scalar(array):
  """The Python value of an array of one element."""
  if array.size != 1:
    raise ValueError(f'a single value was wanted; got an array of {array.size}.')
  return array.item()


# Values.


def _dicts(value, name, where):
  """A list of objects in an object."""
  items = _item(value, name, where)
  if not isinstance(items, list) or not all(isinstance(x, dict) for x in items):
    raise ValueError(f'"{name}" must be a list of objects.')
  return items


def _item(value, name, where):
  if name not in value:
    raise ValueError(f'{where} has no "{name}".')
  return value[name]


def _prob(value, where):
  return _number(value.get('prob', 1.0), f'prob of {where}')


def _number(value, what):
  """A real number as a float; text and booleans are none."""
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise ValueError(f'{what} must be a number; got {reprlib.repr(value)}.')
  try:
    return float(value)
  except OverflowError:
    raise ValueError(f'{what} must be a number below 1e308.') from None


def _whole(value, what):
  """A whole number as an int."""
  # One that is no float, since it is too large, is a whole number all the same.
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    value = _number(value, what)
    if not math.isfinite(value) or value != int(value):
      raise ValueError(f'{what} must be a whole number; got {reprlib.repr(value)}.')
  if abs(value) >= 2**63:
    raise ValueError(f'{what} must be below 2^63; got {reprlib.repr(value)}.')
  return int(value)


def _numbers(texts, names):
  """The numbers among the named texts, an int where the text is one."""
  result = {}
  for name in names:
    if name in texts:
      text = texts[name].strip()
      try:
        result[name] = int(text) if re.fullmatch('[+-]?[0-9]+', text) else float(text)
      except ValueError:
        raise ValueError(
          f'{name} must be a number; got {reprlib.repr(texts[name])}.'
        ) from None
  return result


def _node_values(texts):
  """What belongs to a node, of texts by name."""
  found = _numbers(texts, ('id', 'x', 'y', 'prob'))
  return found | {name: texts[name] for name in ('file',) if name in texts}


def _edge_values(texts):
  return _numbers(texts, ('source', 'target', 'prob', 'affinity'))


def _array(values, dtype, shape, what):
  """An array of numbers of a shape, -1 for any length; empty ones fit every shape."""
  try:
    array = np.asarray(values)
  except ValueError:
    raise ValueError(f'{what} must be an array of numbers.') from None
  if array.size == 0 and (0 in shape or -1 in shape):
    array = np.zeros([max(length, 0) for length in shape], dtype)
  lengths = [a if b == -1 else b for a, b in zip(array.shape, shape, strict=False)]
  if array.ndim != len(shape) or list(array.shape) != lengths:
    expected = ', '.join('any' if length == -1 else str(length) for length in shape)
    raise ValueError(f'{what} must be [{expected}]; got {list(array.shape)}.')
  if array.dtype.kind not in ('iu' if dtype == np.int64 else 'iuf'):
    name = 'whole numbers' if dtype == np.int64 else 'numbers'
    raise ValueError(f'{what} must be {name}; got {array.dtype}.')
  return array.astype(dtype)


def _shortest(values):
  """float32 values as the float64 of their shortest decimal: 0.1, not 0.10000000149."""
  return np.array([float(str(v)) for v in np.asarray(values, np.float32)], float)


def _shortest_pixels(nodes, height, width):
  """Pixels with the fewest decimals that still give the same float32 coordinates."""
  exact = geometry.to_pixels(nodes.astype(float), height, width)
  result = exact
  for decimals in reversed(range(16)):
    rounded = np.round(exact, decimals)
    back = geometry.from_pixels(rounded, height, width).astype(np.float32)
    result = np.where(back == nodes, rounded, result)
  return result


def _networkx():
  try:
    import networkx
  except ModuleNotFoundError:
    raise ValueError(
      'networkx graphs need the package networkx: pip install networkx.'
    ) from None
  return networkx
