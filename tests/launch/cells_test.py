"""Tests of launch/cells.py."""

import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import ml_collections
import pytest

from img2graph import files
from img2graph.training import errors
from img2graph.training import interrupt
from img2graph.training import parallel
from launch import cells
from tests.launch import worker

ROOT = pathlib.Path(__file__).parents[2]


def _start(workdir, seeds, seconds, *joined):
  command = [sys.executable, '-m', 'tests.launch.worker']
  arguments = [str(v) for v in (workdir, seeds, seconds, *joined)]
  return subprocess.Popen(
    command + arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True
  )


def _wait_for(condition, what):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end, what
    time.sleep(0.01)


def test_workers_share_the_cells_and_take_up_those_of_the_dead(tmp_path):
  first = _start(tmp_path, 1, 60)
  count = tmp_path / 'seed_0' / 'count'
  _wait_for(lambda: count.exists() or first.poll() is not None, 'it never began')
  others = [_start(tmp_path, 6, 0.3) for _ in range(3)]
  # All but the first cell are done, which waits for the one that is at it.
  _wait_for(lambda: len(cells.read(tmp_path / 'out.jsonl')) == 5, 'five cells')
  time.sleep(0.2)
  assert all(process.poll() is None for process in others)
  reached = int(count.read_text())
  first.send_signal(signal.SIGKILL)
  first.wait()
  tallies = [json.loads(p.communicate(timeout=60)[0].splitlines()[-1]) for p in others]
  rows = cells.read(tmp_path / 'out.jsonl')
  assert sorted(row['config']['seed'] for row in rows) == list(range(6))
  assert all(row['table'] == 'a' for row in rows)
  assert sum(tally['run'] for tally in tallies) == 6
  workers = {
    seed: (tmp_path / f'seed_{seed}' / 'workers').read_text().split()
    for seed in range(6)
  }
  # Once each; the first by one more, who went on counting.
  assert [len(workers[seed]) for seed in range(6)] == [2, 1, 1, 1, 1, 1]
  assert 0 < reached < 10 and int(count.read_text()) == 10


def test_processes_that_train_together_claim_together(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    place = f'127.0.0.1:{free.getsockname()[1]}'
  pair = [_start(tmp_path, 4, 0.5, place, 2, i) for i in range(2)]
  alone = _start(tmp_path, 4, 0.5)
  shown = [process.communicate(timeout=60)[0] for process in (*pair, alone)]
  tallies = [json.loads(text.splitlines()[-1]) for text in shown]
  rows = cells.read(tmp_path / 'out.jsonl')
  assert sorted(row['config']['seed'] for row in rows) == list(range(4))
  assert tallies[0]['run'] + tallies[2]['run'] == 4 and tallies[1]['run'] == 0
  parts = [
    sorted(f.parents[1].name for f in tmp_path.glob(f'*/{name}/count'))
    for name in ('part_0', 'part_1')
  ]
  assert parts[0] == parts[1] and len(parts[0]) == tallies[0]['run']


def test_processes_that_wait_for_others_stop_when_one_is_told_to(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    place = f'127.0.0.1:{free.getsockname()[1]}'
  with cells.claim(tmp_path / 'claims' / 'seed_0.lock'):
    # Their only run is over before: what they are told, no run will see.
    pair = [_start(tmp_path, 2, 0.1, place, 2, i) for i in range(2)]
    _wait_for(lambda: (tmp_path / 'out.jsonl').exists(), 'the other cell')
    pair[1].terminate()
    shown = [process.communicate(timeout=60)[0] for process in pair]
  tallies = [json.loads(text.splitlines()[-1]) for text in shown]
  assert [t['interrupted'] for t in tallies] == 2 * [signal.SIGTERM]
  assert len(cells.read(tmp_path / 'out.jsonl')) == tallies[0]['run'] == 1


def test_a_process_with_other_cells_than_the_first_one_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'is_first', lambda: False)
  monkeypatch.setattr(parallel, 'first_tells', lambda text: 'seed_1\nseed_2')
  seen = []
  with pytest.raises(errors.UserError, match='at seed_2, .* the same in all processes'):
    cells.run_missing(
      worker.make_cells(2), tmp_path, tmp_path / 'out', train=_train(seen)
    )
  assert not seen


def test_a_claim_holds_once_until_it_ends(tmp_path):
  path = tmp_path / 'deep' / 'a.lock'
  with cells.claim(path) as mine:
    with cells.claim(path) as theirs:
      assert mine and not theirs
  with cells.claim(path) as again:
    assert again


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  def refuse(*args):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(cells.fcntl, 'flock', refuse)
  with pytest.raises(errors.UserError, match='has no locks'):
    with cells.claim(tmp_path / 'a.lock'):
      pass


def test_a_workdir_that_cannot_be_made_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='the workdir cannot be used: .*file'):
    with cells.claim(tmp_path / 'file' / 'a.lock'):
      pass


