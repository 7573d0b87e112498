"""The residual networks of `img2graph/encoding/resnet.py` as PyTorch users write them.

The same layers with the same names, and the training step of configs/affinity.py:
cross entropy, SGD with momentum and weight decay. `benchmarks/classifiers.py` starts it
as a process of another interpreter, which needs torch and numpy and nothing else, and
asks it by lines of JSON (see `main`). Images are `[B, 3, S, S]`.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# Layers of the stages, and whether their blocks are bottlenecks.
DEPTHS = {
  18: ((2, 2, 2, 2), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
}


class Block(nn.Module):
  """Two 3x3 convolutions, or a bottleneck, with a padded or projected short cut."""

  def __init__(self, inputs, outputs, *, stride, bottleneck, project):
    super().__init__()
    inside = outputs // 4
    plan = ((outputs, 3, stride), (outputs, 3, 1))
    if bottleneck:
      plan = ((inside, 1, 1), (inside, 3, stride), (outputs, 1, 1))
    convs, norms, channels = [], [], inputs
    for features, size, step in plan:
      convs.append(nn.Conv2d(channels, features, size, step, size // 2, bias=False))
      norms.append(nn.BatchNorm2d(features))
      channels = features
    self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
    self.stride, self.more = stride, outputs - inputs
    self.short = None
    if project and (self.more or stride > 1):
      self.short = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    y = x
    for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
      y = norm(conv(F.relu(y) if i else y))
    if self.short is not None:
      x = self.short(x)
    elif self.more or self.stride > 1:
      half = self.more // 2
      x = x[:, :, :: self.stride, :: self.stride]
      x = F.pad(x, (0, 0, 0, 0, half, self.more - half))
    return F.relu(x + y)


class ResNet(nn.Module):
  """Of 6n + 2 layers for 32 pixels ('cifar'), or of 18, 50 and 101 ('imagenet')."""

  def __init__(self, kind, depth, num_classes):
    super().__init__()
    small = kind == 'cifar'
    depths, bottleneck = ((depth // 6,) * 3, False) if small else DEPTHS[depth]
    channels = width = 16 if small else 64
    self.pool = not small
    if small:
      self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
    else:
      self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.norm = nn.BatchNorm2d(width)
    blocks, self.names = [], []
    for stage, layers in enumerate(depths):
      for layer in range(layers):
        features = width * 2**stage * (4 if bottleneck else 1)
        stride = 2 if stage and not layer else 1
        blocks.append(
          Block(
            channels,
            features,
            stride=stride,
            bottleneck=bottleneck,
            project=not small,
          )
        )
        self.names.append(f'stage{stage}_{layer}')
        channels = features
    self.blocks = nn.ModuleList(blocks)
    self.classifier = nn.Linear(channels, num_classes)

  def forward(self, x):
    x = F.relu(self.norm(self.stem(x)))
    if self.pool:
      x = F.max_pool2d(x, 3, 2, 1)
    for block in self.blocks:
      x = block(x)
    features = x.mean((2, 3))
    return features, self.classifier(features)

  def places(self):
    """`{name there: tensor here}`."""
    convs = {'stem': (self.stem, self.norm)}
    for name, block in zip(self.names, self.blocks, strict=True):
      for i, pair in enumerate(zip(block.convs, block.norms, strict=True)):
        convs[f'{name}/{i}'] = pair
      if block.short is not None:
        convs[f'{name}/short'] = tuple(block.short)
    found = {
      'params/classifier/kernel': self.classifier.weight,
      'params/classifier/bias': self.classifier.bias,
    }
    for name, (conv, norm) in convs.items():
      found[f'params/{name}_conv/kernel'] = conv.weight
      found[f'params/{name}_norm/scale'] = norm.weight
      found[f'params/{name}_norm/bias'] = norm.bias
      found[f'batch_stats/{name}_norm/mean'] = norm.running_mean
      found[f'batch_stats/{name}_norm/var'] = norm.running_var
    return found

  @torch.no_grad()
  def load_jax(self, arrays):
    """Copies the JAX network's variables, `{'params/stem_conv/kernel': array}`."""
    places = self.places()
    if set(places) != set(arrays):
      raise ValueError(
        f'variables differ: {sorted(set(places) ^ set(arrays))} are on one side only.'
      )
    for name, place in places.items():
      value = torch.from_numpy(arrays[name])
      # Kernels are HWIO and [in, out] there, OIHW and [out, in] here.
      if value.ndim == 4:
        value = value.permute(3, 2, 0, 1)
      elif value.ndim == 2:
        value = value.T
      place.copy_(value)


class Twin:
  """A network with weights and a batch."""

  def __init__(self, path, *, device, compiled):
    arrays = dict(np.load(path))
    about = json.loads(str(arrays.pop('about')))
    self.model = ResNet(**about['network'])
    images = torch.from_numpy(arrays.pop('image')).permute(0, 3, 1, 2)
    self.labels = torch.from_numpy(arrays.pop('label')).long().to(device)
    self.model.load_jax(arrays)
    # Channels last, which is what is faster, on processors too.
    self.model.to(device, memory_format=torch.channels_last)
    self.images = images.to(device, memory_format=torch.channels_last)
    self.device = device
    self.run = torch.compile(self.model) if compiled else self.model
    self.optimizer = torch.optim.SGD(
      self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4
    )

  def forward(self, path):
    """Features and logits with running statistics, to a file."""
    self.model.eval()
    with torch.no_grad():
      features, logits = self.model(self.images)
    self.model.train()
    np.savez(path, features=features.cpu().numpy(), logits=logits.cpu().numpy())

  def step(self):
    self.optimizer.zero_grad()
    F.cross_entropy(self.run(self.images)[1], self.labels).backward()
    self.optimizer.step()

  def time(self, calls):
    """Wall and processor seconds of a training step, means of `calls`."""
    self.synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(calls):
      self.step()
    self.synchronize()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return wall / calls, cpu / calls

  def synchronize(self):
    if self.device == 'cuda':
      torch.cuda.synchronize()


def main():
  """Answers lines of JSON on stdin by lines of JSON on stdout.

  `{"load": FILE, "device", "threads", "compiled"}` must come first; then
  `{"forward": FILE}` and `{"time": calls}`.
  """
  twin = None
  for line in sys.stdin:
    request = json.loads(line)
    if 'load' in request:
      torch.set_num_threads(request['threads'])
      twin = Twin(
        request['load'], device=request['device'], compiled=request['compiled']
      )
      answer = {'torch': torch.__version__, 'threads': torch.get_num_threads()}
    elif 'forward' in request:
      answer = twin.forward(request['forward'])
    else:
      answer = twin.time(request['time'])
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
