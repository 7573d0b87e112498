import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph import evaluation
from img2graph import geometry
from img2graph import graph as graphs
from img2graph.data import archives
from img2graph.data import sources
from img2graph.methods import base

SIDE = 8
# A code `[..., SIDE, SIDE]` in the place of an image: row k < 6 is node k, with its
# x, y and existence in [0, 1]; rows 6 and 7 hold the edges (0, 1) to (4, 5).
NUM_NODES = 6


def _decode(images):
  """Graphs from images that spell them out."""
  code = images[..., 0]
  edges = jnp.concatenate([code[:, 6, :8], code[:, 7, :7]], axis=-1)
  return graphs.Graph(
    2 * code[:, :NUM_NODES, :2] - 1,
    code[:, :NUM_NODES, 2],
    geometry.pairs_to_matrix(edges, NUM_NODES),
  )


def _predict(variables, images):
  """The graph of the image, every node moved by `shift` in y."""
  graph = _decode(images)
  moved = graph.nodes + jnp.array([0.0, 1.0])[None, None] * variables['shift']
  return graphs.Graph(moved, graph.node_prob, graph.edge_prob)


def _shear(variables, images):
  """The graph of the image, nodes moved in y by `shift` times their x."""
  graph = _decode(images)
  moved = jnp.array([0.0, 1.0])[None, None] * variables['shift'] * graph.nodes[..., :1]
  return graphs.Graph(graph.nodes + moved, graph.node_prob, graph.edge_prob)


def _refine(variables, images, graph, num_steps):
  """Takes back a tenth of the shift at every step."""
  del images
  back = jnp.array([0.0, 1.0])[None, None] * variables['shift'] * num_steps / 10
  return graphs.Graph(graph.nodes - back, graph.node_prob, graph.edge_prob)


def _method(**changes):
  parts = dict(init=None, loss=None, predict=_predict, reconstruct=None, refine=_refine)
  return base.Method(**(parts | {'sides': (SIDE,)} | changes))


METHOD = _method()


def _sample(key, batch_size):
  """Codes of random graphs: nodes on a 3 x 2 grid that exist with probability 0.7."""

  def one(key):
    node_key, exist_key, edge_key = jax.random.split(key, 3)
    grid = jnp.array([[x, y] for x in (0.2, 0.5, 0.8) for y in (0.3, 0.7)])
    nodes = grid + jax.random.uniform(node_key, (NUM_NODES, 2), minval=-0.1, maxval=0.1)
    exists = jax.random.bernoulli(exist_key, 0.7, (NUM_NODES, 1))
    edges = jax.random.bernoulli(edge_key, 0.5, (16,)).astype(jnp.float32)
    rows = jnp.concatenate([nodes, exists, jnp.zeros((NUM_NODES, 5))], axis=1)
    return jnp.concatenate([rows, edges.reshape(2, 8)])[..., None]

  images = jax.vmap(one)(jax.random.split(key, batch_size))
  graph = _decode(images)
  exists = graph.node_prob
  edges = graph.edge_prob * exists[:, None, :] * exists[:, :, None]
  # The truth has no isolated nodes, as a drawing has none.
  true = graphs.Graph(graph.nodes, edges.max(axis=-1), edges)
  return {'image': images, 'graph': true}


SOURCE = sources.DeviceSource(sample=_sample, side=SIDE)


@functools.lru_cache
def _host_source(size, *, with_graphs=True):
  """The same examples, from the host, endlessly in a fixed order."""
  batch = jax.tree.map(
    np.asarray, jax.jit(_sample, static_argnums=1)(jax.random.key(5), size)
  )
  if not with_graphs:
    del batch['graph']

  def iterate(*, seed, batch_size, process_index=0, process_count=1):
    del seed, process_index, process_count
    at = 0
    while True:
      order = np.arange(at, at + batch_size) % size
      at += batch_size
      yield jax.tree.map(lambda x, order=order: x[order], batch)

  return sources.HostSource(iterate=iterate, side=SIDE, size=size)


def _variables(shift=0.0):
  return {'shift': jnp.float32(shift)}


