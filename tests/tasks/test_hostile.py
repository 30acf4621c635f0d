"""Hostile tasks, families and tables: every one of them quickly gives an error of the harness."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness import DamagedFile, Doc, HarnessError, Task, TaskError, UsageError
from harness.checkpoints.family_files import COUNTS, SETTINGS, load_family
from harness.checkpoints.steps import parse_steps
from harness.checkpoints.weights import read_config
from harness.fitting.result import load_fits
from harness.host import PluginHost
from harness.store.cells import Store
from harness.store.check import check_store
from harness.store.point_files import read_table
from harness.store.subsets import load_subsets
from harness.tasks.finding import find_task
from harness.tasks.loading import fingerprinted, load_task
from harness.tasks.patterns import find_matches
from harness.tasks.task_files import PROMPT_KEYS, TASK_KEYS, read_task_file
from harness.tasks.templates import fill, fill_list
from tests.tasks.test_loading import CHOICE, ROWS, write_task

FUZZ = settings(
    max_examples=int(os.environ.get("HARNESS_FUZZ", "25")),
    deadline=None,
    derandomize="HARNESS_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def load(folder: Path, yaml: str, data: Path | None = None) -> Task:
    return load_task(read_task_file(write_task(folder, yaml)), data)


# --- limits instead of hangs -----------------------------------------------------------------------------------------


def bomb(levels: int = 40) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (bomb(), "more than 100000 values"),
        ("a: &a [*a]", "a value contains itself"),
        ("a: &a {<<: *a}", "contains itself|recursive"),
        ("a: " + "[" * 1500, "nested too deeply"),
        ("a: " + "9" * 10_000, "Exceeds the limit"),
        ("a: !!bool maybe", "expected plain YAML"),
        ("a: !!timestamp noon", "expected plain YAML"),
        ("a: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ("a: 1\n" * 100_000, "more than 262144 characters"),
    ],
)
def test_a_task_file_that_would_never_be_read_is_refused(tmp_path, yaml, message):
    with pytest.raises(TaskError, match=message):
        read_task_file(write_task(tmp_path, yaml))


@pytest.mark.parametrize("text", ["0..99999999999 +1", "0..99999 +1, 0..99999 +1", [10**18], "1" * 5000, [True]])
def test_too_many_or_too_large_steps_are_refused(text):
    with pytest.raises(HarnessError, match="expected"):
        parse_steps(text)


def test_steps_times_seeds_are_limited(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text('source = "w"\nstep = "0..9999 +1"\nseed = "0..9999 +1"\n[sizes.a]\n')
    with pytest.raises(HarnessError, match="f.toml: 100000000 checkpoints; expected 100000 at most"):
        load_family(path)


def test_a_pattern_that_backtracks_is_ended():
    row = {"t": "a" * 40, "l": ["x"]}
    with pytest.raises(TimeoutError, match=r"\(a\+\)\+b.* took longer than 0.2 s on a text of 40 characters"):
        find_matches("(a+)+b", row["t"], seconds=0.2)
    assert find_matches("a+", "aab", seconds=60) == [["aa"]]  # in a new process
    with pytest.raises(TaskError, match="find: .*expected a regular expression"):
        fill_list({"field": "t", "find": "("}, row)
    with pytest.raises(TaskError, match="has 2 groups; expected one at most"):
        fill_list({"field": "t", "find": "(a)(b)"}, row)


def test_texts_cannot_grow_without_end(tmp_path):
    with pytest.raises(TaskError, match="more than 10000000 characters"):
        fill("{t" + "|replace:a:aaaaaaaaaa" * 12 + "}", {"t": "a"})
    with pytest.raises(TaskError, match="more than 10000000 characters"):
        fill("{t|replace::" + "x" * 1000 + "}", {"t": "y" * 10**5})
    laughs = "".join(f'  f{i}: "{{f{i - 1}}}{{f{i - 1}}}"\n' for i in range(1, 40))
    write_task(tmp_path, "", ROWS)
    with pytest.raises(TaskError, match="more than 10000000 characters"):
        load(tmp_path, CHOICE + 'fields:\n  f0: "ha"\n' + laughs)
    assert fill("{t|drop_brackets}", {"t": "[" * 10**5 + "a[b]"}) == ""
    assert fill("{t|drop_brackets}", {"t": "[\na] b [c] [d"}) == "[\na] b  [d"


def test_a_fifo_is_no_document_and_no_record(tmp_path, host: PluginHost):
    """Opening one would wait for a writer for ever."""
    path = write_task(tmp_path, CHOICE)
    os.mkfifo(path / "docs.jsonl")
    with pytest.raises(TaskError, match="docs.jsonl: it is a FIFO.*expected a regular file"):
        load_task(read_task_file(path))
    (path / "task.yaml").unlink()
    os.mkfifo(path / "task.yaml")
    with pytest.raises(HarnessError, match="regular file"):
        read_task_file(path / "task.yaml")
    os.mkfifo(tmp_path / "f.toml")
    with pytest.raises(HarnessError, match="regular file"):
        load_family(tmp_path / "f.toml")


def test_a_fifo_in_a_store_is_damaged(tmp_path):
    store = Store(tmp_path / "s", create=True)
    os.mkfifo(store.path / "settings" / f"{0:016x}.json")
    with pytest.raises(DamagedFile, match="it is a FIFO"):
        _ = store.settings
    assert [kind for kind, *_ in check_store(store.path)] == ["set aside"]
    (store.path / "store.json").unlink()
    os.mkfifo(store.path / "store.json")
    with pytest.raises(HarnessError, match="store.json: it is a FIFO"):
        Store(store.path)


# --- the folder of a task --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "a/../../secret.jsonl", "", "x\0y"])
def test_documents_cannot_be_named_outside_of_the_folder_of_a_task(tmp_path, name):
    (tmp_path / "secret.jsonl").write_text(json.dumps(ROWS[0]))
    for key in ("documents", "fewshot"):
        lines = {"documents": json.dumps(name)}
        if key == "fewshot":
            lines = {"documents": "docs.jsonl", "fewshot": f"{{documents: {json.dumps(name)}, n: 1}}"}
        yaml = CHOICE.replace("documents: docs.jsonl\n", "".join(f"{k}: {v}\n" for k, v in lines.items()))
        with pytest.raises(TaskError):
            load_task(read_task_file(write_task(tmp_path, yaml, ROWS)))
    with pytest.raises(TaskError, match="folder: '../x' leads out of the folder"):
        read_task_file(write_task(tmp_path, CHOICE + "folder: ../x\n"))


def test_links_stay_in_the_folder_of_a_task_unless_it_is_given(tmp_path):
    (tmp_path / "elsewhere.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = write_task(tmp_path, CHOICE)
    (path / "docs.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(TaskError, match="is a link to .*elsewhere.jsonl, outside of the folder of the task; .*--data"):
        load_task(read_task_file(path))
    assert len(load_task(read_task_file(path), data=path).docs) == 2
    (path / "inside.jsonl").write_text((tmp_path / "elsewhere.jsonl").read_text())
    (path / "docs.jsonl").unlink()
    (path / "docs.jsonl").symlink_to("inside.jsonl")
    assert len(load_task(read_task_file(path)).docs) == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "task.yaml").symlink_to(path / "task.yaml")
    with pytest.raises(TaskError, match="outside of the folder"):
        read_task_file(other)


# --- no traceback ----------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "half a surrogate pair": ('{"q": "\\ud800", "c": ["a", "b"], "g": 0}', "half of a surrogate pair"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "deep attribute": ('{"q": "x", "c": ["a", "b"], "g": 0, "z": ' + "[" * 900 + "]" * 900 + "}", None),
    "long number": ('{"q": ' + "9" * 10_000 + ', "c": ["a", "b"], "g": 0}', "Exceeds the limit"),
    "many choices": (
        json.dumps({"q": "x", "c": [str(i) for i in range(40_000)], "g": 0}),
        "40000 choices; expected 32767",
    ),
    "huge gold": ('{"q": "x", "c": ["a", "b"], "g": ' + "9" * 4000 + "}", "expected indices of the 2 choices"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_cannot_be_used_is_named(tmp_path, name):
    line, message = DOCUMENTS[name]
    path = write_task(tmp_path, CHOICE + ("attributes: [z]\n" if "attribute" in name else ""))
    (path / "docs.jsonl").write_text(line + "\n")
    if message is None:
        load_task(read_task_file(path))
        return
    with pytest.raises(TaskError, match=message) as caught:
        load_task(read_task_file(path))
    assert "task mine" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("docs.csv", b"q,c,g\n\xff,1,2\n"),
        ("docs.jsonl.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-20]),
        ("docs.jsonl.gz", gzip.compress(bytes(range(256)) * 12, mtime=0)[:40] + b"\xff" * 500),
        ("docs.json", b'[{"q": 1}, 3]'),
        ("docs.json", b"\xff\xfe"),
        ("docs.txt", b"a\n\nb\xff"),
    ],
)
def test_a_file_of_documents_that_cannot_be_read_is_named(tmp_path, name, content):
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", name))
    (path / name).write_bytes(content)
    with pytest.raises(TaskError, match=name):
        load_task(read_task_file(path))


@pytest.mark.parametrize(
    ("choices", "attributes", "message"),
    [
        (("a", "\udc80"), {}, "half of a surrogate pair"),
        (("a",) * 40_000, {}, "40000 choices"),
        (("a", "b"), {"x": object()}, "not JSON serializable"),
    ],
)
def test_a_task_of_a_plugin_that_cannot_be_stored_is_refused(choices, attributes, message):
    doc = Doc("0", ("q",), choices, choices, (0,), attributes=attributes)
    with pytest.raises(TaskError, match=f"task theirs: document '?0'?: .*{message}"):
        fingerprinted(Task("theirs", "choice", (doc,), "0"))


def test_nested_attributes_reach_frames(tmp_path, fake_host: PluginHost):
    rows = [{**row, "n": {"deep": [1, {"er": None}]}, "l": [[]]} for row in ROWS]
    path = write_task(tmp_path, CHOICE + "attributes: [n, l]\n", rows)
    harness.evaluate(["aster:w32l2@100"], [str(path)], tmp_path / "s", engine="fake", registries=fake_host).check()
    store = harness.open_store(tmp_path / "s", registries=fake_host)
    assert len(store.points(unit="document")) % 2 == 0
    assert len(store.scores()) == 4
    assert find_task(str(path), fake_host).docs[0].attributes["n"] == {"deep": [1, {"er": None}]}


def test_letters_end_at_26(tmp_path):
    rows = [{"q": "x", "c": [str(i) for i in range(27)], "g": 0}]
    with pytest.raises(TaskError, match="27 choices; formulation: letter has letters for 26"):
        load_task(read_task_file(write_task(tmp_path, CHOICE + "formulation: letter\n", rows)))


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 10_000, '{"a": "\\ud800"}', "[]", "\x00"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(HarnessError, match="config.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        'source = "{step:0999999999d}"',
        'source = "{step.__class__}"',
        'source = "{"',
        'source = "{step!r:>9}{0}"',
        "source = 3",
        'source = "w"\nfeatures = 3',
        'source = "w"\nseed = []',
        'source = "w"\nseed = 1' + "0" * 400,
        'source = "w"\ntokens = ' + "9" * 4000,
        'source = "w"\ntokens = ' + "9" * 5000,
        'source = "w"\nx = ' + "[" * 5000,
        'source = "w"\nannealed = "maybe"',
        'source = "w"\n[sizes]\na = 3',
    ],
)
def test_a_family_file_that_is_wrong_is_named(tmp_path, line):
    path = tmp_path / "f.toml"
    path.write_text(line + ("" if "[sizes]" in line else "\n[sizes.a]\n"))
    with pytest.raises(HarnessError, match="f.toml"):
        load_family(path)


def test_widths_of_steps_in_names_of_folders_still_work(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text('source = "{size}/step{step:07d}-{seed}"\nstep = 5\n[sizes.a]\n')
    assert load_family(path).checkpoints[0].source.endswith("a/step0000005-0")


# --- fuzz ------------------------------------------------------------------------------------------------------------

KNOWN = [
    "{q}",
    "{c[0]}",
    "g",
    "c",
    "docs.jsonl",
    "{q|slice:1}",
    "last",
    "1..9 *2",
    "choice",
    "cloze",
    "text",
    "generate",
]
NAMES = ["field", "labels", "flags", "find", "split", "each", "n", "documents", "q", "c", "g"]
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(KNOWN))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.integers(10**17, 10**19))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.one_of(TEXTS, st.sampled_from(NAMES)), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = sorted(PROMPT_KEYS | TASK_KEYS - {"documents", "hub"})


def only_ours(call: Any, *arguments: Any) -> None:
    """Call something that may succeed or fail, but only in our ways."""
    try:
        call(*arguments)
    except HarnessError:
        pass


@FUZZ
@given(table=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), rows=st.lists(VALUES, max_size=3))
def test_any_task_file_loads_or_is_refused(tmp_path, table, rows):
    base = {"documents": "docs.jsonl", "query": "{q}", "choices": "c", "gold": "g"}
    path = write_task(tmp_path, json.dumps({**base, **table}))
    lines = [*ROWS, *({**ROWS[0], **row} if isinstance(row, dict) else row for row in rows)]
    (path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    only_ours(lambda: fingerprinted(load_task(read_task_file(path))))


@FUZZ
@given(text=st.one_of(st.text(), st.binary()))
def test_any_text_is_a_task_file_or_refused(tmp_path, text):
    path = write_task(tmp_path, "")
    for name in ("task.yaml", "f.toml", "subsets.json", "fits.json"):
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    only_ours(read_task_file, path)
    only_ours(load_family, path / "f.toml")
    only_ours(load_subsets, path / "subsets.json")
    only_ours(load_fits, path / "fits.json", None)


def toml(value: Any) -> str:
    """Return a value as TOML writes it inline; what TOML cannot write is 0."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(json.dumps(value), f"{value:f}")
    return "0" if value is None else json.dumps(value)


