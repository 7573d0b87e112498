import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from PIL import Image

from configs import autolink
from configs import image_graph_image
from configs import simple_shapes
from img2graph import files
from img2graph import plotting
from img2graph import weights
from img2graph.data import archives
from img2graph.data import images
from img2graph.data import sources
from img2graph.training import checkpoint
from img2graph.training import errors
from img2graph.training import lock
from img2graph.training import logging
from img2graph.training import loop
from img2graph.training import parallel
from img2graph.training import record
from tests.training import toy

PROGRAM = pathlib.Path(toy.__file__)
ROOT = PROGRAM.parents[2]


@pytest.fixture(scope='module', autouse=True)
def cache_variables(tmp_path_factory):
  with toy.quick_compilation(tmp_path_factory.mktemp('cache')) as variables:
    yield variables


@pytest.fixture(autouse=True)
def toy_method(monkeypatch):
  toy.register(monkeypatch)


def run(workdir, variant='device', evaluate=False, **changes):
  """Trains the toy; returns (results, what was shown, warnings)."""
  config = toy.get_config(variant)
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  out, err = io.StringIO(), io.StringIO()
  console = logging.Console(out=out, err=err)
  results = loop.train(config, workdir, evaluate=evaluate, console=console)
  return results, out.getvalue(), err.getvalue()


def rows(workdir):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def final_variables(workdir):
  return weights.load(pathlib.Path(workdir) / 'weights.npz')[0]


def final_params(workdir):
  return final_variables(workdir)['params']


@pytest.fixture
def start(cache_variables):
  return functools.partial(start_program, cache_variables)


def start_program(variables, workdir, *flags, devices=1, variant='device'):
  """Starts the toy as a program of its own."""
  config = f'{PROGRAM.parent / "toy_config.py"}:{variant}'
  command = [sys.executable, str(PROGRAM), f'--config={config}', *flags]
  command.append(f'--workdir={workdir}')
  environment = {**os.environ, **variables, 'JAX_NUM_CPU_DEVICES': str(devices)}
  pipe = subprocess.PIPE
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
  )


def finish(process, status=0):
  out, err = process.communicate(timeout=120)
  assert process.returncode == status, out + err
  return out, err


def wait_for(path, process):
  while not path.exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def test_a_run_leaves_all_that_it_should(tmp_path):
  results, shown, warned = run(
    tmp_path, evaluate=True, eval_every=10, panel_every=20, eval__capacities=(3,)
  )
  assert not warned
  assert shown.count(' steps/s ') == 10
  names = {p.name for p in tmp_path.iterdir()}
  assert names >= {
    'config.json', 'checkpoints', 'metrics.jsonl', 'panels', 'weights.npz',
    'results.json',
  }  # fmt: skip
  assert json.loads((tmp_path / 'results.json').read_text()) == results
  assert results['step'] == 20 and results['images_seen'] == 160
  assert results['seed'] == 3 and results['config']['method']['width'] == 3
  assert set(results['scores']['at']) == set(results['scores']['capacity_3']['at'])
  assert results['wall_clock']['total_seconds'] > results['wall_clock']['train_seconds']
  assert {'code', 'versions', 'hardware', 'config_hash'} <= set(results)
  steps = [row['step'] for row in rows(tmp_path) if 'loss' in row]
  assert steps == list(range(2, 21, 2))
  evaluated = [row['step'] for row in rows(tmp_path) if 'eval/f1@0.5' in row]
  assert evaluated == [10, 20]
  assert [p.name for p in (tmp_path / 'panels').iterdir()] == ['step_000020.png']
  Image.open(tmp_path / 'panels' / 'step_000020.png').verify()
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['15', '20']
  _, variables, meta = weights.load_method(tmp_path / 'weights.npz')
  assert meta['card']['step'] == 20 and 'statistics' in variables


