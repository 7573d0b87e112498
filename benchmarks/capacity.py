"""What a graph of more nodes costs: time of prediction and training as capacity grows.

  python -m benchmarks.capacity --output=results/benchmarks/capacity.json

The model of `configs/line_drawings.py` at 8 to 128 nodes, at most `most_pairs` pairs a
node going to the edge classifier, and again with all pairs. Weights are those of the
start and images are generated: neither changes the work. Timed are the jitted
prediction (graph and ink) and the gradient of the loss, of a batch of 16, in
milliseconds of processor time for each image: the least of `--rounds` measurements,
since other work only adds. In the table, all pairs in brackets.
"""

import argparse
import sys
import time

import jax

from benchmarks import routes
from configs import line_drawings
from img2graph import data
from img2graph import methods

NODES = (8, 16, 32, 64, 128)
_BATCH = 16


def processor_ms(function, *arguments, rounds):
  """Least processor time of a call, in milliseconds."""
  jax.block_until_ready(function(*arguments))
  times = []
  for _ in range(rounds):
    begin = time.process_time()
    jax.block_until_ready(function(*arguments))
    times.append(time.process_time() - begin)
  return 1e3 * min(times)


def measure(config, batch, num_nodes, most_pairs, *, rounds):
  """A row of times for a capacity; `most_pairs` None for all pairs."""
  options = config.method.to_dict()
  options |= dict(capacity=num_nodes, predict_capacity=num_nodes, most_pairs=most_pairs)
  # An edge that is not drawn costs nothing: as many as planar graphs have.
  options['renderer']['max_edges'] = min(
    3 * num_nodes, num_nodes * (num_nodes - 1) // 2
  )
  method = methods.build(
    **options, train_steps=config.train_steps, precision=config.precision
  )
  key, images = jax.random.key(0), batch['image']
  variables = jax.jit(method.init)(key, batch)

  def predict(variables, images):
    return method.predict(variables, images), method.ink(variables, images)

  def loss(params, batch):
    return method.loss(variables | {'params': params}, batch, key, 0)[0]

  predict, gradient = jax.jit(predict), jax.jit(jax.grad(loss))
  pairs = num_nodes * (num_nodes - 1) // 2
  params = variables['params']
  return {
    'nodes': num_nodes,
    'pairs': pairs,
    'classified': pairs if most_pairs is None else min(pairs, most_pairs * num_nodes),
    'predict_ms': processor_ms(predict, variables, images, rounds=rounds) / _BATCH,
    'train_ms': processor_ms(gradient, params, batch, rounds=rounds) / _BATCH,
  }


def table(rows):
  """Markdown: times with pruned pairs, and with all."""
  pruned, whole = ([r for r in rows if r['pruned'] == flag] for flag in (True, False))
  lines = [
    [
      str(a['nodes']),
      f'{a["classified"]} of {a["pairs"]}',
      *(f'{a[name]:.1f} ({b[name]:.1f})' for name in ('predict_ms', 'train_ms')),
    ]
    for a, b in zip(pruned, whole, strict=True)
  ]
  header = ['nodes', 'pairs classified', 'prediction, ms', 'gradient, ms']
  return routes.markdown(header, lines)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--nodes', type=int, nargs='+', default=NODES)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--variant', default='base', help='of configs/line_drawings.py')
  parser.add_argument('--output', help='JSON; the table goes beside it')
  options = parser.parse_args(argv)
  if min(options.nodes) < 2 or options.rounds < 1:
    print('--nodes must be 2 or more each, and --rounds 1 or more.', file=sys.stderr)
    return 2
  config = line_drawings.get_config(options.variant)
  generator = data.build(**config.data.to_dict())
  batch = jax.jit(generator.sample, static_argnums=1)(jax.random.key(0), _BATCH)
  rows = []
  for num_nodes in options.nodes:
    for most_pairs in (config.method.most_pairs, None):
      row = measure(config, batch, num_nodes, most_pairs, rounds=options.rounds)
      rows.append({'pruned': most_pairs is not None} | row)
      print(rows[-1], flush=True)
  text = table(rows)
  print(f'\n{text}')
  if options.output:
    routes.write_report(options.output, rows, text, variant=options.variant)
  return 0


if __name__ == '__main__':
  sys.exit(main())
