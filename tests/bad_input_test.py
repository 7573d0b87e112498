"""Bad files, folders, weights and disks: one clear sentence each, and nothing lost."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from img2graph import cli
from img2graph import files
from img2graph import formats
from img2graph import predict
from img2graph import weights
from img2graph.data import images
from tests import stub

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def stub_weights(monkeypatch):
  """Weights are those of the stub, whatever file is named."""
  monkeypatch.setattr(weights, 'load_method', stub.load_method)


@pytest.fixture
def run(tmp_path, capsys):
  """`run(*images, **options)` predicts in this process: (status, error lines)."""

  def run(*images, **options):
    options = {'output': tmp_path / 'out', **options}
    arguments = [f'--{name}={value}' for name, value in options.items()]
    status = cli.main(['predict', *map(str, images), *arguments])
    return status, capsys.readouterr().err.splitlines()

  run.output = tmp_path / 'out'
  return run


def draw(path, *, height=64, width=64, first=(10, 20), last=(40, 50)):
  """Writes black dots on white; `path` if it worked."""
  pixels = np.full((height, width), 255, np.uint8)
  for x, y in (first, last):
    pixels[y, x] = 0
  Image.fromarray(pixels).save(path)
  return path


def written(folder):
  """Names of all files in a folder; every JSON must be whole."""
  for path in folder.glob('*.json'):
    formats.read(path)
  return sorted(path.name for path in folder.iterdir())


def bad_files(folder):
  """{name: what a sentence about it should say} of files that are no images."""
  good = draw(folder / 'good.png').read_bytes()
  for name, data in {
    'empty.png': b'',
    'truncated.png': good[: len(good) // 2],
    'head.png': good[:20],
    'pdf.png': b'%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n',
    'text.jpg': b'this is no picture',
  }.items():
    (folder / name).write_bytes(data)
  nan = np.full((20, 30), 1, np.float32)
  nan[3, 4] = np.nan
  Image.fromarray(nan, 'F').save(folder / 'nan.tiff')
  return ['empty.png', 'truncated.png', 'head.png', 'pdf.png', 'text.jpg', 'nan.tiff']


def test_bad_files_are_told_and_good_ones_done(stub_weights, run, tmp_path):
  names = bad_files(tmp_path)
  images = [tmp_path / name for name in names] + [tmp_path / 'absent.png']
  images.insert(3, tmp_path / 'good.png')
  status, lines = run(*images)
  assert status == 2
  *problems, summary = lines
  assert len(problems) == 7
  for name in (*names, 'absent.png'):
    (line,) = (line for line in problems if str(tmp_path / name) in line)
    assert line.startswith('img2graph: ') and line.endswith('.')
  assert summary == f'1 graph in {run.output}; 7 bad images.'
  assert written(run.output) == ['good.json', 'good_overlay.png']


def test_pages_that_are_not_read_are_told(stub_weights, run, tmp_path):
  pages = [Image.new('L', (20, 30), 255) for _ in range(3)]
  pages[0].putpixel((3, 4), 0)
  paths = [tmp_path / name for name in ('a.tif', 'b.gif', 'c.png')]
  for path in paths:
    pages[0].save(path, save_all=True, append_images=pages[1:2] + [pages[0]])
  # Not a page, but another view of the same photograph.
  pages[0].save(tmp_path / 'd.jpg', 'MPO', save_all=True, append_images=pages[1:])
  status, lines = run(tmp_path)
  assert status == 0
  assert lines[:-1] == [
    f'img2graph: {path} has 3 pages; the first is read.' for path in paths
  ]
  assert lines[-1] == f'4 graphs in {run.output}.'


def test_only_bad_files_write_nothing(stub_weights, run, tmp_path):
  (tmp_path / 'empty.png').touch()
  status, lines = run(tmp_path / 'empty.png')
  assert status == 2 and len(lines) == 1
  status, lines = run(tmp_path / 'absent.png')
  assert status == 2 and lines == [
    f'img2graph: there is no file {tmp_path}/absent.png.'
  ]
  assert not run.output.exists() or not written(run.output)


def test_a_folder_named_like_an_image(stub_weights, run, tmp_path):
  (tmp_path / 'folder.png').mkdir()
  status, lines = run(tmp_path / 'folder.png', draw(tmp_path / 'good.png'))
  assert status == 2
  assert 'folder.png' in lines[0] and 'no images' in lines[0]
  assert 'good.json' in written(run.output)


def test_empty_and_unreadable_folders(stub_weights, run, tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  status, (line,) = run(tmp_path / 'empty')
  assert status == 2 and 'no images' in line and 'empty' in line

  (tmp_path / 'closed').mkdir()

  def refuse(path='.', *_):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

  # Root may read everything, so permissions are simulated.
  monkeypatch.setattr(os, 'scandir', refuse)
  monkeypatch.setattr(os, 'listdir', refuse)
  status, (line,) = run(tmp_path / 'closed')
  assert status == 2 and 'closed' in line and 'ermission denied' in line


def test_an_unreadable_file(stub_weights, run, tmp_path, monkeypatch):
  closed, good = draw(tmp_path / 'closed.png'), draw(tmp_path / 'good.png')
  open_path = pathlib.Path.open

  def refuse(path, *args, **kwargs):
    if path == closed:
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return open_path(path, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  status, lines = run(closed, good)
  assert status == 2
  assert 'closed.png' in lines[0] and 'ermission denied' in lines[0]
  assert 'good.json' in written(run.output)


def test_patterns_and_folders_give_each_image_once(stub_weights, run, tmp_path):
  folder = tmp_path / 'scans'
  folder.mkdir()
  for name in ('a.png', 'b.png', 'c.jpg'):
    draw(folder / name)
  (folder / 'notes.txt').write_text('not an image, and not asked for')
  status, lines = run(folder, folder / '*.png', folder / 'a.png')
  assert status == 0 and lines == [f'3 graphs in {run.output}.']
  expected = [f'{s}{e}' for s in 'abc' for e in ('.json', '_overlay.png')]
  assert written(run.output) == sorted(expected)
  status, (line,) = run(folder / '*.gif')
  assert status == 2 and '*.gif' in line


def test_patterns_in_quotes_are_as_without(stub_weights, run, tmp_path):
  scans = tmp_path / 'scans'
  for name in ('a.png', 'p/b.png', 'p/q/c.png', 'r/d.png'):
    (scans / name).parent.mkdir(parents=True, exist_ok=True)
    draw(scans / name)
  (scans / 'empty').mkdir()
  for asked in ([scans / '*'], sorted(scans.glob('*'))):
    status, (line, summary) = run(*asked)
    assert status == 2 and f'{scans}/empty has no images' in line
    assert summary == f'4 graphs in {run.output}; 1 bad image.'
  status, lines = run(scans / '**')
  assert status == 0 and lines == [f'4 graphs in {run.output}.']


def test_overlays_of_an_earlier_run_are_no_input(stub_weights, run, tmp_path):
  draw(tmp_path / 'a.png')
  for _ in range(2):
    assert run(tmp_path, output=tmp_path)[0] == 0
    assert written(tmp_path) == ['a.json', 'a.png', 'a_overlay.png']
  # Named by itself it is an image like any other, but not one to write over.
  status, (line,) = run(tmp_path / 'a.png', tmp_path / 'a_overlay.png', output=tmp_path)
  assert status == 2 and 'written over' in line


def test_overlays_are_no_input_whatever_they_are_called(stub_weights, run, tmp_path):
  for name in 'pq':
    (tmp_path / name).mkdir()
    draw(tmp_path / name / 'x.png')
  # The user's own, of a name like ours.
  draw(tmp_path / 'q' / 'x_overlay.png')
  for _ in range(2):
    status, lines = run(tmp_path, output=tmp_path / 'graphs')
    assert status == 0 and lines == [f'3 graphs in {tmp_path / "graphs"}.']
  assert len(images.find(tmp_path)) == 3  # Training sees the same.
  status, (line,) = run(tmp_path / 'graphs')
  assert status == 2 and 'no images but pictures of ours' in line


def test_a_name_that_is_too_long_stops_no_other(stub_weights, run, tmp_path):
  long = 82 * '\N{CJK UNIFIED IDEOGRAPH-56FE}'
  for name in ('a', long, 'z'):
    draw(tmp_path / f'{name}.png')
  status, lines = run(tmp_path)
  assert status == 2 and 'File name too long' in lines[0] and len(lines) == 2
  assert {'a.json', 'a_overlay.png', 'z.json'} <= set(written(run.output))


def test_one_stem_in_two_folders(stub_weights, run, tmp_path):
  for name in 'pq':
    (tmp_path / name).mkdir()
    draw(tmp_path / name / 'x.png', first=(ord(name) % 16, 3))
  assert run(tmp_path / 'p' / 'x.png', tmp_path / 'q' / 'x.png')[0] == 0
  for name in 'pq':
    document = formats.read(run.output / f'{name}_x.json')
    assert document.file == 'x.png'
    assert document.nodes_px[0, 0] == ord(name) % 16 + 0.5


def test_sizes_at_both_ends(stub_weights, run, tmp_path):
  images = [
    draw(tmp_path / 'dot.png', height=1, width=1, first=(0, 0), last=(0, 0)),
    draw(tmp_path / 'line.png', height=1, width=500, first=(3, 0), last=(480, 0)),
  ]
  wide = np.full((300, 20_000), 255, np.uint8)
  wide[100:200, 1000:1200] = wide[100:200, 18_000:18_200] = 0
  Image.fromarray(wide).save(tmp_path / 'wide.png')
  status, lines = run(*images, tmp_path / 'wide.png')
  assert status == 0, lines
  documents = {p.stem: formats.read(p) for p in run.output.glob('*.json')}
  assert (documents['dot'].width, documents['dot'].height) == (1, 1)
  assert (documents['wide'].width, documents['wide'].height) == (20_000, 300)
  if len(documents['wide'].nodes_px):
    nodes = documents['wide'].nodes_px
    np.testing.assert_allclose(nodes[:, 0], [1000, 18_200], atol=20_000 / 64)


@pytest.mark.parametrize('value', [0, 255])
@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'I;16'])
def test_blank_images_are_empty_graphs(stub_weights, run, tmp_path, value, mode):
  if mode == 'I;16':
    image = Image.fromarray(np.full((30, 40), value * 257, np.uint16))
  else:
    image = Image.new(mode, (40, 30), (value,) * len(mode) if len(mode) > 1 else value)
  image.save(tmp_path / 'blank.png')
  assert run(tmp_path / 'blank.png') == (0, [])
  document = json.loads((run.output / 'blank.json').read_text())
  assert document['nodes'] == document['edges'] == []
  assert document['image'] == {'file': 'blank.png', 'width': 40, 'height': 30}


def test_weights_that_cannot_be_used(run, tmp_path):
  image = draw(tmp_path / 'a.png')
  (tmp_path / 'garbage.npz').write_bytes(b'garbage')
  np.savez(tmp_path / 'other.npz', a=np.ones(3))
  meta = {'format': 'img2graph-weights/99', 'version': '9.0'}
  np.savez(tmp_path / 'newer.npz', __meta__=json.dumps(meta))
  np.savez(tmp_path / 'half.npz', __meta__=json.dumps(meta))
  whole = (tmp_path / 'half.npz').read_bytes()
  (tmp_path / 'half.npz').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'folder.npz').mkdir()
  for name in ('garbage', 'other', 'newer', 'half', 'folder', 'absent'):
    path = tmp_path / f'{name}.npz'
    status, (line,) = run(image, weights=path)
    assert status == 2 and str(path) in line, line
  assert written(run.output) == []


@pytest.mark.parametrize('reason', [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_loses_nothing(stub_weights, run, tmp_path, monkeypatch, reason):
  images = [draw(tmp_path / f'{name}.png') for name in 'abcdef']
  assert run(images[0])[0] == 0
  before = (run.output / 'a.json').read_bytes()
  calls = []
  fsync = os.fsync

  def full(descriptor):
    calls.append(descriptor)
    if len(calls) > 6:
      raise OSError(reason, os.strerror(reason))
    fsync(descriptor)

  monkeypatch.setattr(os, 'fsync', full)
  status, lines = run(*images, format='json,svg')
  assert status == 1
  assert os.strerror(reason) in lines[-1] and str(run.output) in lines[-1]
  assert '1 of 6 images were done' in lines[-1]
  # One call tried the folder, then three files of `a` and two of `b`.
  expected = ['a.json', 'a.svg', 'a_overlay.png', 'b.json', 'b.svg']
  assert written(run.output) == expected
  assert (run.output / 'a.json').read_bytes() == before


def test_an_output_folder_that_cannot_be(stub_weights, run, tmp_path, monkeypatch):
  image = draw(tmp_path / 'a.png')
  status, (line,) = run(image, output=image)
  assert status == 2 and 'must be a folder' in line
  status, (line,) = run(image, output=image / 'below')
  assert status == 1 and 'below' in line

  def refuse(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run.output))

  monkeypatch.setattr(files, 'write_atomically', refuse)
  status, (line,) = run(image)
  assert status == 1 and str(run.output) in line and 'ermission denied' in line


def test_ctrl_c_keeps_what_was_written(stub_weights, run, tmp_path, monkeypatch):
  images = [draw(tmp_path / f'{name}.png') for name in 'abc']
  stream = predict.Predictor.stream

  def interrupted(*args, **options):
    yield next(stream(*args, **options))
    raise KeyboardInterrupt

  monkeypatch.setattr(predict.Predictor, 'stream', interrupted)
  status, lines = run(*images, batch_size=1)
  assert status == 130
  assert lines == ['img2graph: stopped; what was written stays.']
  assert written(run.output) == ['a.json', 'a_overlay.png']


def test_refine_needs_a_method_that_can(run, tmp_path, monkeypatch):
  def load_method(path):
    method, *rest = stub.load_method(path)
    return dataclasses.replace(method, refine=None), *rest

  monkeypatch.setattr(weights, 'load_method', load_method)
  status, (line,) = run(draw(tmp_path / 'a.png'), refine=5)
  assert status == 2 and '--refine' in line


def test_the_command_never_shows_a_traceback(tmp_path):
  """The same as real processes: a mistake, a closed pipe, and Ctrl-C."""
  command = [sys.executable, '-m', 'img2graph.cli']
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  (tmp_path / 'bad.png').write_bytes(b'%PDF-1.4')
  options = dict(env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
  predict_bad = [*command, 'predict', 'bad.png', '--output=out']
  mistake = subprocess.Popen(
    [*predict_bad, '--weights=none.npz'], **options, stdout=subprocess.PIPE
  )
  read, write = os.pipe()
  os.close(read)
  closed = subprocess.Popen([*command, 'predict', '--help'], stdout=write, **options)
  os.close(write)
  assert closed.wait() == 0 and closed.stderr.read() == ''
  out, err = mistake.communicate()
  assert mistake.returncode == 2 and out == ''
  assert err == 'img2graph: there is no weights file none.npz.\n'
