"""A run directory: the only module that knows what is called what inside one."""

import functools
import hashlib
import inspect
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lorascope import storage, tables
from lorascope.errors import BadInputError, MissingInputError
from lorascope.records import (
    SCHEMA,
    Evidence,
    Measured,
    Measurement,
    Scalar,
    Tool,
    question_id,
)

ROLES = {
    "lora": "lora",  # every saved checkpoint
    "dataset": "train/dataset.json",  # a row per image, with its split
    "log": "train/log.csv",  # a row per step
    "config": "train/config.toml",  # settings, used or recovered
    "state": "train/state",  # what a resumed training needs
    "board": "train",  # where our own trainer writes its events.out.tfevents.*
    "events": "train/events",  # event files that another trainer left behind
    "samples": "samples",  # generated images
    "drawn": "samples/trainer",  # drawn while training, with images.csv
    "origin": "train/origin.csv",  # which files were taken from where
    "losses": "losses",  # answers of single checkpoints, each named by its question
    "features": "features",  # what networks saw in pictures, named by the pictures
}
PICTURES = "pictures"  # a role that is given: the list of pictures that a tool measures
NOTHING: Mapping[str, Path] = MappingProxyType({})
ROLE_NAMES = {*ROLES, "base", PICTURES}
BUNDLE = "run.json"
ADDED_AS = {"events": "logs", "log": "logs"}  # role -> what it is called on the command line
ADDABLE = ("lora", "logs", "dataset", "samples", "base")


