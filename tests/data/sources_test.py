import jax
import pytest

from img2graph import data
from img2graph.data import sources


def test_build_names_what_there_is():
  with pytest.raises(ValueError, match='no data source named .cats.; there are shapes'):
    data.build('cats')
  with pytest.raises(ValueError, match="needs the option 'dir'"):
    data.build('image_folder')


def test_build_gives_a_source_that_draws():
  source = data.build('shapes', side=8, shapes=['line'])
  batch = jax.eval_shape(lambda key: source.sample(key, 3), jax.random.key(0))
  assert source.side == 8
  assert batch['image'].shape == (3, 8, 8, 1)
  assert batch['graph'].nodes.shape == (3, 4, 2)


def test_local_batch_size_divides_or_says_why_not():
  assert sources.local_batch_size(12, 3) == 4
  for batch_size, count in ((10, 3), (0, 1), (-2, 2)):
    with pytest.raises(ValueError, match='multiple of the number of processes'):
      sources.local_batch_size(batch_size, count)
