"""Labelled photographs as `tensorflow-datasets`, without TensorFlow.

`Labelled` prepares CIFAR-10, CIFAR-100 or Tiny ImageNet, in the layouts that
`img2graph.data.labelled` reads, as PNG in array_record files:

  builder = labelled_tfds.Labelled(name='cifar10', folder=FOLDER, data_dir=DIR)
  builder.download_and_prepare()

`read` takes any prepared folder whose examples have an 'image' and a 'label', such as
those of tensorflow-datasets' own `cifar10` and `mnist`, as long as its files are
array_record. Grey images, and those with alpha, become RGB.
"""

import concurrent.futures
import io
import pathlib

import numpy as np
from PIL import Image

from img2graph.data import images as image_files
from img2graph.data import labelled

try:
  import tensorflow_datasets as tfds
except ModuleNotFoundError:
  raise ValueError(
    "this data source needs tensorflow-datasets: pip install 'img2graph[train]'."
  ) from None

NAMES = ('cifar10', 'cifar100', 'tiny_imagenet')


class Labelled(tfds.core.GeneratorBasedBuilder):
  """Images with a class each; splits 'train' and 'test' as published.

  Args:
    name: of `NAMES`.
    folder: what `labelled.load` reads.
    **options: of the builder, such as `data_dir`.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in NAMES]
  # Told, because finding it out takes a package that tensorflow-datasets uses but does
  # not install.
  code_path = tfds.core.Path(__file__)

  def __init__(self, *, name, folder, **options):
    self._parts = {
      part: labelled.load(name, folder, part=part, valid=0.0)
      for part in ('train', 'test')
    }
    super().__init__(config=name, file_format='array_record', **options)

  def _info(self):
    train = self._parts['train']
    return self.dataset_info_from_configs(
      description='Labelled photographs.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=train.images.shape[1:], encoding_format='png'
          ),
          'label': tfds.features.ClassLabel(num_classes=train.classes),
        }
      ),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {part: self._generate_examples(found) for part, found in self._parts.items()}

  def _generate_examples(self, found):
    for i, (image, label) in enumerate(zip(found.images, found.labels, strict=True)):
      png = io.BytesIO()  # Pixels would be encoded by TensorFlow.
      Image.fromarray(image).save(png, format='png')
      png.seek(0)
      yield i, {'image': png, 'label': int(label)}


def read(folder, part):
  """One split of a prepared folder.

  Args:
    folder: the one that holds `dataset_info.json`.
    part: 'train' or 'test'; 'validation' stands for a test split that is not there.

  Returns:
    `labelled.Labelled`.

  Raises:
    ValueError: the folder, or what is in it, does not do.
  """
  folder = pathlib.Path(folder)
  if not (folder / 'dataset_info.json').is_file():
    raise ValueError(
      f'there is no dataset_info.json in {folder}; it should be a prepared folder of '
      'tensorflow-datasets, such as cifar10/3.0.2.'
    )
  try:
    builder = tfds.builder_from_directory(folder)
  except Exception as error:  # Damage shows in many ways.
    raise ValueError(f'{folder} is damaged ({_in_short(error)}).') from None
  split = part
  if part == 'test' and 'test' not in builder.info.splits:
    split = 'validation'
  if split not in builder.info.splits:
    raise ValueError(
      f'{folder} has no split {part!r}; it has {", ".join(builder.info.splits)}.'
    )
  if not {'image', 'label'} <= set(builder.info.features):
    raise ValueError(
      f"the examples in {folder} should have 'image' and 'label'; they have "
      f'{", ".join(builder.info.features)}.'
    )
  if not hasattr(builder.info.features['label'], 'num_classes'):
    raise ValueError(
      f"the 'label' of {folder} should be a ClassLabel, which tells how many classes "
      f'there are; it is a {type(builder.info.features["label"]).__name__}.'
    )
  found = _examples(folder, builder, split)
  images = [_to_rgb(example['image']) for example in found]
  if len({image.shape for image in images}) > 1:
    raise ValueError(f'the images in {folder} should all have one size.')
  labels = np.array([example['label'] for example in found], np.int32)
  classes = builder.info.features['label'].num_classes
  if labels.min() < 0:
    raise ValueError(
      f'the labels of the split {split!r} in {folder} must count from 0; got '
      f'{labels.min()}, which stands for an image without a label.'
    )
  return labelled.Labelled(np.stack(images), labels, classes)


def _examples(folder, builder, split):
  """All examples of a split, a list that is not empty."""
  try:
    examples = builder.as_data_source(split=split)
    # Decoding leaves the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor() as pool:
      found = list(pool.map(lambda i: examples[i], range(len(examples))))
  except NotImplementedError as error:
    raise ValueError(
      f'{folder} is not of array_record files, which alone are read without '
      f"TensorFlow; prepare it with file_format='array_record' ({error})."
    ) from None
  except Exception as error:  # Damage shows in many ways.
    raise ValueError(
      f'the split {split!r} in {folder} is damaged ({_in_short(error)}).'
    ) from None
  if not found:
    raise ValueError(f'the split {split!r} in {folder} is empty.')
  return found


def _to_rgb(pixels):
  """`[H, W, 3]` uint8 of an image `[H, W, C]`."""
  if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
    return pixels
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  return np.asarray(image_files.to_rgb(image))


def _in_short(error):
  return str(error).strip().partition('\n')[0] or type(error).__name__
