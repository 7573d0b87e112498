import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from img2graph.losses import attention


def _maps(seed, shape):
  maps = np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
  return maps / maps.max((1, 2), keepdims=True)


def test_overlap_matches_equation_5_by_loops():
  maps = _maps(0, (4, 3, 5, 6))
  similarity = np.array([0.2, 0.9, 0.5, 0.8], np.float32)  # Their mean is 0.6.
  total = 0.0
  for b in range(4):
    if similarity[b] < similarity.mean():
      cells = [max(maps[b, r, c].sum() - 1, 0) ** 2 for r in range(3) for c in range(5)]
      total += np.mean(cells)
  actual = attention.attention_overlap(maps, similarity)
  assert float(actual) == pytest.approx(total / 4, rel=1e-5)
  assert total > 0


def test_separate_maps_and_equal_similarities_cost_nothing():
  maps = np.zeros((2, 2, 2, 4), np.float32)
  maps[:, [0, 0, 1, 1], [0, 1, 0, 1], np.arange(4)] = 1
  assert attention.attention_overlap(maps, np.array([0.0, 1.0])) == 0
  assert attention.attention_overlap(_maps(1, (2, 3, 3, 4)), np.full(2, 0.5)) == 0


def test_order_of_maps_does_not_matter():
  maps = _maps(2, (3, 4, 4, 5))
  similarity = np.array([0.1, 0.2, 0.9], np.float32)
  np.testing.assert_allclose(
    attention.attention_overlap(maps[..., [3, 1, 4, 0, 2]], similarity),
    attention.attention_overlap(maps, similarity),
    rtol=1e-6,
  )


def test_gradient_reaches_bad_images_only_and_not_the_similarity():
  maps = _maps(3, (3, 4, 4, 5))
  similarity = np.array([0.1, 0.2, 0.9], np.float32)
  by_maps, by_similarity = jax.grad(attention.attention_overlap, argnums=(0, 1))(
    maps, similarity
  )
  chex.assert_tree_all_finite(by_maps)
  assert np.all(np.abs(by_maps[:2]).max((1, 2, 3)) > 0)
  np.testing.assert_array_equal(by_maps[2], 0)
  np.testing.assert_array_equal(by_similarity, 0)


def test_mean_similarity_is_that_of_the_global_batch():
  # Alone, each of the four parts would have an image below its own mean.
  maps = _maps(4, (8, 4, 4, 5))
  similarity = np.array([0.1, 0.2, 0.7, 0.8, 0.7, 0.8, 0.7, 0.8], np.float32)
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = NamedSharding(mesh, P('data'))
  sharded = jax.jit(attention.attention_overlap)(
    jax.device_put(maps, sharding), jax.device_put(similarity, sharding)
  )
  bad = np.maximum(maps[:2].sum(-1) - 1, 0) ** 2
  np.testing.assert_allclose(sharded, bad.mean((1, 2)).sum() / 8, rtol=1e-5)


def test_wrong_shapes_are_named():
  with pytest.raises(ValueError, match='similarity'):
    attention.attention_overlap(jnp.zeros((2, 3, 3, 4)), jnp.zeros((3,)))
