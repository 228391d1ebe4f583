"""The size an image is trained at."""

import math

Size = tuple[int, int]  # width, height in px

STEP = 64  # px; Stable Diffusion's U-Nets halve their latent three times
FROM = 256  # px; a base model below it is trained at its own square only


def bucket(width: int, height: int, resolution: int) -> Size:
    """Choose the size an image is trained at.

    Parameters
    ----------
    width, height : int
        Of the image, px.
    resolution : int
        px, the side of a square whose area no bucket exceeds.

    Returns
    -------
    (width, height)
        Multiples of 64 px with the nearest aspect ratio between 1:4 and 4:1, the largest of these;
        below 256 px always the square itself.
    """
    if resolution < FROM:
        return resolution, resolution
    aspect = math.log(width / height)
    return min(
        buckets(resolution),
        key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]),
    )


def buckets(resolution: int) -> list[Size]:
    """List the sizes that images are trained at: see `bucket`."""
    shortest = max(STEP, resolution // 2 // STEP * STEP)
    sizes = set()
    for width in range(shortest, 2 * resolution + 1, STEP):
        height = resolution * resolution // width // STEP * STEP
        if height >= shortest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)
