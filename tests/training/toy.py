"""A tiny method and tiny sources, for tests of training: steps take microseconds.

Run as a program it is `launch.main` with these registered:
  python tests/training/toy.py --config=tests/training/toy_config.py --workdir=DIR
"""

import contextlib
import pathlib
import sys
import time
import types

if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental.compilation_cache import compilation_cache as cache

from img2graph import data
from img2graph import graph
from img2graph.data import sources
from img2graph.methods import base


def build_method(*, train_steps, precision, capacity, width, nan_at=-1):
  """A linear auto-encoder with noise and a running mean.

  Args:
    train_steps: as every method.
    precision: as every method.
    capacity: number of nodes of its (meaningless) graphs.
    width: size of the code.
    nan_at: step from which the loss is not a number; -1 for never.
  """
  del train_steps, precision
  if width < 1:
    raise ValueError(f'method.width must be positive; got {width}.')

  def init(key, batch):
    size = int(np.prod(batch['image'].shape[1:]))
    first, second = jax.random.split(key)
    params = {
      'encoder': {'kernel': jax.random.normal(first, (size, width)) / size},
      'decoder': {
        'kernel': jax.random.normal(second, (width, size)) / width,
        'bias': jnp.zeros(size),
      },
    }
    return {'params': params, 'statistics': {'mean': jnp.zeros(size)}}

  def reconstruct(variables, images):
    params = variables['params']
    flat = images.reshape(images.shape[0], -1)
    code = flat @ params['encoder']['kernel']
    flat = code @ params['decoder']['kernel'] + params['decoder']['bias'][None]
    return {
      'graph': predict(variables, images),
      'drawing': flat.reshape(images.shape),
    }

  def loss(variables, batch, key, step):
    noise = 0.1 * jax.random.normal(key, batch['image'].shape)
    images = batch['image'] + noise
    drawing = reconstruct(variables, images)['drawing']
    error = ((drawing - batch['image']) ** 2).mean()
    error = jnp.where((nan_at >= 0) & (step >= nan_at), jnp.nan, error)
    mean = batch['image'].reshape(images.shape[0], -1).mean(0)
    old = variables['statistics']['mean']
    aux = {
      'metrics': {'error': error},
      'collections': {'statistics': {'mean': 0.9 * old + 0.1 * mean}},
    }
    return error, aux

  def predict(variables, images):
    count = images.shape[0]
    mean = variables['params']['decoder']['bias'].mean()
    # A graph of its own for every image.
    angle = jnp.arange(capacity)[None] + mean + images.mean((1, 2, 3))[:, None]
    nodes = 0.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    edges = 1 - jnp.eye(capacity)
    return graph.Graph(
      nodes,
      jnp.ones((count, capacity)),
      jnp.broadcast_to(edges[None], (count, capacity, capacity)),
    )

  return base.Method(
    init=init, loss=loss, predict=predict, reconstruct=reconstruct, sides=(16,)
  )


