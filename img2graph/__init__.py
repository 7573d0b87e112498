"""img2graph: images in, graphs out, no labels."""

__version__ = '0.1.0'

# Loaded when first asked for: they need jax, and `import img2graph` should not.
_LAZY = ('Predictor', 'predict_file', 'predict_files')


def __getattr__(name):
  if name in _LAZY:
    from img2graph import predict

    return getattr(predict, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted([*globals(), *_LAZY])