class Run:
    """One trained LoRA and everything known about it.

    Parameters
    ----------
    path : Path
        The run directory.

    Raises
    ------
    MissingInputError
        The folder is not a run.
    BadInputError
        Its ``run.json`` is damaged or newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / BUNDLE).is_file():
            raise MissingInputError(
                f"{self.path} is not a run: it has no {BUNDLE}.\n"
                "Fix: name a run directory; `lorascope demo` makes one to try."
            )
        self.info = _read_info(self.path / BUNDLE)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        base: str,
        base_digest: str,
        dataset: str = "",
        origin: Mapping[str, str] | None = None,
    ) -> "Run":
        """Write a new run directory, or open one that asks for the same base model.

        Parameters
        ----------
        path : Path
            Where it goes; made where it is missing.
        base : str
            The base model: ``miniature``, a hub name, a folder or a file; "" where it is not
            known.
        base_digest : str
            sha256 of the base model's bytes; "" where it is not known.
        dataset : str
            The folder of training images.
        origin : mapping, optional
            Where another trainer's files were taken from: ``folder``, ``trainer``, ``name``.

        Raises
        ------
        BadInputError
            There is a run with another base model already, or a folder with other things in it;
            or the folder lies inside another run.
        """
        if (path / BUNDLE).exists():
            found = cls(path)
            if found.info["base"]["digest"] != base_digest:
                unknown = "(not known)"
                raise BadInputError(
                    f"{path} holds a run on the base model {found.base or unknown}, "
                    f"not on {base or unknown}.\n"
                    "Fix: choose another folder with --out."
                )
            return found
        if outer := next((p for p in path.resolve().parents if (p / BUNDLE).is_file()), None):
            raise BadInputError(
                f"{path} lies inside another run, {outer}; nothing in it was touched.\n"
                f"Fix: name a folder outside of it, or that run: {shlex.quote(str(outer))}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BadInputError(
                f"{path} exists and is not a run; nothing in it was touched.\n"
                "Fix: choose a new or empty folder with --out."
            )
        info = {
            "schema": SCHEMA,
            "id": _id(path.name, base_digest, dataset),
            "name": path.name,
            "base": {"name": base, "digest": base_digest},
            "dataset": dataset,
        }
        if origin is not None:
            info["origin"] = dict(origin)
        _write_info(path, info)
        return cls(path)

    @property
    def name(self) -> str:
        """The run's own name."""
        return str(self.info["name"])

    @property
    def shell(self) -> str:
        """The path of the run as it is typed into a shell."""
        return shlex.quote(str(self.path))

    @property
    def base(self) -> str:
        """The base model: a name, a folder or a file."""
        return str(self.info["base"]["name"])

    @property
    def origin(self) -> Mapping[str, str]:
        """Where another trainer's files were taken from; empty for a training of our own."""
        found = self.info.get("origin")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def set_base(self, base: str, base_digest: str) -> None:
        """Write down on which base model the LoRA was trained, found out later.

        Evidence measured on another base model stays, and is no longer current.

        Raises
        ------
        StorageError
            ``run.json`` cannot be written; it is as it was.
        """
        info = {**self.info, "base": {"name": base, "digest": base_digest}}
        _write_info(self.path, info)
        self.info = info

    def place(self, role: str) -> Path:
        """Where the file or folder of a role belongs, whether it is there or not."""
        if role == "base":
            return Path(self.base)
        return self.path / ROLES[role]

    def has(self, role: str) -> bool:
        """Tell whether the run has what plays a role."""
        if role == PICTURES:
            return False  # they are given, never looked for
        return bool(self.base) if role == "base" else self.place(role).exists()

    def input(self, role: str) -> Path:
        """Find the file or folder that plays a role.

        Raises
        ------
        MissingInputError
            The run lacks it.
        """
        if role == PICTURES:
            raise MissingInputError(
                f"{self.path} has no pictures to measure yet.\nFix: lorascope grid {self.shell}"
            )
        path = self.place(role)
        if not self.has(role):
            where = f"looked for {path}" if role != "base" else "its base model is not known"
            raise MissingInputError(f"{self.path} has no {role}: {where}.\n{self._fix(role)}")
        return path

    def _fix(self, role: str) -> str:
        """Say what adds a role; what only a training leaves behind has no other way."""
        added = ADDED_AS.get(role, role)
        if added in ADDABLE:
            return f"Fix: lorascope add {added} {self.shell} PATH"
        return f"Fix: lorascope train CONFIG.toml --out {self.shell}"

    def measure(
        self, tool: Tool, *, given: Mapping[str, Path] = NOTHING, **params: Scalar
    ) -> Evidence:
        """Ask a tool its question; the same question is answered from disk.

        Parameters
        ----------
        tool : Tool
        given : mapping
            Roles that the caller fills, such as the `pictures` that are to be measured.
        **params
            The tool's options.

        Raises
        ------
        MissingInputError
            The run lacks what the tool reads.
        """
        params = defaults(tool) | params
        paths = self.inputs(tool, given)
        inputs = {role: self._digest(role, path) for role, path in paths.items()}
        inputs |= tool.named(params) if tool.named else {}
        evidence_id = question_id(tool.name, tool.version, params, inputs)
        for role in tool.writes:
            paths[role] = self.place(role)
        stored = self._read(tool.name, evidence_id)
        if stored is not None and (tool.holds is None or tool.holds(paths, stored.measured)):
            return stored
        for role in tool.writes:
            storage.make_folder(paths[role])
        evidence = Evidence(
            tool=tool.name,
            version=tool.version,
            params=params,
            inputs=inputs,
            measured=tool.measure(paths, **params),
        )
        self._write(evidence)
        return evidence

    def current(self, tool: Tool, *, given: Mapping[str, Path] = NOTHING) -> list[Evidence]:
        """List a tool's evidence on the inputs as they are now, oldest first."""
        if not all(role in given or self.has(role) for role in tool.reads):
            return []
        paths = self.inputs(tool, given)
        now = {role: self._digest(role, path) for role, path in paths.items()}
        return [
            e
            for e in self.all(tool.name)
            if e.version == tool.version
            and {role: digest for role, digest in e.inputs.items() if role in ROLE_NAMES} == now
        ]

    def chosen(self, tool: Tool, *, given: Mapping[str, Path] = NOTHING) -> Evidence | None:
        """Choose the evidence of a tool that counts.

        Only what was measured on the inputs as they are now; of several, the one that was asked
        with the fewest options changed (an answer about three epochs does not replace the one
        about all), and of those the newest.
        """
        usual = defaults(tool)

        def changed(evidence: Evidence) -> int:
            return sum(evidence.params.get(name) != value for name, value in usual.items())

        return min(reversed(self.current(tool, given=given)), key=changed, default=None)

    def pictures(self, grid: Evidence | None) -> Mapping[str, Path]:
        """Give the pictures of a grid to the tools that measure pictures; none without a grid."""
        return {} if grid is None else {PICTURES: self.evidence_file(grid, "cells.csv")}

    def latest(self, tool: str) -> Evidence | None:
        """Find the newest evidence of one tool."""
        found = self.all(tool)
        return found[-1] if found else None

    def all(self, tool: str) -> list[Evidence]:
        """List the evidence of one tool, oldest first; a torn file is passed over."""
        files = (self.path / "evidence" / tool).glob("*.json")
        ordered = sorted(files, key=lambda f: (f.stat().st_mtime_ns, f.name))
        found = [self._read(tool, f.stem) for f in ordered]
        return [e for e in found if e is not None]

    def evidence_file(self, evidence: Evidence, ending: str) -> Path:
        """Where a piece of evidence lies: its ``json``, ``TABLE.csv`` or ``npz``."""
        return self.path / "evidence" / evidence.tool / f"{evidence.id}.{ending}"

    def inputs(self, tool: Tool, given: Mapping[str, Path] = NOTHING) -> dict[str, Path]:
        """Find what a tool reads, and what it may read where it is there.

        Raises
        ------
        MissingInputError
            The run lacks what the tool reads.
        """
        paths = {role: given[role] if role in given else self.input(role) for role in tool.reads}
        return paths | {role: self.place(role) for role in tool.may_read if self.has(role)}

    def _digest(self, role: str, path: Path) -> str:
        return str(self.info["base"]["digest"]) if role == "base" else digest(path)

    def _write(self, evidence: Evidence) -> None:
        """Write the rows first and the record last: a record without its rows never exists."""
        measured = evidence.measured
        files = {f"{n}.csv": tables.as_csv(t).encode() for n, t in measured.tables.items()}
        if measured.arrays:
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **measured.arrays)
            files["npz"] = packed.getvalue()
        for ending, content in files.items():
            storage.write_bytes(self.evidence_file(evidence, ending), content)
        record = {
            "schema": SCHEMA,
            "tool": evidence.tool,
            "version": evidence.version,
            "params": dict(evidence.params),
            "inputs": dict(evidence.inputs),
            "numbers": [asdict(m) for m in measured.numbers],
            "tables": {name: tables.column_types(t) for name, t in measured.tables.items()},
            "arrays": sorted(measured.arrays),
            "caveats": list(measured.caveats),
            "files": {e: hashlib.sha256(content).hexdigest() for e, content in files.items()},
        }
        text = json.dumps(record, indent=2) + "\n"
        storage.write_text(self.evidence_file(evidence, "json"), text)

    def _read(self, tool: str, evidence_id: str) -> Evidence | None:
        """Read stored evidence; None where it is missing or damaged, so that it is made again."""
        folder = self.path / "evidence" / tool
        try:
            raw = json.loads((folder / f"{evidence_id}.json").read_text())
            files = {e: (folder / f"{evidence_id}.{e}").read_bytes() for e in raw["files"]}
            whole = all(hashlib.sha256(files[e]).hexdigest() == d for e, d in raw["files"].items())
            if raw["schema"] != SCHEMA or not whole:
                return None
            return Evidence(
                tool=raw["tool"],
                version=raw["version"],
                params=raw["params"],
                inputs=raw["inputs"],
                measured=_measured(raw, files),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _measured(raw: Mapping[str, Any], files: Mapping[str, bytes]) -> Measured:
    """Put a record and the files beside it together again."""
    arrays = {}
    if raw["arrays"]:
        with np.load(io.BytesIO(files["npz"]), allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in raw["arrays"]}
    return Measured(
        numbers=tuple(
            Measurement(**{**m, "interval": tuple(m["interval"]) if m["interval"] else None})
            for m in raw["numbers"]
        ),
        tables={
            name: tables.from_csv(files[f"{name}.csv"].decode(), types)
            for name, types in raw["tables"].items()
        },
        arrays=arrays,
        caveats=tuple(raw["caveats"]),
    )


def defaults(tool: Tool) -> dict[str, Scalar]:
    """List the options of a tool's function with their default values."""
    keywords = inspect.signature(tool.measure).parameters.values()
    return {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}


def run_of(evidence: Path) -> Path:
    """Give the run that a file of evidence lies in."""
    return evidence.parents[2]


def digest(path: Path) -> str:
    """Hash a file's bytes, or a folder's names and bytes.

    Partial and hidden files in a folder do not count.
    """
    if not path.is_dir():
        return _file_digest(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != "."):
        total.update(str(file.relative_to(path)).encode() + b"\0")
        total.update(_file_digest(file).encode())
    return total.hexdigest()


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _bytes_digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _bytes_digest(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file once for each state that it was seen in."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_info(path: Path, info: Mapping[str, Any]) -> None:
    storage.write_text(path / BUNDLE, json.dumps(info, indent=2) + "\n")


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        schema, _ = int(info["schema"]), info["base"]["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is damaged ({error}).\nFix: make the run again.") from error
    if schema > SCHEMA:
        raise BadInputError(
            f"{path} was written by a newer program (schema {schema}, known: {SCHEMA}).\n"
            "Fix: pip install --upgrade lorascope"
        )
    return info
