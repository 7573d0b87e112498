import json
import pathlib

import numpy as np
import pytest

from benchmarks import real_drawings
from benchmarks import routes
from img2graph import formats
from img2graph import predict
from img2graph.data import archives

# A route that knows one answer, with a module of its own beside it, as scripts have.
CLASSICAL = """
import answers

def predict(image, params):
  return answers.line(params['y'])
"""
ANSWERS = """
def line(y):
  return [[0.2, y], [0.8, y]], [[0, 1]]
"""


class Predictor:
  """Finds the line, one pixel too low if its weights are not those that ship."""

  def __init__(self, path):
    self.low = pathlib.Path(path).name != 'line_drawings.npz'

  def stream(self, tagged, *, refine, prior, tolerance, batch_size):
    for tag, ink in reversed(list(tagged)):
      assert ink.max() == 1 and batch_size == 2
      assert tolerance == (0.05 if prior else predict.TOLERANCE)
      # Refinement turns the line, and so does a prior.
      y = 20 + self.low + np.array([0, refine + 3 * len(prior)])
      nodes_px = np.stack([[8, 32], y], axis=-1)
      yield tag, formats.Document(nodes_px, [(0, 1)], width=40, height=40)


@pytest.fixture
def folder(tmp_path):
  """An archive of 8 horizontal lines by 4 writers, and a classical route."""
  images = np.zeros((8, 40, 40), np.uint8)
  images[:, 19:21, 8:32] = 255
  graph = np.array([[-0.6, 0.0], [0.6, 0.0]]), [[0, 1]]
  writer = np.arange(8) // 2
  archives.write(tmp_path / 'lines.npz', images, [graph] * 8, fields={'w': writer})
  (tmp_path / 'classical.py').write_text(CLASSICAL)
  (tmp_path / 'answers.py').write_text(ANSWERS)
  params = {'one': {'params': {'y': 0.4}}, 'lines': {'params': {'y': 0.51}}}
  (tmp_path / 'params.json').write_text(json.dumps(params))
  return tmp_path


def test_all_routes_are_scored_on_the_held_out_half(folder, monkeypatch, capsys):
  monkeypatch.setattr(predict, 'Predictor', Predictor)
  arguments = [
    f'{folder}/lines.npz:split=w',
    f'--classical={folder}/classical.py',
    f'--classical_params={folder}/params.json',
    '--adapted=lin=lines_adapted.npz',
    '--prior=lines=polygon,right_angles,tolerance=0.05',
    '--weights=twin=line_drawings.npz',
    '--refine=5',
    '--batch_size=2',
    f'--output={folder}/out/scores.json',
  ]
  assert real_drawings.main(arguments) == 0
  rows = json.loads((folder / 'out/scores.json').read_text())['rows']
  assert [row['route'] for row in rows] == [
    routes.SHIPPED,
    real_drawings.ADAPTED,
    'shipped weights, told: polygon,right_angles,tolerance=0.05',
    'shipped weights, 5 steps of refinement',
    'weights: twin',
    routes.CLASSICAL_TUNED,
    routes.CLASSICAL_ONE,
  ]
  shipped, adapted, told, refined, twin, tuned, one = rows
  assert {row['images'] for row in rows} == {4}

  def length(row, threshold):
    return row['scores']['at'][threshold]['length']['micro']['f1']

  assert shipped['scores'] == twin['scores']
  assert shipped['scores']['at']['0.015']['exact'] == 1
  # One pixel of 40.
  assert (length(adapted, '0.015'), length(adapted, '0.03')) == (0, 1)
  assert 0.1 < length(refined, '0.03') < 0.5
  assert told['settings']['prior'] == ['polygon', 'right_angles']
  assert length(told, '0.03') < length(shipped, '0.03')
  assert tuned['settings'] == {'params': 'lines', 'y': 0.51}
  assert (length(tuned, '0.015'), length(one, '0.08')) == (1, 0)
  assert shipped['nodes'] == {'predicted': 2, 'true': 2, 'true_keys': 2}
  assert all(row['images_per_second'] > 0 for row in rows)
  table = (folder / 'out/scores.md').read_text().splitlines()
  assert len(table) == 2 + len(rows)
  assert table[2 + rows.index(tuned)].endswith('| 1 |')


