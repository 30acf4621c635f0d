"""Read the documents of a task from a dataset of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import TaskError
from harness.host.distribution import how_to_install
from harness.types import Json


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub: `names` are its configurations, read one after the other; None is the only one.

    `files` are local files with the same documents, named in messages.
    """

    dataset: str
    revision: str
    names: tuple[str | None, ...] = (None,)
    files: tuple[str, ...] = ()


def read_hub(source: HubDataset, split: str) -> Iterator[dict[str, Json]]:
    """Yield the rows of a split; each also has `file`, the name of its configuration, unless it has one itself.

    The library caches what it reads; with HF_HUB_OFFLINE=1 it reads only the cache. Raises TaskError.
    """
    for name in source.names:
        yield from ({"file": name or "", **row} for row in _rows(source, name, split))


def _rows(source: HubDataset, name: str | None, split: str) -> Iterator[dict[str, Json]]:
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise _unread(source, name, f"the package datasets is not installed: {how_to_install('hub')}") from error
    try:
        return iter(load_dataset(source.dataset, name, split=split, revision=source.revision))
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: a dataset that is a script
        raise _unread(source, name, f"{type(error).__name__}: {error}") from error


def _unread(source: HubDataset, name: str | None, why: str) -> TaskError:
    what = f"{source.dataset}{f' ({name})' if name else ''} at revision {source.revision}"
    return TaskError(
        f"cannot read the dataset {what}: {why}; pass the folder of {', '.join(source.files) or 'its files'} with "
        "--data, or run once with access to the hub (HF_HUB_OFFLINE unset)"
    )
