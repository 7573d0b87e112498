"""The training loop, one for every method.

A run lives in its workdir:
  config.json    the config; another one is refused
  checkpoints/   state, data position and clock, by step
  metrics.jsonl  one line per logged or evaluated step (and `tensorboard/`)
  panels/        pictures of images, drawings and graphs, by step
  weights.npz    what `img2graph predict` takes, at the end
  results.json   scores, config, code, hardware and time, at the end
The same call goes on where a killed run stopped, and ends in the same parameters, bit
by bit, as one never killed.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np
from PIL import Image

from img2graph import data
from img2graph import evaluation
from img2graph import files
from img2graph import methods
from img2graph import metrics
from img2graph import plotting
from img2graph import weights
from img2graph.data import archives
from img2graph.training import checkpoint
from img2graph.training import errors
from img2graph.training import feed
from img2graph.training import interrupt
from img2graph.training import logging
from img2graph.training import optim
from img2graph.training import parallel
from img2graph.training import record
from img2graph.training import state as states
from img2graph.training import step as steps

_KEYS = (
  'seed',
  'train_steps',
  'batch_size',
  'precision',
  'log_every',
  'eval_every',
  'checkpoint_every',
  'panel_every',
  'keep_checkpoints',
  'data',
  'method',
  'optim',
  'eval',
)
# Steps in flight: enough to keep the devices busy, few enough for their memory.
_AHEAD = 4
_PANEL_IMAGES = 8


def train(config, workdir, *, evaluate=True, console=None):
  """Trains as a config says, from the newest checkpoint in the workdir if there is one.

  Args:
    config: a ConfigDict or dict; see the top of any file in `configs`.
    workdir: folder of the run; made when it is not there.
    evaluate: False leaves all scores out.
    console: a `logging.Console`; by default standard output.

  Returns:
    What `results.json` holds; or, when it was asked to stop by SIGTERM or Ctrl-C,
    `{'interrupted': signal number, 'step': finished steps}`.

  Raises:
    errors.UserError: the config, the data or the workdir do not do.
    errors.SaveError: something could not be written.
    errors.NonFiniteError: the loss or its gradient was not finite.
    errors.PeerError: another process of the run is gone.
  """
  began = time.perf_counter()
  record.forget_peak_memory()
  console = console or logging.Console(active=parallel.is_first())
  with errors.user_errors():
    plan = _plan(config, workdir, console)
  with _saving(plan), interrupt.StopSignal() as stop:
    _claim(plan)
    try:
      return _Run(plan, console, stop, began).go(evaluate)
    except BaseException:
      if jax.process_count() > 1:
        plan.checkpoints.abandon()
      raise
    finally:
      console.end_line()
      plan.checkpoints.close()


def evaluate(config, workdir, *, console=None):
  """Scores the newest checkpoint of a workdir, and writes `results.json` anew.

  Args:
    config: that of the run; only its `eval` may differ.
    workdir: folder of the run.
    console: a `logging.Console`; by default standard output.

  Returns:
    What `results.json` holds.

  Raises:
    errors.UserError: as `train`; or there is no checkpoint.
    errors.SaveError: something could not be written.
    errors.PeerError: another process of the run is gone.
  """
  began = time.perf_counter()
  console = console or logging.Console(active=parallel.is_first())
  with errors.user_errors():
    plan = _plan(config, workdir, console)
    _check_config_file(plan, free=('eval',))
    restored = plan.checkpoints.restore(plan.abstract_state())
    if restored is None:
      raise errors.UserError(f'there is no checkpoint in {plan.workdir} to evaluate.')
  with _saving(plan):
    scores = plan.exam.scores(restored.state, final=True)
    clock = _Clock(began, restored.clock)
    return _finish(plan, restored.state, scores, clock, console)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What a config builds, before anything runs."""

  config: dict[str, Any]
  workdir: pathlib.Path
  source: Any
  method: Any
  tx: Any
  learning_rate: Any
  mesh: Any
  checkpoints: checkpoint.Checkpoints
  exam: Any
  start: Any  # Variables to start from; None for fresh ones.

  @functools.cached_property
  def reconstruct(self):
    """The method's, compiled once."""
    return jax.jit(self.method.reconstruct)

  @property
  def samples(self):
    """Whether images are drawn on the devices."""
    return hasattr(self.source, 'sample')

  @property
  def ema(self):
    return self.config['optim'].get('ema', 0.0)

  def keys(self):
    """Keys of the initial parameters, of the data and of the loss."""
    make = jax.jit(
      lambda seed: tuple(jax.random.split(jax.random.key(seed), 3)),
      out_shardings=parallel.replicated(self.mesh),
    )
    return make(np.uint32(self.config['seed']))

  def iterate(self):
    """A fresh iterator over this process's part of the batches of a `HostSource`."""
    return self.source.iterate(
      seed=self.config['seed'],
      batch_size=self.config['batch_size'],
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  @functools.cached_property
  def example_batch(self):
    """Shapes of one batch."""
    if self.samples:
      sample = functools.partial(self.source.sample, batch_size=self._batch_size)
      return jax.eval_shape(sample, jax.random.key(0))
    local = next(iter(self.iterate()))
    count = jax.process_count()
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((x.shape[0] * count, *x.shape[1:]), x.dtype),
      local,
    )

  @property
  def _batch_size(self):
    return self.config['batch_size']

  def create_state(self, key, batch):
    return states.create(
      key, batch, method=self.method, tx=self.tx, ema=self.ema, variables=self.start
    )

  def abstract_state(self):
    """The state as shapes, replicated over the devices."""
    shapes = jax.eval_shape(self.create_state, jax.random.key(0), self.example_batch)
    sharding = parallel.replicated(self.mesh)
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )

  def initial_state(self, key, data_key):
    """The state before the first step, on the devices."""
    sharding = parallel.replicated(self.mesh)
    if self.samples:

      def create(key, data_key):
        return self.create_state(key, self.source.sample(data_key, self._batch_size))

      return jax.jit(create, out_shardings=sharding)(key, data_key)
    batch = parallel.global_batch(
      next(iter(self.iterate())), parallel.sharded(self.mesh)
    )
    return jax.jit(self.create_state, out_shardings=sharding)(key, batch)

  def compiled_step(self, state, keys, batch):
    """The step for `(state, key, data_key or batch)`; the state is donated.

    Compiled ahead: what a config gets wrong shows before the first step, and speeds
    are those of training alone.
    """
    replicated = parallel.replicated(self.mesh)
    sharded = parallel.sharded(self.mesh)
    step_fn = functools.partial(
      steps.train_step,
      method=self.method,
      tx=self.tx,
      learning_rate=self.learning_rate,
      ema=self.ema,
    )
    if self.samples:
      function = steps.sampling_step(
        step_fn,
        sample=self.source.sample,
        batch_size=self._batch_size,
        sharding=sharded,
      )
      last, last_sharding = keys[1], replicated
    else:
      function = steps.completing_step(
        step_fn, complete=self.source.complete, sharding=sharded
      )
      last, last_sharding = batch, sharded
    jitted = jax.jit(
      function,
      in_shardings=(replicated, replicated, last_sharding),
      out_shardings=replicated,
      donate_argnums=0,
    )
    return jitted.lower(state, keys[2], last).compile()


