"""The files of a store: any change of a byte or a name is found, named and repaired; stores of schema 1 are read."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness import DamagedFile, StoreError
from harness.cli import main
from harness.files import how_to_write, write_whole
from harness.host import load_plugins
from harness.store import files
from harness.store.cells import Store
from harness.store.check import check_store
from harness.store.files import SCHEMA, StoreFiles, pack_json, pack_table, unpack_json, unpack_table
from harness.store.identity import Settings
from harness.store.points import PointStore
from harness.testing import inspect_fake, open_fake
from tests.conftest import REPOSITORY
from tests.store.test_records import CELL, CHECKPOINT, SETTINGS, records
from tests.store.test_records import store as store  # noqa: PLC0414  # a fixture

OLD = REPOSITORY / "tests" / "data" / "store-schema-1"


@pytest.mark.parametrize("kind", ["table", "json"])
def test_every_flipped_byte_is_noticed(kind: str):
    """Data, footer, metadata, names, the digest itself: no flip of a bit goes unnoticed."""
    if kind == "table":
        content = pack_table("records/a", {"logprob": np.arange(5.0)}, {"engine": "fake"})
        unpack = unpack_table
    else:
        content, unpack = pack_json("records/a", {"engine": "fake"}), unpack_json
    unpack(content, "records/a")
    for place in range(len(content)):
        for bit in (0x01, 0x20):
            changed = bytearray(content)
            changed[place] ^= bit
            with pytest.raises(ValueError, match=r"digest"):
                unpack(bytes(changed), "records/a")


def test_a_file_under_the_name_of_another_is_damage(store: Store):
    """Two records, tasks or settings swapped under each other's names are not served as each other."""
    other = replace(CELL, checkpoint="beef" * 4)
    store.write(other, records(logprob=-np.arange(1.0, 6.0) / 7))
    paths = [store.path / "records" / f"{cell.name}.parquet" for cell in (CELL, other)]
    first, second = (path.read_bytes() for path in paths)
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    for cell in (CELL, other):
        with pytest.raises(DamagedFile, match="under another name"):
            store.load(cell)


def test_a_record_is_read_by_pandas_too(store: Store):
    frame = pd.read_parquet(store.path / "records" / f"{CELL.name}.parquet")
    assert frame["logprob"].tolist() == records().logprob.tolist()
    assert frame["doc_id"].tolist() == list(records().doc_ids)


def test_settings_that_are_not_used_do_not_change_a_cell():
    """Chat template, system prompt and adapter: absent they leave digests of before, present they make another cell."""
    assert Settings("fake", "float64", "none", "auto", 256, "left").digest == SETTINGS.digest == "fb61a86d68dc585e"
    used = [replace(SETTINGS, **{name: "0" * 16}) for name in ("chat_template", "system_prompt", "adapter")]
    assert len({SETTINGS.digest, *(settings.digest for settings in used)}) == 4


@pytest.mark.parametrize("folder", ["tasks", "settings", "checkpoints"])
def test_a_cell_whose_names_were_deleted_is_not_left_out_silently(store: Store, folder: str):
    for path in (store.path / folder).iterdir():
        path.unlink()
    with pytest.raises(StoreError, match=f"{folder}/.* is missing, which the cell {CELL.name} needs"):
        Store(store.path).cells()


def test_strange_files_in_a_store_are_not_read(store: Store):
    """A copy that a file manager or an editor left breaks neither points nor names."""
    for path in [path for path in store.path.rglob("*") if path.is_file() and path.parent != store.path]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    (store.path / "README.md").write_text("mine")
    assert len(PointStore(store.path).points(metrics=["acc"])) == 1
    assert Store(store.path, create=True).cell_names() == {CELL.name}


def test_damaged_settings_are_written_again(store: Store):
    path = store.path / "settings" / f"{SETTINGS.digest}.json"
    path.write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"it is empty.*run harness eval again"):
        _ = Store(store.path).settings
    path.write_bytes(b"")
    again = Store(store.path, create=True)
    again.put_settings(SETTINGS)
    assert again.settings == {SETTINGS.digest: SETTINGS}


def test_a_read_only_store_says_which_file_is_damaged(store: Store, monkeypatch):
    path = store.path / "records" / f"{CELL.name}.parquet"
    path.write_bytes(b"nonsense")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DamagedFile, match=f"{CELL.name}.parquet is damaged .* cannot be moved .*Read-only"):
        store.load(CELL)


