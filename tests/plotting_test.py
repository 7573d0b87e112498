"""Panels and overlays: what is drawn lies where it should, as dark as it should."""

import errno
import os
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from img2graph import formats
from img2graph import graph as graph_lib
from img2graph import plotting

SIDE = 32


def batch_of(*graphs):
  return jax.tree.map(lambda *x: np.stack(x), *graphs)


def one_node(x, y, prob=1.0):
  """A batch of one graph with one node."""
  return batch_of(graph_lib.from_lists([[x, y]], [], 4, node_prob=[prob]))


def blank(batch=1, channels=1):
  return np.zeros((batch, SIDE, SIDE, channels), np.float32)


def changed(first, second):
  """Where two pictures differ: (left, top, right, bottom)."""
  difference = np.abs(np.asarray(first, int) - np.asarray(second, int)).sum(axis=-1)
  rows, columns = np.nonzero(difference)
  return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def centre(box):
  return np.array([box[0] + box[2], box[1] + box[3]]) / 2


def dark(picture):
  return float((255 - np.asarray(picture, float)).sum())


def test_a_panel_has_a_column_for_each_picture_and_a_row_for_each_image():
  graphs = batch_of(*[graph_lib.empty((), 4)] * 5)
  sizes = {}
  for columns, options in (
    (4, {}),
    (5, dict(refined=blank(5))),
    (6, dict(refined=blank(5), true_graphs=graphs)),
  ):
    picture = plotting.panel(blank(5), blank(5), graphs, scale=3, **options)
    assert picture.mode == 'RGB'
    sizes[columns] = picture.size
  assert sizes[4][0] >= 4 * 3 * SIDE and sizes[4][1] >= 5 * 3 * SIDE
  assert sizes[4][0] < sizes[5][0] < sizes[6][0]
  assert sizes[4][1] == sizes[5][1] == sizes[6][1]
  heights = [
    plotting.panel(blank(5), blank(5), graphs, scale=3, rows=rows).height
    for rows in (1, 2, 3, 8)
  ]
  assert heights[1] - heights[0] == heights[2] - heights[1] > 3 * SIDE
  assert heights[3] == sizes[4][1]


def test_the_first_cell_of_a_panel_is_the_image_with_dark_ink():
  rng = np.random.default_rng(0)
  images = rng.uniform(size=(1, SIDE, SIDE, 1)).astype(np.float32)
  empty = batch_of(graph_lib.empty((), 4))
  picture = plotting.panel(images, blank(), empty, scale=2)
  other = plotting.panel(1 - images, blank(), empty, scale=2)
  left, top, *_ = changed(picture, other)
  cell = np.asarray(picture)[top : top + 2 * SIDE, left : left + 2 * SIDE]
  expected = np.round(255 * (1 - images[0])).repeat(2, axis=0).repeat(2, axis=1)
  np.testing.assert_array_equal(cell, np.broadcast_to(expected, cell.shape))


def test_images_of_three_channels_are_shown_as_they_are():
  images = blank(channels=3)
  images[..., 0] = 1
  empty = batch_of(graph_lib.empty((), 4))
  picture = plotting.panel(images, blank(channels=3), empty, scale=2)
  other = plotting.panel(blank(channels=3), blank(channels=3), empty, scale=2)
  left, top, *_ = changed(picture, other)
  assert picture.getpixel((int(left), int(top))) == (255, 0, 0)


def test_a_panel_shows_what_was_masked_and_its_reconstruction():
  empty = batch_of(graph_lib.empty((), 4))
  options = dict(masked=blank(channels=3), reconstruction=blank(channels=3), scale=2)
  picture = plotting.panel(blank(channels=3), blank(), empty, **options)
  alone = plotting.panel(blank(channels=3), blank(), empty, scale=2)
  assert picture.width >= alone.width + 2 * 2 * SIDE
  for name in ('masked', 'reconstruction'):
    other = plotting.panel(
      blank(channels=3), blank(), empty, **options | {name: 1 + blank(channels=3)}
    )
    left, top, right, bottom = changed(picture, other)
    assert (right - left, bottom - top) == (2 * SIDE, 2 * SIDE)


