"""Renderers as parts of a model: which edges are drawn, how, and what is learned.

Letters: B batch, E edges, M edges that are drawn, H W image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from img2graph.rendering import segments
from img2graph.rendering import templates


class SegmentRenderer(nn.Module):
  """Draws the strongest edges as soft lines of a learned width.

  Attributes:
    max_edges: how many edges are drawn, M; the rest has no influence. Losing edges
      cost nothing to draw and get no gradient, which also keeps graphs sparse.
    half_width: half width of a line at the start of training, pixels.
    width_rate: how much faster than other parameters the (logarithm of the) width
      learns.
    softness: width of the soft border of a line, pixels: wide enough for a line to
      feel ink beside it.
    compose: how edges that overlap add up, see `segments.draw_edges`.
    limit: largest weight; below 1, so that every edge of a pixel keeps a gradient
      under 'soft_or'.
    noise: scale of the Gumbel noise on the choice of edges in training.
    noise_until: fraction of training at which that noise has fallen to zero; 0 for
      no noise.
  """

  max_edges: int = 12
  half_width: float = 1.25
  width_rate: float = 5.0
  softness: float = 2.5
  compose: str = 'soft_or'
  limit: float = 0.999
  noise: float = 1.0
  noise_until: float = 0.7

  @nn.compact
  def __call__(self, start, end, weight, *, height, width, progress, train):
    """Draws `[B, E, 2]` to `[B, E, 2]` with weights `[B, E]` as `[B, H, W]`.

    Needs the random stream 'explore' when `train` is set.
    """
    theta = self.param('log_half_width', nn.initializers.zeros, (), jnp.float32)
    if self.max_edges < weight.shape[1]:
      scores = jnp.log(jax.lax.stop_gradient(weight) + 1e-9)
      if train and self.noise and self.noise_until:
        scale = self.noise * jnp.clip(1 - progress / self.noise_until, 0, 1)
        key = self.make_rng('explore')
        scores = scores + scale * jax.random.gumbel(key, scores.shape, jnp.float32)
      _, index = jax.lax.top_k(scores, self.max_edges)
      start, end = (
        jnp.take_along_axis(x, index[..., None], axis=1) for x in (start, end)
      )
      weight = jnp.take_along_axis(weight, index, axis=1)
    half_width = self.half_width * jnp.exp(self.width_rate * theta)
    return segments.draw_edges(
      start,
      end,
      self.limit * weight,
      height=height,
      width=width,
      thickness=half_width * 2 / height,
      profile='antialias',
      compose=self.compose,
      softness=self.softness,
    )


class TemplateRenderer(nn.Module):
  """Copies a line template onto the canvas for every edge (Lu & Dubbelman, 3.2.2).

  Attributes:
    size: side of the template, pixels.
    half_width: half width of the line that is drawn, pixels of the canvas.
  """

  size: int = 32
  half_width: float = 1.0

  def __call__(self, start, end, weight, *, height, width, progress, train):
    """Adds `[B, E, 2]` to `[B, E, 2]` with weights `[B, E]` up to `[B, H, W]`."""
    del progress, train  # Nothing is learned or explored here.
    return templates.draw_templates(
      templates.line_template(self.size),
      start,
      end,
      weight,
      height=height,
      width=width,
      half_width=self.half_width,
    )