def _plan(config, workdir, console):
  """Builds and checks all that a config names; raises ValueError and the like."""
  config = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  check_config(config)
  workdir = pathlib.Path(workdir).absolute()
  if workdir.exists() and not workdir.is_dir():
    raise errors.UserError(f'workdir {workdir} is a file; it should be a folder.')
  with errors.user_errors('config.data'):
    source = data.build(**config['data'])
  with errors.user_errors('config.method'):
    method = _build_method(config)
  with errors.user_errors('config.optim'):
    options = {n: v for n, v in config['optim'].items() if n != 'ema'}
    tx, learning_rate = optim.build(train_steps=config['train_steps'], **options)
  with errors.user_errors('config.eval'):
    exam = _Exam(config, method, source)
  with errors.user_errors('config.start_from'):
    start = _load_start(config.get('start_from', ''), method)
  checkpoints = checkpoint.Checkpoints(
    workdir / 'checkpoints', keep=config['keep_checkpoints'], warn=console.warn
  )
  return _Plan(
    config=config,
    workdir=workdir,
    source=source,
    method=method,
    tx=tx,
    learning_rate=learning_rate,
    mesh=parallel.make_mesh(),
    checkpoints=checkpoints,
    exam=exam,
    start=start,
  )


def _load_start(name, method):
  """Variables of the weights that `weights.find` finds; None for ''."""
  if not name:
    return None
  return weights.load_variables(weights.find(name), method)