def _evaluate(data=SOURCE, *, method=METHOD, shift=0.0, batch_size=16, **options):
  return evaluation.evaluate(
    method, _variables(shift), data, batch_size=batch_size, **options
  )


def test_the_true_graphs_score_one():
  scores = _evaluate(num_images=50, extra=True)
  assert scores['images'] == 50
  for at in scores['at'].values():
    assert at['exact'] == 1
    for kind in ('node', 'edge_strict', 'edge_lenient', 'key', 'path', 'length'):
      assert at[kind]['micro']['f1'] == pytest.approx(1)
  assert scores['smd']['mean'] < 1e-9
  assert 1 < scores['predicted']['nodes'] < 6


def test_a_shift_counts_from_the_threshold_on():
  # 0.08 in [-1, 1] is 4 % of the side.
  at = _evaluate(num_images=30, shift=0.08)['at']
  assert at['0.03']['node']['micro']['f1'] == 0
  assert at['0.05']['node']['micro']['f1'] == 1
  at = _evaluate(num_images=30, shift=0.08, thresholds=(0.039, 0.041))['at']
  assert at['0.039']['exact'] < at['0.041']['exact'] == 1


@pytest.mark.parametrize('data', [SOURCE, _host_source(100)], ids=['device', 'host'])
def test_batch_size_and_devices_change_no_number(data):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  method = _method(predict=_shear)
  noisy = dict(method=method, num_images=70, shift=0.1, thresholds=(0.01, 0.03))
  expected = _evaluate(data, **noisy, batch_size=70)
  assert expected['images'] == 70
  assert 0 < expected['at']['0.01']['node']['micro']['f1'] < 0.9
  for batch_size in (1, 16, 512):
    assert _evaluate(data, **noisy, batch_size=batch_size) == expected
  for batch_size in (1, 30):
    found = _evaluate(data, **noisy, batch_size=batch_size, sharding=sharding)
    assert found == expected


def test_seeds_draw_different_images_and_one_seed_the_same():
  first, again, other = (_evaluate(num_images=40, seed=s) for s in (1, 1, 2))
  assert first == again
  assert first['predicted'] != other['predicted']


def test_evaluation_does_not_draw_the_images_of_training():
  stream = next(evaluation.examples(SOURCE, num_images=64, seed=3))['image']
  key, sample = jax.random.key(3), jax.jit(_sample, static_argnums=1)
  for k in (key, jax.random.fold_in(key, 0), *jax.random.split(key, 3)):
    assert not np.array_equal(stream, sample(k, 64)['image'])


def test_a_host_source_is_seen_once():
  assert _evaluate(_host_source(30), num_images=500)['images'] == 30
  assert _evaluate(_host_source(30))['images'] == 30
  assert _evaluate(_host_source(100), num_images=70)['images'] == 70


def test_examples_in_memory_come_in_an_order_of_the_seed_each_once_a_round():
  numbers = np.arange(10)
  whole = {'image': np.zeros((10, SIDE, SIDE, 1), np.float32), 'number': numbers}
  source = sources.HostSource(iterate=None, side=SIDE, size=10, whole=whole)
  orders = []
  for seed in (1, 2, 1):
    batches = evaluation.host_batches(source, seed=seed, batch_size=4)
    found = np.concatenate([next(batches)['number'] for _ in range(5)])
    assert sorted(found[:10]) == numbers.tolist()
    np.testing.assert_array_equal(found[:10], found[10:])
    orders.append(found[:10].tolist())
  first, other, again = orders
  assert first == again and numbers.tolist() != first != other


def test_without_true_graphs_only_the_predictions_are_counted():
  scores = _evaluate(_host_source(20, with_graphs=False))
  assert scores == {'images': 20, 'predicted': _evaluate(_host_source(20))['predicted']}


def test_refinement_steps_reach_the_method():
  scores = _evaluate(num_images=20, shift=0.2, thresholds=(0.05,))
  assert scores['at']['0.05']['node']['micro']['f1'] == 0
  scores = _evaluate(num_images=20, shift=0.2, thresholds=(0.05,), refine=10)
  assert scores['at']['0.05']['node']['micro']['f1'] == 1


