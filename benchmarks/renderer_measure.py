"""Time and memory of two calls, for `benchmarks.renderer`; needs numpy only."""

import ctypes
import json
import pathlib
import re
import statistics
import time

import numpy as np


def _memory_mib(name):
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(rf'{name}:\s+(\d+) kB', status).group(1)) / 2**10


def measure(forward, both, rounds):
  """Measures two functions without arguments that return when they are done.

  Args:
    forward: draws.
    both: draws and computes gradients; called first, for its memory.
    rounds: how many calls of each are timed, >= 1; none begins after 20 seconds.

  Returns:
    ({'forward_seconds', 'seconds', ... median of the rounds; 'peak_mib'}, what the
    first call of `both` returned).
  """
  # What the compiler has freed must not count as there already.
  ctypes.CDLL(None).malloc_trim(0)
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  before = _memory_mib('VmRSS')
  outputs = both()
  result = {'peak_mib': _memory_mib('VmHWM') - before}
  forward()
  times = {'forward_': [], '': []}
  began = time.perf_counter()
  while not times[''] or (len(times['']) < rounds and time.perf_counter() - began < 20):
    for name, function in (('forward_', forward), ('', both)):
      wall, processor = time.perf_counter(), time.process_time()
      function()
      times[name].append((time.perf_counter() - wall, time.process_time() - processor))
  for name, values in times.items():
    wall, processor = (statistics.median(v) for v in zip(*values, strict=True))
    result |= {f'{name}seconds': wall, f'{name}processor_seconds': processor}
  return result, outputs


def write(folder, result, outputs):
  """Writes the figures, image and gradients of keypoints and weights."""
  names = ('image', 'nodes', 'weights')
  np.savez(folder / 'outputs.npz', **dict(zip(names, outputs, strict=True)))
  (folder / 'result.json').write_text(json.dumps(result))
