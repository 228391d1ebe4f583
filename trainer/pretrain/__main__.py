"""Rebuild the miniature: ``python -m trainer.pretrain``.

Stopped at any moment, the same command goes on from the last checkpoint.
"""

from pathlib import Path

import click

from trainer.pretrain import autoencoder, diffusion, drawings, export, tokenizer
from trainer.pretrain.drawings import BLOCK
from trainer.pretrain.settings import Settings
from trainer.pretrain.workers import in_processes

SHIPPED = Path(__file__).parents[2] / "lorascope" / "miniature" / "base"


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("build/miniature"),
    help="Drawings (3 GB), checkpoints and logs.",
    show_default=True,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=SHIPPED,
    help="The pipeline folder. [default: the one that the package ships]",
)
@click.option("--vae-minutes", default=Settings.vae_minutes, show_default=True)
@click.option("--diffusion-minutes", default=Settings.diffusion_minutes, show_default=True)
@click.option(
    "--drawings",
    "count",
    default=Settings.base,
    show_default=True,
    help="Of the tagged world; of the wide world there are four for every seven.",
)
@click.option("--processes", default=2, show_default=True, help="Of one thread each.")
def main(
    work: Path,
    out: Path,
    vae_minutes: float,
    diffusion_minutes: float,
    count: int,
    processes: int,
) -> None:
    """Draw, train the autoencoder, train text encoder and U-Net, write the pipeline."""
    settings = Settings(
        work=work,
        vae_minutes=vae_minutes,
        diffusion_minutes=diffusion_minutes,
        processes=processes,
        base=max(count // BLOCK, 2) * BLOCK,
        wide=max(count * 4 // 7 // BLOCK, 2) * BLOCK,
    )
    drawings.open_drawings(settings)
    in_processes(autoencoder.train, settings)
    autoencoder.encode_all(settings)
    if not (work / "tokenizer" / "merges.txt").exists():
        tokenizer.build(work / "tokenizer")
    in_processes(diffusion.train, settings)
    export.export(settings, out)
    click.echo(f"written: {out}")


if __name__ == "__main__":
    main()
