"""Ranges of values, as options give them."""

import numpy as np


def as_range(name, value, *, lowest=None, highest=None):
  """A number or a pair (lo, hi) as a pair of floats.

  A tuple of one counts as its number: of an option whose default is a pair, a number on
  the command line becomes one.

  Raises:
    ValueError: neither a number nor an ordered pair, or outside [lowest, highest].
  """
  pair = (value, value) if np.isscalar(value) else tuple(value)
  pair = 2 * pair if len(pair) == 1 else pair
  if len(pair) != 2 or not all(np.isfinite(v) for v in pair) or pair[0] > pair[1]:
    raise ValueError(f'{name} must be a number or (low, high); got {value!r}.')
  if lowest is not None and pair[0] < lowest:
    raise ValueError(f'{name} must be at least {lowest}; got {value!r}.')
  if highest is not None and pair[1] > highest:
    raise ValueError(f'{name} must be at most {highest}; got {value!r}.')
  return float(pair[0]), float(pair[1])


def as_number(name, value, *, lowest=None, highest=None):
  """One number as a float.

  Raises:
    ValueError: not one finite number, or outside [lowest, highest].
  """
  if not np.isscalar(value) or not np.isfinite(value):
    raise ValueError(f'{name} must be a number; got {value!r}.')
  return as_range(name, value, lowest=lowest, highest=highest)[0]
