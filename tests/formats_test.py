"""Graph files: round trips, other readers, and files that are not what they seem."""

import base64
import dataclasses
import errno
import io
import json
import os
import re
import sys
import xml.etree.ElementTree
import zipfile

import hypothesis
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import PIL.Image
import pytest
from hypothesis import strategies as st

from img2graph import formats
from img2graph import graph as graph_lib
from tests import damage

EVERY_FORMAT = pytest.mark.parametrize('format', formats.FORMATS)


def document(**changes):
  """A document with everything that is awkward in some format."""
  values = dict(
    nodes_px=[[0.1, 0.2], [1 / 3, -0.0], [63.999999999, 1e-7], [12.0, 300.25]],
    edges=[[1, 0], [2, 3], [0, 3]],
    node_prob=[1.0, 0.1, 0.75, 0.9999999999999999],
    edge_prob=[0.3, 1e-12, 1.0],
    node_ids=[7, 0, 12345678901, 3],
    file='drawing.png',
    width=64,
    height=48,
    model='line_drawings 0.1.0',
  )
  return formats.Document(**{**values, **changes})


EMPTY = formats.Document([], [], file='a.png', width=3, height=2)
DOCUMENTS = {
  'full': document(),
  'empty': EMPTY,
  'no image': document(file=None, width=None, height=None, model=None),
  'nothing': formats.Document([], []),
  'isolated nodes': document(edges=[], edge_prob=[]),
  'one node': formats.Document([[5, 5]], [], width=10, height=10),
  'images': document(
    node_files=['a.png', 'b/ü.png', '', 'say "<hi>"'],
    edge_affinity=[-0.1, -1e-12, -300],
  ),
}
FILE_NAMES = [
  'Größe 図 🙂 نقطة.png',
  '<a href="x">&amp; \'b\' ]]> -->.png',
  'say "hi" \\ back\\\\slash\\.png',
  'digraph { a -> b } // # /* [x=1];.png',
  'two\nlines\tand\r\nmore.png',
  'a backslash\\\nand a line\\\\\n\\',
  ' blanks around ',
  '',
]


def sample_graph(seed=0, capacity=8):
  rng = np.random.default_rng(seed)
  edge_prob = np.triu(rng.uniform(size=(capacity, capacity)), 1)
  return graph_lib.Graph(
    nodes=rng.uniform(-1, 1, (capacity, 2)).astype(np.float32),
    node_prob=rng.uniform(0.2, 1, capacity).astype(np.float32),
    edge_prob=(edge_prob + edge_prob.T).astype(np.float32),
  )


def bits(value):
  """Every field of a document, with arrays as bytes: equal means bit-equal."""
  fields = dataclasses.asdict(value)
  return {
    k: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
    for k, v in fields.items()
  }


@EVERY_FORMAT
@pytest.mark.parametrize('name', DOCUMENTS)
def test_every_format_reads_back_bit_equal(tmp_path, format, name):
  path = tmp_path / f'graph.{format}'
  formats.write(DOCUMENTS[name], path)
  assert bits(formats.read(path)) == bits(DOCUMENTS[name])


@EVERY_FORMAT
@pytest.mark.parametrize('file', FILE_NAMES)
def test_every_format_holds_every_file_name(tmp_path, format, file):
  path = tmp_path / f'graph.{format}'
  formats.write(document(file=file, model=file), path)
  assert formats.read(path) == document(file=file, model=file)


@EVERY_FORMAT
def test_every_format_writes_names_that_are_not_utf8(tmp_path, format):
  file = os.fsdecode(b'caf\xe9\x01.png')
  path = tmp_path / f'graph.{format}'
  formats.write(document(file=file), path)
  found = formats.read(path)
  assert dataclasses.replace(found, file=None) == document(file=None)
  if format in ('json', 'geojson', 'npz'):
    assert found.file == file
  else:
    assert found.file.startswith('caf') and found.file.endswith('.png')


