"""Scores of predicted graphs, each with its exact definition on top of its file."""

from img2graph.metrics.triplets import THRESHOLDS
from img2graph.metrics.triplets import combine
from img2graph.metrics.triplets import headline
from img2graph.metrics.triplets import score_graph
from img2graph.metrics.triplets import score_graphs

__all__ = ['THRESHOLDS', 'combine', 'headline', 'score_graph', 'score_graphs']
