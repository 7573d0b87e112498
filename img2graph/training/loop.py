"""The training loop, one for every method, and for one or several seeds at a time.

A run lives in its workdir:
  config.json    the config; another one is refused
  checkpoints/   state, data position and clock, by step
  metrics.jsonl  one line per logged or evaluated step (and `tensorboard/`)
  best.npz       the weights that were best in validation, if the run is judged so
  panels/        pictures of images, drawings and graphs, by step
  weights.npz    what `img2graph predict` takes, at the end
  results.json   scores, config, code, hardware and time, at the end
  .lock          held while a run is at it; another one is refused
The same call goes on where a killed run stopped, and ends in the same parameters, bit
by bit, as one never killed. Several seeds at a time are a run each, in step.
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
import jax.numpy as jnp
import numpy as np
from PIL import Image

from img2graph import class_evaluation
from img2graph import data
from img2graph import evaluation
from img2graph import files
from img2graph import keypoint_evaluation
from img2graph import methods
from img2graph import metrics
from img2graph import plotting
from img2graph import weights
from img2graph.data import archives
from img2graph.data import images as image_files
from img2graph.data import sources
from img2graph.metrics import keypoints
from img2graph.training import checkpoint
from img2graph.training import errors
from img2graph.training import feed
from img2graph.training import interrupt
from img2graph.training import lock
from img2graph.training import logging
from img2graph.training import optim
from img2graph.training import parallel
from img2graph.training import record
from img2graph.training import seeds
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
# What `config.eval` must hold, by its `kind`: 'graph' where none is given.
_EVAL_KEYS = {
  'graph': ('num_images', 'batch_size', 'seed', 'thresholds'),
  'keypoints': ('num_images', 'batch_size', 'seed', 'protocol', 'fit', 'test'),
  'classes': ('num_images', 'batch_size', 'seed', 'valid', 'test'),
}
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
  [result] = train_seeds([config], [workdir], evaluate=evaluate, console=console)
  if isinstance(result, errors.NonFiniteError):
    raise result
  return result


def train_seeds(configs, workdirs, *, evaluate=True, console=None):
  """Trains several seeds of one config at a time, each as `train` does.

  Each sees the keys and batches of a run of its own and leaves the same files in its
  own workdir. Those whose newest common checkpoints are of different steps are trained
  one group after another. `results.json` says with how many others a seed shared its
  time and memory: 'seeds_at_once'.

  Args:
    configs: as `train`; they differ in their seeds alone.
    workdirs: one for each.
    evaluate: as `train`.
    console: as `train`.

  Returns:
    list with what `train` returns for each; for a seed whose loss or gradient was not
    finite the `errors.NonFiniteError`, while the others went on.

  Raises:
    errors.UserError, errors.SaveError, errors.PeerError: as `train`.
  """
  began = time.perf_counter()
  record.forget_peak_memory()
  console = console or logging.Console(active=parallel.is_first())
  with errors.user_errors():
    plans = _plans(configs, workdirs, console)
  results = {}
  with contextlib.ExitStack() as stack:
    stack.enter_context(_saving(plans[0]))
    for plan in plans:
      stack.enter_context(lock.hold(plan.workdir, say=console.warn))
    stop = stack.enter_context(interrupt.StopSignal())
    for plan in plans:
      _claim(plan)
    try:
      for group in _in_step(plans):
        found = _Run(group, console, stop, began).go(evaluate)
        results |= {p.workdir: r for p, r in zip(group, found, strict=True)}
        if stop.requested:
          break
        began = time.perf_counter()
    except BaseException:
      if jax.process_count() > 1:
        plans[0].checkpoints.abandon()
      raise
    finally:
      console.end_line()
      for plan in plans:
        plan.checkpoints.close()
  stopped = {'interrupted': stop.signum, 'step': 0}
  return [results.get(plan.workdir, stopped) for plan in plans]


def evaluate(config, workdir, *, console=None):
  """Scores the newest checkpoint of a workdir, and writes `results.json` anew.

  Code, versions, hardware and memory there stay those of training, as the checkpoint
  tells them; what scored it is under 'evaluated_by'.

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
    [plan] = _plans([config], [workdir], console)
    _check_config_file(plan, free=('eval',))
    restored = plan.checkpoints.restore(plan.abstract_state(), to_train=False)
    if restored is None:
      raise errors.UserError(f'there is no checkpoint in {plan.workdir} to evaluate.')
  with _saving(plan):
    scores = _scores(plan.exam, restored.state, final=True)
    scores, variables = _choose(plan, restored.state, scores)
    here = record.facts()
    facts = _facts(here)
    facts |= restored.facts or _facts_of_old(plan, restored.state, facts)
    clock = _Clock(began, restored.clock, facts['seeds_at_once'])
    times = clock.read()
    facts['evaluated_by'] = here
    return _finish(plan, restored.state, variables, scores, times, facts, console)


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

  @functools.cached_property
  def _make_keys(self):
    return jax.jit(
      lambda seed: tuple(jax.random.split(jax.random.key(seed), 3)),
      out_shardings=parallel.replicated(self.mesh),
    )

  def keys(self, seed):
    """Keys of the initial parameters, of the data and of the loss."""
    return self._make_keys(np.uint32(seed))

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

  @property
  def resident(self):
    """What the source keeps on the devices."""
    return None if self.samples else self.source.resident

  def picked(self, key, batch):
    """Shapes of a batch that is picked from what the source keeps on the devices."""
    return jax.eval_shape(self.source.complete, key, batch, self.resident)

  def create_state(self, key, batch):
    if self.resident is not None:
      # Its shapes are all that a method looks at before the first step.
      batch = self.picked(key, batch)
      batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    batch = sources.as_float(batch)
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

  @functools.cached_property
  def _create(self):
    """Jitted `(key, data key or batch) -> state`."""

    def create(key, last):
      batch = self.source.sample(last, self._batch_size) if self.samples else last
      return self.create_state(key, batch)

    return jax.jit(create, out_shardings=parallel.replicated(self.mesh))

  def initial_state(self, key, data_key, iterator=None):
    """The state before the first step, on the devices."""
    if self.samples:
      return self._create(key, data_key)
    batch = parallel.global_batch(next(iterator), parallel.sharded(self.mesh))
    return self._create(key, batch)

  def step_function(self, sharding):
    """`(state, key, data key or batch) -> (state, metrics)`; see `steps`."""
    step_fn = functools.partial(
      steps.train_step,
      method=self.method,
      tx=self.tx,
      learning_rate=self.learning_rate,
      ema=self.ema,
    )
    if self.samples:
      return steps.sampling_step(
        step_fn,
        sample=self.source.sample,
        batch_size=self._batch_size,
        sharding=sharding,
      )
    return steps.completing_step(
      step_fn, complete=self.source.complete, sharding=sharding
    )


