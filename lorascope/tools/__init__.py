"""The tools, in the order a user meets them."""

from lorascope.tools.grid import GRID
from lorascope.tools.heatmap import HEATMAP
from lorascope.tools.loss import LOSS
from lorascope.tools.tags import TAGS
from lorascope.tools.vae import VAE
from lorascope.tools.weights import WEIGHTS

__all__ = ["GRID", "HEATMAP", "LOSS", "TAGS", "TOOLS", "VAE", "WEIGHTS"]

TOOLS = (LOSS, GRID, HEATMAP, TAGS, VAE, WEIGHTS)
