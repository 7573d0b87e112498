"""Drawing graphs as images, differentiable in positions, weights and widths.

`draw_edges` draws segments from their distance field, `draw_templates` copies an image
of an edge with a spatial transformer. Positions are (x, y) in [-1, 1], see
`img2graph.geometry`; drawings are `[B, H, W]`, ink is bright.
"""

from img2graph.rendering.segments import draw_edges
from img2graph.rendering.segments import draw_graph
from img2graph.rendering.templates import draw_templates
from img2graph.rendering.templates import line_template

__all__ = ['draw_edges', 'draw_graph', 'draw_templates', 'line_template']
