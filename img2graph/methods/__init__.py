"""One file per published method: how the parts compose."""

from img2graph.methods.base import Method
from img2graph.methods.base import build

__all__ = ['Method', 'build']
