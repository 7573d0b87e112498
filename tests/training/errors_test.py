import errno

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