def test_predictions_are_canonical_and_contracted_only_when_asked_for():
  # Nodes 0, 1, 2 in a line; node 3 close to node 2; node 4 without an edge.
  image = np.zeros((SIDE, SIDE, 1), np.float32)
  image[:5, :3, 0] = [
    [0.1, 0.5, 1],
    [0.5, 0.5, 0.8],
    [0.9, 0.5, 1],
    [0.905, 0.5, 1],
    [0.2, 0.9, 1],
  ]
  pairs = list(zip(*geometry.node_pairs(NUM_NODES), strict=True))
  for pair, prob in (((0, 1), 0.9), ((1, 2), 0.9), ((1, 3), 0.9), ((0, 2), 0.4)):
    at = pairs.index(pair)
    image[6 + at // 8, at % 8, 0] = prob

  def predict(**options):
    (found,) = evaluation.predict_graphs(
      METHOD, _variables(), [image], batch_size=2, **options
    )
    return len(found[0]), found[1].tolist()

  assert predict() == (3, [[0, 1], [1, 2]])
  assert predict(merge_radius=0.0, threshold=0.7) == (4, [[0, 1], [1, 2], [1, 3]])
  assert predict(contract_angle=10.0) == (2, [[0, 1]])
  assert predict(threshold=0.3) == (3, [[0, 1], [0, 2], [1, 2]])
  # Node 1 is gone, and with it all edges.
  assert predict(threshold=0.85) == (0, [])


def test_decoding_takes_the_refined_graph_where_it_fits_better():
  side = 32
  image = np.zeros((side, side, 1), np.float32)
  image[15:17, 4:28] = 1

  def line(images, y):
    nodes = jnp.array([[[-0.75, y], [0.75, y]]]).repeat(len(images), axis=0)
    joined = 1 - jnp.eye(2)[None].repeat(len(images), axis=0)
    return graphs.Graph(nodes, jnp.ones(nodes.shape[:2]), joined)

  # What is found lies a pixel and a half below the line, or on it.
  for found, refined in ((0.1, 0.0), (0.0, 0.1)):
    method = _method(
      predict=lambda variables, images, y=found: line(images, y),
      refine=lambda variables, images, graph, num_steps, y=refined: line(images, y),
      ink=lambda variables, images: images[..., 0],
      sides=(side,),
    )
    options = dict(near=0, end_cost=0.0, prior=9.0)  # Nothing is mended.
    (graph,) = evaluation.predict_graphs(
      method, {}, [image], batch_size=1, refine=1, decode=options
    )
    np.testing.assert_allclose(graph[0], [[-0.75, 0], [0.75, 0]], atol=1e-6)
    assert graph[1].tolist() == [[0, 1]]


def test_one_compilation_serves_many_evaluations():
  traced = []

  def predict(variables, images):
    traced.append(images.shape)
    return _predict(variables, images)

  method = _method(predict=predict)
  for shift in (0.0, 0.01, 0.02):
    _evaluate(method=method, num_images=20, shift=shift)
  assert traced == [(16, SIDE, SIDE, 1)]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 0, 'num_images': 4}, 'batch_size must be positive; got 0'),
    ({'num_images': 0}, 'num_images must be positive; got 0'),
    ({}, 'num_images must be given'),
    ({'num_images': 4, 'refine': -1}, 'refine must be 0 or more'),
    ({'num_images': 4, 'thresholds': ()}, 'thresholds must be positive'),
    (
      {'num_images': 4, 'refine': 5, 'method': _method(refine=None)},
      'this method cannot refine',
    ),
  ],
)
def test_wrong_options_are_refused_in_one_sentence(options, message):
  with pytest.raises(ValueError, match=message):
    _evaluate(**options)


# Archives: an image has one bright pixel in its left and one in its right half, and
# the graph is the edge between the two.


def _brightest(variables, images):
  """The edge from the middle of the left half's ink to that of the right half's."""
  del variables
  height, width = images.shape[1:3]
  centres = jnp.asarray(geometry.pixel_centres(height, width))[None]
  nodes = []
  for half in (centres[..., 0] < 0, centres[..., 0] > 0):
    weight = images[..., 0] * half
    total = weight.sum((1, 2))[:, None]
    nodes.append((weight[..., None] * centres).sum((1, 2)) / total)
  count = len(images)
  return graphs.Graph(
    jnp.stack(nodes, axis=1),
    jnp.ones((count, 2)),
    jnp.broadcast_to(1 - jnp.eye(2)[None], (count, 2, 2)),
  )


