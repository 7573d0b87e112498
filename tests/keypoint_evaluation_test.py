import io
import json

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph import graph
from img2graph import keypoint_evaluation
from img2graph.data import sources
from img2graph.methods import base
from img2graph.metrics import keypoints
from img2graph.training import errors
from img2graph.training import logging
from img2graph.training import loop
from tests.training import toy

COUNT = 70  # More than a chunk, and no multiple of anything.


def method():
  """Two nodes, whose coordinates are written into the first pixels of the image."""

  def predict(variables, images):
    nodes = 2 * images[:, 0, :2, :2] * variables['scale'] - 1
    edges = jax.numpy.zeros((len(images), 2, 2))
    return graph.Graph(nodes, edges[:, 0], edges)

  return base.Method(init=None, loss=None, predict=predict, reconstruct=None)


def make_source(seed, count=COUNT, noise=0.0, points=True):
  """Images with two nodes each, and points that follow them by fixed weights."""
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 256, (count, 4, 4, 3), np.uint8)
  shares = (images[:, 0, :2, :2] / 255).reshape(count, 4)
  weights = np.random.default_rng(9).uniform(0, 0.4, (4, 6))
  targets = (shares @ weights).reshape(count, 3, 2) + noise
  batch = {'image': images}
  if points:
    batch |= {
      'points': (2 * targets - 1).astype(np.float32),
      'visible': np.ones((count, 3), np.float32),
      'scale': np.full(count, 0.5, np.float32),
    }

  def iterate(*, seed, batch_size, process_index=0, process_count=1):
    order, at = np.random.default_rng(seed).permutation(count), 0
    while True:
      rows = [order[(at + i) % count] for i in range(batch_size)]
      at += batch_size
      yield {n: v[rows] for n, v in batch.items()}

  return sources.HostSource(iterate=iterate, side=4, size=count)


VARIABLES = {'scale': np.float32(1)}
FIT = make_source(0)


@pytest.fixture(scope='module')
def one_method():
  return method()


def test_points_that_follow_the_nodes_are_met(one_method):
  # A test part that lies 0.1 sides to the right and below of what was fitted; the scale
  # is a quarter of a side.
  scores = keypoint_evaluation.evaluate(
    one_method,
    VARIABLES,
    FIT,
    make_source(1, noise=0.1),
    protocol='mean_error',
    batch_size=16,
  )
  expected = 100 * np.hypot(0.1, 0.1) / 0.25
  assert scores['error_percent'] == pytest.approx(expected, rel=1e-4)
  assert scores['fixed_keypoints']['error_percent'] > expected
  assert (scores['images'], scores['fit_images'], scores['keypoints']) == (70, 70, 2)


def test_every_image_is_seen_once_whatever_the_batch_and_the_devices(one_method):
  mesh = jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  found = [
    keypoint_evaluation.find_keypoints(one_method, VARIABLES, FIT, **options)
    for options in (
      dict(batch_size=16),
      dict(batch_size=COUNT),
      dict(batch_size=16, sharding=sharding),
    )
  ]
  assert len(np.unique(found[0].points[:, 0, 0])) == COUNT
  for other in found[1:]:
    np.testing.assert_array_equal(other.points, found[0].points)
    np.testing.assert_allclose(other.found, found[0].found, atol=1e-6)


def test_a_part_of_the_images_is_drawn_by_the_seed(one_method):
  first, same, other = (
    keypoint_evaluation.find_keypoints(
      one_method, VARIABLES, FIT, num_images=16, batch_size=16, seed=seed
    )
    for seed in (0, 0, 1)
  )
  assert len(first.found) == 16
  np.testing.assert_array_equal(first.points, same.points)
  assert (first.points != other.points).any()


def test_a_source_that_draws_gives_each_part_images_of_its_own(one_method):
  def sample(key, batch_size):
    images = jax.random.uniform(key, (batch_size, 4, 4, 3))
    return {'image': images, 'points': images[:, :3, 0, :2]}

  source = sources.DeviceSource(sample=sample, side=4)
  with pytest.raises(ValueError, match='num_images must be given'):
    keypoint_evaluation.find_keypoints(one_method, VARIABLES, source, batch_size=8)
  scores = keypoint_evaluation.evaluate(
    one_method,
    VARIABLES,
    source,
    source,
    protocol='summed_error',
    num_images=5,
    batch_size=16,
  )
  # Five images and five features: the images that were fitted on would be met.
  assert scores['error_pixels'] > 1


