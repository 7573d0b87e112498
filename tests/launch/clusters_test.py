"""The files for clusters, as far as a machine without one can tell."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from launch import main

ROOT = pathlib.Path(__file__).parents[2]
# Stands in for srun, gcloud and python: writes down what it was asked, one per line.
RECORD = """#!/bin/bash
printf '%s\\n' "$@" > "$ASKED"
echo "${JAX_LOCAL_DEVICE_IDS:-} ${SRUN_CPUS_PER_TASK:-}" > "$ASKED.variables"
"""


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.fixture
def ask(tmp_path):
  """`ask(command, program, **environment)` -> what the program was asked, and more."""

  def run(command, program, text=RECORD, **environment):
    (tmp_path / program).write_text(text)
    (tmp_path / program).chmod(0o755)
    asked = tmp_path / 'asked'
    asked.unlink(missing_ok=True)
    env = {'PATH': f'{tmp_path}:{os.defpath}', 'ASKED': str(asked), **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return asked.read_text().splitlines() if asked.exists() else [], done

  return run


def examples(path, program):
  """The commands in the comments of a file that start with a program."""
  comments = re.findall('^#(.*)$', (ROOT / path).read_text(), re.M)
  text = '\n'.join(comments).replace('\\\n', ' ')
  lines = [line.strip() for line in text.splitlines()]
  return [shlex.split(line) for line in lines if line.startswith(program + ' ')]


def check_training(words):
  """Checks a command line of launch.main; returns its flags."""
  assert words[1:3] == ['-m', 'launch.main']
  return main.parse(words[2:])


def slurm(ask, array, **environment):
  found = examples('launch/slurm.sbatch', 'sbatch')
  (example,) = [e for e in found if ('--array=0-9' if array else '--nodes=2') in e]
  start = example.index('launch/slurm.sbatch')
  words, done = ask(['bash', *example[start:]], 'srun', **environment)
  assert done.returncode == 0, done.stderr
  return words


def test_slurm_joins_the_nodes_of_one_training(ask, tmp_path):
  words = slurm(ask, array=False, SLURM_GPUS_ON_NODE='4', SLURM_CPUS_PER_TASK='8')
  assert words[0] == '--label'
  values = check_training(words[1:])
  assert values.distributed and values.workdir == 'DIR'
  # All GPUs of the node, where jax would take one.
  assert (tmp_path / 'asked.variables').read_text() == '0,1,2,3 8\n'
  slurm(ask, array=False)
  assert (tmp_path / 'asked.variables').read_text() == ' 1\n'


def test_slurm_gives_an_array_the_cells_of_a_table(ask):
  words = slurm(ask, array=True, SLURM_ARRAY_TASK_ID='3')
  assert words[1:3] == ['-m', 'launch.tables']
  command = [sys.executable, *words[1:], '--dry_run']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_slurm_is_told_its_options_before_the_first_command():
  lines = (ROOT / 'launch/slurm.sbatch').read_text().splitlines()
  first = next(i for i, line in enumerate(lines) if not line.startswith('#'))
  options = [i for i, line in enumerate(lines) if line.startswith('#SBATCH ')]
  assert len(options) > 5 and max(options) < first
  # Not `B:`: the processes are to be told, not the script.
  assert '#SBATCH --signal=TERM@120' in lines


def test_a_tpu_host_gets_the_command_word_by_word(ask):
  given = [e for e in examples('launch/tpu_pod.sh', 'bash') if 'python' in e[2]]
  example, table = given
  assert 'launch.tables' in table and '--distributed' in table
  words, done = ask(example, 'gcloud', TPU='slice', ZONE='zone')
  assert done.returncode == 0, done.stderr
  wanted = 'compute tpus tpu-vm ssh slice --zone=zone --worker=all'.split()
  assert words[:-1] == wanted and words[-1].startswith('--command=cd img2graph && ')
  values = check_training(shlex.split(words[-1])[3:])
  assert values.distributed and values.workdir == 'DIR'
  odd = ['printf', '%s|', 'two words', "it's", '$HOME', '']
  command = ['bash', 'launch/tpu_pod.sh', *odd]
  words, _ = ask(command, 'gcloud', FOLDER=str(ROOT))
  script = words[-1].removeprefix('--command=')
  assert subprocess.check_output(['bash', '-c', script], text=True) == (
    "two words|it's|$HOME||"
  )


def test_on_a_tpu_host_the_training_alone_is_told_to_stop(ask):
  (stop,) = [e for e in examples('launch/tpu_pod.sh', 'bash') if e[2] == 'pkill']
  words, _ = ask(stop, 'gcloud')
  *_, pattern = shlex.split(words[-1].removeprefix('--command='))
  table, training = '.venv/bin/python -m launch.tables --distributed', 'launch.main --a'
  for line in (table, f'python3.12 -m {training}', f'/usr/bin/python3 -m {training}'):
    assert re.search(pattern, line)
  # The shell that waits for it, someone's editor, and the command itself.
  shell = f'bash -c cd img2graph && {table}'
  for line in (shell, 'vim launch/main.py', 'python -m pytest tests/launch', words[-1]):
    assert not re.search(pattern, line)


def test_a_tpu_host_is_not_bothered_without_a_command(ask):
  words, done = ask(['bash', 'launch/tpu_pod.sh'], 'gcloud')
  assert (words, done.returncode) == ([], 2)
  assert done.stderr.startswith('Name the command') and done.stderr.count('\n') == 1


@pytest.fixture
def pods():
  """(the JobSet, the Job of its hosts, their container, its environment)."""
  jobset = yaml.safe_load((ROOT / 'launch/jobset.yaml').read_text())
  (job,) = jobset['spec']['replicatedJobs']
  (container,) = job['template']['spec']['template']['spec']['containers']
  environment = {entry['name']: entry['value'] for entry in container['env']}
  return jobset, job, container, environment


def test_the_pods_of_a_jobset_join_in_one_training(ask, pods, tmp_path):
  jobset, job, container, environment = pods
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  spec = job['template']['spec']
  assert spec['completionMode'] == 'Indexed'  # Else there is no JOB_COMPLETION_INDEX.
  assert spec['backoffLimit'] == 0 < jobset['spec']['failurePolicy']['maxRestarts']
  environment |= {'WORKDIR': str(tmp_path), 'JOB_COMPLETION_INDEX': '1'}
  words, done = ask(container['command'], 'python', **environment)
  values = check_training(['python', *words])
  # A JobSet names its pods JOBSET-JOB-0-INDEX, in a domain of its own name.
  name = jobset['metadata']['name']
  assert values.coordinator.split(':')[0] == f'{name}-{job["name"]}-0-0.{name}'
  assert values.num_processes == spec['parallelism'] == spec['completions'] > 1
  assert values.process_id == 1 and values.workdir == str(tmp_path)
  # Without results a pod has failed, however its process ended.
  assert done.returncode == 1
  # With those of an evaluation on the way, or of another config, if its process failed.
  (tmp_path / 'results.json').write_text('{}')
  assert ask(container['command'], 'python', **environment)[1].returncode == 0
  lost = '#!/bin/bash\nexit 5'
  assert ask(container['command'], 'python', lost, **environment)[1].returncode == 5


@pytest.mark.parametrize('evaluated', [False, True])
def test_a_pod_that_is_told_to_stop_lets_the_training_save(pods, tmp_path, evaluated):
  _, _, container, environment = pods
  (tmp_path / 'python').write_text("""#!/bin/bash
trap 'echo saved; kill $!; exit 0' TERM
echo began; sleep 20 & wait
""")
  (tmp_path / 'python').chmod(0o755)
  if evaluated:
    (tmp_path / 'results.json').write_text('{}')
  environment |= {'WORKDIR': str(tmp_path), 'JOB_COMPLETION_INDEX': '1'}
  pod = subprocess.Popen(
    container['command'],
    env={'PATH': f'{tmp_path}:{os.defpath}', **environment},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert pod.stdout.readline() == 'began\n'
  pod.terminate()
  assert pod.communicate(timeout=10)[0] == 'saved\n' and pod.returncode == 1