@EVERY_FORMAT
@hypothesis.settings(max_examples=10)
@hypothesis.given(data=st.data())
def test_every_format_reads_back_random_documents(tmp_path_factory, format, data):
  n = data.draw(st.integers(0, 6))
  coordinate = st.floats(allow_nan=False, allow_infinity=False)
  prob = st.floats(0, 1)
  pairs = [(i, j) for i in range(n) for j in range(i)]
  edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
  text = st.none() | st.text(st.characters(exclude_categories=['Cc', 'Cs', 'Cn']))
  some = formats.Document(
    nodes_px=[[data.draw(coordinate), data.draw(coordinate)] for _ in range(n)],
    edges=edges,
    node_prob=[data.draw(prob) for _ in range(n)],
    edge_prob=[data.draw(prob) for _ in edges],
    node_ids=data.draw(
      st.lists(st.integers(0, 2**63 - 1), min_size=n, max_size=n, unique=True)
    ),
    file=data.draw(text),
    width=data.draw(st.integers(1, 10**6)),
    height=data.draw(st.integers(1, 10**6)),
    model=data.draw(text),
  )
  path = tmp_path_factory.mktemp('graph') / 'graph'
  formats.write(some, path, format)
  assert bits(formats.read(path, format)) == bits(some)


def test_json_is_what_the_documentation_says(tmp_path):
  path = tmp_path / 'graph.json'
  some = formats.Document(
    [[10.5, 20], [30, 0.25]],
    [[1, 0]],
    node_prob=[1, 0.5],
    edge_prob=[0.9],
    file='ü.png',
    width=64,
    height=48,
    model='m',
  )
  formats.write_json(some, path)
  text = path.read_text(encoding='utf-8')
  assert 'ü.png' in text
  value = json.loads(text)
  assert list(value) == ['format', 'image', 'nodes', 'edges', 'model']
  assert value == {
    'format': 'img2graph/1',
    'image': {'file': 'ü.png', 'width': 64, 'height': 48},
    'nodes': [
      {'id': 0, 'x': 10.5, 'y': 20.0, 'prob': 1.0},
      {'id': 1, 'x': 30.0, 'y': 0.25, 'prob': 0.5},
    ],
    'edges': [{'source': 0, 'target': 1, 'prob': 0.9}],
    'model': 'm',
  }


def test_json_by_hand_needs_no_probabilities_and_no_image(tmp_path):
  path = tmp_path / 'graph.json'
  path.write_text(
    '\ufeff{"format": "img2graph/1", "image": null,'
    ' "nodes": [{"id": 4, "x": 1, "y": 2}, {"id": 2, "x": 3, "y": 4}],'
    ' "edges": [{"source": 2, "target": 4}], "comment": "more"}',
    encoding='utf-8',
  )
  expected = formats.Document([[1, 2], [3, 4]], [[0, 1]], node_ids=[4, 2])
  assert formats.read(path) == expected


def test_networkx_reads_the_graphml(tmp_path):
  some = document()
  path = tmp_path / 'graph.graphml'
  formats.write(some, path)
  found = nx.read_graphml(path, node_type=int)
  assert not found.is_directed() and not found.is_multigraph()
  assert found.graph['file'] == some.file and found.graph['width'] == 64
  assert list(found) == some.node_ids.tolist()
  for k, (_, data) in enumerate(found.nodes(data=True)):
    assert (data['x'], data['y']) == tuple(some.nodes_px[k])
    assert data['prob'] == some.node_prob[k]
  assert found.number_of_edges() == 3
  for (i, j), prob in zip(some.edges, some.edge_prob, strict=True):
    assert found.edges[some.node_ids[i], some.node_ids[j]]['prob'] == prob


def test_graphml_of_networkx_is_read(tmp_path):
  some = document()
  path = tmp_path / 'graph.graphml'
  nx.write_graphml(formats.to_networkx(some), path)
  assert formats.read(path) == some


def test_graphml_defaults_count(tmp_path):
  path = tmp_path / 'graph.graphml'
  path.write_text(
    '<graphml><key id="a" for="node" attr.name="x"><default>5</default></key>'
    '<key id="b" for="all" attr.name="prob"><default>0.5</default></key>'
    '<key id="c" for="node" attr.name="y"/><graph>'
    '<node id="0"><data key="c">1</data></node>'
    '<node id="1"><data key="a">7</data><data key="c">2</data></node>'
    '<edge source="0" target="1"/></graph></graphml>'
  )
  expected = formats.Document(
    [[5, 1], [7, 2]], [[0, 1]], node_prob=[0.5, 0.5], edge_prob=[0.5]
  )
  assert formats.read(path) == expected


