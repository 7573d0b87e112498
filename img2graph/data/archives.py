"""Graph archives: line drawings with their true graphs in one `.npz` file.

The layout (docs/archives.md tells it at length), for n images:

  images     `[n, H, W]` uint8, 255 = ink, 0 = paper
  nodes      `[n, K, 2]` float (x, y) in [0, 1] of the side; what lies behind
             `num_nodes` is padding (-1)
  num_nodes  `[n]` int
  edges      `[n, E, 2]` int, undirected, indices of the image's nodes; what lies
             behind `num_edges` is padding (-1)
  num_edges  `[n]` int

Any further array of length n is a *field*: a label, who drew it, where it was drawn.
Fields group the images for splitting. A `.json` of the same name beside the file, if
there is one, is read as the archive's description.

In memory, graphs are `(nodes [m, 2] in [-1, 1], edges [e, 2])`, see
`img2graph.geometry`; images stay uint8 until one is asked for, so that ten thousand of
them take as much memory as their pixels.
"""

import dataclasses
import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

from img2graph import files

ARRAYS = ('images', 'nodes', 'num_nodes', 'edges', 'num_edges')


@dataclasses.dataclass(frozen=True)
class Archive:
  """Images of an archive, or some of them, with their true graphs.

  Attributes:
    images: `[n, H, W]` uint8, 255 = ink; None if they were not asked for.
    nodes: `[n, K, 2]` float64 (x, y) in [-1, 1]; padded with 0.
    num_nodes: `[n]` int64.
    edges: `[n, E, 2]` int64 node indices; padded with -1.
    num_edges: `[n]` int64.
    index: `[n]` int64, ascending: the number of each image in the file. Predictions
      are filed under it, so that subsets of one file keep their numbers.
    fields: `{name: [n, ...] array}`, everything else that the file says of an image.
    info: dict, the `.json` beside the file; empty if there is none.
  """

  images: Any
  nodes: Any
  num_nodes: Any
  edges: Any
  num_edges: Any
  index: Any
  fields: dict[str, Any]
  info: dict[str, Any]

  def __len__(self):
    return len(self.index)

  def ink(self, i):
    """Image i of this archive: `[H, W]` float32 in [0, 1], ink 1."""
    if self.images is None:
      raise ValueError('this archive was loaded without its images.')
    return self.images[i].astype(np.float32) / 255

  def graph(self, i):
    """True graph i: `(nodes [m, 2] float64 in [-1, 1], edges [e, 2] int64)`."""
    return self.nodes[i, : self.num_nodes[i]], self.edges[i, : self.num_edges[i]]

  def graphs(self):
    """All true graphs, a list in the order of the archive."""
    return [self.graph(i) for i in range(len(self))]

  def take(self, positions):
    """The archive of the images at these positions (numbers or a mask)."""
    arrays = {name: getattr(self, name) for name in (*ARRAYS, 'index')}
    return Archive(
      **{k: None if v is None else v[positions] for k, v in arrays.items()},
      fields={name: values[positions] for name, values in self.fields.items()},
      info=self.info,
    )


def read_arrays(path, wanted=lambda name: True, *, kind='graph archive'):
  """Arrays of an npz file by name, those for which `wanted(name)`.

  Args:
    path: the file.
    wanted: which arrays to read.
    kind: what the file should be, for messages.

  Raises:
    ValueError: there is no such file, or it is not readable.
  """
  try:
    # Opened here, so that it is closed whatever np.load makes of it.
    with open(path, 'rb') as file:
      archive = np.load(file, allow_pickle=False)
      if isinstance(archive, np.ndarray):
        raise ValueError(f'{path}: not a {kind} but a single array.')
      arrays = {name: archive[name] for name in archive.files if wanted(name)}
  except FileNotFoundError:
    raise ValueError(f'{path}: there is no such {kind}.') from None
  except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f'{path}: not a readable .npz {kind} ({error}).') from None
  except MemoryError:
    raise
  # Damage shows in many ways: in the zip file, its compression, the arrays' headers.
  except Exception as error:
    if isinstance(error, ValueError) and str(error).startswith(str(path)):
      raise
    # numpy's own sentences speak of pickles.
    raise ValueError(f'{path}: not a readable .npz {kind}.') from None
  # A zip file may hold things that are not arrays; np.load gives their bytes.
  return {k: v for k, v in arrays.items() if isinstance(v, np.ndarray)}


def far_outside(places):
  """Which positions in [0, 1] of the sides can be none, such as those in pixels.

  A node may lie a little outside its image, but not by more than its side.

  Args:
    places: `[..., 2]` float (x, y).

  Returns:
    `[...]` bool; False for what is not a number.
  """
  return (np.abs(np.asarray(places, np.float64) - 0.5) > 1.5).any(axis=-1)