def _plans(configs, workdirs, console):
  """Builds and checks all that the configs of some seeds name, once for all of them.

  Raises ValueError and the like.
  """
  configs = [c.to_dict() if hasattr(c, 'to_dict') else dict(c) for c in configs]
  for config in configs:
    _check_same(config)
    check_config(config)
  _check_seeds(configs, workdirs)
  workdirs = [pathlib.Path(workdir).absolute() for workdir in workdirs]
  for workdir in workdirs:
    if workdir.exists() and not workdir.is_dir():
      raise errors.UserError(f'workdir {workdir} is a file; it should be a folder.')
  config = configs[0]
  with errors.user_errors('config.data'):
    source = data.build(**config['data'])
  with errors.user_errors('config.method'):
    method = _build_method(config)
  if config['panel_every'] and method.reconstruct is None:
    raise errors.UserError(
      f'config.panel_every must be 0: the method {config["method"]["name"]} has no '
      'panels.'
    )
  with errors.user_errors('config.optim'):
    options = {n: v for n, v in config['optim'].items() if n != 'ema'}
    tx, learning_rate = optim.build(train_steps=config['train_steps'], **options)
  with errors.user_errors('config.eval'):
    exams = {'graph': _Exam, 'keypoints': _KeypointExam, 'classes': _ClassExam}
    exam = exams[_eval_kind(config)](config, method, source)
  with errors.user_errors('config.data'):
    _check_side(source, method)
  with errors.user_errors('config.start_from'):
    start = _load_start(config.get('start_from', ''), method)
  keep = config['keep_checkpoints']
  if len(configs) > 1:
    keep = max(keep, 2)  # Killed between two seeds, they have only the last but one.
  shared = dict(
    source=source,
    method=method,
    tx=tx,
    learning_rate=learning_rate,
    mesh=parallel.make_mesh(),
    exam=exam,
    start=start,
  )
  plans = [
    _Plan(
      config=config,
      workdir=workdir,
      checkpoints=checkpoint.Checkpoints(
        workdir / 'checkpoints', keep=keep, warn=console.warn
      ),
      **shared,
    )
    for config, workdir in zip(configs, workdirs, strict=True)
  ]
  with errors.user_errors('config.data'):
    _check_images(plans[0])
  return plans


