"""Every config loads, every entry of its sweeps too, and its smoke variants run."""

import importlib
import inspect
import io
import json
import math
import pathlib
import re

import chex
import numpy as np
import pytest
from ml_collections import config_dict
from PIL import Image
from PIL import ImageDraw

from img2graph import data
from img2graph import methods
from img2graph import weights
from img2graph.training import logging
from img2graph.training import loop
from img2graph.training import optim
from launch import tables

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
NAMES = sorted(p.stem for p in FOLDER.glob('*.py') if p.stem != '__init__')
MODULES = {name: importlib.import_module(f'configs.{name}') for name in NAMES}
VARIANTS = [
  (name, variant)
  for name in NAMES
  for variant in getattr(MODULES[name], 'VARIANTS', ('base', 'smoke'))
]
SMOKE = [(name, v) for name, v in VARIANTS if v.endswith('smoke')]


def distinct(variants):
  """One variant of each model and data."""
  found = {}
  for name, variant in variants:
    config = MODULES[name].get_config(variant).to_dict()
    config = {n: config[n] for n in ('method', 'data', 'optim')}
    found.setdefault(json.dumps(config, sort_keys=True), (name, variant))
  return sorted(found.values())


def check(config):
  """Builds all of a config but its data, which may be large or elsewhere."""
  plain = config.to_dict()
  loop.check_config(plain)
  methods.build(
    train_steps=plain['train_steps'], precision=plain['precision'], **plain['method']
  )
  options = {n: v for n, v in plain['optim'].items() if n != 'ema'}
  _, learning_rate = optim.build(train_steps=plain['train_steps'], **options)
  assert math.isfinite(learning_rate(plain['train_steps'] - 1))
  module = data._MODULES[plain['data']['source']]
  module = importlib.import_module(f'img2graph.data.{module}')
  function = getattr(module, 'sample', module.source)
  assert set(plain['data']) - {'source'} <= set(inspect.signature(function).parameters)


def test_there_are_configs_and_each_has_a_smoke_variant():
  assert 'simple_shapes' in NAMES
  assert {name for name, _ in SMOKE} == set(NAMES)


@pytest.mark.parametrize('name, variant', VARIANTS)
def test_every_variant_loads_and_builds(name, variant):
  config = MODULES[name].get_config(variant)
  assert isinstance(config, config_dict.ConfigDict)
  check(config)


@pytest.mark.parametrize('name', NAMES)
def test_an_unknown_variant_is_refused(name):
  expected = f"^{name} has the variants .*; got 'no such variant'"
  with pytest.raises(ValueError, match=expected):
    MODULES[name].get_config('no such variant')


def sweeps(module):
  """The names of a config's sweeps: it lists them when it is asked for another."""
  with pytest.raises(ValueError, match='no such sweep') as refused:
    list(module.sweep('no such sweep'))
  return re.findall(r"'(\w+)'", str(refused.value))


def with_sweeps(tables):
  """The configs whose sweeps are those of tables, or all others that have any."""
  found = [name for name in NAMES if hasattr(MODULES[name], 'sweep')]
  return [name for name in found if hasattr(MODULES[name], 'TABLES') == tables]


@pytest.mark.parametrize('name', with_sweeps(tables=False))
def test_every_entry_of_every_sweep_loads_and_builds(name):
  module = MODULES[name]
  names = sweeps(module)
  assert list(module.sweep()) == list(module.sweep(names[0]))
  for sweep in names:
    entries = list(module.sweep(sweep))
    assert entries
    assert len({tuple(sorted(e.items())) for e in entries}) == len(entries)
    for entry in entries:
      config = module.get_config()
      config.update_from_flattened_dict(entry)  # Refuses names that are not there.
      check(config)


@pytest.mark.parametrize('name', with_sweeps(tables=True))
def test_every_row_of_every_table_builds(name):
  module = MODULES[name]
  for table in module.TABLES:
    for scale in module.SCALES:
      for cell in tables.cells_of(module, table, scale=scale, seeds=1):
        check(cell.config)
        assert len(cell.label['rows']) >= 1
        for row in cell.label['rows']:
          part = row['part'].removeprefix('capacity_')
          assert not part or int(part) in cell.config.eval.capacities