def _build_method(config, **changes):
  return methods.build(
    train_steps=config['train_steps'],
    precision=config['precision'],
    **(config['method'] | changes),
  )


def check_config(config):
  """Raises `UserError` for values that no run can have.

  Args:
    config: nested dict.
  """

  def value(name):
    place = config
    for part in name.split('.'):
      place = place[part]
    return place

  def wants(name, ok, what):
    try:
      good = ok(value(name))
    except TypeError:  # A number for a tuple, or text for a number.
      good = False
    if not good:
      raise errors.UserError(f'config.{name} must be {what}; got {value(name)!r}.')

  missing = [name for name in _KEYS if name not in config]
  missing += [
    f'eval.{name}'
    for name in ('num_images', 'batch_size', 'seed', 'thresholds')
    if name not in config.get('eval', {})
  ]
  if missing:
    raise errors.UserError(f'the config lacks {", ".join(missing)}.')

  def is_int(v):
    return isinstance(v, int) and not isinstance(v, bool)

  for name in ('train_steps', 'batch_size', 'log_every', 'keep_checkpoints'):
    wants(name, lambda v: is_int(v) and v >= 1, 'a positive whole number')
  for name in ('eval.num_images', 'eval.batch_size'):
    wants(name, lambda v: is_int(v) and v >= 1, 'a positive whole number')
  for name in ('eval_every', 'checkpoint_every', 'panel_every'):
    wants(name, lambda v: is_int(v) and v >= 0, 'a whole number, 0 for never')
  for name in ('seed', 'eval.seed'):
    wants(name, lambda v: is_int(v) and 0 <= v < 2**32, 'in [0, 2^32)')
  wants(
    'eval.thresholds',
    lambda v: len(v) > 0 and all(0 < t <= 1 for t in v),
    'shares of the image side, each in (0, 1]',
  )
  if 'ema' in config['optim']:
    wants('optim.ema', lambda v: 0 <= v < 1, 'in [0, 1)')
  if 'side' in config['data']:
    wants('data.side', lambda v: is_int(v) and v >= 1, 'a positive whole number')
  if 'capacity' in config['method']:
    wants('method.capacity', lambda v: is_int(v) and v >= 2, 'at least 2')
  for capacity in config['eval'].get('capacities', ()):
    if not is_int(capacity) or capacity < 2:
      raise errors.UserError(
        f'config.eval.capacities must each be at least 2; got {capacity!r}.'
      )
  with errors.user_errors():
    parallel.check_batch_size(config['batch_size'])


def _claim(plan):
  """Makes the workdir ours: it holds this config, or gets it."""
  with errors.user_errors():
    _check_config_file(plan)
    parallel.barrier('config checked')
    if parallel.is_first():
      plan.workdir.mkdir(parents=True, exist_ok=True)
      text = json.dumps(plan.config, indent=2, sort_keys=True) + '\n'
      files.write_atomically(plan.workdir / 'config.json', text.encode())
    parallel.barrier('config written')


def _check_config_file(plan, free=()):
  """Raises `UserError` if the workdir holds a run of another config.

  Args:
    plan: the plan of this run.
    free: parts of the config that may differ.
  """
  path = plan.workdir / 'config.json'
  if not path.exists():
    if plan.checkpoints.steps():
      raise errors.UserError(
        f'{plan.workdir} holds checkpoints, but no config.json to tell of what.'
      )
    return
  try:
    there = _flatten_config(json.loads(path.read_text()))
  except (ValueError, AttributeError):
    raise errors.UserError(f'{path} is damaged: it should hold a config.') from None
  # JSON knows no tuples: compare what is read with what would be written.
  here = _flatten_config(json.loads(json.dumps(plan.config)))
  differ = [
    f'{name} ({there.get(name, "absent")} there, {here.get(name, "absent")} here)'
    for name in sorted(there.keys() | here.keys())
    if there.get(name, ...) != here.get(name, ...) and name.split('.')[0] not in free
  ]
  if differ:
    raise errors.UserError(
      f'{plan.workdir} holds a run of another config, which differs in '
      f'{", ".join(differ)}; choose another workdir.'
    )