def test_bad_input_is_told_before_anything_is_predicted(one_method):
  options = dict(batch_size=16)
  with pytest.raises(ValueError, match="no protocol 'f1'"):
    keypoint_evaluation.evaluate(None, None, None, None, protocol='f1', **options)
  bare = make_source(0, points=False)
  with pytest.raises(ValueError, match='these have none'):
    keypoint_evaluation.find_keypoints(one_method, VARIABLES, bare, **options)
  for wrong in (dict(num_images=0), dict(batch_size=0)):
    with pytest.raises(ValueError, match='must be positive; got 0'):
      keypoint_evaluation.find_keypoints(one_method, VARIABLES, FIT, **options | wrong)


def write_archive(path):
  generator = np.random.default_rng(0)
  np.savez(
    path,
    images=generator.integers(0, 256, (40, 16, 16, 3), np.uint8),
    points=generator.uniform(0, 1, (40, 5, 2)).astype(np.float32),
  )
  return str(path)


def make_config(tmp_path):
  config = toy.get_config('host').to_dict()
  config['data'] = dict(
    source='photo_archive',
    path=write_archive(tmp_path / 'a.npz'),
    part='train',
    side=16,
    flip=True,
  )
  config['train_steps'], config['eval_every'] = 4, 2
  config['eval'] = dict(
    kind='keypoints',
    protocol='mean_error',
    fit={'part': 'fit'},
    test={'part': 'test'},
    num_images=30,
    batch_size=8,
    seed=1,
  )
  return config


def quiet():
  return logging.Console(out=io.StringIO(), err=io.StringIO())


def test_training_is_judged_by_points_if_the_config_says_so(tmp_path, monkeypatch):
  toy.register(monkeypatch)
  workdir = tmp_path / 'run'
  console = quiet()
  results = loop.train(make_config(tmp_path), workdir, console=console)
  scores = results['scores']
  assert (scores['images'], scores['fit_images']) == (8, 30)
  assert scores == json.loads((workdir / 'results.json').read_text())['scores']
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  told = {r['step']: r for r in rows if 'eval/error_percent' in r}
  assert set(told) == {2, 4}
  assert told[4]['eval/error_percent'] == pytest.approx(scores['error_percent'])
  blind = scores['fixed_keypoints']['error_percent']
  assert told[4]['eval/fixed_keypoints/error_percent'] == pytest.approx(blind)
  # Images are floats by the time that the method sees them: the loss is not of bytes.
  losses = [r['loss'] for r in rows if 'loss' in r]
  assert len(losses) == 2 and max(losses) < 10
  again = loop.evaluate(make_config(tmp_path), workdir, console=quiet())
  assert again['scores'] == scores


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(kind='points'), 'config.eval.kind must be one of graph, keypoints'),
    (dict(protocol='f1'), "config.eval: there is no protocol 'f1'"),
    (dict(fit={'part': 'val'}), 'config.eval: part must be one of'),
    (dict(fit={'part': 'train'}), 'config.eval: keypoints are judged on images with'),
    (dict(test=None), 'the config lacks eval.test'),
  ],
)
def test_wrong_evaluations_are_told_before_training(
  tmp_path, monkeypatch, changes, message
):
  toy.register(monkeypatch)
  config = make_config(tmp_path)
  config['eval'] |= changes
  config['eval'] = {n: v for n, v in config['eval'].items() if v is not None}
  with pytest.raises(errors.UserError, match=message):
    loop.train(config, tmp_path / 'run', console=quiet())
  assert not (tmp_path / 'run').exists()


def test_the_headline_is_that_of_the_protocol():
  scores = {'pck_percent': 3.0, 'fixed_keypoints': {'pck_percent': 1.0}, 'images': 4}
  expected = {'pck_percent': 3.0, 'fixed_keypoints/pck_percent': 1.0}
  assert loop.headline(scores) == keypoints.headline(scores) == expected
