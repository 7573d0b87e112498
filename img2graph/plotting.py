"""Pictures of graphs: panels of a batch, and one graph over its image.

Positions are (x, y) in [-1, 1] as everywhere, or pixels in a `formats.Document`.
Graphs are drawn several times too large and then reduced, which smooths their lines.
Made with pillow and numpy alone.
"""

import io
import math

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
import PIL.PngImagePlugin

from img2graph import files
from img2graph import geometry
from img2graph import graph as graph_lib
from img2graph.data import images as image_files

_PAPER, _BORDER, _TEXT = (255, 255, 255), (200, 200, 200), (60, 60, 60)
_EDGE, _NODE = (31, 119, 180), (214, 39, 40)
_TRUE_EDGE, _TRUE_NODE = (44, 140, 60), (20, 90, 40)
# On dark images the same two colours, lighter.
_LIGHT_EDGE, _LIGHT_NODE = (90, 190, 255), (255, 110, 90)
_HEAT = (8, 48, 107)

_MARGIN, _GAP, _TITLE = 10, 8, 22  # Pixels of a panel.
_CELL_SIDES = (160, 256)  # Limits of a cell's longer side, unless a scale is given.
_OVERLAY_SIDES = (512, 4096)  # Limits of an overlay's longer side, in pixels.
_FAINT = 0.02  # What is less probable than this is not drawn.


def panel(
  images,
  drawings,
  graphs,
  *,
  refined=None,
  masked=None,
  reconstruction=None,
  true_graphs=None,
  rows=8,
  scale=None,
  columns=None,
):
  """A table of pictures: one row per image, from the image to its graph.

  The columns are the input image, its (coarse) drawing, the refined drawing, the masked
  input and its reconstruction if given, the graph over the faint input, the true graph
  if given, and the adjacency matrix.
  Nodes are numbered by their slots; opacity is probability: of an edge, its own times
  those of its nodes. Images of one channel are shown as ink on paper, others as they
  are.

  Args:
    images: `[B, H, W, C]` float in [0, 1], numpy or jax, C 1 or 3.
    drawings: `[B, h, w, C]` float in [0, 1].
    graphs: a `Graph` of `[B, N, ...]` arrays.
    refined: `[B, h, w, C]` float in [0, 1], or None.
    masked: likewise.
    reconstruction: likewise.
    true_graphs: a `Graph` of `[B, M, ...]` arrays, or None.
    rows: number of images to show at most, from the first.
    scale: picture pixels per image pixel, > 0; None for cells of 160 to 256
      pixels, where a whole number allows.
    columns: titles of the columns to show; None for all.

  Returns:
    A PIL image, RGB.

  Raises:
    ValueError: there is no image, shapes do not fit, or there is no such column.
  """
  stacks = {
    'input': images,
    'drawing': drawings,
    'refined': refined,
    'masked': masked,
    'reconstruction': reconstruction,
  }
  stacks = {t: np.asarray(stack) for t, stack in stacks.items() if stack is not None}
  for title, stack in stacks.items():
    if stack.ndim != 4 or stack.shape[-1] not in (1, 3):
      raise ValueError(f'{title} images must be [B, H, W, 1 or 3]; got {stack.shape}.')
  batch = len(stacks['input'])
  if batch < 1 or rows < 1:
    raise ValueError(f'a panel needs an image; got {batch} images and {rows} rows.')
  drawn = {'graph': (graphs, _EDGE, _NODE)}
  if true_graphs is not None:
    drawn['true graph'] = (true_graphs, _TRUE_EDGE, _TRUE_NODE)
  sizes = {title: stack.shape[:1] for title, stack in stacks.items()}
  for title, (graph, *_) in drawn.items():
    sizes[title] = graph_lib.check(graph).nodes.shape[:-2]
  for title, size in sizes.items():
    if size != (batch,):
      raise ValueError(f'{batch} images need as many of {title}; got {size}.')

  height, width = stacks['input'].shape[1:3]
  if scale is None:
    scale = _fit(max(height, width), *_CELL_SIDES)
  if not scale > 0:
    raise ValueError(f'scale must be above 0; got {scale}.')
  cell = (max(1, round(width * scale)), max(1, round(height * scale)))
  table = []
  for i in range(min(rows, batch)):
    pictures = {t: _resize(_to_picture(s[i]), cell) for t, s in stacks.items()}
    # Photographs fill their pictures: much fainter, and nothing is seen of them.
    share = 0.2 if images.shape[-1] == 1 else 0.5
    paper = PIL.Image.new('RGB', cell, _PAPER)
    faint = PIL.Image.blend(paper, pictures['input'], share)
    for title, (graph, *colours) in drawn.items():
      node, edge = _probabilities(graph, i)
      edges = np.argwhere(np.triu(edge, 1))
      pictures[title] = _draw_graph(
        faint,
        geometry.to_pixels(np.asarray(graph.nodes[i], float), cell[1], cell[0]),
        node,
        edges,
        edge[edges[:, 0], edges[:, 1]],
        colours=colours,
        line=max(cell) / 70,
        radius=max(max(cell) / 28, 5.5),
        numbered=True,
      )
    pictures['adjacency'] = _heat_map(_probabilities(graphs, i)[1], cell[1])
    missing = sorted(set(columns or ()) - pictures.keys())
    if missing:
      raise ValueError(
        f'a panel has the columns {", ".join(pictures)}; got {missing[0]!r}.'
      )
    table.append({title: pictures[title] for title in columns or pictures})
  return _tabulate(table)


