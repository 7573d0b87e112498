"""Trains AutoLink's official PyTorch networks, for `benchmarks.autolink_training`.

  TORCH_PYTHON autolink_official_training.py FOLDER WORK

FOLDER is a copy of the authors' repository; their encoder, decoder and renderer are
used as they are, the latter at the side of the images. In WORK lie `options.json`
(n_parts, thick, sklr, missing, block, flip, side, batch, steps, lr, weight_decay, seed
and the fallback loss's features, pyramid and scales), `images.npz` (train, fit, test:
`[n, S, S, 3]` uint8) and `features.npz`, that loss's kernels by name in order. Written
there are `found.npz`, keypoints (row, column) of fit and test in [-1, 1] of pixel
centres, and `told.json`, seconds of each step and every loss.
"""

import functools
import json
import pathlib
import sys
import time

import autolink_official
import numpy as np
import torch
from torch.nn import functional

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fallback(kernels, images, targets, *, features, pyramid, scales):
  """Random features and a pyramid of colours, as `losses/perceptual.py` has them."""
  mean, deviation = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (_MEAN, _DEVIATION))
  pair = [(x - mean) / deviation for x in (images, targets)]
  first = second = 0.0
  stage = None
  for name, kernel in kernels:
    if stage not in (None, name.split('_')[0]):
      first = first + functional.l1_loss(*pair)
      pair = [functional.max_pool2d(x, 2) for x in pair]
    stage = name.split('_')[0]
    pair = [functional.relu(functional.conv2d(x, kernel, padding=1)) for x in pair]
  first = first + functional.l1_loss(*pair)
  for scale in range(scales):
    if scale:
      images, targets = (functional.avg_pool2d(x, 2) for x in (images, targets))
    second = second + functional.l1_loss(images, targets) / scales
  return features * first + pyramid * second


def main(folder, work):
  """Trains, and writes what was found and how long it took."""
  autolink_official.stand_ins()
  sys.path.insert(0, folder)
  from models.decoder import Decoder
  from models.encoder import Encoder

  work = pathlib.Path(work)
  o = autolink_official.HyperParameters(json.loads((work / 'options.json').read_text()))
  torch.manual_seed(o.seed)
  encoder, decoder = Encoder(o), Decoder(o)
  # Theirs draws at 128 pixels unless it is told otherwise.
  decoder.rasterize = functools.partial(decoder.rasterize, output_size=o.side)
  kernels = [
    (name, torch.tensor(kernel.transpose(3, 2, 0, 1)))
    for name, kernel in np.load(work / 'features.npz').items()
  ]
  images = np.load(work / 'images.npz')
  train = torch.from_numpy(images['train'])
  parameters = [p for m in (encoder, decoder) for p in m.parameters()]
  optimiser = torch.optim.AdamW(
    [p for p in parameters if p.requires_grad], lr=o.lr, weight_decay=o.weight_decay
  )
  options = {n: o[n] for n in ('features', 'pyramid', 'scales')}
  seconds, losses = [], []
  for step in range(o.steps):
    start = time.perf_counter()
    batch = as_input(train[torch.randint(len(train), (o.batch,))])
    if o.flip:
      mirrored = torch.rand(o.batch, 1, 1, 1) < 0.5
      batch = torch.where(mirrored, batch.flip(-1), batch)
    made = decoder(encoder({'img': batch}, need_masked_img=True))
    loss = fallback(kernels, (made['img'] + 1) / 2, (batch + 1) / 2, **options)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    seconds.append(time.perf_counter() - start)
    losses.append(float(loss))
    if step % 20 == 0:
      print(f'official step {step} loss {losses[-1]:.4f}', flush=True)
  encoder.eval()
  found = {}
  with torch.no_grad():
    for part in ('fit', 'test'):
      batches = torch.from_numpy(images[part]).split(64)
      places = [encoder({'img': as_input(b)})['keypoints'] for b in batches]
      found[part] = torch.cat(places).numpy()
  np.savez(work / 'found.npz', **found)
  told = {'seconds': seconds, 'losses': losses, 'torch': torch.__version__}
  (work / 'told.json').write_text(json.dumps(told))


def as_input(images):
  """`[n, S, S, 3]` uint8 -> `[n, 3, S, S]` float32 in [-1, 1]."""
  return images.permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == '__main__':
  main(*sys.argv[1:])
