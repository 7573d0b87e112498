"""Tests of img2graph/encoding/proposals.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from img2graph.encoding import proposals


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
