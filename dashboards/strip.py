"""The epoch strip: one thumbnail an epoch; what is chosen here is chosen on every page."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboards import cells, components, samples, thumbs
from dashboards.charts import SHAPES
from lorascope.errors import LorascopeError
from lorascope.io.checkpoints import Checkpoint, readable_checkpoints
from lorascope.records import EpochFit, Evidence, Fit, Verdict
from lorascope.run import Run

KEY, PROMPT = "strip", "strip_prompt"
LEGEND = (
    "▽ underfit · ● good · △ overfit · ? uncertain · ★ the pick · bracket: as good as it · "
    "tick: a dip of the log"
)
BY_TRAINER = "Pictures that the trainer drew"


def draw(run: Run, verdict: Verdict, found: Callable[[str], Evidence | None]) -> int | None:
    """Draw the strip and say which epoch is chosen.

    Parameters
    ----------
    run : Run
        Whose epochs.
    verdict : Verdict
        Where they stand.
    found : function
        Gives the evidence of a tool by its name.

    Returns
    -------
    int or None
        None where no epoch is known.
    """
    grid, weights, loss = found("grid"), found("weights"), found("loss")
    sheet, by_trainer = samples.pictures(run, grid)
    sound, torn = saved(run)
    known = {e.epoch: e for e in verdict.epochs}
    for row in (*(() if by_trainer else sheet.rows), *(weights.table("epochs") if weights else ())):
        _know(known, int(cells.number(row, "epoch")), int(cells.number(row, "step")))
    for checkpoint in (*sound, *torn):
        _know(known, checkpoint.epoch, checkpoint.step)
    if not known:
        return None
    chosen = _chosen(run, verdict, sorted(known))
    prompt = prompt_of(sheet)
    dips = {int(cells.number(d, "epoch")) for d in loss.table("dips")} if loss else set()
    files = {e: cells.file_of(run.path, c) for e, c in cells.of_strip(sheet, prompt).items()}
    urls = thumbs.urls(files.values())
    broken = {c.epoch for c in torn}
    tiles = [
        tile(
            known[e],
            verdict,
            url=urls.get(files.get(e, Path()), ""),
            dip=e in dips,
            torn=e in broken,
        )
        for e in sorted(known)
    ]
    components.draw("strip", {"epochs": tiles, "chosen": chosen}, key=KEY, on_chosen_change=_take)
    _draw_legend(sheet, by_trainer=by_trainer)
    return chosen


def saved(run: Run) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """List the checkpoints of a run: those that can be opened, and those that cannot."""
    try:
        sound, torn = readable_checkpoints(run.input("lora"))
    except LorascopeError:
        return [], []
    return sound, list(torn)


def _know(known: dict[int, EpochFit], epoch: int, step: int) -> None:
    """Add an epoch that nobody judged yet."""
    if epoch > 0 and epoch not in known:
        known[epoch] = EpochFit(epoch=epoch, step=step, file="", fit=Fit.UNCERTAIN, probability=0.0)


def _draw_legend(sheet: cells.Sheet, *, by_trainer: bool) -> None:
    prompts = cells.prompts(sheet)
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(prompts) > 1:
            st.selectbox("Prompt", prompts, key=PROMPT, label_visibility="collapsed", width=300)
        st.caption(f"{BY_TRAINER} · {LEGEND}" if by_trainer else LEGEND, width="content")


def choose(epoch: int) -> None:
    """Make an epoch the chosen one, in the address too, so that a link shows the same."""
    st.query_params["epoch"] = str(epoch)


def _take() -> None:
    answer = st.session_state[KEY].chosen
    if answer is not None:
        choose(int(answer))


def _chosen(run: Run, verdict: Verdict, known: list[int]) -> int:
    """Take the address's epoch, else the one looked at last, else the best, else the last."""
    remembered: dict[str, int] = st.session_state.setdefault("epochs", {})
    asked = st.query_params.get("epoch", "")
    wanted = [
        int(asked) if asked.isdecimal() else None,
        remembered.get(str(run.path)),
        verdict.best.epoch if verdict.best else None,
    ]
    chosen = next((e for e in wanted if e in known), known[-1])
    assert chosen is not None
    remembered[str(run.path)] = chosen
    if asked != str(chosen):
        choose(chosen)
    return chosen


def tile(
    epoch: EpochFit, verdict: Verdict, *, url: str, dip: bool, torn: bool = False
) -> dict[str, object]:
    """Say what the strip shows of one epoch."""
    best = verdict.best
    alike = best.set if best and len(best.set) > 1 else ()
    place = ["in"] if epoch.epoch in alike else []
    place += ["first"] if place and epoch.epoch == min(alike) else []
    place += ["last"] if place and epoch.epoch == max(alike) else []
    is_best = best is not None and epoch.epoch == best.epoch
    said = [f"epoch {epoch.epoch}", f"step {epoch.step}", epoch.fit.value]
    said += [f"{epoch.probability:.0%} sure"] if epoch.probability else []
    said += ["the pick"] if is_best else ["as good as the pick"] if place else []
    said += ["a dip of the training loss lies here"] if dip else []
    said += ["its file cannot be opened"] if torn else []
    return {
        "epoch": epoch.epoch,
        "url": url,
        "fit": epoch.fit.value,
        "shape": SHAPES[epoch.fit],
        "best": is_best,
        "inset": " ".join(place),
        "dip": dip,
        "title": ", ".join(said),
    }


def prompt_of(sheet: cells.Sheet) -> str:
    """Give the prompt whose pictures the strip shows; "" where there are none."""
    prompts = cells.prompts(sheet)
    wanted = st.session_state.get(PROMPT)
    return wanted if wanted in prompts else next(iter(prompts), "")
