"""Tests of launch/sweep.py."""

import json

import ml_collections
import pytest

from img2graph.training import errors
from img2graph.training import parallel
from launch import cells
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


def test_each_entry_is_a_cell_with_its_overrides():
  found = sweep.cells_of(_config(), ENTRIES)
  assert [cell.name for cell in found] == [
    'lr=0.1,seed=0',
    'lr=0.1,seed=1',
    'lr=0.2,seed=0',
  ]
  assert [(c.config.lr, c.config.seed) for c in found] == [(0.1, 0), (0.1, 1), (0.2, 0)]
  assert [cell.label for cell in found] == [{'overrides': o} for o in ENTRIES]


def test_the_table_has_a_row_for_each_setting():
  values = (0.8, 0.9, 0.4)
  rows = [
    cell.label | _results(cell.config, f1)
    for cell, f1 in zip(sweep.cells_of(_config(), ENTRIES), values, strict=True)
  ]
  lines = sweep.table(rows).splitlines()
  assert len(lines) == 4
  assert lines[2].startswith('| lr=0.1 | 8 | 2 | 85.00 (min 80.00) |')
  assert lines[3].startswith('| lr=0.2 | 8 | 1 | 40.00 |')
  assert lines[2].endswith('| 42.50 (min 40.00) | 1.5 |')


@pytest.mark.parametrize(
  'told, values', [('0.05', ' | 80.00 |  | 40.00'), ('0.1', ' |  |  | ')]
)
def test_cells_of_thresholds_without_scores_are_empty(told, values):
  found = sweep.cells_of(_config(), ENTRIES[1:])
  rows = [
    c.label | _results(c.config, f1) for c, f1 in zip(found, (0.8, 0.9), strict=True)
  ]
  at = rows[0]['scores']['at']
  rows[0]['scores']['at'] = {told: at['0.05']}
  titles, _, *lines = sweep.table(rows).splitlines()
  assert '| F1 3 % | F1 5 % | F1 8 % | exact 5 % |' in titles
  assert lines[0] == f'| lr=0.1 | 8 | 1 | {values} | 1.5 |'
  assert '| 90.00 | 90.00 | 90.00 | 45.00 |' in lines[1]


@pytest.mark.parametrize(
  'told, head, values',
  [
    (['0.05'], 'F1 5 % | exact 5 %', '80.00 | 40.00'),
    (['0.01', '0.125'], 'F1 1 % | F1 12.5 % | exact 12.5 %', '80.00 | 80.00 | 40.00'),
  ],
)
def test_the_columns_are_of_the_thresholds_that_are_there(told, head, values):
  (cell,) = sweep.cells_of(_config(), ENTRIES[:1])
  row = cell.label | _results(cell.config, 0.8)
  row['scores']['at'] = {name: row['scores']['at']['0.05'] for name in told}
  titles, _, line = sweep.table([row]).splitlines()
  assert titles == f'| setting | capacity | seeds | {head} | minutes |'
  assert line == f'| lr=0.1 | 8 | 1 | {values} | 1.5 |'


def test_the_capacity_of_a_method_without_one_is_empty():
  config = _config()
  del config.method.capacity
  found = sweep.cells_of(config, ENTRIES)
  rows = [c.label | _results(c.config, 0.8) for c in found]
  _, _, *lines = sweep.table(rows).splitlines()
  assert [line[:17] for line in lines] == ['| lr=0.1 |  | 2 |', '| lr=0.2 |  | 1 |']


def test_entries_of_one_config_have_a_row_each(tmp_path):
  wanted = sweep.cells_of(_config(), [{}, {'lr': 0.1}, {'seed': 0}])
  assert len({cell.hash for cell in wanted}) == 1
  output, seen = tmp_path / 'out.jsonl', []

  def train(config, workdir):
    seen.append(workdir)
    return _results(config, 0.5) | {'config_hash': wanted[0].hash}

  for _ in range(2):
    cells.run_missing(wanted, tmp_path, output, train=train)
    sweep.draw(output, wanted)
    _, _, *lines = output.with_suffix('.md').read_text().splitlines()
    assert [line[:16] for line in lines] == ['| base | 8 | 1 |', '| lr=0.1 | 8 | 1']
  assert len(seen) == 1 and len(cells.read(output)) == 3


def test_entries_have_folders_of_their_own(tmp_path):
  config = _config()
  config.name = ''
  values = ('/a/b', '/a_b', 300 * 'é' + 'a', 300 * 'é' + 'b', 'plain')
  found = sweep.cells_of(config, [{'name': value} for value in values])
  assert len({cell.name for cell in found}) == len(found)
  assert found[-1].name == 'name=plain'
  for cell in found:
    with cells.claim(tmp_path / f'{cell.name}.lock') as held:
      assert held
  rows = [c.label | _results(c.config, 0.5) for c in found]
  assert len(sweep.table(rows).splitlines()) == 2 + len(found)


