"""VAE: what does the base model's image code lose before any training?"""

import streamlit as st

from dashboards import cells, components, parts, pixels, thumbs
from lorascope.records import Row

TILE = 24  # px, where the evidence does not say
SHOWN = 132  # px, a tile on the page
WORST = 6


def tiles(row: Row, size: int) -> None:
    """Draw the worst place of one image, original beside decoded."""
    pair = [pixels.read(cells.file_of(page.run.path, row, f"file_{w}")) for w in BOTH]
    x, y = int(cells.number(row, "worst_x")), int(cells.number(row, "worst_y"))
    cut = [pixels.tile(p, x, y, size, shown=SHOWN) for p in pair if p is not None]
    if len(cut) == 2:
        st.image(cut, width=SHOWN)
        st.caption(
            f"{parts.plain(str(row['image']))}: {cells.number(row, 'worst_psnr'):.1f} dB "
            f"at {x}, {y} px"
        )


BOTH = ("original", "decoded")
page = parts.open_page("VAE", "vae")
found = parts.evidence_or_stop(
    page,
    "vae",
    shows="Every training image beside what the VAE makes of it: encoded, decoded, nothing else.",
    why="A detail that the VAE cannot hold will never be learnt, however long one trains. This "
    "tells it from a detail that was not learnt yet.",
    costs="One pass over the images; seconds to minutes.",
)
parts.numbers(
    found,
    {
        "psnr": "Whole picture, PSNR",
        "worst_psnr": "Worst place, PSNR",
        "ssim": "Structural similarity, 0 to 1",
        "edge_retention": "Edges kept",
    },
)
parts.caveats(found)
rows = sorted(found.table("images"), key=lambda r: cells.number(r, "psnr"))
kept = [r for r in rows if r.get("file_original") and r.get("file_decoded")]
if kept:
    names = [str(r["image"]) for r in kept]
    name = st.selectbox("Image, the worst first", names)
    row = kept[names.index(name)]
    urls = [
        thumbs.url(cells.file_of(page.run.path, row, f"file_{w}"), size=thumbs.LARGE) for w in BOTH
    ]
    if all(urls):
        sides = {
            "left": {"url": urls[0], "label": "original"},
            "right": {"url": urls[1], "label": "decoded"},
        }
        components.draw("compare", sides, key="compare")
        st.caption(
            f"Move over the picture. {cells.number(row, 'psnr'):.1f} dB, structural similarity "
            f"{cells.number(row, 'ssim'):.3f}, edges kept {cells.number(row, 'edges'):.0%}."
        )
    else:
        st.caption("The pictures of this image are missing; measure again to draw them.")
    st.subheader("Worst places")
    st.caption("Original on the left, decoded on the right, each pixel shown large.")
    size = found.params.get("tile")
    worst = sorted(kept, key=lambda r: cells.number(r, "worst_psnr"))[:WORST]
    for column, one in zip([*st.columns(3), *st.columns(3)], worst, strict=False):
        with column:
            tiles(one, size if isinstance(size, int) else TILE)
st.subheader("All images")
measures = ("image", "split", "psnr", "ssim", "edges", "worst_psnr")
parts.table([{k: r[k] for k in measures if k in r} for r in rows])
st.caption(f"psnr and worst_psnr in dB, ssim and edges from 0 to 1; n = {len(rows)} images.")
parts.why(
    found,
    "Each image is brought to its training size, encoded to the mean of its latent and decoded "
    "again. PSNR is the whole error, structural similarity its pattern, edges how much of the "
    "fine contrast is left.",
)
