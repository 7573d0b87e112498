"""Tests of benchmarks/topology.py."""

import json

import jax
import numpy as np
import pytest

from benchmarks import topology
from configs import autolink
from img2graph import methods
from img2graph import weights


def test_areas_are_those_counted_by_hand():
  there = np.array([True, True, False, False])
  # The second number tells all, upside down; the first three of four pairs.
  fit = np.array([[3.0, -1.0], [1.0, -2.0], [2.0, 5.0], [0.0, 6.0]])
  test = np.array([[3.0, -1.0], [1.0, 4.0], [2.0, 3.0], [0.0, 6.0]])
  found = topology.told(fit, there, test, there)
  # Of the pairs of one with and one without, (-1, 3), (-1, 6) and (4, 6) are in order.
  assert (found['best'], found['of']) == (0.75, 1)
  assert 0 <= found['all'] <= 1


def test_a_graph_with_a_topology_of_its_own_is_judged_limb_by_limb(tmp_path, capsys):
  config = autolink.get_config('smoke')
  config.method.topology.enabled = True
  method = methods.build(train_steps=1, precision='float32', **config.method.to_dict())
  images = np.zeros((2, 32, 32, 3), np.float32)
  variables = jax.jit(method.init)(jax.random.key(0), {'image': images})
  path = tmp_path / 'weights.npz'
  weights.save(path, jax.device_get(variables), config=config.to_dict(), card={})
  output = tmp_path / 'out' / 'topology.json'
  assert topology.main([str(path), '--images=100', f'--output={output}']) == 0
  document = json.loads(output.read_text())
  assert set(document['limbs']) == {'left arm', 'right arm', 'left leg', 'right leg'}
  # Heads of the topology start at 0: presence is the same everywhere, which is chance.
  assert document['mean']['presence'] == {'best': 0.5, 'all': 0.5}
  assert document['mean']['places']['all'] != 0.5
  # Nothing is said to be missing: right as often as the limbs are there.
  assert document['mean']['right'] == document['mean']['right_of_more_frequent'] > 0.6
  with pytest.raises(SystemExit):
    topology.main([str(tmp_path / 'none.npz'), f'--output={output}'])
  assert 'none.npz' in capsys.readouterr().err
