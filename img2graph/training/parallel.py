"""Devices and processes: data parallel over one mesh axis, `data`.

The state is replicated, the batch is sharded over its leading axis, and the step is
one jitted program for all devices of all processes.

Processes are joined by jax's own runtime, and a run needs all of them: when one is
gone, the others cannot go on, and stop. Most often a collective fails at once (see
`errors.peer_gone`); where it waits instead, jax's heartbeats find out in 100 s.
"""

import ctypes
import itertools
import os
import signal
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

# Exit status of a process that stops because another one of the run is gone.
PEER_GONE = 5

# With fewer images, a core spends its time on what every device does once.
_FEWEST_PER_CORE = 8
# Process 0 leaves last after an error: jax aborts whoever is left without it, in the
# middle of saying why.
_FIRST_STAYS_SECONDS = 3.0
# Of `stop_agreed`.
_calls = itertools.count()


def num_cores():
  """How many processor cores this process may use."""
  # Not every system tells.
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def use_cores(batch_size, cores=None):
  """Makes devices of the processor's cores; call it before anything asks for devices.

  XLA computes a convolution's gradient on one core, so on two cores a step takes two
  thirds of its time when each has half of the batch. Nothing changes where a GPU or
  TPU computes, or when the number of CPU devices was chosen before.

  Args:
    batch_size: images of a step; there will be as many devices as divide it evenly and
      leave 8 images or more to each.
    cores: the most devices; the cores that this process may use if None.

  Returns:
    How many CPU devices there will be, or None if that was not for us to say.
  """
  chosen = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if chosen or jax.config.jax_num_cpu_devices != -1:
    return None
  most = min(cores or num_cores(), max(batch_size // _FEWEST_PER_CORE, 1))
  count = max(n for n in range(1, most + 1) if batch_size % n == 0)
  try:
    jax.config.update('jax_num_cpu_devices', count)
  except RuntimeError:  # Something has asked for devices.
    return None
  return count


def compiler_options():
  """XLA's options for a training step; None where the usual ones serve.

  On processors XLA leaves convolutions to YNNPACK, which computes the gradient of a
  kernel, a convolution whose window is the whole image, in 5 to 10 times the time that
  Eigen takes. This names what YNNPACK is for, products and sums, and leaves the rest.
  And XLA there takes optimization barriers out before it fuses; without that pass they
  hold (see `encoding.layers.conv_general_dilated`).
  """
  if jax.default_backend() != 'cpu':
    return None
  kinds = ('LIBRARY_FUSION_TYPE_DOT', 'LIBRARY_FUSION_TYPE_REDUCE')
  return {
    'xla_cpu_experimental_ynn_fusion_type': ','.join(kinds),
    'xla_disable_hlo_passes': 'cse_barrier_expander',
  }


def initialize(*, coordinator=None, num_processes=None, process_id=None, detect=False):
  """Joins the processes of one run; call it before anything asks for devices.

  Args:
    coordinator: 'host:port' of process 0, the same for every process.
    num_processes: how many processes there are.
    process_id: which one this is, from 0.
    detect: take all three from the cluster that jax detects (Slurm, Open MPI,
      Kubernetes, Cloud TPU).

  Raises:
    ValueError: some of the three are given and others not, one of them cannot be, or no
      cluster is found.
  """
  given = [v is not None for v in (coordinator, num_processes, process_id)]
  if not any(given) and not detect:
    return
  if any(given) and not all(given):
    raise ValueError(
      'coordinator, num_processes and process_id go together; got '
      f'{coordinator}, {num_processes} and {process_id}.'
    )
  if all(given) and not _is_address(coordinator):
    # jax would die of it without a word.
    raise ValueError(
      f'coordinator must be HOST:PORT, a port below 65536; got {coordinator!r}.'
    )
  if all(given) and num_processes < 1:
    raise ValueError(f'num_processes must be at least 1; got {num_processes}.')
  if all(given) and not 0 <= process_id < num_processes:
    raise ValueError(
      f'process_id must be at least 0 and less than num_processes ({num_processes}); '
      f'got {process_id}.'
    )
  _explain_aborts()
  # Only the CPU asks; GPUs and TPUs have collectives of their own.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except ValueError as error:
    if not detect:
      raise
    raise ValueError(
      'no cluster was detected; name coordinator, num_processes and process_id.'
    ) from error
  except RuntimeError as error:
    if 'Failed to start RPC server' not in str(error):
      raise
    place = coordinator or 'the port of the coordinator'
    raise ValueError(
      f'process 0 cannot listen at {place}; another program may have it: '
      'choose another port.'
    ) from error


def _is_address(text):
  host, _, port = text.rpartition(':')
  return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(signum):
  del signum
  sentence = (
    'Another process of this run is gone, or never came; the same command in all '
    'processes goes on from the last checkpoint.\n'
  )
  os.write(2, sentence.encode())
  os._exit(PEER_GONE)


def _explain_aborts():
  """Gives jax's runtime, which aborts processes whose peers are gone, a last word.

  It does so in a thread of its own, where Python's signal handlers never run.
  """
  libc = ctypes.CDLL(None)
  libc.signal.restype = ctypes.c_void_p
  libc.signal(signal.SIGABRT, _aborted)


def joined():
  """Whether `initialize` joined this process to others."""
  return jax.distributed.is_initialized()


def leave(status):
  """Ends this process at once if it was joined to others; otherwise does nothing.

  For the way out after an error: an orderly one waits for the other processes, and they
  may be waiting for this one, or be gone.

  Args:
    status: the exit status.
  """
  if not joined():
    return
  sys.stdout.flush()
  sys.stderr.flush()
  if is_first():
    time.sleep(_FIRST_STAYS_SECONDS)
  os._exit(status)


def make_mesh():
  """The mesh of all devices of all processes, with the axis 'data'."""
  # make_mesh defaults to Explicit axes, which want a sharding at every operation.
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh):
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh):
  """The sharding of a batch: its leading axis is split over all devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch_size(batch_size):
  """Raises ValueError unless the batch can be split over all devices evenly."""
  devices, processes = jax.device_count(), jax.process_count()
  if batch_size < 1 or batch_size % devices:
    count = str(devices)
    if processes > 1:
      count = f'{processes} processes x {jax.local_device_count()} = {devices}'
    raise ValueError(
      f'batch_size must be a positive multiple of the number of devices ({count}); '
      f'got {batch_size}.'
    )


def global_batch(batch, sharding):
  """One batch of all processes, from the part `[B / processes, ...]` of each."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
  )


