"""What the training of a nano family leaves: checkpoints, their records, and the family file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness import FamilyError
from harness.files import write_whole
from harness_plugins.nano.models import DESIGNS
from harness_plugins.nano.recipe import CONTEXT, EOS, SIZES, Training

AVERAGED = 10  # a saved loss is the mean over so many batches


class Snapshot(NamedTuple):
    """A model at a saved step; its loss is the mean of the last (up to) 10 batches, in nats per token."""

    step: int
    loss: float
    model: Any


@dataclass(frozen=True)
class Output:
    """The output folder of a training."""

    training: Training
    root: Path

    @property
    def family_file(self) -> Path:
        """Return the path of the family file."""
        return self.root / f"{self.training.family}.toml"

    def folder(self, size: str, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.root / str(self.training.family) / size / f"step-{step}"

    def is_finished(self, size: str) -> bool:
        """Return whether the last checkpoint of a size exists."""
        return self.folder(size, self.training.steps).exists()

    def check(self) -> None:
        """Raise FamilyError if the folder contains the family from a different training."""
        folders = sorted((self.root / self.training.family).glob("*/step-*"))
        if self.family_file.exists() and not folders:
            raise FamilyError(f"{self.family_file} exists without its checkpoints; choose another folder")
        for folder in folders:
            wanted, record = asdict(self.training), _record(folder)
            other = [name for name, value in wanted.items() if record.get(name) != value]
            if other:
                raise FamilyError(
                    f"{folder} was trained with {', '.join(f'{name} {record.get(name)}' for name in other)}; "
                    f"expected {', '.join(f'{name} {wanted[name]}' for name in other)}; "
                    f"choose another folder than {self.root}, or delete {self.training.family} there"
                )

    def save(self, size: str, snapshot: Snapshot, tokenizer: Any) -> None:
        """Write a checkpoint atomically; replace one that an interrupted training left."""
        import torch

        record = asdict(self.training) | {"loss": round(snapshot.loss, 4)}
        with _whole_folder(self.folder(size, snapshot.step)) as folder:
            deepcopy(snapshot.model).to("cpu", torch.bfloat16).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")

    def write_family(self) -> None:
        """Write the family file of all finished sizes, including those of earlier runs."""
        tables = [self._table(size) for size in SIZES if self.is_finished(size)]
        write_whole(self.family_file, "\n".join([_head(self.training), *tables]).encode())

    def _table(self, size: str) -> str:
        steps = [step for step in self.training.kept if self.folder(size, step).exists()]
        losses = [f"{step} = {_record(self.folder(size, step))['loss']}" for step in steps]
        return "\n".join([f"[sizes.{size}]", f"step = {steps}", f"[sizes.{size}.loss]", *losses, ""])


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to; rename it to its final name if no error occurs."""
    new, old = (folder.with_name(f".{folder.name}.{mark}") for mark in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _record(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's training.json; {} if another program wrote the checkpoint."""
    file = folder / "training.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _head(training: Training) -> str:
    return f"""\
# Written by {training.command}
# loss: training loss, nats per token, mean of the last {AVERAGED} batches (of all, before step {AVERAGED})
about = "{DESIGNS[training.family].about}"
source = "{training.family}/{{size}}/step-{{step}}"
bos = "always"  # every document of the text began with {EOS}, which the tokenizer does not add by itself
seed = {training.seed}
tokens_per_step = {training.batch * CONTEXT}  # {training.batch} sequences of {CONTEXT} tokens
flops = "6ND_head"
annealed = "last"
"""
