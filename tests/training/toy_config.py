"""The toy's config as a file, for `--config`."""

from tests.training import toy

get_config = toy.get_config
