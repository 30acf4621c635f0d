"""lm-eval's tasks on the harness's engines: JSON equal to lm-eval's, choice by choice, metric by metric."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import harness
from harness import StoreError, Task, TaskError, UsageError
from harness.checkpoints.families import locate, select
from harness.cli import main
from harness.host import PluginHost
from harness.points import widen
from harness.tasks.finding import find_tasks
from harness.tasks.prompt_options import Prompting
from harness.tasks.task_files import read_task_file
from harness_plugins.sources.lm_eval import rebuilding
from harness_plugins.sources.lm_eval.export import export_store
from tests import lm_eval_cases as cases
from tests.conftest import REPOSITORY

MODEL = "aster:w64l2@1600"
CASES = {
    "arc_easy": lambda: cases.arc_easy(20),
    "boolq": lambda: cases.boolq(6),
    "mutual": lambda: cases.mutual(6),
    "gsm8k": lambda: cases.gsm8k(3, num_fewshot=2, fewshot_seed=7),
    "bbh": lambda: cases.bbh(6),
    "hellaswag": lambda: cases.hellaswag(6),
    "lambada": lambda: cases.lambada(12),
    "small_mmlu": lambda: cases.small_mmlu(4),
    "wikitext": lambda: cases.wikitext(4),
    "winogrande": lambda: cases.winogrande(6),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_results_and_samples_are_those_that_lm_eval_writes(name: str, host: PluginHost, tmp_path: Path):
    case, folder = CASES[name](), tmp_path / "tasks"
    folder.mkdir()
    case.write(folder)
    run_both(case, folder, tmp_path, host)
    comparison = cases.compare(tmp_path / "theirs", tmp_path / "ours")
    assert not comparison.differences, "\n".join(comparison.differences[:20])
    assert comparison.documents


def run_both(case: cases.Case, folder: Path, out: Path, host: PluginHost) -> None:
    """Evaluate a case with both programs, into OUT/theirs and OUT/ours."""

    def model():
        from lm_eval.models.huggingface import HFLM

        _, weights = locate(select(MODEL, host)[0])
        settings = {"dtype": "float32", "max_length": cases.MAX_LENGTH, "batch_size": 8, "device": "cpu"}
        return HFLM(pretrained=str(weights), add_bos_token=case.add_bos, **settings)

    cases.theirs(case, folder, model, out / "theirs")
    cases.ours(case, folder, MODEL, out / "ours", host=host)


@pytest.mark.parity
def test_a_group_of_several_kinds_is_aggregated_as_lm_eval_does_where_all_its_tasks_are_stored(
    host: PluginHost, tmp_path: Path
):
    case, folder = cases.mixed(5), tmp_path / "tasks"
    folder.mkdir()
    case.write(folder)
    run_both(case, folder, tmp_path, host)
    comparison = cases.compare(tmp_path / "theirs", tmp_path / "ours")
    assert not comparison.differences, "\n".join(comparison.differences[:20])
    whole = json.loads(next((tmp_path / "ours").rglob("results_*.json")).read_text())
    assert {"acc,none", "perplexity,none"} <= set(whole["groups"]["mixed"])

    tasks = find_tasks(["lm_eval:mixed"], host, prompting=Prompting(include_path=(str(folder),)))
    assert [task.name for task in tasks] == ["lm_eval:boolq", "lm_eval:lambada_openai"]
    harness.evaluate([MODEL], tasks[:1], tmp_path / "s", registries=host).check()
    with cases.quiet():
        (file,) = export_store(harness.open_store(tmp_path / "s", registries=host), tmp_path / "out", None, 0)
    assert list(json.loads(file.read_text())["results"]) == ["boolq"]


OWN = {  # task files, and the Python file beside them
    "own.py": """
import json
from functools import partial
from pathlib import Path

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

ROWS = [{"q": f"{i} + 1 =", "answer": str(i + 1), "label": i % 2} for i in range(6)]


def rows(**_):
    return {"test": Dataset.from_list(ROWS)}


