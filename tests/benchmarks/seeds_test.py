"""Tests of benchmarks/seeds.py."""

import json

import pytest

from benchmarks import seeds
from configs import image_graph_image
from tests.training import toy


@pytest.fixture
def _toy(monkeypatch):
  toy.register(monkeypatch)
  config = toy.get_config()
  config.checkpoint_every = 0
  monkeypatch.setattr(image_graph_image, 'get_config', lambda variant: config)


def test_costs_are_those_of_all_seeds_over_one(tmp_path, monkeypatch, capsys):
  calls = []

  def pretend(function, variant, *arguments, devices, cache, **options):
    calls.append((function, arguments, devices))
    count = arguments[-1]
    if function == 'time_steps':
      found = {'clock': 0.5 + 0.5 * count, 'processor': count, 'compile': 9}
      return found | {'devices': 2 if devices is None else devices}
    first = arguments[0]
    # The first run compiles.
    return {'clock': 10.0 * count - 4 * first, 'processor': 8.0 * count}

  monkeypatch.setattr(seeds, '_in_process', pretend)
  output = tmp_path / 'out' / 'seeds.json'
  arguments = ['--recipes', 'ours,cpu', '--note=busy', f'--output={output}']
  assert seeds.main(arguments) == 0
  report = json.loads(output.read_text())
  after, vmapped, split, shared = report['rows']
  assert report['note'] == 'busy' and report['load_average']['before'] >= 0
  assert after['way'] == split['way'] == 'one after another'
  assert after['over_one']['step'] == {'clock': 10, 'processor': 10}
  assert after['over_one']['run'] == {'clock': (10 + 9 * 6) / 10, 'processor': 10}
  assert vmapped['over_one']['step'] == {'clock': 5.5, 'processor': 10}
  assert (vmapped['devices'], shared['devices']) == (1, 2)
  assert ('time_run', (0, 10), 1) in calls and ('time_run', (0, 10), None) in calls
  assert '| ours,cpu | vmapped (1) | 1000 | 5.50 | 10.00 | 10.00 |' in (
    output.with_suffix('.md').read_text()
  )
  assert seeds.main([*arguments, '--train_steps=0']) == 0
  assert list(json.loads(output.read_text())['rows'][0]['over_one']) == ['step']


@pytest.mark.usefixtures('_toy')
def test_steps_and_runs_are_timed():
  found = seeds.time_steps('toy', 2, steps=2, rounds=2)
  assert found['devices'] == 4 and min(found.values()) > 0
  found = seeds.time_run('toy', 5, 1, train_steps=2)
  assert 0 < found['processor'] and 0 < found['clock'] < 100


@pytest.mark.parametrize(
  'arguments', [['--seeds=1'], ['--steps=0'], ['--recipes', 'cake,cpu']]
)
def test_a_mistake_is_one_sentence(arguments, capsys):
  assert seeds.main(arguments) == 2
  assert len(capsys.readouterr().err.splitlines()) == 1
