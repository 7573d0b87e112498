"""Sources of training images: drawn on the device, or read from files."""

import importlib
import inspect

# Name of the source -> module with a function `source(**options)`.
_MODULES = {
  'shapes': 'shapes',
  'strokes': 'strokes',
  'tfds_simple_shapes': 'simple_shapes_tfds',
  'image_folder': 'image_folder',
  'photos': 'photos',
  'photo_archive': 'photo_archive',
  'figures': 'figures',
  'labelled': 'labelled',
}


def build(source, **options):
  """The source of images of that name.

  Args:
    source: one of `_MODULES`.
    **options: the rest of `config.data`; see `source` in `img2graph.data.<module>`.

  Returns:
    A `sources.DeviceSource` or a `sources.HostSource`.

  Raises:
    ValueError: there is no source or no option of that name, or a value is wrong.
  """
  if source not in _MODULES:
    known = ', '.join(_MODULES)
    raise ValueError(f'there is no data source named {source!r}; there are {known}.')
  # Imported when asked for: a folder of images needs no generator, and the other way.
  module = importlib.import_module(f'img2graph.data.{_MODULES[source]}')
  # Generators list their options in `sample`, readers in `source`.
  parameters = inspect.signature(getattr(module, 'sample', module.source)).parameters
  known = {n: p for n, p in parameters.items() if n not in ('key', 'batch_size')}
  for name in options:
    if name not in known:
      raise ValueError(
        f'data source {source!r} has no option {name!r}; it has {", ".join(known)}.'
      )
  for name, parameter in known.items():
    if parameter.default is parameter.empty and name not in options:
      raise ValueError(f'data source {source!r} needs the option {name!r}.')
  return module.source(**options)