@FUZZ
@given(
    table=st.dictionaries(st.sampled_from(sorted(SETTINGS)), VALUES, max_size=4),
    counts=st.dictionaries(st.sampled_from(COUNTS), VALUES, max_size=2),
)
def test_any_family_file_loads_or_is_refused(tmp_path, table, counts):
    lines = [f"{key} = {toml(value)}" for key, value in {"source": "w/{size}", **table}.items()]
    lines += ["[sizes.a]", *(f"{key} = {toml(value)}" for key, value in counts.items()), "[sizes.b]"]
    path = tmp_path / "f.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_ours(load_family, path)


@FUZZ
@given(value=VALUES)
def test_any_json_is_subsets_or_fits_or_refused(tmp_path, value):
    path = tmp_path / "v.json"
    for content in (value, [value], [{"task": "t", "law": "sigmoid", "steps": value}]):
        path.write_text(json.dumps(content))
        only_ours(load_subsets, path)
        only_ours(load_fits, path, None)


@FUZZ
@given(seed=st.integers(0, 2**32), content=st.binary(max_size=300))
def test_any_table_is_read_or_refused(tmp_path, seed, content):
    rng, whole = np.random.default_rng(seed), tmp_path / "whole.parquet"
    if not whole.exists():
        pd.DataFrame({"family": ["a", "b"] * 50, "flops": np.arange(100.0), "acc": 0.5}).to_parquet(whole)
    flipped = bytearray(whole.read_bytes())
    for place in rng.integers(0, len(flipped), rng.integers(1, 4)):
        flipped[place] ^= 1 << int(rng.integers(8))
    for name, content_tried in (("t.parquet", bytes(flipped)), ("u.parquet", content), ("t.csv", content)):
        (tmp_path / name).write_bytes(content_tried)
        only_ours(read_table, tmp_path / name)


def test_what_is_no_table_is_refused(tmp_path):
    for name, content in (("a.csv", b""), ("b.csv", b"\xff\xfe\x00"), ("c.parquet", b"PAR1"), ("d.csv", b'"' * 9)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name):
            read_table(tmp_path / name)
