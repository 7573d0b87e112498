"""Tests of img2graph/links.py and of `img2graph links`."""

import dataclasses
import itertools
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from img2graph import cli
from img2graph import formats
from img2graph import graph as graphs
from img2graph import links
from img2graph import weights
from tests import stub


def document(nodes, edges, probs, ids=None, size=(100, 50)):
  return formats.Document(
    nodes_px=nodes,
    edges=edges,
    edge_prob=probs,
    node_ids=ids,
    width=size[0],
    height=size[1],
  )


def test_the_shared_graph_is_the_mean_by_hand():
  first = document([[10, 10], [50, 20], [90, 5]], [[0, 1], [1, 2]], [1.0, 0.5])
  # Twice as large, and without keypoint 1.
  second = document([[40, 40], [160, 30]], [[0, 1]], [0.8], ids=[0, 2], size=(200, 100))
  found = links.shared([first, second], threshold=0)
  np.testing.assert_allclose(found.nodes_px, [[15, 15], [50, 20], [85, 10]])
  np.testing.assert_allclose(found.node_prob, [1, 0.5, 1])
  assert found.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
  np.testing.assert_allclose(found.edge_prob, [0.5, 0.4, 0.25])
  assert (found.width, found.height) == (100, 50)
  assert links.shared([first, second], threshold=0.3).edges.tolist() == [[0, 1], [0, 2]]
  with pytest.raises(ValueError, match='at least one image'):
    links.shared([])


def test_a_keypoint_lies_where_it_is_likely_to_be():
  first, second = (
    formats.Document(
      nodes_px=nodes,
      edges=[[0, 1]],
      edge_prob=[0.8 * probs[1]],
      node_prob=probs,
      width=100,
      height=100,
    )
    for nodes, probs in (
      ([[10, 10], [50, 50]], [1, 0.75]),
      ([[10, 10], [90, 10]], [1, 0.25]),
    )
  )
  found = links.shared([first, second], threshold=0)
  np.testing.assert_allclose(found.nodes_px, [[10, 10], [60, 40]])
  np.testing.assert_allclose(found.node_prob, [1, 0.5])
  np.testing.assert_allclose(found.edge_prob, [0.4])


def two_cliques():
  """Keypoints 0, 2, 4 and 1, 3, linked strongly within and weakly between."""
  edges = list(itertools.combinations(range(5), 2))
  probs = [0.9 if (a - b) % 2 == 0 else 0.1 for a, b in edges]
  return document([[10 * k, 10] for k in range(5)], edges, probs)


def test_spectral_groups_part_what_is_linked_weakly():
  whole = two_cliques()
  assert links.spectral_groups(whole, 2).tolist() == [0, 1, 0, 1, 0]
  assert links.spectral_groups(whole, 1).tolist() == [0] * 5
  with pytest.raises(ValueError, match='1 to 5 groups of 5 nodes; got 6'):
    links.spectral_groups(whole, 6)


def test_a_part_keeps_ids_and_the_links_within():
  part = links.part(two_cliques(), [True, False, True, False, True])
  assert part.node_ids.tolist() == [0, 2, 4]
  assert part.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
  np.testing.assert_allclose(part.edge_prob, 0.9)
  strict = links.part(two_cliques(), np.ones(5, bool), threshold=0.5)
  assert len(strict.edges) == 4 and len(strict.node_ids) == 5


def test_every_keypoint_has_a_colour_of_its_own():
  wheel = links.colours(np.arange(32), 32).astype(int)
  apart = abs(wheel[:, None] - wheel[None]).sum(-1) + 999 * np.eye(32, dtype=int)
  assert apart.min() > 20


def corners(variables, images):
  """Three keypoints: middle, top left, absent; the second where red is brightest."""
  del variables
  side = images.shape[1]
  place = jnp.argmax(images[..., 0].reshape(len(images), -1), axis=1)
  red = 2 * (jnp.stack([place % side, place // side], axis=-1) + 0.5) / side - 1
  middle = jnp.zeros_like(red)
  nodes = jnp.stack([middle, middle + 0.001, red], axis=1)
  probs = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.95]), nodes.shape[:2])
  return graphs.Graph(nodes, probs, jnp.full((len(images), 3, 3), 0.4))


@pytest.fixture
def keypoints(monkeypatch):
  """A method of keypoints in place of weights."""
  method = dataclasses.replace(
    stub.METHOD, predict=corners, refine=None, channels=3, keypoints=True
  )
  monkeypatch.setattr(
    weights, 'load_method', lambda path: (method, *stub.load_method(path)[1:])
  )


@pytest.fixture
def frames(tmp_path):
  folder = tmp_path / 'frames'
  folder.mkdir()
  for k in range(3):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[20, 20 * (k + 1)] = (255, 0, 0)
    Image.fromarray(pixels).save(folder / f'{k}.png')
  return folder