def overlay(image, document, *, line=0.005, radius=0.01, colours=None):
  """A graph over its dimmed image.

  Args:
    image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]` uint8, or a PIL image: the original or a
      smaller copy of it, which the pixels of the document are fitted to.
    document: a `formats.Document`; if it does not know the size of its image, it is
      that of `image`.
    line: width of the edges, as a share of the longer side.
    radius: of the nodes, likewise.
    colours: `[n, 3]` uint8, RGB of each node; None for one that suits the image.

  Returns:
    A PIL image, RGB, of the same aspect. Its longer side is a multiple of the image's
    of at least 512 pixels if the image is small, and at most 4096 pixels.
  """
  picture = from_uint8(image)
  size_px = document.width or picture.width, document.height or picture.height
  factor = _fit(max(picture.size), *_OVERLAY_SIDES)
  size = tuple(max(1, round(side * factor)) for side in picture.size)
  picture = _resize(picture, size)
  # Dimmed towards its own background, so that ink stays ink.
  bright = np.asarray(picture.convert('L')).mean() >= 128
  background = _PAPER if bright else (0, 0, 0)
  dimmed = PIL.Image.blend(picture, PIL.Image.new('RGB', size, background), 0.55)
  edge_colour, node_colour = (_EDGE, _NODE) if bright else (_LIGHT_EDGE, _LIGHT_NODE)
  return _draw_graph(
    dimmed,
    document.nodes_px * (np.array([size]) / np.array([size_px])),
    # What a file holds was found to be there: faint things stay visible.
    0.3 + 0.7 * document.node_prob,
    document.edges,
    np.where(document.edge_prob > 0, 0.3 + 0.7 * document.edge_prob, 0),
    colours=(edge_colour, node_colour if colours is None else colours),
    line=line * max(size),
    radius=radius * max(size),
  )


