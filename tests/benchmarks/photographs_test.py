import json

import numpy as np
import pytest

from benchmarks import photographs

KINDS = ['task', 'event', 'gateway']


@pytest.fixture
def arrays():
  """Two diagrams, 200 x 100 pixels; the second is a task, an event and an arrow."""
  return {
    'data': np.zeros(0, np.uint8),
    'offsets': np.zeros(3, int),
    'size': np.array([[10, 10], [200, 100]]),
    'node_start': np.array([0, 1, 3]),
    'edge_start': np.array([0, 0, 1]),
    'box': np.array([[0.5] * 4, [0.2, 0.5, 0.2, 0.4], [0.8, 0.5, 0.1, 0.2]]),
    'kind': np.array([2, 0, 1]),
    'way_start': np.array([0, 3]),
    'way': np.array([[0.3, 0.5], [0.5, 0.5], [0.75, 0.5]]),
  }


def test_what_is_drawn_on_a_photograph(arrays):
  (task, event), (arrow,) = photographs.shapes(arrays, KINDS, 1)
  # In shares of the longer side: y is halved.
  np.testing.assert_allclose(
    task[0], [[0.1, 0.15], [0.3, 0.15], [0.3, 0.35], [0.1, 0.35]]
  )
  centre = event[0] - [0.8, 0.25]
  np.testing.assert_allclose(np.hypot(*centre.T), 0.05)
  np.testing.assert_allclose(arrow[0], [[0.3, 0.25], [0.5, 0.25], [0.75, 0.25]])
  nodes, edges = photographs.as_graph([task, arrow])
  assert len(nodes) == 7
  assert edges.tolist() == [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6]]
  (diamond,), none = photographs.shapes(arrays, KINDS, 0)
  assert none == []
  np.testing.assert_allclose(
    diamond[0], [[0.5, 0.25], [0.75, 0.5], [0.5, 0.75], [0.25, 0.5]]
  )


def test_scores_of_a_prediction_that_knows_the_arrow_only(arrays):
  boxes, arrows = photographs.shapes(arrays, KINDS, 1)
  counts = photographs.score(boxes, arrows, photographs.as_graph(arrows))
  right, predicted, found, true = counts['length 1.5 %']
  assert right == predicted == pytest.approx(0.45)
  assert true == pytest.approx(0.8 + 0.45 + 2 * 16 * 0.05 * np.sin(np.pi / 16))
  # A little of the outlines lies beside the ends of the arrow.
  assert 0.45 < found < 0.6
  assert counts['length of arrows 1.5 %'][2:] == pytest.approx((0.45, 0.45))
  assert counts['boxes found'] == (0, 0, 0, 2)
  assert counts['arrows found'] == (0, 0, 1, 1)
  # Four corners and three points of the arrow; the event has no corners.
  assert counts['node 3 %'] == (3, 3, 3, 7)


def test_a_file_that_is_no_archive_is_one_sentence(tmp_path, capsys):
  path = tmp_path / 'other.npz'
  np.savez(path, images=np.zeros(3))
  path.with_suffix('.json').write_text(json.dumps({'kinds': KINDS}))
  assert photographs.main([str(path)]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert 'other.npz: not an archive of diagrams' in line