def test_a_run_starts_from_weights(tmp_path):
  run(tmp_path / 'first', evaluate=True, train_steps=4)
  path = tmp_path / 'first' / 'weights.npz'
  options = dict(evaluate=True, train_steps=1, optim__lr=1e-12, optim__ema=0.0)
  run(tmp_path / 'second', start_from=str(path), **options)
  run(tmp_path / 'fresh', **options)
  before, after, fresh = map(
    final_params, (tmp_path / 'first', tmp_path / 'second', tmp_path / 'fresh')
  )
  chex.assert_trees_all_close(after, before, atol=1e-6)
  with pytest.raises(AssertionError):
    chex.assert_trees_all_close(fresh, before, atol=1e-3)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (dict(start_from='nowhere.npz'), 'config.start_from: there is no weights file'),
    (dict(start_from='shipped'), 'do not fit this method'),
  ],
)
def test_weights_that_cannot_be_gone_on_from_are_refused(tmp_path, changes, words):
  with pytest.raises(errors.UserError, match=words):
    run(tmp_path / 'new', **changes)
  assert not (tmp_path / 'new').exists()


def test_the_same_call_again_trains_no_further_and_gives_the_same_scores(tmp_path):
  first, _, _ = run(tmp_path, evaluate=True, train_steps=4)
  before = (tmp_path / 'metrics.jsonl').read_text()
  again, shown, _ = run(tmp_path, evaluate=True, train_steps=4)
  assert 'going on from step 4' in shown
  assert again['scores'] == first['scores']
  assert (tmp_path / 'metrics.jsonl').read_text() == before


@pytest.mark.parametrize('variant', ['device', 'host'])
def test_stopping_and_going_on_changes_no_bit(tmp_path, variant, monkeypatch):
  options = dict(variant=variant, optim__ema=0.9, panel_every=7)
  run(tmp_path / 'whole', **options)

  def draw(*args, **kwargs):
    # The panel of step 7 is drawn while the signal comes.
    os.kill(os.getpid(), signal.SIGTERM)
    return plotting.Image.new('RGB', (4, 4))

  with monkeypatch.context() as patch:
    patch.setattr(plotting, 'panel', draw)
    results, shown, _ = run(tmp_path / 'parts', **options)
  assert results == {'interrupted': signal.SIGTERM, 'step': 7}
  assert 'stopped at step 7, saved; the same command goes on.' in shown
  assert not (tmp_path / 'parts' / 'results.json').exists()
  results, shown, _ = run(tmp_path / 'parts', **options)
  assert 'going on from step 7' in shown and results['step'] == 20
  whole, parts = (final_variables(tmp_path / name) for name in ('whole', 'parts'))
  chex.assert_trees_all_equal(whole, parts)
  assert rows(tmp_path / 'whole') == rows(tmp_path / 'parts')
  # The panel that was cut short was drawn after all.
  assert len(list((tmp_path / 'parts' / 'panels').iterdir())) == 2


def test_a_broken_checkpoint_costs_steps_but_changes_no_bit(tmp_path):
  run(tmp_path / 'whole')
  shutil.copytree(tmp_path / 'whole', tmp_path / 'broken')
  shutil.rmtree(tmp_path / 'broken' / 'checkpoints' / '20' / 'state')
  _, shown, warned = run(tmp_path / 'broken')
  assert 'checkpoint 20' in warned and 'is broken' in warned
  assert 'using step 15' in warned and 'going on from step 15' in shown
  whole, mended = (final_variables(tmp_path / name) for name in ('whole', 'broken'))
  chex.assert_trees_all_equal(whole, mended)
  assert rows(tmp_path / 'whole') == rows(tmp_path / 'broken')


def use_one_device(monkeypatch):
  mesh = jax.make_mesh(
    (1,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:1]
  )
  monkeypatch.setattr(parallel, 'make_mesh', lambda: mesh)


