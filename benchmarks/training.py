"""Speed of a training step, by part, beside a PyTorch twin of the same model.

  python -m benchmarks.training --torch_python=/path/to/python

`--torch_python` is an interpreter with torch and numpy; without it only the JAX side is
measured. Both sides get the same weights, batch and number of threads and must agree
on the loss and the gradient's norm before anything is timed. They are timed in turns,
while the other waits; a figure is the median over the rounds, a ratio the median of
each round's ratio. PyTorch is measured eagerly and with torch.compile. It gets its
batch for nothing; the JAX step is given with and without the drawing of the batch.

Writes results/benchmarks/training.json.
"""

import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import jax
import numpy as np
from absl import app
from absl import flags

from configs import simple_shapes
from img2graph import data
from img2graph import geometry
from img2graph import methods
from img2graph.encoding import canonical
from img2graph.encoding import encoder
from img2graph.encoding import heads
from img2graph.methods import base
from img2graph.methods import image_graph_image
from img2graph.training import optim
from img2graph.training import parallel
from img2graph.training import record
from img2graph.training import state as states
from img2graph.training import step as steps

_TORCH_PYTHON = flags.DEFINE_string(
  'torch_python', None, 'Interpreter with torch and numpy, for the twin.'
)
_VARIANT = flags.DEFINE_string('variant', 'base', 'Of configs/simple_shapes.py.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Processor cores for each side.')
_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Measurements of each figure.')
_SECONDS = flags.DEFINE_float('seconds', 0.5, 'Least length of one measurement.')
_OUTPUT = flags.DEFINE_string(
  'output', 'results/benchmarks/training.json', 'File that is written.'
)

# Within the schedules of noise (it falls) and costs (they rise).
_PROGRESS = 0.3
# Beyond them: nothing is random, so that both sides must agree.
_CHECKED_PROGRESS = 1.0
_CHECKED_TOLERANCE = 1e-4
# Above this, several threads of PyTorch are not measured: five busy programs on two
# cores made its step ten times as long and that of JAX not even twice.
_MAX_LOAD = 1.0
# Steps before the weights are handed over, so that the graphs are not those of noise.
_WARM_UP_STEPS = 50


