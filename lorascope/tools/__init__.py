"""The tools, in the order a user meets them."""

from lorascope.tools.adherence import ADHERENCE
from lorascope.tools.artefacts import ARTEFACTS
from lorascope.tools.copies import COPIES
from lorascope.tools.diversity import DIVERSITY
from lorascope.tools.drift import DRIFT
from lorascope.tools.grid import GRID
from lorascope.tools.heatmap import HEATMAP
from lorascope.tools.likeness import LIKENESS
from lorascope.tools.loss import LOSS
from lorascope.tools.stress import STRESS
from lorascope.tools.tags import TAGS
from lorascope.tools.vae import VAE
from lorascope.tools.weights import WEIGHTS

__all__ = [
    "ADHERENCE", "ARTEFACTS", "COPIES", "DIVERSITY", "DRIFT", "GRID", "HEATMAP", "LIKENESS",
    "LOSS", "STRESS", "TAGS", "TOOLS", "VAE", "WEIGHTS",
]  # fmt: skip

# What measures the pictures of the grid comes after it.
TOOLS = (
    LOSS, GRID, LIKENESS, ADHERENCE, DIVERSITY, DRIFT, COPIES, ARTEFACTS, STRESS, HEATMAP, TAGS,
    VAE, WEIGHTS,
)  # fmt: skip
