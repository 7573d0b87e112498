import json
import zipfile

import numpy as np
import pytest

from img2graph.data import archives
from tests import damage

COUNT = 12


def _contents(count=COUNT):
  """Images, graphs and fields of a tiny archive: image i has i % 4 nodes in a chain."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, 6, 8)).astype(np.uint8)
  graphs = []
  for i in range(count):
    n = i % 4
    edges = [[k + 1, k] for k in range(n - 1)]
    graphs.append((rng.uniform(-1, 1, (n, 2)), np.array(edges, int).reshape(-1, 2)))
  fields = {
    'writer': np.arange(count) // 3,
    'neat': np.arange(count) % 2 == 0,
    'fit': np.stack(
      [np.full(count, 0.97), np.linspace(0.5, 1, count), np.arange(count)]
    )
    .astype(np.float32)
    .T,
  }
  return images, graphs, fields


@pytest.fixture(name='path')
def _path(tmp_path):
  path = tmp_path / 'tiny.npz'
  images, graphs, fields = _contents()
  archives.write(path, images, graphs, fields=fields)
  return path


def _edit(path, **changes):
  """Rewrites arrays of an archive by plain numpy; None removes one."""
  with np.load(path) as file:
    arrays = dict(file)
  arrays.update(changes)
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def _array(path, name):
  with np.load(path) as file:
    return file[name]


def test_writing_and_loading_gives_back_images_graphs_and_fields(path):
  images, graphs, fields = _contents()
  archive = archives.load(path)
  assert len(archive) == COUNT
  np.testing.assert_array_equal(archive.images, images)
  np.testing.assert_array_equal(archive.index, np.arange(COUNT))
  assert archive.fields.keys() == fields.keys()
  for name, values in fields.items():
    np.testing.assert_array_equal(archive.fields[name], values)
  assert archive.info == {}
  for (nodes, edges), (got_nodes, got_edges) in zip(
    graphs, archive.graphs(), strict=True
  ):
    np.testing.assert_allclose(got_nodes, nodes, atol=1e-7)
    np.testing.assert_array_equal(got_edges, np.sort(edges, axis=1))
  ink = archive.ink(3)
  assert ink.dtype == np.float32
  np.testing.assert_allclose(ink, images[3] / 255, atol=1e-7)


def test_the_file_has_the_documented_layout(path):
  _, graphs, _ = _contents()
  nodes, edges = _array(path, 'nodes'), _array(path, 'edges')
  assert nodes.shape == (COUNT, 3, 2) and edges.shape == (COUNT, 2, 2)
  assert _array(path, 'images').dtype == np.uint8
  # Image 6 has two of three nodes: (x, y) in [0, 1] of the side, then padding.
  np.testing.assert_allclose(nodes[6, :2], (graphs[6][0] + 1) / 2, atol=1e-7)
  np.testing.assert_array_equal(nodes[6, 2], [-1, -1])
  np.testing.assert_array_equal(edges[6], [[0, 1], [-1, -1]])
  assert _array(path, 'num_nodes')[6] == 2 and _array(path, 'num_edges')[6] == 1


@pytest.mark.parametrize('name', ['file', 'allow_pickle', 'args', 'a field'])
def test_a_field_may_have_any_name(tmp_path, name):
  images, graphs, _ = _contents()
  archives.write(tmp_path / 'a.npz', images, graphs, fields={name: np.arange(COUNT)})
  found = archives.load(tmp_path / 'a.npz').fields
  assert list(found) == [name]
  np.testing.assert_array_equal(found[name], np.arange(COUNT))


def test_an_archive_may_lie_in_the_home_folder(path, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  images, graphs, _ = _contents()
  archives.write('~/b.npz', images, graphs)
  assert len(archives.load('~/b.npz')) == COUNT
  assert not (tmp_path / '~').exists()


def test_float_images_are_rounded_to_bytes(tmp_path):
  images = np.array([[[0.0, 0.5], [1.0, 0.25]]])
  archives.write(tmp_path / 'a.npz', images, [([], [])])
  stored = archives.load(tmp_path / 'a.npz').images
  np.testing.assert_array_equal(stored, [[[0, 128], [255, 64]]])


def test_an_archive_without_images_or_nodes_is_empty(tmp_path):
  archives.write(tmp_path / 'a.npz', np.zeros((0, 4, 4), np.uint8), [])
  assert len(archives.load(tmp_path / 'a.npz')) == 0
  archives.write(tmp_path / 'b.npz', np.zeros((2, 4, 4), np.uint8), [([], [])] * 2)
  nodes, edges = archives.load(tmp_path / 'b.npz').graph(1)
  assert nodes.shape == (0, 2) and edges.shape == (0, 2)


def test_graphs_alone_can_be_loaded(path):
  archive = archives.load(path, images=False)
  assert archive.images is None and len(archive.take([0, 1])) == 2
  assert len(archive.graph(3)[0]) == 3
  with pytest.raises(ValueError, match='without its images'):
    archive.ink(0)


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({'limit': 5}, [0, 1, 2, 3, 4]),
    ({'limit': 99}, list(range(COUNT))),
    ({'limit': 0}, []),
    ({'spread': 5}, [0, 2, 4, 7, 9]),
    ({'spread': 99}, list(range(COUNT))),
    ({'max_nodes': 1}, [0, 1, 4, 5, 8, 9]),
    ({'max_nodes': 1, 'limit': 5}, [0, 1, 4]),
    ({'max_nodes': 1, 'spread': 5}, [0, 4, 9]),
    ({'min_fit': 0.95}, [10, 11]),
    ({'min_fit': 0.98}, []),
    ({'max_p99': 3}, [0, 1, 2]),
    ({'flag': 'neat', 'limit': 5}, [0, 2, 4]),
  ],
)
def test_a_part_keeps_the_numbers_of_its_images(path, options, expected):
  images, graphs, fields = _contents()
  archive = archives.load(path, **options)
  assert archive.index.tolist() == expected
  np.testing.assert_array_equal(archive.images, images[expected])
  np.testing.assert_array_equal(archive.fields['writer'], fields['writer'][expected])
  for i, (nodes, edges) in zip(expected, archive.graphs(), strict=True):
    np.testing.assert_allclose(nodes, graphs[i][0], atol=1e-7)
    assert len(edges) == len(graphs[i][1])


def test_the_description_beside_the_file_is_read(path):
  path.with_suffix('.json').write_text(json.dumps({'users': ['ann', 'bob']}))
  assert archives.load(path).info['users'] == ['ann', 'bob']
  path.with_suffix('.json').write_text('{"users"')
  with pytest.raises(ValueError, match='tiny.json: not a readable description'):
    archives.load(path)


@pytest.mark.parametrize('seed', range(6))
def test_a_split_keeps_groups_together_and_loses_no_image(path, seed):
  archive = archives.load(path)
  rest, part = archives.split(archive, 'writer', fraction=0.25, seed=seed)
  # Four writers with three images each: one of them.
  assert len(part) == 3 and len(rest) == 9
  assert not set(rest.fields['writer']) & set(part.fields['writer'])
  assert sorted([*rest.index, *part.index]) == list(range(COUNT))
  again = archives.split(archive, archive.fields['writer'], fraction=0.25, seed=seed)[1]
  np.testing.assert_array_equal(again.index, part.index)


def test_seeds_draw_different_groups_and_both_parts_have_one(path):
  archive = archives.load(path)
  drawn = {
    tuple(archives.split(archive, 'writer', fraction=0.25, seed=seed)[1].index)
    for seed in range(20)
  }
  assert len(drawn) > 1
  for fraction in (0.001, 0.999):
    rest, part = archives.split(archive, 'writer', fraction=fraction, seed=0)
    assert len(rest) >= 3 and len(part) >= 3


@pytest.mark.parametrize(
  ('key', 'fraction', 'message'),
  [
    ('reader', 0.5, "no field 'reader' to split by; there are: writer, neat, fit"),
    (
      'fit',
      0.5,
      r"field 'fit' must hold one value for each of 12 images; got \[12, 3\]",
    ),
    (np.zeros(12), 0.5, 'the key has 1 groups; a split needs two'),
    ('writer', 1.0, 'fraction must be between 0 and 1; got 1.0'),
  ],
)
def test_an_impossible_split_is_refused(path, key, fraction, message):
  with pytest.raises(ValueError, match=message):
    archives.split(archives.load(path), key, fraction=fraction, seed=0)


def test_a_negative_seed_of_a_split_is_named(path):
  with pytest.raises(ValueError, match='seed of a split must not be negative; got -1'):
    archives.split(archives.load(path), 'writer', fraction=0.5, seed=-1)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'nodes': None}, "tiny.npz: the array 'nodes' is missing"),
    ({'images': None}, "tiny.npz: the array 'images' is missing"),
    ({'nodes': np.zeros((12, 3))}, r'nodes must be \[12, \*, 2\]; got \[12, 3\]'),
    ({'num_nodes': np.int64(3)}, r'num_nodes must be \[1\]; got \[\]'),
    ({'edges': np.zeros((11, 2, 2), int)}, r'edges must be \[12, \*, 2\]'),
    ({'edges': np.zeros((12, 2, 2))}, 'edges must be whole numbers; got float64'),
    ({'nodes': np.zeros((12, 3, 2), int)}, 'nodes must be floating-point numbers'),
    ({'num_nodes': np.full(12, 4)}, 'image 0: the number of nodes must be 0 to 3'),
    ({'num_edges': np.full(12, -1)}, 'image 0: the number of edges must be 0 to 2'),
    ({'num_nodes': np.zeros((12, 1), int)}, r'num_nodes must be \[12\]; got \[12, 1\]'),
    ({'images': np.zeros((12, 6, 8))}, 'images must be uint8; got float64'),
    ({'images': np.zeros((12, 6, 8, 3), np.uint8)}, r'images must be \[12, \*, \*\]'),
    ({'images': np.zeros((12, 0, 8), np.uint8)}, 'the images have no pixels'),
    ({'images': np.array([{}] * 12)}, 'not a readable .npz graph archive'),
  ],
)
def test_a_wrong_array_is_refused_in_one_sentence(path, changes, message):
  _edit(path, **changes)
  with pytest.raises(ValueError, match=message) as caught:
    archives.load(path)
  assert '\n' not in str(caught.value)


def test_a_wrong_value_is_refused_with_its_image_named(path):
  good = _array(path, 'nodes')
  nodes = good.copy()
  nodes[7, 1, 0] = np.nan
  _edit(path, nodes=nodes)
  with pytest.raises(ValueError, match='image 7: a node position is not finite'):
    archives.load(path)
  nodes = good.copy()
  nodes[7, 1] = [-1, 2]  # Outside, but not out of reason.
  _edit(path, nodes=nodes)
  np.testing.assert_array_equal(archives.load(path).nodes[7, 1], [-3, 3])
  for far in (2.01, -1.01, 30):
    nodes[7, 1, 1] = far
    _edit(path, nodes=nodes)
    with pytest.raises(ValueError, match='tiny.npz: image 7: a node lies far outside'):
      archives.load(path)
  # Padding may hold anything.
  nodes = good.copy()
  nodes[6, 2] = np.nan
  nodes[5, 1:] = 30
  _edit(path, nodes=nodes)
  assert np.isfinite(archives.load(path).nodes).all()
  for bad in (2, -1):
    edges = _array(path, 'edges').copy()
    edges[6, 0, 1] = bad
    _edit(path, edges=edges)
    with pytest.raises(ValueError, match='image 6: an edge index is out of range'):
      archives.load(path)


def test_what_is_no_archive_is_refused(path, tmp_path):
  with pytest.raises(ValueError, match='nowhere.npz: there is no such graph archive'):
    archives.load(tmp_path / 'nowhere.npz')
  with pytest.raises(ValueError, match='not a readable .npz'):
    archives.load(tmp_path)
  whole = path.read_bytes()
  for content in (b'', b'%PDF-1.4', whole[: len(whole) // 2]):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='tiny.npz: not a readable .npz') as caught:
      archives.load(path)
    assert '\n' not in str(caught.value)
  damaged = bytearray(whole)
  damaged[100:140] = bytes(40)
  path.write_bytes(bytes(damaged))
  with pytest.raises(ValueError, match='tiny.npz: not a readable .npz'):
    archives.load(path)
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('nodes', 'text')
  with pytest.raises(ValueError, match="tiny.npz: the array 'images' is missing"):
    archives.load(path)
  with open(path, 'wb') as file:
    np.save(file, np.zeros(3))
  with pytest.raises(ValueError, match='tiny.npz: not a graph archive but a single'):
    archives.load(path)


@pytest.mark.parametrize('spoil', damage.WAYS)
def test_damage_that_shows_late_is_told(path, spoil):
  spoil(path)
  with pytest.raises(ValueError, match='tiny.npz: not a readable .npz graph archive'):
    archives.load(path)


def test_a_description_nested_too_deeply_is_told(path):
  path.with_suffix('.json').write_text('[' * 100_000)
  with pytest.raises(ValueError, match='tiny.json: not a readable description'):
    archives.load(path)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'limit': -1}, 'limit must not be negative; got -1'),
    ({'limit': 3, 'spread': 3}, 'give limit or spread, not both'),
    ({'flag': 'tidy'}, "there is no field 'tidy' with one value per image"),
    ({'flag': 'fit'}, "there is no field 'fit' with one value per image"),
  ],
)
def test_a_wrong_choice_of_images_is_refused(path, options, message):
  with pytest.raises(ValueError, match=message):
    archives.load(path, **options)


@pytest.mark.parametrize(
  'values', [['False', 'True'] * 6, [0, 5] * 6, [np.nan, 1.0] * 6, [0.0, 1.0] * 6]
)
def test_a_flag_is_true_or_false(path, values):
  _edit(path, neat=np.array(values))
  with pytest.raises(ValueError, match='a flag must be bool, or 0 and 1; the field'):
    archives.load(path, flag='neat')
  _edit(path, neat=np.array([0, 1, 1] * 4, np.uint8))
  assert archives.load(path, flag='neat', limit=6).index.tolist() == [1, 2, 4, 5]


def test_fit_options_need_the_field(path):
  _edit(path, fit=None)
  for options in ({'min_fit': 0.5}, {'max_p99': 3}):
    with pytest.raises(ValueError, match="min_fit and max_p99 need a field 'fit'"):
      archives.load(path, **options)


@pytest.mark.parametrize(
  ('images', 'graphs', 'fields', 'message'),
  [
    (np.zeros((2, 4), np.uint8), [([], [])] * 2, {}, r'images must be \[n, H, W\]'),
    (np.full((1, 4, 4), 1.5), [([], [])], {}, r'float images must be in \[0, 1\]'),
    (np.full((1, 4, 4), np.nan), [([], [])], {}, r'float images must be in \[0, 1\]'),
    (np.zeros((2, 4, 4), np.uint8), [([], [])], {}, '2 images but 1 graphs'),
    (
      np.zeros((1, 4, 4), np.uint8),
      [([[0.0, 0.0]], [[0, 1]])],
      {},
      'image 0: an edge index is out of range',
    ),
    *(
      (np.zeros((2, 4, 4), np.uint8), [([], []), (nodes, edges)], {}, message)
      for nodes, edges, message in (
        ([[2.0, 3.5]], [], r'image 1: x and y of a node must be in \[-1, 1\]'),
        ([[0, 0], [0, 1]], [[0, 1], [1, 1]], 'image 1: an edge joins a node to itself'),
        ([[0, 0], [0, 1]], [[0, 1], [1, 0]], 'image 1: an edge is there twice'),
        ([[0, 0], [0, 1]], [[0, 0.5]], 'image 1: an edge index is not a whole number'),
        ([[0, 0], [0, 1]], [[0, np.nan]], 'an edge index is not a whole number'),
        ([[0, 0], [0, 1]], [['a', 'b']], 'an edge index is not a whole number'),
        ([[0, 0], [0, 1]], [[0, 2**32 + 1]], 'image 1: an edge index is out of range'),
        ([[0, 0], [0, 1]], [[0, 1e30]], 'image 1: an edge index is out of range'),
        ([[0, 0, 0]], [], r'image 1: nodes must be \[m, 2\]; got \[1, 3\]'),
        ([0, 0, 1, 1], [], r'image 1: nodes must be \[m, 2\]; got \[4\]'),
        (
          np.zeros((4, 2)),
          [[0, 1, 2, 3], [1, 2, 3, 0]],
          r'image 1: edges must be \[e, 2\]; got \[2, 4\]',
        ),
      )
    ),
    (
      np.zeros((1, 4, 4), np.uint8),
      [([], [])],
      {'user': [1, 2]},
      "field 'user' must be an array of 1 values",
    ),
  ],
)
def test_nothing_wrong_is_written(tmp_path, images, graphs, fields, message):
  with pytest.raises(ValueError, match=message):
    archives.write(tmp_path / 'a.npz', images, graphs, fields=fields)
  assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
  old = path.read_bytes()

  def full_disk(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full_disk)
  with pytest.raises(ValueError, match='cannot be written .No space left on device'):
    archives.write(path, np.zeros((1, 4, 4), np.uint8), [([], [])])
  assert path.read_bytes() == old
  assert [p.name for p in path.parent.iterdir()] == ['tiny.npz']