def test_nodes_of_a_panel_lie_at_their_coordinates():
  without = plotting.panel(blank(), blank(), one_node(0, 0, prob=0.0), scale=5)

  def place(x, y):
    picture = plotting.panel(blank(), blank(), one_node(x, y), scale=5)
    return centre(changed(picture, without))

  middle = place(0, 0)
  for x, y in ((0.5, 0), (0, 0.5), (-0.7, 0.3)):
    expected = middle + np.array([x, y]) / 2 * 5 * SIDE
    np.testing.assert_allclose(place(x, y), expected, atol=1)


def test_opacity_is_probability():
  without = plotting.panel(blank(), blank(), one_node(0, 0, prob=0.0))
  amounts = [
    dark(plotting.panel(blank(), blank(), one_node(0, 0, prob=prob))) - dark(without)
    for prob in (0.0, 0.25, 0.5, 1.0)
  ]
  assert amounts[0] == 0
  np.testing.assert_allclose(
    np.array(amounts[1:]) / amounts[3], [0.25, 0.5, 1], atol=0.1
  )


def test_an_edge_is_as_dark_as_it_and_its_nodes_are_probable():
  def amount(edge_prob, node_prob):
    lists = [[-0.9, 0], [0.9, 0]], [[0, 1]]
    graphs = [
      batch_of(graph_lib.from_lists(*lists, node_prob=[1, node_prob], edge_prob=[prob]))
      for prob in (edge_prob, 0)
    ]
    return np.subtract(*[dark(plotting.panel(blank(), blank(), g)) for g in graphs])

  assert amount(0.0, 1.0) == 0 and amount(1.0, 0.0) == 0
  full = amount(1.0, 1.0)
  np.testing.assert_allclose(amount(0.5, 1.0) / full, 0.5, atol=0.05)
  np.testing.assert_allclose(amount(0.5, 0.5) / full, 0.25, atol=0.1)


def test_the_adjacency_matrix_is_dark_where_edges_are():
  graph = graph_lib.from_lists([[-0.5, 0], [0.5, 0], [0, 0.5]], [[0, 2]])
  empty = plotting.panel(blank(), blank(), batch_of(graph_lib.empty((), 3)), scale=6)
  picture = plotting.panel(blank(), blank(), batch_of(graph), scale=6)
  # The last column holds the matrix: two fields off the diagonal are filled.
  box = (empty.width - 6 * SIDE, 0, empty.width, empty.height)
  left, top, right, bottom = changed(picture.crop(box), empty.crop(box))
  difference = dark(picture.crop(box)) - dark(empty.crop(box))
  field = (right - left) / 3
  assert difference == pytest.approx(2 * field**2 * (247 + 207 + 148), rel=0.1)
  np.testing.assert_allclose(right - left, bottom - top, atol=1)


@pytest.mark.parametrize('capacity', [0, 1, 16, 40])
def test_any_capacity_is_drawn_and_nothing_is_changed(capacity):
  graph = batch_of(graph_lib.empty((), capacity))
  graph.node_prob[:] = 0.6
  before = jax.tree.map(np.copy, graph)
  picture = plotting.panel(blank(), blank(), graph)
  assert min(picture.size) > 160
  for a, b in zip(jax.tree.leaves(graph), jax.tree.leaves(before), strict=True):
    np.testing.assert_array_equal(a, b)


def test_jax_arrays_give_the_same_panel():
  graph = batch_of(graph_lib.from_lists([[-0.5, 0], [0.5, 0.3]], [[0, 1]], 4))
  expected = plotting.panel(blank(), blank(), graph, refined=blank())
  actual = plotting.panel(
    jnp.asarray(blank()),
    jnp.asarray(blank()),
    jax.tree.map(jnp.asarray, graph),
    refined=jnp.asarray(blank()),
  )
  assert actual.tobytes() == expected.tobytes()


def test_drawings_may_have_another_size_than_the_images():
  graph = batch_of(graph_lib.empty((), 2))
  small = np.ones((1, 8, 8, 1), np.float32)
  large = np.ones((1, 100, 100, 1), np.float32)
  pictures = [plotting.panel(blank(), d, graph, scale=2) for d in (small, large)]
  assert pictures[0].tobytes() == pictures[1].tobytes()