def test_a_directed_graphml_is_refused(tmp_path):
  path = tmp_path / 'graph.graphml'
  graph = formats.to_networkx(document())
  nx.write_graphml(graph.to_directed(), path)
  message = 'graph file: a GraphML graph must be undirected; got a directed one'
  with pytest.raises(ValueError, match=message):
    formats.read(path)
  formats.write(document(), path)
  text = path.read_text()
  path.write_text(text.replace('<edge', '<edge directed="false"'))
  assert formats.read(path) == document()
  path.write_text(text.replace('<edge', '<edge directed="true"', 1))
  with pytest.raises(ValueError, match=message):
    formats.read(path)


def test_networkx_and_back_is_the_same():
  for some in DOCUMENTS.values():
    assert bits(formats.from_networkx(formats.to_networkx(some))) == bits(some)
  graph = nx.Graph()
  graph.add_node(1, x=np.float32(2), y=3, pos='ignored')
  graph.add_node(0, x=4, y=5)
  graph.add_edge(0, 1)
  expected = formats.Document([[2, 3], [4, 5]], [[0, 1]], node_ids=[1, 0])
  assert formats.from_networkx(graph) == expected


@pytest.mark.parametrize(
  'graph, message',
  [
    (nx.DiGraph(), 'must be undirected'),
    (nx.path_graph(2), 'node 0 has no "x"'),
    (nx.Graph([('a', 'b')]), "a node id must be a number; got 'a'"),
  ],
)
def test_networkx_graphs_without_positions_are_refused(graph, message):
  with pytest.raises(ValueError, match=message):
    formats.from_networkx(graph)


def test_without_networkx_one_sentence_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'networkx', None)
  with pytest.raises(ValueError, match='pip install networkx'):
    formats.to_networkx(document())


def test_the_svg_lies_on_the_image(tmp_path):
  path = tmp_path / 'graph.svg'
  formats.write_svg(document(), path, background='a b&c.png')
  root = xml.etree.ElementTree.parse(path).getroot()
  svg = '{http://www.w3.org/2000/svg}'
  assert root.tag == svg + 'svg' and root.get('viewBox') == '0 0 64 48'
  image = root.find(svg + 'image')
  assert image.get('href') == 'a b&c.png'
  assert [image.get(k) for k in ('x', 'y', 'width', 'height')] == ['0', '0', '64', '48']
  circles = {c.get('id'): c for c in root.iter(svg + 'circle')}
  assert set(circles) == {'node-7', 'node-0', 'node-12345678901', 'node-3'}
  for line in root.iter(svg + 'line'):
    for end, x, y in (('source', 'x1', 'y1'), ('target', 'x2', 'y2')):
      circle = circles[f'node-{line.get("data-" + end)}']
      assert (line.get(x), line.get(y)) == (circle.get('cx'), circle.get('cy'))
  ids = [element.get('id') for element in root.iter() if element.get('id')]
  assert len(ids) == len(set(ids))
  assert formats.read(path) == document()


@pytest.mark.parametrize('kind', [np.uint8, PIL.Image.fromarray])
def test_an_svg_may_contain_its_picture(tmp_path, kind):
  path = tmp_path / 'graph.svg'
  pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  formats.write_svg(EMPTY, path, background=kind(pixels))
  root = xml.etree.ElementTree.parse(path).getroot()
  href = root.find('{http://www.w3.org/2000/svg}image').get('href')
  head, _, data = href.partition(',')
  assert head == 'data:image/png;base64'

  picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
  np.testing.assert_array_equal(np.asarray(picture), pixels)
  assert formats.read(path) == EMPTY


@pytest.mark.parametrize(
  'background',
  [
    np.full((2, 3, 1), 200, np.uint8),
    PIL.Image.new('L', (3, 2), 200),
    PIL.Image.new('CMYK', (3, 2), (55, 55, 55, 0)),
    PIL.Image.new('RGBA', (3, 2), (200, 200, 200, 255)),
  ],
)
def test_pictures_of_any_colours_are_embedded(tmp_path, background):
  formats.write_svg(EMPTY, tmp_path / 'graph.svg', background=background)
  data = re.search('base64,([^"]*)"', (tmp_path / 'graph.svg').read_text())[1]
  picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
  np.testing.assert_array_equal(picture.convert('RGB'), np.full((2, 3, 3), 200))


