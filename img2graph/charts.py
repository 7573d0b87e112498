"""Charts as pictures: curves over time, and points in the plane."""

import math

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

# Of as many series as this a chart can tell; further ones begin anew.
COLOURS = (
  (31, 119, 180),
  (255, 127, 14),
  (44, 160, 44),
  (214, 39, 40),
  (148, 103, 189),
  (140, 86, 75),
  (227, 119, 194),
  (127, 127, 127),
  (188, 189, 34),
  (23, 190, 207),
)
_PAPER, _TEXT, _GRID = (255, 255, 255), (60, 60, 60), (225, 225, 225)
# Drawn larger and reduced, which smooths lines.
_FINE = 2
# Of smaller numbers the logarithm would be none.
_TINY = 1e-290
_FONT, _LEFT, _BOTTOM, _TOP, _RIGHT = 15, 64, 48, 16, 16  # Pixels.


def curves(series, *, x_title, y_title, x_names=None, size=(640, 440)):
  """Curves in one frame, with a legend.

  Args:
    series: `{name: (x, y)}` or `{name: (x, y, spread)}`, `[n]` numbers each; points of
      which one is not finite are left out. A spread is drawn as a bar from y - spread
      to y + spread.
    x_title: below the frame.
    y_title: above its left edge.
    x_names: texts that stand at x = 0, 1, ... in place of numbers, and points are
      marked; None for numbers.
    size: (width, height) of the frame and what belongs to it, in pixels.

  Returns:
    A PIL image, RGB, of that height, and wider by the legend.

  Raises:
    ValueError: there is no point.
  """
  series = {name: _finite(*values) for name, values in series.items()}
  if not any(len(x) for x, *_ in series.values()):
    raise ValueError('a chart needs a point; got none.')
  xs, ys, spreads = (
    np.concatenate(values) for values in zip(*series.values(), strict=True)
  )
  ticks = [
    _ticks(xs.min(), xs.max()),
    _ticks((ys - spreads).min(), (ys + spreads).max()),
  ]
  if x_names is not None:  # Half a step is free on either side.
    ticks[0] = [-0.5, *range(len(x_names)), len(x_names) - 0.5]
  frame = (_LEFT, _TOP + 2 * _FONT, size[0] - _RIGHT, size[1] - _BOTTOM)
  font = PIL.ImageFont.load_default(size=_FONT * _FINE)
  legend = max(font.getlength(name) for name in series) / _FINE + 4 * _FONT
  canvas = PIL.Image.new('RGB', _fine(size[0] + legend, size[1]), _PAPER)
  draw = PIL.ImageDraw.Draw(canvas)

  def place(x, y):
    u, v = (
      (value - t[0]) / (t[-1] - t[0]) for value, t in zip((x, y), ticks, strict=True)
    )
    return _fine(
      frame[0] + u * (frame[2] - frame[0]), frame[3] + v * (frame[1] - frame[3])
    )

  def write(text, x, y, anchor):
    draw.text(_fine(x, y), text, fill=_TEXT, font=font, anchor=anchor)

  names = [f'{v:g}' for v in ticks[0]] if x_names is None else ['', *x_names, '']
  for value, name in zip(ticks[0], names, strict=True):
    draw.line(place(value, ticks[1][0]) + place(value, ticks[1][-1]), _GRID, _FINE)
    x = place(value, 0)[0] / _FINE
    write(name, x, frame[3] + _FONT, 'mm')
  for value in ticks[1]:
    draw.line(place(ticks[0][0], value) + place(ticks[0][-1], value), _GRID, _FINE)
    y = place(0, value)[1] / _FINE
    write(f'{value:g}', frame[0] - _FONT / 2, y, 'rm')
  draw.rectangle(_fine(*frame), outline=_TEXT, width=_FINE)
  write(x_title, (frame[0] + frame[2]) / 2, size[1] - _FONT, 'mm')
  write(y_title, _FONT / 2, _FONT, 'lm')
  for i, (name, (x, y, spread)) in enumerate(series.items()):
    colour = COLOURS[i % len(COLOURS)]
    points = [place(*point) for point in zip(x, y, strict=True)]
    if len(points) == 1 or x_names is not None:
      for point in points:
        draw.circle(point, 3 * _FINE, fill=colour)
    for at, middle, half in zip(x, y, spread, strict=True):
      draw.line(place(at, middle - half) + place(at, middle + half), colour, _FINE)
    draw.line(points, fill=colour, width=2 * _FINE, joint='curve')
    y = frame[1] + (i + 0.5) * 1.5 * _FONT
    draw.line(_fine(size[0], y, size[0] + 1.5 * _FONT, y), colour, 3 * _FINE)
    write(name, size[0] + 2 * _FONT, y, 'lm')
  return canvas.resize((canvas.width // _FINE, canvas.height // _FINE))


def points(places, labels, *, side=560):
  """Points in a square, coloured by their classes, with a legend.

  Args:
    places: `[n, 2]` finite numbers, of any scale, n > 0.
    labels: `[n]` int, from 0.
    side: of the square in pixels.

  Returns:
    A PIL image, RGB, of that height, and wider by the legend.
  """
  places, labels = np.asarray(places, float), np.asarray(labels)
  low, high = places.min(0), places.max(0)
  room = side - 2 * _FONT
  # One scale for both axes: distances count.
  places = (places - (low + high) / 2) / max((high - low).max(), 1e-9)
  places = (0.5 + places) * room + _FONT
  canvas = PIL.Image.new('RGB', _fine(side + 5 * _FONT, side), _PAPER)
  draw = PIL.ImageDraw.Draw(canvas)
  font = PIL.ImageFont.load_default(size=_FONT * _FINE)
  # In an order without meaning, so that no class lies over all others.
  for k in np.random.default_rng(0).permutation(len(places)):
    colour = COLOURS[labels[k] % len(COLOURS)]
    draw.circle(_fine(*places[k]), 2.2 * _FINE, fill=colour)
  draw.rectangle(_fine(0, 0, side - 1, side - 1), outline=_GRID, width=_FINE)
  # More classes than colours cannot be told by them.
  classes = np.unique(labels) if labels.max() < len(COLOURS) else ()
  for i, label in enumerate(classes):
    y = (i + 1) * 1.5 * _FONT
    draw.circle(_fine(side + _FONT, y), 4 * _FINE, fill=COLOURS[label])
    text = _fine(side + 2 * _FONT, y)
    draw.text(text, str(label), fill=_TEXT, font=font, anchor='lm')
  return canvas.resize((canvas.width // _FINE, canvas.height // _FINE))


def _finite(x, y, spread=None):
  """x, y and spread, 0 without one, where all of them are finite."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  spread = np.zeros_like(y) if spread is None else np.asarray(spread, float)
  there = np.isfinite(x) & np.isfinite(y) & np.isfinite(spread)
  return x[there], y[there], spread[there]


def _fine(*values):
  return tuple(round(value * _FINE) for value in values)


def _ticks(low, high):
  """Four to nine round numbers around a range."""
  largest = max(abs(low), abs(high))
  spread = high - low
  # What rounding alone makes of one number is no range.
  if spread <= max(1e-9 * largest, _TINY):
    spread = largest if largest > _TINY else 1.0
  exponent = math.floor(math.log10(spread / 4))
  factor = next(k for k in (1, 2, 5, 10) if spread / (k * 10.0**exponent) < 6.001)
  step = factor * 10.0**exponent
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  ticks = range(first, max(last, first + 1) + 1)
  return [round(k * step, -exponent) for k in ticks]
