"""Tests of img2graph/training/seeds.py, and of `loop.train_seeds`."""

import io
import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from configs import image_graph_image
from img2graph import plotting
from img2graph import weights
from img2graph.training import errors
from img2graph.training import logging
from img2graph.training import loop
from img2graph.training import parallel
from launch import cells
from tests.training import toy


@pytest.fixture(scope='module', autouse=True)
def _quick(tmp_path_factory):
  with toy.quick_compilation(tmp_path_factory.mktemp('cache')):
    yield


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
  toy.register(monkeypatch)


def make_configs(numbers, variant='device', **changes):
  """Configs of the toy, one for each seed."""
  config = toy.get_config(variant)
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return [config.to_dict() | {'seed': n} for n in numbers]


def run(folder, configs, *, evaluate=False):
  """Trains seeds at once; returns (results, what was shown, warnings)."""
  out, err = io.StringIO(), io.StringIO()
  console = logging.Console(out=out, err=err)
  workdirs = [folder / str(c['seed']) for c in configs]
  results = loop.train_seeds(configs, workdirs, evaluate=evaluate, console=console)
  return results, out.getvalue(), err.getvalue()


def final_variables(workdir):
  return weights.load(workdir / 'weights.npz')[0]


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def use_devices(monkeypatch, count):
  mesh = jax.make_mesh(
    (count,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
  )
  monkeypatch.setattr(parallel, 'make_mesh', lambda: mesh)


# Of three seeds two devices hold two each: one of them counts for nothing.
@pytest.mark.parametrize(
  ('variant', 'count'), [('device', 3), ('host', 2), ('resident', 2)]
)
def test_each_seed_ends_as_its_single_run(tmp_path, variant, count, monkeypatch):
  use_devices(monkeypatch, 2)
  options = dict(optim__ema=0.9, checkpoint_every=0, panel_every=20)
  options |= dict(eval__num_images=8)
  options |= dict(variant=variant)
  configs = make_configs(range(3, 3 + count), **options)
  results, shown, warned = run(tmp_path / 'many', configs, evaluate=True)
  assert not warned and f'{count} seeds: step 20/20' in shown
  assert [r['seed'] for r in results] == [c['seed'] for c in configs]
  for config, result in list(zip(configs, results, strict=True))[-1:]:
    name = str(config['seed'])
    ([single], _, _) = run(tmp_path / 'one', [config], evaluate=True)
    one, many = tmp_path / 'one' / name, tmp_path / 'many' / name
    chex.assert_trees_all_close(
      final_variables(one), final_variables(many), rtol=1e-5, atol=1e-6
    )
    assert {p.name for p in one.iterdir()} == {p.name for p in many.iterdir()}
    assert json.loads((many / 'results.json').read_text()) == result
    assert json.loads((many / 'config.json').read_text())['seed'] == config['seed']
    assert (single['seeds_at_once'], result['seeds_at_once']) == (1, count)
    assert set(single) == set(result)
    assert single['config_hash'] == result['config_hash']
    assert single['images_seen'] == result['images_seen']
    for a, b in zip(rows(one), rows(many), strict=True):
      assert a.keys() == b.keys()
      np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-3)
  # They are not the same run.
  with pytest.raises(AssertionError):
    chex.assert_trees_all_close(
      final_variables(many), final_variables(tmp_path / 'many' / '3'), atol=1e-3
    )


def test_seeds_of_a_recipe_end_as_their_single_runs(tmp_path, monkeypatch):
  changes = {
    'data.side': 32,
    'batch_size': 4,
    # Else Adam makes whole steps of gradients that are nothing but rounding.
    'optim.eps': 1e-2,
    'method.capacity': 3,
    'method.nodes.width': 4,
    'method.nodes.blocks': 1,
    'method.renderer.max_edges': 3,
    'method.canonical_form': None,
    'method.sides': (32,),
    'method.loss.scales': 2,
  }
  config = image_graph_image.get_config('ours,smoke')
  config.optim.eps = 1e-8
  config = cells.override(config, changes).to_dict()
  config |= dict(train_steps=3, checkpoint_every=0, panel_every=0)
  configs = [config | {'seed': n} for n in (4, 9)]
  use_devices(monkeypatch, 1)  # It holds both.
  run(tmp_path / 'many', configs)
  run(tmp_path / 'one', configs[1:])
  one, many = (final_variables(tmp_path / name / '9') for name in ('one', 'many'))
  chex.assert_trees_all_close(one, many, rtol=1e-5, atol=1e-6)


