"""Settings that every test shares."""

import os

import hypothesis
import jax

# Programs here are run once or twice: compiling them is most of the time. Also in the
# processes that tests start.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
jax.config.update('jax_disable_most_optimizations', True)
# Four simulated devices, so that sharding is tested everywhere.
jax.config.update('jax_num_cpu_devices', 4)
# A silent broadcast between ranks has hidden more than one bug.
jax.config.update('jax_numpy_rank_promotion', 'raise')

# The first call of a jitted function compiles, which no deadline allows for.
hypothesis.settings.register_profile('img2graph', deadline=None, max_examples=25)
hypothesis.settings.load_profile('img2graph')
