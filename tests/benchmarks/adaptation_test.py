"""Tests of benchmarks/adaptation.py."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from benchmarks import adaptation
from img2graph import data
from img2graph import weights
from img2graph.data import archives


def _archive(path, count=12):
  """Lines by four people; the length of a line tells which it is."""
  images = np.zeros((count, 40, 40), np.uint8)
  graphs = []
  for i in range(count):
    images[i, 9:11, 4 : 14 + 2 * i] = 255
    ends = np.array([(4, 10), (14 + 2 * i, 10)]) / 20 - 1
    graphs.append((ends, [(0, 1)]))
  archives.write(path, images, graphs, fields={'user': np.arange(count) // 3})
  return f'{path}:split=user'


def test_nobody_is_adapted_to_and_scored(tmp_path):
  text = _archive(tmp_path / 'lines.npz')
  look, held_out = adaptation.halves(text, tune=False)
  assert sorted([*look.index, *held_out.index]) == list(range(12))
  seen, other = adaptation.halves(text, tune=True)
  assert sorted([*seen.index, *other.index]) == sorted(look.index)
  for first, second in ((look, held_out), (seen, other)):
    assert not set(first.fields['user']) & set(second.fields['user'])


@pytest.mark.parametrize('options', ['max_nodes=3', 'split=user,half=look'])
def test_a_part_that_is_not_split_is_refused(tmp_path, options, capsys):
  path = _archive(tmp_path / 'lines.npz').split(':')[0]
  assert adaptation.main([f'{path}:{options}', f'--workdir={tmp_path}']) == 2
  assert 'wanted an archive with split=KEY' in capsys.readouterr().err


def test_training_sees_the_pixels_of_the_archive(tmp_path):
  archive = adaptation.halves(_archive(tmp_path / 'lines.npz'), tune=False)[0]
  folder = tmp_path / 'images'
  folder.mkdir()
  adaptation.write_images(archive, folder)
  source = data.build('image_folder', dir=folder, side=40, polarity='light_on_dark')
  batch = next(source.iterate(seed=0, batch_size=len(archive)))
  found = sorted(image[..., 0].tobytes() for image in batch['image'])
  assert found == sorted(archive.ink(i).tobytes() for i in range(len(archive)))


def test_a_row_compares_the_weights_before_and_after(tmp_path, monkeypatch):
  seen = {}

  def run(argv):
    """A training run that ends with the weights that it began with."""
    options = dict(a.removeprefix('--').partition('=')[::2] for a in argv[1:])
    seen.update(options)
    seen['files'] = len(list(pathlib.Path(options['config.data.dir']).iterdir()))
    workdir = pathlib.Path(options['workdir'])
    workdir.mkdir(exist_ok=True)
    shutil.copy(weights.shipped(), workdir / 'weights.npz')
    results = dict(step=7, config_hash='abc', config=dict(start_from='shipped'))
    (workdir / 'results.json').write_text(json.dumps(results))
    return 0

  monkeypatch.setattr(adaptation.launch_main, 'run', run)
  text = _archive(tmp_path / 'lines.npz')
  output = tmp_path / 'out' / 'adapted.json'
  call = [text, f'--workdir={tmp_path / "run"}', f'--output={output}', '--spread=2']
  call += ['--', '--config.train_steps=7']
  assert adaptation.main(call) == 0
  assert adaptation.main(call) == 0  # Replaces its own row.
  (row,) = json.loads(output.read_text())['rows']
  assert row['steps'] == 7 and row['images'] == 2
  assert seen['files'] == row['adapted_to'] == 6
  assert not pathlib.Path(seen['config.data.dir']).exists()
  assert seen['config.train_steps'] == '7'
  assert row['before'] == row['after']
  assert adaptation.figures(row['before'])['path F1'] > 0.9
  assert output.with_suffix('.md').read_text().count('\n') == 3


@pytest.mark.parametrize('status', [0, 3])
def test_a_run_that_fails_or_is_stopped_is_told(tmp_path, monkeypatch, capsys, status):
  monkeypatch.setattr(adaptation.launch_main, 'run', lambda argv: status)
  text = _archive(tmp_path / 'lines.npz')
  assert adaptation.main([text, f'--workdir={tmp_path / "run"}']) == 2
  assert f'ended early (status {status})' in capsys.readouterr().err