@pytest.mark.parametrize(
  'background, message',
  [
    (np.ones((2, 3), np.float32), r'must be uint8 .*; got float32 \(2, 3\)'),
    (np.full((2, 3), 300), r'must be uint8 .*; got int64 \(2, 3\)'),
    (np.zeros((2, 3, 2), np.uint8), r'must be uint8 .*; got uint8 \(2, 3, 2\)'),
    (PIL.Image.new('F', (3, 2), 1.0), 'must have colours or greys; got the mode F'),
  ],
)
def test_a_background_that_would_be_black_is_refused(tmp_path, background, message):
  with pytest.raises(ValueError, match=message):
    formats.write_svg(EMPTY, tmp_path / 'graph.svg', background=background)
  assert list(tmp_path.iterdir()) == []


def test_an_svg_without_an_image_surrounds_its_nodes(tmp_path):
  path = tmp_path / 'graph.svg'
  formats.write(formats.Document([[-10, 0], [90, 50]], [[0, 1]]), path)
  x, y, width, height = map(
    float, re.search('viewBox="(.*?)"', path.read_text())[1].split()
  )
  assert x < -10 and y < 0 and x + width > 90 and y + height > 50


def test_moved_circles_of_an_svg_count_but_transforms_are_refused(tmp_path):
  path = tmp_path / 'graph.svg'
  formats.write(document(), path)
  text = path.read_text()
  path.write_text(text.replace('cx="12.0"', 'cx="13.5"'))
  assert formats.read(path).nodes_px[3, 0] == 13.5
  path.write_text(text.replace('<g id="nodes"', '<g transform="scale(2)" id="nodes"'))
  with pytest.raises(ValueError, match='<g> has a transform'):
    formats.read(path)


def test_geojson_features_are_points_and_lines_in_pixels(tmp_path):
  some = document()
  path = tmp_path / 'graph.geojson'
  formats.write(some, path)
  value = json.loads(path.read_text())
  assert value['type'] == 'FeatureCollection'
  assert 'y down' in value['img2graph']['coordinates']
  points = [f for f in value['features'] if f['geometry']['type'] == 'Point']
  lines = [f for f in value['features'] if f['geometry']['type'] == 'LineString']
  assert len(points) == 4 and len(lines) == 3
  where = {f['id']: f['geometry']['coordinates'] for f in points}
  np.testing.assert_array_equal(list(where.values()), some.nodes_px)
  for line in lines:
    ends = [where[line['properties'][end]] for end in ('source', 'target')]
    assert line['type'] == 'Feature' and line['geometry']['coordinates'] == ends
  ids = [f['id'] for f in value['features']]
  assert len(ids) == len(set(ids))


def test_dot_positions_have_y_up(tmp_path):
  path = tmp_path / 'graph.dot'
  formats.write(formats.Document([[1, 2]], [], width=10, height=8), path)
  lines = path.read_text().splitlines()
  assert lines[0] == 'graph img2graph {' and lines[-1] == '}'
  assert '  0 [x="1.0", y="2.0", prob="1.0", pos="1.0,6.0!"];' in lines


def test_dot_as_graphviz_rewrites_it_is_read(tmp_path):
  path = tmp_path / 'graph.dot'
  path.write_text(
    'strict graph "img 2" {\n\tgraph [bb="0,0,54,36",\n\t\tformat="img2graph/1"\n\t];\n'
    '\tnode [label="\\N", shape=point];\n\timage_width=20; image_height = 10\n'
    '\t0\t[height=0.5,\n\t\tpos="27,18",\n\t\tx=1.5, y=-.5];\n'
    '# a comment\n1 [x=2 y="1e-3"] /* more */ ; 2 [x=3, y=3]\n'
    '\t0 -- 1 -- 2\t[prob=0.5]; // done\n}\n'
  )
  expected = formats.Document(
    [[1.5, -0.5], [2, 0.001], [3, 3]],
    [[0, 1], [1, 2]],
    edge_prob=[0.5, 0.5],
    width=20,
    height=10,
  )
  assert formats.read(path) == expected


def test_a_text_of_dot_may_go_on_in_the_next_line(tmp_path):
  path = tmp_path / 'graph.dot'
  path.write_text('graph { format="img2\\\ngraph/1"; model="a\\\\\nb\\"" }')
  assert formats.read(path).model == 'a\\\nb"'


