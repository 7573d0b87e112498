"""What every method offers, and how one is built from a config.

A method is a set of pure functions. The training loop, evaluation and prediction
know a method by these functions only, never by its name.
"""

import dataclasses
import importlib
import numbers
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Method:
  """Pure functions of one method; images are `[B, H, W, C]` float32 in [0, 1].

  Attributes:
    init: `(key, batch) -> variables`, a dict with 'params' (trained) and any other
      collections (for example 'batch_stats').
    loss: `(variables, batch, key, step) -> (scalar, aux)`. `batch['image']` is the
      input; `batch.get('target')` what the drawing is compared with, when it differs.
      `aux['metrics']` is `{name: scalar}`; `aux['collections']` holds the updated
      collections other than 'params', and may be left out if there are none.
    predict: `(variables, images) -> Graph`; None if there is no graph in an image.
    reconstruct: `(variables, images) -> {'graph': Graph, 'drawing': [B, H, W, 1],
      ...}` for panels; may hold further images, such as 'refined', 'masked',
      'reconstruction' or 'input'. None for a method without panels.
    classify: `(variables, images) -> (features [B, D], logits [B, C])`, both float32;
      None for a method that knows no classes.
    num_classes: C of `classify`; None without it.
    refine: `(variables, images, graph, num_steps) -> Graph`: test-time fitting of the
      graph to the images through the renderer; None if a method has none.
    ink: `(variables, images) -> [B, S, S]`, the line drawings that the graphs explain,
      for `decoding.decode`; None if graphs are to be taken as they are.
    sides: image sides in pixels that `predict` takes, ascending; prediction resizes
      to the first that is not smaller than the image, or to the last.
    only_sides: whether training, too, takes images of these sides alone, since the
      method itself does not bring them to a common one.
    channels: C of the images: 1 for line drawings, ink on paper; 3 for photographs.
    keypoints: whether node k is the same part of the object in every image. Prediction
      then keeps its number, joins no nodes, and drops those that are improbable.
  """

  init: Callable[..., Any]
  loss: Callable[..., Any]
  predict: Callable[..., Any] | None = None
  reconstruct: Callable[..., Any] | None = None
  classify: Callable[..., Any] | None = None
  num_classes: int | None = None
  refine: Callable[..., Any] | None = None
  ink: Callable[..., Any] | None = None
  sides: tuple[int, ...] = (64,)
  only_sides: bool = False
  channels: int = 1
  keypoints: bool = False

  def __post_init__(self):
    """Raises ValueError for sides that no image can have."""
    sides = self.sides
    fine = isinstance(sides, list | tuple) and len(sides) > 0
    fine = fine and all(isinstance(s, numbers.Integral) and s >= 1 for s in sides)
    if not fine or list(sides) != sorted(set(sides)):
      raise ValueError(
        'method.sides must be one or more positive whole numbers, ascending; '
        f'got {sides!r}.'
      )
    object.__setattr__(self, 'sides', tuple(sides))  # Of a file, they are a list.


class Target(NamedTuple):
  """What a loss compares with.

  Attributes:
    image: `[B, S, S, 1]`, what the drawing is compared with.
    clean: `[B]`, 1 where that says how a clean drawing looks, 0 where it is but the
      input again, beside others that are not.
    graph: true `Graph`, or None.
  """

  image: Any
  clean: Any
  graph: Any = None


def target(batch, images, prepare):
  """The `Target` of a batch.

  Args:
    batch: as `Method.loss` takes it.
    images: `[B, S, S, 1]`, its images, prepared.
    prepare: images -> images as the encoder sees them.
  """
  if 'target' not in batch:
    return Target(images, jnp.ones(images.shape[0]), batch.get('graph'))
  # Prepared, equal images may differ by rounding.
  clean = jnp.any(batch['target'] != batch['image'], axis=(1, 2, 3))
  return Target(prepare(batch['target']), clean.astype(jnp.float32), batch.get('graph'))


def build(name, **options):
  """The method of `img2graph/methods/<name>.py`, from that module's `build`.

  Args:
    name: module name, for example 'image_graph_image'.
    **options: the rest of `config.method`, and `train_steps`, `precision`.

  Raises:
    ValueError: there is no method of that name, or an option is wrong.
  """
  unknown = ValueError(f'there is no method named {name!r}.')
  if not isinstance(name, str) or not name.isidentifier() or name == 'base':
    raise unknown
  try:
    module = importlib.import_module(f'img2graph.methods.{name}')
  except ModuleNotFoundError as error:
    if error.name != f'img2graph.methods.{name}':
      raise
    raise unknown from None
  return module.build(**options)
