import os
import pathlib
import signal
import subprocess
import sys

import pytest

from img2graph.training import errors
from img2graph.training import loop
from launch import main
from tests.training import toy

TOY = pathlib.Path(toy.__file__)
ROOT = TOY.parents[2]
CONFIG = f'--config={TOY.parent / "toy_config.py"}'


@pytest.fixture(autouse=True)
def toy_method(monkeypatch):
  toy.register(monkeypatch)
  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)


@pytest.fixture
def calls(monkeypatch):
  """What the loop was asked to do, instead of doing it."""
  found = []

  def train(config, workdir, *, evaluate):
    found.append(('train', config.to_dict(), workdir, evaluate))
    return {}

  def evaluate(config, workdir):
    found.append(('evaluate', config.to_dict(), workdir, True))
    return {}

  monkeypatch.setattr(loop, 'train', train)
  monkeypatch.setattr(loop, 'evaluate', evaluate)
  return found


def run(*flags):
  return main.run(['main', *flags])


@pytest.mark.parametrize(
  'mode, name, evaluate',
  [
    ('train_and_evaluate', 'train', True),
    ('train', 'train', False),
    ('evaluate', 'evaluate', True),
  ],
)
def test_modes_and_overrides_reach_the_loop(calls, mode, name, evaluate):
  flags = [f'{CONFIG}:host', '--workdir=here', f'--mode={mode}']
  flags += ['--config.train_steps=7', '--config.optim.lr=0.5']
  flags += ['--config.eval.thresholds=(0.1,)', '--config.seed', '9']
  assert run(*flags) == 0
  ((called, config, workdir, with_scores),) = calls
  assert (called, workdir, with_scores) == (name, 'here', evaluate)
  assert config['data']['source'] == 'toy'  # The variant.
  assert config['train_steps'] == 7 and config['optim']['lr'] == 0.5
  assert config['eval']['thresholds'] == (0.1,) and config['seed'] == 9


def test_a_workdir_may_begin_with_the_home_folder(calls, monkeypatch):
  monkeypatch.setenv('HOME', '/elsewhere/me')
  assert run(f'{CONFIG}:host', '--workdir=~/runs/1') == 0
  assert calls[0][2] == '/elsewhere/me/runs/1'


WORKDIR = '--workdir=nowhere'


@pytest.mark.parametrize(
  'flags, words',
  [
    ([], '--config is needed'),
    ([CONFIG], '--workdir is needed'),
    ([CONFIG, '--workdir='], '--workdir must not be empty'),
    (
      [f'{CONFIG}:magic', WORKDIR],
      "the toy has the variants device, host, resident; got 'm",
    ),
    (['--config=nope.py', WORKDIR], 'there is no config file nope.py'),
    ([CONFIG, WORKDIR, '--config.trian_steps=3'], "'trian_steps'; did you mean 'trai"),
    ([CONFIG, WORKDIR, '--config.optim.lrr=3'], "has no value 'optim.lrr'; did you"),
    ([CONFIG, WORKDIR, '--config.optmi.lr=3'], "has no value 'optmi.lr'"),
    ([CONFIG, WORKDIR, '--config.train_steps=many'], 'flag --config.train_steps=many'),
    ([CONFIG, WORKDIR, '--config.train_steps=1.5'], 'flag --config.train_steps=1.5'),
    ([CONFIG, WORKDIR, '--config.eval.thresholds=x'], 'thresholds must be different'),
    ([CONFIG, WORKDIR, '--config.method.capacity=1'], 'must be at least 2; got 1'),
    ([CONFIG, WORKDIR, '--config.batch_size=6'], 'number of devices (4); got 6'),
    ([CONFIG, WORKDIR, '--mode=test'], '--mode=test'),
    ([CONFIG, WORKDIR, '--speed=9'], 'there is no flag --speed'),
    ([CONFIG, WORKDIR, 'more'], 'no flag: more'),
    ([CONFIG, WORKDIR, '--num_processes=2'], 'go together'),
    ([CONFIG, WORKDIR, '--mode=evaluate'], 'no checkpoint in'),
  ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_status_2(
  flags, words, capfd, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert run(*flags) == 2
  out, err = capfd.readouterr()
  assert words in err and not out
  assert err.count('\n') == 1 and err.rstrip()[-1] in '.?'
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'text, words',
  [
    ('def get_config(:', 'invalid syntax'),
    ('x = 1', 'has no function get_config'),
    ('def get_config():\n  return None', 'gives no ConfigDict'),
    ('def get_config():\n  return 1 / 0', 'division by zero'),
    ("def get_config(v='a'):\n  return {'a': 1}[v]", "has no variant 'b'"),
  ],
)
def test_a_config_file_that_fails_is_one_sentence(
  text, words, capfd, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'c.py'
  path.write_text(text)
  variant = ':b' if 'v=' in text else ''
  assert run(f'--config={path}{variant}', WORKDIR) == 2
  err = capfd.readouterr().err
  assert words in err and str(path) in err and err.count('\n') == 1


@pytest.mark.parametrize(
  'error, status',
  [
    (errors.UserError('a mistake.'), 2),
    (errors.NonFiniteError('not finite.'), 3),
    (errors.SaveError('no room.'), 4),
  ],
)
def test_each_way_to_fail_has_its_status(error, status, monkeypatch, capfd):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(loop, 'train', fail)
  assert run(CONFIG, WORKDIR) == status
  assert capfd.readouterr().err == f'{error}\n'
  run(CONFIG, WORKDIR, '--traceback')
  assert 'Traceback' in capfd.readouterr().err


@pytest.mark.parametrize('signum, status', [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopped_and_saved_is_well_done(signum, status, monkeypatch):
  stopped = {'interrupted': int(signum), 'step': 3}
  monkeypatch.setattr(loop, 'train', lambda *args, **kwargs: stopped)
  assert run(CONFIG, WORKDIR) == status


def test_help_tells_the_flags(capfd):
  assert run('--help') == 0
  out = capfd.readouterr().out
  for name in ('--config', '--workdir', '--mode', '--coordinator', '--distributed'):
    assert name in out


def test_the_program_writes_no_file_larger_than_it_may(tmp_path):
  """A quota is met only while writing: one sentence then, too."""
  limit = 24 * 1024  # The second arrays of Adam do not fit into this.
  script = f'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)'
  script += f"; import runpy; runpy.run_path({str(TOY)!r}, run_name='__main__')"
  flags = [CONFIG, f'--workdir={tmp_path}', '--mode=train', '--config.method.width=16']
  done = subprocess.run(
    [sys.executable, '-c', script, *flags],
    cwd=ROOT,
    env={
      **os.environ,
      'JAX_NUM_CPU_DEVICES': '1',
      # Whose files would be too large as well.
      'JAX_ENABLE_COMPILATION_CACHE': 'false',
      'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 4, done.stderr
  assert done.stderr == (
    'cannot save step 5: there is no room left on the disk; there is no checkpoint '
    'yet.\n'
  )
