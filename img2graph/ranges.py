"""Ranges of values, as options give them."""

import numbers

import numpy as np

# What most numbers of a config may be, for `check`.
FINITE = {}
NOT_NEGATIVE = dict(lowest=0)
POSITIVE = dict(above=0)
SHARE = dict(lowest=0, highest=1)
DECAY = dict(lowest=0, below=1)
WHOLE = dict(lowest=0, whole=True)
COUNT = dict(lowest=1, whole=True)
# Of several numbers, such as the channels of layers, each is one.
COUNTS = COUNT | dict(several=True)
TWO_COUNTS = COUNT | dict(several=2)


def as_range(name, value, *, lowest=None, highest=None):
  """A number or a pair (lo, hi) as a pair of floats.

  A tuple of one counts as its number: of an option whose default is a pair, a number on
  the command line becomes one.

  Raises:
    ValueError: neither a number nor an ordered pair, or outside [lowest, highest].
  """
  pair = tuple(value) if np.iterable(value) else (value,)
  pair = 2 * pair if len(pair) == 1 else pair
  finite = all(isinstance(v, numbers.Real) and np.isfinite(v) for v in pair)
  if len(pair) != 2 or not finite or pair[0] > pair[1]:
    raise ValueError(f'{name} must be a number or (low, high); got {value!r}.')
  if lowest is not None and pair[0] < lowest:
    raise ValueError(f'{name} must be at least {lowest}; got {value!r}.')
  if highest is not None and pair[1] > highest:
    raise ValueError(f'{name} must be at most {highest}; got {value!r}.')
  return float(pair[0]), float(pair[1])


def as_number(
  name, value, *, lowest=None, highest=None, above=None, below=None, whole=False
):
  """One number as a float.

  Raises:
    ValueError: not one finite number, or not a whole one if it is to be `whole`, or
      outside [lowest, highest] or (above, below).
  """
  kind = numbers.Integral if whole else numbers.Real
  if not isinstance(value, kind) or not np.isfinite(value):
    wanted = 'whole number' if whole else 'number'
    raise ValueError(f'{name} must be a {wanted}; got {value!r}.')
  if above is not None and value <= above:
    raise ValueError(f'{name} must be above {above}; got {value!r}.')
  if below is not None and value >= below:
    raise ValueError(f'{name} must be below {below}; got {value!r}.')
  return as_range(name, value, lowest=lowest, highest=highest)[0]


def check(place, options, bounds):
  """Raises ValueError unless options are the numbers that they may be.

  Args:
    place: of the options in the config, for the message: 'method.loss'.
    options: `{name: value}`.
    bounds: `{name: options of `as_number`}`, such as `POSITIVE`, and with 'several',
      True or how many, for a sequence of such numbers, such as `COUNTS`. What it does
      not name may be anything; what it names need not be there.
  """
  for name, bound in bounds.items():
    if name not in options:
      continue
    value, bound = options[name], dict(bound)
    several = bound.pop('several', None)
    if several is None:
      as_number(f'{place}.{name}', value, **bound)
      continue
    if not isinstance(value, tuple | list) or several not in (True, len(value)):
      wanted = 'several numbers' if several is True else f'{several} numbers'
      raise ValueError(f'{place}.{name} must be {wanted}; got {value!r}.')
    for k, number in enumerate(value):
      as_number(f'{place}.{name}[{k}]', number, **bound)


def each(bound, *names):
  """`{name: bound}` of some names, for `check`."""
  return dict.fromkeys(names, bound)
