"""What a source of training images offers, whatever it reads or draws.

A batch is a dict of arrays: 'image' `[B, H, W, 1]` float32 in [0, 1] with ink 1, or
`[B, H, W, 3]` of photographs. Optionally 'target' `[B, H, W, 1]`, what the drawing is
compared with when it differs from the image; 'graph', the true `Graph`, which only
evaluation may see, and a loss that says it uses labels; and, of photographs with
annotated points, which only evaluation may see either, 'points' `[B, M, 2]` float32
(x, y) in [-1, 1], 'visible' `[B, M]` float32, 1 where a point is annotated, else 0, and
'scale' `[B]` float32 > 0, what distances are divided by, in the unit of the points.

Images may leave the host as uint8 in [0, 255], a quarter of the bytes; `as_float` is
applied to every batch before anything else sees it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class DeviceSource:
  """Images drawn on the device, inside the jitted training step.

  Attributes:
    sample: `(key, batch_size) -> batch`, pure and jittable. Example i depends on
      `jax.random.split(key, batch_size)[i]` alone, so the numbers are the same for
      any number of devices.
    side: height and width of the images in pixels.
  """

  sample: Callable[..., Any]
  side: int


@dataclasses.dataclass(frozen=True)
class HostSource:
  """Images read or decoded on the host.

  Attributes:
    iterate: `(*, seed, batch_size, process_index=0, process_count=1) -> iterator` over
      numpy batches, without end. `batch_size` is that of all processes together; each
      process gets its own `batch_size // process_count` examples. The iterator has
      `get_state() -> bytes` and `set_state(bytes)`; after `set_state` it goes on with
      exactly the batches that followed `get_state`.
    side: height and width of the images in pixels.
    size: number of examples in one epoch, over all processes.
    complete: `(key, batch) -> batch`, what training does with each batch of all
      processes on the devices, inside the step: pure and jittable, it may add examples
      and entries; None for nothing.
    with_targets: `batch -> batch`, what `complete` adds that is not by chance, such as
      what a drawing is to look like, for the loss of a run's evaluation; pure and
      jittable; None for nothing.
    resident: pytree of numpy arrays that every device keeps, whole, such as all images
      of a small set. Then `complete(key, batch, resident)` picks from them, what
      `iterate` yields need have no 'image', and evaluation reads `whole`.
    whole: all examples as numpy arrays, where they are in the host's memory anyway;
      else None.
  """

  iterate: Callable[..., Any]
  side: int
  size: int
  complete: Callable[..., Any] | None = None
  with_targets: Callable[..., Any] | None = None
  resident: Any = None
  whole: Any = None


def from_sampler(sample, *, side=64, **options):
  """A `DeviceSource` of `sample(key, batch_size, *, side, **options) -> batch`.

  Raises:
    ValueError: `sample` refuses an option; it is traced once to find out now and not
      in the training step.
  """
  draw = functools.partial(sample, side=side, **options)
  jax.eval_shape(lambda key: draw(key, 1), jax.random.key(0))
  return DeviceSource(sample=draw, side=side)


def as_float(batch):
  """The batch with its images as float32 in [0, 1]; numpy in, numpy out.

  Args:
    batch: dict with 'image', uint8 in [0, 255] or float32 in [0, 1]; or without.
  """
  images = batch.get('image')
  if images is None or images.dtype != np.uint8:
    return batch
  xp = np if isinstance(images, np.ndarray) else jnp
  return batch | {'image': images.astype(xp.float32) / xp.float32(255)}


def local_batch_size(batch_size, process_count):
  """Examples per process of a global batch; raises ValueError if it does not divide."""
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'batch_size must be a positive multiple of the number of processes '
      f'({process_count}); got {batch_size}.'
    )
  return batch_size // process_count
