"""Checkpoints: state, data position and clock of a run, written while it goes on.

A folder per step, `DIR/<step>`, written by orbax: under another name first, and renamed
when complete, so a run killed in the middle of it leaves the checkpoint before it.
Each holds a fingerprint of its arrays; one that is damaged on disk is told from a good
one, set aside in `DIR-broken/`, and the last good one is used.

Several processes must see the same folder. Each notes its own position in the data; the
arrays, of which all hold the whole, are written by the first process alone, and a
checkpoint is complete when all processes have done their part.
"""

import base64
import contextlib
import dataclasses
import logging
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from img2graph.training import errors
from img2graph.training import parallel
from img2graph.training import state as states


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint held.

  Attributes:
    state: a `TrainState` on the devices.
    data_state: position of this process's data iterator, or None.
    clock: what the run counts beside steps, `{name: number}`.
    facts: where and with what it was trained; {} in checkpoints of old.
  """

  state: Any
  data_state: bytes | None
  clock: dict[str, float]
  facts: dict[str, Any]


class Checkpoints:
  """The checkpoints of one run.

  Args:
    directory: where they are; made by the first `save`.
    keep: how many of the newest stay, >= 1.
    warn: called with a sentence when a broken checkpoint is passed over.
  """

  def __init__(self, directory, *, keep=2, warn=lambda sentence: None):
    # orbax takes absolute paths only.
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._warn = warn
    # orbax logs every step it takes and, for every thread that sees it, an error with
    # its traceback; we raise the error once.
    for name in ('absl', 'asyncio'):
      logging.getLogger(name).setLevel(logging.CRITICAL)
    self._manager = None
    self._last_saved = None

  @property
  def directory(self):
    """Where the checkpoints are."""
    return self._directory

  def steps(self):
    """The steps of complete checkpoints, ascending."""
    if not self._directory.is_dir():
      return []
    names = [p.name for p in self._directory.iterdir() if p.is_dir()]
    return sorted(int(n) for n in names if n.isdigit())

  def forget_after(self, step):
    """Removes the checkpoints of later steps, for a run that goes back to this one."""
    for later in self.steps():
      if later > step:
        shutil.rmtree(self._directory / str(later))

  def save(self, state, *, step, data_state=None, clock=None, facts=None):
    """Starts writing a checkpoint; returns when the arrays have left the devices.

    Args:
      state: a `TrainState`, replicated; it may be donated right afterwards.
      step: its step. Saving the newest step again does nothing.
      data_state: position of this process's data iterator.
      clock: `{name: number}`.
      facts: what JSON can hold, by name.

    Raises:
      SaveError: this one, or the one before, could not be written.
    """
    if step == self._last_saved:
      return
    # orbax would wait too, but then an error would be told of the wrong step.
    self.wait()
    arrays = states.flatten(state)
    self._check_room(step, sum(a.nbytes for a in arrays.values()))
    positions = None
    if data_state is not None:
      gathered = parallel.gather_bytes(data_state)
      positions = [base64.b64encode(p).decode() for p in gathered]
    whole = {'arrays': arrays, 'fingerprint': states.fingerprint(arrays)}
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(jax.tree.map(_on_host, whole)),
      progress=ocp.args.JsonSave(
        {'data': positions, 'clock': clock or {}, 'facts': facts or {}}
      ),
    )
    with self._saving(step):
      self._open().save(step, args=items)
    self._last_saved = step

  def wait(self):
    """Returns when everything is on disk; raises SaveError if something is not."""
    if self._manager is not None:
      with self._saving(self._last_saved):
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

  def close(self):
    """Ends the writing threads; call `wait` first."""
    if self._manager is not None:
      # What went wrong has been said by `wait`, or another error is on its way.
      with contextlib.suppress(Exception):
        self._manager.close()
      self._manager = None

  def abandon(self):
    """Leaves what is being written to its fate: a `close` afterwards does nothing.

    Closing waits for all processes to come to the same place, which is for ever when
    one of them is gone or failed alone.
    """
    self._manager = None

  def last_good(self):
    """Names the newest checkpoint, as the end of a sentence."""
    steps = self.steps()
    if not steps:
      return 'there is no checkpoint yet'
    return f'the last good checkpoint is step {steps[-1]} in {self._directory}'

  def restore(self, like, *, to_train=True):
    """The newest checkpoint that is whole, or None if there is none at all.

    Args:
      like: a `TrainState` of `jax.ShapeDtypeStruct` with the shardings wanted.
      to_train: whether the data position is wanted, which takes as many processes as
        before; without it that is None.

    Raises:
      UserError: there are checkpoints, but none can be read; or the data position is
        of another number of processes.
    """
    broken = {}
    for step in reversed(self.steps()):
      try:
        restored = self._read(step, like, to_train)
      except (errors.UserError, MemoryError):
        raise
      except Exception as error:  # Damage has many faces.
        broken[step] = errors.one_sentence(error)
        continue
      for number, reason in broken.items():
        self._warn(
          f'checkpoint {number} in {self._directory} is broken ({reason}); '
          f'using step {step}.'
        )
      self._set_aside(broken)
      self._last_saved = step
      return restored
    if broken:
      raise errors.UserError(
        f'none of the {len(broken)} checkpoints in {self._directory} can be read '
        f'({next(iter(broken.values()))}); remove them to start anew.'
      )
    return None

  def _check_room(self, step, needed):
    """Raises SaveError before a write that cannot succeed is begun."""
    free = shutil.disk_usage(self._existing_folder()).free
    needed += needed // 20 + 2**16  # Names and shapes take room too.
    if free < needed:
      raise errors.SaveError(
        f'cannot save step {step}: there is no room left on the disk '
        f'({free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed); {self.last_good()}.'
      )

  def _existing_folder(self):
    return next(p for p in [self._directory, *self._directory.parents] if p.is_dir())

  def _read(self, step, like, to_train):
    target = states.flatten(like)
    sharding = jax.tree.leaves(like)[0].sharding
    whole = jax.ShapeDtypeStruct((), 'uint32', sharding=sharding)
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore({'arrays': target, 'fingerprint': whole}),
      progress=ocp.args.JsonRestore(),
    )
    # A manager of its own: it lists the folder once, and this one may be broken.
    with ocp.CheckpointManager(
      self._directory, options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
      loaded = manager.restore(step, args=items)
    arrays, progress = loaded['state']['arrays'], loaded['progress']
    if int(states.fingerprint(arrays)) != int(loaded['state']['fingerprint']):
      raise ValueError('its arrays are not those that were saved')
    state = states.unflatten(arrays, like)
    if int(state.step) != step:
      raise ValueError(f'it holds step {int(state.step)}')
    position = None
    if to_train and progress['data'] is not None:
      if len(progress['data']) != jax.process_count():
        raise errors.UserError(
          f'the checkpoints in {self._directory} hold the data position of '
          f'{len(progress["data"])} processes; got {jax.process_count()}.'
        )
      position = base64.b64decode(progress['data'][jax.process_index()])
    return Restored(state, position, progress['clock'], progress.get('facts', {}))

  def _set_aside(self, steps):
    # Else orbax would not write these steps again: they are there.
    parallel.barrier('restored')
    if parallel.is_first():
      for step in steps:
        place = self._directory.with_name(f'{self._directory.name}-broken') / str(step)
        if place.exists():
          shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        (self._directory / str(step)).rename(place)
    parallel.barrier('set aside')

  def _open(self):
    if self._manager is None:
      self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=self._keep,
          cleanup_tmp_directories=True,
          enable_async_checkpointing=True,
        ),
      )
    return self._manager

  @contextlib.contextmanager
  def _saving(self, step):
    try:
      yield
    except Exception as error:  # Storage libraries raise whatever they like.
      if errors.peer_gone(error):
        raise
      reason = errors.one_sentence(error)
      if errors.no_room(error):
        reason = 'there is no room left on the disk'
      raise errors.SaveError(
        f'cannot save step {step}: {reason}; {self.last_good()}.'
      ) from error


def _on_host(array):
  """A copy of an array that every device holds.

  Of arrays on devices orbax would have each device write a part, with a program for
  every shape and device to cut it out.
  """
  return np.array(array.addressable_data(0))
