"""Labelled photographs that fit into memory: CIFAR-10, CIFAR-100, Tiny ImageNet.

What each set reads below its folder, as its authors publish it:

  cifar10        cifar-10-batches-bin/data_batch_{1..5}.bin, test_batch.bin
                 (cifar-10-binary.tar.gz, packed or unpacked); 50,000 and 10,000
                 images of 32 pixels, 10 classes
  cifar100       cifar-100-binary/train.bin, test.bin (cifar-100-binary.tar.gz, packed
                 or unpacked); the same of 100 classes, the "fine" labels
  tiny_imagenet  tiny-imagenet-200/wnids.txt, train/WNID/images/*.JPEG,
                 val/val_annotations.txt, val/images/*.JPEG (tiny-imagenet-200.zip,
                 unpacked); 100,000 and 10,000 images of 64 pixels, 200 classes
  archive        one .npz file: 'label' `[n]` int, and 'images' `[n, H, W, 3]` uint8, or
                 'data' and 'offsets', files end to end, see `data.packed_images`
  tfds           a prepared folder of tensorflow-datasets, see `data.labelled_tfds`

Parts: 'test' is the published one, of Tiny ImageNet its validation part, whose labels
are public. The published training part is 'train' but for a share drawn at random,
which is 'valid'. An archive has one part only: a share of it is 'test' too.
"""

import concurrent.futures
import functools
import pathlib
import tarfile
import zlib
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from img2graph.data import archives
from img2graph.data import images as image_files
from img2graph.data import packed_images
from img2graph.data import resident

PARTS = ('train', 'valid', 'test')
_SIDE = 32


class Labelled(NamedTuple):
  """Images with a class each.

  Attributes:
    images: `[n, H, W, 3]` uint8.
    labels: `[n]` int32, from 0 to below the number of classes.
    classes: how many there are.
  """

  images: Any
  labels: Any
  classes: int


def load(name, folder, *, part='train', valid=0.1, test=0.2, seed=0):
  """One part of a set.

  Args:
    name: 'cifar10', 'cifar100', 'tiny_imagenet', 'archive' or 'tfds'.
    folder: where it lies, see above; of an archive the file.
    part: of `PARTS`.
    valid: share of the published training part that is 'valid', in [0, 1).
    test: share of an archive that is 'test', in [0, 1).
    seed: of what is drawn.

  Returns:
    `Labelled`.

  Raises:
    ValueError: an option is wrong, or what is read is missing or damaged; one sentence
      that says where it belongs.
  """
  if name not in _READERS:
    raise ValueError(f'name must be one of {", ".join(_READERS)}; got {name!r}.')
  if part not in PARTS:
    raise ValueError(f'part must be one of {", ".join(PARTS)}; got {part!r}.')
  for option, share in (('valid', valid), ('test', test)):
    if not 0 <= share < 1:
      raise ValueError(f'{option} must be a share in [0, 1); got {share}.')
  if seed < 0:
    raise ValueError(f'the seed of the parts must not be negative; got {seed}.')
  folder = pathlib.Path(folder).expanduser()
  if not folder.exists():
    raise ValueError(f'there is no {folder}; it should hold {_WHAT[name]}.')
  published = name != 'archive'
  read = _READERS[name](folder, 'test' if part == 'test' and published else 'train')
  if published and part == 'test':
    return read
  order = np.random.default_rng(seed).permutation(len(read.labels))
  if not published:
    count = round(test * len(order))
    order, aside = order[count:], order[:count]
    if part == 'test':
      return _take(read, aside)
  count = round(valid * len(order))
  return _take(read, order[:count] if part == 'valid' else order[count:])


def _take(labelled, indices):
  indices = np.sort(indices)
  if not len(indices):
    raise ValueError('the part is empty: its share of the images rounds to none.')
  images, labels = labelled.images[indices], labelled.labels[indices]
  return Labelled(images, labels, labelled.classes)


