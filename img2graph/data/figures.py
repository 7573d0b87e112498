"""Stick figures in colour on varied grounds: one object class with known keypoints.

Each has a head, a trunk, two arms and two legs of two bones each, all of whose joints
bend. Its colours differ a little from one figure to the next, those of its left and
right limbs clearly; the ground is of smooth random colours. Limbs may be missing, for
graphs that differ from image to image. Made on the device, without files, for tests and
to see whether keypoints and links are found.
"""

import jax
import jax.numpy as jnp
import numpy as np

from img2graph import geometry
from img2graph import ranges
from img2graph.data import drawing
from img2graph.data import sources
from img2graph.encoding import resampling

JOINTS = (
  'pelvis',
  'neck',
  'head',
  'left_elbow',
  'left_hand',
  'right_elbow',
  'right_hand',
  'left_knee',
  'left_foot',
  'right_knee',
  'right_foot',
)

# Of each bone, parent first: joints, length, mean angle from the bone before it (the
# trunk's from upright), how far it bends either way (radians), half its width, colour.
_BONES = (
  ('pelvis', 'neck', 1.0, 0.0, 0.25, 0.24, (0.20, 0.35, 0.80)),
  ('pelvis', 'left_knee', 0.75, np.pi - 0.35, 0.35, 0.15, (0.75, 0.60, 0.10)),
  ('left_knee', 'left_foot', 0.75, 0.0, 0.45, 0.13, (0.75, 0.60, 0.10)),
  ('pelvis', 'right_knee', 0.75, -np.pi + 0.35, 0.35, 0.15, (0.45, 0.25, 0.10)),
  ('right_knee', 'right_foot', 0.75, 0.0, 0.45, 0.13, (0.45, 0.25, 0.10)),
  ('neck', 'head', 0.35, 0.0, 0.3, 0.27, (0.95, 0.75, 0.60)),
  ('neck', 'left_elbow', 0.6, np.pi - 1.1, 0.8, 0.13, (0.85, 0.15, 0.20)),
  ('left_elbow', 'left_hand', 0.55, 0.0, 0.9, 0.11, (0.85, 0.15, 0.20)),
  ('neck', 'right_elbow', 0.6, -np.pi + 1.1, 0.8, 0.13, (0.15, 0.65, 0.30)),
  ('right_elbow', 'right_hand', 0.55, 0.0, 0.9, 0.11, (0.15, 0.65, 0.30)),
)
# The joints that are gone with a limb.
LIMBS = {
  'left arm': ('left_elbow', 'left_hand'),
  'right arm': ('right_elbow', 'right_hand'),
  'left leg': ('left_knee', 'left_foot'),
  'right leg': ('right_knee', 'right_foot'),
}
BONES = tuple((JOINTS.index(b[0]), JOINTS.index(b[1])) for b in _BONES)

# The limits of a figure, share of the side, that its joints keep from the border.
_MARGIN = 0.08
# Patches along a side of the ground.
_PATCHES = 4


def sample(
  key,
  batch_size,
  *,
  side=64,
  scale=(0.7, 0.84),
  bend=1.0,
  shade=0.08,
  ground=0.15,
  noise=0.02,
  missing=0.0,
):
  """Draws figures.

  Args:
    key: of the randomness.
    batch_size: how many, B.
    side: of the images in pixels, a multiple of 4, S.
    scale: longer side of a figure's box, share of the side; a number or (low, high).
    bend: how far joints bend, as a multiple of what is usual.
    shade: how much colours of figures vary, standard deviation.
    ground: how much those of the ground vary, likewise.
    noise: standard deviation of the noise of pixels.
    missing: probability that a limb is not there, of each on its own, in [0, 1].

  Returns:
    {'image': `[B, S, S, 3]` float32 in [0, 1], 'points': `[B, 11, 2]` float32, (x, y)
    in [-1, 1] of the `JOINTS`, those of a missing limb where they would be, 'visible':
    `[B, 11]`, 1 or, of a missing limb, 0, 'scale': `[B]`, 2: distances count in shares
    of the side}.

  Raises:
    ValueError: an option is out of range.
  """
  if side < 8 or side % _PATCHES:
    raise ValueError(f'data.side must be a multiple of {_PATCHES} from 8; got {side}.')
  most = 1 - 2 * _MARGIN
  scale = ranges.as_range('data.scale', scale, lowest=0.05, highest=most)
  for name, value in (
    ('bend', bend),
    ('shade', shade),
    ('ground', ground),
    ('noise', noise),
  ):
    ranges.as_number(f'data.{name}', value, lowest=0)
  ranges.as_number('data.missing', missing, lowest=0, highest=1)

  def one(key):
    keys = jax.random.split(key, 6)
    points, size = _pose(*keys[:3], scale, bend)
    there = _there(jax.random.fold_in(key, 6), missing)
    image = _ground(keys[3], side, ground)
    image = _paint(keys[4], image, points, there, size, shade)
    return {
      'image': drawing.add_noise(keys[5], image.ravel(), noise).reshape(image.shape),
      'points': points,
      'visible': there,
      'scale': jnp.float32(2),
    }

  return jax.vmap(one)(jax.random.split(key, batch_size))