@pytest.mark.parametrize('variant', ['device', 'host'])
def test_one_device_learns_what_four_do(tmp_path, variant, monkeypatch):
  run(tmp_path / 'four', variant=variant)
  use_one_device(monkeypatch)
  run(tmp_path / 'one', variant=variant)
  four, one = (final_variables(tmp_path / name) for name in ('four', 'one'))
  chex.assert_trees_all_close(four, one, rtol=1e-5, atol=1e-6)


# Slow enough to be stopped in the middle.
SLOW = dict(train_steps=100, log_every=10, checkpoint_every=10, data__delay=0.02)


def as_flags(changes):
  return [f'--config.{n.replace("__", ".")}={v}' for n, v in changes.items()]


SLOW_FLAGS = as_flags(SLOW)


def test_a_run_killed_twice_ends_in_the_same_bits_as_one_never_killed(
  tmp_path, monkeypatch, start
):
  parts = tmp_path / 'parts'
  for step in (10, 40):
    process = start(parts, '--mode=train', *SLOW_FLAGS, variant='host')
    wait_for(parts / 'checkpoints' / str(step), process)
    process.kill()
    process.communicate()
  out, err = finish(start(parts, '--mode=train', *SLOW_FLAGS, variant='host'))
  assert 'going on from step' in out and not err
  use_one_device(monkeypatch)
  run(tmp_path / 'whole', variant='host', **SLOW)
  whole, parts = (final_variables(tmp_path / name) for name in ('whole', 'parts'))
  chex.assert_trees_all_equal(whole, parts)
  assert rows(tmp_path / 'whole') == rows(tmp_path / 'parts')