def test_numbers_that_are_none_do_not_stop_a_panel():
  graph = graph_lib.from_lists([[0, 0], [np.nan, 0], [0.5, 1e30]], [[0, 1], [0, 2]])
  graph.edge_prob[0, 1] = np.nan
  images = np.full((1, SIDE, SIDE, 1), np.nan, np.float32)
  assert plotting.panel(images, images, batch_of(graph)).mode == 'RGB'


@pytest.mark.parametrize(
  'arguments, options, message',
  [
    ((blank()[0], blank()), {}, r'input images must be \[B, H, W, 1 or 3\]; got'),
    ((blank(), blank(channels=2)), {}, 'drawing images must be'),
    ((blank(), blank(2)), {}, r'1 images need as many of drawing; got \(2,\)'),
    ((blank(0), blank(0)), {}, 'a panel needs an image; got 0 images'),
    ((blank(), blank()), dict(rows=0), 'got 1 images and 0 rows'),
    ((blank(), blank()), dict(scale=-1), 'scale must be above 0; got -1'),
    ((blank(), blank()), dict(true_graphs=graph_lib.empty(2, 3)), 'of true graph'),
    ((blank(), blank()), dict(refined=blank(3)), 'of refined'),
  ],
)
def test_what_does_not_fit_a_panel_is_named(arguments, options, message):
  with pytest.raises(ValueError, match=message):
    plotting.panel(*arguments, one_node(0, 0), **options)


def test_graphs_of_a_panel_need_a_batch_axis():
  with pytest.raises(ValueError, match='1 images need as many of graph'):
    plotting.panel(blank(), blank(), graph_lib.empty((), 3))


def is_like(pixel, colour, tolerance=40):
  return np.abs(np.subtract(pixel, colour)).max() <= tolerance


@pytest.mark.parametrize('shape', [(40, 80), (40, 80, 1), (40, 80, 3)])
def test_an_overlay_lies_on_the_image(shape):
  image = np.full(shape, 255, np.uint8)
  image[10, 20] = 0
  document = formats.Document(
    [[8.5, 30.5], [70.5, 30.5]], [[0, 1]], width=80, height=40
  )
  picture = plotting.overlay(image, document)
  factor = picture.width // 80
  assert picture.mode == 'RGB' and picture.size == (80 * factor, 40 * factor)
  assert picture.width >= 512

  def at(x, y):
    return picture.getpixel((int(x * factor), int(y * factor)))

  assert is_like(at(8.5, 30.5), (214, 39, 40))
  assert is_like(at(70.5, 30.5), (214, 39, 40))
  assert is_like(at(40, 30.5), (31, 119, 180))
  assert at(40, 20) == (255, 255, 255)
  # Ink is dimmed but still there, in the whole pixel.
  for x, y in ((20.05, 10.05), (20.95, 10.95)):
    assert 60 < at(x, y)[0] < 200
  assert at(21.05, 10.5) == (255, 255, 255)


def test_dark_images_stay_dark_below_an_overlay():
  document = formats.Document([[10, 10]], [], width=64, height=64)
  picture = plotting.overlay(np.zeros((64, 64), np.uint8), document)
  assert picture.getpixel((300, 300)) == (0, 0, 0)
  assert is_like(picture.getpixel((80, 80)), (255, 110, 90))


def test_an_overlay_fits_a_smaller_copy_of_the_image():
  document = formats.Document([[1000, 500]], [], width=2000, height=2000)
  small = plotting.overlay(np.full((600, 600), 255, np.uint8), document)
  assert small.size == (600, 600)
  assert is_like(small.getpixel((300, 150)), (214, 39, 40))


@pytest.mark.parametrize(
  'shape, expected',
  [
    ((1, 1), (512, 512)),
    ((700, 900), (900, 700)),
    ((4, 8192), (4096, 2)),
    ((1, 8192), (4096, 1)),
  ],
)
def test_overlays_have_sides_one_can_look_at(shape, expected):
  document = formats.Document([[0.5, 0.5]], [])
  picture = plotting.overlay(np.full(shape, 255, np.uint8), document)
  assert picture.size == expected