def test_attributes_of_all_nodes_or_edges_of_dot_are_read(tmp_path):
  path = tmp_path / 'graph.dot'
  path.write_text(
    'graph { format="img2graph/1"; node [y=3, prob=0.5, file="", label="\\N"];\n'
    'edge [prob=0.25, affinity=7]; 0 [x=1]; node [prob=0.75]; 1 [x=2, y=4];\n'
    '2 [x=5, prob=1]; 0 -- 1; edge [prob=0.5]; 1 -- 2; 0 -- 2 [prob=1, affinity=8] }'
  )
  expected = formats.Document(
    [[1, 3], [2, 4], [5, 3]],
    [[0, 1], [1, 2], [0, 2]],
    node_prob=[0.5, 0.75, 1],
    edge_prob=[0.25, 0.5, 1],
    edge_affinity=[7, 7, 8],
  )
  assert formats.read(path) == expected


@pytest.mark.parametrize('spoil', damage.WAYS)
def test_an_npz_whose_damage_shows_late_is_told(tmp_path, spoil):
  path = tmp_path / 'graph.npz'
  formats.write(document(), path)
  spoil(path)
  with pytest.raises(ValueError, match='graph.npz .*it is no npz archive'):
    formats.read(path)


@pytest.mark.parametrize('values', [5, 'abcd', ['a'], [1, 2, 3, 4]])
def test_an_npz_whose_files_of_nodes_are_none_is_told(tmp_path, values):
  path = tmp_path / 'graph.npz'
  formats.write(DOCUMENTS['images'], path)
  with np.load(path) as file:
    arrays = dict(file)
  np.savez(path, **arrays | {'node_files': np.array(values)})
  with pytest.raises(ValueError, match='graph file: 4 nodes need as many files'):
    formats.read(path)


def test_a_zip_file_of_other_things_is_no_npz(tmp_path):
  path = tmp_path / 'graph.npz'
  with zipfile.ZipFile(path, 'w') as file:
    for name in ('format', 'nodes_px', 'node_ids', 'node_prob', 'edges', 'edge_prob'):
      file.writestr(name, 'text')
  with pytest.raises(ValueError, match="graph file: it has no array 'format'"):
    formats.read(path)


def test_npz_is_an_archive_of_one_graph(tmp_path):
  some = document()
  path = tmp_path / 'graph.npz'
  formats.write(some, path)
  with np.load(path, allow_pickle=False) as archive:
    assert archive['nodes'].shape == (1, 4, 2)
    np.testing.assert_allclose(archive['nodes'][0], some.nodes_px / [64, 48], rtol=1e-6)
    np.testing.assert_array_equal(archive['edges'][0], some.edges)
    assert archive['num_nodes'].tolist() == [4]
    assert archive['num_edges'].tolist() == [3]


@hypothesis.given(
  seed=st.integers(0, 2**32 - 1), width=st.integers(1, 5000), height=st.integers(1, 99)
)
def test_a_graph_becomes_a_document_and_the_same_graph(seed, width, height):
  graph = graph_lib.canonicalize(sample_graph(seed))
  some = formats.from_graph(graph, width=width, height=height)
  back = formats.to_graph(some, capacity=graph.capacity)
  for field in ('nodes', 'node_prob', 'edge_prob'):
    expected = getattr(graph, field)
    actual = getattr(back, field)
    assert actual.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_a_document_holds_what_is_present_in_pixels():
  graph = graph_lib.from_lists(
    [[-1, -1], [0.3, 0.7], [1, 1], [0, 0]],
    [[0, 2], [1, 2], [2, 3]],
    capacity=6,
    node_prob=[0.9, 0.4, 0.7, 0.6],
    edge_prob=[0.8, 0.9, 0.3],
  )
  for one in (graph, jax.tree.map(jnp.asarray, graph)):
    some = formats.from_graph(one, width=200, height=100, file='f', model='m')
    # Short decimals, not 0.8999999761581421.
    expected = formats.Document(
      [[0, 0], [200, 100], [100, 50]],
      [[0, 1]],
      node_prob=[0.9, 0.7, 0.6],
      edge_prob=[0.8],
      file='f',
      width=200,
      height=100,
      model='m',
    )
    assert some == expected
  some = formats.from_graph(graph, width=200, height=100, threshold=0.2)
  assert len(some.nodes_px) == 4 and len(some.edges) == 3


