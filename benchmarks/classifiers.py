"""Residual networks here and in PyTorch: the same outputs, and the speed of training.

  python -m benchmarks.classifiers --torch_python=/path/to/python

`--torch_python` is an interpreter with torch and numpy, which runs a twin of the same
networks (`benchmarks/resnet_twin.py`). Four things are measured:
  agreement  random weights and statistics are carried over, and the largest difference
             of features and logits told, for each network
  step       training steps of ResNet-20 at the paper's batch size, by cross entropy,
             here and in PyTorch, eager and compiled
  overhead   the same step here with and without the affinity loss
  options    the same step here without `parallel.compiler_options`
All are timed in turns, while the others wait; a figure is the median over the rounds, a
ratio the median of each round's ratio. '_cpu' is processor time, which hardly changes
when other programs use the machine.

Writes results/benchmarks/classifiers.json; exits with 1 if a network differs by more
than 1e-4.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import autolink_parity
from configs import affinity
from img2graph import files
from img2graph import methods
from img2graph.methods import affinity_batch
from img2graph.training import optim
from img2graph.training import parallel
from img2graph.training import record
from img2graph.training import state as states
from img2graph.training import step as steps

OUTPUT = pathlib.Path('results/benchmarks/classifiers.json')
NETWORKS = {
  **{f'ResNet-{d}': ('cifar', d, 10, 32) for d in (20, 56, 110)},
  **{f'ResNet-{d}': ('imagenet', d, 200, 64) for d in (18, 50, 101)},
}
TOLERANCE = 1e-4


class TorchSide:
  """The twin, in a process of its own."""

  def __init__(self, python, path, *, threads, compiled=False):
    self._process = subprocess.Popen(
      [python, str(pathlib.Path(__file__).with_name('resnet_twin.py'))],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=dict(os.environ, OMP_NUM_THREADS=str(threads)),
    )
    self.versions = self.ask(
      load=str(path),
      device='cuda' if jax.default_backend() == 'gpu' else 'cpu',
      threads=threads,
      compiled=compiled,
    )

  def ask(self, **request):
    print(json.dumps(request), file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError(f'the PyTorch twin stopped at {request}; its error is above.')
    return json.loads(answer)

  def time(self, calls):
    return self.ask(time=calls)

  def close(self):
    self._process.stdin.close()
    self._process.wait()


class JaxSide:
  """A training step of configs/affinity.py on one batch."""

  def __init__(self, recipe, batch, compiler_options):
    c = affinity.get_config(f'{recipe},paper')
    method = methods.build(train_steps=c.train_steps, precision=c.precision, **c.method)
    tx, learning_rate = optim.build(
      train_steps=c.train_steps, **(c.optim.to_dict() | {'lr': 1e-3})
    )
    # As the loop does: the batch lies on all devices, and so does the state, whole.
    mesh = parallel.make_mesh()
    whole, parts = parallel.replicated(mesh), parallel.sharded(mesh)
    self._batch, self._key = jax.device_put(batch, parts), jax.random.key(0)
    self._state = jax.jit(
      lambda key, batch: states.create(key, batch, method=method, tx=tx),
      out_shardings=whole,
    )(self._key, self._batch)
    self._step = jax.jit(
      lambda state, batch, key: steps.train_step(
        state, batch, key, method=method, tx=tx, learning_rate=learning_rate
      ),
      donate_argnums=0,
      out_shardings=whole,
      compiler_options=compiler_options,
    )

  def time(self, calls):
    """Wall and processor seconds of a training step, means of `calls`."""
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(calls):
      self._state, metrics = self._step(self._state, self._batch, self._key)
      jax.block_until_ready(metrics)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return wall / calls, cpu / calls


def agreement(python, name, *, folder, batch_size=4):
  """Largest differences of a network's outputs: {'features', 'logits'}."""
  kind, depth, classes, side = NETWORKS[name]
  network = affinity_batch.NETWORKS[kind](depth=depth, num_classes=classes)
  rng = np.random.default_rng(depth)
  images = rng.normal(size=(batch_size, side, side, 3)).astype(np.float32)
  shapes = jax.eval_shape(
    lambda: network.init(jax.random.key(0), jnp.asarray(images), train=True)
  )
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: _random(rng, jax.tree_util.keystr(path), leaf.shape), shapes
  )
  # Layer by layer: to compile 110 layers as one takes minutes.
  features, logits = network.apply(variables, images, train=False)
  path = folder / 'network.npz'
  save(path, variables, images, np.zeros(batch_size, int), (kind, depth, classes))
  twin = TorchSide(python, path, threads=1)
  twin.ask(forward=str(folder / 'found.npz'))
  twin.close()
  theirs = np.load(folder / 'found.npz')
  return {
    'features': autolink_parity.largest(features, theirs['features']),
    'logits': autolink_parity.largest(logits, theirs['logits']),
    'largest logit': float(np.abs(theirs['logits']).max()),
  }


