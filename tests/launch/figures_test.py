"""Tests of launch/figures.py."""

import json

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import affinity
from configs import autolink
from configs import image_graph_image
from img2graph import affinity_graph
from img2graph import charts
from img2graph import methods
from img2graph import weights
from img2graph.training import errors
from launch import cells
from launch import figures
from launch import tables


def _leave_weights(cell, workdir):
  """What a run of a cell leaves, untrained."""
  config = cell.config.to_dict()
  method = methods.build(
    train_steps=config['train_steps'],
    precision=config['precision'],
    **config['method'],
  )
  batch = figures.batch_of(cell.config, 2)
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(0), batch))
  folder = workdir / 'image_graph_image' / cell.name
  folder.mkdir(parents=True)
  weights.save(folder / 'weights.npz', variables, config=config, card={})


def _figure(tmp_path, *arguments):
  folders = [f'--workdir={tmp_path / "runs"}', f'--output={tmp_path / "out"}']
  options = ['--paper=image_graph_image', '--scale=smoke', '--table=1', '--rows=2']
  with flagsaver.flagsaver():
    flags.FLAGS(['figures', *options, *folders, *arguments])
    figures.run(['figures'])
  return Image.open(tmp_path / 'out' / 'image_graph_image' / 'figure_1_smoke.png')


def test_each_recipe_that_is_done_has_its_columns(tmp_path):
  found = tables.cells_of(image_graph_image, '1', scale='smoke', seeds=1)
  with pytest.raises(errors.UserError, match='no weights.npz of this table'):
    _figure(tmp_path)
  ours, supervised = found[2:]
  assert [c.label['recipe'] for c in (ours, supervised)] == ['ours', 'supervised']
  _leave_weights(supervised, tmp_path / 'runs')
  alone = _figure(tmp_path)  # Image, true graph; graph, matrix.
  _leave_weights(ours, tmp_path / 'runs')
  both = _figure(tmp_path)  # And drawing, graph, matrix.
  assert both.height == alone.height
  assert both.width / alone.width == pytest.approx(7 / 4, rel=0.1)
  assert _figure(tmp_path, '--recipes=supervised').width == alone.width


def test_methods_without_true_graphs_or_drawings(tmp_path):
  (cell,) = tables.cells_of(autolink, '1', scale='smoke', seeds=1)
  config = cell.config.to_dict()
  method = methods.build(
    train_steps=2, precision=config['precision'], **config['method']
  )
  batch = figures.batch_of(cell.config, 2)
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(0), batch))
  (tmp_path / cell.name).mkdir()
  weights.save(tmp_path / cell.name / 'weights.npz', variables, config=config)
  picture = figures.draw_graphs([cell], tmp_path, rows=2)
  assert picture.width > picture.height > 100

  (cell,) = tables.cells_of(affinity, '4', scale='smoke', seeds=1, recipes=['base'])
  config = cell.config.to_dict()
  method = methods.build(train_steps=2, precision='float32', **config['method'])
  batch = {'image': np.zeros((1, 32, 32, 3), np.float32)}
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(0), batch))
  (tmp_path / cell.name).mkdir()
  weights.save(tmp_path / cell.name / 'weights.npz', variables, config=config)
  with pytest.raises(errors.UserError, match='affinity_batch draws no graphs'):
    figures.draw_graphs([cell], tmp_path, rows=2)


def _see(monkeypatch, name, picture):
  """What a chart is called with."""
  seen = []

  def draw(*given, **options):
    seen.append(given)
    return picture

  monkeypatch.setattr(charts, name, draw)
  return seen


def test_curves_are_means_over_the_seeds_that_got_there(tmp_path, monkeypatch):
  found = tables.cells_of(affinity, 'gamma', scale='smoke', seeds=2)
  with pytest.raises(errors.UserError, match='no metrics.jsonl of this table'):
    figures.draw_curves(found, tmp_path)
  base = [cell for cell in found if cell.label['recipe'] == 'base']
  for cell, accuracies in zip(base, ([20, 40, 60], [40, 60]), strict=True):
    lines = [{'step': 1, 'loss': 2.0}]
    for step, accuracy in enumerate(accuracies, start=1):
      scores = {'eval/valid_accuracy': accuracy, 'eval/valid_target_mass': step}
      lines.append({'step': step, **scores})
    (tmp_path / cell.name).mkdir()
    text = '\n'.join(map(json.dumps, lines))
    (tmp_path / cell.name / 'metrics.jsonl').write_text(text)
  seen = _see(monkeypatch, 'curves', Image.new('RGB', (50, 40)))
  figures.draw_curves(found, tmp_path)
  title = 'gamma: none (classes alone)'
  (error,), (mass,) = seen
  assert error == {title: ([1, 2, 3], [70, 50, 40])}
  assert mass == {title: ([1, 2, 3], [1, 2, 3])}