def test_stopping_and_going_on_changes_no_bit(tmp_path, monkeypatch):
  configs = make_configs((3, 4), 'host', panel_every=7)
  run(tmp_path / 'whole', configs)

  def draw(*args, **kwargs):
    # The first panel of step 7 is drawn while the signal comes.
    os.kill(os.getpid(), signal.SIGTERM)
    return plotting.Image.new('RGB', (4, 4))

  with monkeypatch.context() as patch:
    patch.setattr(plotting, 'panel', draw)
    results, shown, _ = run(tmp_path / 'parts', configs)
  assert results == 2 * [{'interrupted': signal.SIGTERM, 'step': 7}]
  # Killed between two seeds: one is at a later step than the others.
  shutil.copytree(
    tmp_path / 'whole' / '4' / 'checkpoints' / '15',
    tmp_path / 'parts' / '4' / 'checkpoints' / '15',
  )
  results, shown, _ = run(tmp_path / 'parts', configs)
  assert shown.count('going on from step 7') == 1
  assert [r['step'] for r in results] == [20, 20]
  for seed in '34':
    whole, parts = tmp_path / 'whole' / seed, tmp_path / 'parts' / seed
    chex.assert_trees_all_equal(final_variables(whole), final_variables(parts))
    assert rows(whole) == rows(parts)
  # Alone for the rest, it has its half of the time before, and all since.
  shutil.rmtree(tmp_path / 'whole' / '4' / 'checkpoints' / '20')
  ([alone], _, _) = run(tmp_path / 'whole', configs[1:])
  times = alone['wall_clock']
  for part in ('train', 'total'):
    both, own = times[f'{part}_seconds'], times[f'own_{part}_seconds']
    assert both / 2 < own < both
  assert alone['images_per_second'] == pytest.approx(160 / times['own_train_seconds'])


def test_a_seed_that_is_not_finite_is_named_and_leaves_the_others(
  tmp_path, monkeypatch
):
  original = toy.Numbers.__next__

  def spoil(self):
    batch = original(self)
    if self._seed == 4 and self._at == 13:
      batch['image'][0] = np.nan
    return batch

  monkeypatch.setattr(toy.Numbers, '__next__', spoil)
  configs = make_configs((3, 4), 'host', log_every=10)
  for _ in range(2):  # Gone on with, seed 4 is behind the others, and fails again.
    results, _, warned = run(tmp_path / 'many', configs)
    assert results[0]['step'] == 20 and results[0]['seeds_at_once'] == 2
    assert isinstance(results[1], errors.NonFiniteError)
    assert 'the loss or its gradient is not finite at step 13' in str(results[1])
    assert 'the last good checkpoint is step 10' in str(results[1])
    # Step 15 was to be saved: it was seen there, and told with the seed.
    assert not warned or warned.startswith('seed 4: the loss')
  four = tmp_path / 'many' / '4'
  assert not (four / 'results.json').exists()
  assert [row['step'] for row in rows(four)] == [10]
  run(tmp_path / 'one', configs[:1])
  one, many = (final_variables(tmp_path / name / '3') for name in ('one', 'many'))
  chex.assert_trees_all_close(one, many, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('configs', 'names'),
  [
    (make_configs((3, 3)), 'ab'),
    (make_configs((3, 4)), 'aa'),
    (make_configs((3,)) + make_configs((4,), train_steps=7), 'ab'),
  ],
)
def test_what_are_not_seeds_of_one_config_is_refused(tmp_path, configs, names):
  with pytest.raises(errors.UserError, match='must differ in config.seed alone'):
    loop.train_seeds(configs, [tmp_path / name for name in names])
  assert not list(tmp_path.iterdir())
