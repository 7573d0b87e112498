"""Whether AutoLink's graph of an image tells which limbs a generated figure has.

  python -m launch.main --config=configs/autolink.py:figures --workdir=runs/topology \\
      --config.data.missing=0.3 --config.method.topology.enabled
  python -m benchmarks.topology runs/topology/weights.npz \\
      --output=FILE

Figures (`data/figures.py`) lack each limb with the probability of --missing. Nothing in
training says which. Of each limb the area under the ROC curve is written with which it
is told by numbers of the predicted graph, on figures that were not looked at before:
  presence    probabilities of the keypoints
  links       probabilities of the links
  places      x and y of the keypoints, and their distances, which a graph that all
              images share has as well
'best' is the one number that told most on the part 'fit', 'all' a logistic regression
on it. .5 is chance, 1 is perfect. 'right' is how often the best keypoint is there, with
a probability above .5, when the limb is, and is not when it is not, beside how often
that is so of the more frequent answer.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np
from sklearn import linear_model
from sklearn import metrics
from sklearn import pipeline
from sklearn import preprocessing

from img2graph import files
from img2graph import geometry
from img2graph import weights
from img2graph.data import figures
from img2graph.training import record

_BATCH = 64


def look(method, variables, *, missing, images, seed):
  """Numbers of the graphs of figures, and which limbs those have.

  Returns:
    ({'presence': `[n, K]`, 'links': `[n, P]`, 'places': `[n, 2 K + P]`}, `[n, 4]`
    bool).
  """
  [side] = method.sides

  @jax.jit
  def one(key):
    batch = figures.sample(key, _BATCH, side=side, missing=missing)
    return method.predict(variables, batch['image']), batch['visible']

  keys = jax.random.split(jax.random.key(seed), -(-images // _BATCH))
  graphs, visible = zip(*(jax.device_get(one(key)) for key in keys), strict=True)
  nodes, presence, edge_prob, visible = (
    np.concatenate(parts)[:images]
    for parts in (
      [g.nodes for g in graphs],
      [g.node_prob for g in graphs],
      [g.edge_prob for g in graphs],
      visible,
    )
  )
  senders, receivers = geometry.node_pairs(nodes.shape[1])
  lengths = np.linalg.norm(nodes[:, senders] - nodes[:, receivers], axis=-1)
  joints = [figures.JOINTS.index(names[0]) for names in figures.LIMBS.values()]
  numbers = {
    'presence': presence,
    'links': edge_prob[:, senders, receivers],
    'places': np.concatenate([nodes.reshape(images, -1), lengths], axis=1),
  }
  return numbers, visible[:, joints] > 0


def told(fit, fit_there, test, test_there):
  """How well numbers tell whether one limb is there.

  Args:
    fit: `[n, F]`.
    fit_there: `[n]` bool, both True and False.
    test: `[m, F]`.
    test_there: `[m]` bool, likewise.

  Returns:
    {'best': area under the curve, 'of': number of the best, 'all': area}.
  """
  areas = np.array([metrics.roc_auc_score(fit_there, column) for column in fit.T])
  best = int(np.abs(areas - 0.5).argmax())
  sign = 1 if areas[best] >= 0.5 else -1
  model = pipeline.make_pipeline(
    preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=2000)
  ).fit(fit, fit_there)
  return {
    'best': float(metrics.roc_auc_score(test_there, sign * test[:, best])),
    'of': best,
    'all': float(metrics.roc_auc_score(test_there, model.decision_function(test))),
  }


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('weights', type=pathlib.Path)
  parser.add_argument('--missing', type=float, default=0.3)
  parser.add_argument('--images', type=int, default=1024, help='of each part')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  options = parser.parse_args(argv)
  if not 0 < options.missing < 1:
    parser.error(f'--missing must be between 0 and 1; got {options.missing}.')
  try:
    method, variables, card = weights.load_method(options.weights)
  except (OSError, ValueError) as error:
    parser.error(str(error))
  (fit, fit_there), (test, test_there) = (
    look(method, variables, missing=options.missing, images=options.images, seed=seed)
    for seed in (1, 2)
  )
  limbs = {
    limb: {
      name: told(fit[name], fit_there[:, i], test[name], test_there[:, i])
      for name in fit
    }
    for i, limb in enumerate(figures.LIMBS)
  }
  for i, limb in enumerate(limbs.values()):
    there = test_there[:, i]
    found = test['presence'][:, limb['presence']['of']] > 0.5
    limb['right'] = float((found == there).mean())
    limb['right_of_more_frequent'] = float(max(there.mean(), 1 - there.mean()))
  mean = {
    name: {
      which: float(np.mean([limb[name][which] for limb in limbs.values()]))
      for which in ('best', 'all')
    }
    for name in fit
  }
  for name in ('right', 'right_of_more_frequent'):
    mean[name] = float(np.mean([limb[name] for limb in limbs.values()]))
  document = {
    'mean': mean,
    'limbs': limbs,
    'missing': options.missing,
    'images': options.images,
    'weights': card,
    'code': record.code(),
    'versions': record.versions(),
    'hardware': record.hardware(),
  }
  options.output.parent.mkdir(parents=True, exist_ok=True)
  files.write_atomically(
    options.output, (json.dumps(document, indent=1, default=str) + '\n').encode()
  )
  for name in fit:
    print(f'{name:10s} best {mean[name]["best"]:.3f}  all {mean[name]["all"]:.3f}')
  print(f'right {mean["right"]:.3f} of {mean["right_of_more_frequent"]:.3f}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
