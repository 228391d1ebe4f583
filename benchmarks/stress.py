"""Planted saturation: LoRAs trained at twenty times their learning rate, beside healthy ones.

``python -m benchmarks.stress --work FOLDER`` draws small datasets of one character, trains each at
a healthy rate, at five and at twenty times of it (a minute each), and asks two tools:

- ``artefacts`` at strength 1: how many pictures, and how many LoRAs, are called spoilt;
- ``stress`` in both forms: where each saturates, and how well the form that draws nothing agrees
  with the one that draws, over LoRAs and epochs.

The folder keeps trainings and pictures: a run that was stopped goes on where it was.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy import stats

from lorascope import demo, storage, tables
from lorascope.io.dataset_file import read_dataset
from lorascope.metrics.artefacts import joint_z
from lorascope.metrics.strengths import SPOILT
from lorascope.miniature.datasets import write_character
from lorascope.records import Evidence, Measured, Row, Table
from lorascope.rules import strength as rules
from lorascope.run import Run
from lorascope.tools.artefacts import artefacts
from lorascope.tools.drawing.prompts import group_of
from lorascope.tools.stress import stress
from trainer.config import config_from
from trainer.loop import train

RESULTS = Path(__file__).parent / "results" / "stress.json"
FACTORS = {"healthy": 1, "five": 5, "twenty": 20}  # of the healthy learning rate
RATE, EPOCHS = 1.5e-3, 4
EARLY = 2  # an epoch that is asked as well, for the agreement of the two forms
IMAGES, REPEATS = 10, 12  # four of ten are held out: 18 steps an epoch
STEPS = 12  # sampling steps
STRENGTHS = "0,0.25,0.5,0.75,1,1.25,1.5,2"
BEYOND = 2.25  # stands for "not at any strength asked", which were up to 2, where ranks are taken


TOLD = (
    "epoch",
    "form",
    "saturation",
    "saturation_low",
    "saturation_high",
    "best",
    "half",
    "slope",
    "break_even",
)


def plant(work: Path, kind: str, seed: int) -> Run:
    """Train one LoRA; one that is there already is left as it is."""
    dataset = work / f"set-{seed}"
    if not dataset.exists():
        write_character(dataset, trigger=demo.TRIGGER, images=IMAGES, repeats=REPEATS, seed=seed)
    settings = {
        **demo.SETTINGS,
        "dataset": str(dataset),
        "epochs": EPOCHS,
        "unet_lr": RATE * FACTORS[kind],
        "warmup_steps": 20,
        "held_out": 0.4,
        "held_out_tag": "",
        "seed": seed,
    }
    return train(config_from(settings), work / f"{kind}-{seed}")


def ask(
    run: Run, *, epochs: str = f"{EARLY},{EPOCHS}", strengths: str = STRENGTHS
) -> tuple[Measured, Measured]:
    """Stress epochs in both forms, and look for artefacts at strength 1 of the last."""
    inputs = {role: run.input(role) for role in ("lora", "dataset", "base")}
    for role in ("samples", "features"):
        inputs[role] = storage.make_folder(run.place(role))
    stressed = stress(inputs, epochs=epochs, strengths=strengths, form="both", steps=STEPS)
    listed = run.path / "evidence" / "grid" / "drawn.cells.csv"
    storage.write_text(listed, tables.as_csv(_as_grid(run, stressed.tables["cells"])))
    return stressed, artefacts({"pictures": listed, "dataset": run.input("dataset")})


def _as_grid(run: Run, cells: Sequence[Row]) -> list[Row]:
    """List the pictures at strengths 0 and 1 of the last epoch as a grid would."""
    dataset = read_dataset(run.input("dataset"))
    kept = [c for c in cells if c["epoch"] == EPOCHS and c["strength"] in (0.0, 1.0)]
    across = len(kept) // 2
    return [
        {
            "cell": place,
            "row": place // across,
            "column": place % across,
            "kind": "lora" if cell["strength"] else "base",
            "epoch": cell["epoch"] if cell["strength"] else 0,
            "step": 0,
            "strength": cell["strength"],
            "text_strength": cell["strength"],
            "prompt": cell["prompt"],
            "group": group_of(str(cell["prompt"]), dataset),
            "seed": cell["seed"],
            "width": dataset.resolution[0],
            "height": dataset.resolution[1],
            "base": run.base,
            "baseline": place % across,
            "file": cell["file"],
        }
        for place, cell in enumerate(kept)
    ]


def judged(stressed: Measured, looked: Measured) -> set[str]:
    """Say which rules fire on the last epoch."""
    last = [row for row in stressed.tables["strengths"] if row["epoch"] == EPOCHS]
    seen = {"stress": _evidence({"strengths": last}), "artefacts": _evidence(looked.tables)}
    return {
        finding.code for rule in (rules.OVERSTRONG, rules.SATURATED) for finding in rule.judge(seen)
    }


def _evidence(tables_of: Mapping[str, Table]) -> Evidence:
    measured = Measured(numbers=(), tables=tables_of)
    return Evidence(tool="", version=1, params={}, inputs={}, measured=measured)


def of_pictures(looked: Measured) -> dict[str, Any]:
    """Give the artefact z of every picture at strength 1, and what another sum would say."""
    rows = looked.tables["cells"]
    joint = joint_z(looked.arrays["against_base"], looked.arrays["against_training"])
    drawn = slice(len(rows) // 2, None)
    three = np.sort(joint[drawn], axis=1)[:, -3:].mean(axis=1)
    return {
        "largest": [float(row["artefact_z"] or 0) for row in rows[drawn]],
        "three": three.tolist(),
        "worst": [str(row["worst"]) for row in rows[drawn]],
    }


def strengths(stressed: Measured) -> list[Row]:
    """Give what each epoch's curves come to."""
    return [
        {k: round(v, 3) if isinstance(v := row[k], float) else v for k in TOLD}
        for row in stressed.tables["strengths"]
    ]


