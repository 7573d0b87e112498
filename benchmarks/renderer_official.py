"""AutoLink's official renderer in PyTorch, for `benchmarks.renderer`.

  TORCH_PYTHON -m benchmarks.renderer_official FOLDER OUTPUT

Runs in an interpreter with torch and numpy and nothing else. FOLDER is a copy of the
authors' repository, whose `draw_lines` is used as it is; what their decoder does
around it (pairs, weights, maximum) is three lines here. OUTPUT is a folder with
`task.json` and `inputs.npz`, for `result.json` and `outputs.npz`.
"""

import json
import pathlib
import sys

import numpy as np
import torch

from benchmarks import autolink_official
from benchmarks import renderer_measure


def main(official, folder):
  autolink_official.stand_ins()
  sys.path.insert(0, official)
  from models import decoder

  folder = pathlib.Path(folder)
  task = json.loads((folder / 'task.json').read_text())
  arrays = {n: torch.from_numpy(v) for n, v in np.load(folder / 'inputs.npz').items()}
  nodes, weights = (arrays[n].requires_grad_() for n in ('nodes', 'weights'))
  pairs = torch.triu_indices(task['keypoints'], task['keypoints'], offset=1)

  def draw():
    ends = torch.stack([nodes[:, pairs[0]], nodes[:, pairs[1]]], dim=2)
    lines = decoder.draw_lines(ends, heatmap_size=task['side'], thick=task['thick'])
    return (lines * weights.reshape(1, -1, 1, 1)).max(dim=1)[0]

  def forward():
    with torch.no_grad():
      draw()

  def both():
    image = draw()
    return image, *torch.autograd.grad(image, (nodes, weights), arrays['gradient'])

  result, outputs = renderer_measure.measure(forward, both, task['rounds'])
  result['torch'] = torch.__version__
  renderer_measure.write(folder, result, [v.detach().numpy() for v in outputs])


if __name__ == '__main__':
  main(*sys.argv[1:])
