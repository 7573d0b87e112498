import dataclasses
import functools
import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from img2graph.training import checkpoint
from img2graph.training import errors
from img2graph.training import parallel
from img2graph.training import state as states
from tests.training import toy


@functools.cache
def initial_state():
  # Large enough that storage does not pack the arrays into its own, checked pages.
  method = toy.build_method(train_steps=9, precision='float32', capacity=4, width=16)
  create = functools.partial(states.create, method=method, tx=optax.adam(1e-3), ema=0.9)
  batch = {'image': jnp.zeros((2, 32, 32, 1))}
  sharding = parallel.replicated(parallel.make_mesh())
  return jax.jit(create, out_shardings=sharding)(jax.random.key(0), batch)


def state_at(step):
  state = jax.tree.map(jnp.copy, initial_state())
  scale = 1 + step / 7
  return dataclasses.replace(
    state,
    step=jnp.full_like(state.step, step),
    params=jax.tree.map(lambda p: p * scale, state.params),
  )


def like():
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    initial_state(),
  )


def write(folder, steps, keep=3):
  saver = checkpoint.Checkpoints(folder, keep=keep)
  for step in steps:
    saver.save(
      state_at(step),
      step=step,
      data_state=b'at %d' % step,
      clock={'train_seconds': 1},
      facts={'hardware': {'cores': 2}},
    )
  saver.wait()
  saver.close()
  return saver


def reader(folder):
  warnings = []
  return checkpoint.Checkpoints(folder, keep=3, warn=warnings.append), warnings


def data_files(folder):
  """The files that hold arrays."""
  found = [p for p in pathlib.Path(folder).rglob('d/*') if p.is_file()]
  assert found
  return found


def flip_one_bit(folder):
  # In the middle of an array: storage does not notice that.
  path = max(data_files(folder), key=lambda p: p.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 16
  path.write_bytes(bytes(data))


def cut_in_half(folder):
  for path in data_files(folder):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_metadata(folder):
  path = pathlib.Path(folder) / 'state' / '_METADATA'
  path.write_bytes(path.read_bytes()[:100])


def drop_state(folder):
  shutil.rmtree(pathlib.Path(folder) / 'state')


def drop_progress(folder):
  shutil.rmtree(pathlib.Path(folder) / 'progress')


def empty(folder):
  shutil.rmtree(folder)
  pathlib.Path(folder).mkdir()


def test_what_was_saved_comes_back_bit_for_bit_on_the_wanted_devices(tmp_path):
  write(tmp_path / 'c', [5])
  restored = reader(tmp_path / 'c')[0].restore(like())
  chex.assert_trees_all_equal(restored.state, state_at(5))
  assert restored.data_state == b'at 5' and restored.clock == {'train_seconds': 1}
  assert restored.facts == {'hardware': {'cores': 2}}
  for leaf in jax.tree.leaves(restored.state):
    assert leaf.sharding.is_fully_replicated and len(leaf.devices()) == 4


def test_the_newest_are_kept_and_an_empty_folder_restores_nothing(tmp_path):
  saver, warnings = reader(tmp_path / 'none')
  assert saver.restore(like()) is None
  assert saver.last_good() == 'there is no checkpoint yet'
  written = write(tmp_path / 'c', [1, 2, 3, 4], keep=2)
  assert written.steps() == [3, 4]
  assert written.last_good().startswith('the last good checkpoint is step 4 in')
  assert not warnings


def test_a_saved_state_may_be_donated_at_once(tmp_path):
  saver = checkpoint.Checkpoints(tmp_path / 'c')
  state = state_at(3)
  expected = jax.device_get(state)
  saver.save(state, step=3)
  overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
  jax.block_until_ready(overwrite(state))
  saver.wait()
  saver.close()
  restored = reader(tmp_path / 'c')[0].restore(like())
  chex.assert_trees_all_equal(jax.device_get(restored.state), expected)


@pytest.mark.parametrize(
  'damage',
  [flip_one_bit, cut_in_half, cut_metadata, drop_state, drop_progress, empty],
)
def test_a_broken_checkpoint_is_told_and_the_last_good_one_used(tmp_path, damage):
  folder = tmp_path / 'c'
  write(folder, [1, 2])
  damage(folder / '2')
  saver, warnings = reader(folder)
  restored = saver.restore(like())
  chex.assert_trees_all_equal(restored.state, state_at(1))
  assert restored.data_state == b'at 1'
  (warning,) = warnings
  assert warning.startswith('checkpoint 2 in') and warning.endswith('using step 1.')
  # The step can be written again, and what was broken is not lost.
  assert (tmp_path / 'c-broken' / '2').is_dir()
  saver.save(state_at(2), step=2)
  saver.wait()
  saver.close()
  chex.assert_trees_all_equal(reader(folder)[0].restore(like()).state, state_at(2))


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path):
  folder = tmp_path / 'c'
  write(folder, [1])
  shutil.copytree(folder / '1', folder / '2.orbax-checkpoint-tmp')
  saver, warnings = reader(folder)
  chex.assert_trees_all_equal(saver.restore(like()).state, state_at(1))
  assert not warnings


def test_a_folder_of_broken_checkpoints_alone_is_refused(tmp_path):
  folder = tmp_path / 'c'
  write(folder, [1])
  drop_state(folder / '1')
  with pytest.raises(errors.UserError, match='none of the 1 checkpoints'):
    reader(folder)[0].restore(like())
  assert (folder / '1').is_dir()


def test_the_data_position_of_another_number_of_processes_is_refused(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(parallel, 'gather_bytes', lambda data: [data, data])
  write(tmp_path / 'c', [1])
  with pytest.raises(errors.UserError, match='data position of 2 processes; got 1'):
    reader(tmp_path / 'c')[0].restore(like())


def test_a_full_disk_is_told_before_writing_and_names_the_last_good_step(
  tmp_path, monkeypatch
):
  folder = tmp_path / 'c'
  saver = write(folder, [1])
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
  with pytest.raises(errors.SaveError) as caught:
    saver.save(state_at(2), step=2)
  assert 'no room left on the disk' in str(caught.value)
  assert 'the last good checkpoint is step 1' in str(caught.value)
  assert saver.steps() == [1]


def test_a_write_that_fails_in_the_background_is_told_of_its_own_step(
  tmp_path, monkeypatch
):
  saver = checkpoint.Checkpoints(tmp_path / 'c')
  saver.save(state_at(1), step=1)
  saver.wait()
  saver.save(state_at(2), step=2)
  manager = saver._manager

  def fail():
    raise ValueError('RESOURCE_EXHAUSTED: write: No space left on device [28]')

  monkeypatch.setattr(manager, 'check_for_errors', fail)
  with pytest.raises(errors.SaveError, match='cannot save step 2: there is no room'):
    saver.save(state_at(3), step=3)
  saver.close()


def test_saving_the_same_step_again_does_nothing(tmp_path):
  saver = checkpoint.Checkpoints(tmp_path / 'c')
  saver.save(state_at(1), step=1)
  saver.save(state_at(1), step=1)
  saver.wait()
  saver.close()
  again, _ = reader(tmp_path / 'c')
  again.restore(like())
  again.save(state_at(1), step=1)
  assert np.array_equal(again.steps(), [1])
