"""Tests of benchmarks/thresholds.py."""

import json

import jax

from benchmarks import thresholds
from img2graph import data
from img2graph import methods
from img2graph import weights

CONFIG = 'configs/image_graph_image.py:ours,smoke'


def test_scores_rise_with_the_distance(tmp_path, capsys):
  config = thresholds.load_config(CONFIG)
  plain = config.to_dict()
  method = methods.build(
    train_steps=4, precision='float32', **plain['method'] | {'decision': 'product'}
  )
  batch = data.build(**plain['data']).sample(jax.random.key(0), 2)
  variables = jax.device_get(jax.jit(method.init)(jax.random.key(1), batch))
  # Every node exists, and so does every edge.
  logit = variables['params']['edge_head']['logit']
  logit['bias'] = logit['bias'] + 9
  path, output = tmp_path / 'weights.npz', tmp_path / 'out' / 'thresholds.json'
  weights.save(path, variables, config=plain, card={})
  arguments = [f'any={path}', f'--config={CONFIG}', '--num_images=16']
  assert thresholds.main([*arguments, f'--output={output}']) == 0
  (row,) = json.loads(output.read_text())['rows']
  f1 = [at['micro'] for at in row['f1'].values()]
  assert len(f1) == len(thresholds.PERCENT)
  assert f1 == sorted(f1) and f1[-1] > f1[0]
  assert output.with_suffix('.md').read_text().startswith('| F1 at | 1 % | 2 % |')


def test_a_mistake_is_one_sentence(capsys):
  for arguments in (
    ['paper', f'--config={CONFIG}'],
    ['a=nowhere.npz', f'--config={CONFIG}'],
    ['a=b', '--config=nowhere.py'],
    ['a=b', '--config=configs/image_graph_image.py:pear'],
  ):
    assert thresholds.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
