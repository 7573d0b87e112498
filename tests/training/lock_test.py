import fcntl

import pytest

from img2graph.training import errors
from img2graph.training import lock
from img2graph.training import parallel


def test_a_workdir_is_held_by_one_run_until_it_ends(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, '_PATIENCE', 0.3)
  said = []
  with lock.hold(tmp_path / 'new'):
    with pytest.raises(errors.UserError, match='another run is at .*/new; wait'):
      with lock.hold(tmp_path / 'new', say=said.append):
        pass
    with lock.hold(tmp_path / 'other'):
      pass
  assert len(said) == 1 and 'waiting' in said[0]
  with lock.hold(tmp_path / 'new'):
    pass


def test_a_run_that_is_about_to_end_is_waited_for(tmp_path):
  first = lock.hold(tmp_path)
  first.__enter__()
  with lock.hold(tmp_path, say=lambda text: first.__exit__(None, None, None)):
    pass


def test_a_file_system_without_locks_does(tmp_path, monkeypatch):
  def refuse(*args):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  with lock.hold(tmp_path), lock.hold(tmp_path):
    pass


def test_a_workdir_that_is_not_shared_is_told_in_all_processes(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, '_PATIENCE', 0.3)
  with lock.hold(tmp_path / 'first'):
    word = (tmp_path / 'first' / '.lock').read_text()
  monkeypatch.setattr(parallel, 'is_first', lambda: False)
  monkeypatch.setattr(parallel, 'first_tells', lambda text: word)
  monkeypatch.setattr(parallel, 'gather_bytes', lambda data: [b'yes', data])
  with lock.hold(tmp_path / 'first'):
    pass
  with pytest.raises(errors.UserError, match='process 1 does not see what process 0'):
    with lock.hold(tmp_path / 'second'):
      pass
