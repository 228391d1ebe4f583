"""The VAE: details that no LoRA can learn, because the base model cannot store them."""

from collections.abc import Sequence

import numpy as np

from lorascope.records import Confidence, Finding, Severity
from lorascope.rules.rule import Rule, Seen

EDGES_KEPT = 0.7  # share of the gradient magnitude; methods: starting value, not fitted
SSIM_LOW = 0.6  # methods: starting value; model cards report .69 to .73 on photographs
OUTLIER_MADS = 2.0  # below the set's median


def detail_lost(seen: Seen) -> Sequence[Finding]:
    """Find images that come back from the VAE without their detail."""
    vae = seen["vae"]
    rows = vae.table("images")
    if not rows:
        return []
    ssim = np.array([row["ssim"] for row in rows], dtype=float)
    edges = np.array([row["edges"] for row in rows], dtype=float)
    spread = float(np.median(np.abs(ssim - np.median(ssim))))
    low = (edges < EDGES_KEPT) | (
        (ssim < SSIM_LOW) & (ssim < np.median(ssim) - OUTLIER_MADS * spread)
    )
    if not low.any():
        return []
    worst = int(np.where(low)[0][np.argmin(ssim[low])])
    image = str(rows[worst]["image"])
    return [
        Finding(
            code="VAE-DETAIL-LOSS",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            subject={
                "image": image,
                "x": rows[worst]["worst_x"],
                "y": rows[worst]["worst_y"],
            },
            numbers={"images": float(low.sum()), "ssim": ssim[worst], "edges": edges[worst]},
            n=len(rows),
            text=f"{low.sum()} of {len(rows)} images lose detail in the VAE alone; worst is "
            f"{image} (SSIM {ssim[worst]:.2f}, {edges[worst]:.0%} of its edges kept). What the "
            "VAE drops, no LoRA can learn.",
            fix="Crop or zoom so that the detail spans at least three latent cells (24 px at the "
            "training size), train at a higher resolution, or leave these images out.",
            command="lorascope vae RUN",
            because=(vae.id,),
        )
    ]


DETAIL_LOSS = Rule(
    code="VAE-DETAIL-LOSS",
    uses=("vae",),
    judge=detail_lost,
    means="Images come back from the VAE without detail that was in them. Training works on what "
    "the VAE keeps, so this is lost before the first step, and is not underfitting.",
    evidence="Every image encoded and decoded at training size: SSIM and edges kept.",
    sure="Medium: the loss is certain, whether the lost detail matters is for you to see.",
    do="Crop or zoom on the detail, raise the training resolution, or use another base model.",
)