def test_the_error_of_a_damaged_file_survives_pickling():
    error = DamagedFile("s/records/a.parquet", "it is empty", " and was moved to s/damaged")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.path, again.why, again.problem) == (error.path, error.why, error.problem)


def test_folders_that_copies_lost_are_made_again(store: Store):
    """Git and S3 drop empty folders: damaged/ and .locks/, and records/ of a store of texts."""
    for folder in ("damaged", ".locks", "tokens", "points", "samples"):
        shutil.rmtree(store.path / folder, ignore_errors=True)
    fresh = Store(store.path)
    with fresh.lock(CELL):
        fresh.write(CELL, records())
    fresh.files.table(f"records/{CELL.name}").write_bytes(b"")
    with pytest.raises(DamagedFile, match="and was moved to"):
        fresh.read(CELL.name)


def test_a_damaged_mark_is_said_and_written_again(store: Store):
    (store.path / "store.json").write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"store.json is damaged \(it has no valid schema\); run harness eval again"):
        Store(store.path)
    assert Store(store.path, create=True).cell_names() == {CELL.name}
    assert len(Store(store.path).cells()) == 1


def test_check_names_everything_that_is_wrong_and_changes_nothing(store: Store):
    assert check_store(store.path) == []
    lost = replace(CELL, settings="0" * 16)
    store.write(lost, records())
    (store.path / "records" / f"{CELL.name}.parquet").write_bytes(b"")
    (store.path / "records" / "copy of x.parquet").write_bytes(b"x")
    next((store.path / "checkpoints").iterdir()).write_bytes(b"{}")
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    kinds = {(finding.kind, finding.path.split("/")[0]) for finding in check_store(store.path)}
    assert kinds == {
        ("damaged", "records"),
        ("damaged", "checkpoints"),
        ("missing", "checkpoints"),
        ("missing", "settings"),
        ("strange", "records"),
    }
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


def test_the_command_check_prints_what_is_wrong(store: Store):
    assert CliRunner().invoke(main, ["check", str(store.path)]).exit_code == 0
    next((store.path / "settings").iterdir()).write_bytes(b"")
    result = CliRunner().invoke(main, ["check", str(store.path)])
    assert result.exit_code == 1
    assert f"settings/{SETTINGS.digest}.json | it is empty" in result.output
    assert "sys.exit" not in result.output  # it was the last line


def test_a_store_of_a_later_version_is_not_taken_for_a_damaged_one(store: Store, monkeypatch):
    """`harness eval` replaced its mark, as if it were damaged."""
    monkeypatch.setattr(files, "SCHEMA", SCHEMA + 1)
    content = pack_json("store", {})
    (store.path / "store.json").write_bytes(content)
    monkeypatch.undo()
    for create in (False, True):
        with pytest.raises(StoreError, match=f"has schema {SCHEMA + 1}; this version reads 1 and 2; use the version"):
            Store(store.path, create=create)
    assert (store.path / "store.json").read_bytes() == content


def test_a_link_to_a_folder_that_is_missing_is_said(tmp_path):
    (tmp_path / "link").symlink_to("purged")
    with pytest.raises(StoreError, match="no store can be made at .*link: purged, where it points, is missing; make"):
        Store(tmp_path / "link", create=True)


# --- schema 1 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path) -> Path:
    return shutil.copytree(OLD, tmp_path / "old")


def test_a_store_of_schema_1_is_read_fitted_and_compared(old: Path, fake_host):
    opened = harness.open_store(old, registries=fake_host)
    points = opened.points()
    values = points.set_index(["task", "size", "metric"])["value"]
    assert len(points) == 96
    assert values["old_choice", "s3", "acc_token"] == pytest.approx(1 / 3)
    assert values["old_choice", "s4", "logp_gold"] == pytest.approx(-25.57605, abs=1e-5)
    assert values["old_text", "s1", "bits_per_byte"] == pytest.approx(8.609029, abs=1e-6)
    assert values["old_drawn", "s1", "pass_rate"] == 0
    assert len(opened.samples()) == 4 * 3 * 4
    assert next(iter(harness.compare(opened, bootstrap=10))).name == "families"
    assert not list(harness.diff(opened, opened).pairs[0].flipped)


