"""The default recipe of configs/simple_shapes.py, written as PyTorch users would.

The twin of `img2graph.methods.image_graph_image` with proposals, segment edges, soft-or
drawing and the pyramid loss: the same parameters, the same loss, autograd everywhere.
`benchmarks/training.py` starts it as a process of another interpreter, which needs
torch and numpy and nothing else, and asks it by lines of JSON (see `main`).

Images are `[B, 1, H, W]`, positions (x, y) in [-1, 1] with -1 and 1 the outer edges of
the image (`align_corners=False`). Letters: B batch, N nodes, P node pairs, E edges.
"""

import functools
import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def canonical_image(images, side, floor, gain):
  """Line drawings in one common look, `[B, 1, side, side]`."""
  factor = -(-images.shape[-1] // side)
  if factor * side != images.shape[-1]:
    images = F.interpolate(
      images, size=(factor * side, factor * side), mode='bilinear', align_corners=False
    )
  if factor > 1:
    images = F.max_pool2d(images, factor)
  kernel = torch.tensor([1.0, 2.0, 1.0], device=images.device) / 4
  x = F.conv2d(images, torch.outer(kernel, kernel)[None, None], padding=1)
  # The grey of the paper: the lower quartile of the means of small blocks.
  means = F.avg_pool2d(x, max(side // 16, 1)).flatten(1)
  paper = means.kthvalue(means.shape[1] // 4 + 1, dim=1).values
  x = F.relu(x - paper[:, None, None, None])
  x = F.relu(x - floor * x.amax(dim=(1, 2, 3), keepdim=True))
  square = (x**2).sum(dim=(1, 2, 3), keepdim=True)
  cube = (x**3).sum(dim=(1, 2, 3), keepdim=True)
  level = torch.where(square > 1e-6, cube / square.clamp(min=1e-6), 1.0)
  return (gain * x / level.clamp(min=1e-6)).clamp(0, 1)


def gumbel_like(x):
  return -torch.empty_like(x).exponential_().log()


class ProposalNodes(nn.Module):
  """Corner heat-map with offsets, and the best N proposals of it."""

  def __init__(
    self,
    *,
    capacity,
    width,
    blocks,
    cell,
    offset_range,
    initial_bias,
    min_distance,
    noise,
    noise_until,
  ):
    super().__init__()
    self.capacity, self.cell, self.offset_range = capacity, cell, offset_range
    self.initial_bias, self.min_distance = initial_bias, min_distance
    self.noise, self.noise_until = noise, noise_until
    self.stem = nn.Conv2d(cell * cell, width, 3, padding=1)
    self.blocks = nn.ModuleList(
      nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks)
    )
    self.norm = nn.RMSNorm(width, eps=1e-6)
    self.head = nn.Linear(width, 3)

  def forward(self, images, progress):
    batch, _, side, _ = images.shape
    x = F.relu(self.stem(F.pixel_unshuffle(images, self.cell)))
    for block in self.blocks:
      x = x + F.relu(block(x))
    grid = x.shape[-1]
    x = self.norm(x.permute(0, 2, 3, 1)).reshape(batch, grid * grid, -1)
    head = self.head(x)
    logits = head[..., 0] + self.initial_bias
    ticks = (2 * torch.arange(grid, device=x.device) + 1) / grid - 1
    y, x = torch.meshgrid(ticks, ticks, indexing='ij')
    centres = torch.stack([x, y], dim=-1).reshape(-1, 2)
    positions = centres + self.offset_range * (2 / grid) * torch.tanh(head[..., 1:])
    scores = logits.detach()
    scale = self.noise * (1 - progress / self.noise_until).clamp(0, 1)
    scores = scores + scale * gumbel_like(scores)
    indices = self.select(scores, positions.detach(), 2 * self.min_distance / side)
    chosen = positions.gather(1, indices[..., None].expand(-1, -1, 2))
    return chosen, torch.sigmoid(logits.gather(1, indices))

  @torch.no_grad()
  def select(self, scores, positions, min_distance):
    """Greedily, none too near to a better one: `[B, N]` indices."""
    indices = []
    for _ in range(self.capacity):
      best = scores.argmax(dim=1, keepdim=True)
      chosen = positions.gather(1, best[..., None].expand(-1, -1, 2))
      near = ((positions - chosen) ** 2).sum(-1) < min_distance**2
      scores = scores.masked_fill(near, -math.inf)
      indices.append(best)
    return torch.cat(indices, dim=1)


class SegmentEdges(nn.Module):
  """A perceptron over samples of the image along each node pair."""

  def __init__(self, *, along, across, spread, hidden):
    super().__init__()
    self.along, self.across, self.spread = along, across, spread
    self.mlp = nn.Sequential(
      nn.Linear(along * across, hidden),
      nn.ReLU(),
      nn.Linear(hidden, hidden),
      nn.ReLU(),
      nn.Linear(hidden, 1),
    )

  def forward(self, images, start, end):
    start, end = start.detach(), end.detach()
    edge = end - start
    length = torch.sqrt((edge**2).sum(-1, keepdim=True) + 1e-12)
    normal = torch.stack([-edge[..., 1], edge[..., 0]], dim=-1) / length
    t = torch.linspace(0, 1, self.along, device=images.device)[:, None, None]
    reach = self.spread * 2 / images.shape[-1]
    offsets = torch.linspace(-reach, reach, self.across, device=images.device)[:, None]
    points = (
      start[:, :, None, None]
      + t * edge[:, :, None, None]
      + offsets * normal[:, :, None, None]
    )  # [B, P, along, across, 2]
    samples = F.grid_sample(images, points.flatten(2, 3), align_corners=False)
    samples = samples[:, 0].unflatten(2, (self.along, self.across))
    both = torch.stack([samples, samples.flip(2, 3)], dim=2).flatten(3)
    return self.mlp(both)[..., 0].mean(-1)


class SegmentRenderer(nn.Module):
  """Soft lines from a distance field, composed by a soft or."""

  def __init__(
    self,
    *,
    max_edges,
    half_width,
    width_rate,
    softness,
    compose,
    noise,
    noise_until,
    limit=0.999,
  ):
    super().__init__()
    if compose != 'soft_or':
      raise ValueError(f"the twin composes by 'soft_or' only; got {compose!r}.")
    self.max_edges, self.half_width = max_edges, half_width
    self.width_rate, self.softness, self.limit = width_rate, softness, limit
    self.noise, self.noise_until = noise, noise_until
    self.log_half_width = nn.Parameter(torch.zeros(()))

  def forward(self, start, end, weight, side, progress):
    if self.max_edges < weight.shape[1]:
      scores = torch.log(weight.detach() + 1e-9)
      scale = self.noise * (1 - progress / self.noise_until).clamp(0, 1)
      scores = scores + scale * gumbel_like(scores)
      index = scores.topk(self.max_edges, dim=1).indices
      start = start.gather(1, index[..., None].expand(-1, -1, 2))
      end = end.gather(1, index[..., None].expand(-1, -1, 2))
      weight = weight.gather(1, index)
    half_width = self.half_width * torch.exp(self.width_rate * self.log_half_width)
    # x and y apart, `[B, E, H, W]` each, and a sum of logarithms: on a CPU three times
    # as fast as points `[B, E, H, W, 2]` and torch.prod, eagerly and compiled.
    ticks = (2 * torch.arange(side, device=start.device) + 1) / side - 1
    x, y = ticks[None, :], ticks[:, None]
    start_x, start_y = start[..., 0, None, None], start[..., 1, None, None]
    edge_x = end[..., 0, None, None] - start_x
    edge_y = end[..., 1, None, None] - start_y
    offset_x, offset_y = x - start_x, y - start_y
    length_sq = (edge_x**2 + edge_y**2).clamp(min=1e-12)
    along = ((offset_x * edge_x + offset_y * edge_y) / length_sq).clamp(0, 1)
    distance_sq = (offset_x - along * edge_x) ** 2 + (offset_y - along * edge_y) ** 2
    distance = torch.sqrt(distance_sq + 1e-12) * (side / 2)  # Pixels.
    ink = ((half_width + self.softness / 2 - distance) / self.softness).clamp(0, 1)
    factors = 1 - self.limit * weight[..., None, None] * ink
    return 1 - torch.exp(torch.log(factors).sum(dim=1))


def pyramid_loss(drawing, target, scales):
  total = 0
  for scale in range(scales):
    if scale:
      drawing, target = F.avg_pool2d(drawing, 2), F.avg_pool2d(target, 2)
    error = ((drawing - target) ** 2).sum(dim=(1, 2, 3)).mean()
    energy = (target**2).sum(dim=(1, 2, 3)).mean()
    total = total + error / energy.clamp(min=1e-6)
  return total / scales


class PyramidLoss(nn.Module):
  """Squared errors at several scales and what the graph costs."""

  def __init__(self, *, weight, scales, length_cost, edge_cost, node_cost, cost_ramp):
    super().__init__()
    self.weight, self.scales, self.cost_ramp = weight, scales, cost_ramp
    self.length_cost, self.edge_cost = length_cost, edge_cost
    self.node_cost = node_cost

  def forward(self, drawing, target, start, end, weight, prob, progress):
    lengths = torch.sqrt(((start - end) ** 2).sum(-1) + 1e-12) / 2
    cost = (weight * (self.length_cost * lengths + self.edge_cost)).sum(-1)
    cost = (cost + self.node_cost * prob.sum(-1)).mean()
    low, high = self.cost_ramp
    ramp = ((progress - low) / (high - low)).clamp(0, 1)
    error = pyramid_loss(drawing[:, None], target, self.scales)
    return self.weight * error + ramp * cost


class AutoEncoder(nn.Module):
  """Image, graph, drawing and loss, from `config.method`."""

  def __init__(self, config):
    super().__init__()
    config = dict(config)
    kinds = [config[p]['kind'] for p in ('nodes', 'edges', 'renderer', 'loss')]
    if kinds != ['proposals', 'segment', 'segments', 'pyramid'] or config['refiner']:
      raise ValueError(f'the twin is that of the default recipe; got {kinds}.')

    def options(part):
      return {k: v for k, v in config[part].items() if k != 'kind'}

    self.canonical_form = config['canonical_form']
    self.nodes = ProposalNodes(capacity=config['capacity'], **options('nodes'))
    self.edges = SegmentEdges(**options('edges'))
    self.renderer = SegmentRenderer(**options('renderer'))
    self.loss = PyramidLoss(**options('loss'))
    pairs = torch.triu_indices(config['capacity'], config['capacity'], offset=1)
    self.register_buffer('pairs', pairs)

  def ends_and_pair_prob(self, positions, prob):
    i, j = self.pairs
    return positions[:, i], positions[:, j], prob[:, i] * prob[:, j]

  def forward(self, images, progress):
    x = canonical_image(images, **self.canonical_form)
    positions, prob = self.nodes(x, progress)
    start, end, pair_prob = self.ends_and_pair_prob(positions, prob)
    weight = pair_prob * torch.sigmoid(self.edges(x, start, end))
    drawing = self.renderer(start, end, weight, x.shape[-1], progress)
    return self.loss(drawing, x, start, end, weight, prob, progress)

  @torch.no_grad()
  def load_jax(self, params):
    """Copies the JAX model's parameters, `{'node_head/net/stem/kernel': array}`."""
    names = {
      'node_head/net/stem': self.nodes.stem,
      'node_head/net/head': self.nodes.head,
    }
    for k, block in enumerate(self.nodes.blocks):
      names[f'node_head/net/block_{k}'] = block
    for k, layer in enumerate(('hidden_0', 'hidden_1', 'logit')):
      names[f'edge_head/{layer}'] = self.edges.mlp[2 * k]
    targets = {
      'node_head/net/norm/scale': self.nodes.norm.weight,
      'renderer/log_half_width': self.renderer.log_half_width,
    }
    for name, layer in names.items():
      targets[f'{name}/kernel'] = layer.weight
      targets[f'{name}/bias'] = layer.bias
    if set(targets) != set(params):
      raise ValueError(
        f'parameters differ: {sorted(set(targets) ^ set(params))} are on one side only.'
      )
    for name, target in targets.items():
      value = torch.from_numpy(params[name])
      # Kernels are HWIO and [in, out] there, OIHW and [out, in] here.
      if value.ndim == 4:
        value = value.permute(3, 2, 0, 1)
      elif value.ndim == 2:
        value = value.T
      target.copy_(value)


class Twin:
  """The model with weights and a batch, and what is timed of it by name.

  Attributes:
    runs: `{name: function without arguments}`; see `benchmarks/training.py`.
  """

  def __init__(self, path, *, device, compiled):
    arrays = np.load(path)
    config = json.loads(str(arrays['config']))
    self.device = device
    self.model = AutoEncoder(config['method'])
    prefix = 'params/'
    self.model.load_jax(
      {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
    )
    self.model.to(device)
    images = torch.from_numpy(arrays['image']).permute(0, 3, 1, 2).contiguous()
    self.images = images.to(device)
    self.wrap = torch.compile if compiled else lambda function: function
    # The parts are compiled one by one to be timed alone, and as a whole in the step.
    self.whole = self.wrap(self.model)
    self.progress = self.tensor(float(arrays['progress']))
    self.runs = {
      'forward': self.forward,
      'gradient': self.gradient,
      'step': self.training_step(config['optim'], config['train_steps']),
      **self.part_runs(),
    }

  def tensor(self, value):
    return torch.tensor(value, dtype=torch.float32, device=self.device)

  def forward(self):
    with torch.no_grad():
      return self.whole(self.images, self.progress)

  def gradient(self):
    loss = self.whole(self.images, self.progress)
    return loss, torch.autograd.grad(loss, list(self.model.parameters()))

  def training_step(self, optim, train_steps):
    parameters = list(self.model.parameters())
    optimizer = torch.optim.Adam(
      parameters, lr=optim['lr'], betas=(optim['b1'], optim['b2'])
    )
    final = optim['final_fraction']

    def factor(step):
      wave = 0.5 * (1 + math.cos(math.pi * min(step / train_steps, 1)))
      return final + (1 - final) * wave

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step():
      optimizer.zero_grad()
      loss = self.whole(self.images, self.progress)
      loss.backward()
      nn.utils.clip_grad_norm_(parameters, optim['clip_norm'])
      optimizer.step()
      schedule.step()
      return loss

    return step

  def part_runs(self):
    """Each part alone: forward, and forward and backward to inputs and parameters."""
    model, progress = self.model, self.progress
    side = model.canonical_form['side']
    with torch.no_grad():
      x = canonical_image(self.images, **model.canonical_form)
      positions, prob = model.nodes(x, progress)
      start, end, pair_prob = model.ends_and_pair_prob(positions, prob)
      weight = pair_prob * torch.sigmoid(model.edges(x, start, end))
      drawing = model.renderer(start, end, weight, side, progress)

    wrap = self.wrap
    canonical, nodes, edges = map(wrap, (canonical_image, model.nodes, model.edges))
    renderer, loss = map(wrap, (model.renderer, model.loss))
    parts = {
      'encoder': (lambda: nodes(x, progress), (), model.nodes),
      'edges': (lambda: (edges(x, start, end),), (), model.edges),
      'renderer': (
        lambda start, end, weight: (renderer(start, end, weight, side, progress),),
        (start, end, weight),
        model.renderer,
      ),
      'loss': (
        lambda drawing, start, end, weight, prob: (
          loss(drawing, x, start, end, weight, prob, progress),
        ),
        (drawing, start, end, weight, prob),
        model.loss,
      ),
    }

    def forward(function, inputs):
      with torch.no_grad():
        return function(*inputs)

    def backward(function, inputs, parameters):
      inputs = [tensor.requires_grad_() for tensor in inputs]
      total = sum((output**2).sum() for output in function(*inputs))
      return torch.autograd.grad(total, parameters + inputs)

    runs = {'canonical': lambda: canonical(self.images, **model.canonical_form)}
    for name, (function, inputs, module) in parts.items():
      runs[name] = functools.partial(forward, function, inputs)
      runs[f'{name}_gradient'] = functools.partial(
        backward,
        function,
        [tensor.clone() for tensor in inputs],
        list(module.parameters()),
      )
    return runs

  def check(self, progress):
    """Loss and norm of its gradient, to be compared with the JAX side's."""
    loss = self.whole(self.images, self.tensor(progress))
    grads = torch.autograd.grad(loss, list(self.model.parameters()))
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    return {'loss': loss.item(), 'grad_norm': norm.item()}

  def time(self, name, calls):
    """Wall and processor seconds of one call, means of `calls`."""
    self.synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(calls):
      self.runs[name]()
    self.synchronize()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return wall / calls, cpu / calls

  def synchronize(self):
    if self.device == 'cuda':
      torch.cuda.synchronize()


def main():
  """Answers lines of JSON on stdin by lines of JSON on stdout.

  `{"load": FILE, "device", "threads", "compiled"}` must come first; then
  `{"check": progress}` and `{"time": name, "calls": n}`.
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
    elif 'check' in request:
      answer = twin.check(request['check'])
    else:
      answer = twin.time(request['time'], request['calls'])
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
