"""Speed of the whole training step, and how near it comes to what the chip can do.

  python -m benchmarks.throughput --output=results/benchmarks/throughput.json

For recipes of configs/image_graph_image.py at 128 px, images drawn on the device, at
several batch sizes, in float32 and bfloat16: images per second of the jitted step, the
median of `--rounds` measurements; its floating point operations, counted by XLA before
it optimizes; the bytes that the compiled step reads and writes, counted by XLA; and
their shares of the chip's peaks. The larger share is the bound. If both are below a
third, it is neither: small operations wait for each other.

Peaks of known chips are those of their data sheets, dense, with TensorFloat-32 for
float32 on GPUs and one bfloat16 pass on TPUs, as jax computes by default; those of
others are measured with a large matrix product and a large copy.

No measurement is begun after `--budget` seconds; compilation is most of the time.
"""

import argparse
import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks import routes
from configs import image_graph_image
from img2graph import data
from img2graph import methods
from img2graph.training import optim
from img2graph.training import parallel
from img2graph.training import seeds
from img2graph.training import state as states
from img2graph.training import step as steps

# Part of the device's name -> 1e12 operations/s in float32 and bfloat16, 1e9 bytes/s.
PEAKS = {
  'H200': (494.7, 989.4, 4800),
  'H100 PCIe': (378, 756, 2000),
  'H100': (494.7, 989.4, 3350),
  'A100-SXM4-80GB': (156, 312, 2039),
  'A100 80GB PCIe': (156, 312, 1935),
  'A100': (156, 312, 1555),
  'TPU v4': (275, 275, 1228),
  'TPU v5 lite': (197, 197, 819),
  'TPU v5e': (197, 197, 819),
}
# Below this share of both peaks, it is neither of them that bounds a step.
_BOUND = 1 / 3


class Program:
  """The training step of a config, for one seed or several at a time.

  Args:
    config: ConfigDict whose images are drawn on the device.
    count: number of seeds, from `config.seed` on.
  """

  def __init__(self, config, count=1):
    self.images = config.batch_size * count  # Of a step.
    method = methods.build(
      train_steps=config.train_steps, precision=config.precision, **config.method
    )
    source = data.build(**config.data)
    options = {n: v for n, v in config.optim.items() if n != 'ema'}
    tx, learning_rate = optim.build(train_steps=config.train_steps, **options)
    mesh = parallel.make_mesh()
    together = seeds.Seeds(count, mesh)

    def create(key):
      key, data_key, loss_key = jax.random.split(key, 3)
      batch = source.sample(data_key, config.batch_size)
      state = states.create(key, batch, method=method, tx=tx)
      return state, data_key, loss_key

    create = jax.jit(create, out_shardings=parallel.replicated(mesh))
    made = [create(jax.random.key(config.seed + i)) for i in range(count)]
    states_, data_keys, loss_keys = zip(*made, strict=True)
    self.state = together.join(list(states_))
    self.keys = together.stack(list(loss_keys)), together.stack(list(data_keys))
    step_fn = functools.partial(
      steps.train_step, method=method, tx=tx, learning_rate=learning_rate
    )
    function = steps.sampling_step(
      step_fn,
      sample=source.sample,
      batch_size=config.batch_size,
      sharding=together.batch_sharding,
    )
    self.lowered = together.lower(function, self.state, *self.keys, last_is_batch=False)
    began = time.perf_counter()
    self.compiled = self.lowered.compile()
    self.compile_seconds = time.perf_counter() - began

  def run(self, count):
    """Takes some steps; returns seconds by the clock and of the processor, of one."""
    began, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
      self.state, _ = self.compiled(self.state, *self.keys, None)  # Nothing is kept.
    jax.block_until_ready(self.state)
    clock = time.perf_counter() - began
    return clock / count, (time.process_time() - processor) / count

  def time(self, count, rounds):
    """Median seconds of a step by the clock, and least of the processor."""
    self.run(2)
    clock, processor = zip(*(self.run(count) for _ in range(rounds)), strict=True)
    return statistics.median(clock), min(processor)


def operations(lowered):
  """Floating point operations of a lowered program; the body of a loop counts once."""
  return float(lowered.cost_analysis()['flops'])


def traffic(compiled):
  """Bytes that the operations of a compiled program read and write."""
  found = compiled.cost_analysis()
  return float((found[0] if isinstance(found, list) else found)['bytes accessed'])


def peaks(dtype):
  """Operations and bytes per second of a device, and how they are known.

  Args:
    dtype: 'float32' or 'bfloat16'.
  """
  kind = jax.devices()[0].device_kind
  for name, (single, half, bandwidth) in PEAKS.items():
    if name in kind:
      rate = single if dtype == 'float32' else half
      return 1e12 * rate, 1e9 * bandwidth, 'data sheet'
  return *_measured_peaks(dtype), 'measured'