def _random(rng, name, shape):
  """Values that keep activations of every layer at the size of its inputs."""
  if name.endswith("['kernel']"):
    return rng.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1]))
  low, high = (0.5, 1.0) if name.endswith(("['scale']", "['var']")) else (-0.2, 0.2)
  return rng.uniform(low, high, shape).astype(np.float32)


def save(path, variables, images, labels, network):
  """Weights and a batch for the twin."""
  kind, depth, classes = network
  about = {'network': dict(kind=kind, depth=depth, num_classes=classes)}
  np.savez(
    path,
    **autolink_parity.flatten(variables),
    image=images,
    label=labels,
    about=json.dumps(about),
  )


def measure(sides, *, rounds, calls):
  """Times every side in turns: `{side: [(wall, processor seconds)]}`."""
  for side in sides.values():
    side.time(2)  # Compiles.
  seconds = {name: [] for name in sides}
  for _ in range(rounds):
    for name, side in sides.items():
      time.sleep(0.05)  # Threads of the other side that still spin come to rest.
      seconds[name].append(side.time(calls))
  return seconds


def summarize(seconds, base, batch_size):
  """Medians of each side, and of its ratio to the base in the same round."""
  found = {}
  for name, rounds in seconds.items():
    found[name] = row = {}
    for k, suffix in enumerate(('', '_cpu')):
      times = [pair[k] for pair in rounds]
      ratios = [a[k] / b[k] for a, b in zip(rounds, seconds[base], strict=True)]
      row[f'step_ms{suffix}'] = 1e3 * statistics.median(times)
      row[f'times_{base}{suffix}'] = statistics.median(ratios)
    row['images_per_second'] = 1e3 * batch_size / row['step_ms']
  return {n: {k: float(f'{v:.4g}') for k, v in r.items()} for n, r in found.items()}


def main(argv=None):
  """Measures and writes; returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--torch_python', required=True, help='interpreter with torch')
  parser.add_argument('--threads', type=int, default=2, help='cores for each side')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--calls', type=int, default=3, help='steps of a measurement')
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--output', type=pathlib.Path, default=OUTPUT)
  arguments = parser.parse_args(argv)
  # Before JAX first asks for devices.
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    os.sched_setaffinity(0, cores)
  parallel.use_cores(arguments.batch_size)
  load = os.getloadavg()[0]
  differences = {}
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for name in NETWORKS:
      differences[name] = agreement(arguments.torch_python, name, folder=folder)
      print(name, differences[name], flush=True)
    rng = np.random.default_rng(0)
    batch = {
      'image': rng.random((arguments.batch_size, 32, 32, 3), np.float32),
      'label': rng.integers(0, 10, arguments.batch_size),
    }
    network = affinity_batch.NETWORKS['cifar'](depth=20, num_classes=10)
    variables = jax.jit(lambda x: network.init(jax.random.key(0), x, train=True))(
      batch['image']
    )
    path = folder / 'step.npz'
    save(path, variables, batch['image'], batch['label'], ('cifar', 20, 10))
    options = parallel.compiler_options()
    sides = {name: JaxSide(name, batch, options) for name in ('base', 'affinity')}
    if options:
      sides['base_without_options'] = JaxSide('base', batch, None)
    for name, compiled in (('torch', False), ('torch_compiled', True)):
      sides[name] = TorchSide(
        arguments.torch_python, path, threads=arguments.threads, compiled=compiled
      )
    seconds = measure(sides, rounds=arguments.rounds, calls=arguments.calls)
    versions = record.versions() | {'torch': sides['torch'].versions['torch']}
    for name in ('torch', 'torch_compiled'):
      sides[name].close()
  document = {
    'network': 'ResNet-20',
    'batch_size': arguments.batch_size,
    'threads': arguments.threads,
    'rounds': arguments.rounds,
    'training': summarize(seconds, 'base', arguments.batch_size),
    'largest differences': differences,
    'load_average': {'before': load, 'after': os.getloadavg()[0]},
    'code': record.code(),
    'versions': versions,
    'hardware': record.hardware(),
  }
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(document, indent=2) + '\n'
  files.write_atomically(arguments.output, text.encode())
  print(json.dumps(document['training'], indent=2))
  worst = max(d[k] for d in differences.values() for k in ('features', 'logits'))
  return int(worst > TOLERANCE)


if __name__ == '__main__':
  sys.exit(main())
