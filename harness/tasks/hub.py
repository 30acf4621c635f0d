"""Read the documents of a task from a dataset of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import TaskError
from harness.files import licence_of_card
from harness.host.distribution import how_to_install
from harness.types import Json

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub: `names` are its configurations, read one after the other; None is the only one.

    `files` are local files with the same documents, named in messages.
    """

    dataset: str
    revision: str
    names: tuple[str | None, ...] = (None,)
    files: tuple[str, ...] = ()


@dataclass
class HubRows:
    """The rows of a split; each also has `file`, the name of its configuration, unless it has one itself.

    The library caches what it reads; with HF_HUB_OFFLINE=1 it reads only the cache. `origin` is filled when rows are
    read: dataset, commit (revision) and licence. Iterating raises TaskError.
    """

    source: HubDataset
    split: str
    origin: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[dict[str, Json]]:
        for name in self.source.names:
            yield from ({"file": name or "", **row} for row in self._rows(name))

    def _rows(self, name: str | None) -> Iterator[dict[str, Json]]:
        source = self.source
        try:
            from datasets import load_dataset_builder
            from datasets.exceptions import DatasetsError
        except ImportError as error:
            raise _unread(source, name, f"the package datasets is not installed: {how_to_install('hub')}") from error
        try:
            builder = _pinned(load_dataset_builder(source.dataset, name, revision=source.revision), source)
            builder.download_and_prepare()
            rows = builder.as_dataset(split=self.split)
        except (DatasetsError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: a dataset that is a script
            raise _unread(source, name, f"{type(error).__name__}: {error}") from error
        if COMMIT.fullmatch(commit := str(builder.hash)):
            self.origin |= {"dataset": source.dataset, "revision": commit, "licence": _licence(source.dataset, commit)}
        return iter(rows)


def _pinned(builder: Any, source: HubDataset) -> Any:
    """Return a builder of the revision that is named; raise ValueError where the cache does not have it.

    Without a network, the library takes the latest revision in its cache, whichever is asked for.
    """
    revision, wanted = str(builder.hash), source.revision
    if revision == wanted or not (COMMIT.fullmatch(revision) and COMMIT.fullmatch(wanted)):
        return builder
    folder = Path(builder.cache_dir)  # CONFIGURATION/VERSION/REVISION
    if not (folder.parent / wanted).is_dir():
        raise ValueError(f"the cache has another revision, {revision}")
    known = {"repo_id": source.dataset, "dataset_name": builder.dataset_name, "config_name": builder.config.name}
    return type(builder)(**known, version=folder.parent.name, hash=wanted)


def _licence(dataset: str, commit: str) -> str:
    """Return the licence of a dataset in the cache of the hub; the library reads its card before its rows."""
    from huggingface_hub import try_to_load_from_cache

    card = try_to_load_from_cache(dataset, "README.md", repo_type="dataset", revision=commit)
    return licence_of_card(Path(card)) if isinstance(card, str) else "unknown"


def _unread(source: HubDataset, name: str | None, why: str) -> TaskError:
    dataset = f"{source.dataset}{f' ({name})' if name else ''} at revision {source.revision}"
    return TaskError(
        f"cannot read the dataset {dataset}: {why}; pass the folder of {', '.join(source.files) or 'its files'} with "
        "--data, or run once with access to the hub (HF_HUB_OFFLINE unset)"
    )
