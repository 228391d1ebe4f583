"""Artefacts of a set: spoilt rows stand out, healthy ones do not, whatever is missing is said."""

import numpy as np
import pytest

from lorascope import tables
from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import write_png
from lorascope.metrics.artefacts import MEASURES
from lorascope.run import run_of
from lorascope.tools.artefacts import ARTEFACTS, artefacts
from lorascope.tools.pictures.sets import TYPES
from tests.metrics.test_artefacts import blotch, burn, drawing

PROMPTS = ("zyx", "zyx, smile", "zyx, sky", "a house")
SIDE = 64


def dataset(root, pictures):
    images = []
    for number, picture in enumerate(pictures):
        file = root / "images" / f"{number:02}.png"
        write_png(file, picture)
        images.append(
            DatasetImage(
                file=file.name,
                sha256=f"{number:064}",
                caption="zyx, smile",
                repeats=1,
                split="train",
                width=SIDE,
                height=SIDE,
            )
        )
    found = Dataset(
        root=root / "images",
        trigger="zyx",
        class_word="",
        resolution=(SIDE, SIDE),
        images=tuple(images),
    )
    write_dataset(root / "run" / "train" / "dataset.json", found)


def grid(root, rows, *, base=True):
    """Write rows of pictures, each row changed in its own way, and their list."""
    listed = []
    for number, change in enumerate(rows):
        for column, prompt in enumerate(PROMPTS):
            picture = drawing(np.random.default_rng(column))
            if change is not None:
                picture = change(picture, np.random.default_rng(100 * number + column))
            name = f"samples/cells/{number:02}-{column:02}.png"
            write_png(root / "run" / name, picture)
            listed.append(
                {
                    "cell": number * len(PROMPTS) + column,
                    "row": number,
                    "column": column,
                    "kind": "base" if base and number == 0 else "lora",
                    "epoch": number,
                    "step": number,
                    "strength": float(number > 0),
                    "text_strength": float(number > 0),
                    "prompt": prompt,
                    "group": "trigger",
                    "seed": 1,
                    "width": SIDE,
                    "height": SIDE,
                    "base": "tiny",
                    "baseline": column if base else None,
                    "file": name,
                }
            )
    path = root / "run" / "evidence" / "grid" / "abc.cells.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    assert set(listed[0]) == set(TYPES)
    path.write_text(tables.as_csv(listed))
    assert run_of(path) == root / "run"
    return {"pictures": path, "dataset": root / "run" / "train" / "dataset.json"}


def others(picture, rng):
    """Draw something else of the same kind: what a healthy LoRA does."""
    return drawing(rng)


@pytest.fixture
def usual(tmp_path):
    dataset(tmp_path, [drawing(np.random.default_rng(50 + i)) for i in range(8)])
    return tmp_path


def test_spoilt_rows_stand_out_and_healthy_rows_do_not(usual):
    found = artefacts(grid(usual, [None, others, burn, blotch]))
    assert [row["spoilt"] for row in found.tables["epochs"]] == [0, 0, 1, 1]
    medians = [row["artefact_median"] for row in found.tables["epochs"]]
    assert medians[0] == 0
    assert medians[1] < 2
    assert min(medians[2:]) > 4


def test_a_cell_says_which_measure_stands_out(usual):
    rows = artefacts(grid(usual, [None, blotch])).tables["cells"]
    assert [row["cell"] for row in rows] == list(range(8))
    assert {row["worst"] for row in rows[:4]} == {""}
    assert {row["worst"] for row in rows[4:]} <= set(MEASURES)
    for row in rows[4:]:
        assert row["artefact_z"] == row[f"{row['worst']}_z"]


def test_a_neon_dataset_is_no_fault(tmp_path):
    neon = [burn(drawing(np.random.default_rng(50 + i)), None) for i in range(8)]
    dataset(tmp_path, neon)
    (_, row) = artefacts(grid(tmp_path, [None, burn])).tables["epochs"]
    assert row["spoilt"] == 0


def test_what_the_base_model_draws_anyway_is_no_fault(usual):
    (first, row) = artefacts(grid(usual, [blotch, blotch])).tables["epochs"]
    assert (first["spoilt"], row["spoilt"]) == (0, 0)


def test_both_comparisons_are_kept_and_the_smaller_counts(usual):
    found = artefacts(grid(usual, [None, burn]))
    base, training = found.arrays["against_base"], found.arrays["against_training"]
    assert base.shape == training.shape == (8, len(MEASURES))
    assert (base[:4] == 0).all()
    place = list(MEASURES).index("saturation")
    for number, row in enumerate(found.tables["cells"][4:], 4):
        smaller = min(abs(base[number, place]), abs(training[number, place]))
        assert abs(row["saturation_z"]) in (0, pytest.approx(smaller))


def test_every_row_has_means_with_intervals_over_the_prompts(usual):
    (_, row) = artefacts(grid(usual, [None, others])).tables["epochs"]
    for name in ("artefact_z", *MEASURES):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert (row["pictures"], row["counted"]) == (4, 4)


def test_without_the_base_models_pictures_the_training_images_alone_decide(usual):
    found = artefacts(grid(usual, [others, burn], base=False))
    assert [row["spoilt"] for row in found.tables["epochs"]] == [0, 1]
    assert np.isnan(found.arrays["against_base"]).all()
    assert any("no picture by the base model" in text for text in found.caveats)


def test_without_training_images_the_base_model_alone_decides(usual):
    inputs = grid(usual, [None, burn])
    for file in (usual / "images").iterdir():
        file.write_bytes(b"torn")
    found = artefacts(inputs)
    assert [row["spoilt"] for row in found.tables["epochs"]] == [0, 1]
    assert any("No training image can be read" in text for text in found.caveats)


def test_a_torn_picture_is_left_out_and_named(usual):
    inputs = grid(usual, [None, burn])
    (usual / "run" / "samples/cells/01-02.png").write_bytes(b"torn")
    found = artefacts(inputs)
    assert found.tables["cells"][6]["artefact_z"] is None
    assert found.tables["epochs"][1]["counted"] == 3
    assert any("01-02.png" in text for text in found.caveats)


def test_a_torn_picture_of_the_base_model_leaves_its_usual_one(usual):
    inputs = grid(usual, [None, burn])
    (usual / "run" / "samples/cells/00-01.png").write_bytes(b"torn")
    assert artefacts(inputs).tables["cells"][5]["artefact_z"] > 3


def test_where_nothing_can_be_read_it_says_so(usual):
    inputs = grid(usual, [None])
    for file in (usual / "run" / "samples" / "cells").iterdir():
        file.write_bytes(b"torn")
    with pytest.raises(BadInputError, match="Fix: "):
        artefacts(inputs)


def test_where_there_is_nothing_to_compare_with_it_says_so(tmp_path):
    dataset(tmp_path, [])
    with pytest.raises(BadInputError, match="neither a picture by the base model nor"):
        artefacts(grid(tmp_path, [None], base=False))


def test_the_measured_tables_can_be_written_and_read_back(usual):
    found = artefacts(grid(usual, [None, others]))
    for table in found.tables.values():
        assert tables.from_csv(tables.as_csv(table), tables.column_types(table)) == [
            dict(row) for row in table
        ]
    assert ARTEFACTS.reads == ("pictures", "dataset")