class Guess(ConfigurableTask):
    OUTPUT = {"output_type": "loglikelihood"}

    def __init__(self, config=None):
        shared = {"custom_dataset": rows, "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "{{answer}}"}
        metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
        super().__init__(config={**shared, "metric_list": [metric], "metadata": {"version": 0}, **self.OUTPUT})

    def construct_requests(self, doc, ctx, apply_chat_template=False, chat_template=None, **settings):
        texts = [(ctx, " yes"), ("Is it? " + ctx, " no")]
        return [Instance("loglikelihood", doc, pair, i, **settings) for i, pair in enumerate(texts)]

    def process_results(self, doc, results):
        return {"acc": float((results[0][0] > results[1][0]) == doc["label"]), "gap": doc["label"] + 2}

    def aggregation(self):
        return {"acc": lambda values: sum(values) / len(values), "gap": max}

    def higher_is_better(self):
        return {"acc": True, "gap": True}


class Writes(Guess):
    OUTPUT = {"output_type": "generate_until", "generation_kwargs": {"until": ["\\n"]}}
    LONGER = 0

    def construct_requests(self, doc, ctx, apply_chat_template=False, chat_template=None, **settings):
        most = 3 + self.LONGER * doc["label"]
        return Instance("generate_until", doc, (ctx, {"until": ["\\n"], "max_gen_toks": most}), 0, **settings)

    def process_results(self, doc, results):
        return {"acc": float(results[0] == doc["answer"]), "gap": len(results[0])}


class Longer(Writes):
    LONGER = 1


def ask(word, doc):
    return f"{word} {doc['q']}"


asked = partial(ask, "What is")


def thrice(doc, results):
    return {"acc": float(results[0][1]) * 3}


def largest(values):
    return max(values)
""",
    "guess.yaml": "task: guess\nclass: !function own.Guess\n",
    "writes.yaml": "task: writes\nclass: !function own.Writes\n",
    "longer.yaml": "task: longer\nclass: !function own.Longer\n",
    "plain.yaml": """
task: plain
custom_dataset: !function own.rows
test_split: test
output_type: loglikelihood
doc_to_text: !function own.asked
doc_to_target: answer
process_results: !function own.thrice
metric_list: [{metric: acc, aggregation: !function own.largest, higher_is_better: true}]
""",
    "changed.yaml": """
group: changed
task:
  - {task: plain, process_results: null, metric_list: [{metric: acc}]}
  - task: inside
    custom_dataset: !function own.rows
    test_split: test
    output_type: loglikelihood
    doc_to_text: "{{q}}"
    doc_to_target: answer
    process_results: !function own.thrice
    metric_list: [{metric: acc, aggregation: !function own.largest, higher_is_better: true}]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
""",
    "nameless.yaml": "group: nameless\ntask: [{task: plain, process_results: !function own.asked}]\n",
    "again.yaml": """
task: again
custom_dataset: !function own.rows
test_split: test
doc_to_text: "{{q}}"
doc_to_target: answer
repeats: 3
generation_kwargs: {until: ["\\n"], max_gen_toks: 3}
filter_list: [{name: vote, filter: [{function: majority_vote}, {function: take_first}]}]
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """Write the task files."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in OWN.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("name", ["guess", "writes", "plain", "changed", "again"])
def test_classes_and_functions_of_a_group_judge_answers_as_in_lm_eval(
    name: str, own_tasks: Path, host: PluginHost, tmp_path: Path
):
    """A class without a task file, and what a group replaced, were forgotten: other functions judged the answers."""
    run_both(cases.Case(name, [], ""), own_tasks, tmp_path, host)
    found = cases.compare(tmp_path / "theirs", tmp_path / "ours")
    assert not found.differences, "\n".join(found.differences[:20])
    assert found.documents


@pytest.mark.parity
def test_a_function_without_a_name_and_other_options_per_document_are_refused(own_tasks: Path, host: PluginHost):
    asked = Prompting(include_path=(str(own_tasks),))
    with pytest.raises(TaskError, match="is not a function or class that a Python file defines by name"):
        find_tasks(["lm_eval:nameless"], host, prompting=asked)
    with pytest.raises(TaskError, match="different options .*'max_gen_toks': 3.* 4} for document 1"):
        find_tasks(["lm_eval:longer"], host, prompting=asked)
    (own_tasks / "again.yaml").write_text(OWN["again.yaml"].replace("until:", "do_sample: true, until:"))
    with pytest.raises(TaskError, match="sets do_sample, but no temperature above 0"):
        find_tasks(["lm_eval:again"], host, prompting=asked)


@pytest.mark.parity
def test_too_few_samples_for_the_metrics_of_a_task_are_refused_before_they_are_drawn(
    own_tasks: Path, host: PluginHost, tmp_path: Path
):
    (own_tasks / "again.yaml").write_text(OWN["again.yaml"].replace("until:", "temperature: 0.5, until:"))
    asked = {"registries": host, "prompting": {"include_path": [str(own_tasks)]}}
    with pytest.raises(UsageError, match="its metrics need 3 samples per document, and 1 would be drawn; pass --n 3"):
        harness.evaluate([MODEL], ["lm_eval:again"], tmp_path / "s", **asked)
    sampling = {"options": {"n": 3}}
    harness.evaluate([MODEL], ["lm_eval:again"], tmp_path / "s", sampling=sampling, **asked).check()
    points = harness.open_store(tmp_path / "s", registries=host).points()
    assert "lm_eval:exact_match/vote" in set(points["metric"])


@pytest.mark.parity
def test_points_of_a_group_of_several_kinds_are_lm_evals_and_are_fitted_and_compared(host: PluginHost, tmp_path: Path):
    case = cases.mixed(5)
    case.write(tmp_path)
    asked = {"registries": host, "prompting": {"include_path": [str(tmp_path)]}}
    families = ["aster:w32l2,w64l2,w96l3@400,1600", "birch:w32l2"]
    harness.evaluate(families, ["lm_eval:mixed"], tmp_path / "s", **asked).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    points = store.points("lm_eval:mixed")
    with cases.quiet():
        files = export_store(store, tmp_path / "out", None, 1000)
    for file in files:
        exported = json.loads(file.read_text())
        label = exported["config"]["model_args"]["pretrained"]
        (size, _, step), of_group = label.partition("-step"), exported["groups"]["mixed"]
        rows = points[(points["size"] == size.split("__")[1]) & (points["step"] == int(step))]
        rows = rows[rows["family"] == size.split("__")[0]].set_index("metric")
        assert rows["value"]["lm_eval:acc"] == of_group["acc,none"]
        assert rows["stderr"]["lm_eval:acc"] == of_group["acc_stderr,none"]
        assert rows["value"]["lm_eval:perplexity"] == of_group["perplexity,none"]
        assert set(rows["n"]) == {of_group["sample_len"]}
    assert len(points) == 2 * len(files) == 2 * (6 + 1)
    assert store.tasks()["lm_eval:mixed"] == "lm_eval:acc"
    assert not store.rises("lm_eval:perplexity")
    read = store.read_task("lm_eval:mixed", ["lm_eval:perplexity"])
    fitted = harness.fit(read.points, "power", value="lm_eval:perplexity", store=read.store, bootstrap=20, where=ASTER)
    assert fitted.steps[0].n == 6
    tables = harness.compare(store, bootstrap=20)
    assert any("lm_eval:mixed" in row for table in tables for row in table.rows)
    assert not [note for table in tables for note in table.notes if "imported" in note]
    with pytest.raises(StoreError, match="several kinds of tasks, with points and no documents; choose lm_eval:boolq,"):
        store.scores("lm_eval:mixed")


@pytest.mark.parity
def test_a_group_of_several_kinds_has_points_where_all_its_tasks_are_stored(host: PluginHost, tmp_path: Path):
    cases.mixed(5).write(tmp_path)
    prompting = Prompting(include_path=(str(tmp_path),))
    tasks = find_tasks(["lm_eval:mixed"], host, prompting=prompting)
    harness.evaluate([MODEL], tasks[:1], tmp_path / "s", registries=host).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    assert set(store.points()["task"]) == {"lm_eval:boolq"}
    with pytest.raises(StoreError, match="of the group lm_eval:mixed only lm_eval:boolq is complete; run harness eval"):
        store.points("lm_eval:mixed")
    few = find_tasks(["lm_eval:mixed"], host, None, 2, prompting)
    harness.evaluate([MODEL], few, tmp_path / "s", registries=host).check()
    assert set(store.points("lm_eval:mixed")["n"]) == {4}


@pytest.mark.parity
def test_a_task_that_is_evaluated_by_its_own_name_later_stays_part_of_its_groups(host: PluginHost, tmp_path: Path):
    cases.mixed(3).write(tmp_path)
    text = (tmp_path / "mixed.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("group: mixed", "group: other"))
    asked = {"registries": host, "prompting": {"include_path": [str(tmp_path)]}}
    for name in ("boolq", "mixed", "other", "boolq"):
        harness.evaluate([MODEL], [f"lm_eval:{name}"], tmp_path / "s", **asked).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    assert len(store.cells()) == 2
    values = store.points(metrics=["lm_eval:acc"]).set_index("task")["value"]
    assert values["lm_eval:mixed"] == values["lm_eval:other"]
    with cases.quiet():
        (file,) = export_store(store, tmp_path / "out", None, 0)
    assert set(json.loads(file.read_text())["groups"]) == {"mixed", "other"}


@pytest.mark.parity
def test_every_number_of_examples_is_exported_into_results_of_its_own(host: PluginHost, tmp_path: Path):
    """They have one name in lm-eval, and the last one silently replaced the others."""
    cases.boolq(6).write(tmp_path)
    config = yaml.safe_load((tmp_path / "boolq.yaml").read_text())
    (tmp_path / "boolq.yaml").write_text(yaml.safe_dump({**config, "fewshot_split": "validation"}))
    group = {"group": "again", "task": ["boolq"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(group))
    shown = CliRunner().invoke(main, ["show", "lm_eval:boolq", "--include-path", str(tmp_path), "--num-fewshot", "2"])
    assert shown.output.startswith("lm_eval:boolq_2shot: choice, 6 documents")
    asked = {"registries": host, "limit": 4}
    for shots in (None, 1, 2):
        prompting = {"include_path": [str(tmp_path)]} | ({} if shots is None else {"num_fewshot": shots})
        harness.evaluate([MODEL], ["lm_eval:boolq"], tmp_path / "s", prompting=prompting, **asked).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    with cases.quiet():
        exported = [json.loads(file.read_text()) for file in export_store(store, tmp_path / "out", None, 0)]
    assert sorted(results["n-shot"]["boolq"] for results in exported) == [0, 1, 2]
    values = store.points(metrics=["lm_eval:acc"])["value"]
    assert sorted(results["results"]["boolq"]["acc,none"] for results in exported) == sorted(values)
    prompting = {"include_path": [str(tmp_path)]}
    harness.evaluate([MODEL], ["lm_eval:again"], tmp_path / "s", prompting=prompting, **asked).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    with pytest.raises(UsageError, match="several cells of boolq .*, in lm_eval:again, lm_eval:boolq; .* with --task"):
        export_store(store, tmp_path / "out", None, 0)


# --- tasks that ship, beside lm-eval's ------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path, host: PluginHost):
    """Return what makes a task that ships and lm-eval's, of the same rows."""

    def make(name: str, case: cases.Case, **asked) -> tuple[Task, Task]:
        case.write(tmp_path)
        prompting = Prompting(include_path=(str(tmp_path),), **asked)
        (theirs,) = find_tasks([f"lm_eval:{case.name}"], host, prompting=prompting)
        (ours,) = find_tasks([name], host, cases.published("tasks"), len(theirs.docs), Prompting(**asked))
        return ours, theirs

    return make


@pytest.mark.parity
@pytest.mark.parametrize("asked", [{}, {"num_fewshot": 2}, {"fewshot_seed": 5}, {"num_fewshot": 0}])
def test_gsm8k_has_lm_evals_examples_for_every_document(both, asked):
    ours, theirs = both("gsm8k", cases.gsm8k(40), **asked)
    assert [doc.contexts for doc in ours.docs] == [doc.contexts for doc in theirs.docs]
    assert (ours.generation.stop, ours.generation.max_tokens) == (theirs.generation.stop, theirs.generation.max_tokens)
    assert ours.name.removeprefix("gsm8k") == theirs.name.removeprefix("lm_eval:gsm8k")


@pytest.mark.parity
@pytest.mark.parametrize("asked", [{"num_fewshot": 3}, {"num_fewshot": 1, "multiturn": False}])
def test_conversations_of_gsm8k_are_lm_evals(both, asked):
    ours, theirs = both("gsm8k", cases.gsm8k(5), chat=True, system_prompt="Think.", **asked)
    assert [doc.contexts for doc in ours.docs] == [doc.contexts for doc in theirs.docs]


@pytest.mark.parity
def test_bbh_gen_lacks_the_description_of_lm_evals_prompt_and_stops_earlier(both):
    ours, theirs = both("bbh_gen", cases.bbh(20))
    described = [
        theirs.docs[0].contexts[0].removesuffix(ours.docs[0].contexts[0]) + doc.contexts[0] for doc in ours.docs
    ]
    assert described[:20] == [doc.contexts[0] for doc in theirs.docs]
    assert (ours.generation.stop, ours.generation.max_tokens) == (("\n", "Q:"), 64)
    assert (theirs.generation.stop, theirs.generation.max_tokens) == (("</s>", "Q:", "<|im_end|>"), 256)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["humaneval", "triviaqa"])
