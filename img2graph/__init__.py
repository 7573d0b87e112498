"""img2graph: images in, graphs out, no labels."""

__version__ = '0.1.0'