class JaxSide:
  """The JAX model with weights and a batch, and what is timed of it by name."""

  def __init__(self, config):
    self.config = config
    self.method = methods.build(
      train_steps=config.train_steps, precision=config.precision, **config.method
    )
    self.source = data.build(**config.data)
    self.tx, self.learning_rate = optim.build(
      train_steps=config.train_steps, **config.optim
    )
    self.key, self.data_key, init_key = jax.random.split(jax.random.key(config.seed), 3)
    draw = jax.jit(self.source.sample, static_argnums=1)
    mesh = parallel.make_mesh()
    # As the loop does: the batch lies on all devices, and so does the state, whole.
    self.batch = jax.device_put(
      draw(self.data_key, config.batch_size), parallel.sharded(mesh)
    )
    create = jax.jit(
      lambda key, batch: states.create(key, batch, method=self.method, tx=self.tx),
      out_shardings=parallel.replicated(mesh),
    )
    self.state = create(init_key, self.batch)
    self.full_step = jax.jit(
      steps.sampling_step(
        self._train_step,
        sample=self.source.sample,
        batch_size=config.batch_size,
        sharding=parallel.sharded(mesh),
      ),
      donate_argnums=0,
    )
    self.batch_step = jax.jit(self._train_step, donate_argnums=0)
    for _ in range(_WARM_UP_STEPS):
      self.state, _ = self.full_step(self.state, self.key, self.data_key)
    # Copies: the steps that are timed give their state away.
    self.variables = jax.tree.map(np.asarray, self.state.variables)
    self.runs = {**self._part_runs(), **self._whole_runs()}

  def _train_step(self, state, batch, key):
    return steps.train_step(
      state,
      batch,
      key,
      method=self.method,
      tx=self.tx,
      learning_rate=self.learning_rate,
    )

  def _loss(self, params, batch, key, step):
    variables = {**self.variables, 'params': params}
    return self.method.loss(variables, batch, key, step)[0]

  def _whole_runs(self):
    # The batch and the key are arguments: what depends on constants only would be
    # computed by the compiler, and not timed.
    inputs = (self.variables['params'], self.batch, self.key)
    step = _PROGRESS * self.config.train_steps
    forward = jax.jit(self._loss)
    gradient = jax.jit(jax.value_and_grad(self._loss))
    draw = jax.jit(self.source.sample, static_argnums=1)

    def run_step():
      self.state, metrics = self.batch_step(self.state, self.batch, self.key)
      return metrics

    def run_step_with_data():
      self.state, metrics = self.full_step(self.state, self.key, self.data_key)
      return metrics

    return {
      'data': lambda: draw(self.data_key, self.config.batch_size),
      'forward': lambda: forward(*inputs, step),
      'gradient': lambda: gradient(*inputs, step),
      'step': run_step,
      'step_with_data': run_step_with_data,
    }

  def _part_runs(self):
    """Each part alone: forward, and forward and backward to inputs and parameters."""
    config = self.config.method.to_dict()
    options = {k: dict(v) for k, v in config.items() if isinstance(v, dict)}
    kinds = {k: v.pop('kind') for k, v in options.items() if 'kind' in v}
    node_head = encoder.NODE_HEADS[kinds['nodes']](
      capacity=config['capacity'], dtype=np.float32, **options['nodes']
    )
    edge_head = encoder.EDGE_HEADS[kinds['edges']](dtype=np.float32, **options['edges'])
    renderer = image_graph_image.RENDERERS[kinds['renderer']](**options['renderer'])
    loss_fn = image_graph_image.LOSSES[kinds['loss']](**options['loss'])
    images, params = self.batch['image'], self.variables['params']
    i, j = geometry.node_pairs(config['capacity'])

    def prepare(images):
      return canonical.canonical_image(images, **config['canonical_form'])

    def encode(params, x, key):
      nodes = node_head.apply(
        {'params': params}, x, progress=_PROGRESS, train=True, rngs={'explore': key}
      )
      return nodes.positions, nodes.prob

    def classify(params, x, start, end):
      logits = edge_head.apply({'params': params}, x, start, end, train=True)
      return jax.nn.sigmoid(logits)

    def draw(params, start, end, weight, x, key):
      return renderer.apply(
        {'params': params},
        start,
        end,
        weight,
        height=x.shape[1],
        width=x.shape[2],
        progress=_PROGRESS,
        train=True,
        rngs={'explore': key},
      )

    def compare(drawing, positions, prob, link_prob, x):
      encoded = encoder.Encoded(heads.NodeSet(positions, prob), link_prob)
      drawing = drawing[..., None]
      target = base.Target(x, np.ones(len(x)))
      return loss_fn(encoded, drawing, drawing, target, _PROGRESS)[0]

    x = jax.jit(prepare)(images)
    positions, prob = jax.jit(encode)(params['node_head'], x, self.key)
    start, end = positions[:, i], positions[:, j]
    link_prob = jax.jit(classify)(params['edge_head'], x, start, end)
    weight = prob[:, i] * prob[:, j] * link_prob
    draw_inputs = (params['renderer'], start, end, weight, x, self.key)
    drawing = jax.jit(draw)(*draw_inputs)
    # Function, inputs, and how many of these (the first) get a gradient. Positions
    # get none from the reading of the image by the edge head.
    parts = {
      'encoder': (encode, (params['node_head'], x, self.key), 1),
      'edges': (classify, (params['edge_head'], x, start, end), 1),
      'renderer': (draw, draw_inputs, 4),
      'loss': (compare, (drawing, positions, prob, link_prob, x), 4),
    }

    def call(function, inputs):
      compiled = jax.jit(function)
      return lambda: compiled(*inputs)

    def call_gradient(function, inputs, count):
      def total(*inputs):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(function(*inputs)))

      return call(jax.grad(total, tuple(range(count))), inputs)

    runs = {'canonical': call(prepare, (images,))}
    for name, (function, inputs, count) in parts.items():
      runs[name] = call(function, inputs)
      runs[f'{name}_gradient'] = call_gradient(function, inputs, count)
    return runs

  def check(self, progress):
    """Loss and norm of its gradient at some progress of the training."""
    step = progress * self.config.train_steps
    loss, grads = jax.jit(jax.value_and_grad(self._loss))(
      self.variables['params'], self.batch, self.key, step
    )
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    return {'loss': float(loss), 'grad_norm': float(norm)}

  def time(self, name, calls):
    """Wall and processor seconds of one call, means of `calls`."""
    run = self.runs[name]
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(calls):
      jax.block_until_ready(run())
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return wall / calls, cpu / calls

  def save(self, path):
    """Weights, batch and config for the twin."""
    params = {
      jax.tree_util.keystr(keys, simple=True, separator='/'): np.asarray(leaf)
      for keys, leaf in jax.tree_util.tree_leaves_with_path(self.variables['params'])
    }
    np.savez(
      path,
      **{f'params/{name}': value for name, value in params.items()},
      image=np.asarray(self.batch['image']),
      progress=_PROGRESS,
      config=json.dumps(self.config.to_dict()),
    )