def test_pixels_are_written_with_few_decimals():
  graph = graph_lib.from_lists([[0.1, -0.3], [0.12345, 0.6]], [[0, 1]])
  some = formats.from_graph(graph, width=64, height=64)
  assert all(len(repr(value)) <= 10 for value in some.nodes_px.ravel().tolist())
  np.testing.assert_allclose(some.nodes_px[0], [35.2, 22.4], atol=1e-5)


def test_documents_become_graphs_only_with_the_size_of_the_image():
  with pytest.raises(ValueError, match='needs the size of its image'):
    formats.to_graph(document(file=None, width=None, height=None))
  with pytest.raises(ValueError, match='capacity of 3 cannot hold 4 nodes'):
    formats.to_graph(document(), capacity=3)
  with pytest.raises(ValueError, match='at least one pixel'):
    formats.from_graph(sample_graph(), width=0, height=5)
  with pytest.raises(ValueError, match='takes one graph'):
    formats.from_graph(graph_lib.empty(2, 3), width=5, height=5)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(nodes_px=[[0, 0, 0]] * 4), r'nodes must be \[any, 2\]; got \[4, 3\]'),
    (dict(nodes_px=[[0, np.nan]] * 4), 'node 7 has a coordinate that is not finite'),
    (dict(nodes_px=[['a', 'b']] * 4), 'nodes must be numbers'),
    (dict(nodes_px=[[1], [1, 2]]), 'nodes must be an array'),
    (dict(node_ids=[1, 2, 3]), r'node ids must be \[4\]; got \[3\]'),
    (dict(node_ids=[]), r'node ids must be \[4\]; got \[0\]'),
    (dict(node_ids=[1, 2, 2, 3]), 'several nodes with the id 2'),
    (dict(node_ids=[-1, 2, 5, 3]), 'must not be negative; got -1'),
    (dict(node_ids=[0.5, 2, 5, 3]), 'node ids must be whole numbers'),
    (dict(node_prob=[1, 1, 2, 1]), 'probability of node 2 is 2.0'),
    (dict(edge_prob=[1, np.nan, 1]), 'probability of edge 1 is nan'),
    (dict(edge_prob=[1]), r'edge probabilities must be \[3\]'),
    (dict(edges=[[0, 1], [1, 2], [0, 4]]), 'index 0 to 3; got 0 to 4'),
    (dict(edges=[[0, 1], [1, 2], [0, -1]]), 'index 0 to 3; got -1 to 2'),
    (dict(edges=[[0, 1], [1, 2], [3, 3]]), 'joins node 3 with itself'),
    (dict(edges=[[0, 1], [1, 2], [1, 0]]), 'from node 7 to node 0 is there twice'),
    (dict(file=3), 'file must be text or null; got 3'),
    (dict(model=b'm'), 'model must be text or null'),
    (dict(width=None), 'both a width and a height'),
    (dict(height=0), 'height must be at least 1 pixel; got 0'),
    (dict(height=1.5), 'height must be a whole number; got 1.5'),
    (dict(width='64'), "width must be a number; got '64'"),
    (dict(width=True), 'width must be a number; got True'),
    (dict(node_files=['a', 'b']), '4 nodes need as many files'),
    (dict(node_files=['a', 'b', 'c', 4]), '4 nodes need as many files, texts'),
    (dict(edge_affinity=[0, 1, np.inf]), 'an affinity is not finite'),
    (dict(edge_affinity=[0]), r'affinities must be \[3\]'),
  ],
)
def test_documents_check_what_they_hold(changes, message):
  with pytest.raises(ValueError, match=message):
    document(**changes)


def test_edges_are_put_in_order_with_their_probabilities():
  some = document()
  assert some.edges.tolist() == [[0, 1], [0, 3], [2, 3]]
  assert some.edge_prob.tolist() == [0.3, 1.0, 1e-12]
  assert document(edge_affinity=[-1, -2, -3]).edge_affinity.tolist() == [-1, -3, -2]


def test_documents_compare_by_value():
  assert document() == document() and document() != document(width=65)
  assert document() != document(node_ids=[1, 2, 3, 4])
  assert document() != 'document'


