"""Trains AutoLink's official PyTorch networks, for `benchmarks.autolink_training`.

  TORCH_PYTHON autolink_official_training.py FOLDER WORK

FOLDER is a copy of the authors' repository; their encoder, decoder and renderer are
used as they are, the latter at the side of the images. In WORK lie `options.json`
(n_parts, thick, sklr, missing, block, flip, side, batch, steps, lr, weight_decay, seed,
device, half: whether convolutions compute in float16, with scaled gradients, as theirs
do on a GPU; and loss, 'perceptual', which is theirs but for loss_side, at which VGG16
looks, or 'fallback' with its features, pyramid and scales), `images.npz` (train, fit,
test: `[n, S, S, 3]` uint8; keep: `[m, S, S, 1]` bool, what is kept of the first m of
test) and `features.npz`, the loss's kernels and, of VGG16, biases by name in order.
Written there are `found.npz`, keypoints (row, column) of fit and test in [-1, 1] of
pixel centres, and of the first m of test 'own' and 'others': what the decoder restores
from their own keypoints and from those of the photograph before, `[m, S, S, 3]` in
[0, 1]; and `told.json`, seconds of each step and every loss.
"""

import functools
import json
import pathlib
import sys
import time
import types

import autolink_official
import numpy as np
import torch
from torch.nn import functional

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fallback(kernels, images, targets, *, features, pyramid, scales):
  """Random features and a pyramid of colours, as `losses/perceptual.py` has them."""
  mean, deviation = (
    torch.tensor(v, device=images.device).reshape(1, 3, 1, 1)
    for v in (_MEAN, _DEVIATION)
  )
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


def make_loss(o, work):
  """`(images, targets) -> loss`, both in [-1, 1]."""
  arrays = {
    name: torch.tensor(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a).to(o.device)
    for name, a in np.load(work / 'features.npz').items()
  }
  if o.loss == 'fallback':
    kernels = [(n.split('/')[0], a) for n, a in arrays.items() if n.endswith('kernel')]
    options = {n: o[n] for n in ('features', 'pyramid', 'scales')}
    return lambda a, b: fallback(kernels, (a + 1) / 2, (b + 1) / 2, **options)
  from utils_ import loss as official

  # Theirs looks at 224 pixels.
  resize = functools.partial(functional.interpolate, size=(o.loss_side, o.loss_side))
  official.F = types.SimpleNamespace(
    interpolate=lambda x, size, **options: resize(x, **options)
  )
  loss = official.VGGPerceptualLoss().to(o.device)
  convolutions = [m for m in loss.modules() if isinstance(m, torch.nn.Conv2d)]
  names = dict.fromkeys(n.split('/')[0] for n in arrays)
  with torch.no_grad():
    for module, name in zip(convolutions, names, strict=True):
      module.weight.copy_(arrays[f'{name}/kernel'])
      module.bias.copy_(arrays[f'{name}/bias'])
  return loss


def main(folder, work):
  """Trains, and writes what was found and how long it took."""
  autolink_official.stand_ins()
  sys.path.insert(0, folder)
  from models.decoder import Decoder
  from models.encoder import Encoder

  work = pathlib.Path(work)
  o = autolink_official.HyperParameters(json.loads((work / 'options.json').read_text()))
  torch.manual_seed(o.seed)
  encoder, decoder = Encoder(o).to(o.device), Decoder(o).to(o.device)
  # Theirs draws at 128 pixels unless it is told otherwise.
  decoder.rasterize = functools.partial(decoder.rasterize, output_size=o.side)
  loss_fn = make_loss(o, work)
  scaler = torch.amp.GradScaler(o.device, enabled=o.half)
  images = np.load(work / 'images.npz')
  train = torch.from_numpy(images['train']).to(o.device)
  parameters = [p for m in (encoder, decoder) for p in m.parameters()]
  optimiser = torch.optim.AdamW(
    [p for p in parameters if p.requires_grad], lr=o.lr, weight_decay=o.weight_decay
  )
  seconds, losses = [], []
  for step in range(o.steps):
    start = time.perf_counter()
    batch = as_input(train[torch.randint(len(train), (o.batch,), device=o.device)])
    if o.flip:
      mirrored = torch.rand(o.batch, 1, 1, 1, device=o.device) < 0.5
      batch = torch.where(mirrored, batch.flip(-1), batch)
    with torch.autocast(o.device, torch.float16, enabled=o.half):
      made = decoder(encoder({'img': batch}, need_masked_img=True))
      loss = loss_fn(made['img'], batch)
    optimiser.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    losses.append(float(loss.detach()))  # Waits for the device.
    seconds.append(time.perf_counter() - start)
    if step % 20 == 0:
      print(f'official step {step} loss {losses[-1]:.4f}', flush=True)
  encoder.eval()
  decoder.eval()
  found = {}
  with torch.no_grad():
    for part in ('fit', 'test'):
      batches = torch.from_numpy(images[part]).to(o.device).split(64)
      places = [encoder({'img': as_input(b)})['keypoints'] for b in batches]
      found[part] = torch.cat(places)
    keep = torch.from_numpy(images['keep']).to(o.device).permute(0, 3, 1, 2)
    places = found['test'][: len(keep)]
    seen = as_input(torch.from_numpy(images['test'][: len(keep)]).to(o.device)) * keep
    for name, shift in (('own', 0), ('others', 1)):
      batches = zip(places.roll(shift, 0).split(64), seen.split(64), strict=True)
      made = [decoder({'keypoints': k, 'damaged_img': d})['img'] for k, d in batches]
      found[name] = ((torch.cat(made) + 1) / 2).permute(0, 2, 3, 1)
  found = {name: array.float().cpu().numpy() for name, array in found.items()}
  np.savez(work / 'found.npz', **found)
  told = {'seconds': seconds, 'losses': losses, 'torch': torch.__version__}
  (work / 'told.json').write_text(json.dumps(told))


def as_input(images):
  """`[n, S, S, 3]` uint8 -> `[n, 3, S, S]` float32 in [-1, 1]."""
  return images.permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == '__main__':
  main(*sys.argv[1:])
