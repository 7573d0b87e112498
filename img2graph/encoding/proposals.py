"""Nodes as proposals: one corner heat-map with offsets, and the best N of it.

The same network can also say what the drawing would look like without what is rough
about it: a second, dense answer, which the ink of a graph is compared with.

One map serves all nodes, so the number of nodes that come out is a limit and not a
number of specialised channels: the same weights work at every capacity. Positions are
(x, y) in [-1, 1]; `h w` is the grid of cells.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from img2graph import geometry
from img2graph.encoding import layers


class ProposalNet(nn.Module):
  """Image to corner logits and positions, one proposal for each cell, and a drawing.

  Attributes:
    width: channels of the trunk.
    blocks: residual 3x3 convolutions.
    cell: pixels of a cell's side; the image side must be a multiple of it.
    offset_range: how far, in cells, a proposal may lie from its cell's centre.
    initial_bias: bias of the corner logit at the start; > 0 so that nodes exist at
      first and can be drawn, otherwise nothing has a gradient.
    context: how often the grid is halved, in the middle of the trunk, to see more of
      the image than is near; then the mean of all is seen too. 0 for a local trunk.
    drawing: channels of the layer before the drawing; 0 for no drawing.
    dtype: of the activations of the trunk; the head is always float32.
  """

  width: int = 32
  blocks: int = 4
  cell: int = 4
  offset_range: float = 2.0
  initial_bias: float = 1.0
  context: int = 0
  drawing: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images):
    """`[B, S, S, 1]` -> (logits `[B, h*w]`, positions `[B, h*w, 2]`, drawing).

    The drawing is `[B, S, S]` logits of ink, float32, or None.
    """
    batch, side = images.shape[:2]
    if side % self.cell:
      raise ValueError(f'side {side} is not a multiple of the cell ({self.cell} px).')
    grid = side // self.cell
    x = images.reshape(batch, grid, self.cell, grid, self.cell, images.shape[-1])
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, grid, grid, -1)
    cells = x = x.astype(self.dtype)
    x = nn.relu(self._conv('stem', x))
    for k in range(self.blocks):
      if self.context and k == self.blocks // 2:
        x = x + self._context(x)
      x = x + nn.relu(self._conv(f'block_{k}', x))
    x = nn.RMSNorm(dtype=jnp.float32, name='norm')(x.astype(jnp.float32))
    head = nn.Dense(3, name='head')(x).reshape(batch, grid * grid, 3)
    logits = head[..., 0] + self.initial_bias
    centres = jnp.asarray(geometry.pixel_centres(grid, grid)).reshape(1, -1, 2)
    positions = centres + self.offset_range * (2 / grid) * jnp.tanh(head[..., 1:])
    drawing = self._drawing(x, cells) if self.drawing else None
    return logits, positions, drawing

  def _conv(self, name, x):
    start = layers.conv_init
    return nn.Conv(self.width, (3, 3), kernel_init=start, dtype=self.dtype, name=name)(
      x
    )

  def _context(self, x):
    """What coarser grids, and the mean of the coarsest, have to say to each cell."""
    grids = [x]
    for k in range(self.context):
      x = _halve(x)
      x = x + nn.relu(self._conv(f'down_{k}', x))
      grids.append(x)
    mean = x.mean(axis=(1, 2), keepdims=True)
    y = x + nn.Dense(self.width, dtype=self.dtype, name='whole')(mean)
    for k in reversed(range(self.context)):
      y = y + nn.relu(self._conv(f'up_{k}', y))
      y = y.repeat(2, axis=1).repeat(2, axis=2)
      y = y[:, : grids[k].shape[1], : grids[k].shape[2]]
      if k:
        y = y + grids[k]
    return nn.Dense(self.width, dtype=self.dtype, name='told')(y)

  def _drawing(self, x, cells):
    """Logits `[B, S, S]` of ink, from the trunk and the pixels of each cell."""
    batch, grid = x.shape[:2]
    both = jnp.concatenate([x.astype(self.dtype), cells], axis=-1)
    y = nn.relu(nn.Dense(self.drawing, dtype=self.dtype, name='drawing_hidden')(both))
    # Most of a drawing is paper.
    bias = nn.initializers.constant(-3.0)
    y = nn.Dense(self.cell**2, name='drawing', bias_init=bias)(y.astype(jnp.float32))
    y = y.reshape(batch, grid, grid, self.cell, self.cell).transpose(0, 1, 3, 2, 4)
    return y.reshape(batch, grid * self.cell, grid * self.cell)


def _halve(x):
  """Means of 2 x 2 cells; an odd last row or column is repeated."""
  height, width = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode='edge')
  shape = (x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3])
  return x.reshape(shape).mean(axis=(2, 4))


def select(scores, positions, *, num_nodes, min_distance):
  """The best `num_nodes` proposals, greedily, none too near to a better one.

  Args:
    scores: `[B, C]` float, the higher the better.
    positions: `[B, C, 2]` float, decoded positions in [-1, 1].
    num_nodes: how many to take; when fewer are far enough apart, the rest repeats
      suppressed proposals and `valid` says so.
    min_distance: suppression radius in [-1, 1] units.

  Returns:
    indices `[B, num_nodes]` int32 and valid `[B, num_nodes]` bool.
  """
  lowest = jnp.finfo(scores.dtype).min

  def pick(scores, _):
    best = jnp.argmax(scores, axis=-1)  # [B]
    valid = jnp.take_along_axis(scores, best[:, None], axis=1)[:, 0] > lowest
    chosen = jnp.take_along_axis(positions, best[:, None, None], axis=1)  # [B, 1, 2]
    near = ((positions - chosen) ** 2).sum(-1) < min_distance**2
    here = jnp.arange(scores.shape[1])[None] == best[:, None]
    return jnp.where(near | here, lowest, scores), (best.astype(jnp.int32), valid)

  _, (indices, valid) = jax.lax.scan(pick, scores, None, length=num_nodes)
  return indices.T, valid.T
