"""A LoRA that knows six drawings by heart: its copies are found, and nothing else is."""

import numpy as np
import pytest

from benchmarks import copies as bench
from lorascope import tables
from lorascope.io.dataset_file import read_dataset
from lorascope.io.images import read_image, write_png
from lorascope.models.base import load_base
from lorascope.rules.copying import COLLAGE, COPY, is_collage, is_copy
from lorascope.tools.copies import COPIES

pytestmark = pytest.mark.slow

SEED, EPOCHS = 9, 20  # another seed than those of the benchmark
CONTROL = 120


class Planted:
    """The run, what it was trained on, and what it draws."""

    def __init__(self, folder):
        self.base = load_base("miniature", dtype="fp32")
        self.run = bench.memorised(folder, SEED, EPOCHS)
        dataset = read_dataset(self.run.place("dataset"))
        self.training = [read_image(dataset.path(image)) for image in dataset.train]
        self.captions = [image.caption for image in dataset.train]
        self.drawn = bench.samples(self.base, self.run)
        self.copies = bench.Truth(self.training, self.captions, SEED).copies(self.drawn)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return Planted(tmp_path_factory.mktemp("planted"))


def share(test, rows):
    return sum(map(test, rows)) / len(rows)


def test_copies_are_found(planted):
    assert planted.copies.sum() >= 8
    found = bench.measured(planted.drawn[planted.copies], planted.training)
    assert share(is_copy, found) >= 0.8


def test_fresh_drawings_are_not_taken_for_copies(planted):
    fresh = bench.measured(bench.control(planted.captions, SEED, CONTROL), planted.training)
    assert share(is_copy, fresh) <= 0.04
    assert share(is_collage, fresh) <= 0.02


def test_planted_collages_are_found(planted):
    made = bench.collages(planted.base, planted.training, SEED)
    assert share(is_collage, bench.measured(made["halves"], planted.training)) >= 0.9


def test_the_tool_and_the_rule_say_so(planted):
    """As one epoch of a grid; the same grid of fresh drawings is no fault."""
    fresh = bench.control(planted.captions, SEED, len(planted.drawn))
    (finding,) = COPY.judge({"copies": measured(planted.run, planted.drawn, "copied")})
    assert finding.severity == "error"
    assert finding.subject["image"] in {f"20_fern/{i:03}.png" for i in range(1, 7)}
    held = {"copies": measured(planted.run, fresh, "fresh")}
    assert not COPY.judge(held)
    assert not COLLAGE.judge(held)


def measured(run, pictures, name):
    listed = []
    for place, picture in enumerate(pictures):
        file = f"samples/{name}/{place:03}.png"
        write_png(run.path / file, np.ascontiguousarray(picture))
        listed.append(
            {
                **{"cell": place, "row": 0, "column": place, "kind": "lora", "epoch": EPOCHS},
                **{"step": 400, "strength": 1.0, "text_strength": 1.0, "seed": place},
                **{"prompt": "zyxfern", "group": "trigger", "width": 128, "height": 128},
                **{"base": "miniature", "baseline": None, "file": file},
            }
        )
    path = run.path / "evidence" / "grid" / f"{name}.cells.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.as_csv(listed))
    return run.measure(COPIES, given={"pictures": path})