def _check_arrays(path, arrays):
  """Checks every array of the layout; the message names the file and the image."""
  for name in ARRAYS:
    if name not in arrays and name != 'images':
      raise ValueError(f'{path}: the array {name!r} is missing.')
  count = arrays['num_nodes'].size
  shapes = {
    'num_nodes': (count,),
    'images': (count, None, None),
    'nodes': (count, None, 2),
    'edges': (count, None, 2),
    'num_edges': (count,),
  }
  for name, shape in shapes.items():
    if name not in arrays:
      continue
    actual = arrays[name].shape
    if len(actual) != len(shape) or any(
      want is not None and want != got for want, got in zip(shape, actual, strict=True)
    ):
      wanted = ', '.join('*' if size is None else str(size) for size in shape)
      raise ValueError(f'{path}: {name} must be [{wanted}]; got {list(actual)}.')
  kinds = {'nodes': 'f', 'num_nodes': 'iu', 'edges': 'iu', 'num_edges': 'iu'}
  for name, kind in kinds.items():
    if arrays[name].dtype.kind not in kind:
      wanted = 'floating-point' if kind == 'f' else 'whole'
      raise ValueError(
        f'{path}: {name} must be {wanted} numbers; got {arrays[name].dtype}.'
      )
  if 'images' in arrays and arrays['images'].dtype != np.uint8:
    raise ValueError(f'{path}: images must be uint8; got {arrays["images"].dtype}.')
  if 'images' in arrays and 0 in arrays['images'].shape[1:]:
    raise ValueError(f'{path}: the images have no pixels.')

  def refuse(wrong, message):
    if wrong.any():
      raise ValueError(f'{path}: image {int(np.argmax(wrong))}: {message}.')

  for things in ('nodes', 'edges'):
    number, room = arrays[f'num_{things}'], arrays[things].shape[1]
    wrong = (number < 0) | (number > room)
    refuse(wrong, f'the number of {things} must be 0 to {room}')
  node = np.arange(arrays['nodes'].shape[1]) < arrays['num_nodes'][:, None]  # [n, K]
  edge = np.arange(arrays['edges'].shape[1]) < arrays['num_edges'][:, None]  # [n, E]
  finite = np.isfinite(arrays['nodes']).all(axis=2)
  refuse((node & ~finite).any(axis=1), 'a node position is not finite')
  far = (node & finite & far_outside(arrays['nodes'])).any(axis=1)
  refuse(far, 'a node lies far outside; x and y must be in [0, 1] of the sides')
  ends = arrays['edges']
  outside = (ends < 0) | (ends >= arrays['num_nodes'][:, None, None])
  refuse((edge & outside.any(axis=2)).any(axis=1), 'an edge index is out of range')
  return count


def _chosen(path, arrays, *, count, limit, spread, max_nodes, min_fit, max_p99, flag):
  """Positions of the images asked for, `[m]` int64 ascending."""
  for name, value in (('limit', limit), ('spread', spread), ('max_nodes', max_nodes)):
    if value is not None and value < 0:
      raise ValueError(f'{name} must not be negative; got {value}.')
  if limit is not None and spread is not None:
    raise ValueError('give limit or spread, not both.')
  positions = np.arange(count)[:limit]
  if spread is not None and spread < count:
    positions = np.arange(spread) * count // spread
  keep = np.ones(count, bool)
  if max_nodes is not None:
    keep &= arrays['num_nodes'] <= max_nodes
  if min_fit is not None or max_p99 is not None:
    fit = arrays.get('fit')
    if fit is None or fit.shape != (count, 3):
      raise ValueError(f"{path}: min_fit and max_p99 need a field 'fit' [{count}, 3].")
    if min_fit is not None:
      keep &= fit[:, :2].min(axis=1) >= min_fit
    if max_p99 is not None:
      keep &= fit[:, 2] < max_p99
  if flag is not None:
    if flag not in arrays or arrays[flag].shape != (count,) or flag in ARRAYS:
      raise ValueError(f'{path}: there is no field {flag!r} with one value per image.')
    values = arrays[flag]
    # A name or a number is no answer: 'False' would be true.
    if values.dtype.kind not in 'biu' or not np.isin(values, (0, 1)).all():
      raise ValueError(
        f'{path}: a flag must be bool, or 0 and 1; the field {flag!r} has '
        f'other values, of {values.dtype}.'
      )
    keep &= values.astype(bool)
  return positions[keep[positions]]


