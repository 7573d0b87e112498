"""The set-up scripts, the pinned versions and the light core."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PIN = re.compile(
  r'(?P<name>[A-Za-z0-9_.-]+)==(?P<version>[\w.]+)'
  r"( ; python_version (?P<side><|>=) '3\.12')?"
)

# Behaves like an interpreter as far as launch/setup.sh asks, and writes down what was
# asked. `-m venv` makes a folder, `-m pip` installs nothing.
FAKE_PYTHON = """#!/bin/bash
case "$1 ${2:-}" in
  '-m venv')
    echo "venv $3" >> "$FAKE_LOG"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python" ;;
  '-m pip')
    echo "pip ${@: -1}" >> "$FAKE_LOG"
    [ -z "$FAKE_KILL" ] || kill -9 $$
    exit "${FAKE_PIP_STATUS:-0}" ;;
  '-c '*) ;;
  --version*) echo 'Python 3.12.0' ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def normal(name):
  """A package name as package registries compare it."""
  return re.sub(r'[-_.]+', '-', name).lower()


def pins(minor):
  """{package: version} of constraints.txt for Python 3.`minor`."""
  found = {}
  for line in (ROOT / 'constraints.txt').read_text().splitlines():
    if line.startswith('#'):
      continue
    match = PIN.fullmatch(line)
    assert match, line
    if match['side'] and (match['side'] == '<') != (minor < 12):
      continue
    assert normal(match['name']) not in found, line
    found[normal(match['name'])] = match['version']
  return found


@pytest.mark.parametrize('minor', [11, 12])
def test_every_declared_dependency_is_pinned_once(minor):
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  declared = project['dependencies'] + sum(
    project['optional-dependencies'].values(), start=[]
  )
  names = {normal(re.match(r'[\w.-]+', line)[0]) for line in declared}
  assert names <= set(pins(minor))
  assert pins(minor)['jax'] == {11: '0.10.2', 12: '0.11.2'}[minor]


def test_importing_img2graph_needs_no_extra():
  # A fresh interpreter, in which whatever an extra brings cannot be imported.
  code = """
import importlib, pathlib, sys
for name in ('networkx', 'grain', 'tensorflow_datasets', 'tensorboardX', 'tqdm',
             'tensorflow', 'skimage', 'chex.nothing'):
  sys.modules[name] = None
folder = pathlib.Path('img2graph')
for path in sorted(folder.rglob('*.py')):
  parts = path.with_suffix('').parts
  try:
    importlib.import_module('.'.join(parts[:-1] if parts[-1] == '__init__' else parts))
  except ValueError as error:
    # A source that is made of an extra may say so.
    assert parts[1] == 'data' and "pip install 'img2graph[train]'" in str(error)
"""
  run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True)
  assert run.returncode == 0, run.stderr.decode()


def test_import_and_help_do_not_load_jax():
  code = """
import sys
import img2graph
from img2graph import cli
try:
  cli.main(['--help'])
except SystemExit as stop:
  assert not stop.code
heavy = {'jax', 'flax', 'orbax', 'scipy', 'networkx', 'grain'} & set(sys.modules)
assert not heavy, heavy
"""
  run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True)
  assert run.returncode == 0, run.stderr.decode()


@pytest.fixture
def fake(tmp_path):
  """`fake(*extras, **environment)` runs set_up with a stand-in for Python."""
  python = tmp_path / 'bin' / 'python3.12'
  python.parent.mkdir()
  python.write_text(FAKE_PYTHON)
  python.chmod(0o755)
  project = tmp_path / 'project'
  project.mkdir()
  (project / 'pyproject.toml').write_text('[project]\n')
  (project / 'constraints.txt').write_text('jax==1\n')
  log = tmp_path / 'log'

  def run(*extras, **environment):
    log.write_text('')
    env = {
      'PATH': f'{python.parent}:{os.defpath}',
      'HOME': str(tmp_path),
      'FAKE_LOG': str(log),
      'FAKE_KILL': '',
      'REAL_PYTHON': sys.executable,
      **environment,
    }
    script = f'set -euo pipefail; . {ROOT}/launch/setup.sh; set_up "$@"; echo at $VENV'
    result = subprocess.run(
      ['bash', '-c', script, 'launch/test.sh', *extras],
      cwd=project,
      env=env,
      capture_output=True,
      text=True,
    )
    return result, log.read_text().splitlines()

  run.project = project
  return run