def sum_up(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Put all LoRAs together: rates, and the agreement of the two forms."""
    by_kind = {kind: [f for f in found if f["kind"] == kind] for kind in FACTORS}
    rates: dict[str, Any] = {}
    for kind, some in by_kind.items():
        z = np.concatenate([f["pictures"]["largest"] for f in some])
        rates[kind] = {
            "loras": len(some),
            "pictures": len(z),
            "pictures_spoilt": _share(z > SPOILT),
            "median_z": round(float(np.median(z)), 2),
            "largest_z": round(float(z.max()), 2),
            **{
                code: _share([code in f["fired"] for f in some])
                for code in ("IMG-SATURATED", "WGT-OVERSTRONG")
            },
            **{
                f"saturation_up_to_1.2_{form}": _share(
                    [_at(f, EPOCHS, form, "saturation") <= rules.EARLY_SATURATION for f in some]
                )
                for form in rules.FORMS
            },
        }
    return {
        "by_kind": rates,
        "told_apart": {
            name: {kind: _auc(by_kind, kind, name) for kind in ("five", "twenty")}
            for name in ("largest", "three")
        },
        "agreement": _agreement(found),
        "agreement_without_twenty": _agreement([f for f in found if f["kind"] != "twenty"]),
    }


def _agreement(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the forms over all LoRAs and epochs, by rank and by size."""
    places = [(f, e) for f in found for e in (EARLY, EPOCHS)]
    drawn = np.array([_at(f, e, "sampled", "saturation") for f, e in places])
    agreed: dict[str, Any] = {"curves": len(places)}
    for name in ("saturation", "break_even"):
        guessed = np.array([_at(f, e, "x0", name) for f, e in places])
        both = (drawn < BEYOND) & (guessed < BEYOND)
        agreed[f"x0_{name}"] = {
            "spearman": round(float(stats.spearmanr(drawn, guessed).statistic), 3),
            "both_reached": int(both.sum()),
            "median_difference": round(float(np.median(guessed[both] - drawn[both])), 3),
            "median_distance": round(float(np.median(np.abs(guessed[both] - drawn[both]))), 3),
        }
    return agreed


def _at(found: dict[str, Any], epoch: int, form: str, name: str) -> float:
    row = next(r for r in found["strengths"] if (r["epoch"], r["form"]) == (epoch, form))
    return BEYOND if row[name] is None else float(row[name])


def _auc(by_kind: dict[str, list[dict[str, Any]]], kind: str, name: str) -> float:
    """How probable it is that a spoilt LoRA's picture has a higher z than a healthy one's."""
    bad, good = (
        np.concatenate([f["pictures"][name] for f in by_kind[k]]) for k in (kind, "healthy")
    )
    won = stats.mannwhitneyu(bad, good).statistic / (len(bad) * len(good))
    return round(float(won), 4)


def _share(values: Any) -> float:
    return round(float(np.mean(values)), 3)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=3, help="Datasets, and trainings of each kind.")
def main(work: Path, seeds: int) -> None:
    """Train, measure and write the table."""
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        for kind in FACTORS:
            stressed, looked = ask(plant(work, kind, seed))
            found.append(
                {
                    "kind": kind,
                    "seed": seed,
                    "fired": sorted(judged(stressed, looked)),
                    "strengths": strengths(stressed),
                    "pictures": of_pictures(looked),
                }
            )
            click.echo(f"{kind} {seed}: {found[-1]['fired']} {found[-1]['strengths']}")
    answer = sum_up(found)
    for one in found:
        one["pictures"] = {name: _short(values) for name, values in one["pictures"].items()}
    text = json.dumps(answer | {"loras": found}, indent=1) + "\n"
    click.echo(json.dumps(answer, indent=1))
    storage.write_text(RESULTS, text)


def _short(values: list[Any]) -> list[Any]:
    return [round(v, 2) if isinstance(v, float) else v for v in values]


if __name__ == "__main__":
    main()