def load(
  path,
  *,
  limit=None,
  spread=None,
  max_nodes=None,
  min_fit=None,
  max_p99=None,
  flag=None,
  images=True,
):
  """Reads a graph archive, or some of its images.

  `limit` or `spread` is applied first, to all images of the file; the other options
  then keep a subset of those.

  Args:
    path: the `.npz` file.
    limit: only the first this many images.
    spread: only this many images, evenly spread: floor(k * size / spread).
    max_nodes: only images with at most this many true nodes.
    min_fit: only images whose first two values of the field `fit` (share of the ink
      near the graph, share of the graph near ink) are both at least this.
    max_p99: only images whose third value of `fit` (99th percentile of the distance
      from ink to graph, pixels) is below this.
    flag: only images where the field of this name, of bool or 0 and 1, is true.
    images: whether to read the images; scoring needs only the graphs.

  Returns:
    An `Archive`; it may be empty.

  Raises:
    ValueError: the file is not an archive of this layout, or an option does not fit
      it; one sentence that names the file, and the image where there is one.
  """
  path = files.expand(path)
  arrays = read_arrays(path, lambda name: images or name != 'images')
  if images and 'images' not in arrays:
    raise ValueError(f"{path}: the array 'images' is missing.")
  count = _check_arrays(path, arrays)
  chosen = _chosen(
    path,
    arrays,
    count=count,
    limit=limit,
    spread=spread,
    max_nodes=max_nodes,
    min_fit=min_fit,
    max_p99=max_p99,
    flag=flag,
  )
  nodes, num_nodes = arrays['nodes'][chosen].astype(np.float64), arrays['num_nodes']
  present = np.arange(nodes.shape[1]) < num_nodes[chosen, None]  # [m, K]
  whole = len(chosen) == count
  return Archive(
    # A second copy of all pixels only where a part is asked for.
    images=None if not images else arrays['images'][... if whole else chosen],
    nodes=np.where(present[..., None], 2 * nodes - 1, 0.0),
    num_nodes=num_nodes[chosen].astype(np.int64),
    edges=arrays['edges'][chosen].astype(np.int64),
    num_edges=arrays['num_edges'][chosen].astype(np.int64),
    index=chosen.astype(np.int64),
    fields={
      name: values[chosen]
      for name, values in arrays.items()
      if name not in ARRAYS and values.shape[:1] == (count,)
    },
    info=read_info(path),
  )


def read_info(path):
  """The description beside an archive, a dict; an empty one if there is none."""
  beside = path.with_suffix('.json')
  if not beside.is_file():
    return {}
  try:
    info = json.loads(beside.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(f'{beside}: not a readable description ({error}).') from None
  if not isinstance(info, dict):
    raise ValueError(f'{beside}: a description must be a JSON object.')
  return info


def write(path, images, graphs, *, fields=None):
  """Writes a graph archive.

  The file appears whole or not at all: it is written beside its place and moved there.

  Args:
    path: the `.npz` file; one that stands there is replaced.
    images: `[n, H, W]`: uint8 with 255 = ink, or float in [0, 1] with ink 1.
    graphs: n true graphs `(nodes [m, 2] in [-1, 1], edges [e, 2])`.
    fields: `{name: [n, ...] array}`, what else there is to say of each image.

  Raises:
    ValueError: numbers or shapes do not fit, a value is out of its range (nodes may lie
      outside by up to the side), an edge is a loop or there twice, or the file cannot
      be written.
  """
  path, fields = files.expand(path), dict(fields or {})
  images, graphs = np.asarray(images), list(graphs)
  if images.dtype.kind == 'f':
    if not ((images >= 0) & (images <= 1)).all():
      raise ValueError('float images must be in [0, 1].')
    images = np.round(images * 255).astype(np.uint8)
  if images.ndim != 3 or images.dtype != np.uint8:
    raise ValueError(
      f'images must be [n, H, W], uint8 or float; got {images.dtype} {images.shape}.'
    )
  count = len(images)
  if len(graphs) != count:
    raise ValueError(f'{count} images but {len(graphs)} graphs.')
  pairs = [_checked_graph(path, i, *graph) for i, graph in enumerate(graphs)]
  num_nodes = np.array([len(n) for n, _ in pairs], np.int32)
  num_edges = np.array([len(e) for _, e in pairs], np.int32)
  nodes = np.full((count, num_nodes.max(initial=0), 2), -1, np.float32)
  edges = np.full((count, num_edges.max(initial=0), 2), -1, np.int32)
  for i, (n, e) in enumerate(pairs):
    nodes[i, : len(n)] = (n + 1) / 2
    edges[i, : len(e)] = np.sort(e, axis=1)
  arrays = dict(
    images=images, nodes=nodes, num_nodes=num_nodes, edges=edges, num_edges=num_edges
  )
  _check_arrays(path, arrays)
  for name, values in fields.items():
    fields[name] = values = np.asarray(values)
    if name in ARRAYS or values.shape[:1] != (count,) or values.dtype == object:
      raise ValueError(
        f'field {name!r} must be an array of {count} values, not one of {ARRAYS}; '
        f'got {values.dtype} {values.shape}.'
      )
  buffer = io.BytesIO()
  # Of np.savez_compressed some names, such as 'file', are arguments and no arrays.
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, values in (arrays | fields).items():
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)
  try:
    files.write_atomically(path, buffer.getvalue())
  except OSError as error:
    raise ValueError(f'{path}: cannot be written ({error.strerror}).') from None


