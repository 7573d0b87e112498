"""Simple Shapes as a `tensorflow-datasets` builder, and its files as a source.

The images are those of `img2graph.data.shapes`, drawn once with a fixed seed and stored
as PNG in array_record files. TensorFlow is not needed, neither to write nor to read.
"""

import dataclasses
import functools
import io
import pathlib

import jax
import numpy as np
from PIL import Image

from img2graph import graph as graph_lib
from img2graph.data import shapes as shapes_lib
from img2graph.data import sources
from img2graph.data import streams

try:
  import tensorflow_datasets as tfds
except ModuleNotFoundError:
  raise ValueError(
    "this data source needs tensorflow-datasets: pip install 'img2graph[train]'."
  ) from None

_BATCH = 200  # images drawn at once
# The writer of tensorflow-datasets fails, late and unclearly, on splits over 1000 MiB.
_MOST_BYTES = 950 * 2**20


@dataclasses.dataclass(kw_only=True)
class SimpleShapesConfig(tfds.core.BuilderConfig):
  """One variant of the data set; the name follows from the rest unless given.

  Attributes:
    shapes: names of `shapes.TEMPLATES`.
    side: height and width of the images in pixels.
    line_width: pixels, a number or (low, high).
    num_images: size of the 'train' split.
    num_test_images: size of the 'test' split.
    seed: of the pseudo-random numbers.
  """

  name: str = ''
  shapes: tuple[str, ...] = ('line', 'triangle', 'rectangle')
  side: int = 128
  line_width: float | tuple[float, float] = 1.5
  num_images: int = 50_000
  num_test_images: int = 2_000
  seed: int = 0

  def __post_init__(self):
    self.shapes = tuple(self.shapes)
    if self.num_images < 1 or self.num_test_images < 1:
      raise ValueError(
        'num_images and num_test_images must be at least 1; got '
        f'{self.num_images} and {self.num_test_images}.'
      )
    if self.seed < 0:
      raise ValueError(f'seed must not be negative; got {self.seed}.')
    if not self.name:
      width = self.line_width
      width = f'{width:g}' if np.isscalar(width) else '-'.join(f'{w:g}' for w in width)
      self.name = (
        f'{"-".join(self.shapes)}_{self.side}px_w{width}'
        f'_{self.num_images}+{self.num_test_images}_seed{self.seed}'
      )

  def options(self):
    """Options of `shapes.sample`."""
    return dict(side=self.side, shapes=self.shapes, line_width=self.line_width)


