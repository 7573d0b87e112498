"""Settings that every test shares."""

import atexit
import os
import shutil
import tempfile

# What one test, or a process that it starts, has compiled, the others need not: the
# first process of a test run makes the folder and removes it.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _folder = tempfile.mkdtemp(prefix='img2graph_tests_')
  atexit.register(shutil.rmtree, _folder, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _folder
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.3'

import hypothesis  # noqa: E402
import jaxlib  # noqa: E402

# The older code generation compiles in two thirds of the time. Versions without it stop
# at a flag that they do not know.
if jaxlib.__version__.startswith('0.10.'):
  _flags = (
    '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
  )
  os.environ['XLA_FLAGS'] = f'{_flags} {os.environ.get("XLA_FLAGS", "")}'

import jax  # noqa: E402

# Programs here are run once or twice: compiling them is most of the time. Also in the
# processes that tests start.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
jax.config.update('jax_disable_most_optimizations', True)
# Four simulated devices, so that sharding is tested everywhere.
jax.config.update('jax_num_cpu_devices', 4)
# A silent broadcast between ranks has hidden more than one bug.
jax.config.update('jax_numpy_rank_promotion', 'raise')

# The first call of a jitted function compiles, which no deadline allows for.
hypothesis.settings.register_profile('img2graph', deadline=None, max_examples=25)
hypothesis.settings.load_profile('img2graph')