def test_humaneval_and_triviaqa_stop_as_lm_evals_do(name: str):
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    file = {"humaneval": "humaneval/humaneval.yaml", "triviaqa": "triviaqa/default.yaml"}[name]
    theirs = load_yaml(Path(lm_eval.__file__).parent / "tasks" / file, resolve_func=False)["generation_kwargs"]
    shipped_name = "triviaqa_gen" if name == "triviaqa" else name
    ours = read_task_file(REPOSITORY / "tasks" / shipped_name).generation
    assert list(ours.stop) == theirs["until"]
    assert ours.max_tokens == theirs.get("max_gen_toks", 256)


ASTER = "family == 'aster'"
ANSWERS = {  # text: what lm-eval's flexible-extract and our last_number say, where 18 is right
    "#### 18": (True, True),
    "She makes $18.": (True, True),
    "It is 18, I think": (True, True),
    "9 * 2 = 1,8": (True, False),
    "18 or 17": (False, False),
    "no number": (False, False),
    "The answer is 18.0": (False, True),
    "36-18": (False, True),
    "18 ...": (False, True),
}


@pytest.mark.parity
def test_last_number_differs_from_flexible_extract_as_it_says(both):
    from harness_plugins.checkers.answers import last_number
    from harness_plugins.sources.lm_eval.results import results_of

    ours, theirs = both("gsm8k", cases.gsm8k(1), num_fewshot=0)
    answers = {}
    for text in ANSWERS:
        (row,) = (r for r in results_of(theirs, ((text,),), 0)["samples"]["gsm8k"] if r["filter"] == "flexible-extract")
        answers[text] = (row["exact_match"] == 1, last_number(ours.docs[0], text).outcome == "passed")
    assert answers == ANSWERS