def test_erased_discs_lie_on_ink_and_depend_on_the_image_alone(folder):
  _, whole, _ = real_drawings.load_part(f'{folder}/lines.npz', None)
  _, part, _ = real_drawings.load_part(f'{folder}/lines.npz:discs=2,noise=0', 3)
  assert part.index.tolist() == [0, 2, 5]
  every = real_drawings.corrupt(whole, discs=2, noise=0)
  np.testing.assert_array_equal(part.images, every.images[[0, 2, 5]])
  assert len(np.unique(every.images, axis=0)) > 4
  erased = (whole.images > 0) & (every.images == 0)
  np.testing.assert_array_equal(every.images[~erased], whole.images[~erased])
  # One to two chords of a disc of 13 pixels across a line of two rows.
  assert (erased.sum(axis=(1, 2)) >= 13).all()
  assert (erased.sum(axis=(1, 2)) <= 2 * 2 * 13).all()


def test_noise_has_its_deviation(folder):
  _, archive, _ = real_drawings.load_part(f'{folder}/lines.npz:noise=0.1', None)
  paper = archive.images[:, :15].astype(float) / 255
  # What is below paper is cut off, so half of all values are 0.
  assert abs(np.mean(paper == 0) - 0.5) < 0.02
  assert abs(np.sqrt(2 * np.mean(paper**2)) - 0.1) < 0.005


def test_halves_share_no_group(folder):
  parts = [
    real_drawings.load_part(f'{folder}/lines.npz:split=w,half={half}', None)[1]
    for half in ('look', 'held_out')
  ]
  writers = [set(part.fields['w'].tolist()) for part in parts]
  assert not writers[0] & writers[1] and len(writers[0] | writers[1]) == 4


def test_targets_say_what_is_missed():
  def row(name, route, path):
    f1 = {'micro': {'f1': path}}
    scores = {'at': {'0.05': {'path': f1}, '0.015': {'length': f1}}}
    return {'name': name, 'route': route, 'scores': scores}

  rows = [
    row('omniglot', routes.SHIPPED, 0.9),
    row('omniglot', routes.CLASSICAL_ONE, 0.8),
  ]
  found = real_drawings.targets(rows)
  assert [entry['figure'] for entry in found] == ['path F1', 'length F1 1.5 %']
  path, length = found
  assert path['missed_by'] == pytest.approx(0.03) and length['missed_by'] == 0
  assert path['classical_one'] == 0.8 and path['classical_tuned'] is None
  text = real_drawings.targets_table(found)
  assert '| omniglot | path F1 | 93.0 | 90.0 | 3.0 | - | 80.0 |' in text


def test_all_finds_one_archive_of_each_name(folder):
  for begin, _ in real_drawings.PARTS.values():
    (folder / f'{begin}_dev.npz').touch()
  found = real_drawings.find_parts(folder)
  assert list(found) == list(real_drawings.PARTS)
  assert found['roads'] == f'{folder}/roads_dev.npz:split=place'
  (folder / 'roads_2.npz').touch()
  with pytest.raises(ValueError, match='must hold one archive roads'):
    real_drawings.find_parts(folder)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], 'there is nothing to score'),
    (['lines.npz:noise=much'], 'an option is not a number'),
    (['lines.npz:colour=red'], "no option 'colour'; there are split, half"),
    (['lines.npz', '--classical=classical.py'], 'belong together'),
    (
      ['lines.npz', '--classical=broken.py', '--classical_params=params.json'],
      "needs the package 'no_such_package'",
    ),
    (['lines.npz', '--adapted=roads=weights.npz'], 'no archive of that name'),
    (['lines.npz', '--prior=roads=polygon'], 'no archive of that name'),
    (['lines.npz', '--prior=lines=round'], "no prior 'round'; there are polygon"),
    (['lines.npz', '--prior=lines=tolerance=x'], "'x' is not a number"),
    (['lines.npz', '--weights=twin'], '--weights takes NAME=PATH'),
  ],
)
def test_a_mistake_is_one_sentence(folder, monkeypatch, capsys, arguments, message):
  (folder / 'broken.py').write_text('import no_such_package\n')
  monkeypatch.chdir(folder)
  assert real_drawings.main(arguments) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert message in line


def test_differences_from_another_scorer_are_found(folder):
  class Scorer:
    @staticmethod
    def score(truth, pred, thresholds):
      np.testing.assert_allclose(truth[1][0], [[0.2, 0.5], [0.8, 0.5]], atol=1e-6)
      assert pred[1] == ([[0.0, 0.5]], [])
      return {'at': {'0.05': {'exact': 0.25}}, 'missing': 0, 'more': 1}

  archive = archives.load(folder / 'lines.npz').take([1])
  scores = {'at': {'0.05': {'exact': 0.5}}, 'missing': 0}
  predictions = {1: {'nodes': [[0.0, 0.5]], 'edges': []}}
  found = routes.differences(Scorer, archive, predictions, scores)
  assert found == (0.25, 2)
  with pytest.raises(ValueError, match='no figure smd'):
    routes.differences(Scorer, archive, predictions, scores | {'smd': 0.0})