def test_links_of_a_folder(keypoints, frames, tmp_path):
  output = tmp_path / 'out'
  arguments = ['links', str(frames), f'--output={output}', '--weights=w.npz']
  assert cli.main([*arguments, '--threshold=0.3', '--format=json,svg']) == 0
  whole = formats.read(output / 'links.json')
  # Keypoint 0 is in no image; the others keep their numbers, however near they are.
  assert whole.node_ids.tolist() == [1, 2]
  np.testing.assert_allclose(whole.nodes_px, [[40, 20], [40.5, 20.5]], atol=1)
  np.testing.assert_allclose(whole.edge_prob, [0.4], atol=1e-6)
  assert formats.read(output / 'links.svg').edges.tolist() == [[0, 1]]
  assert Image.open(output / 'strip.gif').n_frames == 3
  strip = np.asarray(Image.open(output / 'strip.png').convert('RGB')).astype(int)
  assert strip.shape[0] == 256 + 16
  # The third frame's keypoint 2 lies to the right, in its own colour.
  colour = links.colours([2], 3)[0]
  near = abs(strip - colour).sum(-1) < 30
  third = near[:, 2 * strip.shape[1] // 3 :]
  assert np.nonzero(third)[1].mean() > 0.6 * third.shape[1]
  assert cli.main([*arguments, '--groups=2']) == 0
  parts = [formats.read(output / f'links_{g}.json') for g in range(2)]
  assert sorted(int(d.node_ids[0]) for d in parts) == [1, 2]


def test_frames_that_are_not_read_are_told(keypoints, frames, tmp_path, capsys):
  film = [Image.open(frames / f'{k}.png') for k in range(3)]
  film[0].save(tmp_path / 'film.gif', save_all=True, append_images=film[1:])
  arguments = ['links', f'--output={tmp_path}/out', '--weights=w.npz']
  assert cli.main([*arguments, f'{tmp_path}/film.gif']) == 0
  line, _ = capsys.readouterr().err.splitlines()
  assert line == f'img2graph: {tmp_path}/film.gif has 3 pages; the first is read.'


def test_links_again_into_the_folder_of_the_photographs(
  keypoints, frames, tmp_path, capsys, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'sklearn', None)  # One group needs none.
  wide = np.zeros((30, 1200, 3), np.uint8)
  Image.fromarray(wide).save(frames / 'wide.png')
  arguments = ['links', f'--output={frames}', '--weights=w.npz']
  assert cli.main([*arguments, str(frames)]) == 0
  first = (frames / 'strip.png').read_bytes()
  # Pictures are small, and those of another shape are not stretched.
  assert Image.open(frames / 'strip.gif').size == (560, 280)
  assert cli.main([*arguments, str(frames)]) == 0
  assert (frames / 'strip.png').read_bytes() == first
  assert 'links of 4 images' in capsys.readouterr().err
  # Named itself it is an image, which nothing writes over.
  assert cli.main([*arguments, str(frames / 'strip.png')]) == 2
  assert 'would be written over' in capsys.readouterr().err
  assert (frames / 'strip.png').read_bytes() == first
  assert cli.main([*arguments, str(frames / '0.png'), '--groups=2']) == 2
  assert 'need scikit-learn' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flag, words',
  [
    ('--tile=64', 'in one piece; take no tiles'),
    ('--tolerance=7', 'cuts no curves; leave the tolerance'),
    ('--polarity=dark_on_light', "no polarity: leave it 'auto'; got 'dark_on"),
    ('--refine=3', 'cannot refine'),
  ],
)
def test_what_is_for_drawings_is_refused_for_photographs(
  keypoints, frames, tmp_path, capsys, flag, words
):
  arguments = ['predict', str(frames), f'--output={tmp_path / "out"}', flag]
  assert cli.main([*arguments, '--weights=w.npz']) == 2
  err = capsys.readouterr().err
  assert words in err and err.count('\n') == 1


def test_links_and_keypoints_have_thresholds_of_their_own(keypoints, frames, tmp_path):
  def found(*flags):
    arguments = ['predict', str(frames / '0.png'), f'--output={tmp_path / "out"}']
    assert cli.main([*arguments, '--weights=w.npz', '--no-overlay', *flags]) == 0
    document = formats.read(tmp_path / 'out' / '0.json')
    return document.node_ids.tolist(), len(document.edges)

  assert found() == ([1, 2], 0)
  assert found('--threshold=0.3') == ([1, 2], 1)
  assert found('--threshold=0') == ([1, 2], 1)
  # 1 and 2 have the probabilities 1 and 0.95: the link goes with its keypoint.
  assert found('--threshold=0.3', '--node_threshold=0.97') == ([1], 0)


def test_a_threshold_of_keypoints_is_for_keypoints(
  frames, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(weights, 'load_method', stub.load_method)
  arguments = ['predict', str(frames / '0.png'), f'--output={tmp_path / "out"}']
  assert cli.main([*arguments, '--weights=w.npz', '--node_threshold=0.2']) == 2
  assert 'has no keypoints; leave node_threshold at 0.5' in capsys.readouterr().err


def test_links_of_weights_without_keypoints(frames, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(weights, 'load_method', stub.load_method)
  output = str(tmp_path / 'out')
  assert cli.main(['links', str(frames), '--output', output, '--weights=w.npz']) == 2
  assert 'knows no keypoints' in capsys.readouterr().err
