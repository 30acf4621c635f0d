"""Digests of checkpoints: the cache of weight files, which is read once and written in batches."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.checkpoints import digests
from harness.checkpoints.digests import DigestCache, checkpoint_digest
from harness.errors import FamilyError
from harness.files import write_whole


def _weights(folder: Path, count: int) -> list[Path]:
    """Return so many checkpoints."""
    made = [folder / str(number) for number in range(count)]
    for one in made:
        one.mkdir()
        (one / "config.json").write_text("{}")
        (one / "model.safetensors").write_text(one.name)
    return made


def test_digests_of_many_checkpoints_are_read_and_written_once(tmp_path, monkeypatch):
    """Once per checkpoint, a resumed sweep of 10,000 checkpoints parsed its cache 10,000 times."""
    checkpoints, written = _weights(tmp_path, 5), list[Path]()
    monkeypatch.setattr(
        digests, "write_whole", lambda path, content: (written.append(path), write_whole(path, content))
    )
    with DigestCache() as cache:
        first = [checkpoint_digest(folder, cache=cache) for folder in checkpoints]
        assert written == []
    assert written == [cache.path]
    monkeypatch.setattr(digests, "_sha256", lambda file: pytest.fail(f"{file} is read again"))
    assert [checkpoint_digest(folder) for folder in checkpoints] == first


def test_a_killed_or_failed_run_keeps_the_digests_that_it_computed(tmp_path, monkeypatch):
    first_folder, second_folder = _weights(tmp_path, 2)
    monkeypatch.setattr(digests, "SECONDS", 0.0)
    killed = DigestCache()  # is never closed
    checkpoint_digest(first_folder, cache=killed)
    monkeypatch.setattr(digests, "SECONDS", 60.0)
    failed = DigestCache()
    checkpoint_digest(second_folder, cache=failed)
    failed.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert {str(file / "model.safetensors") for file in (first_folder, second_folder)} <= set(
        json.loads(killed.path.read_text())
    )


def test_processes_that_cache_digests_at_the_same_time_keep_each_others(tmp_path):
    first_folder, second_folder = _weights(tmp_path, 2)
    with DigestCache() as first, DigestCache() as second:
        checkpoint_digest(first_folder, cache=first)
        checkpoint_digest(second_folder, cache=second)
    assert {str(file / "model.safetensors") for file in (first_folder, second_folder)} <= set(
        json.loads(first.path.read_text())
    )


def test_a_damaged_download_is_not_scored_under_the_digest_of_the_whole_one(tmp_path):
    """The names of files in the cache of the hub are their SHA-256, which nobody compared with their bytes."""
    (folder,) = _weights(tmp_path, 1)
    weights = folder / "model.safetensors"
    blob = tmp_path / hashlib.sha256(weights.read_bytes()).hexdigest()
    expected = checkpoint_digest(folder)
    weights.rename(blob)
    weights.symlink_to(blob)
    assert checkpoint_digest(folder) == expected
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(FamilyError, match=f"is damaged: .*delete {blob} and download it again"):
        checkpoint_digest(folder)
    assert checkpoint_digest(folder, rehash=True) != expected


@pytest.mark.parametrize("name", ["tokenizer.json", "qwen.tiktoken", "source.spm", "tokenizer.model.v3", "bpe.codes"])
def test_a_tokenizer_in_a_file_of_another_name_is_part_of_the_digest(tmp_path, name):
    (folder,) = _weights(tmp_path, 1)
    known = [(checkpoint_digest(folder), digests.state_of(folder))]
    for content in ("a", "bc"):
        (folder / name).write_text(content)
        known.append((checkpoint_digest(folder), digests.state_of(folder)))
    assert len(set(known)) == len({digest for digest, _ in known}) == len({state for _, state in known}) == 3


@pytest.mark.parametrize("content", ["", "[]", "3", '{"', "NESTED", '{"FILE": 3}', '{"FILE": {"stamp": STAMP}}'])
def test_a_damaged_cache_of_digests_is_rebuilt(tmp_path, content):
    (folder,) = _weights(tmp_path, 1)
    expected = checkpoint_digest(folder)
    path, file = DigestCache().path, folder / "model.safetensors"
    stamp = json.dumps(json.loads(path.read_text())[str(file)]["stamp"])
    path.write_text(content.replace("FILE", str(file)).replace("STAMP", stamp).replace("NESTED", "[" * 10**6))
    assert checkpoint_digest(folder) == expected
    assert str(file) in json.loads(path.read_text())