class TorchSide:
  """The twin, in a process of its own."""

  def __init__(self, python, path, *, compiled):
    twin = pathlib.Path(__file__).with_name('torch_twin.py')
    environment = dict(os.environ, OMP_NUM_THREADS=str(_THREADS.value))
    self._process = subprocess.Popen(
      [python, str(twin)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environment,
    )
    self.versions = self._ask(
      load=str(path),
      device='cuda' if jax.default_backend() == 'gpu' else 'cpu',
      threads=_THREADS.value,
      compiled=compiled,
    )

  def _ask(self, **request):
    print(json.dumps(request), file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError(f'the PyTorch twin stopped at {request}; its error is above.')
    return json.loads(answer)

  def check(self, progress):
    return self._ask(check=progress)

  def time(self, name, calls):
    return self._ask(time=name, calls=calls)

  def close(self):
    self._process.stdin.close()
    self._process.wait()


def check_agreement(expected, actual, name):
  """Raises RuntimeError unless loss and gradient norm agree."""
  for key, value in expected.items():
    if abs(actual[key] - value) > _CHECKED_TOLERANCE * abs(value):
      raise RuntimeError(f'{key} is {value} in JAX and {actual[key]} in {name}.')


def measure(sides, name):
  """Times one part of every side in turns: `{side: [(wall, processor seconds)]}`."""
  calls = {}
  for side_name, side in sides.items():
    side.time(name, 2)  # Compiles.
    wall, _ = side.time(name, 2)
    calls[side_name] = max(1, round(_SECONDS.value / wall))
  seconds = {side_name: [] for side_name in sides}
  for _ in range(_ROUNDS.value):
    for side_name, side in sides.items():
      time.sleep(0.05)  # Threads of the other side that still spin come to rest.
      seconds[side_name].append(side.time(name, calls[side_name]))
  return seconds


def summarize(seconds):
  """Median milliseconds of each side, and median ratios of the others to JAX.

  '_cpu' is processor time, of all threads together: it hardly changes when other
  programs use the machine, where the wall time of threads that wait for each other
  grows out of proportion.
  """
  row = {}
  for which, suffix in enumerate(('', '_cpu')):
    values = {side: [s[which] for s in rounds] for side, rounds in seconds.items()}
    for side in seconds:
      row[f'{side}{suffix}_ms'] = statistics.median(values[side]) * 1e3
      if side != 'jax':
        pairs = zip(values[side], values['jax'], strict=True)
        row[f'{side}_over_jax{suffix}'] = statistics.median(t / j for t, j in pairs)
  return {name: float(f'{value:.4g}') for name, value in row.items()}


def main(argv):
  del argv
  # Before JAX first asks for devices: it takes as many threads as there are cores.
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _THREADS.value])
  config = simple_shapes.get_config(_VARIANT.value)
  parallel.use_cores(config.batch_size)
  load_before = os.getloadavg()[0]
  if _TORCH_PYTHON.value and _THREADS.value > 1 and load_before > _MAX_LOAD:
    raise app.UsageError(
      f'the load average is {load_before:.1f}, and PyTorch slows down many times when'
      ' its threads wait for cores that others use: wait until it is below'
      f' {_MAX_LOAD}, or compare with --threads=1.'
    )
  jax_side = JaxSide(config)
  sides = {'jax': jax_side}
  checks = {'jax': jax_side.check(_CHECKED_PROGRESS)}
  versions = record.versions()
  parts = {}
  with tempfile.TemporaryDirectory() as folder:
    if _TORCH_PYTHON.value:
      path = pathlib.Path(folder) / 'twin.npz'
      jax_side.save(path)
      for name, compiled in (('torch', False), ('torch_compiled', True)):
        sides[name] = TorchSide(_TORCH_PYTHON.value, path, compiled=compiled)
        checks[name] = sides[name].check(_CHECKED_PROGRESS)
        check_agreement(checks['jax'], checks[name], name)
        versions['torch'] = sides[name].versions['torch']
        print(f'{name} agrees: {checks[name]} against {checks["jax"]}')
    for name in jax_side.runs:
      is_jax_only = name in ('data', 'step_with_data')
      chosen = {'jax': jax_side} if is_jax_only else sides
      parts[name] = summarize(measure(chosen, name))
      print(f'{name:18}', parts[name], flush=True)
    for name, side in sides.items():
      if name != 'jax':
        side.close()
  milliseconds = {side: parts['step'][f'{side}_ms'] for side in sides}
  milliseconds['jax_with_data'] = parts['step_with_data']['jax_ms']
  result = {
    'config': f'configs/simple_shapes.py:{_VARIANT.value}',
    'batch_size': config.batch_size,
    'side': config.data.side,
    'threads': _THREADS.value,
    'rounds': _ROUNDS.value,
    'images_per_second': {
      side: float(f'{1e3 * config.batch_size / value:.4g}')
      for side, value in milliseconds.items()
    },
    'parts': parts,
    'agreement': checks,
    'load_average': {'before': load_before, 'after': os.getloadavg()[0]},
    'code': record.code(),
    'versions': versions,
    'hardware': record.hardware(),
  }
  path = pathlib.Path(_OUTPUT.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(result, indent=2) + '\n')
  print(f'images/s {result["images_per_second"]}; written to {path}')


if __name__ == '__main__':
  app.run(main)
