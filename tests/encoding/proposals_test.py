"""Tests of img2graph/encoding/proposals.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.encoding import proposals
from tests import compiled


def _greedy(scores, positions, count, radius):
  """The same selection in plain Python, for one image."""
  left, picked = list(range(len(scores))), []
  while left and len(picked) < count:
    best = max(left, key=lambda k: scores[k])
    picked.append(best)
    left = [
      k
      for k in left
      if k != best and np.hypot(*(positions[k] - positions[best])) >= radius
    ]
  return picked


@pytest.mark.parametrize('radius', [0.0, 0.15, 0.6])
def test_selection_is_the_greedy_one(radius):
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(3, 40)).astype(np.float32)
  positions = rng.uniform(-1, 1, (3, 40, 2)).astype(np.float32)
  select = jax.jit(proposals.select, static_argnames=('num_nodes', 'min_distance'))
  indices, valid = select(scores, positions, num_nodes=9, min_distance=radius)
  for k in range(3):
    expected = _greedy(scores[k], positions[k], 9, radius)
    assert list(np.asarray(indices[k])[np.asarray(valid[k])]) == expected


def test_what_is_chosen_keeps_its_distance():
  rng = np.random.default_rng(1)
  scores = rng.normal(size=(2, 256)).astype(np.float32)
  positions = rng.uniform(-1, 1, (2, 256, 2)).astype(np.float32)
  indices, valid = proposals.select(
    jnp.asarray(scores), jnp.asarray(positions), num_nodes=12, min_distance=0.3
  )
  for k in range(2):
    chosen = positions[k][np.asarray(indices[k])[np.asarray(valid[k])]]
    gaps = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)
    assert gaps[np.triu_indices(len(chosen), 1)].min() >= 0.3


def test_a_cell_that_does_not_divide_the_side_is_refused():
  with pytest.raises(ValueError, match='multiple of the cell'):
    proposals.ProposalNet().init(jax.random.key(0), np.zeros((1, 30, 30, 1)))


@pytest.mark.parametrize('grid', [7, 8])
def test_context_reaches_the_whole_image_and_a_local_trunk_does_not(grid):
  images = np.zeros((1, 4 * grid, 4 * grid, 1), np.float32)
  changed = images.copy()
  changed[0, -1, -1] = 1
  for context, far in ((0, False), (2, True)):
    net = proposals.ProposalNet(width=8, blocks=1, context=context)
    variables = compiled.init(net, images + 0.5)
    before, after = (compiled.apply(net, variables, x)[0] for x in (images, changed))
    assert (np.abs(before - after)[0, 0] > 1e-7) == far


def test_the_drawing_is_one_of_pixels_in_their_places():
  net = proposals.ProposalNet(width=8, blocks=1, cell=4, drawing=16)
  image = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)
  variables = compiled.init(net, image)
  assert compiled.apply(net, variables, image)[2].shape == (1, 16, 16)
  # The last layer maps each cell to its 4 x 4 pixels, row by row.
  last = variables['params']['drawing']
  last = {'kernel': 0 * last['kernel'], 'bias': np.arange(16, dtype=np.float32)}
  variables = {'params': variables['params'] | {'drawing': last}}
  expected = np.tile(np.arange(16).reshape(4, 4), (4, 4))
  np.testing.assert_array_equal(compiled.apply(net, variables, image)[2][0], expected)
  assert (
    proposals.ProposalNet(width=8).init_with_output(jax.random.key(0), image)[0][2]
    is None
  )


def test_a_proposal_lies_as_far_from_its_cell_as_it_says_within_the_range():
  net = proposals.ProposalNet(
    width=8, blocks=1, cell=4, offset_range=1.5, initial_bias=0.7
  )
  image = np.zeros((1, 12, 12, 1), np.float32)
  variables = compiled.init(net, image)
  head = variables['params']['head']
  bias = np.array([0.3, np.arctanh(0.5), -20], np.float32)
  head = {'kernel': np.zeros_like(head['kernel']), 'bias': bias}
  variables = {'params': variables['params'] | {'head': head}}
  logits, positions, _ = compiled.apply(net, variables, image)
  np.testing.assert_allclose(logits, np.full((1, 9), 1.0), rtol=1e-6)
  # Cells are 2/3 wide, row by row; 3/4 of one to the right and one and a half up.
  centres = np.array([-2, 0, 2]) / 3
  x, y = np.meshgrid(centres + 0.5, centres - 1)
  expected = np.stack([x.ravel(), y.ravel()], axis=-1)
  np.testing.assert_allclose(positions[0], expected, atol=1e-6)


def test_a_proposal_sees_what_is_near_its_cell():
  net = proposals.ProposalNet(width=8, blocks=1, cell=4)
  blank = np.zeros((1, 32, 32, 1), np.float32)
  marked = blank.copy()
  marked[0, 5, 22] = 1  # In the second row of cells and the sixth column.
  variables = compiled.init(net, blank + 0.5)
  before, after = (compiled.apply(net, variables, x)[0] for x in (blank, marked))
  rows, columns = np.nonzero((before != after).reshape(8, 8))
  assert (rows.min(), rows.max()) == (0, 3)
  assert (columns.min(), columns.max()) == (3, 7)