@EVERY_FORMAT
def test_a_format_may_be_named_or_be_the_suffix(tmp_path, format):
  formats.write(document(), tmp_path / 'graph.txt', format)
  formats.write(document(), tmp_path / f'GRAPH.{format.upper()}')
  assert formats.read(tmp_path / 'graph.txt', format) == document()
  assert formats.read(str(tmp_path / f'GRAPH.{format.upper()}')) == document()


def test_unknown_formats_are_refused(tmp_path):
  for act in (formats.read, lambda *x: formats.write(document(), *x)):
    with pytest.raises(ValueError, match='needs one of these suffixes: json, graphml'):
      act(tmp_path / 'graph.pdf')
    with pytest.raises(ValueError, match="must be one of json, .*; got 'pdf'"):
      act(tmp_path / 'graph.json', 'pdf')


@pytest.mark.parametrize(
  'act',
  [
    lambda graph, path: formats.write(graph, path),
    lambda graph, _: formats.to_networkx(graph),
    lambda graph, _: formats.to_graph(graph),
  ],
)
def test_a_graph_of_arrays_is_no_document(tmp_path, act):
  with pytest.raises(ValueError, match='formats.from_graph makes it .*; got Graph'):
    act(graph_lib.empty((), 4), tmp_path / 'graph.json')
  assert not any(tmp_path.iterdir())


FOREIGN = {
  'empty': b'',
  'blank': b'  \n',
  'not text': b'\xff\xfe\x00\x81',
  'PNG': b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR',
  'JSON list': b'[1, 2]',
  'JSON number': b'1' * 5000,
  'other JSON': b'{"nodes": [], "edges": []}',
  'deep JSON': b'[' * 100_000,
  'other XML': b'<html><body>&nbsp;</body></html>',
  'other root': b'<html/>',
  'strange encoding': b'<?xml version="1.0" encoding="klingon"?><svg/>',
  'plain SVG': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
  'no graph': b'<graphml/>',
  'digraph': b'digraph { a -> b }',
  'other DOT': b'graph { a -- b }',
  'npy': b'\x93NUMPY\x01\x00v\x00{"descr": "<f8"}',
  'zip': b'PK\x05\x06' + bytes(18),
  'feature collection': b'{"type": "FeatureCollection", "features": []}',
}


@EVERY_FORMAT
@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_files_give_one_sentence(tmp_path, format, name):
  path = tmp_path / 'some graph'
  path.write_bytes(FOREIGN[name])
  with pytest.raises(ValueError) as caught:
    formats.read(path, format)
  message = str(caught.value)
  assert message.startswith(f'{path} is not a readable ') and message.endswith('.')
  assert '\n' not in message and len(message) < 400


@EVERY_FORMAT
def test_truncated_and_damaged_files_are_refused_or_read(tmp_path, format):
  path = tmp_path / 'graph'
  formats.write(document(), path, format)
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  refused = 0
  for k in range(150):
    data = bytearray(whole)
    if k < 75:
      # The last byte of text is only a line break.
      data = data[: rng.integers(0, len(data) - 2)]
    else:
      data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data)
    try:
      formats.read(path, format)
    except ValueError as error:
      assert str(error).startswith(f'{path} is not a readable ')
      refused += 1
    else:
      assert k >= 75, bytes(data[-40:])
  assert refused > 75


JSON_PROBLEMS = [
  (
    lambda v: v.update(format='img2graph/2'),
    'must be "img2graph/1"; got \'img2graph/2\'',
  ),
  (lambda v: v.pop('nodes'), 'the file has no "nodes"'),
  (lambda v: v.update(edges={}), '"edges" must be a list of objects'),
  (lambda v: v.update(nodes=[1]), '"nodes" must be a list of objects'),
  (lambda v: v.update(image='a.png'), "image must be an object or null; got 'a.png'"),
  (lambda v: v['image'].update(width='64'), "width must be a number; got '64'"),
  (lambda v: v['image'].pop('height'), 'both a width and a height'),
  (lambda v: v['nodes'][1].pop('y'), 'node 0 has no "y"'),
  (lambda v: v['nodes'][1].pop('id'), 'node 1 has no "id"'),
  (lambda v: v['nodes'][1].update(x='1'), "x of node 0 must be a number; got '1'"),
  (lambda v: v['nodes'][1].update(x=None), 'x of node 0 must be a number; got None'),
  (lambda v: v['nodes'][1].update(x=True), 'x of node 0 must be a number; got True'),
  (lambda v: v['nodes'][1].update(x=10**400), 'x of node 0 must be a number below'),
  (lambda v: v['nodes'][1].update(x=float('inf')), 'node 0 has a coordinate that is'),
  (lambda v: v['nodes'][1].update(id=7), 'several nodes with the id 7'),
  (lambda v: v['nodes'][1].update(id=2**70), 'must be below 2'),
  (lambda v: v['nodes'][1].update(id=10**400), 'a node id must be below 2'),
  (lambda v: v['edges'][0].update(source=10**400), 'source of edge 0 must be below'),
  (lambda v: v['image'].update(width=10**400), 'the image width must be below 2'),
  (lambda v: v['nodes'][1].update(prob=1.5), 'probability of node 1 is 1.5'),
  (lambda v: v['edges'][0].update(source=99), 'needs node 99, which is not there'),
  (lambda v: v['edges'][0].update(source=7, target=7), 'joins node 7 with itself'),
  (lambda v: v['edges'].append(v['edges'][0]), 'is there twice'),
  (lambda v: v.update(model=5), 'model must be text or null; got 5'),
]


