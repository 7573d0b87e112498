"""Tests of benchmarks/worst.py."""

import numpy as np
import PIL.Image
import pytest

from benchmarks import worst
from img2graph import formats
from img2graph import predict
from img2graph.data import archives


class Predictor:
  """Finds a line at row 20, whatever it sees."""

  def __init__(self, path):
    del path

  def stream(self, tagged, **options):
    del options
    for tag, _ in tagged:
      yield tag, formats.Document([[8, 20], [32, 20]], [(0, 1)], width=40, height=40)


@pytest.fixture
def archive(tmp_path):
  """Three images of one line each, of which the second is where it is found."""
  images, graphs = np.zeros((3, 40, 40), np.uint8), []
  for k, row in enumerate((5, 20, 35)):
    images[k, row - 1 : row + 1, 8:32] = 255
    graphs.append((np.array([[8, row], [32, row]]) / 20 - 1, [[0, 1]]))
  archives.write(tmp_path / 'lines.npz', images, graphs)
  return tmp_path / 'lines.npz'


def test_the_worst_images_come_first(archive, monkeypatch, tmp_path):
  monkeypatch.setattr(predict, 'Predictor', Predictor)
  loaded = archives.load(archive)
  predictions = worst.routes.from_weights('', 'any').predict(loaded)
  scores = worst.f1_of_images(loaded, predictions)
  assert scores.tolist() == [[0, 0], [1, 1], [0, 0]]
  output = tmp_path / 'a.png'
  arguments = [str(archive), '--count=2', '--columns=1', f'--output={output}']
  assert worst.main(arguments) == 0
  below = np.asarray(PIL.Image.open(output).convert('L'))
  assert worst.main([*arguments, '--best']) == 0
  above = np.asarray(PIL.Image.open(output).convert('L'))
  assert above.shape == below.shape == (2 * 146, 3 * 132)

  def row_of_ink(table):
    """Darkest row of the first image, in shares of its side."""
    return table[14 : 14 + 130, :130].mean(axis=1).argmin() / 130

  assert row_of_ink(above) == pytest.approx(0.5, abs=0.05)
  assert row_of_ink(below) == pytest.approx(5 / 40, abs=0.05)


def test_a_mistake_is_one_sentence(archive, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(predict, 'Predictor', Predictor)
  for wrong in ([f'{archive}:colour=red'], [str(archive), '--skip=3']):
    assert worst.main([*wrong, f'--output={tmp_path}/a.png']) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