def _archive(path, *, count=7, height=16, width=16):
  rng = np.random.default_rng(0)
  images = np.zeros((count, height, width), np.uint8)
  true = []
  for i in range(count):
    rows = rng.integers(2, height - 2, 2)
    columns = np.array(
      [rng.integers(2, width // 2 - 2), rng.integers(width // 2 + 2, width - 2)]
    )
    images[i, rows, columns] = 255
    nodes_px = np.stack([columns + 0.5, rows + 0.5], axis=1)
    true.append((geometry.from_pixels(nodes_px, height, width), [[0, 1]]))
  archives.write(path, images, true, fields={'group': np.arange(count) % 3})
  return archives.load(path)


BRIGHTEST = _method(predict=_brightest, sides=(16, 32))


@pytest.mark.parametrize(
  ('height', 'width', 'sides'),
  [
    (16, 16, (16, 32)),
    (16, 16, (32,)),
    (20, 20, (16, 64)),
    (12, 24, (24,)),
    (24, 12, (48,)),
  ],
)
def test_predictions_come_back_in_the_frame_of_the_archive(
  tmp_path, height, width, sides
):
  archive = _archive(tmp_path / 'a.npz', height=height, width=width)
  method = _method(predict=_brightest, sides=sides)
  predictions = evaluation.predict_archive(method, {}, archive, batch_size=3)
  assert list(predictions) == list(range(7))
  for i, (nodes, _) in enumerate(archive.graphs()):
    found = np.array(predictions[i]['nodes']) * [width, height]
    expected = geometry.to_pixels(nodes, height, width)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert predictions[i]['edges'] == [[0, 1]]


def test_predictions_for_a_narrow_archive_lie_outside_by_its_sides_at_most(tmp_path):
  def corners(variables, images):
    found = _brightest(variables, images)
    return dataclasses.replace(found, nodes=jnp.sign(found.nodes))

  archive = _archive(tmp_path / 'a.npz', height=8, width=64)
  method = _method(predict=corners, sides=(64,))
  predictions = evaluation.predict_archive(method, {}, archive, batch_size=7)
  nodes = np.concatenate([found['nodes'] for found in predictions.values()])
  # In the square these were 3.5 times the height away.
  assert set(nodes[:, 0]) <= {0, 1} and set(nodes[:, 1]) <= {-1, 2}
  assert evaluation.score_predictions(archive, predictions)['missing'] == 0


def test_an_archive_scores_the_same_loaded_as_a_path_and_in_any_batches(tmp_path):
  archive = _archive(tmp_path / 'a.npz')
  expected = evaluation.evaluate(BRIGHTEST, {}, archive, batch_size=4)
  assert expected['images'] == 7 and expected['missing'] == 0
  assert expected['at']['0.03']['exact'] == 1
  for data, size in (
    (tmp_path / 'a.npz', 7),
    (str(tmp_path / 'a.npz'), 2),
    (archive, 1),
  ):
    assert evaluation.evaluate(BRIGHTEST, {}, data, batch_size=size) == expected
  part = evaluation.evaluate(BRIGHTEST, {}, archive, batch_size=4, num_images=3)
  assert part['images'] == 3
  assert (
    evaluation.evaluate(BRIGHTEST, {}, archive, batch_size=4, num_images=99) == expected
  )


def test_predictions_keep_the_numbers_of_the_whole_file(tmp_path):
  _archive(tmp_path / 'a.npz')
  part = archives.load(tmp_path / 'a.npz', spread=3)
  predictions = evaluation.predict_archive(BRIGHTEST, {}, part, batch_size=4)
  assert list(predictions) == [0, 2, 4]
  whole = archives.load(tmp_path / 'a.npz', images=False)
  scores = evaluation.score_predictions(whole, predictions)
  assert scores['missing'] == 4
  assert scores['at']['0.05']['node']['micro'] == {
    'precision': 1.0,
    'recall': pytest.approx(3 / 7),
    'f1': pytest.approx(0.6),
  }


def test_predictions_survive_their_file(tmp_path):
  archive = _archive(tmp_path / 'a.npz')
  predictions = evaluation.predict_archive(BRIGHTEST, {}, archive, batch_size=4)
  path = tmp_path / 'predictions.json'
  evaluation.write_predictions(path, predictions)
  assert evaluation.read_predictions(path) == predictions
  assert json.loads(path.read_text())['3'] == predictions[3]
  # Some programs begin a file of UTF-8 with a mark.
  path.write_text(path.read_text(), encoding='utf-8-sig')
  assert evaluation.read_predictions(path) == predictions
  evaluation.write_predictions(path, {})
  assert evaluation.read_predictions(path) == {}
  assert [p.name for p in tmp_path.glob('pred*')] == ['predictions.json']
  with pytest.raises(ValueError, match='cannot be written'):
    evaluation.write_predictions(tmp_path / 'no' / 'folder.json', predictions)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'p.json: not a JSON file of predictions'),
    ('[' * 100_000, 'p.json: not a JSON file of predictions'),
    ('[]', 'p.json: predictions must be a JSON object'),
    ('{"one": {"nodes": [], "edges": []}}', "'one' is not the number of an image"),
    ('{"1": {"nodes": []}}', "image 1 must have 'nodes' and 'edges'"),
    ('{"0": {"nodes": [[20, 3]], "edges": []}}', 'p.json: image 0: a node lies far'),
    (
      '{"1": {"nodes": [], "edges": []}, "01": {"nodes": [[0, 0]], "edges": []}}',
      'p.json: there are different graphs of image 1',
    ),
    ('{"1": 2}', "image 1 must have 'nodes' and 'edges'"),
  ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
  path = tmp_path / 'p.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as caught:
    evaluation.read_predictions(path)
  assert '\n' not in str(caught.value)


def test_the_same_prediction_under_two_names_counts_once(tmp_path):
  found = '{"nodes": [[0.5, 0]], "edges": []}'
  (tmp_path / 'p.json').write_text(f'{{"1": {found}, "01": {found}}}')
  assert evaluation.read_predictions(tmp_path / 'p.json') == {1: json.loads(found)}


def test_missing_files_are_named(tmp_path):
  with pytest.raises(ValueError, match='p.json: there is no such file'):
    evaluation.read_predictions(tmp_path / 'p.json')
  with pytest.raises(ValueError, match='a.npz: there is no such graph archive'):
    _evaluate(tmp_path / 'a.npz', num_images=3)


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    ({'nodes': [[0.5, float('nan')]], 'edges': []}, 'image 2: a node position'),
    ({'nodes': [[0.5, 0.5]], 'edges': [[0, 1]]}, 'image 2: an edge index is out of'),
    ({'nodes': [[0.5]], 'edges': []}, r'image 2: nodes must be \[n, 2\]'),
    ({'nodes': [['a', 'b']], 'edges': []}, 'image 2: could not convert'),
    ({'nodes': {'x': 1}, 'edges': []}, 'image 2: '),
    ({'nodes': [[0.5, 64]], 'edges': []}, r'image 2: a node lies far .* in \[0, 1\]'),
    ({'nodes': [[0, 10**400]], 'edges': []}, 'image 2: a node position must be a numb'),
    ({'nodes': [[0.5, 0.5]] * 2, 'edges': [['0', '1']]}, 'image 2: an edge index'),
  ],
)
def test_a_wrong_prediction_is_refused_with_its_image_named(tmp_path, found, message):
  archive = _archive(tmp_path / 'a.npz')
  with pytest.raises(ValueError, match=message):
    evaluation.score_predictions(archive, {2: found})


def test_predictions_of_another_archive_are_refused(tmp_path):
  archive = _archive(tmp_path / 'a.npz')
  empty = {'nodes': [], 'edges': []}
  with pytest.raises(ValueError, match='none of the 1 predictions is of an image of'):
    evaluation.score_predictions(archive, {70: empty})
  assert evaluation.score_predictions(archive, {})['missing'] == 7
  with pytest.raises(ValueError, match='no images to score'):
    evaluation.score_predictions(archive.take([]), {})
