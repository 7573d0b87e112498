"""Tests of launch/figures.py."""

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import image_graph_image
from img2graph import methods
from img2graph import weights
from img2graph.training import errors
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
  with pytest.raises(errors.UserError, match='no weights of this table'):
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