def test_lines_of_other_configs_are_not_in_the_table(tmp_path, capsys):
  wanted = sweep.cells_of(_config(), ENTRIES[:2])
  longer = _config()
  longer.lr = 0.3
  others = sweep.cells_of(longer, [{'seed': 0}])
  output = tmp_path / 'new' / 'seeds.jsonl'
  sweep.draw(output, wanted)
  assert 'No entry is done' in output.with_suffix('.md').read_text()
  # The first was recorded twice.
  for cell, f1 in zip([*wanted, *others, wanted[0]], (0.1, 0.9, 0.2, 0.8), strict=True):
    line = cell.label | _results(cell.config, f1) | {'config_hash': cell.hash}
    cells.append(output, line, tmp_path / 'lock')
  sweep.draw(output, wanted)
  assert capsys.readouterr().out == '1 lines of other configs are not in the table.\n'
  _, _, *lines = output.with_suffix('.md').read_text().splitlines()
  assert len(lines) == 1 and lines[0].startswith('| lr=0.1 | 8 | 2 | 85.00 (min 80')
  assert len(cells.read(output)) == 4


@pytest.mark.parametrize(
  'tally, status',
  [
    (dict(), 0),
    (dict(failed={'a': 'no'}, claimed=['b']), 1),
    (dict(claimed=['b']), 3),
    (dict(interrupted=2), 130),
  ],
)
def test_the_exit_status_says_what_is_done(tmp_path, monkeypatch, tally, status):
  nothing = dict(run=0, claimed=[], failed={}, interrupted=None)
  result = cells.Tally(**nothing | tally)
  monkeypatch.setattr(sweep.cells, 'run_missing', lambda *a, **o: result)
  output = tmp_path / 'out.jsonl'
  assert sweep.run(_config(), ENTRIES, tmp_path, output) == status


def test_a_full_disk_has_an_exit_status_of_its_own(tmp_path, monkeypatch, capsys):
  def full(*args, **options):
    raise errors.SaveError('there is no room left.')

  monkeypatch.setattr(sweep.cells, 'run_missing', full)
  assert sweep.run(_config(), ENTRIES, tmp_path, tmp_path / 'out.jsonl') == 4
  assert capsys.readouterr().err == 'there is no room left.\n'


def test_the_devices_divide_the_batches_of_all_entries(tmp_path, monkeypatch):
  seen = []
  tally = cells.Tally(run=0, claimed=[], failed={}, interrupted=None)
  monkeypatch.setattr(parallel, 'use_cores', seen.append)
  monkeypatch.setattr(sweep.cells, 'run_missing', lambda *a, **o: tally)
  config = _config()
  config.batch_size = 32
  for others in ([], [24], [24, '9']):  # An entry's own mistake is told when it is run.
    found = [{}, *({'batch_size': size} for size in others)]
    assert sweep.run(config, found, tmp_path, tmp_path / 'out.jsonl') == 0
  assert seen == [32, 8, 8]


def test_the_table_is_not_written_over_the_lines(tmp_path, capsys):
  assert sweep.run(_config(), ENTRIES, tmp_path, tmp_path / 'a.md') == 2
  assert '--output is of JSON lines' in capsys.readouterr().err


def test_without_triplets_the_table_has_what_a_run_tells_first():
  config = ml_collections.ConfigDict({'seed': 0, 'lr': 0.1})
  rows = [
    cell.label
    | {
      'wall_clock': {'total_seconds': 60.0},
      'scores': {
        'error_percent': error,
        'fixed_keypoints': {'error_percent': 9.0},
        'images': 4,
      },
    }
    for cell, error in zip(sweep.cells_of(config, ENTRIES), (3, 4, 5), strict=True)
  ]
  head, _, *lines = sweep.table(rows).splitlines()
  assert head.startswith('| setting | seeds | error_percent | fixed_keypoints/error')
  assert lines == ['| lr=0.1 | 2 | 3.5 | 9 | 1.0 |', '| lr=0.2 | 1 | 5 | 9 | 1.0 |']


def test_sweeps_of_a_config_file_are_found_by_name():
  seeds = sweep.entries('configs/simple_shapes.py', 'seeds')
  assert len(seeds) == 20 and seeds[0] == {'data.side': 64, 'seed': 0}
  with pytest.raises(ValueError, match='seeds'):
    sweep.entries('configs/simple_shapes.py', 'pears')
