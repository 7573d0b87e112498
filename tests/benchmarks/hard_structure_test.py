import numpy as np

from benchmarks import hard_structure

CROSS = [[0.5, 0.5], [0.1, 0.5], [0.9, 0.5], [0.5, 0.1], [0.5, 0.9]]
TEES = [[0.48, 0.5], [0.52, 0.5], [0.1, 0.5], [0.9, 0.5], [0.48, 0.1], [0.52, 0.9]]


def filed(nodes, edges):
  return {'nodes': np.asarray(nodes).tolist(), 'edges': np.asarray(edges).tolist()}


def test_true_graphs_are_right_wherever_lines_are_cut():
  for kind in ('ring', 'cross_or_tees'):
    archive = hard_structure.test_set(kind, 4)
    predictions = {}
    for i, (nodes, edges) in enumerate(archive.graphs()):
      # Every edge cut in two.
      middles = (nodes[edges[:, 0]] + nodes[edges[:, 1]]) / 2
      new = len(nodes) + np.arange(len(edges))
      halves = np.concatenate(
        [np.stack([edges[:, k], new], axis=-1) for k in (0, 1)], axis=0
      )
      predictions[i] = filed((np.concatenate([nodes, middles]) + 1) / 2, halves)
    assert hard_structure.right_structures(archive, predictions).all()
    # What lies elsewhere, or is not there, is wrong.
    moved = {
      i: filed(np.add(p['nodes'], 0.2), p['edges']) for i, p in predictions.items()
    }
    assert not hard_structure.right_structures(archive, moved).any()
    none = dict.fromkeys(predictions, filed(np.zeros((0, 2)), np.zeros((0, 2), int)))
    assert not hard_structure.right_structures(archive, none).any()


def test_a_crossing_is_not_two_tees():
  cross = hard_structure.structure((CROSS, [(0, i) for i in range(1, 5)]))
  tees = hard_structure.structure((TEES, [(0, 1), (0, 2), (1, 3), (0, 4), (1, 5)]))
  assert cross == ([1, 1, 1, 1, 4], 4, 0)
  assert tees == ([1, 1, 1, 1, 3, 3], 5, 0)
