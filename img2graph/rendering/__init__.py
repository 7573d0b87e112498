"""Drawing graphs as images, differentiable in positions, weights and widths.

Positions are (x, y) in [-1, 1], see `img2graph.geometry`; drawings are `[B, H, W]`,
ink is bright.
"""

from img2graph.rendering.segments import draw_edges
from img2graph.rendering.segments import draw_graph

__all__ = ['draw_edges', 'draw_graph']