def start_together(start, count, workdir, *flags, variant='host', **options):
  """Starts the toy as several processes of one run."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  meeting = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}']
  flags = [*meeting, *flags]
  return [
    start(workdir, f'--process_id={i}', *flags, variant=variant, **options)
    for i in range(count)
  ]


def kill_one(processes, number):
  """Kills one process of a run and checks how the others end."""
  processes[number].kill()
  for process in processes:
    out, err = process.communicate(timeout=60)
    if process is not processes[number]:
      assert process.returncode == parallel.PEER_GONE, out + err
      last = err.splitlines()[-1]
      assert last.lower().startswith('another process of this run is gone')
      assert 'the same command in all processes goes on' in last


def test_two_processes_stop_together_and_learn_what_one_does(tmp_path, start):
  def start_pair():
    flags = ['--mode=train', *SLOW_FLAGS]
    return start_together(start, 2, tmp_path / 'two', *flags, devices=2)

  checkpoints = tmp_path / 'two' / 'checkpoints'
  pair = start_pair()
  wait_for(checkpoints / '10', pair[0])
  kill_one(pair, 0)  # The one that the other is joined to.
  pair = start_pair()
  wait_for(checkpoints / '20', pair[0])
  pair[1].terminate()  # Either may be told; both stop after the same step.
  shown = [finish(process)[0] for process in pair]
  assert 'going on from step' in shown[0]
  assert 'stopped at step' in shown[0] and 'stopped' not in shown[1]
  stopped = max(int(p.name) for p in checkpoints.iterdir())
  assert 20 <= stopped < 100
  # One process cannot take two positions in the data: it is told so.
  with pytest.raises(errors.UserError, match='of 2 processes; got 1'):
    run(tmp_path / 'two', variant='host', **SLOW)
  for process in start_pair():
    finish(process)
  results = json.loads((tmp_path / 'two' / 'results.json').read_text())
  assert results['hardware']['processes'] == 2 and results['hardware']['devices'] == 4
  run(tmp_path / 'one', variant='host', **SLOW)
  one, two = (final_variables(tmp_path / name) for name in ('one', 'two'))
  chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-6)


def test_four_processes_that_lose_one_go_on_and_score_what_one_does(tmp_path, start):
  # Here of images that stay on the devices, of which each process picks its own.
  # Graphs of which the toy finds some: it turns its own with the ink of the image.
  angle = np.arange(4) + 0.9
  true = 0.5 * np.stack([np.cos(angle), np.sin(angle)], -1), [(0, 1), (1, 2)]
  ink = np.linspace(0, 1, 10)[:, None, None] * np.ones((10, 16, 16))
  archives.write(tmp_path / 'a.npz', ink, [true] * 10)
  slow = SLOW | dict(train_steps=40, data__delay=0.05)
  slow |= dict(eval__archive=str(tmp_path / 'a.npz'), eval__num_images=10)
  flags = as_flags(slow)
  four = start_together(start, 4, tmp_path / 'four', *flags, variant='resident')
  wait_for(tmp_path / 'four' / 'checkpoints' / '10', four[0])
  kill_one(four, 2)
  four = start_together(start, 4, tmp_path / 'four', *flags, variant='resident')
  shown = [finish(process)[0] for process in four]
  assert 'going on from step' in shown[0]
  run(tmp_path / 'one', 'resident', evaluate=True, **slow)
  one, four = (final_variables(tmp_path / name) for name in ('one', 'four'))
  chex.assert_trees_all_close(one, four, rtol=1e-5, atol=1e-6)
  one, four = (
    json.loads((tmp_path / name / 'results.json').read_text())['scores']
    for name in ('one', 'four')
  )
  assert one['at'] == four['at'] and one['predicted'] == four['predicted']
  assert 0.1 < one['at']['0.05']['node']['micro']['f1'] < 0.9


def test_a_loss_that_is_not_finite_stops_with_its_step_and_the_last_good_one(tmp_path):
  with pytest.raises(errors.NonFiniteError) as caught:
    run(tmp_path, method__nan_at=12, log_every=10)
  message = str(caught.value)
  # Step 13 is the first to see it; step 15 would have been saved.
  assert 'not finite at step 13' in message
  assert f'the last good checkpoint is step 10 in {tmp_path}' in message
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['10', '5']
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
  def write(path, data):
    if path.name == 'results.json':
      raise OSError(28, 'No space left on device')
    return original(path, data)

  original = files.write_atomically
  monkeypatch.setattr(files, 'write_atomically', write)
  with pytest.raises(errors.SaveError) as caught:
    run(tmp_path)
  assert str(caught.value) == (
    'there is no room left on the disk; '
    f'the last good checkpoint is step 20 in {tmp_path / "checkpoints"}.'
  )


@pytest.mark.parametrize('name', ['metrics.jsonl', 'results.json', 'panels'])
def test_what_cannot_be_written_is_said_in_one_sentence(tmp_path, name):
  # A folder where a file should be, or the reverse.
  if name == 'panels':
    (tmp_path / name).write_text('')
  else:
    (tmp_path / name).mkdir()
  with pytest.raises(errors.SaveError) as caught:
    run(tmp_path, train_steps=2, panel_every=2)
  message = str(caught.value)
  assert (
    message.startswith('the run cannot go on: ') and str(tmp_path / name) in message
  )
  assert 'checkpoint' in message


def test_training_alone_keeps_the_scores_of_a_run_that_is_done(tmp_path):
  first, _, _ = run(tmp_path, evaluate=True, train_steps=2)
  names = ('results.json', 'weights.npz')
  before = [(tmp_path / name).read_bytes() for name in names]
  again, shown, _ = run(tmp_path, evaluate=False, train_steps=2)
  assert first['scores'] and again == json.loads(before[0])
  assert [(tmp_path / name).read_bytes() for name in names] == before
  assert 'is trained and scored already' in shown


def test_evaluation_alone_scores_the_newest_checkpoint_by_its_average(tmp_path):
  run(tmp_path, optim__ema=0.9)
  (tmp_path / 'results.json').unlink()
  config = toy.get_config()
  config.optim.ema = 0.9
  config.eval.num_images = 8  # How it is judged may differ.
  console = logging.Console(out=io.StringIO())
  results = loop.evaluate(config, tmp_path, console=console)
  assert results['step'] == 20 and results['scores']['images'] == 8
  assert json.loads((tmp_path / 'results.json').read_text()) == results
  config.optim.lr = 1.0
  with pytest.raises(errors.UserError, match='optim.lr'):
    loop.evaluate(config, tmp_path, console=console)
  with pytest.raises(errors.UserError, match='no checkpoint in'):
    loop.evaluate(config, tmp_path / 'elsewhere', console=console)


def test_any_number_of_processes_scores_what_others_trained(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    # Checkpoints with the positions of two.
    patch.setattr(parallel, 'gather_bytes', lambda data: [data, data])
    trained, _, _ = run(tmp_path, 'host', evaluate=True, train_steps=2)
  with pytest.raises(errors.UserError, match='of 2 processes; got 1'):
    run(tmp_path, 'host', train_steps=2)
  config = toy.get_config('host')
  config.train_steps = 2
  console = logging.Console(out=io.StringIO())
  results = loop.evaluate(config, tmp_path, console=console)
  assert results['scores'] == trained['scores']


def test_what_scores_a_run_later_is_told_beside_what_trained_it(tmp_path, monkeypatch):
  trained, _, _ = run(tmp_path)
  told = ('code', 'versions', 'hardware', 'step_memory_mib', 'seeds_at_once')
  here = {'platform': 'elsewhere'}
  monkeypatch.setattr(record, 'hardware', lambda: here)
  (tmp_path / 'results.json').unlink()
  console = logging.Console(out=io.StringIO())
  for results in (
    loop.evaluate(toy.get_config(), tmp_path, console=console),
    run(tmp_path)[0],  # The same command once more: no step is left.
  ):
    for name in told:
      assert results[name] == trained[name], name
    assert results['peak_memory_mib'] > 0
  results = loop.evaluate(toy.get_config(), tmp_path, console=console)
  assert results['evaluated_by']['hardware'] == here
  assert set(results['evaluated_by']) == {'code', 'versions', 'hardware'}
  assert 'evaluated_by' not in trained and trained['hardware'] != here


def test_facts_and_times_of_runs_of_old_are_kept(tmp_path, monkeypatch):
  restore = checkpoint.Checkpoints.restore

  def restore_old(self, like, **options):
    found = restore(self, like, **options)
    clock = {n: s for n, s in found.clock.items() if not n.startswith('own_')}
    return dataclasses.replace(found, facts={}, clock=clock)

  trained, _, _ = run(tmp_path)
  trained['seeds_at_once'] = 2  # As if another had been trained beside.
  (tmp_path / 'results.json').write_text(json.dumps(trained))
  monkeypatch.setattr(checkpoint.Checkpoints, 'restore', restore_old)
  monkeypatch.setattr(record, 'hardware', lambda: {'platform': 'elsewhere'})
  console = logging.Console(out=io.StringIO())
  results = loop.evaluate(toy.get_config(), tmp_path, console=console)
  for name in ('code', 'versions', 'hardware', 'step_memory_mib', 'seeds_at_once'):
    assert results[name] == trained[name], name
  times = results['wall_clock']
  assert times['own_train_seconds'] == times['train_seconds'] / 2


def test_choosing_what_is_kept_is_no_training(tmp_path, monkeypatch):
  now = [0.0]
  speed = functools.partial(logging.Speed, clock=lambda: now[0])
  monkeypatch.setattr(loop.logging, 'Speed', speed)

  def choose(plan, state, scores):
    now[0] += 1000
    return scores, state.eval_variables

  monkeypatch.setattr(loop, '_choose', choose)
  results, _, _ = run(tmp_path)
  assert results['wall_clock']['train_seconds'] == 0


def test_images_without_graphs_are_judged_by_their_loss(tmp_path):
  results, shown, _ = run(tmp_path, 'host', evaluate=True, optim__lr=1e-6)
  assert set(results['scores']) == {'images', 'predicted', 'loss'}
  # Untrained it draws near nothing: the loss is that of uniform noise, E[x^2] = 1/3.
  np.testing.assert_allclose(results['scores']['loss'], 1 / 3, rtol=0.2)
  assert 'step 20  loss 0.' in shown


@pytest.mark.parametrize('seed', range(3))
def test_the_loss_of_an_exam_counts_every_image_once(seed):
  images = np.array([0, 0, 1], np.float32).reshape(3, 1, 1, 1)
  source = sources.HostSource(
    iterate=None, side=1, size=3, whole={'image': images}, with_targets=None
  )
  exam = object.__new__(loop._Exam)
  exam._options = dict(seed=seed, num_images=100, batch_size=2)
  exam._train_steps = 1
  exam._loss_fn = lambda variables, batch, key, step: (batch['image'].mean(), {})
  exam._data = source
  assert exam._loss({}) == pytest.approx(1 / 3)
  # What the drawing is to look like is as in training.
  exam._data = dataclasses.replace(
    source, with_targets=lambda batch: {'image': 1 - batch['image']}
  )
  assert exam._loss({}) == pytest.approx(2 / 3)


def test_an_image_that_no_exam_can_read_is_told_and_the_run_goes_on_later(
  tmp_path, monkeypatch
):
  def unreadable(*arguments, **options):
    raise images.BadImage('photos/7.png is damaged.')

  with monkeypatch.context() as patch:
    patch.setattr(loop.evaluation, 'evaluate', unreadable)
    with pytest.raises(errors.UserError, match='^photos/7.png is damaged.$'):
      run(tmp_path, 'host', evaluate=True, train_steps=2)
  results, _, _ = run(tmp_path, 'host', evaluate=True, train_steps=2)
  assert results['step'] == 2


def test_a_workdir_of_another_config_is_refused_with_what_differs(tmp_path):
  run(tmp_path, train_steps=2)
  before = (tmp_path / 'config.json').read_text()
  with pytest.raises(errors.UserError) as caught:
    run(tmp_path, train_steps=3, optim__lr=0.5)
  message = str(caught.value)
  assert 'optim.lr (0.01 there, 0.5 here)' in message
  assert 'train_steps (2 there, 3 here)' in message and 'seed' not in message
  assert (tmp_path / 'config.json').read_text() == before
  (tmp_path / 'config.json').write_text('{"a"')
  with pytest.raises(errors.UserError, match='config.json is damaged'):
    run(tmp_path, train_steps=2)
  (tmp_path / 'config.json').unlink()
  with pytest.raises(errors.UserError, match='no config.json'):
    run(tmp_path, train_steps=2)
  file = tmp_path / 'a file'
  file.write_text('')
  with pytest.raises(errors.UserError, match='is a file; it should be a folder'):
    run(file)


def test_processes_with_configs_of_their_own_are_told_so(tmp_path, monkeypatch):
  def gather(data):
    return [data, data.replace(b'"lr": 0.01', b'"lr": 0.5')]

  monkeypatch.setattr(parallel, 'gather_bytes', gather)
  with pytest.raises(
    errors.UserError,
    match=r'they differ in optim.lr \(0.5 in process 1, 0.01 in process 0\)',
  ):
    run(tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_a_workdir_that_another_run_is_at_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, '_PATIENCE', 0.0)
  run(tmp_path, train_steps=2)
  before = (tmp_path / 'metrics.jsonl').read_text()
  with lock.hold(tmp_path):
    with pytest.raises(errors.UserError, match='another run is at'):
      run(tmp_path, train_steps=2)
  assert (tmp_path / 'metrics.jsonl').read_text() == before


def test_a_run_that_never_began_leaves_its_workdir_to_another_config(
  tmp_path, monkeypatch
):
  # For example since a file that the loss reads is not there.
  with monkeypatch.context() as patch:
    patch.setattr(loop.states, 'create', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      run(tmp_path, train_steps=2)
  assert (tmp_path / 'config.json').exists()
  results, _, _ = run(tmp_path, train_steps=3)
  assert results['step'] == 3
  assert json.loads((tmp_path / 'config.json').read_text())['train_steps'] == 3


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(batch_size=6), 'multiple of the number of devices (4); got 6'),
    (dict(batch_size=-8), 'config.batch_size must be a positive whole number; got -8'),
    (dict(train_steps=0), 'config.train_steps must be'),
    (dict(log_every=0), 'config.log_every must be'),
    (dict(checkpoint_every=-1), 'config.checkpoint_every must be'),
    (dict(keep_checkpoints=0), 'config.keep_checkpoints must be'),
    (dict(seed=-1), 'config.seed must be'),
    (dict(method__capacity=1), 'config.method.capacity must be at least 2; got 1'),
    (dict(method__capacity=0), 'config.method.capacity must be at least 2; got 0'),
    (dict(method__width=-3), 'config.method: method.width must be positive; got -3'),
    (dict(method__name='magic'), "config.method: there is no method named 'magic'"),
    (dict(data__side=-16), 'config.data.side must be'),
    (dict(data__source='webcam'), 'config.data: there is no data source'),
    (dict(data__level=-1.0), 'config.data: level must be positive'),
    (dict(optim__lr=0.0), 'config.optim: optim.lr must be positive'),
    (dict(optim__ema=1.0), 'config.optim.ema must be'),
    (dict(eval__num_images=0), 'config.eval.num_images must be'),
    (dict(eval__batch_size=-2), 'config.eval.batch_size must be'),
    (dict(eval__thresholds=()), 'config.eval.thresholds must be'),
    (dict(eval__thresholds=(0.1, 0.1)), 'config.eval.thresholds must be different'),
    (dict(eval__capacities=(4, 1)), 'config.eval.capacities must each be at least 2'),
    (dict(eval__archive='nowhere.npz'), 'config.eval: '),
  ],
)
def test_a_config_that_no_run_can_have_is_refused(tmp_path, changes, words):
  with pytest.raises(errors.UserError) as caught:
    run(tmp_path / 'new', **changes)
  message = str(caught.value)
  assert words in message and '\n' not in message
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('capacities', 4, 'capacities must be a list of whole numbers; got 4.'),
    ('capacities', None, 'capacities must be a list of whole numbers; got None.'),
    ('kind', ['graph'], "kind must be one of graph, keypoints, classes; got ['graph']"),
  ],
)
def test_values_of_another_type_are_refused_in_one_sentence(name, value, words):
  config = toy.get_config().to_dict()
  config['eval'][name] = value
  with pytest.raises(errors.UserError) as caught:
    loop.check_config(config)
  assert f'config.eval.{words}' in str(caught.value)


def test_other_capacities_are_those_of_prediction(tmp_path):
  config = simple_shapes.get_config('smoke')
  config.method.predict_capacity = 12
  config.eval.capacities = (4, 16)
  batch = {'image': np.zeros((1, 64, 64, 1), np.float32)}
  [plan] = loop._plans([config.to_dict()], [tmp_path], logging.Console(active=False))
  sizes = {}
  for name, method in plan.exam._methods.items():
    variables = jax.eval_shape(method.init, jax.random.key(0), batch)
    graph = jax.eval_shape(method.predict, variables, batch['image'])
    sizes[name] = graph.capacity
  assert sizes == {'': 12, 'capacity_4': 4, 'capacity_16': 16}


def test_nodes_that_are_one_map_each_have_one_capacity(tmp_path):
  config = simple_shapes.get_config('paper_smoke')
  config.eval.capacities = (config.method.capacity + 1,)
  with pytest.raises(errors.UserError, match='need nodes of kind proposals'):
    loop.train(config, tmp_path / 'new')


@pytest.mark.parametrize(
  'family, variant, words',
  [
    (simple_shapes, 'paper_smoke', 'takes 64: data.side must be that of config.method'),
    (image_graph_image, 'baseline,smoke', 'takes 64'),
    (autolink, 'smoke', 'takes 32'),
  ],
)
def test_images_of_a_side_that_prediction_never_has_are_refused(
  tmp_path, family, variant, words
):
  config = family.get_config(variant)
  config.data.side = 48
  expected = f'config.data: the images have 48 pixels a side, and the method {words}'
  with pytest.raises(errors.UserError, match=expected):
    loop.train(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_images_with_a_canonical_form_have_any_side():
  config = simple_shapes.get_config('smoke')
  config.data.side = 48
  console = logging.Console(active=False)
  [plan] = loop._plans([config.to_dict()], ['nowhere'], console)
  assert plan.source.side == 48 and not plan.method.only_sides


def change_method(monkeypatch, **changes):
  """Gives the toy's method other functions."""
  module = sys.modules['img2graph.methods.toy']
  build = module.build
  monkeypatch.setattr(
    module, 'build', lambda **options: dataclasses.replace(build(**options), **changes)
  )


