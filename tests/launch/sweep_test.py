"""Tests of launch/sweep.py."""

import json

import ml_collections
import pytest

from launch import sweep


def _results(config, f1):
  at = {'edge_lenient': {'micro': {'f1': f1}}, 'exact': f1 / 2}
  return {
    'config': json.loads(config.to_json()),
    'scores': {'at': {'0.03': at, '0.05': at, '0.08': at}},
    'wall_clock': {'total_seconds': 90.0},
  }


def _config():
  return ml_collections.ConfigDict(
    {'seed': 0, 'lr': 0.1, 'method': {'capacity': 8}, 'eval': {'capacities': ()}}
  )


ENTRIES = [{'lr': 0.1, 'seed': 0}, {'lr': 0.1, 'seed': 1}, {'lr': 0.2, 'seed': 0}]


def test_each_entry_is_run_once_and_recorded(tmp_path):
  seen = []

  def train(config, workdir):
    seen.append((config.lr, config.seed, workdir))
    return _results(config, 0.5)

  output = tmp_path / 'results' / 'out.jsonl'
  assert sweep.run(_config(), ENTRIES[:2], tmp_path, output, train=train) == 2
  assert sweep.run(_config(), ENTRIES, tmp_path, output, train=train) == 1
  assert [s[:2] for s in seen] == [(0.1, 0), (0.1, 1), (0.2, 0)]
  assert len({s[2] for s in seen}) == 3
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  assert [row['overrides'] for row in rows] == ENTRIES
  changed = _config()
  changed.method.capacity = 9
  assert sweep.run(changed, ENTRIES[:1], tmp_path, output, train=train) == 1


def test_an_interrupted_entry_is_not_recorded_and_ends_the_sweep(tmp_path):
  output = tmp_path / 'out.jsonl'

  def train(config, workdir):
    return {'interrupted': 15, 'step': 3}

  assert sweep.run(_config(), ENTRIES, tmp_path, output, train=train) == 0
  assert not output.exists()


def test_the_table_has_a_row_for_each_setting(tmp_path):
  output = tmp_path / 'out.jsonl'
  values = iter([0.8, 0.9, 0.4])

  def train(config, workdir):
    return _results(config, next(values))

  sweep.run(_config(), ENTRIES, tmp_path, output, train=train)
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  lines = sweep.table(rows).splitlines()
  assert len(lines) == 4
  assert lines[2].startswith('| lr=0.1 | 8 | 2 | 85.00 (min 80.00) |')
  assert lines[3].startswith('| lr=0.2 | 8 | 1 | 40.00 |')
  assert lines[2].endswith('| 42.50 (min 40.00) | 1.5 |')


def test_sweeps_of_a_config_file_are_found_by_name():
  seeds = sweep.entries('configs/simple_shapes.py', 'seeds')
  assert len(seeds) == 20 and seeds[0] == {'data.side': 64, 'seed': 0}
  with pytest.raises(ValueError, match='seeds'):
    sweep.entries('configs/simple_shapes.py', 'pears')
