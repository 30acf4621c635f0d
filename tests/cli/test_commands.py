"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from harness import printable
from harness.cli import main
from harness.store.points import PointStore
from tests.conftest import REPOSITORY

SINK = REPOSITORY / "tests" / "kitchen_sink.py"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_help_lists_all_commands_and_those_of_plugins():
    result = run("-p", SINK, "--help")
    assert result.exit_code == 0
    for command in ("eval", "fit", "predict", "compare", "diff", "ls", "show", "plugins", "sink"):
        assert f"\n  {command} " in result.output
    assert run("-p", SINK, "sink").output == "the sink is there\n"


def test_help_imports_nothing_heavy():
    """So that it answers at once: no pandas, scipy, pyarrow, torch or transformers."""
    code = (
        "import sys\nfrom harness.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "names = {'pandas', 'scipy', 'pyarrow', 'torch', 'transformers', 'tokenizers', 'rich', 'yaml'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_eval_resumes_and_says_what_was_there(tmp_path):
    command = ["eval", "aster:w32l2@100,200", "-t", "nano_job", "--limit", "5", "-o", tmp_path / "s"]
    first = run(*command)
    assert first.exit_code == 0, first.output
    assert "0 of 2 cells are already stored" in first.stderr
    assert "2/2 aster:w32l2@200 nano_job" in first.stderr
    assert "documents/s" in first.stderr
    assert "2 of 2 cells are already stored" in run(*command).stderr


def test_a_dry_run_writes_nothing(tmp_path):
    result = run(
        "eval", "aster:w32l2@100", "-t", "nano_job,nano_text", "--limit", "5", "-o", tmp_path / "s", "--dry-run"
    )
    assert result.exit_code == 0
    assert "| nano_job  | 1     | 5         |" in result.stdout
    assert "| all       | 2     | 10        |" in result.stdout
    assert "0 of 2 cells are in the store." in result.stdout
    assert not (tmp_path / "s").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.evaluation.suite.Suite.run", interrupted)
    result = run("eval", "aster:w32l2@100", "-t", "nano_job", "--limit", "5", "-o", tmp_path / "s")
    assert result.exit_code == 130
    assert "interrupted; the same command computes the missing cells" in result.stderr


def test_a_failing_checkpoint_ends_with_status_1_after_the_others(tmp_path):
    (tmp_path / "bad.toml").write_text("source = 'nowhere'\n[sizes.a]\n")
    result = run(
        "eval", tmp_path / "bad.toml", "aster:w32l2@100", "-t", "nano_job", "--limit", "5", "-o", tmp_path / "s"
    )
    assert result.exit_code == 1
    assert "failed: bad:a: no config.json" in result.stderr
    assert "1/1 aster:w32l2@100 nano_job" in result.stderr
    assert "harness: 1 failed, 1 cells written, 0 already stored" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["eval", "astor", "-t", "nano_job", "-o", "s"], 2, "there is no family 'astor'"),
        (["eval", "aster", "-t", "nano_jobs", "-o", "s"], 2, "there is no task 'nano_jobs'"),
        (["eval", "aster", "-t", "nano_job", "-o", "s", "--engine", "vlm"], 2, "there is no 'vlm' in engines"),
        (
            ["eval", "aster", "-t", "nano_job", "-o", "s", "-O", "batch=3"],
            2,
            "has no option batch; did you mean 'batch_tokens'",
        ),
        (["eval", "aster", "-t", "nano_job", "-o", "s", "-O", "batch"], 2, "expected NAME=VALUE"),
        (["eval", "aster"], 2, "Missing option"),
        (["fit", "nowhere.csv", "--law", "power", "--value", "y"], 2, "nowhere.csv"),
        (["fit", "nowhere.csv", "--law", "powr", "--value", "y"], 2, "there is no 'powr' in laws"),
        (["eval", "aster", "-t", "nano_job", "-o", "s", "--data", "nowhere"], 2, "nowhere"),
        (["eval", "aster", "-t", "", "-o", "s"], 2, "0 tasks are named"),
        (["eval", "aster@foo", "-t", "nano_job", "-o", "s"], 2, "step range 'foo'"),
        (["eval", "aster", "-t", "nano_job", "-o", "/dev/null/s"], 1, "no store can be made at /dev/null/s"),
        (["compare", "nowhere"], 1, "nowhere is not a store"),
        (["predict", "nowhere.json"], 1, "nowhere.json is not a file of fits"),
        (["show", "nano_jobs"], 2, "did you mean 'nano_job'"),
        (["ls", "things"], 2, "things"),
        (["-p", "no_such_module", "ls", "laws"], 1, "plugin 'no_such_module' does not load: ModuleNotFoundError"),
    ],
)
def test_errors_are_one_line_with_a_status(tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_traceback_on_request():
    result = run("--traceback", "show", "nano_jobs")
    assert type(result.exception).__name__ == "UsageError"


def test_a_broken_plugin_is_listed_and_stops_the_rest(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    listed = run("-p", broken, "plugins", "--json")
    assert listed.exit_code == 1
    (info,) = [info for info in json.loads(listed.stdout) if info["name"] == "broken"]
    assert info["error"] == "ZeroDivisionError: division by zero"
    assert run("-p", broken, "ls", "laws").exit_code == 1
    assert run("-p", broken, "-p", "no:broken", "ls", "laws").exit_code == 0
    assert run("-p", "no:reporters", "plugins").stdout.startswith("[")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("families", "aster"),
        ("tasks", "nano_text"),
        ("laws", "two_step"),
        ("metrics", "acc"),
        ("engines", "transformers"),
        ("samplers", "pass_until"),
        ("sources", "bigbench:NAME"),
        ("reporters", "tex"),
        ("panels", "heat_map"),
        ("forecasters", "walk"),
    ],
)
def test_ls_lists_what_can_be_named(kind, name):
    assert f"| {name} " in run("ls", kind).stdout
    rows = json.loads(run("ls", kind, "--json").stdout)
    assert name in {next(iter(row.values())) for row in rows}