def test_the_proof_of_affinity_supervision_on_an_archive_is_the_papers_but_for_images():
  module = MODULES['affinity']
  found = tables.cells_of(module, '3', scale='jpeg', seeds=1)
  assert [cell.label['recipe'] for cell in found] == ['base', 'affinity']
  for cell in found:
    config = module.get_config(f'{cell.label["recipe"]},jpeg')
    assert cell.config.to_dict() == config.to_dict()
    assert config.train_steps == 200 * config.eval_every == 200 * (36_000 // 128)
    assert (config.data.name, config.data.most) == ('archive', 0)
    published = module.get_config(f'{cell.label["recipe"]},paper')
    for name in ('method', 'optim', 'batch_size', 'eval'):
      assert config[name] == published[name]
  (row,) = found[1].label['rows']
  assert row['against'] == found[0].label['rows'][0]['row']
  assert row['published'] == {'accuracy': (92.03, 0.21)}


def test_every_row_of_affinity_supervision_has_a_variant():
  module = MODULES['affinity']
  found = tables.cells_of(module, '3', scale='paper', seeds=1)
  assert len(found) == 18
  for cell in found:
    (row,) = cell.label['rows']
    depth = row['row']['network'].removeprefix('ResNet-')
    variant = f'{row["recipe"]},paper,{row["row"]["set"]},{depth}'
    assert cell.config.to_dict() == module.get_config(variant).to_dict()
  # What docs/affinity.md offers.
  config = module.get_config('affinity,paper,tiny_imagenet,18')
  config.method.network.stem = 'small'
  check(config)


def test_a_weight_of_0_is_the_base():
  found = tables.cells_of(MODULES['affinity'], 'weight', scale='cpu', seeds=1)
  rows = [row for cell in found for row in cell.label['rows']]
  assert [row['row']['lambda'] for row in rows[:2]] == ['0 (classes alone)', '0.01']
  weights = [cell.config.method.affinity.weight for cell in found[1:]]
  assert weights == [0.01, 0.05, 0.1, 0.5, 1.0]
  assert found[0].config.method.affinity is None
  assert all(row['against'] == rows[0]['row'] for row in rows[1:])


def test_losses_on_the_mass_are_compared_at_one_size():
  module = MODULES['affinity']
  found = tables.cells_of(module, 'forms', scale='cpu', seeds=1)
  weights = {
    cell.label['rows'][0]['row']['loss']: cell.config.method.affinity.weight
    for cell in found
    if cell.label['recipe'] == 'affinity'
  }
  assert weights.pop('focal, mean of rows') == pytest.approx(0.1 / 128)
  assert weights.pop('mean of entries') == pytest.approx(0.1 / 128**2)
  assert len(weights) == 4 and set(weights.values()) == {0.1}


def test_time_and_memory_of_affinity_supervision_are_measured_by_runs_of_their_own():
  module = MODULES['affinity']
  assert tables.form_of(module, '4').alone
  for scale in module.SCALES:
    base, ours = tables.cells_of(module, '4', scale=scale, seeds=1)
    others = {
      cell.hash
      for table in set(module.TABLES) - {'4'}
      for cell in tables.cells_of(module, table, scale=scale, seeds=1)
    }
    assert not {base.hash, ours.hash} & others
    long = module.get_config(f'base,{scale}')
    assert base.config.train_steps == 3 * long.eval_every
    assert base.config.method.affinity is None and ours.config.method.affinity
    # Without which no differences are shown.
    assert ours.label['rows'][0]['against'] == base.label['rows'][0]['row']
  (row,) = tables.cells_of(module, '4', scale='paper', seeds=1)[1].label['rows']
  assert row['published'] == {
    'seconds an epoch': (35.9, None),
    'memory MB': (2139.0, None),
  }


def run(config, workdir):
  console = logging.Console(out=io.StringIO(), err=io.StringIO())
  return loop.train(config, workdir, evaluate=False, console=console)


def give_data(config, folder):
  """Puts small data where a config looks for them."""
  if config.data.source == 'tfds_simple_shapes':
    config.data.data_dir = str(folder)
    config.data.num_images = 16
  if config.data.source == 'image_folder':
    folder.mkdir()
    for i in range(8):
      picture = Image.new('L', (40, 30), 255)
      ImageDraw.Draw(picture).line((5, 5, 30, 5 + 2 * i), fill=0, width=2)
      picture.save(folder / f'{i}.png')
    config.data.dir = str(folder)
  if config.data.source == 'labelled':
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    np.savez(f'{folder}.npz', images=images, label=np.arange(40) % 10)
    config.data.dir = f'{folder}.npz'


@pytest.mark.parametrize('name, variant', distinct(SMOKE[::-1]))
def test_every_smoke_variant_runs_two_steps(name, variant, tmp_path):
  config = MODULES[name].get_config(variant)
  config.train_steps = 2
  config.panel_every = 0
  give_data(config, tmp_path / 'data')
  results = run(config, tmp_path / 'run')
  assert results['step'] == 2
  _, variables, _ = weights.load_method(tmp_path / 'run' / 'weights.npz')
  chex.assert_tree_all_finite(variables)