def test_eval_into_a_store_of_schema_1_is_refused(old: Path):
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    message = "old has schema 1, which this version reads but does not extend; evaluate into another folder with -o"
    with pytest.raises(StoreError, match=message):
        Store(old, create=True)
    with pytest.raises(StoreError, match=message):
        harness.open_store(old).put_checkpoint(CELL.checkpoint, CHECKPOINT)
    (old / "store.json").unlink()
    with pytest.raises(StoreError, match=message):
        Store(old, create=True)
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} | before == before


def test_damage_in_a_store_of_schema_1_is_named_and_stays(old: Path, fake_host):
    victim = sorted((old / "records").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(DamagedFile, match=f"{victim.name} is damaged .*; evaluate its cell into another folder"):
        harness.open_store(old, registries=fake_host).points()
    assert victim.exists()


def test_files_of_schema_1_in_a_store_of_schema_2_are_damage(store: Store):
    """A mark that was edited, or records that were copied by hand, do not bring unverified numbers in."""
    old = sorted((OLD / "records").iterdir())[0]
    shutil.copy(old, store.path / "records" / old.name)
    with pytest.raises(DamagedFile, match="its digest is missing"):
        store.read(old.stem)


def test_a_mark_that_says_another_schema_is_not_believed(old: Path):
    (old / "store.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(DamagedFile, match=r"store.json is damaged"):
        Store(old)


def test_files_are_the_same_bytes_when_written_again(tmp_path):
    files = StoreFiles(tmp_path)
    assert files.write_table("records/a", {"x": [1.0]}, {"b": 1}) == files.write_table(
        "records/a", {"x": [1.0]}, {"b": 1}
    )


READ_ONLY = """
import sys
from pathlib import Path
import harness
from harness.host import load_plugins
from harness.store.check import check_store
from tests.store.test_stores import Fake

path, host = Path(sys.argv[1]), load_plugins()
host.add(Fake, "fake")

def told(function, *arguments, **options):
    try:
        print(function(*arguments, **options))
    except harness.HarnessError as error:
        print(type(error).__name__, error)

def evaluate(step):
    arguments = {"limit": 2, "engine": "fake", "registries": host}
    return harness.evaluate([f"aster:w32l2@{step}"], ["nano_job"], path, **arguments).written

for folder in (path / "tasks", path / ".locks", path / "records"):
    folder.chmod(0o555)
told(evaluate, 1600)
told(evaluate, 800)
(path / "tasks").chmod(0o755)
(path / ".locks").chmod(0o755)
told(evaluate, 800)
(path / "records").chmod(0o000)
told(lambda: len(harness.open_store(path).cells()))
told(check_store, path)
(path / "records").chmod(0o755)
told(evaluate, 800)
"""


class Fake:
    """A plugin with the engine without a model."""

    @staticmethod
    @harness.hookimpl
    def register_engines(register: harness.Register) -> None:
        register("fake", open_fake, inspect_fake)


@pytest.mark.soak
def test_a_read_only_store_is_read_and_nothing_is_said_of_disk_space(tmp_path):
    """Permissions were answered with `free disk space`, and folders that cannot be listed passed for empty ones."""
    host = load_plugins()
    host.add(Fake, "fake")
    harness.evaluate(["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", limit=2, engine="fake", registries=host)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    command = [*(drop if os.geteuid() == 0 else []), sys.executable, "-c", READ_ONLY, str(tmp_path / "s")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    permissions = "Permission denied; change the permissions of the folder and its files, or choose another folder"
    whole, lock, record, *unlisted, again = ended.stdout.splitlines()
    assert (whole, again) == ("0", "1")
    assert lock.endswith(f".lock cannot be locked: {permissions}")
    assert record.endswith(f".parquet cannot be written: {permissions}")
    for line in unlisted:
        assert line.endswith("records cannot be listed: Permission denied; change its permissions, or copy the store")
    assert len(unlisted) == 2


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free disk space, or choose another folder"),
        (errno.EROFS, "choose another folder, or mount the file system for writing"),
        (errno.EACCES, "change the permissions of the folder and its files, or choose another folder"),
        (errno.EIO, "choose another folder"),
    ],
)
def test_an_error_of_writing_says_what_to_do_about_it(number, remedy):
    assert how_to_write(OSError(number, "why")) == remedy


def test_a_file_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(StoreError, match="cannot be written: File name too long; choose a folder with a shorter path"):
        write_whole(tmp_path / ("x" * 300), b"")