def _check_same(config):
  """Raises `UserError` in all processes unless they have the same config.

  Each would train with its own, and their sums over the batch would still be taken.
  """
  text = json.dumps(config, sort_keys=True, default=str)
  first, *others = map(json.loads, parallel.gather_bytes(text.encode()))
  for number, other in enumerate(others, 1):
    if differ := _differences(other, first, f'in process {number}', 'in process 0'):
      raise errors.UserError(
        f'the processes of a run must have the same config; they differ in {differ}.'
      )


def _check_seeds(configs, workdirs):
  """Raises `UserError` unless the configs can be trained at a time."""
  if len(configs) == 1:
    return
  if jax.process_count() > 1:
    raise errors.UserError(
      'several seeds at a time are for a run of one process; '
      f'got {jax.process_count()} processes.'
    )
  seeds = [config['seed'] for config in configs]
  same = all(config | {'seed': 0} == configs[0] | {'seed': 0} for config in configs)
  if not same or len(set(seeds)) < len(seeds) or len(set(workdirs)) < len(seeds):
    raise errors.UserError(
      'configs trained at a time must differ in config.seed alone, each with a workdir '
      f'of its own; got the seeds {", ".join(map(str, seeds))}.'
    )


def _in_step(plans):
  """Groups of plans that can go on together, from checkpoints of the same step."""
  rest = list(plans)
  while rest:
    found = {plan.workdir: plan.checkpoints.steps() or [0] for plan in rest}
    counts = collections.Counter(s for steps in found.values() for s in steps)
    step = max(counts, key=lambda s: (counts[s], s))
    group = [plan for plan in rest if step in found[plan.workdir]]
    rest = [plan for plan in rest if step not in found[plan.workdir]]
    if len(group) > 1:
      for plan in group:
        plan.checkpoints.forget_after(step)
    yield group


def _check_side(source, method):
  """Raises ValueError for images of a side that prediction would never have."""
  if method.only_sides and source.side not in method.sides:
    raise ValueError(
      f'the images have {source.side} pixels a side, and the method takes '
      f'{" or ".join(map(str, method.sides))}: data.side must be that of config.method.'
    )


