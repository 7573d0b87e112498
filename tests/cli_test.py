"""The `img2graph` command."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import types

import numpy as np
import pytest
from PIL import Image

import img2graph
from img2graph import cli
from img2graph import formats
from img2graph import weights
from img2graph.data import archives
from tests import stub

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = (
  'predict',
  'links',
  'render',
  'score',
  'convert',
  'affinity',
  'convert-vgg',
)

DOCUMENT = formats.Document(
  nodes_px=[[10, 20], [110, 20], [110, 70.25]],
  edges=[[0, 1], [1, 2]],
  edge_prob=[1, 0.75],
  file='drawing.png',
  width=120,
  height=80,
)


def command(*arguments, **options):
  """Runs the command as its own process."""
  return subprocess.run(
    [sys.executable, '-m', 'img2graph.cli', *map(str, arguments)],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    **options,
  )


@pytest.fixture
def graph_file(tmp_path):
  """A JSON file of the document above."""
  path = tmp_path / 'graph.json'
  formats.write(DOCUMENT, path)
  return path


def test_the_console_script_is_this_main():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert project['scripts'] == {'img2graph': 'img2graph.cli:main'}
  assert project['version'] == img2graph.__version__


def test_formats_are_those_of_the_library():
  assert cli.FORMATS == tuple(formats.FORMATS)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_every_option_and_gives_examples(name, capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main([name, '--help'])
  assert stop.value.code == 0
  text = capsys.readouterr().out
  assert f'usage: img2graph {name}' in text
  assert 'examples:\n  img2graph ' + name in text
  # Every example in it is one that the parser takes.
  for line in re.findall(r'^  img2graph (.*)$', text, flags=re.M):
    arguments = cli._parser().parse_args(line.replace("'", '').split())
    assert callable(arguments.run)
  # Nothing is without a word of help.
  for option in re.findall(r'^  (-.*|[A-Z]+)$', text, flags=re.M):
    assert option.startswith('-') and len(option) > 22 or option == '-'


def test_version_and_mistakes_in_the_command_line(capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main(['--version'])
  assert stop.value.code == 0
  assert capsys.readouterr().out == f'img2graph {img2graph.__version__}\n'
  predict = ['predict', 'a.png', '--output=x']
  for wrong in (
    [],
    ['draw'],
    ['predict', 'a.png'],
    [*predict, '--format=json,bmp'],
    [*predict, '--format='],
    [*predict, '--threshold=1'],
    [*predict, '--threshold=x'],
    [*predict, '--tolerance=101'],
    [*predict, '--tolerance=-1'],
    [*predict, '--refine=-1'],
    [*predict, '--batch_size=0'],
    [*predict, '--tile=31'],
    [*predict, '--tile=12.5'],
    [*predict, '--tile=whole'],
    [*predict, '--prior', 'round'],
    [*predict, '--polarity=grey'],
    [*predict, '--treshold=0.5'],
    ['render', 'a.json', '--output=a.png', '--side=0'],
    ['render', 'a.json', '--output=a.png', '--side=9', '--width=9'],
    ['render', 'a.json', '--output=a.png', '--line_width=nan'],
    ['score', 'a.json', 'b.npz', '--limit=3', '--spread=3'],
    ['predict', '', '--output=x'],
    ['predict', 'a.png', '--output='],
    [*predict, '--weights='],
    ['score', 'a.json', 'b.npz', '--output='],
    ['convert', 'a.json', ''],
    ['affinity', 'a.png', '--output=x'],
    ['affinity', 'a.png', '--output=x', '--weights=w', '--threshold=nan'],
    ['affinity', 'a.png', '--output=x', '--weights=w', '--neighbours=-1'],
  ):
    with pytest.raises(SystemExit) as stop:
      cli.main(wrong)
    assert stop.value.code == 2, wrong
    assert capsys.readouterr().err.splitlines()[-1].startswith('img2graph'), wrong


def test_paths_of_every_command_may_begin_with_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/elsewhere/me')
  images = ['~/a.png', '--output=~/b', '--weights=~/c']
  for line in (
    ['predict', *images],
    ['links', *images],
    ['affinity', *images],
    ['render', '~/a.json', '--output=~/b.png'],
    ['score', '~/a.json', '~/b.npz', '--output=~/c.json'],
    ['convert', '~/a.json', '~/b.svg'],
    ['convert-vgg', '~/a.pth', '~/b.npz'],
  ):
    values = str(vars(cli._parser().parse_args(line)))
    wanted = sum('~' in word for word in line)
    assert values.count("'/elsewhere/me/") == wanted and '~' not in values, values


def test_predict_tells_how_many_tiles_are_done(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(weights, 'load_method', stub.load_method)
  # On a terminal a line is rewritten, and here as often as there is something to say.
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
  monkeypatch.setattr(cli, 'time', clock)
  ink = np.full((130, 400), 255, np.uint8)
  ink[::20] = 0
  Image.fromarray(ink).save(tmp_path / 'map.png')
  predict = ['predict', str(tmp_path / 'map.png'), f'--output={tmp_path}']
  assert cli.main([*predict, '--tile=64']) == 0
  error = capsys.readouterr().err
  assert re.match(r'\r16/24 tiles, 16.0 tiles/s, 0 s left *\r24/24 tiles', error)
  assert error.count('\n') == 1 and error.endswith('\n')
  assert formats.read(tmp_path / 'map.json').width == 400
  assert cli.main([*predict, '--tile=none']) == 0
  assert not capsys.readouterr().err


def test_convert_goes_around_all_formats(graph_file, tmp_path):
  path = graph_file
  for number, kind in enumerate((*formats.FORMATS, 'json')):
    target = tmp_path / 'new' / f'{number}.{kind}'
    assert cli.main(['convert', str(path), str(target)]) == 0
    path = target
  assert formats.read(path) == DOCUMENT


def test_convert_tells_mistakes(graph_file, tmp_path, capsys):
  for arguments in (
    [tmp_path / 'none.json', tmp_path / 'x.svg'],
    [graph_file, tmp_path / 'x.bmp'],
    [tmp_path / 'x.bmp', tmp_path / 'x.svg'],
    [tmp_path, tmp_path / 'x.svg'],
  ):
    assert cli.main(['convert', *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and error.startswith('img2graph: ')
  assert not (tmp_path / 'x.svg').exists()


def distance(points, start, end):
  """Distances `[...]` from points `[..., 2]` to one segment, float64."""
  along = np.clip(((points - start) @ (end - start)) / ((end - start) ** 2).sum(), 0, 1)
  return np.linalg.norm(points - start - along[..., None] * (end - start), axis=-1)


@pytest.mark.parametrize('scale, options', [(1, []), (2, ['--side=240'])])
def test_render_draws_the_distance_to_the_graph(graph_file, tmp_path, scale, options):
  output = tmp_path / 'pictures' / 'graph.png'
  arguments = ['render', str(graph_file), f'--output={output}', '--line_width=5']
  assert cli.main(arguments + options) == 0
  picture = np.asarray(Image.open(output)).astype(float)
  assert picture.shape == (80 * scale, 120 * scale)
  y, x = np.mgrid[: 80 * scale, : 120 * scale] + 0.5
  points = np.stack([x, y], axis=-1)
  nodes = DOCUMENT.nodes_px * scale
  d = np.minimum(
    distance(points, nodes[0], nodes[1]), distance(points, nodes[1], nodes[2])
  )
  expected = 255 * (1 - np.clip(2.5 + 0.5 - d, 0, 1))
  np.testing.assert_allclose(picture, expected, atol=1.5)


def test_render_in_pieces_is_the_whole(monkeypatch):
  rng = np.random.default_rng(0)
  document = formats.Document(
    nodes_px=rng.uniform(-5, 85, (6, 2)),
    edges=[[0, 1], [2, 3], [4, 5]],
    width=80,
    height=60,
  )
  whole = cli.draw_document(document)
  monkeypatch.setattr(cli, '_TILE', 16)
  assert whole.min() == 0 and whole.max() == 255
  difference = np.abs(whole.astype(int) - cli.draw_document(document))
  assert difference.max() <= 1


@pytest.mark.parametrize('far', [1e7, 1e9, 1e12, 1e25, 1e300])
def test_render_draws_the_part_of_a_far_line_that_is_in_the_picture(monkeypatch, far):
  monkeypatch.setattr(cli, '_TILE', 16)
  # One that ends in the picture, one that crosses it, and a slanted one from afar.
  for ends, near_ends in (
    ([[-far, 5], [9, 5]], [[-99, 5], [9, 5]]),
    ([[7, -far], [7, far]], [[7, -99], [7, 99]]),
    ([[far, far / 2], [3, 4]], [[203, 104], [3, 4]]),
    ([[far, 3], [far, 9]], [[99, 3], [99, 9]]),
  ):
    found, expected = (
      cli.draw_document(formats.Document(nodes, [[0, 1]], width=20, height=12))
      for nodes in (ends, near_ends)
    )
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


def test_render_tells_mistakes(graph_file, tmp_path, capsys):
  graphml = tmp_path / 'plain.graphml'
  formats.write(formats.Document([[1, 2], [3, 4]], [[0, 1]]), graphml)
  picture = f'--output={tmp_path / "x.png"}'
  for arguments, words in (
    ([graph_file, f'--output={tmp_path / "x.jpg"}'], 'must end in .png'),
    ([tmp_path / 'none.json', picture], 'cannot read'),
    ([graphml, picture], 'size of its image'),
    ([graph_file, picture, '--side=100000'], 'too large'),
  ):
    assert cli.main(['render', *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and words in error


@pytest.fixture
def archive_file(tmp_path):
  """An archive of four drawings, 100 x 50; the last two have the same graph."""
  line = ([[-0.5, 0.0], [0.5, 0.0]], [[0, 1]])
  corner = ([[-0.5, 0.0], [0.5, 0.0], [0.5, 0.5]], [[0, 1], [1, 2]])
  path = tmp_path / 'archive.npz'
  archives.write(path, np.zeros((4, 50, 100)), [line, corner, line, line])
  return path


def test_score_of_a_folder_and_of_a_file_agree(archive_file, tmp_path, capsys):
  folder = tmp_path / 'graphs'
  folder.mkdir()
  # By hand: image 0 right, 1 without its second edge, 2 far off, 3 missing.
  nodes = {0: [[25, 25], [75, 25]], 1: [[25, 25], [75, 25]], 2: [[5, 5], [9, 5]]}
  entries = {}
  for index, places in nodes.items():
    document = formats.Document(places, [[0, 1]], width=100, height=50)
    formats.write(document, folder / f'{index:04}.json')
    formats.write(document, folder / f'{index:04}.svg')
    unit = (np.array(places) / [100, 50]).tolist()
    entries[str(index)] = {'nodes': unit, 'edges': [[1, 0]]}
  (folder / '0000_overlay.png').write_bytes(b'not looked at')
  file = tmp_path / 'predictions.json'
  file.write_text(json.dumps(entries))
  scores = []
  for number, predictions in enumerate((folder, file)):
    output = tmp_path / f'{number}.json'
    arguments = ['score', str(predictions), str(archive_file), f'--output={output}']
    assert cli.main([*arguments, '--threshold=0.05']) == 0
    scores.append(json.loads(output.read_text()))
    text = capsys.readouterr().out
    assert 'images 4, without a graph 1' in text
    # 2 of 3 predicted edges are right; there are 5 true ones.
    assert re.search(r'edge \(triplet\) +66\.67 +40\.00 +50\.00\n', text)
    assert re.search(r'exact graphs +25\.00', text)
  assert scores[0] == scores[1]
  assert list(scores[0]['at']) == ['0.05']
  assert cli.main(['score', str(file), str(archive_file), '--limit=1']) == 0
  text = capsys.readouterr().out
  assert text.count('100.00') == 3 * 19 and 'within 8 % of the side' in text


def test_score_mixes_up_no_files(archive_file, tmp_path, capsys):
  right = formats.Document([[25, 25], [75, 25]], [[0, 1]], width=100, height=50)
  wrong = formats.Document([[5, 5], [9, 5]], [[0, 1]], width=100, height=50)
  folder = tmp_path / 'graphs'
  folder.mkdir()
  formats.write(right, folder / '0.json')
  score = ['score', str(folder), str(archive_file)]
  output = tmp_path / 'a' / 'b.json'
  assert cli.main([*score, f'--output={output}']) == 0
  assert 'images 4, without a graph 3' in capsys.readouterr().out
  assert json.loads(output.read_text())['images'] == 4
  # There it would be taken for a prediction the next time.
  assert cli.main([*score, f'--output={folder}/scores.json']) == 2
  assert 'outside the folder of graphs' in capsys.readouterr().err
  formats.write(wrong, folder / '0000.graphml')
  assert cli.main(score) == 2
  assert 'hold different graphs of one image' in capsys.readouterr().err


def test_score_tells_mistakes(archive_file, tmp_path, capsys):
  empty = tmp_path / 'empty'
  empty.mkdir()
  named = tmp_path / 'named'
  named.mkdir()
  formats.write(DOCUMENT, named / 'house.json')
  wrong = tmp_path / 'wrong.json'
  wrong.write_text('[1, 2]')
  for arguments, words in (
    ([empty, archive_file], 'no graph file'),
    ([named, archive_file], 'house.json'),
    ([wrong, archive_file], 'wrong.json'),
    ([tmp_path / 'none.json', archive_file], 'none.json'),
    ([wrong, tmp_path / 'none.npz'], 'none.npz'),
    ([wrong, wrong], 'wrong.json'),
    ([named, archive_file, '--flag=clean'], 'clean'),
  ):
    assert cli.main(['score', *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and words in error, error


def test_no_command_writes_over_what_it_reads(
  archive_file, graph_file, tmp_path, capsys
):
  predictions = tmp_path / 'predictions.json'
  predictions.write_text('{"0": {"nodes": [], "edges": []}}')
  beside = archive_file.with_suffix('.json')
  beside.write_text('{}')
  picture = tmp_path / 'graph.png'
  picture.symlink_to(graph_file)
  image = tmp_path / 'links.png'
  Image.new('L', (8, 8)).save(image)
  run = tmp_path / 'links.npz'
  run.write_bytes(b'weights')
  link = tmp_path / 'link'
  link.symlink_to(tmp_path)
  before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
  score = ['score', predictions, archive_file]
  weights_first = [image, f'--weights={run}', '--format=npz', f'--output={tmp_path}']
  for arguments in (
    [*score, f'--output={archive_file}'],
    [*score, f'--output={link}/archive.npz'],
    [*score, f'--output={predictions}'],
    [*score, f'--output={beside}'],
    ['convert', graph_file, link / 'graph.json'],
    ['convert-vgg', archive_file, archive_file],
    ['render', graph_file, f'--output={picture}'],
    ['predict', *weights_first],
    ['links', *weights_first],
  ):
    assert cli.main([*map(str, arguments)]) == 2, arguments
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'would be written over' in error, error
  assert before == {path: path.read_bytes() for path in before}


def test_names_of_outputs_never_clash(tmp_path):
  paths = [
    tmp_path / name
    for name in (
      'x.png',
      'a/x.png',
      'b/x.png',
      'b/x.jpg',
      'b/y.png',
      'c/b/X.JPG',
      'A_x.png',
    )
  ]
  names = cli._output_names(paths)
  assert list(names) == paths
  assert len({name.lower() for name in names.values()}) == len(paths)
  assert names[tmp_path / 'b/y.png'] == 'y'
  assert names[tmp_path / 'b/x.png'] == 'b_x_png'
  assert names[tmp_path / 'x.png'] == f'{tmp_path.name}_x'


def test_links_into_a_store_keep_their_own_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'store').mkdir()
  for name in 'pq':
    (tmp_path / name).mkdir()
    (tmp_path / name / 'x.png').symlink_to(tmp_path / 'store' / '1f3a')
  Image.new('L', (8, 8)).save(tmp_path / 'store' / '1f3a', 'PNG')
  asked = ['p/x.png', 'q', './p/x.png', 'p/../q/x.png']
  paths = cli._expand(asked, lambda path, error: pytest.fail(str(error)))
  assert [str(path) for path in paths] == ['p/x.png', 'q/x.png']
  assert list(cli._output_names(paths).values()) == ['p_x', 'q_x']
