import json
import pathlib
import shutil
import subprocess
import sys

import jax

import img2graph
from img2graph.training import record


def test_the_hash_depends_on_values_and_not_on_order():
  one = record.config_hash({'a': 1, 'b': {'c': (1, 2)}})
  assert one == record.config_hash({'b': {'c': [1, 2]}, 'a': 1})
  assert one != record.config_hash({'b': {'c': [1, 3]}, 'a': 1})


def code_of(folder):
  script = 'import json; from img2graph.training import record; '
  script += 'print(json.dumps(record.code()))'
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=folder, capture_output=True, text=True
  )
  return json.loads(done.stdout)


def test_code_names_the_commit_only_of_a_checkout_that_tracks_it(tmp_path):
  package = pathlib.Path(img2graph.__file__).parent
  (tmp_path / 'img2graph/training').mkdir(parents=True)
  names = ('training/__init__.py', 'training/record.py', 'training/parallel.py')
  for name in ('__init__.py', *names):
    shutil.copy(package / name, tmp_path / 'img2graph' / name)

  def git(*arguments):
    who = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    command = ['git', '-C', str(tmp_path), *who, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()

  git('init')
  git('commit', '--allow-empty', '-m', 'Something else')
  assert code_of(tmp_path) == {'commit': 'unknown', 'dirty': None}
  git('add', '.')
  git('commit', '-m', 'Add')
  head = git('rev-parse', 'HEAD')
  assert code_of(tmp_path) == {'commit': head, 'dirty': False}
  with open(tmp_path / 'img2graph/__init__.py', 'a') as file:
    file.write('# Changed.\n')
  assert code_of(tmp_path) == {'commit': head, 'dirty': True}


def test_versions_and_hardware_say_what_is_here():
  assert record.versions()['jax'] == jax.__version__
  assert record.versions()['img2graph'] == img2graph.__version__
  found = record.hardware()
  assert found['devices'] == jax.device_count() == 4
  assert found['platform'] == jax.default_backend()
  assert found['cores'] >= 1 and found['cpu_model']


def test_memory_of_a_program_is_that_of_what_it_takes_and_gives():
  program = jax.jit(lambda x: x + 1)
  x = jax.ShapeDtypeStruct((2**18,), 'float32')  # 1 MiB.
  assert 2 <= record.program_memory_mib(program.lower(x).compile()) < 2.1
  program = jax.jit(lambda x: x + 1, donate_argnums=0)
  assert 1 <= record.program_memory_mib(program.lower(x).compile()) < 1.1