def is_first():
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def barrier(name):
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def all_equal(value):
  """Whether a number is the same in all processes."""
  if jax.process_count() == 1:
    return True
  return len(np.unique(multihost_utils.process_allgather(np.asarray(value)))) == 1


def first_says(answer):
  """The first process's answer to a question of yes or no, in all processes.

  For what decides whether a collective follows: their views of a shared folder may
  differ for a moment.
  """
  if jax.process_count() == 1:
    return answer
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def first_tells(text):
  """The first process's text, in all processes; the others' is not looked at."""
  if jax.process_count() == 1:
    return text
  data = np.frombuffer(text.encode(), np.uint8)
  length = int(multihost_utils.broadcast_one_to_all(np.asarray(len(data))))
  padded = np.zeros(length, np.uint8)
  if is_first():
    padded[:] = data
  told = multihost_utils.broadcast_one_to_all(padded)
  return told.astype(np.uint8).tobytes().decode()


def gather_bytes(data):
  """The byte strings of all processes, a list in their order."""
  if jax.process_count() == 1:
    return [data]
  lengths = multihost_utils.process_allgather(np.asarray(len(data)))
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [rows[i, :n].tobytes() for i, n in enumerate(lengths.tolist())]


def stop_agreed(requested):
  """Whether all processes stop now; call it in all of them, equally often.

  Args:
    requested: whether this process was asked to stop. With several processes jax's
      own preemption service catches SIGTERM in any of them and names the call.
  """
  if jax.process_count() == 1:
    return requested
  # It names a number yet to come, once: those of steps begin anew with every run.
  return multihost_utils.reached_preemption_sync_point(next(_calls))
