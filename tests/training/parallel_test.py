import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AxisType

from img2graph.training import parallel


def test_the_mesh_has_all_devices_on_one_automatic_axis():
  mesh = parallel.make_mesh()
  assert mesh.shape == {'data': 4}
  assert mesh.axis_types == (AxisType.Auto,)


def test_a_global_batch_is_split_over_devices_in_order():
  batch = {'image': np.arange(8.0).reshape(8, 1), 'graph': (np.arange(8),)}
  found = parallel.global_batch(batch, parallel.sharded(parallel.make_mesh()))
  assert isinstance(found['image'], jax.Array)
  np.testing.assert_array_equal(found['image'], batch['image'])
  shards = [
    np.asarray(s.data).ravel().tolist() for s in found['image'].addressable_shards
  ]
  assert shards == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_shardings_replicate_and_split():
  mesh = parallel.make_mesh()
  assert parallel.replicated(mesh).is_fully_replicated
  assert parallel.sharded(mesh).shard_shape((8, 3)) == (2, 3)


@pytest.mark.parametrize('batch_size', [0, -4, 6])
def test_a_batch_that_devices_cannot_share_is_refused(batch_size):
  with pytest.raises(ValueError, match=rf'devices \(4\); got {batch_size}'):
    parallel.check_batch_size(batch_size)
  parallel.check_batch_size(8)


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(coordinator='localhost:1'), 'go together'),
    (dict(num_processes=2, process_id=0), 'go together'),
    (dict(coordinator='a:1', num_processes=2, process_id=2), 'less than num_processes'),
    (dict(coordinator='a:1', num_processes=0, process_id=0), 'at least 1; got 0'),
    *(
      (dict(coordinator=place, num_processes=2, process_id=0), 'must be HOST:PORT')
      for place in ('host', 'host:', ':1', 'host:http', 'host:65536')
    ),
  ],
)
def test_half_a_description_of_processes_is_refused(options, words):
  with pytest.raises(ValueError, match=words):
    parallel.initialize(**options)


def test_a_port_that_another_program_has_is_told(monkeypatch):
  def initialize(*args):
    raise jax.errors.JaxRuntimeError('UNKNOWN: Failed to start RPC server')

  monkeypatch.setattr(parallel, '_explain_aborts', lambda: None)
  monkeypatch.setattr(jax.config, 'update', lambda *args: None)
  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(ValueError, match='cannot listen at a:1; .* another port'):
    parallel.initialize(coordinator='a:1', num_processes=2, process_id=0)


def test_one_process_needs_no_meeting():
  parallel.initialize()
  parallel.barrier('alone')
  assert parallel.is_first() and parallel.all_equal(3)
  assert parallel.gather_bytes(b'abc') == [b'abc']
  assert parallel.stop_agreed(True) and not parallel.stop_agreed(False)
  assert parallel.first_says(True) and not parallel.first_says(False)
  assert not parallel.joined()
  parallel.leave(3)  # Would end the tests.


# Process 0 never comes. jax waits for five minutes; who would wait for a test?
_NEVER_CAME = """
import functools, jax
from img2graph.training import parallel

jax.distributed.initialize = functools.partial(
  jax.distributed.initialize, initialization_timeout=1
)
parallel.initialize(coordinator='127.0.0.1:1', num_processes=2, process_id=1)
"""


def test_a_process_that_nobody_joins_says_so():
  done = subprocess.run(
    [sys.executable, '-c', _NEVER_CAME], capture_output=True, text=True
  )
  assert done.returncode == parallel.PEER_GONE, done.stderr
  assert done.stderr.splitlines()[-1] == (
    'Another process of this run is gone, or never came; the same command in all '
    'processes goes on from the last checkpoint.'
  )


_USE_CORES = """
import jax
from img2graph.training import parallel

found = []
for batch_size, cores in ((32, 2), (32, 64), (30, 4), (31, 4), (4, 8), (0, 2), (64, 1)):
  jax.config.update('jax_num_cpu_devices', -1)
  found.append(parallel.use_cores(batch_size, cores))
print(found)
jax.config.update('jax_num_cpu_devices', -1)
print(parallel.use_cores(24, 3), parallel.use_cores(24, 2), jax.device_count())
"""


def test_each_core_becomes_a_device_as_far_as_the_batch_allows():
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_NUM_CPU_DEVICES'}
  lines = subprocess.run(
    [sys.executable, '-c', _USE_CORES],
    env={**environment, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout.splitlines()
  assert lines == ['[2, 4, 3, 1, 1, 1, 1]', '3 None 3']


def test_a_number_of_devices_that_was_chosen_stays():
  assert parallel.use_cores(32) is None
  assert jax.device_count() == 4


def test_the_compiler_takes_its_options_and_computes_the_same():
  image, kernel, out = (
    np.random.default_rng(k).normal(size=shape).astype(np.float32)
    for k, shape in enumerate([(8, 9, 9, 4), (3, 3, 4, 5), (8, 9, 9, 5)])
  )

  def loss(kernel):
    form = jax.lax.conv_dimension_numbers(
      image.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC')
    )
    found = jax.lax.conv_general_dilated(
      image, kernel, (1, 1), 'SAME', dimension_numbers=form
    )
    return (found * out).sum()

  lowered = jax.jit(jax.grad(loss)).lower(kernel)
  options = parallel.compiler_options()
  assert options and all('convolution' not in v.lower() for v in options.values())
  found = lowered.compile(compiler_options=options)(kernel)
  # Entry (i, j, c, f) is the sum over pixels of image, moved by (i, j), and gradient.
  padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(1, 2))
  expected = np.einsum('bijchw,bhwf->ijcf', windows, out)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_processes_are_asked_anew_in_every_run(monkeypatch):
  told_at = 3  # The runtime names the call after the last one, once.
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(parallel, '_calls', itertools.count())
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', lambda call: call == told_at
  )
  run = lambda: [parallel.stop_agreed(False) for _ in range(3)]  # noqa: E731
  assert not any(run())
  assert run()[0]
