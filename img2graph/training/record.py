"""What a run records beside its scores: code, versions and hardware."""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess

import jax

import img2graph
from img2graph.training import parallel

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def config_hash(config):
  """A short hash of a config (nested dict of JSON values)."""
  text = json.dumps(config, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def code():
  """The git commit of the code: `{'commit', 'dirty'}`.

  'unknown' and None unless the package lies in a checkout that tracks it.
  """
  package = pathlib.Path(img2graph.__file__).resolve().parent

  def git(*arguments):
    command = ['git', '-C', str(package), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()

  try:
    # An environment inside someone else's checkout is not a checkout of this code.
    git('ls-files', '--error-unmatch', '__init__.py')
    top = git('rev-parse', '--show-toplevel')
    return {
      'commit': git('rev-parse', 'HEAD'),
      'dirty': bool(git('status', '--porcelain', '--untracked-files=no', '--', top)),
    }
  except (OSError, subprocess.CalledProcessError):
    return {'commit': 'unknown', 'dirty': None}


def versions():
  """Versions of Python, of this package and of those it stands on."""
  found = {'python': platform.python_version(), 'img2graph': img2graph.__version__}
  return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def hardware():
  """Devices, processor and number of cores that this process may use."""
  device = jax.devices()[0]
  return {
    'platform': device.platform,
    'device_kind': device.device_kind,
    'devices': jax.device_count(),
    'processes': jax.process_count(),
    'cpu_model': cpu_model(),
    'cores': parallel.num_cores(),
  }


def facts():
  """What computes here: `{'code', 'versions', 'hardware'}`."""
  return {'code': code(), 'versions': versions(), 'hardware': hardware()}


def cpu_model():
  """The processor's name."""
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def forget_peak_memory():
  """Lets `peak_memory_mib` count from now on, where the system can."""
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def program_memory_mib(compiled):
  """MiB that a compiled program needs on a device: arguments, results, and between.

  Args:
    compiled: a `jax.stages.Compiled`.

  Returns:
    float, or None where the compiler does not tell.
  """
  found = compiled.memory_analysis()
  if found is None:
    return None
  names = ('argument', 'output', 'temp')
  size = sum(getattr(found, f'{name}_size_in_bytes') for name in names)
  return (size - found.alias_size_in_bytes) / 2**20


def peak_memory_mib():
  """The most memory that was in use, in MiB: of the busiest device, or of this process.

  A GPU's or TPU's is that since the process began; that of a process computing on
  processor cores since `forget_peak_memory`. None where the system does not tell.
  """
  used = [device.memory_stats() or {} for device in jax.local_devices()]
  used = [stats['peak_bytes_in_use'] for stats in used if 'peak_bytes_in_use' in stats]
  if used:
    return max(used) / 2**20
  try:
    status = pathlib.Path('/proc/self/status').read_text()
  except OSError:
    return None
  return int(re.search(r'VmHWM:\s+(\d+) kB', status).group(1)) / 2**10
