"""Prediction with a method whose answer is known: the first and last pixel of ink."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import img2graph
from configs import simple_shapes
from img2graph import formats
from img2graph import graph as graphs
from img2graph import methods
from img2graph import metrics
from img2graph import predict
from img2graph import weights
from img2graph.data.photo_sets import base
from tests import stub
from tests import tiles_test


@pytest.fixture
def predictor(monkeypatch):
  """A `Predictor` of the method above."""
  monkeypatch.setattr(weights, 'load_method', stub.load_method)
  return predict.Predictor('folder/stub.npz')


def two_dots(height, width, first, last, size):
  """An image with two square dots of ink, top left corners given in pixels."""
  image = np.zeros((height, width), np.float32)
  for x, y in (first, last):
    image[y : y + size, x : x + size] = 1
  return image


@pytest.mark.parametrize(
  'height, width, size',
  [
    (64, 64, 1),  # As it is.
    (32, 20, 1),  # Padded.
    (10, 7, 1),  # Much smaller than the smallest side.
    (300, 200, 12),  # Reduced.
    (64, 2000, 80),  # A strip.
  ],
)
def test_nodes_are_in_pixels_of_the_original(predictor, height, width, size):
  size = min(size, height)
  last = (width - size, height - size)
  image = two_dots(height, width, (0, 0), last, size)
  (document,) = predictor.predict([image])
  side = next((s for s in stub.SIDES if s >= max(height, width)), stub.SIDES[-1])
  # A pixel of the square covers this many of the original.
  tolerance = max(height, width) / side
  expected = [[0, 0], [width, height]]
  np.testing.assert_allclose(document.nodes_px, expected, atol=1.01 * tolerance)
  assert (document.width, document.height) == (width, height)
  assert document.edges.tolist() == [[0, 1]]
  np.testing.assert_allclose(document.node_prob, [0.9, 0.75])
  np.testing.assert_allclose(document.edge_prob, [0.8])
  assert document.model == f'ends, stub.npz, img2graph {img2graph.__version__}'


def test_an_image_of_the_methods_side_keeps_its_pixel_centres(predictor):
  image = two_dots(64, 64, (10, 20), (40, 50), 1)
  (document,) = predictor.predict([image])
  np.testing.assert_allclose(document.nodes_px, [[10.5, 20.5], [40.5, 50.5]], atol=1e-3)


def test_results_do_not_depend_on_the_batch_or_the_company(predictor):
  rng = np.random.default_rng(0)
  sizes = [(64, 64), (30, 20), (64, 50), (200, 90), (64, 64), (12, 32), (64, 1)]
  images = [(rng.random(size) > 0.8).astype(np.float32) for size in sizes]
  images.insert(3, np.zeros((40, 40), np.float32))
  together = predictor.predict(images)
  assert together == predictor.predict(images, batch_size=3)
  assert together == [predictor.predict([image])[0] for image in images]
  for image, document in zip(images, together, strict=True):
    assert (document.height, document.width) == image.shape


def test_each_side_compiles_once(predictor):
  traced = []

  def counting(variables, images):
    traced.append(images.shape)
    return stub.ends_of_ink(variables, images)

  predictor.method = dataclasses.replace(stub.METHOD, predict=counting)
  images = [np.ones((s, s), np.float32) for s in (64, 20, 60, 30, 64, 64, 50, 9)]
  predictor.predict(images, batch_size=2)
  predictor.predict(images[:3], batch_size=2)
  assert sorted(traced) == [(2, 32, 32, 1), (2, 64, 64, 1)]


def test_blank_images_have_empty_graphs(predictor):
  documents = predictor.predict(
    [np.zeros((50, 70), np.float32), np.full((1, 1), 0.01, np.float32)]
  )
  assert [len(d.nodes_px) for d in documents] == [0, 0]
  assert [(d.width, d.height) for d in documents] == [(70, 50), (1, 1)]


def test_threshold_and_refinement(predictor):
  image = two_dots(64, 64, (10, 20), (40, 50), 1)
  assert len(predictor.predict([image], threshold=0.77)[0].edges) == 0
  all_edges = predictor.predict([image], threshold=0.2)[0]
  assert len(all_edges.edges) == 2
  np.testing.assert_allclose(np.sort(all_edges.edge_prob), [0.3, 0.8])
  refined = predictor.predict([image], refine=60)[0]
  np.testing.assert_allclose(refined.edge_prob, [0.6])


def test_stream_asks_for_no_more_than_it_needs(predictor):
  asked = []

  def endless():
    while True:
      asked.append(len(asked))
      yield asked[-1], np.ones((64, 64), np.float32)

  stream = predictor.stream(endless(), batch_size=4)
  tags = [next(stream)[0] for _ in range(6)]
  assert tags == [0, 1, 2, 3, 4, 5]
  assert len(asked) == 8


@pytest.mark.parametrize(
  'image, words',
  [
    (np.ones((4, 4, 3), np.float32), 'must be [H, W]'),
    (np.ones((0, 4), np.float32), 'must be [H, W]'),
    (np.ones((4, 4), np.uint8), 'must be float'),
    (np.full((4, 4), 2.0), 'must be in [0, 1]; got 2 to 2'),
    (np.array([[0.0, np.nan]]), 'not finite'),
    (np.array([[0.0, np.inf]]), 'not finite'),
  ],
)
def test_a_wrong_image_is_named(predictor, image, words):
  with pytest.raises(ValueError, match='image 1 ') as error:
    predictor.predict([np.ones((4, 4), np.float32), image])
  assert words in str(error.value)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('shape', [(6, 6), (6, 6, 1), (6, 6, 3), (6,), ()])
def test_an_image_alone_is_no_sequence_of_its_rows(predictor, channels, shape):
  predictor.method = dataclasses.replace(stub.METHOD, channels=channels)
  with pytest.raises(ValueError, match=r'sequence of images; .*: give \[image\]'):
    predictor.predict(np.ones(shape, np.float32))


def test_a_stack_of_images_is_a_sequence(predictor):
  stack = np.stack([two_dots(64, 64, (10, 20), (40, 50), k) for k in (1, 2)])
  expected = predictor.predict(list(stack))
  assert predictor.predict(stack) == expected
  assert predictor.predict(stack[..., None]) == expected
  ragged = np.empty(2, object)
  ragged[:] = list(stack)
  assert predictor.predict(ragged) == expected
  # As a list also images of three pixels' width.
  assert len(predictor.predict(list(stack[:, :, :3]))) == 2


@pytest.mark.parametrize(
  'options',
  [
    {'threshold': 1.0},
    {'threshold': -0.1},
    {'tolerance': 1.5},
    {'refine': -1},
    {'batch_size': 0},
    {'tile': 31},
    {'tile': 64.0},
    {'tile': True},
    {'tile': 'none'},
    {'prior': ['round']},
    {'prior': ['polygon'], 'tile': 64},
  ],
)
def test_wrong_options_are_refused(predictor, options):
  with pytest.raises(ValueError, match=next(iter(options))):
    predictor.predict([np.ones((4, 4), np.float32)], **options)


def test_tiles_are_asked_about_where_there_is_ink(predictor):
  """A stroke in the first tile and one in the last: no more goes through the method."""
  image = np.zeros((130, 500), np.float32)
  image[10:12, 20:60] = image[110:112, 440:480] = 1
  seen, told = [], []

  def recording(variables, images):
    jax.debug.callback(lambda x: seen.extend(np.asarray(x).max(axis=(1, 2, 3))), images)
    return stub.ends_of_ink(variables, images)

  predictor.method = dataclasses.replace(stub.METHOD, predict=recording)
  stream = predictor.stream(
    [('map', image)], tile=64, on_tiles=lambda *numbers: told.append(numbers)
  )
  ((tag, document),) = stream
  jax.effects_barrier()
  assert tag == 'map' and (document.width, document.height) == (500, 130)
  assert sum(np.array(seen) > 0) == told[-1][2] < 8
  assert told == [('map', 0, told[-1][2]), ('map', told[-1][2], told[-1][2])]
  assert len(document.edges) == 2
  for first, last in np.sort(document.nodes_px[document.edges], axis=1).tolist():
    near = 0 if first[0] < 100 else 1
    expected = [[20, 10], [60, 12]] if near == 0 else [[440, 110], [480, 112]]
    np.testing.assert_allclose([first, last], expected, atol=2)


@pytest.mark.parametrize('shape', [(300, 170), (64, 400), (400, 33)])
def test_tiles_find_nothing_beyond_the_image(predictor, shape):
  ink = np.random.default_rng(0).random(shape).astype(np.float32)
  (document,) = predictor.predict([ink], tile=64)
  assert len(document.nodes_px) > 4
  assert (document.nodes_px >= 0).all()
  assert (document.nodes_px <= shape[::-1]).all()


@pytest.mark.parametrize('shape', [(1, 5000), (5000, 1), (3, 700)])
def test_one_piece_has_nothing_beyond_a_narrow_image(predictor, shape):
  ink = np.ones(shape, np.float32)
  (document,) = predictor.predict([ink], tile=None)
  assert len(document.nodes_px) == 2
  assert (document.nodes_px >= 0).all()
  assert (document.nodes_px <= shape[::-1]).all()


def test_an_image_no_larger_than_a_tile_goes_in_one_piece(predictor):
  image = two_dots(64, 64, (10, 20), (40, 50), 1)
  expected = predictor.predict([image], tile=None)
  for tile in (64, 500, 'auto'):
    assert predictor.predict([image], tile=tile) == expected


def test_refining_without_a_refinement_is_refused(predictor):
  predictor.method = dataclasses.replace(stub.METHOD, refine=None)
  with pytest.raises(ValueError, match='cannot refine'):
    predictor.predict([np.ones((4, 4), np.float32)], refine=3)


def test_weights_that_were_written_anew_are_read_anew(monkeypatch, tmp_path):
  monkeypatch.setattr(weights, 'load_method', stub.load_method)
  path = tmp_path / 'weights.npz'
  path.write_bytes(b'1')
  first = predict._predictor(path)
  assert predict._predictor(tmp_path) is first  # The folder of a run.
  monkeypatch.chdir(tmp_path)
  assert predict._predictor(pathlib.Path('weights.npz')) is first
  path.write_bytes(b'22')
  assert predict._predictor(path) is not first


def test_files_are_predicted_like_arrays(predictor, monkeypatch, tmp_path):
  monkeypatch.setattr(predict, '_predictor', lambda path: predictor)
  image = two_dots(64, 64, (10, 20), (40, 50), 1)
  for name, values in (('dark.png', 1 - image), ('light.png', image)):
    Image.fromarray((255 * values).astype(np.uint8)).save(tmp_path / name)
  expected = predictor.predict([image])[0]
  for name in ('dark.png', 'light.png'):
    document = img2graph.predict_file(tmp_path / name)
    assert document == dataclasses.replace(expected, file=name)
  paths = [tmp_path / 'dark.png', tmp_path / 'nothing.png', tmp_path / 'light.png']
  bad = []
  found = img2graph.predict_files(paths, on_error=lambda p, e: bad.append((p, e)))
  assert [path for path, _ in found] == [paths[0], paths[2]]
  assert [path for path, _ in bad] == [paths[1]]
  with pytest.raises(ValueError, match='nothing.png'):
    list(img2graph.predict_files(paths))


def test_a_document_reads_back_equal(predictor, tmp_path):
  rng = np.random.default_rng(1)
  (document,) = predictor.predict([rng.random((123, 77)).astype(np.float32)])
  for name in formats.FORMATS:
    formats.write(document, tmp_path / f'graph.{name}')
    assert formats.read(tmp_path / f'graph.{name}') == document


def test_load_ahead_keeps_order_and_reports():
  def load(number):
    if number % 3 == 0:
      raise ValueError(f'{number} is bad')
    return -number

  bad = []
  pairs = predict.load_ahead(range(20), load, on_error=lambda p, e: bad.append(p))
  assert list(pairs) == [(n, -n) for n in range(20) if n % 3]
  assert bad == list(range(0, 20, 3))
  with pytest.raises(ValueError, match='0 is bad'):
    list(predict.load_ahead(range(20), load))


def test_random_weights_of_the_real_method_predict(tmp_path):
  config = simple_shapes.get_config('smoke').to_dict()
  method = methods.build(
    train_steps=config['train_steps'], precision='float32', **config['method']
  )
  side = method.sides[0]
  batch = {'image': np.zeros((1, side, side, 1), np.float32)}
  # Any numbers will do, and compiling the true initialisation takes seconds.
  shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape, scale=0.1), shapes)
  variables = jax.tree.map(np.float32, variables)
  weights.save(tmp_path / 'random.npz', variables, config=config)

  predictor = predict.Predictor(tmp_path / 'random.npz')
  images = [rng.random((40, 60)).astype(np.float32), np.zeros((9, 9), np.float32)]
  plain = predictor.predict(images, threshold=0.01)
  refined = predictor.predict(images, threshold=0.01, refine=2)
  assert plain[0].model.startswith('image_graph_image, random.npz, ')
  for document in (*plain, *refined):
    assert np.isfinite(document.nodes_px).all()
  for document in (plain[1], refined[1]):
    assert len(document.nodes_px) == 0


EXAMPLES = pathlib.Path(__file__).parents[1] / 'examples'


@pytest.mark.parametrize('name, nodes, edges', [('house', 5, 6), ('rectangle', 4, 4)])
def test_the_shipped_weights_find_the_graph_of_an_example(name, nodes, edges):
  document = predict.predict_file(EXAMPLES / f'{name}.png')
  assert (len(document.nodes_px), len(document.edges)) == (nodes, edges)
  # The ink is near the middle of every edge.
  ink = predict.image_lib.read(EXAMPLES / f'{name}.png')
  middles = document.nodes_px[document.edges].mean(axis=1)
  for x, y in middles:
    row, column = int(y), int(x)
    assert ink[row - 12 : row + 12, column - 12 : column + 12].max() > 0.5


def test_a_curve_has_fewer_nodes_the_larger_the_tolerance():
  angle = np.linspace(-0.2, np.pi + 0.2, 200)
  x, y = 100 + 70 * np.cos(angle), 120 - 70 * np.sin(angle)
  grid = np.stack(np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5), axis=-1)
  curve = np.stack([x, y], axis=-1)
  apart = np.linalg.norm(grid[:, :, None] - curve[None, None], axis=-1).min(axis=-1)
  image = np.clip(3 - apart, 0, 1).astype(np.float32)
  counts = []
  for tolerance in (0.005, 0.03, 0.15):
    (document,) = predict._predictor(None).predict([image], tolerance=tolerance)
    counts.append(len(document.nodes_px))
    start, end = document.nodes_px[document.edges].swapaxes(0, 1)
    edge = end - start
    offset = curve[None] - start[:, None]
    along = (offset * edge[:, None]).sum(-1) / (edge**2).sum(-1)[:, None]
    nearest = start[:, None] + np.clip(along, 0, 1)[..., None] * edge[:, None]
    away = np.linalg.norm(curve[None] - nearest, axis=-1).min(axis=0)
    # What is found explains the ink within 1.5 % of the side before it is simplified.
    assert away.max() <= (tolerance + 0.025) * 200
  assert counts[0] > counts[1] > counts[2] >= 2


def test_a_closed_curve_stays_within_the_tolerance():
  angle = np.linspace(0, 2 * np.pi, 200)
  ring = 100 + 70 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  ink = tiles_test.draw(np.concatenate([ring[:-1], ring[1:]], axis=1), 3, (200, 200))
  counts = []
  for tolerance in (0.01, 0.03, 0.1):
    (document,) = predict._predictor(None).predict([ink], tolerance=tolerance)
    counts.append(len(document.nodes_px))
    assert len(document.edges) == counts[-1]
    ends = document.nodes_px[document.edges]
    for share in np.linspace(0, 1, 9):
      points = (1 - share) * ends[:, 0] + share * ends[:, 1]
      away = np.abs(np.linalg.norm(points - 100, axis=1) - 70)
      # Corners of an outline lie where its sides meet, outside of the curve.
      assert away.max() <= (tolerance + 0.03) * 200
  assert counts[0] > counts[1] > counts[2] >= 3


def test_what_is_known_of_a_drawing_changes_what_it_means():
  # The last side ends long before its corner, which is not a right angle either.
  strokes = [
    (30, 40, 170, 30),
    (170, 30, 165, 150),
    (165, 150, 35, 160),
    (35, 160, 33, 125),
  ]
  ink = tiles_test.draw(strokes, 4, (200, 200))

  def shape(**options):
    (document,) = predict._predictor(None).predict([ink], **options)
    nodes, edges = document.nodes_px, document.edges
    sides = nodes[edges[:, 1]] - nodes[edges[:, 0]]
    sides = sides / np.linalg.norm(sides, axis=1)[:, None]
    # Sines of angles between sides: 0 or 1 in a rectangle.
    sines = np.abs(
      sides[:, None, 0] * sides[None, :, 1] - sides[:, None, 1] * sides[None, :, 0]
    )
    return (len(nodes), len(edges)), np.minimum(sines, 1 - sines).max()

  assert shape()[0] == (5, 4)
  closed, off = shape(prior=['polygon'])
  assert closed == (4, 4)
  assert off > 0.02
  closed, off = shape(prior=['polygon', 'right_angles'])
  assert closed == (4, 4)
  assert off < 0.01


def assert_same_graph(found, expected, atol):
  away = np.linalg.norm(found.nodes_px[:, None] - expected.nodes_px, axis=-1)
  name = away.argmin(axis=1)
  assert sorted(name.tolist()) == list(range(len(expected.nodes_px)))
  assert away.min(axis=1).max() <= atol
  renamed = np.sort(name[found.edges], axis=1).tolist()
  assert sorted(renamed) == np.sort(expected.edges, axis=1).tolist()


def test_the_graph_in_tiles_is_that_in_one_piece():
  triangle = [(20, 30, 110, 60), (110, 60, 40, 150), (40, 150, 20, 30)]
  house = [(150, 230, 235, 230), (235, 230, 235, 130), (235, 130, 150, 130)]
  house += [(150, 130, 150, 230), (150, 130, 190, 70), (190, 70, 235, 130)]
  fork = [(30, 240, 75, 190), (75, 190, 115, 235), (75, 190, 90, 165)]
  ink = tiles_test.draw(triangle + house + fork, 4, (256, 256))
  predictor = predict._predictor(None)
  (whole,) = predictor.predict([ink], tile=None)
  (parts,) = predictor.predict([ink], tile=128)
  assert (len(whole.nodes_px), len(whole.edges)) == (12, 12)
  assert_same_graph(parts, whole, 0.03 * 256)


def test_noise_of_an_empty_tile_is_no_drawing():
  ink = tiles_test.draw(
    [(20, 30, 110, 60), (110, 60, 40, 110), (40, 110, 20, 30)], 4, (128, 400)
  )
  noise = 0.1 * np.random.default_rng(0).normal(size=ink.shape)
  ink = np.clip(ink + noise, 0, 1).astype(np.float32)
  (document,) = predict._predictor(None).predict([ink], tile=128)
  assert (len(document.nodes_px), len(document.edges)) == (3, 3)


def test_lines_that_are_too_fine_for_one_piece_are_seen_in_tiles():
  """A mesh of 20 x 20 streets, 1.5 pixels wide, which in one piece is a grey blot."""
  places = np.linspace(15, 585, 20)
  lines = [(15, y, 585, y) for y in places] + [(x, 15, x, 585) for x in places]
  ink = tiles_test.draw(lines, 1.5, (600, 600))
  expected = formats.Document(
    nodes_px=np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2),
    edges=[(i, i + 1) for i in range(400) if i % 20 < 19]
    + [(i, i + 20) for i in range(380)],
  )
  (document,) = predict._predictor(None).predict([ink])
  found, true = ((d.nodes_px / 300 - 1, d.edges) for d in (document, expected))
  scores = metrics.score_graphs([true], [found], thresholds=[0.01])
  assert scores['at']['0.01']['edge_strict']['micro']['f1'] > 0.95


def test_one_piece_that_leaves_much_ink_is_looked_at_in_tiles():
  """Few lines: a polygon that one piece shows, and a row of boxes too small for it."""
  polygon = np.array([[60, 80], [450, 120], [300, 440]])
  large = np.concatenate([polygon, np.roll(polygon, -1, axis=0)], axis=1)
  box = 9 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
  box = np.concatenate([box, np.roll(box, -1, axis=0)], axis=1)
  small = [(30, 256, 480, 256)]
  small += [
    line + [x, y] * 2 for x in (60, 256, 450) for y in (247, 265) for line in box
  ]
  predictor = predict._predictor(None)
  inks = [tiles_test.draw(lines, 2, (512, 512)) for lines in (large, small)]
  found = predictor.predict(inks)
  assert found[0] == predictor.predict(inks, tile=None)[0]
  assert found[1] == predictor.predict(inks[1:], tile=128)[0]
  assert len(found[1].nodes_px) > len(predictor.predict(inks, tile=None)[1].nodes_px)


def test_a_graph_explains_the_ink_however_coarse_its_chords():
  x = np.array([50, 300, 550])
  zigzag = np.stack([x, 300 + 30 * (-1) ** np.arange(len(x))], axis=1)
  ink = tiles_test.draw(
    np.concatenate([zigzag[:-1], zigzag[1:]], axis=1), 2, (600, 600)
  )
  predictor = predict._predictor(None)
  for tolerance, count in ((0.03, len(x)), (0.2, 2)):
    (found,) = predictor.predict([ink], tolerance=tolerance)
    assert len(found.nodes_px) == count
    assert [found] == predictor.predict([ink], tile=None, tolerance=tolerance)


@pytest.mark.parametrize('held', [2**25, 100_000])
def test_whoever_is_looked_at_once_more_keeps_its_tag(predictor, monkeypatch, held):
  # This method joins the first dot of ink to the last, which one stroke is.
  steps = []
  strokes = [(20, 20, 480, 60), (60, 480, 480, 300)]
  inks = [
    tiles_test.draw(strokes[:count], 2, (500, size))
    for count in (1, 2)
    for size in (500, 510, 490)
  ]
  monkeypatch.setattr(predict, '_HELD', held)
  predictor.method = dataclasses.replace(stub.METHOD, ink=lambda _, images: images)
  tiled = []

  def in_tiles(ink, side, **options):
    tiled.append(ink.shape[1])
    return 'in tiles', side

  def graphs_of(group, *, refine, **options):
    steps.extend(refine for _ in group)
    return found_graphs(group, refine=refine, **options)

  found_graphs = predictor._graphs
  monkeypatch.setattr(predictor, '_graphs', graphs_of)
  monkeypatch.setattr(predictor, '_tiled', in_tiles)
  monkeypatch.setattr(
    predict.decoding, 'decode_better', lambda graph, *rest, **options: graph
  )
  tagged = [('same', ink) for ink in inks]
  found = list(predictor.stream(tagged, batch_size=4, refine=3))
  # Each is refined once, and judged as it was before.
  assert sorted(steps) == 6 * [0] + 6 * [3]
  assert sorted(tiled) == [490, 500, 510]
  assert [tag for tag, _ in found] == 6 * ['same']
  whole = [d for _, d in found if isinstance(d, formats.Document)]
  assert sorted(d.width for d in whole) == [490, 500, 510]


def test_the_tolerance_is_a_share_of_the_tile():
  angle = np.linspace(0, 2 * np.pi, 100)
  ring = 128 + 105 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  ink = tiles_test.draw(np.concatenate([ring[:-1], ring[1:]], axis=1), 3, (256, 256))
  counts = []
  for tolerance in (0.01, 0.03, 0.1):
    (document,) = predict._predictor(None).predict([ink], tile=128, tolerance=tolerance)
    counts.append(len(document.nodes_px))
    middles = document.nodes_px[document.edges].mean(axis=1)
    away = np.abs(np.linalg.norm(middles - 128, axis=1) - 105)
    # What is found explains the ink within 1.5 % of a tile before it is simplified.
    assert away.max() <= (tolerance + 0.025) * 128
  assert counts[0] > counts[1] > counts[2] >= 6


def brightest(variables, images):
  """One node where red is brightest, and one in the middle."""
  del variables
  side = images.shape[1]
  place = jnp.argmax(images[..., 0].reshape(len(images), -1), axis=1)
  nodes = jnp.stack([place % side, place // side], axis=-1)[:, None]
  nodes = jnp.concatenate([2 * (nodes + 0.5) / side - 1, 0.0 * nodes], axis=1)
  return graphs.Graph(nodes, jnp.ones((len(images), 2)), jnp.ones((len(images), 2, 2)))


PHOTOGRAPHER = dataclasses.replace(
  stub.METHOD, predict=brightest, refine=None, channels=3
)


def test_photographs_are_read_as_in_training(predictor, tmp_path):
  predictor.method = PHOTOGRAPHER
  # 16 bits; and light on nothing, which a drawing would be shown on black.
  grey, light = np.full((2, 2), 51 * 257, np.uint16), np.full((2, 2, 2), 250, np.uint8)
  grey[:, 1] = 255 * 257
  light[:, 1, 1] = 0
  for name, pixels in (('grey', grey), ('light', light)):
    path = tmp_path / f'{name}.png'
    Image.fromarray(pixels).save(path)
    learned = base.read_square(path, 2)
    np.testing.assert_allclose(predictor.read(path), learned / 255, atol=1e-6)
    darker = {'grey': 51, 'light': 250}[name]
    np.testing.assert_array_equal(np.unique(learned), [darker, 255])


def test_photographs_go_in_colour_and_in_their_own_proportions(
  predictor, tmp_path, monkeypatch
):
  predictor.method = PHOTOGRAPHER
  image = np.zeros((32, 128, 3), np.float32)
  image[..., 2] = 1
  image[24:26, 100:104] = (1, 0, 0)
  grey = np.zeros((20, 30), np.float32)
  grey[5, 7] = 1
  first, second = predictor.predict([image, grey], tile='auto')
  # A pixel of the square of 64 covers 2 x 0.5 of the first.
  np.testing.assert_allclose(first.nodes_px, [[102, 25], [64, 16]], atol=2.1)
  np.testing.assert_allclose(second.nodes_px, [[7.5, 5.5], [15, 10]], atol=1.1)
  path = tmp_path / 'photo.png'
  Image.fromarray(np.uint8(255 * image)).save(path)
  monkeypatch.setattr(predict, '_predictor', lambda path: predictor)
  assert predict.predict_file(path).nodes_px.tolist() == first.nodes_px.tolist()
  with pytest.raises(ValueError, match='in one piece; take no tiles'):
    predictor.predict([image], tile=32)
  with pytest.raises(ValueError, match=r'must be \[H, W, 3\]; got \[4, 4, 2\]'):
    predictor.predict([np.zeros((4, 4, 2), np.float32)])