class Numbers:
  """An iterator over images drawn from a counter, with its position."""

  def __init__(
    self, seed, batch_size, process_index, process_count, side, size, delay=0.0
  ):
    self._first = process_index * (batch_size // process_count)
    self._local = batch_size // process_count
    self._batch_size, self._seed, self._side = batch_size, seed, side
    self._size, self._delay = size, delay
    self._at = 0

  def __iter__(self):
    return self

  def __next__(self):
    return {'image': self.images(self.places())}

  def places(self):
    """Those of the next batch."""
    start = self._at * self._batch_size + self._first
    self._at += 1
    time.sleep(self._delay)
    return range(start, start + self._local)

  def images(self, places):
    found = [
      np.random.default_rng([self._seed, i % self._size]).random(
        (self._side, self._side, 1), np.float32
      )
      for i in places
    ]
    return np.stack(found)

  def get_state(self):
    return str(self._at).encode()

  def set_state(self, state):
    self._at = int(state)


def source(*, side=16, size=1000, delay=0.0):
  """A `HostSource` of `Numbers`; each batch takes `delay` seconds."""

  def iterate(*, seed, batch_size, process_index=0, process_count=1):
    return Numbers(seed, batch_size, process_index, process_count, side, size, delay)

  return sources.HostSource(iterate=iterate, side=side, size=size)


class Places:
  """As `Numbers`, but only the places of the images among all."""

  def __init__(self, numbers, size):
    self._numbers, self._size = numbers, size
    self.get_state, self.set_state = numbers.get_state, numbers.set_state

  def __iter__(self):
    return self

  def __next__(self):
    return {'index': np.array(self._numbers.places(), np.int32) % self._size}


def resident_source(*, side=16, size=20, delay=0.0):
  """The images of `source`, which stay on the devices."""
  whole = {'image': Numbers(0, size, 0, 1, side, size).images(range(size))}

  def iterate(*, seed, batch_size, process_index=0, process_count=1):
    del seed
    return Places(
      Numbers(0, batch_size, process_index, process_count, side, size, delay), size
    )

  def complete(key, batch, resident):
    picked = resident['image'][batch['index']]
    return {'image': picked * jax.random.uniform(key, (len(picked), 1, 1, 1))}

  return sources.HostSource(
    iterate=iterate,
    side=side,
    size=size,
    complete=complete,
    resident=whole,
    whole=whole,
  )


def device_source(*, side=16, level=1.0):
  """A `DeviceSource` of noise up to `level`, with one true graph for all."""
  if level <= 0:
    raise ValueError(f'level must be positive; got {level}.')

  def sample(key, batch_size):
    keys = jax.random.split(key, batch_size)
    images = jax.vmap(lambda k: jax.random.uniform(k, (side, side, 1)))(keys)
    true = graph.Graph(
      jnp.broadcast_to(jnp.array([[-0.5, 0.0], [0.5, 0.0]])[None], (batch_size, 2, 2)),
      jnp.ones((batch_size, 2)),
      jnp.broadcast_to((1 - jnp.eye(2))[None], (batch_size, 2, 2)),
    )
    return {'image': level * images, 'graph': true}

  return sources.DeviceSource(sample=sample, side=side)


def get_config(variant='device'):
  """Variants: 'device' (images drawn there), 'host' (made on the host), 'resident'
  (made there and kept on the devices).
  """
  variants = ('device', 'host', 'resident')
  if variant not in variants:
    raise ValueError(
      f'the toy has the variants {", ".join(variants)}; got {variant!r}.'
    )
  c = ml_collections.ConfigDict()
  c.seed = 3
  c.train_steps = 20
  c.batch_size = 8
  c.precision = 'float32'
  c.log_every = 2
  c.eval_every = 0
  c.checkpoint_every = 5
  c.panel_every = 0
  c.keep_checkpoints = 2
  c.data = dict(source='toy_device', side=16, level=1.0)
  if variant == 'host':
    c.data = dict(source='toy', side=16, delay=0.0)
  if variant == 'resident':
    c.data = dict(source='toy_resident', side=16, delay=0.0)
  c.method = dict(name='toy', capacity=4, width=3, nan_at=-1)
  c.optim = dict(name='adam', lr=1e-2, schedule='cosine', clip_norm=1.0, ema=0.0)
  c.eval = dict(
    num_images=16,
    batch_size=8,
    seed=1,
    thresholds=(0.05, 0.5),
    capacities=(),
    archive='',
  )
  return c


def register(monkeypatch=None):
  """Makes the method and the source known as 'toy'.

  Args:
    monkeypatch: pytest's, to undo it after the test; None for good.
  """
  method_module = types.ModuleType('img2graph.methods.toy')
  method_module.build = build_method
  source_module = types.ModuleType('img2graph.data.toy')
  source_module.source = source
  device_module = types.ModuleType('img2graph.data.toy_device')
  device_module.source = device_source
  resident_module = types.ModuleType('img2graph.data.toy_resident')
  resident_module.source = resident_source
  changes = [
    (sys.modules, 'img2graph.methods.toy', method_module),
    (sys.modules, 'img2graph.data.toy', source_module),
    (sys.modules, 'img2graph.data.toy_device', device_module),
    (sys.modules, 'img2graph.data.toy_resident', resident_module),
    (data._MODULES, 'toy', 'toy'),
    (data._MODULES, 'toy_resident', 'toy_resident'),
    (data._MODULES, 'toy_device', 'toy_device'),
  ]
  for place, name, value in changes:
    if monkeypatch is None:
      place[name] = value
    else:
      monkeypatch.setitem(place, name, value)


@contextlib.contextmanager
def quick_compilation(folder):
  """Compiles without optimizations, and each program once: it is kept in a folder.

  Yields:
    The environment variables that do the same for a process of its own.
  """
  options = {
    'jax_disable_most_optimizations': True,
    'jax_compilation_cache_dir': str(folder),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  before = {name: jax.config.values[name] for name in options}
  try:
    for name, value in options.items():
      jax.config.update(name, value)
    cache.reset_cache()
    yield {name.upper(): str(value) for name, value in options.items()}
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    cache.reset_cache()


if __name__ == '__main__':
  from launch import main

  register()
  sys.exit(main.run(sys.argv))