def _read_cifar(folder, part, *, inside, packed, files, label_bytes, classes):
  """Records of label bytes, of which the last counts, and three planes of colour."""
  raw = [_read_member(folder, inside, packed, file) for file in files[part]]
  length = label_bytes + 3 * _SIDE**2
  for file, data in zip(files[part], raw, strict=True):
    if not data or len(data) % length:
      raise ValueError(
        f'{inside}/{file} in {folder} is damaged: {len(data)} bytes are no whole '
        f'number of records of {length}.'
      )
  rows = np.frombuffer(b''.join(raw), np.uint8).reshape(-1, length)
  labels = rows[:, label_bytes - 1].astype(np.int32)
  if labels.max() >= classes:
    raise ValueError(
      f'{inside} in {folder} is damaged: the label {labels.max()} is none of {classes}.'
    )
  planes = rows[:, label_bytes:].reshape(-1, 3, _SIDE, _SIDE)
  return Labelled(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, classes)


def _read_member(folder, inside, packed, file):
  """The bytes of a file of an archive, unpacked or not."""
  # The folder may be that of the files, or the one above.
  for path in (folder / inside / file, folder / file):
    if path.is_file():
      return path.read_bytes()
  archive = folder / packed
  if archive.is_file():
    try:
      with tarfile.open(archive) as tar:
        member = tar.extractfile(f'{inside}/{file}')
        if member is not None:
          return member.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError, KeyError) as error:
      raise ValueError(
        f'{archive} is damaged, or lacks {inside}/{file} ({error}).'
      ) from None
  raise ValueError(
    f'there is no {inside}/{file} in {folder}; unpack {packed} there, or put it there.'
  )


def _read_cifar10(folder, part):
  return _read_cifar(
    folder,
    part,
    inside='cifar-10-batches-bin',
    packed='cifar-10-binary.tar.gz',
    files={
      'train': [f'data_batch_{i}.bin' for i in range(1, 6)],
      'test': ['test_batch.bin'],
    },
    label_bytes=1,
    classes=10,
  )


def _read_cifar100(folder, part):
  return _read_cifar(
    folder,
    part,
    inside='cifar-100-binary',
    packed='cifar-100-binary.tar.gz',
    files={'train': ['train.bin'], 'test': ['test.bin']},
    label_bytes=2,  # The coarse one, then the fine one.
    classes=100,
  )


def _read_tiny_imagenet(folder, part):
  inside = folder / 'tiny-imagenet-200'
  folder = inside if inside.is_dir() else folder
  names = _lines(folder / 'wnids.txt')
  numbers = {name: i for i, name in enumerate(names)}
  if part == 'train':
    pairs = [
      (path, numbers[name])
      for name in names
      for path in sorted((folder / 'train' / name / 'images').glob('*.JPEG'))
    ]
    found = {number for _, number in pairs}
    missing = [name for name in names if numbers[name] not in found]
    if missing:
      raise ValueError(
        f'there are no images *.JPEG in {folder}/train/{missing[0]}/images, a class of '
        f'wnids.txt; {len(missing)} of {len(names)} classes have none: unpack '
        'tiny-imagenet-200.zip again.'
      )
  else:
    rows = [line.split('\t')[:2] for line in _lines(folder / 'val/val_annotations.txt')]
    wrong = [row for row in rows if len(row) < 2 or row[1] not in numbers]
    if wrong:
      raise ValueError(
        f'{folder}/val/val_annotations.txt is damaged: {" ".join(wrong[0])!r} should '
        'be a file, a class of wnids.txt and a box.'
      )
    pairs = [(folder / 'val/images' / name, numbers[label]) for name, label in rows]
  paths = [path for path, _ in pairs]

  def decode(path):
    return image_files.decode(path, lambda image: np.asarray(image_files.to_rgb(image)))

  pixels = _stack(decode, paths, paths)
  labels = np.array([label for _, label in pairs], np.int32)
  return Labelled(pixels, labels, len(names))


def _lines(path):
  if not path.is_file():
    raise ValueError(
      f'there is no {path}; unpack tiny-imagenet-200.zip, and name its folder.'
    )
  try:
    text = path.read_text(encoding='utf-8')
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read ({error}).') from None
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if not lines:
    raise ValueError(f'{path} is empty; unpack tiny-imagenet-200.zip again.')
  return lines