@pytest.mark.parity
def test_a_task_whose_file_is_gone_says_that_it_cannot_be_built_again(host: PluginHost, tmp_path: Path):
    case, folder = cases.hellaswag(3), tmp_path / "tasks"
    folder.mkdir()
    case.write(folder)
    cases.ours(case, folder, "aster:w32l2@1600", tmp_path, host=host)
    (folder / "hellaswag.yaml").unlink()
    rebuilding._rebuilt.cache_clear()
    store = harness.open_store(tmp_path / "store", registries=host)
    with pytest.raises(TaskError, match="lm_eval:hellaswag cannot be rebuilt from .*hellaswag.yaml"):
        store.points(metrics=["lm_eval:acc"])
    with pytest.warns(UserWarning, match="metrics of lm_eval are left out"):
        assert "acc" in set(store.points()["metric"])


@pytest.mark.parity
def test_a_name_that_lm_eval_does_not_know_is_said(host: PluginHost, tmp_path: Path):
    cases.boolq(1).write(tmp_path)
    with pytest.raises(UsageError, match="has no task, group or tag 'nothing.yaml'; see lm-eval ls tasks"):
        find_tasks(["lm_eval:nothing.yaml"], host)


@pytest.mark.parity
def test_a_task_file_that_lm_eval_leaves_out_is_named_with_its_error(host: PluginHost, tmp_path: Path):
    (tmp_path / "one.yaml").write_text("task: one\ninclude: nothing.yaml\n")
    (tmp_path / "two.yaml").write_text("task: two\ndoc_to_text: [\n")
    for name, error in (("one", "No such file .*nothing.yaml'"), ("two", "ParserError: .*")):
        told = rf"lm_eval:{name} cannot be built: .*{name}.yaml: .*{error}; correct this task file"
        with pytest.raises(TaskError, match=told):
            find_tasks([f"lm_eval:{name}"], host, prompting=Prompting(include_path=(str(tmp_path),)))
    with pytest.raises(TaskError, match="nothing.yaml'; correct its task file"):
        find_tasks([f"lm_eval:{tmp_path / 'one.yaml'}"], host)