def _checked_graph(path, number, nodes, edges):
  """A graph to write as arrays `[m, 2]` float64 and `[e, 2]` int64, if it is one."""

  def refuse(wrong, message):
    if wrong:
      raise ValueError(f'{path}: image {number}: {message}.')

  nodes, edges = np.asarray(nodes, np.float64), np.asarray(edges)
  for name, values, letter in (('nodes', nodes, 'm'), ('edges', edges, 'e')):
    # Reshaped, `[2, e]` would become other edges, and `[m, 3]` other nodes.
    wrong = values.size and (values.ndim != 2 or values.shape[1] != 2)
    refuse(wrong, f'{name} must be [{letter}, 2]; got {list(values.shape)}')
  nodes, edges = nodes.reshape(-1, 2), edges.reshape(-1, 2)
  refuse(far_outside((nodes + 1) / 2).any(), 'x and y of a node must be in [-1, 1]')
  numbers = edges.dtype.kind in 'iuf' and (edges == np.round(edges)).all()
  refuse(edges.size and not numbers, 'an edge index is not a whole number')
  outside = (edges < 0) | (edges >= len(nodes))
  refuse(outside.any(), 'an edge index is out of range')
  edges = edges.astype(np.int64)
  refuse((edges[:, 0] == edges[:, 1]).any(), 'an edge joins a node to itself')
  unique = np.unique(np.sort(edges, axis=1), axis=0)
  refuse(len(unique) < len(edges), 'an edge is there twice')
  return nodes, edges


def split(archive, key, *, fraction, seed):
  """Splits an archive in two so that no group is in both parts.

  Whole groups are drawn at random until they hold `fraction` of the images, as nearly
  as groups allow; both parts get at least one group.

  Args:
    archive: an `Archive`.
    key: name of a field with one value per image, or `[n]` group labels.
    fraction: share of the images in the second part, in (0, 1).
    seed: int; the same seed gives the same parts.

  Returns:
    `(rest, part)`: two `Archive`s, `part` with about `fraction` of the images.

  Raises:
    ValueError: there is no such field, `fraction` is not in (0, 1), or there are fewer
      than two groups.
  """
  if isinstance(key, str):
    if key not in archive.fields:
      known = ', '.join(archive.fields) or 'none'
      raise ValueError(f'there is no field {key!r} to split by; there are: {known}.')
    name, labels = f'field {key!r}', archive.fields[key]
  else:
    name, labels = 'the key', np.asarray(key)
  if labels.shape != (len(archive),):
    raise ValueError(
      f'{name} must hold one value for each of {len(archive)} images; '
      f'got {list(labels.shape)}.'
    )
  inside = draw_groups(labels, fraction=fraction, seed=seed, name=name)
  return archive.take(~inside), archive.take(inside)


def draw_groups(labels, *, fraction, seed, name='the key'):
  """Which images are in the second part of `split`.

  Args:
    labels: `[n]`, the group of each image.
    fraction: as in `split`, also the next.
    seed: int.
    name: of the labels, for messages.

  Returns:
    `[n]` bool.

  Raises:
    ValueError: as `split`.
  """
  if not 0 < fraction < 1:
    raise ValueError(f'fraction must be between 0 and 1; got {fraction}.')
  if seed < 0:
    raise ValueError(f'the seed of a split must not be negative; got {seed}.')
  groups, member, size = np.unique(labels, return_inverse=True, return_counts=True)
  if len(groups) < 2:
    raise ValueError(f'{name} has {len(groups)} groups; a split needs two.')
  order = np.random.default_rng(seed).permutation(len(groups))
  # The number of groups whose total comes nearest, at least one on either side.
  totals = np.cumsum(size[order])[:-1]
  taken = 1 + np.argmin(np.abs(totals - fraction * len(labels)))
  return np.isin(member, order[:taken])