def _check_images(plan):
  """Raises ValueError for batches whose images are not [B, H, W, C]."""
  batch = plan.example_batch
  if plan.resident is not None:
    batch = plan.picked(jax.random.key(0), batch)
  for name in ('image', 'target'):
    if name in batch and len(batch[name].shape) != 4:
      raise ValueError(
        f'the {name}s must be [B, H, W, C]; got {tuple(batch[name].shape)}.'
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


def _with_capacity(config, capacity):
  """The method of a config with another capacity, in prediction too."""
  options = config['method']
  nodes = options.get('nodes', {})
  if capacity != options.get('capacity') and nodes.get('kind') == 'attention':
    # One map is one node, and has weights of its own.
    raise ValueError(
      f'capacities other than {options["capacity"]} need nodes of kind proposals; got '
      f'{capacity}.'
    )
  changes = {'capacity': capacity}
  if options.get('predict_capacity') is not None:
    changes['predict_capacity'] = capacity
  return _build_method(config, **changes)


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

  kind = _eval_kind(config)
  if not isinstance(kind, str) or kind not in _EVAL_KEYS:
    known = ', '.join(_EVAL_KEYS)
    raise errors.UserError(f'config.eval.kind must be one of {known}; got {kind!r}.')
  missing = [name for name in _KEYS if name not in config]
  missing += [
    f'eval.{name}' for name in _EVAL_KEYS[kind] if name not in config.get('eval', {})
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
  if kind == 'graph':
    wants(
      'eval.thresholds',
      lambda v: len(set(v)) == len(v) > 0 and all(0 < t <= 1 for t in v),
      'different shares of the image side, each in (0, 1]',
    )
  if 'ema' in config['optim']:
    wants('optim.ema', lambda v: 0 <= v < 1, 'in [0, 1)')
  if 'side' in config['data']:
    wants('data.side', lambda v: is_int(v) and v >= 1, 'a positive whole number')
  if 'capacity' in config['method']:
    wants('method.capacity', lambda v: is_int(v) and v >= 2, 'at least 2')
  capacities = config['eval'].get('capacities', ())
  if not isinstance(capacities, list | tuple):
    raise errors.UserError(
      f'config.eval.capacities must be a list of whole numbers; got {capacities!r}.'
    )
  for capacity in capacities:
    if not is_int(capacity) or capacity < 2:
      raise errors.UserError(
        f'config.eval.capacities must each be at least 2; got {capacity!r}.'
      )
  with errors.user_errors():
    parallel.check_batch_size(config['batch_size'])
  if kind == 'classes' and config['panel_every']:
    raise errors.UserError('config.panel_every must be 0 where classes are judged.')


def _eval_kind(config):
  return config.get('eval', {}).get('kind', 'graph')


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

  A run that never came to log or save anything, for example since a file that its
  config names was not there, is none.

  Args:
    plan: the plan of this run.
    free: parts of the config that may differ.
  """
  path = plan.workdir / 'config.json'
  log = plan.workdir / 'metrics.jsonl'
  began = plan.checkpoints.steps() or (log.exists() and log.stat().st_size)
  if path.exists() and not began:
    return
  if not path.exists():
    if plan.checkpoints.steps():
      raise errors.UserError(
        f'{plan.workdir} holds checkpoints, but no config.json to tell of what.'
      )
    return
  try:
    there = json.loads(path.read_text())
    # JSON knows no tuples: compare what is read with what would be written.
    here = json.loads(json.dumps(plan.config))
    differ = _differences(there, here, 'there', 'here', free)
  except (ValueError, AttributeError):
    raise errors.UserError(f'{path} is damaged: it should hold a config.') from None
  if differ:
    raise errors.UserError(
      f'{plan.workdir} holds a run of another config, which differs in {differ}; '
      'choose another workdir.'
    )


def _differences(one, other, of_one, of_other, free=()):
  """Where two configs, as JSON holds them, differ, in words; '' if nowhere.

  Args:
    one: nested dict.
    other: nested dict.
    of_one: what to say of values of the first, such as 'there'.
    of_other: likewise.
    free: parts of the config that may differ.
  """
  one, other = _flatten_config(one), _flatten_config(other)
  return ', '.join(
    f'{name} ({one.get(name, "absent")} {of_one}, '
    f'{other.get(name, "absent")} {of_other})'
    for name in sorted(one.keys() | other.keys())
    if one.get(name, ...) != other.get(name, ...) and name.split('.')[0] not in free
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
    if method.predict is None:
      raise ValueError(
        f'kind must not be graph: the method {config["method"]["name"]} finds no graph '
        'in an image.'
      )
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
      self._methods[f'capacity_{capacity}'] = _with_capacity(config, capacity)

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
    """Mean of the training loss at the end of its schedule, over the images.

    Each counts once, as it is: without the changes and additions by chance of training.
    """
    options, source = self._options, self._data
    with_targets = getattr(source, 'with_targets', None) or (lambda batch: batch)
    key = jax.random.key(options['seed'])
    sample, total, count, wanted = None, 0.0, 0, options['num_images']
    if hasattr(source, 'sample'):
      sample = jax.jit(source.sample, static_argnums=1)
    else:
      size = min(options['batch_size'], source.size)
      wanted = min(wanted, source.size)
      batches = evaluation.host_batches(source, seed=options['seed'], batch_size=size)
    while count < wanted:
      step_key = jax.random.fold_in(key, count)
      batch = sample(step_key, options['batch_size']) if sample else next(batches)
      left = wanted - count
      batch = jax.tree.map(lambda x, left=left: x[:left], batch)
      batch = with_targets(sources.as_float(batch))
      loss, _ = self._loss_fn(variables, batch, step_key, self._train_steps)
      total += float(loss) * len(batch['image'])
      count += len(batch['image'])
    return total / count


class _KeypointExam:
  """How a run is judged by the points that people marked, see `metrics.keypoints`.

  The images are those of the source of training, with the changes of `config.eval.fit`
  for the part that the regression is fitted on, and of `config.eval.test` for the part
  that is judged; `config.eval.protocol` says how.
  """

  def __init__(self, config, method, source):
    del source
    self._options = config['eval']
    self._method = method
    keypoints.check_protocol(self._options['protocol'])
    # Read now: what is missing should not show after hours of training.
    self._fit, self._test = (
      data.build(**(config['data'] | self._options[part])) for part in ('fit', 'test')
    )
    for source in (self._fit, self._test):
      keypoint_evaluation.check_source(source)

  def scores(self, state, *, final=False):
    """Scores by name."""
    del final
    return keypoint_evaluation.evaluate(
      self._method,
      state.eval_variables,
      self._fit,
      self._test,
      **{n: self._options[n] for n in ('protocol', 'num_images', 'batch_size', 'seed')},
      sharding=parallel.sharded(parallel.make_mesh()),
    )


class _ClassExam:
  """How a classifier is judged: by the best of its validations, tested once.

  The images are those of the source of training, with the changes of
  `config.eval.valid` and `config.eval.test`.
  """

  def __init__(self, config, method, source):
    self._options = config['eval']
    self._method = method
    # Read now: what is missing should not show after hours of training.
    self._valid, self._test = (
      getattr(data.build(**(config['data'] | self._options[part])), 'whole', None)
      for part in ('valid', 'test')
    )
    for images in (self._valid, self._test):
      class_evaluation.check(method, images)
    whole = getattr(source, 'whole', None)  # Others have to be trained on to tell.
    if whole is not None:
      with errors.user_errors('config.data'):
        class_evaluation.check(method, whole)

  def scores(self, state, *, final=False):
    """Scores by name, of the validation."""
    del final
    return {'valid': self._evaluate(state.eval_variables, self._valid)}

  def worth(self, scores):
    """What the weights to keep have the highest of."""
    return scores['valid']['accuracy']

  def test(self, variables):
    """Scores by name that are for the end, of the weights that were kept."""
    return {'test': self._evaluate(variables, self._test)}

  def _evaluate(self, variables, images):
    return class_evaluation.evaluate(
      self._method,
      variables,
      images,
      **{n: self._options[n] for n in ('num_images', 'batch_size', 'seed')},
      sharding=parallel.sharded(parallel.make_mesh()),
    )


class _Clock:
  """Seconds of a run, over all its interruptions.

  Args:
    began: when this part of it began.
    before: what the clock of the part before read; {} for none.
    at_once: how many seeds share the time.
  """

  def __init__(self, began, before, at_once=1):
    self._began = began
    self._before = before
    self._at_once = at_once
    self._training = lambda: 0.0

  def count_training(self, seconds):
    """Takes the training time from a function without arguments from now on."""
    self._training = seconds

  def read(self):
    """`{'train_seconds', 'total_seconds'}`, and this seed's share: 'own_...'."""
    total = time.perf_counter() - self._began
    times = {}
    for name, seconds in (('train', self._training()), ('total', total)):
      before = self._before.get(f'{name}_seconds', 0.0)
      # Of old, a seed's share was not told, nor whether it always had the same.
      own = self._before.get(f'own_{name}_seconds', before / self._at_once)
      times[f'{name}_seconds'] = before + seconds
      times[f'own_{name}_seconds'] = own + seconds / self._at_once
    return times


class _Run:
  """One call of `train` for one seed or several: from their plans to their results.

  Numbers `i` are those of the plans.
  """

  def __init__(self, plans, console, stop, began):
    self._plans = plans
    self._plan = plans[0]  # For what they have in common.
    self._config = self._plan.config
    self._seeds = seeds.Seeds(len(plans), self._plan.mesh)
    self._console = console
    self._stop = stop
    self._began = began
    self._feeds = []
    self._failed = {}  # i -> NonFiniteError.
    self._scores = {}  # i -> those at the end.
    self._worth = {}  # i -> that of `best.npz`.
    self._trains = False  # Or all was done before.
    self._step_memory_mib = None

  def go(self, evaluate):
    """What `train_seeds` returns for these plans."""
    config = self._config
    keys = [self._plan.keys(p.config['seed']) for p in self._plans]
    with errors.user_errors():
      state, step, data_states = self._start(keys)
    self._here = record.facts()
    with contextlib.ExitStack() as stack:
      self._metrics = [
        logging.MetricsFile(p.workdir, start_step=step, active=parallel.is_first())
        for p in self._plans
      ]
      for file in self._metrics:
        stack.callback(file.close)
      next_state = None
      if step < config['train_steps']:
        next_state = self._prepare(state, keys, data_states, stack)
      self._speed = logging.Speed(
        start_step=step,
        train_steps=config['train_steps'],
        batch_size=config['batch_size'] * len(self._plans),
      )
      for clock in self._clocks:
        clock.count_training(lambda: self._speed.seconds)
      try:
        return self._loop(next_state, state, step, evaluate)
      except errors.NonFiniteError:  # None is left.
        return [self._failed[i] for i in range(len(self._plans))]

  def _loop(self, next_state, state, step, evaluate):
    in_flight = collections.deque()
    while True:
      if self._due('checkpoint_every', step):
        self._save(state, step)
      if evaluate and self._due('eval_every', step):
        self._evaluate(state, step)
      if self._due('panel_every', step):
        self._panel(state, step)
      if step >= self._config['train_steps']:
        break
      if parallel.stop_agreed(self._stop.requested):
        return self._interrupted(state, step)
      state, metrics = next_state(state)
      step += 1
      in_flight.append(metrics)
      if len(in_flight) > _AHEAD:
        jax.block_until_ready(in_flight.popleft())
      if step % self._config['log_every'] == 0 or step == self._config['train_steps']:
        self._log(state, step, metrics)
    self._save(state, step)
    self._wait()
    if evaluate and not self._evaluate(state, step):
      return self._interrupted(state, step)
    return self._finish(state)

  def _start(self, keys):
    """State, step and positions in the data that training begins with."""
    plan = self._plan
    found = [p.checkpoints.restore(plan.abstract_state()) for p in self._plans]
    newest = {int(r.state.step) if r else 0 for r in found}
    if len(newest) > 1:  # Some were broken, and are set aside by now.
      raise errors.UserError(
        'the seeds found different newest checkpoints; the same command goes on.'
      )
    [step] = newest
    if not parallel.all_equal(step):
      raise errors.UserError('the processes found different newest checkpoints.')
    if found[0] is None:
      found = [
        checkpoint.Restored(
          plan.initial_state(*k[:2], None if plan.samples else p.iterate()),
          data_state=None,
          clock={},
          facts={},
        )
        for p, k in zip(self._plans, keys, strict=True)
      ]
    else:
      self._console.say(f'going on from step {step}')
    state = self._seeds.join([r.state for r in found])
    self._clocks = [_Clock(self._began, r.clock, len(found)) for r in found]
    self._carried = [r.facts for r in found]
    return state, step, [r.data_state for r in found]

  def _prepare(self, state, keys, data_states, stack):
    """Compiles the step, and starts to read if the data are on the host.

    Compiled ahead: what a config gets wrong shows before the first step, and speeds
    are those of training alone.

    Returns:
      `state -> (state, metrics)`; the state is donated.
    """
    plan = self._plan
    kept = self._seeds.share(plan.resident)
    data_key, loss_key = (self._seeds.stack([k[n] for k in keys]) for n in (1, 2))
    with errors.user_errors():
      if not plan.samples:
        for p, data_state in zip(self._plans, data_states, strict=True):
          self._feeds.append(feed.Feed(p.iterate(), data_state=data_state))
          stack.callback(self._feeds[-1].close)
      lowered = self._seeds.lower(
        plan.step_function(self._seeds.batch_sharding),
        state,
        loss_key,
        data_key if plan.samples else plan.example_batch,
        kept,
        last_is_batch=not plan.samples,
      )
      step_fn = lowered.compile(compiler_options=parallel.compiler_options())
      self._trains = True
      self._step_memory_mib = record.program_memory_mib(step_fn)
    if plan.samples:
      return lambda state: step_fn(state, loss_key, data_key, kept)
    return lambda state: step_fn(state, loss_key, self._batch(), kept)

  def _due(self, every, step):
    """Whether something is to be done at a step; never before the first."""
    every = self._config[every]
    return step > 0 and every > 0 and step % every == 0

  def _batch(self):
    """The next batch of each seed."""
    with errors.user_errors('config.data'):
      batches = [f.take() for f in self._feeds]
    return self._seeds.batch(batches)

  def _going(self):
    """`(i, plan)` of the seeds that are finite so far."""
    return [(i, p) for i, p in enumerate(self._plans) if i not in self._failed]

  def _log(self, state, step, metrics):
    self._check_finite(state)
    values = self._seeds.each(metrics)
    for i, _ in self._going():
      self._metrics[i].write(step, values[i])
    loss = float(np.mean([values[i]['loss'] for i, _ in self._going()]))
    done = step / self._config['train_steps']
    line = self._speed.line(step, {'loss': loss})
    count = len(self._plans)
    self._console.progress(f'{count} seeds: {line}' if count > 1 else line, done)

  def _check_finite(self, state):
    """Notes and tells which seeds had a step up to here that was not finite.

    Raises:
      errors.NonFiniteError: no other is left.
    """
    for i, found in enumerate(self._seeds.each({'step': state.nonfinite_step})):
      if found['step'] < 0 or i in self._failed:
        continue
      plan = self._plans[i]
      plan.checkpoints.wait()
      seed = f'seed {plan.config["seed"]}: ' if len(self._plans) > 1 else ''
      self._failed[i] = errors.NonFiniteError(
        f'{seed}the loss or its gradient is not finite at step {int(found["step"])}; '
        f'{plan.checkpoints.last_good()}.'
      )
      if seed:
        self._console.warn(str(self._failed[i]))
    if len(self._failed) == len(self._plans):
      raise self._failed[0]

  def _save(self, state, step):
    # A checkpoint of NaN would be the newest, and push the good ones out.
    self._check_finite(state)
    # First that of before, of all: see `_in_step`.
    self._wait()
    for i, plan in self._going():
      plan.checkpoints.save(
        self._seeds.pick(state, i),
        step=step,
        data_state=self._feeds[i].data_state if self._feeds else None,
        clock=self._clocks[i].read(),
        facts=self._facts(i),
      )

  def _facts(self, i):
    """What `_facts` gives of the training of a seed, here or before."""
    here = _facts(
      self._here,
      seeds_at_once=len(self._plans),
      step_memory_mib=self._step_memory_mib,
    )
    return here if self._trains else here | self._carried[i]

  def _wait(self):
    for plan in self._plans:
      plan.checkpoints.wait()

  def _evaluate(self, state, step):
    """Scores the seeds and tells what is not told yet; False if it was cut short."""
    self._check_finite(state)
    final = step == self._config['train_steps']
    for i, _ in self._going():
      told = parallel.first_says(self._metrics[i].has(step, 'eval/'))
      if (told and not final) or i in self._scores:
        continue
      with self._speed.pause(), contextlib.suppress(interrupt.Interrupted):
        with self._stop.at_once():
          one = self._seeds.pick(state, i)
          scores = _scores(self._plan.exam, one, final=final)
        # First the weights: what is told is not evaluated again after a kill.
        self._keep_if_best(i, one, step, scores)
        if not told:
          self._tell(i, step, scores)
        if final:
          self._scores[i] = scores
        continue
      return False
    return True

  def _keep_if_best(self, i, state, step, scores):
    """Writes `best.npz` if the scores are better than those it was written with."""
    plan = self._plans[i]
    if not hasattr(plan.exam, 'worth') or not parallel.is_first():
      return
    path, worth = plan.workdir / 'best.npz', plan.exam.worth(scores)
    if i not in self._worth:  # An earlier part of the run may have written it.
      self._worth[i] = _read_best(path)[1].get('worth', -np.inf)
    if worth > self._worth[i]:
      variables = jax.device_get(state.eval_variables)
      card = {'step': step, 'worth': worth}
      weights.save(path, variables, config=plan.config, card=card)
      self._worth[i] = worth

  def _tell(self, i, step, scores):
    flat = headline(scores)
    self._metrics[i].write(step, {f'eval/{n}': v for n, v in flat.items()})
    seed = f'seed {self._plans[i].config["seed"]}  ' if len(self._plans) > 1 else ''
    for part in ('', *(n for n in scores if n.startswith('capacity_'))):
      shown = headline(scores[part] if part else scores, nested=False)
      figures = '  '.join(f'{n} {v:.4g}' for n, v in shown.items())
      self._console.say(
        f'step {step}  {seed}{part.replace("_", " ")}{part and "  "}{figures}'
      )

  def _panel(self, state, step):
    for i, plan in self._going():
      path = plan.workdir / 'panels' / f'step_{step:06}.png'
      if not parallel.is_first() or path.exists():
        continue
      with self._speed.pause(), contextlib.suppress(interrupt.Interrupted):
        with self._stop.at_once():
          pixels = _panel_pixels(self._plan, self._seeds.pick(state, i))
        path.parent.mkdir(exist_ok=True)
        _write_png(path, pixels)
        self._metrics[i].image(step, 'panel', pixels)

  def _interrupted(self, state, step):
    self._save(state, step)
    self._wait()
    self._console.say(f'stopped at step {step}, saved; the same command goes on.')
    signum = self._stop.signum or signal.SIGTERM  # Of some process.
    return [{'interrupted': int(signum), 'step': step} for _ in self._plans]

  def _finish(self, state):
    chosen = {}
    with self._speed.pause():
      for i, plan in self._going():
        one = self._seeds.pick(state, i)
        self._scores[i], chosen[i] = _choose(plan, one, self._scores.get(i))
    return [
      self._failed[i]
      if i in self._failed
      else _finish(
        plan,
        self._seeds.pick(state, i),
        chosen[i],
        self._scores.get(i),
        self._clocks[i].read(),
        self._facts(i),
        self._console,
      )
      for i, plan in enumerate(self._plans)
    ]


def _read_best(path):
  """(variables, card) of `best.npz`; (None, {}) if there is none."""
  if not path.exists():
    return None, {}
  variables, _, card = weights.load(path)
  return variables, card


def _scores(exam, state, *, final):
  """What an exam finds; an image that cannot be read is for the user to mend.

  With it in place the same command goes on from the last checkpoint.
  """
  try:
    return exam.scores(state, final=final)
  except image_files.BadImage as error:
    raise errors.UserError(f'{errors.one_sentence(error)}.') from error


def _choose(plan, state, scores):
  """The scores of the end, and the variables that they and the run's weights are of.

  Those that were best in validation, if the run is judged so, or else the last.
  """
  if scores is None or not hasattr(plan.exam, 'test'):
    return scores, state.eval_variables
  parallel.barrier('best written')
  kept, card = _read_best(plan.workdir / 'best.npz')
  variables = state.eval_variables if kept is None else kept
  step = card.get('step', int(state.step))
  return scores | plan.exam.test(variables) | {'best_step': step}, variables


def _panel_pixels(plan, state):
  """A picture `[H, W, 3]` uint8 of a few images of the evaluation's seed."""
  seed = plan.config['eval']['seed']
  if plan.samples:
    sample = jax.jit(plan.source.sample, static_argnums=1)
    batch = sample(jax.random.key(seed), _PANEL_IMAGES)
  else:
    count = min(_PANEL_IMAGES, plan.source.size)
    batch = next(evaluation.host_batches(plan.source, seed=seed, batch_size=count))
  batch = sources.as_float(jax.device_get(batch))
  variables = jax.device_get(state.eval_variables)
  made = jax.device_get(plan.reconstruct(variables, batch['image']))
  picture = plotting.panel(
    batch['image'],
    made['drawing'],
    made['graph'],
    **{n: made.get(n) for n in ('refined', 'masked', 'reconstruction')},
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
    scores: as the exam of `config.eval.kind` gives them.
    nested: also those at other capacities, as 'capacity_8/...'.
  """
  flat = metrics.headline(scores) | keypoints.headline(scores)
  flat |= class_evaluation.headline(scores)
  flat |= {n: v for n, v in scores.items() if n == 'loss'}
  flat |= logging.flatten_scores(scores.get('predicted', {}))
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


def _facts(here, *, seeds_at_once=1, step_memory_mib=None):
  """What `results.json` tells of the training of a seed, and a checkpoint carries on.

  Args:
    here: as `record.facts`.
    seeds_at_once: how many seeds share speed, time and memory.
    step_memory_mib: of one step on one device, whatever ran before it in this process;
      None if no step was compiled.
  """
  return here | {
    'seeds_at_once': seeds_at_once,
    'peak_memory_mib': record.peak_memory_mib(),
    'step_memory_mib': step_memory_mib,
  }


def _facts_of_old(plan, state, names):
  """Facts of training of `results.json`, for checkpoints that did not carry them."""
  results = _results_there(plan, int(state.step))
  return {name: results[name] for name in names if name in results}


def _results_there(plan, step):
  """What `results.json` holds already of this step; {} if nothing."""
  try:
    results = json.loads((plan.workdir / 'results.json').read_text())
    return results if results['step'] == step else {}
  except (OSError, ValueError, KeyError, TypeError):
    return {}


def _finish(plan, state, variables, scores, times, facts, console):
  """Writes `weights.npz` and `results.json`; returns what the latter holds.

  Without scores, a run that has some already stays as it is.

  Args:
    plan: of the run.
    state: at its end.
    variables: that the weights are of.
    scores: of `results.json`; None for none.
    times: of the clock.
    facts: of training, and of this evaluation if it is one.
    console: tells that it is done.
  """
  config = plan.config
  step = int(state.step)
  images_seen = step * config['batch_size']
  there = _results_there(plan, step) if scores is None else {}
  done = bool(there.get('scores')) and (plan.workdir / 'weights.npz').exists()
  if parallel.first_says(done):
    console.say(f'{plan.workdir} is trained and scored already.')
    return there
  results = {
    'scores': _plain(scores or {}),
    'step': step,
    'seed': config['seed'],
    'images_seen': images_seen,
    # By the seed's own share of the time: of all that were trained at once.
    'images_per_second': images_seen / max(times['own_train_seconds'], 1e-9),
    'wall_clock': times,
    'num_params': states.num_params(state),
    'config': json.loads(json.dumps(config)),
    'config_hash': record.config_hash(config),
  } | facts
  variables = jax.device_get(variables)
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
  """Names the last good checkpoint when a file or another process fails the run."""
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
  except errors.SaveError:
    raise
  except OSError as error:
    reason = 'there is no room left on the disk'
    if not errors.no_room(error):
      reason = f'the run cannot go on: {errors.one_sentence(error)}'
    raise errors.SaveError(f'{reason}; {plan.checkpoints.last_good()}.') from error
