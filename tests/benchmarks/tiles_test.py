"""Tests of benchmarks/tiles.py."""

import json

import numpy as np

from benchmarks import tiles


def test_a_street_map_shows_its_graph():
  ink, (nodes, edges) = tiles.street_map(300, 4, 3)
  assert ink.shape == (300, 300)
  middles = nodes[edges].mean(axis=1).astype(int)
  assert ink[middles[:, 1], middles[:, 0]].min() == 1
  assert 2 * len(edges) > len(nodes) >= 14
  _, (others, _) = tiles.street_map(300, 4, 3, seed=1)
  assert len(nodes) != len(others) or np.abs(nodes - others).max() > 1


def test_a_map_is_scored_in_a_process_of_its_own(tmp_path, capsys):
  output = tmp_path / 'tiles.json'
  arguments = ['--side', '256', '--blocks=3', '--line_width=4', '--tile', '128', 'none']
  assert tiles.main([*arguments, f'--output={output}']) == 0
  rows = json.loads(output.read_text())['rows']
  assert [row['tile'] for row in rows] == ['128', 'none']
  for row in rows:
    assert row['nodes']['true'] >= 8
    assert row['node_f1'] > 0.7
    assert row['seconds'] > 0
    assert 50 < row['peak_mib'] < 8000
  assert '256 px' in output.with_suffix('.md').read_text()