def test_set_up_makes_an_environment_once(fake):
  result, log = fake('train', 'test')
  assert result.returncode == 0, result.stderr
  assert log == ['venv .venv', 'pip .[train,test]']
  result, log = fake('train')
  assert (result.returncode, result.stdout, log) == (0, 'at .venv\n', [])


def test_set_up_installs_again_when_the_wishes_change(fake):
  fake('train')
  assert fake('test')[1] == ['pip .[train,test]']
  (fake.project / 'constraints.txt').write_text('jax==2\n')
  assert fake('test')[1] == ['pip .[train,test]']
  assert fake('test')[1] == []


def test_a_killed_set_up_is_made_anew(fake):
  result, _ = fake('train', FAKE_KILL='yes')
  assert result.returncode == 1
  assert fake('train')[1] == ['venv .venv', 'pip .[train]']
  (fake.project / '.venv' / 'bin' / 'python').unlink()
  assert fake('train')[1] == ['venv .venv', 'pip .[train]']


def test_a_failed_install_says_so_and_is_tried_again(fake):
  result, _ = fake('train', FAKE_PIP_STATUS='1')
  assert result.returncode == 1
  assert 'pip could not install' in result.stderr
  assert fake('train')[1][-1] == 'pip .[train]'


def test_an_environment_of_the_user_is_never_removed(fake):
  own = fake.project / 'own'
  fake('train', IMG2GRAPH_VENV='own')
  (own / 'img2graph.setup').unlink()
  (own / 'kept').write_text('precious')
  assert fake('train', IMG2GRAPH_VENV='own', FAKE_KILL='yes')[1] == ['pip .[train]']
  assert fake('train', IMG2GRAPH_VENV='own')[1] == ['pip .[train]']
  assert (own / 'kept').read_text() == 'precious'


def test_a_folder_that_is_no_environment_is_refused(fake):
  (fake.project / 'data').mkdir()
  (fake.project / 'data' / 'file').write_text('precious')
  result, log = fake('train', IMG2GRAPH_VENV='data')
  assert (result.returncode, log) == (2, [])
  assert 'no virtual environment' in result.stderr
  assert (fake.project / 'data' / 'file').exists()


def test_two_set_ups_at_once_do_not_meet(fake):
  fake('train')
  note = fake.project / '.venv' / 'img2graph.setup'
  note.write_text(f'made installing {os.getpid()}\n')
  result, log = fake('train')
  assert (result.returncode, log) == (1, [])
  assert f'Process {os.getpid()}' in result.stderr


def test_another_python_gets_one_clear_sentence(tmp_path):
  empty = tmp_path / 'bin'
  empty.mkdir()
  for tool in ('dirname', 'ls', 'bash'):
    path = subprocess.run(['which', tool], capture_output=True, text=True).stdout
    (empty / tool).symlink_to(path.strip())
  env = {
    'PATH': str(empty),
    'HOME': str(tmp_path),
    'IMG2GRAPH_VENV': str(tmp_path / 'v'),
  }
  script = ['bash', str(ROOT / 'launch' / 'test.sh')]
  run = subprocess.run(script, env=env, capture_output=True, text=True)
  assert run.returncode == 2
  assert 'needs Python 3.11 or 3.12' in run.stderr
  run = subprocess.run(
    script, env={**env, 'PYTHON': '/no/python'}, capture_output=True, text=True
  )
  assert run.returncode == 2
  assert run.stderr == 'PYTHON=/no/python is not a Python 3.11 or 3.12 with venv.\n'
  assert not (tmp_path / 'v').exists()