def _flatten_config(value, prefix=''):
  if not isinstance(value, dict):
    return {prefix: value}
  flat = {}
  for name, inner in value.items():
    flat |= _flatten_config(inner, f'{prefix}.{name}' if prefix else name)
  return flat


class _Exam:
  """How a run is judged: the same images every time, from a seed of their own.

  The images are those of `config.eval.archive`; or of the source of training, with the
  changes of `config.eval.data` if there are any.
  """

  def __init__(self, config, method, source):
    self._options = config['eval']
    archive = self._options.get('archive', '')
    other = self._options.get('data')  # For example another split.
    if other:
      source = data.build(**(config['data'] | other))
    # Read now: a path that is wrong should not show after hours of training.
    self._data = (
      archives.load(archive, spread=self._options['num_images']) if archive else source
    )
    self._train_steps = config['train_steps']
    # Built once: each has its own compiled prediction.
    self._loss_fn = jax.jit(method.loss)
    self._methods = {'': method}
    for capacity in self._options.get('capacities', ()):
      self._methods[f'capacity_{capacity}'] = _build_method(config, capacity=capacity)

  def scores(self, state, *, final=False):
    """Scores by name; those at other capacities only at the end."""
    # On the devices of all processes, each of which predicts its part of a batch; what
    # is found is gathered, and all come to the same scores.
    variables = state.eval_variables
    sharding = parallel.sharded(parallel.make_mesh())
    scores = {}
    for name, method in self._methods.items():
      if name and not final:
        continue
      found = evaluation.evaluate(
        method,
        variables,
        self._data,
        num_images=self._options['num_images'],
        batch_size=self._options['batch_size'],
        seed=self._options['seed'],
        thresholds=tuple(self._options['thresholds']),
        sharding=sharding,
      )
      scores |= {name: found} if name else found
    # Without true graphs there are no figures at thresholds.
    if 'at' not in scores:
      scores['loss'] = self._loss(jax.device_get(variables))
    return scores

  def _loss(self, variables):
    """Mean of the training loss at the end of its schedule, over the images."""
    options, source = self._options, self._data
    key = jax.random.key(options['seed'])
    sample, total, count = None, 0.0, 0
    if hasattr(source, 'sample'):
      sample = jax.jit(source.sample, static_argnums=1)
    else:
      size = min(options['batch_size'], source.size)
      batches = source.iterate(seed=options['seed'], batch_size=size)
    while count < options['num_images']:
      step_key = jax.random.fold_in(key, count)
      batch = sample(step_key, options['batch_size']) if sample else next(batches)
      loss, _ = self._loss_fn(variables, batch, step_key, self._train_steps)
      total += float(loss) * len(batch['image'])
      count += len(batch['image'])
    return total / count


class _Clock:
  """Seconds of a run, over all its interruptions."""

  def __init__(self, began, before):
    self._began = began
    self._before = before
    self._training = lambda: 0.0

  def count_training(self, seconds):
    """Takes the training time from a function without arguments from now on."""
    self._training = seconds

  def read(self):
    """`{'train_seconds', 'total_seconds'}`."""
    total = time.perf_counter() - self._began
    return {
      'train_seconds': self._before.get('train_seconds', 0.0) + self._training(),
      'total_seconds': self._before.get('total_seconds', 0.0) + total,
    }