@pytest.mark.parametrize('format', [name for name in formats.FORMATS if name != 'npz'])
def test_ids_of_hundreds_of_digits_are_told(tmp_path, format):
  path = tmp_path / f'graph.{format}'
  formats.write(document(), path)
  path.write_text(path.read_text().replace('12345678901', 400 * '7'))
  with pytest.raises(ValueError, match='graph file: .* must be below 2.63; got 777'):
    formats.read(path)


@pytest.mark.parametrize('change, message', JSON_PROBLEMS)
def test_json_problems_are_named(tmp_path, change, message):
  path = tmp_path / 'graph.json'
  formats.write(document(), path)
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))
  with pytest.raises(ValueError) as caught:
    formats.read(path)
  assert str(caught.value).startswith(f'{path} is not a readable JSON graph file: ')
  assert message in str(caught.value)


@pytest.mark.parametrize(
  'text, message',
  [
    ('graph { format="img2graph/1"; 0 [x=1 y=2]; 0 -> 1 }', "'->'"),
    ('graph { format="img2graph/1"; 0 [x=1 y=2 }', "must come where there is '}'"),
    ('graph { format="img2graph/1"; 0 [x=one y=2] }', "x must be a number; got 'one'"),
    ('graph { format="img2graph/1"; 0 [x="1', "'\"' in line 1 is not understood"),
    ('graph { format="img2graph/1" } graph {}', 'the end of the file must come'),
    ('graph { format="img2graph/1"; 0 -- 1 }', 'edge 0 needs node 0'),
  ],
)
def test_dot_problems_are_named(tmp_path, text, message):
  path = tmp_path / 'graph.dot'
  path.write_text(text)
  with pytest.raises(ValueError) as caught:
    formats.read(path)
  assert message in str(caught.value)


@EVERY_FORMAT
def test_missing_files_and_folders_are_named(tmp_path, format):
  for path in (tmp_path / 'missing', tmp_path):
    with pytest.raises(ValueError, match=f'cannot read {re.escape(str(path))}: '):
      formats.read(path, format)


@EVERY_FORMAT
def test_what_was_there_stays_when_the_disk_is_full(tmp_path, monkeypatch, format):
  path = tmp_path / f'graph.{format}'
  formats.write(document(), path)
  before = path.read_bytes()

  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left') as caught:
    formats.write(EMPTY, path)
  assert caught.value.filename == str(path)
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == [path.name]


def test_writing_into_a_missing_folder_names_the_file(tmp_path):
  path = tmp_path / 'missing' / 'graph.json'
  with pytest.raises(FileNotFoundError) as caught:
    formats.write(document(), path)
  assert caught.value.filename == str(path)


def test_writing_leaves_nothing_but_the_file_and_follows_links(tmp_path):
  path = tmp_path / 'graph.json'
  link = tmp_path / 'link.json'
  link.symlink_to(path)
  formats.write(document(), link)
  assert link.is_symlink() and formats.read(path) == document()
  assert sorted(os.listdir(tmp_path)) == ['graph.json', 'link.json']
  # The permissions are those of any new file, not of a temporary one.
  (tmp_path / 'other').touch()
  assert path.stat().st_mode == (tmp_path / 'other').stat().st_mode