def _read_archive(path, part):
  del part
  arrays = archives.read_arrays(path, kind='archive of labelled images')
  count = packed_images.count(path, arrays)
  labels = arrays.get('label', np.empty(0))
  if labels.dtype.kind not in 'iu' or labels.shape != (count,):
    raise ValueError(
      f"{path} should hold 'label', a whole number for each of {count} images; it "
      f'holds {", ".join(f"{n} {list(a.shape)}" for n, a in sorted(arrays.items()))}.'
    )
  if labels.min() < 0:
    raise ValueError(f'the labels in {path} must count from 0; got {labels.min()}.')
  labels = labels.astype(np.int32)

  def decode(number):
    return packed_images.decode(path, arrays, number, np.asarray)

  names = [f'image {i} of {path}' for i in range(count)]
  return Labelled(_stack(decode, range(count), names), labels, int(labels.max()) + 1)


def _stack(decode, files, names):
  """`[n, H, W, 3]` uint8 of images of one size."""
  # Pillow decodes outside of the interpreter's lock.
  with concurrent.futures.ThreadPoolExecutor() as pool:
    found = list(pool.map(decode, files))
  sizes = {image.shape for image in found}
  if len(sizes) > 1:
    odd = next(i for i, image in enumerate(found) if image.shape != found[0].shape)
    raise ValueError(
      f'all images should have one size; {names[odd]} is {found[odd].shape[1]} x '
      f'{found[odd].shape[0]} pixels and {names[0]} {found[0].shape[1]} x '
      f'{found[0].shape[0]}.'
    )
  return np.stack(found)


def _read_tfds(folder, part):
  # Here, since it is optional, and imports this module.
  from img2graph.data import labelled_tfds

  return labelled_tfds.read(folder, part)


_READERS = {
  'cifar10': _read_cifar10,
  'cifar100': _read_cifar100,
  'tiny_imagenet': _read_tiny_imagenet,
  'archive': _read_archive,
  'tfds': _read_tfds,
}
_WHAT = {
  'cifar10': 'cifar-10-binary.tar.gz or what it unpacks to',
  'cifar100': 'cifar-100-binary.tar.gz or what it unpacks to',
  'tiny_imagenet': 'what tiny-imagenet-200.zip unpacks to',
  'archive': "'label' and 'images', an .npz file",
  'tfds': 'dataset_info.json and what belongs to it',
}


def source(
  *,
  name,
  dir,
  part='train',
  valid=0.1,
  test=0.2,
  seed=0,
  most=0,
  flip=True,
  crop=4,
  on_device=None,
):
  """A `HostSource` whose images stay on the devices, if they fit there.

  Batches are 'image' `[B, S, S, 3]` uint8 and 'label' `[B]` int32. Every epoch has an
  order of its own.

  Args:
    name: see `load`.
    dir: the folder of the set, or the file of an archive.
    part: see `load`, as the next three.
    valid: share of the training part that is 'valid'.
    test: share of an archive that is 'test'.
    seed: of the parts.
    most: at most this many images, drawn by the seed; 0 for all.
    flip: mirror half of the images left to right.
    crop: pad the images by this many black pixels, and crop them to their size at
      random; 0 leaves them as they are.
    on_device: whether every device keeps all images, or each batch, the same one, is
      sent; None to keep what takes at most half of a device's memory.

  Raises:
    ValueError: as `load`.
  """
  if most < 0 or crop < 0:
    raise ValueError(f'most and crop must not be negative; got {most} and {crop}.')
  found = load(name, dir, part=part, valid=valid, test=test, seed=seed)
  if 0 < most < len(found.labels):
    order = np.random.default_rng((seed, most)).permutation(len(found.labels))
    found = _take(found, order[:most])
  height, width = found.images.shape[1:3]
  if height != width:
    raise ValueError(f'{dir}: images should be square; got {width} x {height} pixels.')
  whole = {'image': found.images, 'label': found.labels}
  return resident.host_source(
    whole,
    on_device=on_device,
    complete=functools.partial(_complete, flip=flip, crop=crop),
  )


def _complete(key, batch, *, flip, crop):
  """Images and labels of a batch, moved at random."""
  images, labels = batch['image'], batch['label']
  count, side = images.shape[:2]
  flip_key, crop_key = jax.random.split(key)
  if flip:
    turned = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
    images = jnp.where(turned, images[:, :, ::-1], images)
  if crop:
    padded = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
    corners = jax.random.randint(crop_key, (count, 2), 0, 2 * crop + 1)
    images = jax.vmap(
      lambda image, at: jax.lax.dynamic_slice(
        image, (at[0], at[1], 0), (side, side, image.shape[-1])
      )
    )(padded, corners)
  return {'image': images, 'label': labels}