def test_an_overlay_of_many_nodes_takes_little_memory():
  count = 4000
  places = np.random.default_rng(0).uniform(0, 512, (count, 2))
  edges = [[i, i + 1] for i in range(0, count, 2)]
  document = formats.Document(places, edges)
  tracemalloc.start()
  try:
    plotting.overlay(np.full((512, 512), 255, np.uint8), document)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < count**2  # Bytes; a matrix of them has eight times as many.


def test_an_overlay_without_nodes_is_the_dimmed_image():
  image = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
  picture = plotting.overlay(PIL.Image.fromarray(image), formats.Document([], []))
  dimmed = np.asarray(picture, float)
  slope, offset = np.polyfit(image.ravel().astype(float), dimmed.ravel(), 1)
  assert 0.3 < slope < 0.6
  np.testing.assert_allclose(dimmed, slope * image + offset, atol=1)


def test_lines_are_smooth():
  document = formats.Document([[5, 5], [500, 430]], [[0, 1]])
  picture = np.asarray(plotting.overlay(np.full((512, 512), 255, np.uint8), document))
  assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize(
  'image',
  [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_other_arrays_than_grey_and_rgb_are_refused(image):
  with pytest.raises(ValueError, match=r'must be uint8 \[H, W\] or \[H, W, 3\]; got'):
    plotting.overlay(image, formats.Document([], []))


def test_png_files_hold_the_picture(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  for picture in (pixels, PIL.Image.fromarray(pixels)):
    plotting.save_png(tmp_path / 'a.png', picture)
    with PIL.Image.open(tmp_path / 'a.png') as found:
      assert found.format == 'PNG'
      np.testing.assert_array_equal(np.asarray(found), pixels)
  assert os.listdir(tmp_path) == ['a.png']


def test_a_png_stays_as_it_was_when_the_disk_is_full(tmp_path, monkeypatch):
  plotting.save_png(tmp_path / 'a.png', np.zeros((2, 2), np.uint8))
  before = (tmp_path / 'a.png').read_bytes()

  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    plotting.save_png(tmp_path / 'a.png', np.ones((9, 9), np.uint8))
  assert (tmp_path / 'a.png').read_bytes() == before
  assert os.listdir(tmp_path) == ['a.png']


def test_a_panel_may_show_some_columns_only():
  graphs = one_node(0, 0)
  whole = plotting.panel(blank(), blank(), graphs, scale=3)
  part = plotting.panel(
    blank(), blank(), graphs, scale=3, columns=['graph', 'adjacency']
  )
  assert part.height == whole.height and part.width < 0.6 * whole.width
  with pytest.raises(ValueError, match="got 'refined'"):
    plotting.panel(blank(), blank(), graphs, columns=['refined'])


def test_pictures_stand_beside_each_other_under_their_titles():
  red, blue = (
    PIL.Image.new('RGB', (200, h), c) for h, c in ((30, 'red'), (60, 'blue'))
  )
  picture = np.asarray(plotting.beside({'one': red, 'two': blue}))
  assert (picture[-60:, 200:] == (0, 0, 255)).all()
  assert (picture[-60:-30, :200] == (255, 0, 0)).all()
  assert picture.shape[1] == 400
  assert (picture[:-60, :200] != 255).any() and (picture[:-60, 200:] != 255).any()


def test_a_strip_has_a_column_also_of_a_thin_picture():
  thin, square = (PIL.Image.new('RGB', size, 'red') for size in ((1, 600), (60, 60)))
  found = np.asarray(plotting.strip([thin, square], height=60))
  assert ((found == (255, 0, 0)).all(-1).sum(0) > 0).sum() == 1 + 60


def test_a_table_of_texts_is_as_wide_as_its_texts_and_as_high_as_its_rows():
  small = plotting.text_table([['a', 'b'], ['1', '2']])
  wide = plotting.text_table([['a', 'a very long heading'], ['1', '2']])
  high = plotting.text_table([['a', 'b'], ['1', '2'], ['3', '4']], title='All')
  assert wide.width > small.width + 100 and wide.height == small.height
  assert high.height >= small.height + 2 * (small.height // 3)
  assert dark(high) > dark(small)
  for rows in ([], [['a'], ['1', '2']]):
    with pytest.raises(ValueError, match='rows of one length'):
      plotting.text_table(rows)
