"""Drawing of generated strokes: straight pieces with a soft or hard border.

Made for data, not for learning: no gradients, but fast, since the distance field of
all pieces is one running minimum per pixel. The learned renderer is another part
(`img2graph.rendering`), so that data and model cannot share a mistake.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def distance(start_px, end_px, *, height, width):
  """Distance from every pixel's centre to the nearest piece.

  Args:
    start_px: `[E, 2]` float, (x, y) in pixels, (0, 0) the outer corner of the first
      pixel. A piece may repeat, which is how absent pieces are padded.
    end_px: `[E, 2]` float, the other end; may equal `start_px`, then it is a point.
    height: image height in pixels.
    width: image width in pixels.

  Returns:
    `[H, W]` float32 >= 0, in pixels.
  """
  edge = end_px - start_px  # [E, 2]
  length_sq = jnp.maximum(jnp.sum(edge**2, axis=-1), 1e-12)
  x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)  # [1, W]
  y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)  # [H, 1]

  def one(e):
    px, py = x - start_px[e, 0], y - start_px[e, 1]
    along = (px * edge[e, 0] + py * edge[e, 1]) / length_sq[e]
    along = jnp.clip(along, 0, 1)
    return (px - along * edge[e, 0]) ** 2 + (py - along * edge[e, 1]) ** 2

  # Unrolled, so that the compiler fuses all pieces into one pass over the pixels.
  distances = [one(e) for e in range(start_px.shape[0])]
  return jnp.sqrt(functools.reduce(jnp.minimum, distances))


def line_ink(distance_px, line_width, aliased):
  """Ink of a line: 1 inside, with a border one pixel wide, or none when aliased.

  Args:
    distance_px: `[H, W]` float, distance to the middle of the line in pixels.
    line_width: [] float > 0, width of the line in pixels.
    aliased: [] bool: pixels are all ink or all paper; lines stay at least one pixel
      wide, so that thin ones do not fall apart.

  Returns:
    `[H, W]` float32 in [0, 1].
  """
  soft = jnp.clip(line_width / 2 + 0.5 - distance_px, 0, 1)
  hard = (distance_px <= jnp.maximum(line_width / 2, 0.5)).astype(jnp.float32)
  return jnp.where(aliased, hard, soft)


def curves_ink(
  start_px,
  end_px,
  slope0,
  slope1,
  line_width,
  ink,
  *,
  gap_at,
  gap_half_px,
  dash_px=None,
  dash_share=1.0,
  aliased,
  x,
  y,
):
  """Ink of bent pieces, each with its own width and ink; the darkest piece counts.

  A piece leaves its chord sideways by the cubic that is 0 at both ends with the given
  slopes there, so one evaluation per pixel draws a whole curve. The distance to it is
  taken across the chord, corrected by the slope: good for slopes up to about 1.

  Args:
    start_px: `[E, 2]` float, (x, y) in pixels.
    end_px: `[E, 2]` float.
    slope0: `[E]` float, the curve's slope against the chord at its start (positive
      turns from x to y).
    slope1: `[E]` float, the slope at its end.
    line_width: `[E]` float, pixels.
    ink: `[E]` float in [0, 1]; 0 for an absent piece.
    gap_at: `[E]` float in [0, 1], the middle of a gap along the piece.
    gap_half_px: `[E]` float, half its length in pixels; negative for no gap.
    dash_px: `[E]` float, from dash to dash along the piece in pixels; 0 or below for an
      unbroken line. None for no dashes at all.
    dash_share: [] float in (0, 1], of that which is ink.
    aliased: [] bool, see `line_ink`.
    x: `[H, W]` float, x of every pixel's centre in pixels; may be warped.
    y: `[H, W]` float, y likewise.

  Returns:
    `[H, W]` float32 in [0, 1].
  """
  edge = end_px - start_px
  length = jnp.maximum(jnp.linalg.norm(edge, axis=-1), 1e-3)
  unit = edge / length[:, None]

  def one(darkest, e):
    px, py = x - start_px[e, 0], y - start_px[e, 1]
    along = (px * unit[e, 0] + py * unit[e, 1]) / length[e]
    across = py * unit[e, 0] - px * unit[e, 1]
    t = jnp.clip(along, 0, 1)
    left = 1 - t
    sideways = length[e] * t * left * (slope0[e] * left - slope1[e] * t)
    slope = slope0[e] * left * (1 - 3 * t) + slope1[e] * t * (3 * t - 2)
    beyond = (along - t) * length[e]
    # Round ends: beyond the ends the slope does not count.
    correction = jnp.where(beyond == 0, 1 / (1 + slope**2), 1.0)
    distance = jnp.sqrt((across - sideways) ** 2 * correction + beyond**2)
    value = ink[e] * line_ink(distance, line_width[e], aliased)
    in_gap = jnp.abs(along - gap_at[e]) * length[e] < gap_half_px[e]
    if dash_px is not None:
      # A dash in the middle: pieces begin and end in any part of one.
      dash = (along - 0.5) * length[e] / jnp.maximum(dash_px[e], 1e-3) + dash_share / 2
      in_gap |= (dash_px[e] > 0) & (jnp.mod(dash, 1) > dash_share)
    return jnp.maximum(darkest, jnp.where(in_gap, 0.0, value)), None

  # A loop on the device, not unrolled: it compiles in a tenth of the time, runs as
  # fast, and its result is an array that a following blur cannot make the compiler
  # draw again for every neighbour.
  pieces = np.arange(start_px.shape[0])
  return jax.lax.scan(one, 0 * (x + y), pieces)[0]


def pick(uniform, bounds):
  """Maps a uniform [] number in [0, 1) to (lo, hi); a plain number stays as it is."""
  lo, hi = bounds
  return lo + (hi - lo) * uniform


def add_noise(key, image, sd):
  """Gaussian noise of standard deviation `sd` ([] float), clipped to [0, 1]."""
  return jnp.clip(image + sd * jax.random.normal(key, image.shape), 0, 1)
