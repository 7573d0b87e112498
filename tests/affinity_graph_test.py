"""Tests of img2graph/affinity_graph.py, and of the command `img2graph affinity`."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from img2graph import affinity_graph
from img2graph import cli
from img2graph import formats
from img2graph import methods
from img2graph import weights

SIDE = 8
CONFIG = dict(
  method=dict(
    name='affinity_batch',
    network=dict(kind='cifar', depth=8, width=4, num_classes=3),
    affinity=None,
    side=SIDE,
  ),
  precision='float32',
  train_steps=1,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The folder of a run, of which only the weights are there, untrained."""
  folder = tmp_path_factory.mktemp('run')
  method = methods.build(train_steps=1, precision='float32', **CONFIG['method'])
  batch = {'image': jnp.zeros((1, SIDE, SIDE, 3))}
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(0), batch))
  weights.save(folder / 'weights.npz', variables, config=CONFIG)
  return folder


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Six files of two colours, of several sizes, one of them grey."""
  folder = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for i in range(6):
    noise = rng.integers(0, 30, (10 + i, 12, 3))
    image = np.uint8(noise + [[200, 20, 20], [20, 20, 200]][i % 2])
    if i == 5:
      image = image[..., 0]
    PIL.Image.fromarray(image).save(folder / f'{i}.png')
  return folder


def strong_by_hand(affinity, neighbours, threshold):
  count = len(affinity)
  found = []
  for i in range(count):
    for j in range(i + 1, count):
      near = any(
        sorted((affinity[a, k] for k in range(count) if k != a), reverse=True)[
          : neighbours or count
        ][-1]
        <= affinity[a, b]
        for a, b in ((i, j), (j, i))
      )
      if near and (threshold is None or affinity[i, j] >= threshold):
        found.append([i, j])
  return found


@pytest.mark.parametrize(
  ('neighbours', 'threshold'), [(0, None), (1, None), (3, None), (0, -2.0), (2, -2.0)]
)
def test_strong_pairs_are_those_found_by_hand(neighbours, threshold):
  features = np.random.default_rng(1).normal(size=(9, 3))
  affinity = -((features[:, None] - features) ** 2).sum(-1) / 2
  found = affinity_graph.strong_pairs(
    affinity, neighbours=neighbours, threshold=threshold
  )
  assert found.tolist() == strong_by_hand(affinity, neighbours, threshold)
  assert 0 < len(found) <= 36


def test_linked_images_lie_near_each_other():
  # Two groups of five, far apart.
  group = np.arange(10) // 5
  affinity = np.where(group[:, None] == group, -1.0, -50.0)
  document = affinity_graph.build(
    affinity, files=[f'{i}.png' for i in range(10)], threshold=-1
  )
  assert len(document.edges) == 20
  assert (document.edge_affinity == -1).all()
  places = document.nodes_px
  apart = np.linalg.norm(places[:, None] - places, axis=-1)
  same = (group[:, None] == group) & ~np.eye(10, dtype=bool)
  assert apart[same].max() < apart[group[:, None] != group].min()
  assert places.min() > 0 and places.max() < document.width


def test_images_stand_in_their_places():
  affinity = -np.ones((3, 3))
  document = affinity_graph.build(affinity, files=['a', 'b', 'c'])
  colours = np.uint8([[250, 0, 0], [0, 250, 0], [0, 0, 250]])
  images = np.tile(colours[:, None, None], (1, SIDE, SIDE, 1))
  picture = np.asarray(affinity_graph.draw(document, images))
  assert picture.shape == (document.height, document.width, 3)
  for place, colour in zip(document.nodes_px.astype(int), colours, strict=True):
    np.testing.assert_array_equal(picture[place[1], place[0]], colour)
  # Between two nodes there is a line.
  x, y = document.nodes_px[:2].mean(0).astype(int)
  assert picture[y - 2 : y + 3, x - 2 : x + 3].min() < 200


def test_the_command_writes_graph_and_picture(run, photos, tmp_path, capsys):
  arguments = ['affinity', str(photos), f'--weights={run}', f'--output={tmp_path}']
  options = ['--neighbours=2', '--format=json,graphml']
  assert cli.main([*arguments, *options]) == 0
  assert capsys.readouterr().err.startswith('6 images and ')
  document = formats.read(tmp_path / 'affinity.json')
  assert document == formats.read(tmp_path / 'affinity.graphml')
  assert document.node_files == tuple(str(photos / f'{i}.png') for i in range(6))
  # The affinities are those of the features that the classifier gives.
  classifier = affinity_graph.load(run / 'weights.npz')
  images = np.stack([classifier.read(path) for path in document.node_files])
  x = classifier.features(images).astype(float)
  ends = x[document.edges[:, 0]] - x[document.edges[:, 1]]
  np.testing.assert_allclose(
    document.edge_affinity, -(ends**2).sum(1) / 2, rtol=1e-3, atol=1e-6
  )
  picture = PIL.Image.open(tmp_path / document.file)
  assert picture.size == (document.width, document.height)


def test_the_command_tells_mistakes(run, photos, tmp_path, capsys):
  one = str(photos / '0.png')
  output = f'--output={tmp_path / "out"}'
  bad = tmp_path / 'bad.png'
  bad.write_text('no image')
  for arguments, message in (
    ([one, f'--weights={tmp_path}', output], 'there is no weights.npz in the folder'),
    ([one, f'--weights={weights.shipped()}', output], 'does not classify'),
    ([one, f'--weights={run}', output], 'two images or more; got 1'),
  ):
    assert cli.main(['affinity', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1, error
  assert not (tmp_path / 'out' / 'affinity.json').exists()
  # A bad image is left out, and told.
  assert cli.main(['affinity', str(photos), str(bad), f'--weights={run}', output]) == 2
  error = capsys.readouterr().err
  assert 'bad.png' in error and '6 images' in error
  with pytest.raises(ValueError, match='got -1'):
    affinity_graph.strong_pairs(np.zeros((2, 2)), neighbours=-1)


def test_who_asks_a_classifier_for_graphs_is_told(run, photos, capsys):
  command = ['predict', str(photos / '0.png'), f'--weights={run}', f'--output={run}']
  assert cli.main(command) == 2
  assert 'affinity_batch, which finds no graph in an image' in capsys.readouterr().err