@functools.cache
def _measured_peaks(dtype):
  on_cpu = jax.default_backend() == 'cpu'
  side = 1024 if on_cpu else 8192
  one = jax.device_put(jnp.ones((side, side), dtype), jax.devices()[0])
  product = jax.jit(lambda x: x @ x)
  size = 2**25 if on_cpu else 2**29  # Floats; larger than caches.
  many = jax.device_put(jnp.ones(size, jnp.float32), jax.devices()[0])
  copy = jax.jit(lambda x: x + 1)
  return 2 * side**3 / _least(product, one), 8 * size / _least(copy, many)


def _least(function, argument):
  jax.block_until_ready(function(argument))
  seconds = []
  for _ in range(5):
    began = time.perf_counter()
    jax.block_until_ready(function(argument))
    seconds.append(time.perf_counter() - began)
  return min(seconds)


def at_side(variant, side):
  """A config of images of a side, drawn on the device: files are read elsewhere."""
  config = image_graph_image.get_config(variant)
  config.data = dict(source='shapes', side=side, line_width=1.5)
  if side not in config.method.sides:
    config.method.sides = (side,)
  return config


def measure(config, *, count, rounds):
  """A row: speed, operations and bytes of a step, and their shares of the peaks."""
  program = Program(config)
  seconds, _ = program.time(count, rounds)
  rate, bandwidth, known = peaks(config.precision)
  devices = jax.device_count()
  work = operations(program.lowered)
  # Of the program on each device.
  moved = traffic(program.compiled) * devices
  shares = {
    'operations': work / seconds / (rate * devices),
    'memory': moved / seconds / (bandwidth * devices),
  }
  bound = max(shares, key=shares.get)
  return {
    'precision': config.precision,
    'batch_size': config.batch_size,
    'step_ms': 1e3 * seconds,
    'images_per_second': config.batch_size / seconds,
    'operations_per_image': work / config.batch_size,
    'bytes_per_image': moved / config.batch_size,
    'peaks': {'operations': rate, 'memory': bandwidth, 'known': known},
    'shares': shares,
    'bound': bound if shares[bound] >= _BOUND else 'neither',
    'compile_seconds': program.compile_seconds,
  }


def table(rows):
  """Markdown of the rows."""
  lines = [
    [
      row['recipe'],
      row['precision'],
      str(row['batch_size']),
      f'{row["step_ms"]:.4g}',
      f'{row["images_per_second"]:.4g}',
      f'{row["operations_per_image"] / 1e9:.3g}',
      f'{row["bytes_per_image"] / 1e6:.3g}',
      *(routes.percent(row['shares'][name]) for name in ('operations', 'memory')),
      row['bound'],
    ]
    for row in rows
  ]
  header = ['recipe', 'precision', 'batch', 'step, ms', 'images/s', 'GFLOP/image']
  header += ['MB/image', 'of peak FLOP/s, %', 'of bandwidth, %', 'bound']
  return routes.markdown(header, lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = functools.partial(parser.add_argument, nargs='+')
  add('--recipes', default=['ours,paper', 'paper,paper'], metavar='VARIANT')
  add('--precisions', default=['float32', 'bfloat16'])
  add('--batch_sizes', type=int, default=[128, 1024, 32])
  parser.add_argument('--side', type=int, default=128)
  parser.add_argument('--steps', type=int, default=20, help='of one measurement')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--budget', type=float, default=240, metavar='SECONDS')
  parser.add_argument('--output', help='JSON; the table goes beside it')
  options = parser.parse_args(argv)
  if min(*options.batch_sizes, options.steps, options.rounds) < 1:
    print('--batch_sizes, --steps and --rounds must be positive.', file=sys.stderr)
    return 2
  began = time.perf_counter()
  rows, left_out = [], []
  for batch_size in options.batch_sizes:
    for recipe in options.recipes:
      for precision in options.precisions:
        name = f'{recipe} {precision} {batch_size}'
        if time.perf_counter() - began > options.budget:
          left_out.append(name)
          continue
        try:
          config = at_side(recipe, options.side)
          config.update(precision=precision, batch_size=batch_size)
          row = measure(config, count=options.steps, rounds=options.rounds)
        except ValueError as error:
          print(error, file=sys.stderr)
          return 2
        except jax.errors.JaxRuntimeError as error:
          if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
          left_out.append(f'{name} (not enough memory)')
          continue
        rows.append({'recipe': recipe, 'side': options.side} | row)
        print(table(rows[-1:]).splitlines()[-1], flush=True)
  text = table(rows)
  if left_out:
    text += f'\nLeft out: {"; ".join(left_out)}.\n'
  print(f'\n{text}')
  if options.output:
    routes.write_report(options.output, rows, text, left_out=left_out)
  return 0


if __name__ == '__main__':
  sys.exit(main())
