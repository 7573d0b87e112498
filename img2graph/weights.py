"""Weights files: trained variables and how to build their method, in one `.npz`.

Plain arrays, named by their place ('params/node_head/kernel'), and one string,
'__meta__', of JSON:
  {"format": "img2graph-weights/1", "version": version of img2graph that wrote it,
   "method": the config's `method`, "precision", "train_steps", "data", "card": {...}}
No pickle is written or read, so a file from elsewhere can do no harm.
"""

import io
import json
import pathlib

import jax
import numpy as np

import img2graph
from img2graph import files
from img2graph import methods

FORMAT = 'img2graph-weights/1'
_META = '__meta__'


def save(path, variables, *, config, card=None):
  """Writes a weights file; it is there whole or not at all.

  Args:
    path: where to, ending in '.npz'.
    variables: nested dict of arrays, as a method takes them.
    config: the config of the run (ConfigDict or dict); its `method`, `precision`,
      `train_steps` and `data` are kept.
    card: what a reader should know (data, steps, seed, scores, limits), JSON values.
  """
  config = config.to_dict() if hasattr(config, 'to_dict') else config
  meta = {
    'format': FORMAT,
    'version': img2graph.__version__,
    'method': config['method'],
    'precision': config['precision'],
    'train_steps': config['train_steps'],
    'data': config.get('data'),
    'card': card or {},
  }
  arrays = {name: np.asarray(leaf) for name, leaf in _flatten(variables).items()}
  buffer = io.BytesIO()
  np.savez(buffer, **{_META: np.array(json.dumps(meta))}, **arrays)
  files.write_atomically(path, buffer.getvalue())


def load(path):
  """Reads a weights file.

  Args:
    path: of the file.

  Returns:
    (variables, config, card): nested dicts; lists of the config are tuples, as they
    are in configs.

  Raises:
    ValueError: the file is missing, damaged, foreign, or of another format version.
  """
  meta, variables = _read(path)
  names = ('method', 'precision', 'train_steps', 'data', 'version')
  return variables, {n: meta.get(n) for n in names}, meta['card']


def load_method(path):
  """Reads a weights file and builds its method.

  Returns:
    (`methods.Method`, variables, meta), meta as at the top of this file.

  Raises:
    ValueError: as `load`; or this version of img2graph cannot build that method or
      wants other variables.
  """
  meta, variables = _read(path)
  try:
    method = methods.build(
      train_steps=meta['train_steps'], precision=meta['precision'], **meta['method']
    )
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'weights {path} were written by img2graph {meta["version"]}, and this is '
      f'{img2graph.__version__}, which cannot build their method ({error}).'
    ) from error
  _check_variables(path, method, variables, meta)
  return method, variables, meta


def load_variables(path, method):
  """Variables of a weights file for a method of one's own, to go on from.

  Args:
    path: of the file.
    method: a `methods.Method` whose variables have the same names and shapes.

  Returns:
    nested dict of arrays.

  Raises:
    ValueError: as `load`; or the method wants other variables.
  """
  meta, variables = _read(path)
  wrong = _misfit(method, variables)
  if wrong:
    name = meta['method'].get('name')
    raise ValueError(f'weights {path} ({name}) do not fit this method: {wrong}.')
  return variables


def shipped(name='line_drawings'):
  """Path of weights that come with the package; by default those `predict` uses."""
  return pathlib.Path(img2graph.__file__).parent / 'pretrained' / f'{name}.npz'


def find(name):
  """Path of weights: of a file, of a run, or of those that come with the package.

  Args:
    name: 'shipped' for those `predict` uses, another name of `pretrained/README.md`, or
      the path of a file, or of a run's folder, whose `weights.npz` is meant.
  """
  if str(name) == 'shipped':
    return shipped()
  name = files.expand(name)
  if (name / 'weights.npz').is_file():
    return name / 'weights.npz'
  ours = name.parent == pathlib.Path() and not name.suffix and shipped(name).exists()
  return shipped(name) if ours and not name.exists() else name


def _read(path):
  path = files.expand(path)
  if not path.exists():
    raise ValueError(f'there is no weights file {path}.')
  if path.is_dir():
    raise ValueError(f'there is no weights.npz in the folder {path}.')
  try:
    with open(path, 'rb') as file:
      loaded = np.load(file, allow_pickle=False)
      # A lone array (.npy) is no archive; it has no '__meta__' either.
      arrays = {} if isinstance(loaded, np.ndarray) else dict(loaded)
  except PermissionError:
    raise ValueError(f'weights {path} cannot be read: permission denied.') from None
  except MemoryError:
    raise
  # Damage shows in many ways: in the zip file, its compression, the arrays' headers.
  except Exception:
    raise ValueError(
      f'weights {path} are damaged, or no weights file at all.'
    ) from None
  meta = _parse_meta(path, arrays.pop(_META, None))
  return meta, _nest(arrays)


def _parse_meta(path, entry):
  try:
    meta = json.loads(str(entry))
    found = str(meta['format'])
  except (ValueError, TypeError, KeyError, RecursionError):
    raise ValueError(f'{path} is not a weights file of img2graph.') from None
  if not found.startswith('img2graph-weights/'):
    raise ValueError(f'{path} is not a weights file of img2graph.')
  if found != FORMAT:
    raise ValueError(
      f'weights {path} are of format {found!r}; this version of img2graph reads '
      f'{FORMAT!r}.'
    )
  missing = {'version', 'method', 'precision', 'train_steps', 'card'} - set(meta)
  if missing:
    raise ValueError(f'weights {path} are damaged: they lack {sorted(missing)}.')
  for name in ('method', 'data'):
    meta[name] = _with_tuples(meta.get(name))
  return meta


def _flatten(variables):
  leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def _nest(arrays):
  nested = {}
  for name, array in arrays.items():
    *folders, last = name.split('/')
    place = nested
    for folder in folders:
      place = place.setdefault(folder, {})
    place[last] = array
  return nested


def _with_tuples(value):
  if isinstance(value, dict):
    return {k: _with_tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_with_tuples(v) for v in value)
  return value


def _check_variables(path, method, variables, meta):
  """Raises ValueError unless the method wants variables of these names and shapes."""
  wrong = _misfit(method, variables)
  if wrong:
    raise ValueError(
      f'weights {path} were written by img2graph {meta["version"]} and do not fit '
      f'this version, {img2graph.__version__}: {wrong}.'
    )


def _misfit(method, variables):
  """The first variable that is not as the method wants it, in words; '' if none."""
  side = method.sides[0]
  image = jax.ShapeDtypeStruct((1, side, side, method.channels), 'float32')
  wanted = jax.eval_shape(method.init, jax.random.key(0), {'image': image})
  wanted = {name: leaf.shape for name, leaf in _flatten(wanted).items()}
  found = {name: leaf.shape for name, leaf in _flatten(variables).items()}
  for name in sorted(wanted.keys() | found.keys()):
    if wanted.get(name) != found.get(name):
      there, here = found.get(name, 'missing'), wanted.get(name, 'nothing')
      return f'{name} is {there}; wanted {here}'
  return ''
