import errno

import jax
import pytest

from img2graph.training import errors


def test_user_errors_turns_mistakes_into_one_sentence_with_the_part_in_front():
  with pytest.raises(errors.UserError) as caught:
    with errors.user_errors('config.data'):
      raise ValueError('side must be positive.\nA second line.')
  assert str(caught.value) == 'config.data: side must be positive.'


def test_user_errors_names_the_file_of_a_system_error():
  with pytest.raises(errors.UserError, match='No such file or directory: nowhere'):
    with errors.user_errors():
      open('nowhere')


def test_user_errors_leaves_a_full_disk_and_bugs_alone():
  for error in (OSError(errno.ENOSPC, 'No space'), ZeroDivisionError()):
    with pytest.raises(type(error)) as caught:
      with errors.user_errors():
        raise error
    assert caught.value is error


def test_a_full_disk_is_known_by_number_and_by_words():
  assert errors.no_room(OSError(errno.ENOSPC, 'whatever'))
  assert errors.no_room(OSError(errno.EFBIG, 'whatever'))
  assert errors.no_room(ValueError('Failed to write: No space left on device [28]'))
  assert not errors.no_room(OSError(errno.EACCES, 'Permission denied'))


GONE = [
  ValueError('UNKNOWN: Gloo AllGather failed: Connection closed by peer'),
  RuntimeError('INTERNAL: NCCL operation ncclAllReduce failed'),
  RuntimeError('DEADLINE_EXCEEDED: Barrier timed out'),
]
NOT_GONE = [
  ValueError('width must be positive'),
  RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes'),
  errors.UserError('ABORTED: is no file of images.'),
  KeyError('Gloo '),
]


def test_a_process_that_is_gone_is_known_by_words_and_nobodys_mistake(monkeypatch):
  # Alone, a run can lose nobody.
  assert not any(map(errors.peer_gone, GONE + NOT_GONE))
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  assert all(map(errors.peer_gone, GONE)) and not any(map(errors.peer_gone, NOT_GONE))
  with pytest.raises(ValueError) as caught, errors.user_errors():
    raise GONE[0]
  assert caught.value is GONE[0]