class _Run:
  """One call of `train`: from a plan to its results."""

  def __init__(self, plan, console, stop, began):
    self._plan = plan
    self._config = plan.config
    self._console = console
    self._stop = stop
    self._began = began

  def go(self, evaluate):
    plan, config = self._plan, self._config
    keys = plan.keys()
    with errors.user_errors():
      restored = plan.checkpoints.restore(plan.abstract_state())
      if restored is None:
        restored = checkpoint.Restored(plan.initial_state(*keys[:2]), None, {})
      else:
        self._console.say(f'going on from step {int(restored.state.step)}')
      state = restored.state
      step = start = int(state.step)
      if not parallel.all_equal(step):
        raise errors.UserError('the processes found different newest checkpoints.')
    self._clock = _Clock(self._began, restored.clock)
    self._metrics = logging.MetricsFile(
      plan.workdir, start_step=start, active=parallel.is_first()
    )
    self._feed = None
    scores = None
    with contextlib.ExitStack() as stack:
      stack.callback(self._metrics.close)
      if start < config['train_steps']:
        step_fn = self._prepare(state, keys, restored.data_state, stack)
      self._speed = logging.Speed(
        start_step=start,
        train_steps=config['train_steps'],
        batch_size=config['batch_size'],
      )
      self._clock.count_training(lambda: self._speed.seconds)
      in_flight = collections.deque()
      while True:
        if self._due('checkpoint_every', step):
          self._save(state, step)
        if evaluate and self._due('eval_every', step):
          scores = self._evaluate(state, step)
        if self._due('panel_every', step):
          self._panel(state, step)
        if step >= config['train_steps']:
          break
        if parallel.stop_agreed(step, self._stop.requested):
          return self._interrupted(state, step)
        state, metrics = step_fn(state, keys[2], self._next(keys))
        step += 1
        in_flight.append(metrics)
        if len(in_flight) > _AHEAD:
          jax.block_until_ready(in_flight.popleft())
        if step % config['log_every'] == 0 or step == config['train_steps']:
          self._log(state, step, metrics)
      self._save(state, step)
      plan.checkpoints.wait()
      if evaluate:
        scores = self._final_scores(state, scores)
        if scores is None:
          return self._interrupted(state, step)
      return _finish(plan, state, scores, self._clock, self._console)

  def _prepare(self, state, keys, data_state, stack):
    """Compiles the step, and starts to read if the data are on the host."""
    plan = self._plan
    batch = None
    with errors.user_errors():
      if not plan.samples:
        self._feed = feed.Feed(plan.iterate(), data_state=data_state)
        stack.callback(self._feed.close)
        batch = plan.example_batch
      return plan.compiled_step(state, keys, batch)

  def _due(self, every, step):
    """Whether something is to be done at a step; never before the first."""
    every = self._config[every]
    return step > 0 and every > 0 and step % every == 0

  def _next(self, keys):
    """What the step takes beside state and key."""
    if self._feed is None:
      return keys[1]
    with errors.user_errors('config.data'):
      batch = self._feed.take()
    return parallel.global_batch(batch, parallel.sharded(self._plan.mesh))

  def _log(self, state, step, metrics):
    self._check_finite(state)
    values = {n: float(v) for n, v in jax.device_get(metrics).items()}
    done = step / self._config['train_steps']
    self._console.progress(self._speed.line(step, values), done)
    self._metrics.write(step, values)

  def _check_finite(self, state):
    """Raises `NonFiniteError` if any step up to here was not finite."""
    failed = int(state.nonfinite_step)
    if failed < 0:
      return
    self._plan.checkpoints.wait()
    raise errors.NonFiniteError(
      f'the loss or its gradient is not finite at step {failed}; '
      f'{self._plan.checkpoints.last_good()}.'
    )

  def _save(self, state, step):
    # A checkpoint of NaN would be the newest, and push the good ones out.
    self._check_finite(state)
    self._plan.checkpoints.save(
      state,
      step=step,
      data_state=self._feed.data_state if self._feed else None,
      clock=self._clock.read(),
    )

  def _evaluate(self, state, step):
    """Scores on the way; None if they were there already or were cut short."""
    if parallel.first_says(self._metrics.has(step, 'eval/')):
      return None
    self._check_finite(state)
    final = step == self._config['train_steps']
    with self._speed.pause(), contextlib.suppress(interrupt.Interrupted):
      with self._stop.at_once():
        scores = self._plan.exam.scores(state, final=final)
      self._tell(step, scores)
      return scores
    return None

  def _tell(self, step, scores):
    flat = headline(scores)
    self._metrics.write(step, {f'eval/{n}': v for n, v in flat.items()})
    for part in ('', *(n for n in scores if n.startswith('capacity_'))):
      shown = headline(scores[part] if part else scores, nested=False)
      figures = '  '.join(f'{n} {v:.4g}' for n, v in shown.items())
      self._console.say(
        f'step {step}  {part.replace("_", " ")}{part and "  "}{figures}'
      )

  def _final_scores(self, state, scores):
    """The scores of the last step; None if they were cut short."""
    if scores is not None and self._due('eval_every', int(state.step)):
      return scores
    with contextlib.suppress(interrupt.Interrupted):
      with self._stop.at_once():
        scores = self._plan.exam.scores(state, final=True)
      if not self._metrics.has(int(state.step), 'eval/'):
        self._tell(int(state.step), scores)
      return scores
    return None

  def _panel(self, state, step):
    path = self._plan.workdir / 'panels' / f'step_{step:06}.png'
    if not parallel.is_first() or path.exists():
      return
    with self._speed.pause(), contextlib.suppress(interrupt.Interrupted):
      with self._stop.at_once():
        pixels = _panel_pixels(self._plan, state)
      path.parent.mkdir(exist_ok=True)
      _write_png(path, pixels)
      self._metrics.image(step, 'panel', pixels)

  def _interrupted(self, state, step):
    self._save(state, step)
    self._plan.checkpoints.wait()
    self._console.say(f'stopped at step {step}, saved; the same command goes on.')
    signum = self._stop.signum or signal.SIGTERM  # Of some process.
    return {'interrupted': int(signum), 'step': step}