def test_a_method_without_panels_is_asked_for_none(tmp_path, monkeypatch):
  change_method(monkeypatch, reconstruct=None)
  message = '^config.panel_every must be 0: the method toy has no panels.$'
  with pytest.raises(errors.UserError, match=message):
    run(tmp_path / 'new', train_steps=2, panel_every=2)
  assert not (tmp_path / 'new').exists()
  assert run(tmp_path / 'new', train_steps=2)[0]['step'] == 2


@pytest.mark.parametrize('variant', ['device', 'host', 'resident'])
@pytest.mark.parametrize('name, shown', [('image', 'images'), ('target', 'targets')])
def test_images_of_another_rank_are_refused(
  tmp_path, monkeypatch, variant, name, shown
):
  def spoil(function):
    def spoiled(*args, **options):
      batch = function(*args, **options)
      return batch | {name: batch['image'][..., 0]} if 'image' in batch else batch

    return spoiled

  module = sys.modules[f'img2graph.data.{toy.get_config(variant).data.source}']
  build = module.source

  @functools.wraps(build)  # Its options are known by its signature.
  def source(**options):
    found = build(**options)
    part = {'device': 'sample', 'resident': 'complete'}.get(variant)
    if part:
      return dataclasses.replace(found, **{part: spoil(getattr(found, part))})
    monkeypatch.setattr(toy.Numbers, '__next__', spoil(toy.Numbers.__next__))
    return found

  monkeypatch.setattr(module, 'source', source)
  with pytest.raises(errors.UserError) as caught:
    run(tmp_path / 'new', variant)
  message = f'config.data: the {shown} must be [B, H, W, C]; got (8, 16, 16).'
  assert str(caught.value) == message
  assert not (tmp_path / 'new').exists()


def test_sides_are_those_of_images(tmp_path):
  config = simple_shapes.get_config('smoke')
  config.method.sides = ()
  with pytest.raises(errors.UserError, match=r'config.method: method.sides .*got \(\)'):
    loop.train(config, tmp_path / 'new')


def test_what_the_config_lacks_is_named(tmp_path):
  config = toy.get_config().to_dict()
  del config['eval']['seed'], config['panel_every']
  with pytest.raises(errors.UserError, match='lacks panel_every, eval.seed'):
    loop.train(config, tmp_path / 'new')


def test_data_that_fail_on_the_way_are_the_users_to_mend(tmp_path, monkeypatch):
  def fail(self):
    if self._at > 3:
      raise OSError(5, 'Input/output error', 'image_7.png')
    return original(self)

  original = toy.Numbers.__next__
  monkeypatch.setattr(toy.Numbers, '__next__', fail)
  with pytest.raises(errors.UserError, match='config.data: Input/.* image_7.png'):
    run(tmp_path, 'host')