WIKITEXT = """
kind: text
documents: wikitext-test.jsonl
fields: {plain: {jinja: "{{ page | detokenize }}"}}
text: "{plain}"
counted: "{page}"
metric: word_perplexity
"""


@pytest.mark.parity
def test_perplexities_of_words_and_bytes_are_lm_evals_on_the_same_windows(host: PluginHost, tmp_path: Path):
    case, folder = cases.wikitext(4), tmp_path / "pages"
    folder.mkdir()
    case.write(folder)
    (folder / "task.yaml").write_text(WIKITEXT)
    asked = {"limit": None, "registries": host, "options": {"max_length": 64}, "truncation": "lm_eval"}
    names = [str(folder), "lm_eval:wikitext"]
    harness.evaluate([MODEL], names, tmp_path / "s", prompting={"include_path": [str(folder)]}, **asked).check()
    points = harness.open_store(tmp_path / "s", registries=host).points().set_index(["task", "metric"])["value"]
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert points["pages", metric] == pytest.approx(points["lm_eval:wikitext", f"lm_eval:{metric}"], rel=1e-12)


@pytest.fixture(scope="module")
def arc(host: PluginHost, tmp_path_factory: pytest.TempPathFactory) -> harness.PointStore:
    """Return a store of a ladder on lm-eval's arc_easy."""
    case, folder = cases.arc_easy(30), tmp_path_factory.mktemp("arc")
    case.write(folder)
    asked = {"registries": host, "prompting": {"include_path": [str(folder)]}}
    harness.evaluate(["aster:w32l2,w64l2,w96l3@400..1600 *2"], ["lm_eval:arc_easy"], folder / "s", **asked).check()
    return harness.open_store(folder / "s", registries=host)


