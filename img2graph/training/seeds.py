"""Several seeds of one config as one program: arrays get an axis of seeds in front.

The step is that of a single run, vmapped; over several devices seeds are shared out,
and each device holds whole ones. So no seed knows of the others: nothing is summed over
them, and NaN in one stays there. A single seed has no such axis, and its batch is split
over all devices instead.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from img2graph.training import parallel
from img2graph.training import state as states


class Seeds:
  """Where the seeds of one program lie.

  With `D` devices each gets `ceil(count / D)` of them. Where that does not come out
  even, the last seed is there more than once, and its copies are not looked at.

  Args:
    count: number of seeds, `K` below, >= 1.
    mesh: of `parallel.make_mesh`.
  """

  def __init__(self, count, mesh):
    self._count = count
    self._mesh = mesh
    if self.alone:
      return
    each = -(-count // mesh.size)
    used = -(-count // each)
    self._copies = each * used - count
    self._mesh = jax.make_mesh(
      (used,),
      mesh.axis_names,
      axis_types=(AxisType.Auto,),
      devices=mesh.devices.ravel()[:used],
    )
    spec = PartitionSpec('data')
    # The step is the same for all of them.
    self._specs = states.TrainState(
      step=PartitionSpec(),
      params=spec,
      collections=spec,
      opt_state=spec,
      ema=spec,
      nonfinite_step=spec,
    )
    self._pick = jax.jit(
      lambda tree, i: jax.tree.map(lambda x: x[i], tree),
      out_shardings=parallel.replicated(self._mesh),
    )

  @property
  def alone(self):
    """Whether there is one seed, without an axis of seeds."""
    return self._count == 1

  @property
  def batch_sharding(self):
    """What a step is to do with its batch: of a single seed it is split."""
    return parallel.sharded(self._mesh) if self.alone else None

  def stack(self, trees):
    """Arrays of all seeds, `[K...]`, from K pytrees of arrays on the devices."""
    return self._stack(trees, jnp.stack)

  def batch(self, batches):
    """The batches of all seeds on the devices, from K of numpy arrays.

    Of a single seed it is the batch of all processes, each of which has its part.
    """
    if self.alone:
      return parallel.global_batch(batches[0], parallel.sharded(self._mesh))
    return self._stack(batches, np.stack)

  def _stack(self, trees, stack):
    if self.alone:
      return trees[0]
    trees = [*trees, *self._copies * trees[-1:]]
    stacked = jax.tree.map(lambda *leaves: stack(leaves), *trees)
    return jax.device_put(stacked, parallel.sharded(self._mesh))

  def join(self, singles):
    """The state of all seeds, of K states of the same step."""
    if self.alone:
      return singles[0]
    step = jax.device_put(singles[0].step, parallel.replicated(self._mesh))
    singles = [dataclasses.replace(s, step=None) for s in singles]
    return dataclasses.replace(self.stack(singles), step=step)

  def pick(self, state, i):
    """The state of seed number `i`, replicated over the devices."""
    if self.alone:
      return state
    rest = self._pick(dataclasses.replace(state, step=None), i)
    return dataclasses.replace(rest, step=state.step)

  def each(self, values):
    """Numbers `{name: [] or [K...]}` of the devices as K dicts of floats."""
    values = jax.device_get(values)
    return [
      {n: float(np.atleast_1d(v)[i]) for n, v in values.items()}
      for i in range(self._count)
    ]

  def share(self, tree):
    """Arrays that all seeds look at, on every device; None stays None."""
    return jax.device_put(tree, parallel.replicated(self._mesh))

  def lower(self, function, state, key, last, shared=None, *, last_is_batch):
    """A step for all seeds, lowered (see `jax.stages`); its state is donated.

    Args:
      function: `(state, key, batch or data key, shared) -> (state, metrics)` of one
        seed.
      state: of `join`.
      key: of `stack`.
      last: of `stack`, or the shapes of a batch of one seed.
      shared: of `share`; None for nothing.
      last_is_batch: which of the two `last` is.
    """
    replicated = parallel.replicated(self._mesh)
    if self.alone:
      sharded = parallel.sharded(self._mesh) if last_is_batch else replicated
      shardings, out_shardings = (
        (replicated, replicated, sharded, replicated),
        replicated,
      )
    else:
      spec = PartitionSpec('data')
      axes = jax.tree.map(lambda s: 0 if s == spec else None, self._specs)
      function = jax.shard_map(
        jax.vmap(function, in_axes=(axes, 0, 0, None), out_axes=(axes, 0)),
        mesh=self._mesh,
        in_specs=(self._specs, spec, spec, PartitionSpec()),
        out_specs=(self._specs, spec),
        check_vma=False,  # Nothing is summed over devices.
      )
      to_sharding = lambda s: NamedSharding(self._mesh, s)  # noqa: E731
      sharded = to_sharding(spec)
      state_sharding = jax.tree.map(to_sharding, self._specs)
      shardings = (state_sharding, sharded, sharded, replicated)
      out_shardings = (state_sharding, sharded)
      if last_is_batch:
        size = self._count + self._copies
        last = jax.tree.map(
          lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), last
        )
    jitted = jax.jit(
      function, in_shardings=shardings, out_shardings=out_shardings, donate_argnums=0
    )
    return jitted.lower(state, key, last, shared)
