"""`ingest`: a folder that another trainer left behind becomes a run directory.

The folder is only read. Giving the same command again takes over what is new since.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import BadInputError
from lorascope.ingest import pieces
from lorascope.ingest.carry import Carrier, Say, Taken, taken_before
from lorascope.ingest.looking import Work, look_through
from lorascope.ingest.pieces import Found, Missing
from lorascope.ingest.trainings import choose, command_for, metadata_of, settings_of
from lorascope.io.checkpoints import TrainingGroup, usable_checkpoints
from lorascope.io.foreign.folder import survey
from lorascope.io.foreign.layouts import printable
from lorascope.io.foreign.settings import Settings
from lorascope.run import BUNDLE, Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """What became of a folder."""

    run: Run
    name: str
    trainer: str  # "" where nothing tells
    found: tuple[Found, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    new: int  # files taken over by this call
    changed: int  # files that were taken over before and had changed

    @property
    def next(self) -> str:
        """The command to give now."""
        return f"lorascope diagnose {self.run.shell}"


def ingest(
    folder: Path, out: Path, *, name: str = "", base: str = "", copy: bool = False, say: Say
) -> Ingested:
    """Make a run directory of what another trainer left behind.

    Parameters
    ----------
    folder : Path
        What kohya_ss, sd-scripts, OneTrainer, ai-toolkit or diffusers saved to. It is only read.
    out : Path
        The run directory; new, empty, or one that was made of the same folder before.
    name : str
        Which training, where the folder holds several.
    base : str
        The base model, where it is known better than from the files.
    copy : bool
        Copy the checkpoints and samples instead of linking them.
    say : callable
        Takes a sentence for everything that does not go without saying.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, it holds no LoRA, or it holds several and none was named.
    StorageError
        The run cannot be written; what was taken over before is kept.
    """
    folder, out = Path(folder), Path(out)
    known = _refuse(folder, out)
    work = Work(folder=folder, out=out, look=survey(folder), say=say)
    look_through(work)
    group = choose(work, name or known)
    _refuse_other(work, group, known)
    if group.unplaced:
        work.note(group.unplaced)
    metadata = metadata_of(group.checkpoints)
    settings = settings_of(work, group, metadata)
    run = _open(work, group, settings)
    with Carrier(run=run, say=work.note, copy=copy) as carrier:
        pieces.bring_checkpoints(carrier, group)
        saved, _ = usable_checkpoints(run.place("lora"))
        found_base = pieces.give_base(work, run, settings, metadata, base, saved[-1].path)
        samples = pieces.give_samples(work, carrier, group, settings, saved)
        logs = pieces.give_logs(work, carrier, group, settings)
    data = pieces.give_dataset(work, run, settings, metadata)
    pieces.write_config(run, settings)
    told = [pieces.about_lora(run, group), found_base, samples, *logs, data]
    return Ingested(
        run=run,
        name=group.name,
        trainer=settings.trainer or group.trainer,
        found=tuple(one for one in told if isinstance(one, Found)),
        missing=tuple(one for one in told if isinstance(one, Missing)),
        notes=tuple(work.notes),
        new=carrier.counts[Taken.NEW],
        changed=carrier.counts[Taken.CHANGED],
    )


def _refuse(folder: Path, out: Path) -> str:
    """Refuse what would write into the folder or over another run; recall what was asked before."""
    if (folder / BUNDLE).is_file():
        quoted = shlex.quote(str(folder))
        raise BadInputError(
            f"{printable(folder)} is a run already.\nFix: lorascope diagnose {quoted}"
        )
    inside = out.resolve().is_relative_to(folder.resolve())
    if inside and folder.exists():
        raise BadInputError(
            f"{printable(out)} lies inside {printable(folder)}, which is only read.\n"
            "Fix: choose a folder elsewhere with --out."
        )
    if not (out / BUNDLE).is_file():
        return ""
    origin = Run(out).origin
    if origin.get("folder") != str(folder.resolve()):
        other = f"made of {origin['folder']}" if origin.get("folder") else "not made of a folder"
        raise BadInputError(
            f"{printable(out)} holds a run that was {other}.\nFix: choose a new folder with --out."
        )
    return origin.get("name", "")


def _refuse_other(work: Work, group: TrainingGroup, known: str) -> None:
    """Refuse another training than the run was made of; one run is made of one.

    A training that is called ``NAME#2`` since another ``NAME`` lies beside it is still the same
    where its files are those that the run has.
    """
    if not known or group.name == known:
        return
    taken = {str(row["source"]) for row in taken_before(Run(work.out)).values()}
    renamed = known.partition("#")[0] == group.name.partition("#")[0]
    if renamed and taken & {printable(c.path.resolve()) for c in group.checkpoints}:
        return
    raise BadInputError(
        f"{printable(work.out)} was made of the training {printable(known)}, not of "
        f"{printable(group.name)}; one run is made of one.\nFix: {command_for(work, group.name)}"
    )


def _open(work: Work, group: TrainingGroup, settings: Settings) -> Run:
    if (work.out / BUNDLE).is_file():
        return Run(work.out)
    origin = {
        "folder": str(work.folder.resolve()),
        "trainer": settings.trainer,
        "name": group.name,
    }
    return Run.create(work.out, base="", base_digest="", origin=origin)