def test_ls_lists_the_tasks_of_sources_and_eval_takes_them(tmp_path):
    assert "sink:one" in run("-p", SINK, "ls", "tasks").stdout
    result = run("-p", SINK, "eval", "aster:w32l2@100", "-t", "sink:one", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert run("-p", SINK, "eval", "aster", "-t", "sink:two", "-o", tmp_path / "s").exit_code == 2


def test_show_prints_exact_prompts_with_the_boundary():
    output = run("show", "nano_addition", "--n", "1").stdout
    assert "nano_addition: choice, 1000 documents, metric acc, fingerprint 8c783222593c9249" in output
    assert "document 0, digits 3\n217 + 155 =┃\n" in output
    assert "  * 1 ┃ 372┃\n" in output
    assert "    0 ┃ 383┃\n" in output


def test_show_marks_ends_of_lines_and_contexts_that_differ(tmp_path):
    task = tmp_path / "two"
    task.mkdir()
    (task / "task.yaml").write_text(
        'documents: docs.jsonl\ncontexts: ["{a}\\n", "{b}"]\ncontinuation: "x"\ngold: g\ndelimiter: ""\n'
    )
    (task / "docs.jsonl").write_text(json.dumps({"a": "one", "b": "two\t", "g": 1}) + "\n")
    output = run("show", task).stdout
    assert "    0 one⏎\n┃x┃" in output
    assert "  * 1 two⇥┃x┃" in output


HOSTILE = "\x1b[2J\x07\r\x9b1m\u202e┃"


def test_text_of_documents_reaches_a_terminal_as_escapes(tmp_path):
    task = tmp_path / "hostile"
    task.mkdir()
    (task / "task.yaml").write_text(
        'documents: docs.jsonl\nquery: "{q}"\nchoices: c\ngold: g\nid: "{q}"\ngroup: "{q}"\nattributes: [q]\n'
    )
    (task / "docs.jsonl").write_text(json.dumps({"q": HOSTILE, "c": [HOSTILE, "b"], "g": 0}) + "\n")
    output = run("show", task).stdout
    assert printable(output, lines=True) == output
    assert "\\x1b[2J\\x07\\r\\x9b1m\\u202e\\u2503┃\n" in output


def test_names_of_families_reach_a_terminal_as_escapes(tmp_path):
    family = tmp_path / "odd.toml"
    family.write_text(
        f'source = "{REPOSITORY}/plugins/nano/weights/aster/w32l2/step-100"\n[sizes."[bold]\\u001b[2J\\u009b"]\n'
        '[sizes."\\u202e"]\nsource = "absent"\n'
    )
    result = run("eval", family, "-t", "nano_job", "--limit", "2", "-o", tmp_path / "s")
    assert result.exit_code == 1
    for output in (result.stderr, run("compare", tmp_path / "s").output, run("check", tmp_path / "s").output):
        assert printable(output, lines=True) == output
    assert "odd:[bold]\\x1b[2J\\x9b nano_job" in result.stderr
    assert "odd:\\u202e: no config.json or adapter_config.json in " in result.stderr


def test_fit_predict_and_files(tmp_path, nano_store: PointStore):
    fits = tmp_path / "fit.json"
    command = ["fit", nano_store.path, "--law", "sigmoid", "--task", "nano_birthplace", "--bootstrap", "20"]
    result = run(*command, "--where", "family == 'aster'", "-o", fits)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("sigmoid: acc from flops  (family aster, task nano_birthplace)")
    predicted = run("predict", fits, "--params", "1e6", "--tokens", "1e8", "--format", "json")
    (row,) = json.loads(predicted.stdout)["predictions"]["rows"]
    assert row["family"] == "aster"
    assert row["predicted low"] <= row["predicted"] <= row["predicted high"]
    assert run("predict", fits, "--params", "1e6").exit_code == 2
    whole = json.loads(run(*command, "--where", "family == 'aster'", "--json").stdout)[0]
    assert whole["law"] == "sigmoid"
    assert set(whole["steps"][0]["parameters"]) == {"lo", "hi", "k", "x0"}
    assert "draws" not in whole["steps"][0]


def test_fit_of_several_families_reports_those_that_cannot_be_fitted(nano_store: PointStore):
    command = ["fit", nano_store.path, "--law", "two_step", "--task", "nano_birthplace", "--bootstrap", "20"]
    result = run(*command)
    assert result.exit_code == 1
    assert "(family aster, task nano_birthplace)" in result.stdout
    assert "harness: birch: law 'accuracy_from_loss' has 4 parameters, but there are 3 points" in result.stderr
    pooled = run(*command, "--pool")
    assert pooled.exit_code == 0
    assert "13 points" in pooled.stdout
    assert run("fit", nano_store.path, "--law", "sigmoid").exit_code == 2  # which task?


def test_fit_of_a_table(tmp_path):
    table = tmp_path / "points.csv"
    rows = [f"{c:.6g},{1.7 + (c / 1e18) ** -0.15:.9g}" for c in (10 ** (18 + i / 2) for i in range(8))]
    table.write_text("flops,loss\n" + "\n".join(rows) + "\n")
    result = run("fit", table, "--law", "power", "--value", "loss", "--bootstrap", "20")
    assert result.exit_code == 0, result.output
    assert "E      1.7000" in result.stdout
    missing = run("fit", table, "--law", "power")
    assert missing.exit_code == 2
    assert "has columns flops, loss" in missing.stderr


@pytest.mark.soak
def test_compare_writes_tables_and_compares_with_them(tmp_path, nano_store: PointStore):
    command = ["compare", nano_store.path, "--law", "sigmoid"]
    result = run(*command, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in ("families", "ladder", "predictions", "compute") for suffix in ("csv", "md")
    )
    again = run(*command, "--expect", tmp_path, "--format", "csv")
    assert again.exit_code == 0
    assert again.stdout.endswith(f"All cells equal those in {tmp_path}.\n")
    table = tmp_path / "families.csv"
    table.write_text(table.read_text().replace("nano_saying,acc,", "nano_saying,acc,9"))
    changed = run(*command, "--expect", tmp_path)
    assert changed.exit_code == 1
    assert "differs: families, row 3 (nano_saying acc), aster" in changed.stderr
    assert "harness: 1 cells differ" in changed.stderr


NOISY = """
import os, subprocess, sys
import harness
print("at import")

@harness.hookimpl
def register_metrics(register):
    print("in a hook")
    os.write(1, b"by its descriptor\\n")
    subprocess.run([sys.executable, "-c", "print(7)"], check=True)
    register(noisy, needs=["choices"])

def noisy(scores):
    print("in a metric")
    return scores.logprob[scores.first]
"""


def test_what_plugins_print_never_mixes_with_json(tmp_path, nano_store: PointStore):
    (tmp_path / "noisy.py").write_text(NOISY)
    compare = ["compare", nano_store.path, "--metric", "nano_addition=noisy", "--where", "task == 'nano_addition'"]
    for arguments in (compare, ["ls", "metrics"], ["plugins"]):
        ending = ["--format", "json"] if arguments is compare else ["--json"]
        result = run("-p", tmp_path / "noisy.py", *arguments, *ending)
        assert json.loads(result.stdout)
        assert "at import\nin a hook\n" in result.stderr
    command = [sys.executable, "-m", "harness", "-p", tmp_path / "noisy.py", "ls", "metrics", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert any(row["metric"] == "noisy" for row in json.loads(done.stdout))
    assert all(line in done.stderr for line in ("at import", "in a hook", "by its descriptor", "7"))


def test_ls_shows_kinds_of_which_only_plugins_have_any():
    assert "| sink_executor | kitchen_sink " in run("-p", SINK, "ls", "executors").stdout