def test_lines_added_at_the_same_time_are_all_there(tmp_path):
  path = tmp_path / 'out.jsonl'

  def add(first):
    for i in range(first, first + 20):
      cells.append(path, {'i': i}, tmp_path / 'lock')

  threads = [threading.Thread(target=add, args=(20 * k,)) for k in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(row['i'] for row in cells.read(path)) == list(range(80))


@pytest.mark.parametrize('place', ['file/out.jsonl', 'folder'])
def test_an_output_that_cannot_be_written_is_told_before_anything_is_run(
  tmp_path, place
):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  seen = []
  with pytest.raises(
    errors.UserError, match=f'the output cannot be written: .*{place[:4]}'
  ):
    cells.run_missing(
      worker.make_cells(1), tmp_path / 'runs', tmp_path / place, train=_train(seen)
    )
  assert not seen


def test_a_line_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  def write(path, data):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  monkeypatch.setattr(files, 'write_atomically', write)
  with pytest.raises(errors.SaveError, match='No space .* stays in the workdir'):
    cells.append(tmp_path / 'out.jsonl', {}, tmp_path / 'lock')


def test_a_damaged_line_is_named(tmp_path):
  path = tmp_path / 'out.jsonl'
  path.write_text('{"a": 1}\n{"a": \n')
  with pytest.raises(errors.UserError, match='line 2 is damaged'):
    cells.read(path)


def _train(seen):
  def train(config, workdir):
    seen.append(config.seed)
    return worker.train_slowly(0.0, config, workdir)

  return train


def test_what_is_recorded_is_not_run_again(tmp_path):
  seen, output = [], tmp_path / 'out.jsonl'
  run = lambda n, path: cells.run_missing(  # noqa: E731
    worker.make_cells(n), tmp_path, path, train=_train(seen), others=[output]
  )
  assert run(2, output) == cells.Tally(2, [], {}, None)
  assert run(3, output).run == 1
  assert seen == [0, 1, 2]
  # Another table takes the lines of this one.
  assert run(3, tmp_path / 'other.jsonl').run == 0
  assert len(cells.read(tmp_path / 'other.jsonl')) == 3
  changed = [
    cell._replace(config=cells.override(cell.config, {'lr': 0.2}))
    for cell in worker.make_cells(1)
  ]
  cells.run_missing(changed, tmp_path, output, train=_train(seen))
  assert seen == [0, 1, 2, 0]


def test_a_cell_that_another_finishes_before_the_claim_is_not_run(
  tmp_path, monkeypatch
):
  claim, output, seen = cells.claim, tmp_path / 'out.jsonl', []
  (cell,) = worker.make_cells(1)

  def claim_late(path):
    if path.name == 'seed_0.lock':
      row = worker.train_slowly(0.0, cell.config, tmp_path / 'elsewhere')
      cells.append(output, row | cell.label, tmp_path / 'lock')
    return claim(path)

  monkeypatch.setattr(cells, 'claim', claim_late)
  assert cells.run_missing([cell], tmp_path, output, train=_train(seen)).run == 0
  assert not seen and len(cells.read(output)) == 1


def test_a_cell_that_fails_leaves_the_others(tmp_path):
  said = []

  def train(config, workdir):
    if config.seed == 1:
      raise errors.NonFiniteError('the loss is not finite at step 3.')
    return worker.train_slowly(0.0, config, workdir)

  tally = cells.run_missing(
    worker.make_cells(3), tmp_path, tmp_path / 'out', train=train, say=said.append
  )
  assert tally.run == 2 and list(tally.failed) == ['seed_1']
  assert 'seed_1 failed: the loss is not finite at step 3.' in said


def test_a_cell_that_does_not_fit_into_memory_leaves_the_others(tmp_path):
  def train(config, workdir):
    if config.seed < 2:
      kind = 'RESOURCE_EXHAUSTED' if config.seed else 'INTERNAL'
      raise jax.errors.JaxRuntimeError(f'{kind}: of 8 GiB.\nMore about it.')
    return worker.train_slowly(0.0, config, workdir)

  bug, *others = worker.make_cells(3)
  tally = cells.run_missing(others, tmp_path, tmp_path / 'out', train=train)
  sentence = 'memory does not suffice (RESOURCE_EXHAUSTED: of 8 GiB).'
  assert tally == cells.Tally(1, [], {'seed_1': sentence}, None)
  with pytest.raises(jax.errors.JaxRuntimeError):
    cells.run_missing([bug], tmp_path, tmp_path / 'out', train=train)


def test_an_interrupted_cell_is_not_recorded_and_ends_the_call(tmp_path):
  tally = cells.run_missing(
    worker.make_cells(3),
    tmp_path,
    tmp_path / 'out',
    train=lambda config, workdir: {'interrupted': 15, 'step': 3},
  )
  assert tally == cells.Tally(0, [], {}, 15)
  assert not (tmp_path / 'out').exists()


def test_no_cell_is_begun_after_a_signal_that_came_too_late_for_the_one_before(
  tmp_path,
):
  seen = []

  def train(config, workdir):
    seen.append(config.seed)
    with interrupt.StopSignal():
      os.kill(os.getpid(), signal.SIGTERM)
    return worker.train_slowly(0.0, config, workdir)

  run = lambda n: cells.run_missing(  # noqa: E731
    worker.make_cells(n), tmp_path, tmp_path / 'out', train=train
  )
  assert run(3) == cells.Tally(1, [], {}, signal.SIGTERM)
  assert run(2) == cells.Tally(1, [], {}, None)  # All is done.
  assert seen == [0, 1]


def test_seeds_of_one_row_are_run_together(tmp_path):
  groups, output = [], tmp_path / 'out.jsonl'
  other = [
    cell._replace(
      name=f'other_{cell.name}', config=cells.override(cell.config, {'lr': 0.2})
    )
    for cell in worker.make_cells(5)
  ]
  # Rows take turns, as those of a table do.
  wanted = [c for pair in zip(worker.make_cells(5), other, strict=True) for c in pair]

  def train_seeds(configs, workdirs):
    groups.append([(c.lr, c.seed) for c in configs])
    found = [
      worker.train_slowly(0.0, c, w) for c, w in zip(configs, workdirs, strict=True)
    ]
    if configs[0].lr == 0.2 and len(configs) == 3:
      found[1] = errors.NonFiniteError('seed 1: the loss is not finite at step 3.')
    return found

  def run():
    return cells.run_missing(
      wanted,
      tmp_path,
      output,
      train=_train(seen),
      train_seeds=train_seeds,
      at_once=3,
      say=lambda sentence: None,
    )

  seen = []
  with cells.claim(tmp_path / 'claims' / 'seed_1.lock'):
    tally = run()
  assert groups == [
    [(0.1, 0), (0.1, 2), (0.1, 3)],
    [(0.2, 0), (0.2, 1), (0.2, 2)],
    [(0.2, 3), (0.2, 4)],
  ]
  assert seen == [4] and tally.run == 8 and tally.claimed == ['seed_1']
  assert list(tally.failed) == ['other_seed_1']
  assert len(cells.read(output)) == 8
  del groups[:], seen[:]
  assert run().run == 2 and seen == [1, 1] and not groups


def test_of_seeds_stopped_together_the_finished_ones_are_recorded(tmp_path):
  def train_seeds(configs, workdirs):
    stopped = {'interrupted': 15, 'step': 3}
    return [stopped, worker.train_slowly(0.0, configs[1], workdirs[1])]

  tally = cells.run_missing(
    worker.make_cells(2),
    tmp_path,
    tmp_path / 'out',
    train=None,
    train_seeds=train_seeds,
    at_once=2,
  )
  assert tally == cells.Tally(1, [], {}, 15)
  assert cells.read(tmp_path / 'out')[0]['config']['seed'] == 1


def test_others_cells_are_left_to_them(tmp_path):
  seen = []
  with cells.claim(tmp_path / 'claims' / 'seed_1.lock'):
    tally = cells.run_missing(
      worker.make_cells(3), tmp_path, tmp_path / 'out', train=_train(seen)
    )
  assert seen == [0, 2] and tally.claimed == ['seed_1']


@pytest.mark.parametrize('stopped', [False, True])
def test_a_cell_that_another_finishes_meanwhile_is_not_told_as_claimed(
  tmp_path, stopped
):
  output = tmp_path / 'out.jsonl'
  theirs, ours = worker.make_cells(2)

  def train(config, workdir):
    row = worker.train_slowly(0.0, theirs.config, tmp_path / 'elsewhere')
    cells.append(output, row | theirs.label, tmp_path / 'lock')
    if stopped:
      return {'interrupted': 15, 'step': 3}
    return worker.train_slowly(0.0, config, workdir)

  with cells.claim(tmp_path / 'claims' / f'{theirs.name}.lock'):
    tally = cells.run_missing([theirs, ours], tmp_path, output, train=train)
  expected = cells.Tally(0, [], {}, 15) if stopped else cells.Tally(1, [], {}, None)
  assert tally == expected and len(cells.read(output)) == 1 + tally.run


def test_overrides_replace_values_and_whole_parts():
  config = ml_collections.ConfigDict({'a': {'kind': 'x', 'size': 3}, 'b': None})
  found = cells.override(config, {'a.size': 4, 'b': {'c': 1}})
  assert found.to_dict() == {'a': {'kind': 'x', 'size': 4}, 'b': {'c': 1}}
  found = cells.override(config, {'a': {'kind': 'y', 'width': 5}})
  assert found.to_dict() == {'a': {'kind': 'y', 'width': 5}, 'b': None}
  assert config.a.size == 3
  for name in ('c', 'a.c', 'b.c', 'a.size.c'):
    with pytest.raises(ValueError, match=f'no value .{name}'):
      cells.override(config, {name: 1})