class SimpleShapes(tfds.core.GeneratorBasedBuilder):
  """Lines, triangles and rectangles with their graphs; see `img2graph.data.shapes`."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS = [SimpleShapesConfig()]
  # Told, because finding it out takes a package that tensorflow-datasets uses but does
  # not install.
  code_path = tfds.core.Path(__file__)

  def __init__(self, **options):
    super().__init__(file_format='array_record', **options)

  def _sizes(self):
    vertices, _, ends, _, _ = shapes_lib.tables(self.builder_config.shapes, None)
    return vertices.shape[1], ends.shape[1]

  def _info(self):
    config = self.builder_config
    num_nodes, num_edges = self._sizes()
    return self.dataset_info_from_configs(
      description='Line drawings of simple shapes with their graphs.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(config.side, config.side, 1), encoding_format='png'
          ),
          # (x, y) in [-1, 1] of the image; the first num_nodes count.
          'nodes': tfds.features.Tensor(shape=(num_nodes, 2), dtype=np.float32),
          'num_nodes': np.int32,
          # Numbers of the two nodes; the first num_edges count, the rest are -1.
          'edges': tfds.features.Tensor(shape=(num_edges, 2), dtype=np.int32),
          'num_edges': np.int32,
        }
      ),
    )

  def _split_generators(self, dl_manager):
    config = self.builder_config
    draw = jax.jit(lambda key: shapes_lib.sample(key, _BATCH, **config.options()))
    return {
      'train': self._generate_examples(draw, 0, config.num_images),
      'test': self._generate_examples(draw, 1, config.num_test_images),
    }

  def _generate_examples(self, draw, split, num_images):
    config = self.builder_config
    _, num_edges = self._sizes()
    split_key = jax.random.fold_in(jax.random.key(config.seed), split)
    written = 0
    for first in range(0, num_images, _BATCH):
      # A full batch even at the end: one shape, one compilation.
      batch = jax.device_get(draw(jax.random.fold_in(split_key, first)))
      for i in range(min(_BATCH, num_images - first)):
        graph = jax.tree.map(lambda a, i=i: a[i], batch['graph'])
        senders, receivers = np.nonzero(np.triu(graph.edge_prob > 0.5))
        edges = np.full((num_edges, 2), -1, np.int32)
        edges[: len(senders)] = np.stack([senders, receivers], axis=-1)
        png = io.BytesIO()
        pixels = np.round(255 * batch['image'][i, :, :, 0]).astype(np.uint8)
        Image.fromarray(pixels).save(png, format='png')
        written += png.tell()
        if written > _MOST_BYTES:
          raise ValueError(
            f'{num_images} images of {config.side} pixels do not fit into one data '
            f'set of {_MOST_BYTES // 2**20} MiB: choose fewer or smaller ones.'
          )
        png.seek(0)
        yield (
          first + i,
          {
            'image': png,
            'nodes': np.asarray(graph.nodes, np.float32),
            'num_nodes': int(np.sum(graph.node_prob > 0.5)),
            'edges': edges,
            'num_edges': len(senders),
          },
        )


class _Examples:
  """Loads examples of a prepared data set by number."""

  def __init__(self, builder, split):
    self._builder = builder
    self._split = split
    self._data = builder.as_data_source(split=split)

  def __len__(self):
    return len(self._data)

  def __call__(self, index, generator):
    del generator  # Nothing is random but the order.
    example = self._data[index]
    nodes = example['nodes']
    capacity = len(nodes)
    edge_prob = np.zeros((capacity, capacity), np.float32)
    i, j = example['edges'][: int(example['num_edges'])].T
    edge_prob[i, j] = edge_prob[j, i] = 1
    return {
      'image': example['image'].astype(np.float32) / 255,
      'graph': graph_lib.Graph(
        nodes=nodes,
        node_prob=(np.arange(capacity) < example['num_nodes']).astype(np.float32),
        edge_prob=edge_prob,
      ),
    }


def _prepared(folder, config):
  """The builder of a data set that is there."""
  builder = SimpleShapes(data_dir=str(folder), config=config)
  try:
    builder.download_and_prepare()
  except FileExistsError:  # Another process, which makes the same, was faster.
    builder = SimpleShapes(data_dir=str(folder), config=config)
    builder.download_and_prepare()
  return builder


def _examples(builder, split):
  """The examples of a split, of which the first can be read."""
  try:
    examples = _Examples(builder, split)
    examples(0, None)
  except Exception as error:  # Damage shows in many ways.
    reason = str(error).strip().partition('\n')[0]
    raise ValueError(
      f'the split {split!r} in {builder.data_path} is damaged ({reason}); remove that '
      'folder, and it is made anew.'
    ) from None
  return examples


def source(
  *,
  data_dir,
  split='train',
  shapes=('line', 'triangle', 'rectangle'),
  side=128,
  line_width=1.5,
  num_images=50_000,
  num_test_images=2_000,
  data_seed=0,
  worker_count=0,
):
  """A `HostSource` of the data set under `data_dir`, which is made when it is absent.

  Args:
    data_dir: folder of tensorflow-datasets.
    split: 'train' or 'test'.
    shapes, side, line_width, num_images, num_test_images: see `SimpleShapesConfig`.
    data_seed: seed of the images (the seed of `iterate` is that of their order).
    worker_count: processes that read; 0 reads in threads.

  Returns:
    `HostSource` with batches {'image': `[B, side, side, 1]`, 'graph': true `Graph`}.

  Raises:
    ValueError: an option is wrong, or what was made is damaged.
  """
  if split not in ('train', 'test'):
    raise ValueError(f"split must be 'train' or 'test'; got {split!r}.")
  config = SimpleShapesConfig(
    shapes=shapes,
    side=side,
    line_width=line_width,
    num_images=num_images,
    num_test_images=num_test_images,
    seed=data_seed,
  )
  # Wrong options of the drawing are found before any folder is made.
  sources.from_sampler(shapes_lib.sample, **config.options())
  folder = pathlib.Path(data_dir).expanduser().absolute()
  examples = _examples(_prepared(folder, config), split)
  iterate = functools.partial(
    streams.shuffled, examples, len(examples), worker_count=worker_count
  )
  return sources.HostSource(iterate=iterate, side=side, size=len(examples))
