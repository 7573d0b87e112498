"""Tests of benchmarks/capacity.py."""

import json

from benchmarks import capacity
from img2graph import data


def test_pruned_pairs_grow_with_the_nodes_and_all_with_their_square(
  tmp_path, monkeypatch
):
  # Drawings of a generator that compiles in no time.
  shapes = data.build('shapes', side=64)
  monkeypatch.setattr(capacity.data, 'build', lambda **options: shapes)
  output = tmp_path / 'out' / 'capacity.json'
  arguments = ['--nodes', '16', '--rounds=1', '--variant=smoke', f'--output={output}']
  assert capacity.main(arguments) == 0
  pruned, whole = json.loads(output.read_text())['rows']
  assert (pruned['classified'], whole['classified']) == (6 * 16, 16 * 15 // 2)
  assert all(
    row[name] > 0 for row in (pruned, whole) for name in ('predict_ms', 'train_ms')
  )
  assert '| 16 | 96 of 120 |' in output.with_suffix('.md').read_text()


def test_a_mistake_is_one_sentence(capsys):
  assert capacity.main(['--nodes', '1']) == 2
  assert len(capsys.readouterr().err.splitlines()) == 1