def beside(pictures):
  """Pictures side by side, each with a title above it.

  Args:
    pictures: `{title: PIL image}`, at least one.

  Returns:
    A PIL image, RGB.
  """
  font = PIL.ImageFont.load_default(size=18)
  fields = [
    max(picture.width, math.ceil(font.getlength(title)) + 2 * _MARGIN)
    for title, picture in pictures.items()
  ]
  height = max(picture.height for picture in pictures.values())
  top = 2 * _TITLE
  canvas = PIL.Image.new('RGB', (sum(fields), top + height), _PAPER)
  draw = PIL.ImageDraw.Draw(canvas)
  x = 0
  for (title, picture), field in zip(pictures.items(), fields, strict=True):
    draw.text((x + field / 2, top / 2), title, fill=_TEXT, font=font, anchor='mm')
    line = (x + _MARGIN, top - 4, x + field - _MARGIN, top - 4)
    draw.line(line, fill=_BORDER, width=2)
    canvas.paste(picture, (x + (field - picture.width) // 2, top))
    x += field
  return canvas


def strip(pictures, *, height=256, columns=8):
  """Pictures in rows, one after another, such as the frames of a video.

  Args:
    pictures: list of PIL images, at least one.
    height: of each in the strip, pixels.
    columns: at most this many in a row.

  Returns:
    A PIL image, RGB.
  """
  widths = [max(1, round(p.width * height / p.height)) for p in pictures]
  small = [p.resize((w, height)) for w, p in zip(widths, pictures, strict=True)]
  rows = [small[i : i + columns] for i in range(0, len(small), columns)]
  step = max(p.width for p in small) + _GAP
  size = (step * len(rows[0]) + _GAP, (height + _GAP) * len(rows) + _GAP)
  canvas = PIL.Image.new('RGB', size, _PAPER)
  for row, line in enumerate(rows):
    for column, picture in enumerate(line):
      canvas.paste(picture, (_GAP + step * column, _GAP + (height + _GAP) * row))
  return canvas


def save_gif(path, pictures, *, milliseconds=100):
  """Writes pictures as an endless GIF, whole or not at all.

  Args:
    path: the file.
    pictures: list of PIL images, at least one; the smaller ones get a margin.
    milliseconds: that each is shown for.

  Raises:
    OSError: it cannot be written; what was there before is untouched.
  """
  buffer = io.BytesIO()
  size = tuple(max(sides) for sides in zip(*(p.size for p in pictures), strict=True))
  first, *others = [PIL.ImageOps.pad(p, size, color=_PAPER) for p in pictures]
  first.save(
    buffer,
    'GIF',
    save_all=True,
    append_images=others,
    duration=milliseconds,
    loop=0,
    comment=image_files.MARK.encode(),
  )
  files.write_atomically(path, buffer.getvalue())


def text_table(rows, *, title=''):
  """A table of texts as a picture.

  Args:
    rows: list of equally long lists of texts, the head first.
    title: above the table.

  Returns:
    A PIL image, RGB.

  Raises:
    ValueError: there is no row, or their lengths differ.
  """
  if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
    raise ValueError('a table needs rows of one length, at least one of them.')
  font, title_font = (PIL.ImageFont.load_default(size=n) for n in (22, 26))
  pad, line = 14, 38
  fields = [
    max(font.getlength(t) for t in column) + 2 * pad
    for column in zip(*rows, strict=True)
  ]
  top = 2 * _MARGIN + (line if title else 0)
  width = max(sum(fields), title_font.getlength(title) + 2 * pad) + 2 * _MARGIN
  size = math.ceil(width), top + line * len(rows) + _MARGIN
  canvas = PIL.Image.new('RGB', size, _PAPER)
  draw = PIL.ImageDraw.Draw(canvas)
  place = (_MARGIN + pad, _MARGIN + line / 2)
  draw.text(place, title, fill=_TEXT, font=title_font, anchor='lm')
  right = size[0] - _MARGIN
  for i, row in enumerate(rows):
    y, x = top + line * i, _MARGIN
    if i % 2:
      draw.rectangle((x, y, right, y + line), fill=(245, 247, 250))
    for text, field in zip(row, fields, strict=True):
      draw.text((x + pad, y + line / 2), text, fill=_TEXT, font=font, anchor='lm')
      x += field
  for y in (top, top + line, top + line * len(rows)):
    draw.line((_MARGIN, y, right, y), fill=_TEXT, width=2)
  return canvas


def save_png(path, picture):
  """Writes a PNG file, whole or not at all.

  Args:
    path: the file.
    picture: a PIL image, or a uint8 array `[H, W]`, `[H, W, 1]` or `[H, W, 3]`.

  Raises:
    OSError: it cannot be written; what was there before is untouched.
  """
  buffer = io.BytesIO()
  if not isinstance(picture, PIL.Image.Image):
    picture = from_uint8(picture)
  mark = PIL.PngImagePlugin.PngInfo()
  mark.add_text('Software', image_files.MARK)
  picture.save(buffer, 'PNG', pnginfo=mark)
  files.write_atomically(path, buffer.getvalue())


def from_uint8(image):
  """A picture as RGB.

  Args:
    image: a uint8 array `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, or a PIL image.

  Returns:
    A PIL image, RGB.

  Raises:
    ValueError: an array is of another type or shape, or has no pixels.
  """
  if isinstance(image, PIL.Image.Image):
    return image.convert('RGB')
  image = np.asarray(image)
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  shape_fits = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)
  if image.dtype != np.uint8 or not shape_fits or not image.size:
    raise ValueError(
      f'an image must be uint8 [H, W] or [H, W, 3]; got {image.dtype} {image.shape}.'
    )
  return PIL.Image.fromarray(image).convert('RGB')


def _to_picture(image):
  """`[H, W, C]` in [0, 1] to RGB; one channel is ink (1) on paper (0)."""
  image = np.nan_to_num(image.astype(np.float32), posinf=1, neginf=0).clip(0, 1)
  image = np.repeat(1 - image, 3, axis=-1) if image.shape[-1] == 1 else image
  return PIL.Image.fromarray(np.round(255 * image).astype(np.uint8))


def _fit(longest, low, high):
  """A whole factor that makes a side at least `low`, or one that makes it `high`."""
  return math.ceil(low / longest) if longest < low else min(1, high / longest)


def _resize(picture, size):
  """Enlarged pixels stay squares; reduced ones are averaged."""
  if picture.size == size:
    return picture
  larger = size[0] >= picture.width and size[1] >= picture.height
  method = PIL.Image.Resampling.NEAREST if larger else PIL.Image.Resampling.BOX
  return picture.resize(size, method)


def _probabilities(graph, i):
  """Of graph i of a batch: `[N]` of the nodes, `[N, N]` of edges and both nodes."""
  node = np.nan_to_num(np.asarray(graph.node_prob[i], float)).clip(0, 1)
  edge = np.nan_to_num(np.asarray(graph.edge_prob[i], float)).clip(0, 1)
  return node, edge * node[:, None] * node[None, :]


def _draw_graph(
  background,
  nodes_px,
  node_prob,
  edges,
  edge_prob,
  *,
  colours,
  line,
  radius,
  numbered=False,
):
  """The background with a graph on it; opacity is probability.

  Args:
    background: a PIL image, RGB; stays as it is.
    nodes_px: `[N, 2]`, (x, y) in pixels of the background.
    node_prob: `[N]` in [0, 1].
    edges: `[E, 2]` int, indices of nodes.
    edge_prob: `[E]` in [0, 1].
    colours: RGB of the edges, and of the nodes, or of each node.
    line: width of the edges in pixels.
    radius: radius of the nodes in pixels.
    numbered: whether the nodes carry their indices.
  """
  longest = max(background.size)
  fine = 4 if longest <= 1024 else 2 if longest <= 2048 else 1
  size = (background.width * fine, background.height * fine)
  canvas = background.resize(size, PIL.Image.Resampling.NEAREST)
  draw = PIL.ImageDraw.Draw(canvas, 'RGBA')
  edge_colour, node_colours = (
    colours[0],
    np.broadcast_to(colours[1], (len(nodes_px), 3)),
  )
  # Beyond a picture's width outside of it, pillow's coordinates may overflow.
  limit = 2.0 * max(size)
  known = np.isfinite(nodes_px).all(axis=1)
  places = np.where(known[:, None], nodes_px, 0) * fine
  clipped = places.clip(-limit, limit)
  width = max(1, round(line * fine))
  for (i, j), prob in zip(edges.tolist(), edge_prob.tolist(), strict=True):
    if prob > _FAINT and known[i] and known[j]:
      ends = (*clipped[i].tolist(), *clipped[j].tolist())
      draw.line(ends, fill=(*edge_colour, round(255 * prob)), width=width)
  radius = radius * fine
  rim = max(1.0, radius / 6)
  font = PIL.ImageFont.load_default(size=1.3 * radius) if numbered else None
  # The most probable nodes last, on top.
  for i in np.argsort(node_prob, kind='stable'):
    if node_prob[i] <= _FAINT or not known[i]:
      continue
    alpha = round(255 * node_prob[i])
    place = clipped[i].tolist()
    draw.circle(place, radius + rim, fill=(255, 255, 255, alpha))
    draw.circle(place, radius, fill=(*node_colours[i].tolist(), alpha))
    if numbered:
      fill = (255, 255, 255, alpha)
      draw.text(place, str(i), fill=fill, font=font, anchor='mm')
  return canvas.resize(background.size, PIL.Image.Resampling.BOX)


def _heat_map(matrix, side):
  """A matrix in [0, 1] as a square of coloured fields with numbered rows, columns."""
  n = len(matrix)
  canvas = PIL.Image.new('RGB', (side, side), _PAPER)
  draw = PIL.ImageDraw.Draw(canvas)
  if not n:
    return canvas
  # Numbers need about 9 pixels a row; where there are less, they are left out.
  label = 14 if (side - 14) / n >= 9 else 0
  edges = np.round(np.linspace(label, side - 1, n + 1)).astype(int).tolist()
  font = PIL.ImageFont.load_default(size=9)
  for i in range(n):
    middle = (edges[i] + edges[i + 1]) / 2
    if label:
      draw.text((middle, label / 2), str(i), fill=_TEXT, font=font, anchor='mm')
      draw.text((label / 2, middle), str(i), fill=_TEXT, font=font, anchor='mm')
    for j in range(n):
      blend = np.array(_PAPER) * (1 - matrix[i, j]) + np.array(_HEAT) * matrix[i, j]
      box = (edges[j], edges[i], edges[j + 1], edges[i + 1])
      # With many nodes, lines between the fields would hide them.
      outline = (225, 225, 225) if label else None
      draw.rectangle(box, fill=tuple(np.round(blend).astype(int)), outline=outline)
  return canvas


def _tabulate(table):
  """Rows of `{title: picture}` as one picture, with the titles on top."""
  font = PIL.ImageFont.load_default(size=13)
  titles = list(table[0])
  widths = [table[0][title].width for title in titles]
  # A narrow picture still leaves room for its title.
  fields = [
    max(w, math.ceil(font.getlength(t))) for w, t in zip(widths, titles, strict=True)
  ]
  height = max(picture.height for picture in table[0].values())
  canvas = PIL.Image.new(
    'RGB',
    (
      2 * _MARGIN + sum(fields) + _GAP * (len(fields) - 1),
      2 * _MARGIN + _TITLE + len(table) * (height + _GAP) - _GAP,
    ),
    _PAPER,
  )
  draw = PIL.ImageDraw.Draw(canvas)
  x = _MARGIN
  for title, field in zip(titles, fields, strict=True):
    place = (x + field / 2, _MARGIN + _TITLE / 2 - 4)
    draw.text(place, title, fill=_TEXT, font=font, anchor='mm')
    for i, pictures in enumerate(table):
      picture = pictures[title]
      left = x + (field - picture.width) // 2
      top = _MARGIN + _TITLE + i * (height + _GAP)
      frame = (left - 1, top - 1, left + picture.width, top + picture.height)
      draw.rectangle(frame, outline=_BORDER)
      canvas.paste(picture, (left, top))
    x += field + _GAP
  return canvas