def source(**options):
  """A `DeviceSource` of `sample`."""
  return sources.from_sampler(sample, **options)


def _pose(pose_key, scale_key, place_key, scale, bend):
  """Joints `[11, 2]`, and what a bone of length 1 measures, in [-1, 1] units."""
  bends = jax.random.uniform(pose_key, (len(_BONES),), minval=-bend, maxval=bend)
  points, angles = {'pelvis': jnp.zeros(2)}, {'pelvis': 0.0}
  for i, (start, end, length, mean, most, _, _) in enumerate(_BONES):
    # From upright, to the left.
    angle = angles[start] + mean + most * bends[i]
    step = jnp.stack([-jnp.sin(angle), -jnp.cos(angle)])
    points[end] = points[start] + length * step
    angles[end] = angle
  points = jnp.stack([points[name] for name in JOINTS])
  low, high = points.min(0), points.max(0)
  size = 2 * drawing.pick(jax.random.uniform(scale_key), scale) / (high - low).max()
  room = 2 * (1 - 2 * _MARGIN) - size * (high - low)
  corner = -1 + 2 * _MARGIN + jax.random.uniform(place_key, (2,)) * room
  return (points - low[None]) * size + corner[None], size


def _there(key, missing):
  """Whether joints are there, `[11]` float32, 0 for those of missing limbs."""
  there = jnp.ones(len(JOINTS))
  gone = jax.random.bernoulli(key, missing, (len(LIMBS),))
  for i, names in enumerate(LIMBS.values()):
    joints = np.array([JOINTS.index(name) for name in names])
    there = there.at[joints].set(1.0 - gone[i])
  return there


def _ground(key, side, amount):
  """`[S, S, 3]` smooth random colours."""
  # Drawn flat, which compiles much faster on processors.
  colours = 0.5 + amount * jax.random.normal(key, (_PATCHES**2 * 3,))
  colours = colours.reshape(1, _PATCHES, _PATCHES, 3)
  return jnp.clip(resampling.resize(colours, side)[0], 0, 1)


def _paint(key, image, points, there, size, shade):
  """The image with the bones on it, one over the other."""
  side = image.shape[0]
  centres = geometry.pixel_centres(side, side)
  starts, ends = np.array(BONES).T
  colours = np.array([bone[6] for bone in _BONES], np.float32)
  # Both bones of a limb are of one colour.
  limb = np.array([colours.tolist().index(c) for c in colours.tolist()])
  colours = jnp.clip(
    colours + shade * jax.random.normal(key, colours.shape)[limb], 0, 1
  )
  half_widths = size * np.array([bone[5] for bone in _BONES], np.float32)
  # Far from every pixel where the limb is missing.
  half_widths = jnp.where(there[ends] > 0, half_widths, -side)

  # A loop on the device: unrolled it takes ten times as long to compile.
  def paint(image, bone):
    start, end, colour, half_width = bone
    ends = (jnp.broadcast_to(point, centres.shape) for point in (start, end))
    distance = jnp.sqrt(geometry.segment_distance_sq(centres, *ends) + 1e-12)
    covered = jnp.clip((half_width - distance) * side / 2 + 0.5, 0, 1)[..., None]
    return image + covered * (colour[None, None] - image), None

  bones = (points[starts], points[ends], colours, half_widths)
  return jax.lax.scan(paint, image, bones)[0]