@pytest.mark.parity
def test_names_of_lm_eval_say_which_metric_has_the_same_numbers(arc: harness.PointStore):
    store = arc
    points = store.points(unit="document")
    points = points.pivot_table(index=["size", "step", "doc_id"], columns="metric", values="value")
    assert (points["acc_char"] == points["lm_eval:acc_norm"]).all()
    assert (points["acc_char"] != points["acc"]).any()
    for name, metric in (("acc_norm", "acc_char"), ("acc_bytes", "acc_byte"), ("acc_mutual_info", "acc_pmi")):
        with pytest.raises(UsageError, match=f"no '{name}' in metrics; the same numbers are called '{metric}' here"):
            store.points("lm_eval:arc_easy", metrics=[name])
    with pytest.raises(UsageError, match="the same numbers are called 'acc_char' here"):
        store.read_task(None, ["acc_norm"])


@pytest.mark.parity
def test_compare_forecasts_and_fits_metrics_of_lm_eval_like_ours(arc: harness.PointStore):
    """Its table of compute failed where a metric of lm-eval was the only one shown."""
    store = arc
    for settings in ({"laws": ["sigmoid"]}, {"score": 0.5}, {}):
        forecast_of_ours, theirs = (
            harness.compare(store, metrics={"lm_eval:arc_easy": name}, bootstrap=50, **settings)
            for name in ("acc", "lm_eval:acc")
        )
        for ours, other in zip(forecast_of_ours[2:], theirs[2:], strict=True):
            assert [row[:3] for row in ours.rows] == [row[:3] for row in other.rows]
            assert len(ours.rows) > 0 or len(ours.notes) == len(other.notes)
    points = store.points(metrics=["lm_eval:acc", "acc"])
    wide = widen(points)
    names = ["acc", "lm_eval:acc"]
    drawn = store.replicates(wide, names, 200, np.random.default_rng(0))
    assert drawn["acc"] == pytest.approx(drawn["lm_eval:acc"])
    assert store.rises("lm_eval:acc")


@pytest.mark.parity
def test_the_direction_of_a_metric_of_lm_eval_is_known(host: PluginHost, tmp_path: Path):
    case, folder = cases.wikitext(3), tmp_path / "pages"
    folder.mkdir()
    case.write(folder)
    asked = {"registries": host, "prompting": {"include_path": [str(folder)]}}
    harness.evaluate(["aster:w32l2@100,1600"], ["lm_eval:wikitext"], tmp_path / "s", **asked).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    assert not store.rises("lm_eval:word_perplexity")
    name = "lm_eval:word_perplexity"
    drawn = store.replicates(widen(store.points(metrics=[name])), [name], 9, np.random.default_rng(0))
    assert drawn[name].shape == (9, 2)
