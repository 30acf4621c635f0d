"""Parity with lm-evaluation-harness: every choice, token by token, and the accuracies that follow.

lm-eval 0.4.13's HFLM in float32, with add_bos_token=True and the same max_length, on prompts that both are given.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import Doc, Task
from harness.checkpoints.families import locate, select
from harness.host import PluginHost, default_host
from harness.store.points import PointStore
from harness.tasks.finding import find_task
from harness.tasks.loading import load_task
from harness.tasks.task_files import read_task_file
from tests.conftest import REPOSITORY, published

pytestmark = pytest.mark.parity
MODEL = "aster:w128l4"
FLOAT32 = 3e-7  # lm-eval sums tokens in float32, whose steps exceed 1e-4 nats beyond 1,000 nats


@pytest.fixture(scope="module")
def lm(host: PluginHost):
    """Return lm-eval's model of the same checkpoint; its imports and ours may warn, which is not the point here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM

        _, folder = locate(select(MODEL, host)[0])
        return HFLM(
            pretrained=str(folder), dtype="float32", add_bos_token=True, max_length=2048, batch_size=8, device="cpu"
        )


def write_task(folder: Path, name: str, yaml: str, rows) -> Path:
    path = folder / name
    path.mkdir()
    (path / "task.yaml").write_text(yaml)
    (path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def benchmark(name: str, n: int = 50, **changes) -> Task:
    """Return the first documents of a benchmark that ships, from the published files."""
    file = replace(read_task_file(REPOSITORY / "tasks" / name), **changes)
    return load_task(file, published("tasks"), limit=n)


def made_up(name: str, folder: Path, rows) -> Task:
    """Return a benchmark that ships, on rows in the form of its published file."""
    file = read_task_file(REPOSITORY / "tasks" / name)
    (folder / name).mkdir()
    (folder / name / file.documents[0]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(file, folder)


def winogrande(folder: Path) -> Task:
    names, rng = ["Ada", "Bo", "Cleo", "Dora"], np.random.default_rng(0)
    rows = []
    for i in range(50):
        a, b = rng.permutation(names)[:2].tolist()
        sentence = f"{a} gave {b} {i} coins because _ had asked for {'more' if i % 3 else 'the money of the town'}."
        rows.append({"sentence": sentence, "option1": a, "option2": b, "answer": str(1 + i % 2)})
    return made_up("winogrande", folder, rows)


def boolq(folder: Path) -> Task:
    rows = [
        {"passage": f"The sum of {i} and {i + 1} is {2 * i + 1}.", "question": f"is {i} odd", "label": bool(i % 2)}
        for i in range(50)
    ]
    return made_up("boolq", folder, rows)


TASKS = {
    "nano_addition": lambda _: find_task("nano_addition", default_host(), limit=100),
    "nano_ordering": lambda _: find_task("nano_ordering", default_host(), limit=100),
    "arc_easy": lambda _: benchmark("arc_easy", 60),
    "blimp": lambda _: benchmark("blimp", documents=tuple(f"{x}.jsonl.gz" for x in PARADIGMS)),
    "boolq": boolq,
    "lambada_openai": lambda _: benchmark("lambada_openai"),
    "mmlu": lambda _: benchmark("mmlu", documents=("high_school_geography_test.csv",)),
    "openbookqa": lambda _: benchmark("openbookqa"),
    "piqa": lambda _: benchmark("piqa"),
    "truthfulqa_mc1": lambda _: benchmark("truthfulqa_mc1"),
    "truthfulqa_mc2": lambda _: benchmark("truthfulqa_mc2"),
    "winogrande": winogrande,
}
PARADIGMS = ("adjunct_island", "determiner_noun_agreement_1", "wh_island")


@pytest.fixture(scope="module", params=sorted(TASKS))
def task(request, tmp_path_factory) -> Task:
    return TASKS[request.param](tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def expected(lm, task: Task) -> list[tuple[float, bool]]:
    """Return lm-eval's (log-probability, is_greedy) of every choice."""
    return theirs(lm, task)


@pytest.fixture(scope="module")
def store(task: Task, tmp_path_factory, host: PluginHost) -> PointStore:
    return ours(task, tmp_path_factory.mktemp("parity") / "store", host)


def theirs(lm, task: Task, max_length: int = 2048) -> list[tuple[float, bool]]:
    from lm_eval.api.instance import Instance

    pairs = [doc.prompt(k) for doc in task.docs for k in range(len(doc.choices))]
    lm._max_length = max_length
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return lm.loglikelihood(requests, disable_tqdm=True)


def ours(task: Task, folder: Path, host: PluginHost, max_length: int = 2048, **settings) -> PointStore:
    options = {"max_length": max_length}
    harness.evaluate([MODEL], [task], folder, options=options, registries=host, **settings).check()
    return harness.open_store(folder, registries=host)


def test_every_choice_equals_lm_evals(expected, store: PointStore):
    frame = store.scores()
    logprobs = [logprob for logprob, _ in expected]
    assert frame["logprob"].to_numpy() == pytest.approx(logprobs, abs=1e-4, rel=FLOAT32)
    assert frame["is_greedy"].tolist() == [greedy for _, greedy in expected]
    assert not frame["truncated"].any()


def test_contexts_and_examples_were_shared(store: PointStore):
    """The numbers above are those of the quick path."""
    assert store.read(store.cells()[0].id.name).provenance["shares"] == "contexts and what they begin with"


def test_metrics_equal_lm_evals_document_by_document(task: Task, expected, store: PointStore):
    """acc, acc_norm, mc2 and perplexity as lm-eval's tasks compute them from its own log-probabilities."""
    values = iter(expected)
    wanted: dict[str, list[float]] = {}
    for doc in task.docs:
        scores = [next(values) for _ in doc.choices]
        for metric, value in METRICS[task.metric if task.metric == "mc2" else task.kind](doc, scores).items():
            wanted.setdefault(metric, []).append(value)
    for metric, column in wanted.items():
        measured = store.points(metrics=[metric], unit="document")["value"]
        assert measured.to_numpy() == pytest.approx(column, abs=1e-4, rel=FLOAT32), metric


def accuracies(doc: Doc, scores: list[tuple[float, bool]]) -> dict[str, float]:
    logprobs = np.array([logprob for logprob, _ in scores])
    lengths = np.array([float(len(choice)) for choice in doc.choices])
    return {
        "acc": float(np.argmax(logprobs) in doc.gold),
        "acc_char": float(np.argmax(logprobs / lengths) in doc.gold),
    }


def true_mass(doc: Doc, scores: list[tuple[float, bool]]) -> dict[str, float]:
    """As process_results_mc2 of lm-eval's truthfulqa."""
    p = np.exp([logprob for logprob, _ in scores])
    return {"mc2": float(p[list(doc.gold)].sum() / p.sum())}


def cloze(_: Doc, scores: list[tuple[float, bool]]) -> dict[str, float]:
    ((logprob, greedy),) = scores
    return {"greedy_match": float(greedy), "perplexity": -logprob}


METRICS = {"choice": accuracies, "cloze": cloze, "mc2": true_mass}


def test_perplexity_of_lambada_equals_lm_evals(lm, host: PluginHost, tmp_path):
    from lm_eval.api.metrics import perplexity

    task = benchmark("lambada_openai")
    expected = perplexity([logprob for logprob, _ in theirs(lm, task)])
    points = ours(task, tmp_path / "store", host).points(metrics=["perplexity"])
    assert points["value"].item() == pytest.approx(expected, rel=1e-4)


def test_truncation_as_lm_eval_has_it(lm, tmp_path, host: PluginHost):
    task = benchmark("arc_easy", 60)
    frame = ours(task, tmp_path / "store", host, max_length=48, truncation="lm_eval").scores()
    expected = theirs(lm, task, max_length=48)
    assert frame["truncated"].mean() > 0.3
    assert frame["logprob"].to_numpy() == pytest.approx([logprob for logprob, _ in expected], abs=1e-4, rel=FLOAT32)


def test_bits_per_byte_equal_lm_evals_rolling_loglikelihood(lm, tmp_path, host: PluginHost):
    """Long texts are cut into lm-eval's windows."""
    from lm_eval.api.instance import Instance

    with published("tasks", "arc_easy", "arc_easy.jsonl").open() as stream:
        queries = [json.loads(line)["query"] for line in islice(stream, 12)]
    rows = [{"text": " ".join(queries[:n])} for n in (1, 4, 12)]
    yaml = 'kind: text\ndocuments: docs.jsonl\ntext: "{text}"\n'
    task = load_task(read_task_file(write_task(tmp_path, "text", yaml, rows)))
    frame = ours(task, tmp_path / "store", host, max_length=64, truncation="lm_eval").scores()
    lm._max_length = 64
    lm.add_bos_token = False  # lm-eval itself puts the prefix token before a text
    requests = [Instance("loglikelihood_rolling", {}, (row["text"],), i) for i, row in enumerate(rows)]
    try:
        expected = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    finally:
        lm.add_bos_token = True
    assert frame["logprob"].to_numpy() == pytest.approx(expected, abs=1e-4, rel=FLOAT32)  # up to 10,000 nats
