"""Tests of img2graph/files.py."""

import pathlib

import pytest

from img2graph import files


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'results.json'
  files.write_atomically(path, b'old')

  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(OSError, match='results.json'):
    files.write_atomically(path, b'new')
  assert path.read_bytes() == b'old'
  assert [p.name for p in tmp_path.iterdir()] == ['results.json']


def test_a_link_stays_a_link_to_what_was_written(tmp_path):
  target = tmp_path / 'target'
  target.write_bytes(b'old')
  link = tmp_path / 'link'
  link.symlink_to(target)
  files.write_atomically(link, b'new')
  assert link.is_symlink() and target.read_bytes() == b'new'


def test_the_home_folder_is_put_for_its_sign(monkeypatch):
  monkeypatch.setenv('HOME', '/elsewhere/me')
  for path, expected in (
    ('~/a.npz', '/elsewhere/me/a.npz'),
    (pathlib.Path('~/a.npz'), '/elsewhere/me/a.npz'),
    ('~', '/elsewhere/me'),
    ('a/~/b', 'a/~/b'),
    ('~no_such_user/a', '~no_such_user/a'),
    ('', '.'),
  ):
    assert files.expand(path) == pathlib.Path(expected)