def _panel_pixels(plan, state):
  """A picture `[H, W, 3]` uint8 of a few images of the evaluation's seed."""
  seed = plan.config['eval']['seed']
  if plan.samples:
    sample = jax.jit(plan.source.sample, static_argnums=1)
    batch = sample(jax.random.key(seed), _PANEL_IMAGES)
  else:
    count = min(_PANEL_IMAGES, plan.source.size)
    batch = next(iter(plan.source.iterate(seed=seed, batch_size=count)))
  batch = jax.device_get(batch)
  variables = jax.device_get(state.eval_variables)
  made = jax.device_get(plan.reconstruct(variables, batch['image']))
  picture = plotting.panel(
    batch['image'],
    made['drawing'],
    made['graph'],
    refined=made.get('refined'),
    true_graphs=batch.get('graph'),
  )
  return np.asarray(picture)


def _write_png(path, pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format='PNG')
  files.write_atomically(path, buffer.getvalue())


def headline(scores, *, nested=True):
  """The scores that a person looks at first, `{name: float}`.

  Args:
    scores: as `_Exam.scores` gives them.
    nested: also those at other capacities, as 'capacity_8/...'.
  """
  flat = dict(metrics.headline(scores))
  flat |= {n: v for n, v in scores.items() if n == 'loss'}
  flat |= logging.flatten_scores(scores['predicted'])
  for name, value in scores.items():
    if nested and name.startswith('capacity_'):
      flat |= {f'{name}/{n}': v for n, v in metrics.headline(value).items()}
  return flat


def _plain(value):
  """Nested dicts and lists of what JSON can hold."""
  if isinstance(value, dict):
    return {str(n): _plain(v) for n, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  return value.tolist() if hasattr(value, 'tolist') else value


def _finish(plan, state, scores, clock, console):
  """Writes `weights.npz` and `results.json`; returns what the latter holds."""
  config = plan.config
  step = int(state.step)
  images_seen = step * config['batch_size']
  times = clock.read()
  results = {
    'scores': _plain(scores or {}),
    'step': step,
    'seed': config['seed'],
    'images_seen': images_seen,
    'images_per_second': images_seen / max(times['train_seconds'], 1e-9),
    'wall_clock': times,
    'num_params': states.num_params(state),
    'peak_memory_mib': record.peak_memory_mib(),
    'config': json.loads(json.dumps(config)),
    'config_hash': record.config_hash(config),
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }
  variables = jax.device_get(state.eval_variables)
  if parallel.is_first():
    card = {n: results[n] for n in ('scores', 'step', 'seed', 'images_seen', 'code')}
    weights.save(plan.workdir / 'weights.npz', variables, config=config, card=card)
    text = json.dumps(results, indent=2) + '\n'
    files.write_atomically(plan.workdir / 'results.json', text.encode())
    console.say(f'wrote results.json and weights.npz in {plan.workdir}')
  parallel.barrier('finished')
  return results


@contextlib.contextmanager
def _saving(plan):
  """Names the last good checkpoint when the disk is full or a process is gone."""
  try:
    yield
  except (ValueError, RuntimeError) as error:
    if not errors.peer_gone(error):
      raise
    raise errors.PeerError(
      'another process of this run is gone or cannot be reached '
      f'({errors.one_sentence(error)}); {plan.checkpoints.last_good()}; the same '
      'command in all processes goes on.'
    ) from error
  except OSError as error:
    if not errors.no_room(error):
      raise
    raise errors.SaveError(
      f'there is no room left on the disk; {plan.checkpoints.last_good()}.'
    ) from error
