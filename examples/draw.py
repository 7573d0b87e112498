"""Draws the two example pictures: pen on paper, imitated.

`python examples/draw.py` writes rectangle.png and house.png beside itself. A stroke
wanders off its straight line, overshoots its ends and varies in pressure; the paper has
a tint, a grain and a soft shadow. Drawn at four times the size and averaged down.
"""

import pathlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFilter

ZOOM = 4
INK = np.array([38, 42, 78], np.float32)
PAPER = np.array([246, 241, 229], np.float32)


def wander(rng, num_points, *, size, smoothness):
  """A smooth random curve with standard deviation `size`: `[num_points]` float."""
  noise = rng.normal(size=num_points + 6 * smoothness)
  window = np.hanning(2 * smoothness + 1)
  curve = np.convolve(noise, window / np.sqrt((window**2).sum()), mode='same')
  return size * curve[3 * smoothness : 3 * smoothness + num_points]


def stroke(draw, rng, start, end, *, width, wobble, overshoot):
  """One pen stroke from start to end, in pixels of the finished picture."""
  start, end = np.asarray(start, float), np.asarray(end, float)
  length = np.linalg.norm(end - start)
  along = (end - start) / length
  across = np.array([-along[1], along[0]])
  start = start - along * rng.uniform(-0.3, 1) * overshoot
  end = end + along * rng.uniform(-0.3, 1) * overshoot
  num_points = int(2 * length)
  t = np.linspace(0, 1, num_points)
  # No hand draws a straight line: one slow bow, and a tremor upon it.
  bow = wobble * rng.normal() * np.sin(np.pi * t)
  offset = bow + wander(rng, num_points, size=0.45 * wobble, smoothness=60)
  radius = width / 2 * (1 + wander(rng, num_points, size=0.1, smoothness=80))
  radius *= np.minimum(1, 0.55 + 6 * np.minimum(t, 1 - t))
  points = start + t[:, None] * (end - start) + offset[:, None] * across
  for (x, y), r in zip(ZOOM * points, ZOOM * radius, strict=True):
    draw.ellipse((x - r, y - r, x + r, y + r), fill=255)


def picture(seed, strokes, *, width=400, height=300):
  """A drawing as a PIL image; `strokes` are pairs of points in pixels."""
  rng = np.random.default_rng(seed)
  canvas = Image.new('L', (ZOOM * width, ZOOM * height))
  draw = ImageDraw.Draw(canvas)
  for start, end in strokes:
    stroke(draw, rng, start, end, width=3.4, wobble=1.6, overshoot=5)
  canvas = canvas.filter(ImageFilter.GaussianBlur(0.5 * ZOOM))
  ink = np.asarray(canvas.resize((width, height), Image.Resampling.BOX)) / 255
  # Ink soaks in unevenly.
  ink = ink * (0.9 + 0.05 * rng.normal(size=ink.shape))
  y, x = np.mgrid[:height, :width] / width
  shadow = 1 - 0.06 * (x - 0.2) ** 2 - 0.08 * y**2
  paper = PAPER * (shadow + 0.006 * rng.normal(size=ink.shape))[..., None]
  pixels = paper + np.clip(ink, 0, 1)[..., None] * (INK - paper)
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def closed(*points):
  """The sides of a polygon."""
  return list(zip(points, points[1:] + points[:1], strict=True))


def main():
  folder = pathlib.Path(__file__).parent
  rectangle = closed((88, 92), (294, 52), (322, 196), (116, 236))
  picture(7, rectangle).save(folder / 'rectangle.png', optimize=True)
  walls = [(112, 128), (112, 256), (288, 256), (288, 128)]
  house = closed(*walls) + [((112, 128), (200, 48)), ((200, 48), (288, 128))]
  picture(11, house).save(folder / 'house.png', optimize=True)


if __name__ == '__main__':
  main()