def test_curves_count_the_epochs_of_their_own_sets(tmp_path, monkeypatch):
  found = tables.cells_of(affinity, '3', scale='paper', seeds=1)
  for cell in (found[0], found[-1]):
    scores = {'eval/valid_accuracy': 50, 'eval/valid_target_mass': 40}
    (tmp_path / cell.name).mkdir()
    line = json.dumps({'step': cell.config.train_steps, **scores})
    (tmp_path / cell.name / 'metrics.jsonl').write_text(line)
  seen = _see(monkeypatch, 'curves', Image.new('RGB', (50, 40)))
  figures.draw_curves(found, tmp_path)
  # CIFAR-10 and Tiny ImageNet.
  assert [epochs for epochs, _ in seen[0][0].values()] == [[200], [90]]


def test_scores_are_shown_over_the_values_of_their_rows(tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match='no cell of this table'):
    figures.draw_scores(autolink, 'keypoints', 'smoke', tmp_path)
  found = tables.cells_of(autolink, 'keypoints', scale='smoke', seeds=2)
  for k, cell in enumerate(found[:-1]):  # The last seed of 32 keypoints is missing.
    scores = {'error_percent': k, 'fixed_keypoints': {'error_percent': 9}}
    line = dict(cell.label, seed=cell.config.seed, scores=scores)
    line |= {'config': cells.plain(cell.config), 'config_hash': cell.hash}
    with open(tmp_path / 'table_keypoints.jsonl', 'a') as file:
      file.write(json.dumps(line) + '\n')
  figures.draw_scores(autolink, 'keypoints', 'smoke', tmp_path)  # As a picture.
  seen = _see(monkeypatch, 'curves', Image.new('RGB', (50, 40)))
  figures.draw_scores(autolink, 'keypoints', 'smoke', tmp_path)
  ((series,),) = seen
  x, y, spread = series['score']
  assert x == (0, 1, 2, 3) and y == (2, 3, 4, 3)
  np.testing.assert_allclose(spread, [8**0.5, 8**0.5, 8**0.5, 0])
  assert series['fixed keypoints'] == (x, (9,) * 4, (0,) * 4)


def test_features_of_test_images_are_shown_by_class(tmp_path, monkeypatch):
  manifold = pytest.importorskip('sklearn.manifold')
  images = np.random.default_rng(0).integers(0, 256, (90, 32, 32, 3), np.uint8)
  labels = np.arange(90) % 10
  np.savez(tmp_path / 'a.npz', images=images, label=labels)
  found = tables.cells_of(affinity, '3', scale='smoke', seeds=1)
  cell = found[1]
  cell.config.data.dir = str(tmp_path / 'a.npz')
  config = cell.config.to_dict()
  method = methods.build(train_steps=2, precision='float32', **config['method'])
  batch = {'image': np.zeros((1, 32, 32, 3), np.float32)}
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(0), batch))
  (tmp_path / cell.name).mkdir()
  path = tmp_path / cell.name / 'weights.npz'
  weights.save(path, variables, config=config)
  # The places that t-SNE gives are those of the features it is given.
  monkeypatch.setattr(manifold.TSNE, 'fit_transform', lambda self, x: x[:, :2])
  seen = _see(monkeypatch, 'points', Image.new('RGB', (50, 40)))
  figures.draw_features(found, tmp_path, count=12)
  ((places, shown),) = seen
  options = config['data'] | config['eval']['test']
  test = figures.data.build(**options).whole
  assert len(test['label']) == 18 and len(places) == 12
  np.testing.assert_array_equal(shown, test['label'][:12])
  expected = affinity_graph.load(path).features(test['image'], batch_size=5)
  np.testing.assert_allclose(places, expected[:12, :2], rtol=1e-4, atol=1e-6)


def test_folders_may_lie_in_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  seen = []

  def drawn(found, workdir):
    seen.append(workdir)
    return Image.new('RGB', (5, 4))

  monkeypatch.setattr(figures, 'draw_curves', drawn)
  with flagsaver.flagsaver():
    options = ['--paper=affinity', '--scale=smoke', '--table=gamma']
    flags.FLAGS(['figures', *options, '--workdir=~/runs', '--output=~/out'])
    figures.run(['figures'])
  assert seen == [tmp_path / 'runs' / 'affinity']
  assert (tmp_path / 'out' / 'affinity' / 'figure_gamma_smoke.png').is_file()


def test_a_table_may_have_several_figures(tmp_path, monkeypatch, capsys):
  seen = []

  def draw(name):
    def drawn(found, workdir, **options):
      seen.append((name, len(found)))
      return Image.new('RGB', (5, 4))

    monkeypatch.setattr(figures, f'draw_{name}', drawn)

  draw('features')
  draw('curves')
  with flagsaver.flagsaver():
    options = ['--paper=affinity', '--scale=smoke', '--table=3', '--seeds=3']
    flags.FLAGS(['figures', *options, f'--output={tmp_path}'])
    figures.run(['figures'])
  assert seen == [('features', 2), ('curves', 6)]
  names = sorted(path.name for path in (tmp_path / 'affinity').iterdir())
  assert names == ['figure_3_curves_smoke.png', 'figure_3_smoke.png']
  assert capsys.readouterr().out.count('wrote') == 2
