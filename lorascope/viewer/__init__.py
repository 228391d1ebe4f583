"""Grids to look at: one HTML file that holds everything, and GIFs along an axis."""

from lorascope.viewer.animation import write_gif
from lorascope.viewer.page import page_of, write_viewer, write_viewer_of

__all__ = ["page_of", "write_gif", "write_viewer", "write_viewer_of"]
