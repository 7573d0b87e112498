"""What AutoLink's official PyTorch code computes, for `benchmarks.autolink_parity`.

  TORCH_PYTHON autolink_official.py FOLDER OUTPUT CASE.json

Runs in an interpreter with torch and numpy and nothing else. FOLDER is a copy of the
authors' repository, whose encoder, decoder and loss are used as they are. Lightning,
which they only name in annotations, and torchvision, of which they only want VGG16,
stand in as little modules made here: VGG16 from its published layout, with random
weights. OUTPUT is a folder for `arrays.npz` and the weights, `vgg16.pth`.
"""

import json
import pathlib
import sys
import types

import numpy as np
import torch
from torch import nn

# Channels of the convolutions of VGG16's features; 'pool' halves.
LAYOUT = (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool', 512, 512, 512)


class HyperParameters(dict):
  """Read by attribute and by item, as the official code does both."""

  __getattr__ = dict.__getitem__


def vgg16(**_):
  """The first layers of VGG16; the same random weights at every call."""
  generator = torch.Generator().manual_seed(0)
  modules, before = [], 3
  for width in LAYOUT:
    if width == 'pool':
      modules.append(nn.MaxPool2d(2, 2))
      continue
    conv = nn.Conv2d(before, width, 3, padding=1)
    with torch.no_grad():
      conv.weight.normal_(0, (2 / (9 * before)) ** 0.5, generator=generator)
      conv.bias.normal_(0, 0.1, generator=generator)
    modules += [conv, nn.ReLU(inplace=True)]
    before = width
  return types.SimpleNamespace(features=nn.Sequential(*modules))


def stand_ins():
  """Puts the packages that the official code names in their places."""
  lightning = types.ModuleType('pytorch_lightning')
  lightning.LightningModule = type('LightningModule', (), {'hparams': dict})
  lightning.utilities = types.SimpleNamespace(
    parsing=types.SimpleNamespace(AttributeDict=dict)
  )
  vision = types.ModuleType('torchvision')
  vision.models = types.SimpleNamespace(vgg16=vgg16)
  sys.modules |= {'pytorch_lightning': lightning, 'torchvision': vision}


def perturb(module):
  """Gives biases, scales and statistics values that training would: all differ."""
  with torch.no_grad():
    for part in module.modules():
      if isinstance(part, nn.Conv2d):
        part.bias.normal_(0, 0.05)
      if isinstance(part, nn.BatchNorm2d):
        part.weight.normal_(1, 0.1)
        part.bias.normal_(0, 0.1)
        part.running_mean.normal_(0, 0.2)
        part.running_var.uniform_(0.5, 1.5)


def main(folder, output, case):
  """Computes one case and writes it."""
  stand_ins()
  sys.path.insert(0, folder)
  from models.decoder import Decoder
  from models.encoder import Encoder
  from utils_.loss import VGGPerceptualLoss

  output = pathlib.Path(output)
  case = HyperParameters(json.loads(pathlib.Path(case).read_text()))
  torch.manual_seed(case.seed)
  encoder, decoder, loss = Encoder(case), Decoder(case), VGGPerceptualLoss()
  parts = nn.ModuleDict({'encoder': encoder, 'decoder': decoder})
  perturb(parts)
  with torch.no_grad():
    decoder.alpha.fill_(0.8)
    if case.trained:
      # Links that differ, and heat-maps with peaks in different places.
      decoder.skeleton_scalar.normal_(0, 1 / case.sklr)
      encoder.detector.conv[-1].weight.mul_(4)
  vgg = {f'features.{n}': v for n, v in vgg16().features.state_dict().items()}
  # The layout before PyTorch 1.6, in which torchvision's file is.
  torch.save(vgg, output / 'vgg16.pth', _use_new_zipfile_serialization=False)

  images = torch.rand(case.batch, 3, 9, 9)
  images = nn.functional.interpolate(images, size=(128, 128), mode='bicubic')
  images = (images + 0.1 * torch.randn_like(images)).clamp(0, 1) * 2 - 1
  arrays = {'images': images}
  start = {n: v.clone() for n, v in parts.state_dict().items()}
  arrays |= {f'state/{n}': v for n, v in start.items()}
  masks = {}
  for bits, dtype in ((32, torch.float32), (64, torch.float64)):
    parts.load_state_dict(start)
    parts.to(dtype)
    loss.to(dtype)
    for mode in ('eval', 'train'):
      parts.train(mode == 'train')
      with torch.set_grad_enabled(mode == 'train'):
        made = see(encoder, decoder, images.to(dtype), masks, mode)
        value = loss(made['img'], images.to(dtype))
      arrays |= {
        f'{mode} {bits}/keypoints': made['keypoints'],
        f'{mode} {bits}/masked': made['damaged_img'],
        f'{mode} {bits}/edge_map': made['heatmap'],
        f'{mode} {bits}/reconstruction': made['img'],
        f'{mode} {bits}/loss': value,
      }
    parts.zero_grad()
    value.backward()
    for name, parameter in parts.named_parameters():
      if parameter.grad is not None:
        arrays[f'gradient {bits}/{name}'] = parameter.grad.clone()
    arrays |= {
      f'after {bits}/{n}': v.clone()
      for n, v in parts.state_dict().items()
      if 'running' in n
    }
  arrays = {n: v.detach().numpy() for n, v in arrays.items()}
  np.savez(output / 'arrays.npz', torch=torch.__version__, **arrays)


def see(encoder, decoder, images, masks, mode):
  """What encoder and decoder make; the mask of a mode is drawn once, in float32."""
  found = encoder({'img': images}, need_masked_img=True)
  keep = masks.setdefault(mode, found['damaged_img'] != 0)
  return decoder(found | {'damaged_img': images * keep})


if __name__ == '__main__':
  main(*sys.argv[1:])
