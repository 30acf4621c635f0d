"""harness import: published tables, and results and samples of lm-eval, in a store with measured cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import harness
from harness import DamagedFile, LawError, UsageError
from harness.cli import main
from harness.fitting.point_source import table_points
from harness.fitting.published import Reading, published
from harness.host import PluginHost
from harness.store.point_files import read_table
from harness.store.points import PointStore
from tests.conftest import published as data_of_others

LM_EVAL = Path(__file__).parent.parent / "data" / "lm-eval"
WIDE = "model,params,tokens,mmlu,arc_acc,bpb_pile\n" + "".join(
    f"fam-{n}m,{n}e6,{20 * n}e6,{25 + 4 * i},{30 + 5 * i},{2 - 0.1 * i}\n"
    for i, n in enumerate((10, 30, 100, 300, 900))
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def read(text: str, folder: Path, **how) -> pd.DataFrame:
    return published(table(text, folder), Reading(**how), name="table").points


def table(text: str, folder: Path) -> pd.DataFrame:
    (folder / "t.csv").write_text(text)
    return pd.read_csv(folder / "t.csv")


def test_a_wide_table_becomes_a_row_per_model_and_benchmark(tmp_path):
    imported = published(table(WIDE, tmp_path), Reading(), name="t")
    assert imported.shown_metrics == {"mmlu": "score", "arc": "acc", "pile": "bpb"}
    assert imported.rises == {"score": True, "acc": True, "bpb": False}
    points = imported.points.set_index(["task", "size"])
    assert points.loc[("mmlu", "10m"), "value"] == pytest.approx(0.25)  # a percentage
    assert points.loc[("pile", "10m"), "value"] == 2.0  # none
    assert set(points["family"]) == {"fam"}
    assert points.loc[("arc", "30m"), "flops"] == pytest.approx(6 * 30e6 * 600e6)
    assert "percentages, divided by 100: arc, mmlu" in imported.notes
    assert "flops are 6 x params x tokens" in imported.notes


@pytest.mark.parametrize(
    ("text", "how", "error", "said"),
    [
        ("model,params,tokens,x\nm,7,2,0.5\n", {}, LawError, "too few for parameters"),
        ("model,params,tokens,flops,x\nm,1e9,2e10,1e9,0.5\n", {}, LawError, "times 6 x params x tokens"),
        ("model,size_b,x\nm,7,0.5\n", {}, LawError, r"--map 'size_b \* 1e9=params'"),
        ("model,params,x\nm,1e9,512\n", {}, UsageError, "expected fractions or percentages"),
        ("model,params,x\na,1e9,0.4\nb,2e9,45\n", {}, UsageError, "a mixture of fractions and percentages"),
        ("model,params,x\na,1e9,good\nb,1e9,.5\n", {"tasks": ["x"]}, UsageError, "value is 'good' in row 0"),
        ("model,params\nm,1e9\n", {}, UsageError, "no column is a benchmark"),
        ('model,params,x,y\nm,1e9,"0,5",.5\n', {}, UsageError, "x has '0,5', which is not read as a number"),
        ("model,params,x,y\nm,1e9,27.0%,.5\n", {}, UsageError, "x has '27.0%', which is not read"),
        ("model,params,x,y\nm,1e9,.5,0.5 ± 0.1\n", {}, UsageError, "y has '0.5 ± 0.1', which is not read"),
        ("model,params,x,x_stderr\nm,1e9,.5,-1\n", {}, UsageError, "stderr is -1 in row 0; expected 0 or more"),
        ("model,params,x,n\nm,1e9,.5,0\n", {}, UsageError, "the number of documents, is 0 in row 0"),
        ("model,params,x,x_stderr\nm,1e9,45,.016\n", {}, UsageError, "those of 9.7e\\+06 documents; give both"),
        ("model,params,x,x_stderr\nm,1e9,.45,1.6\n", {}, UsageError, "larger than those of rates; give both"),
        ("model,params,x\nm,1e9,0.5\n", {"tasks": ["y*"]}, UsageError, "'y\\*' names no column"),
        ("model,params,x\nm,1e9,0.5\nm,1e9,0.6\n", {}, LawError, "which differ in value"),
        ("model,params,x\nm,1e9,0.5\nm,1e9,0.5\n", {}, LawError, "--drop-duplicates"),
        ("model,params,x\nm,1e9,\n", {"tasks": ["x"]}, UsageError, "1 of 1 rows have no value"),
        ("model,params,x\nm,1e9,0.5\n", {"models": {"n": {"tokens": 1e9}}}, UsageError, "no rows belong to n"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_right_are_refused(tmp_path, text, how, error, said):
    with pytest.raises(error, match=said):
        read(text, tmp_path, **how)


def test_rows_without_values_or_training_are_counted(tmp_path):
    text = "model,params,tokens,x\na,1e9,1e10,0.5\nb,1e9,0,0.1\nc,1e9,1e10,n/a\n"
    imported = published(table(text, tmp_path), Reading(), name="t")
    assert len(imported.points) == 1
    assert "1 of 3 rows have no value and were dropped" in imported.notes
    assert "1 rows without training (tokens, params or flops of 0) were dropped" in imported.notes


def test_equal_rows_are_dropped_on_request_and_models_are_known_from_a_file(tmp_path):
    (tmp_path / "t.csv").write_text("model,x\nm,0.5\nm,0.5\nn,0.6\n")
    (tmp_path / "m.toml").write_text(
        'family = "f"\n[models.m]\nsize = "1B"\nparams = 1e9\ntokens = 2e10\n[models.n]\nsize = "2B"\nparams = 2e9\n'
    )
    result = run(
        "import", tmp_path / "t.csv", "--mapping", tmp_path / "m.toml", "--drop-duplicates", "-o", tmp_path / "s"
    )
    assert result.exit_code == 0, result.output
    assert "1 of 3 rows are equal to others in every column and were dropped" in result.output
    points = harness.open_store(tmp_path / "s").points()
    assert points[["size", "params"]].to_numpy().tolist() == [["1B", 1e9], ["2B", 2e9]]
    assert points["flops"].isna().tolist() == [False, True]
    (tmp_path / "m.toml").write_text("nmap = 1\n")
    assert "has nmap; expected" in run("import", tmp_path / "t.csv", "--mapping", tmp_path / "m.toml", "-o", "s").stderr


@pytest.fixture
def mixed(tmp_path, nano_store: PointStore, host: PluginHost) -> PointStore:
    """Return a copy of the nano store with the points of a table beside its cells."""
    shutil.copytree(nano_store.path, tmp_path / "mixed")
    (tmp_path / "w.csv").write_text(WIDE)
    result = run("import", tmp_path / "w.csv", "-o", tmp_path / "mixed")
    assert result.exit_code == 0, result.output
    return harness.open_store(tmp_path / "mixed", registries=host)


def test_imported_points_stand_beside_measured_ones(mixed: PointStore, nano_store: PointStore):
    points = mixed.points()
    measured = nano_store.points()
    assert len(points) == len(measured) + 15
    assert points["origin"].value_counts().to_dict() == {"measured": len(measured), "w.csv": 15}
    assert sorted(mixed.points("mmlu")["value"]) == pytest.approx([0.25, 0.29, 0.33, 0.37, 0.41])
    assert mixed.tasks()["mmlu"] == "score"
    with pytest.raises(harness.StoreError, match="imported points of task mmlu"):
        mixed.scores("mmlu")


def test_measured_points_are_what_they_were(mixed: PointStore, nano_store: PointStore):
    columns = ["family", "size", "step", "task", "metric", "value", "stderr"]
    points = mixed.points("nano_addition", metrics=["acc", "p_choices"])[columns]
    pd.testing.assert_frame_equal(points, nano_store.points("nano_addition", metrics=["acc", "p_choices"])[columns])


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--law", "line", "--where", "task in ['mmlu', 'nano_birthplace']"],
        ["trends", "--task", "mmlu"],
        ["fit", "--task", "mmlu", "--law", "line", "--hold-out", "largest"],
        ["fit", "--task", "mmlu", "--law", "line,last", "--back-test"],
        [
            "capabilities",
            "--benchmarks",
            "mmlu,arc,pile",
            "--where",
            "family == 'fam' and tokens > 0",
            "--map",
            "pile / 10=pile",
        ],
    ],
    ids=lambda command: " ".join(command[:1]),
)
def test_commands_take_mixed_points(mixed: PointStore, command):
    result = run(command[0], mixed.path, *command[1:])
    assert result.exit_code == 0, result.output
    assert "mmlu" in result.output


def test_a_table_answers_where_a_store_does(tmp_path, host: PluginHost):
    (tmp_path / "w.csv").write_text(WIDE + WIDE.partition("\n")[2].replace("fam-", "kin-"))
    result = run("compare", tmp_path / "w.csv", "--law", "line", "--reach", "line", "--score", "0.4")
    assert result.exit_code == 0, result.output
    assert "| mmlu | score  | 0.41 ± ? | 0.41 ± ? |" in result.output
    result = run("decide", tmp_path / "w.csv", "--task", "mmlu", "--bootstrap", "20", "--label", "model")
    assert result.exit_code == 0, result.output
    assert "columns read: model as label" not in result.output


def test_from_a_published_table_to_a_figure_in_two_commands(tmp_path):
    (tmp_path / "w.csv").write_text(WIDE)
    assert run("import", tmp_path / "w.csv", "-o", tmp_path / "s").exit_code == 0
    result = run("plot", tmp_path / "s", "--task", "mmlu", "--law", "line", "-o", tmp_path / "f.json")
    assert result.exit_code == 0, result.output
    rows = next(iter(json.loads((tmp_path / "f.json").read_text())["datasets"].values()))
    assert {row["kind"] for row in rows} == {"measured", "held out", "law"}


def test_points_that_are_there_already_are_refused_and_the_same_file_is_replaced(mixed: PointStore, tmp_path):
    assert run("import", tmp_path / "w.csv", "--where", "params > 2e7", "-o", mixed.path).exit_code == 0
    assert len(harness.open_store(mixed.path).points("mmlu")) == 4
    (tmp_path / "other.csv").write_text(WIDE + "fam-5m,5e6,1e8,20,21,2.2\n")
    result = run("import", tmp_path / "other.csv", "-o", mixed.path)
    assert result.exit_code == 2
    assert "fam-30m, mmlu, score" in result.stderr
    assert "are in the store already, imported (w.csv)" in result.stderr
    (tmp_path / "own.csv").write_text(
        "family,size,step,params,task,metric,value\naster,w32l2,100,6e4,nano_addition,acc,.5\n"
    )
    assert "are in the store already, measured" in run("import", tmp_path / "own.csv", "-o", mixed.path).stderr


def test_damaged_points_are_named_and_the_import_to_repeat_is_printed(mixed: PointStore, tmp_path):
    (file,) = (mixed.path / "points").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-40])
    assert f"harness import {tmp_path}/w.csv -o {mixed.path}" in run("check", mixed.path).output
    with pytest.raises(DamagedFile, match="repeat the import: harness import"):
        harness.open_store(mixed.path).points()
    assert "imported points are damaged" in run("compare", mixed.path, "--law", "line").output
    assert run("import", tmp_path / "w.csv", "-o", mixed.path).exit_code == 0
    assert len(harness.open_store(mixed.path).points("mmlu")) == 5


def test_samples_of_lm_eval_become_records(tmp_path):
    result = run("import", LM_EVAL, "--map", "1e8=tokens", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    store = harness.open_store(tmp_path / "s")
    points = store.points("sums").set_index("metric")["value"]
    assert points["acc"] == pytest.approx(11 / 12)
    assert points["acc_char"] == pytest.approx(10 / 12)  # lm-eval's acc_norm
    assert "acc_token" not in points.index  # lm-eval keeps no numbers of tokens
    assert store.points("cloze", metrics=["perplexity"])["value"].tolist() == pytest.approx([37.11640262847208])
    scores = store.scores("sums")
    assert scores["logprob"].iloc[0] == pytest.approx(-1.7370493412017822)
    assert points["logp_gold"] < 0
    assert set(store.points("sums")["family"]) == {"tiny"}
    assert set(scores["size"]) == {"60k"}


def test_results_without_samples_become_points(tmp_path):
    (results,) = LM_EVAL.glob("results*.json")
    assert run("import", results, "--family", "t", "-o", tmp_path / "s").exit_code == 0
    points = harness.open_store(tmp_path / "s").points("sums").set_index("metric")
    assert points.loc["acc", "value"] == pytest.approx(11 / 12)
    assert points.loc["acc", "n"] == 12
    assert np.isnan(points.loc["acc", "stderr"])  # N/A
    assert points.loc["acc", "params"] == 59552


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"acc": 1.0', '"acc": 0.0', "acc is 0.0, but its log-probabilities give 1"),
        ('"acc_norm": 1.0', '"acc_norm": 0.0', "acc_norm is 0.0, but its log-probabilities give 1"),
        ('"target": "0"', '"target": "7"', "is not one of its choices"),
        ('["-1.7370493412017822", "True"]', '"a text"', "expected a log-probability"),
    ],
)
def test_samples_that_do_not_give_lm_evals_results_back_stay_points(tmp_path, old, new, said):
    for file in LM_EVAL.iterdir():
        text = file.read_text()
        (tmp_path / file.name).write_text(text.replace(old, new) if "_sums_" in file.name else text)
    result = run("import", tmp_path, "-o", tmp_path.parent / "s")
    assert result.exit_code == 0, result.output
    assert said in result.output
    assert harness.open_store(tmp_path.parent / "s").points("sums", metrics=["acc"])["value"].iloc[0] == pytest.approx(
        11 / 12
    )
    shutil.rmtree(tmp_path.parent / "s")


def changed(folder: Path, change, pattern: str = "*") -> Path:
    """Write the files of lm-eval, those of a pattern changed."""
    folder.mkdir()
    for file in LM_EVAL.iterdir():
        text = file.read_text()
        (folder / file.name).write_text(change(text) if file.match(pattern) else text)
    return folder


def test_values_of_lm_eval_are_taken_as_they_are(tmp_path):
    """BLEU was divided by 100 in the files where it exceeded 1, and a length of 7 characters too."""

    def add(text: str) -> str:
        content = json.loads(text)
        content["results"]["texts"] = {"bleu,none": 21.5, "length,none": 7.25, "bypass,none": 999}
        return json.dumps(content)

    folder = changed(tmp_path / "r", add, "results*")
    result = run("import", folder, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    points = harness.open_store(tmp_path / "s").points("texts").set_index("metric")["value"]
    assert points.to_dict() == {"bleu": 21.5, "length": 7.25, "bypass": 999}


def test_metrics_of_lm_eval_that_records_do_not_give_are_named(tmp_path):
    folder = changed(tmp_path / "r", lambda text: text.replace('"acc_norm,', '"calibration,'), "results*")
    result = run("import", folder, "-o", tmp_path / "s")
    assert "sums: lm-eval's calibration is left out, since records do not give it" in result.output


def test_texts_of_samples_may_have_line_separators(tmp_path):
    """A line separator of Unicode within a text was taken for the end of a line, and the file for a damaged one."""
    folder = changed(tmp_path / "r", lambda text: text.replace("0 + 1 =", "0 + 1\u2028=\u0085"), "samples_sums*")
    result = run("import", folder, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert len(harness.open_store(tmp_path / "s").scores("sums")) == 36


def test_characters_of_choices_are_counted_without_lm_evals_delimiter(tmp_path):
    def colons(text: str) -> str:
        return text.replace('"arg_1": " ', '"arg_1": ": ')

    folder = changed(tmp_path / "r", colons, "samples_sums*")
    (results,) = folder.glob("results*")
    results.write_text(json.dumps(json.loads(results.read_text()) | {"configs": {"sums": {"target_delimiter": ": "}}}))
    assert "records: document" not in run("import", folder, "-o", tmp_path / "s").output
    points = harness.open_store(tmp_path / "s").points("sums").set_index("metric")["value"]
    assert points["acc_char"] == pytest.approx(10 / 12)  # lm-eval's acc_norm


def test_samples_with_choices_in_their_contexts_stay_points(tmp_path):
    def same(text: str) -> str:
        rows = [json.loads(line) for line in text.splitlines()]
        for row in rows:
            for i, arguments in enumerate(row["arguments"].values()):
                arguments |= {"arg_0": f"{arguments['arg_0']} {i}", "arg_1": " it"}
        return "".join(json.dumps(row) + "\n" for row in rows)

    result = run("import", changed(tmp_path / "r", same, "samples_sums*"), "-o", tmp_path / "s")
    assert "the choices are in the contexts, and samples do not say which one is correct" in result.output


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2].encode(), "the file may be cut off"),
        (lambda text: text.encode()[:200] + b"\xff\xfe" + text.encode()[202:], "in UTF-8"),
        (lambda text: b'{"doc_id": 0}\n', "line 1 of 1: no arguments, filtered_resps, target"),
        (lambda text: b"[1]\n", "line 1 of 1: a JSON list"),
    ],
)
def test_a_damaged_samples_file_is_named_with_its_line(tmp_path, damage, said):
    for file in LM_EVAL.iterdir():
        shutil.copy(file, tmp_path)
    (samples,) = tmp_path.glob("samples_sums*")
    samples.write_bytes(damage(samples.read_text()))
    result = run("import", tmp_path, "-o", tmp_path.parent / "s")
    assert result.exit_code == 2
    assert samples.name in result.stderr
    assert said in result.stderr
    assert not (tmp_path.parent / "s").exists()


def test_texts_with_line_separators_of_unicode_are_imported(tmp_path):
    """lm-eval writes U+2028 and U+0085 as they are; a line was cut there, and the file passed for damaged."""
    for file in LM_EVAL.iterdir():
        shutil.copy(file, tmp_path)
    for samples in tmp_path.glob("samples_*"):
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").split("\n") if line]
        texts = [json.dumps({**row, "note": "a\u2028b\x85c"}, ensure_ascii=False) for row in rows]
        samples.write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert run("import", tmp_path, "-o", tmp_path.parent / "s").exit_code == 0
    assert run("import", LM_EVAL, "-o", tmp_path.parent / "t").exit_code == 0
    cells = [PointStore(tmp_path.parent / name).cell_names() for name in ("s", "t")]
    assert cells[0] == cells[1] != set()


def test_samples_alone_and_other_files_are_refused(tmp_path):
    (samples,) = LM_EVAL.glob("samples_sums*")
    assert "need the results_*.json of their run" in run("import", samples, "-o", tmp_path / "s").stderr
    (tmp_path / "x.json").write_text("[]")
    assert "not a results file of lm-eval" in run("import", tmp_path / "x.json", "-o", tmp_path / "s").stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.soak
def test_published_pythia_and_opt_beside_the_nano_store(tmp_path, nano_store: PointStore):
    """One command each, then compare and report."""
    shutil.copytree(nano_store.path, tmp_path / "s")
    pythia = data_of_others("laws", "pythia", "pythia_v1_zero_shot_lambada_piqa.csv")
    opt = data_of_others("laws", "hitchhiker", "opt_bigbench_3_tasks.csv")
    assert run("import", pythia, "-o", tmp_path / "s").exit_code == 0
    assert run("import", opt, "--family", "opt", "-o", tmp_path / "s").exit_code == 0
    result = run("compare", tmp_path / "s", "--law", "line")
    assert result.exit_code == 0, result.output
    assert "0.7628 ± 0.0099" in result.output  # pythia-12b on piqa, as published
    result = run("report", tmp_path / "s", "--law", "line", "-o", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "pythia-deduped" in (tmp_path / "r.html").read_text()


@pytest.mark.parity
def test_files_that_lm_eval_writes_are_imported(tmp_path):
    """Real files of the installed lm-eval, of a shipped checkpoint."""
    from tests.plugins.lm_eval_files import write_results

    folder = write_results(tmp_path)
    result = run(
        "import", folder, "--family", "aster", "--map", "'w32l2'=size", "--map", "1e8=tokens", "-o", tmp_path / "s"
    )
    assert result.exit_code == 0, result.output
    assert "12 documents with the log-probability of every choice" in result.output
    assert set(harness.open_store(tmp_path / "s").tasks()) == {"sums", "cloze"}


def test_points_without_params_and_steps_are_runs_of_their_own(host: PluginHost):
    """Nine amounts of compute were read as one run, whose law had no degree of freedom and intervals of no width."""
    flops = np.geomspace(1e18, 1e22, 9)
    table = pd.DataFrame({"family": "ash", "flops": flops, "acc": 0.3 + 0.05 * np.log10(flops / 1e18)})
    table["acc"] += 0.005 * np.cos(np.arange(9))
    store = table_points(table, Reading(metrics=("acc",)), registries=host)
    assert store.points()["size"].nunique() == 9
    fitted = harness.fit(store.points(), "line", value="acc", bootstrap=20, registries=host)
    assert (fitted.runs, fitted.sizes) == (9, 9)
    assert fitted.steps[0].dof == 7


def test_errors_and_counts_of_a_benchmark_are_no_benchmarks():
    wide = pd.DataFrame({"model": ["a-1m", "a-2m"], "params": [1e6, 2e6], "x": [0.5, 0.6], "seed": ["s1", "s0"]})
    wide = wide.assign(x_stderr=0.02, x_n=[600, 700])
    for how in (Reading(), Reading(tasks=["x*"])):
        imported = published(wide, how, name="t")
        assert imported.points[["task", "value", "stderr", "n"]].to_numpy().tolist() == [
            ["x", 0.5, 0.02, 600],
            ["x", 0.6, 0.02, 700],
        ]
        assert imported.points["seed"].tolist() == [1, 0]
        assert "seeds are numbered: s0 is 0, s1 is 1" in imported.notes


def test_tables_of_other_formats_are_read_or_refused_by_name(tmp_path):
    wide = table(WIDE, tmp_path)
    expected = published(wide, Reading(), name="t").points
    wide.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    wide.rename(columns={"params": " params "}).to_csv(tmp_path / "a.csv", index=False)
    wide.set_index("model").to_parquet(tmp_path / "a.parquet")
    for name in ("a.tsv", "a.csv", "a.parquet"):
        pd.testing.assert_frame_equal(published(read_table(tmp_path / name)[0], Reading(), name="t").points, expected)
    wide.to_csv(tmp_path / "b.csv", sep=";", index=False)
    wide.to_json(tmp_path / "b.json")
    pd.concat([wide, wide.rename(columns={"params": "mmlu "})[["mmlu "]]], axis=1).to_csv(tmp_path / "c.csv")
    for name, why in (
        ("b.csv", "separated by semicolons"),
        ("b.json", "CSV or Parquet"),
        ("c.csv", "columns named mmlu"),
    ):
        with pytest.raises(UsageError, match=why):
            read_table(tmp_path / name)


def test_points_whose_size_is_unknown_are_counted(tmp_path):
    """A table without the params of some models was imported without a word, and then no law could be fitted."""
    wide = table(WIDE, tmp_path).assign(params=lambda t: t["params"].where(t.index > 0))
    notes = published(wide, Reading(), name="t").notes
    unknown = published(table(WIDE, tmp_path), Reading(), name="t").points["params"].isna().sum()
    assert unknown == 0
    assert any(note.startswith("params of ") and note.endswith("laws of them need --where") for note in notes)
