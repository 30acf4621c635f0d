"""Sampling: as many texts as the sampler requests, stored as they arrive, and independent of when they are drawn."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import Checkpoint, Doc, Family, Generation, MetricError, Outcome, Samples, StoreError, Task, UsageError
from harness.cli.sampling_options import SamplingFlags, sampling_settings
from harness.evaluation.preparation import prepare
from harness.evaluation.suite import Progress
from harness.files import digest_of
from harness.host import PluginHost, load_plugins
from harness.metrics.samples import counted
from harness.store.files import pack_json, unpack_json
from harness.store.identity import Settings
from harness.store.points import UNITS
from harness.tasks.loading import fingerprint, load_task
from harness.tasks.task_files import read_task_file
from harness.testing import FakeEngine, check_sampler, check_task, inspect_fake, open_fake
from harness.types.columns import COLUMNS
from harness_plugins.samplers import Fixed, PassUntil

GENERATION = Generation("vowel", max_tokens=12, stop=("\n",), temperature=1.0)
UNTIL = {"sampler": "pass_until", "options": {"successes": 3, "max_samples": 40}}


def make_task(n: int = 5, **settings) -> Task:
    docs = tuple(Doc(str(i), (f"question {i}",), (" yes",), ("yes",), (0,), attributes={"i": i}) for i in range(n))
    generation = replace(GENERATION, **settings)
    return Task("texts", "generate", docs, fingerprint("generate", False, docs, generation), generation=generation)


def vowel(doc: Doc, text: str) -> Outcome:
    """Pass where a vowel is early in the text, how early is a matter of the document."""
    return Outcome("passed" if set(text[: 1 + int(doc.doc_id)]) & set("aeiou") else "failed", text[:3])


def host_with(open_engine=open_fake, check=vowel) -> PluginHost:
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register: harness.Register) -> None:
            register("fake", open_engine, inspect_fake)

        @staticmethod
        @harness.hookimpl
        def register_checkers(register: harness.Register) -> None:
            register("vowel", check)
            register("runs", check, executes_code=True, prepare=lambda: ["the network is open"])

    host = load_plugins()
    host.add(Plugin, "fake")
    return host


@pytest.fixture
def family(tmp_path: Path) -> Family:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(len(b"{}").to_bytes(8, "little") + b"{}")
    return Family("fam", (Checkpoint("fam", "s", 1, 0, str(folder), params=10, tokens=5.0),))


def draw(family: Family, store: Path, task: Task | None = None, host: PluginHost | None = None, **sampling):
    host = host or host_with()
    summary = harness.evaluate(
        [family], [task or make_task()], store, engine="fake", registries=host, sampling=sampling
    )
    return summary, harness.open_store(store, registries=host)


def texts(store) -> list[tuple]:
    frame = store.samples()
    return list(frame[["doc_id", "sample", "sample_seed", "text", "outcome"]].itertuples(index=False, name=None))


def test_a_fixed_number_of_texts_is_drawn_of_each_document(family, tmp_path):
    summary, store = draw(family, tmp_path / "s", options={"n": 12})
    assert (summary.written, summary.failures) == (1, [])
    frame = store.samples("texts")
    assert (frame.groupby("doc_id")["sample"].apply(list).map(len) == 12).all()
    assert frame["text"].nunique() > 30
    assert set(frame["i"]) == {0, 1, 2, 3, 4}
    points = store.points(metrics=["pass_rate", "pass_at_10", "solved"]).set_index("metric")
    passes = (frame["outcome"] == "passed").groupby(frame["doc_id"]).sum()
    assert points["value"]["pass_rate"] == pytest.approx(passes.mean() / 12)
    assert points["value"]["solved"] == (passes > 0).mean()
    assert points["value"]["pass_rate"] < points["value"]["pass_at_10"] <= 1
    assert (points["passed"].iloc[0], points["drawn"].iloc[0]) == (passes.sum(), 60)


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_pass():
    """Chen et al. 2021: n = 10 and c = 3 give 0.3, 0.5333, 0.9167 and 1 for k = 1, 2, 5 and 8."""
    from harness_plugins.metrics.generation import pass_at

    outcome = np.array(["passed"] * 3 + ["failed"] * 7)
    none = np.array([False])
    samples = Samples(np.array(["a"]), np.array([0]), outcome, np.ones(10), np.array([None]), none)
    shares = [float(pass_at(k)(samples)[0]) for k in (1, 2, 5, 8)]
    assert shares == pytest.approx([0.3, 8 / 15, 11 / 12, 1.0])


def test_pass_until_ends_each_document_at_its_last_success_or_the_most_samples(family, tmp_path):
    _, store = draw(family, tmp_path / "s", **UNTIL)
    (cell,) = store.cells()
    samples = store.load_samples(cell.id)
    drawn = store.samples().groupby("doc_id").size().to_numpy()
    for doc, (n, passed) in enumerate(zip(samples.drawn, samples.passed, strict=True)):
        assert passed == 3 or (n == 40 and passed < 3)
        assert n <= drawn[doc] <= 40
        if passed == 3:
            last = samples.first[doc] + n - 1
            assert samples.outcome[last] == "passed"
    assert (samples.drawn < drawn).any()
    assert len(set(samples.passed)) > 1
    assert "pass_at_10" not in set(store.points()["metric"])


@pytest.mark.parametrize("p", [1e-1, 1e-2, 1e-3, 1e-4])
def test_pass_rates_are_unbiased(p):
    """10,000 documents of one rate, drawn as PassUntil asks for: their mean is the rate within two standard errors."""
    rng, n, sampler = np.random.default_rng(round(-np.log10(p))), 10_000, PassUntil(successes=3, max_samples=20_000)
    waits = rng.geometric(p, size=(n, 3)).cumsum(1)  # the samples that pass, counted from 1: (n, 3)
    drawn = np.zeros(n, dtype=np.int64)
    while (more := sampler.more(drawn, (waits <= drawn[:, None]).sum(1))).any():
        drawn += more
    ended = np.minimum(waits[:, 2], drawn)
    assert (drawn >= np.minimum(waits[:, 2], 20_000)).all()
    assert drawn.max() <= 20_000
    estimated = rates(ended, (waits <= ended[:, None]).sum(1), until=3)
    assert abs(estimated.mean() - p) < 2 * estimated.std(ddof=1) / np.sqrt(n)


def rates(drawn: np.ndarray, passed: np.ndarray, until: int | None) -> np.ndarray:
    """Return the pass rates of documents of which only counts are known."""
    samples = Samples(drawn.astype(str), np.arange(len(drawn)), drawn.astype(str), drawn, drawn, drawn > 0, until)
    samples.__dict__.update(drawn=drawn, passed=passed)
    return samples.pass_rates()


def test_what_comes_behind_the_last_success_does_not_count():
    rows = {
        "doc": np.array([1, 0, 0, 0, 1, 0]),
        "sample": np.array([1, 2, 0, 1, 0, 3]),
        "outcome": np.array(["passed", "passed", "passed", "failed", "failed", "passed"]),
    }
    which, first = counted(rows, 2, until=2)
    assert (which.tolist(), first.tolist()) == ([2, 3, 1, 4, 0], [0, 3])
    which, _ = counted(rows, 2, until=None)
    assert which.tolist() == [2, 3, 1, 5, 4, 0]
    with pytest.raises(MetricError, match="samples are missing"):
        counted({name: column[1:] for name, column in rows.items()} | {"doc": np.array([0, 0, 0, 2, 0])}, 3, None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_is_stopped_ends_with_the_same_samples(family, tmp_path, error):
    """Whatever stopped it: what came back is kept, and the rest is what an undisturbed run draws."""
    _, whole = draw(family, tmp_path / "whole", **UNTIL)
    left = [25]

    @contextmanager
    def breaks(checkpoint, folder, **options):
        with open_fake(checkpoint, folder, **options) as engine:
            generate = engine.generate

            def stop(requests):
                for sample in generate(requests):
                    if left[0] == 0:
                        raise error
                    left[0] -= 1
                    yield sample

            engine.generate = stop
            yield engine

    host = host_with(breaks)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            draw(family, tmp_path / "s", host=host, **UNTIL)
    else:
        assert draw(family, tmp_path / "s", host=host, **UNTIL)[0].failures
    store = harness.open_store(tmp_path / "s", registries=host)
    assert store.cells() == []
    (part,) = (tmp_path / "s" / "samples").glob("*/*.parquet")
    assert len(store.read_samples(part.parent.name)["doc"]) == 25
    left[0] = 10**6
    summary, store = draw(family, tmp_path / "s", host=host, **UNTIL)
    assert summary.written == 1
    assert texts(store) == texts(whole)
    assert store.points().equals(whole.points())


def test_a_damaged_part_is_set_aside_and_drawn_again(family, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.evaluation.sample_runs.PART_ROWS", 20)
    _, store = draw(family, tmp_path / "s", **UNTIL)
    before, parts = texts(store), sorted((tmp_path / "s" / "samples").glob("*/*.parquet"))
    assert len(parts) > 3
    parts[1].write_bytes(parts[1].read_bytes()[:-40] + bytes(40))
    plan, _ = prepare(
        [family], [make_task()], store=tmp_path / "s", engine="fake", registries=host_with(), sampling=UNTIL
    )
    assert "its cell will be computed again" in plan.notes[0]
    summary, store = draw(family, tmp_path / "s", **UNTIL)
    assert summary.written == 1
    assert texts(store) == before


@pytest.mark.parametrize("harm", ["copied over another", "duplicated", "deleted", "damaged seal", "empty seal"])
def test_eval_repairs_parts_and_seals(family, tmp_path, monkeypatch, harm: str):
    """Once repaired, the texts are those of before, and the next run has nothing to do."""
    monkeypatch.setattr("harness.evaluation.sample_runs.PART_ROWS", 20)
    _, store = draw(family, tmp_path / "s", **UNTIL)
    before, parts = texts(store), sorted((tmp_path / "s" / "samples").glob("*/*.parquet"))
    seal = parts[0].with_name("seal.json")
    new = parts[0].with_name("0099.parquet")
    {
        "copied over another": lambda: parts[1].write_bytes(parts[0].read_bytes()),
        "duplicated": lambda: new.write_bytes(parts[0].read_bytes()),
        "deleted": parts[1].unlink,
        "damaged seal": lambda: seal.write_bytes(seal.read_bytes().replace(b'"rows": ', b'"rows": 1')),
        "empty seal": lambda: seal.write_bytes(b""),
    }[harm]()
    assert draw(family, tmp_path / "s", **UNTIL)[0].written == 1
    summary, store = draw(family, tmp_path / "s", **UNTIL)
    assert (summary.written, summary.already_stored) == (0, 1)
    assert texts(store) == before


def test_equal_seeds_draw_equal_texts_and_others_do_not(family, tmp_path):
    """Documents have seeds of their own, so that equal prompts do not give equal texts."""
    _, first = draw(family, tmp_path / "a", options={"n": 4})
    _, longer = draw(family, tmp_path / "b", options={"n": 6})
    _, other = draw(family, tmp_path / "c", options={"n": 4}, seed=1)
    assert set(texts(first)) < set(texts(longer))
    assert not set(texts(first)) & set(texts(other))
    assert first.samples()["sample_seed"].is_unique


def test_samplers_and_checkers_are_part_of_what_a_cell_is(family, tmp_path):
    for sampling in ({"options": {"n": 2}}, {"options": {"n": 3}}, UNTIL, {"options": {"n": 2}, "temperature": 0.5}):
        assert draw(family, tmp_path / "s", **sampling)[0].written == 1
    assert draw(family, tmp_path / "s", **UNTIL)[0].already_stored == 1
    frame = harness.open_store(tmp_path / "s", registries=host_with()).points(metrics=["pass_rate"])
    assert frame["sampling"].nunique() == frame["settings"].nunique() == 4
    prints = {
        make_task(**settings).fingerprint for settings in ({}, {"checker": "runs"}, {"max_tokens": 3}, {"stop": ()})
    }
    assert len(prints) == 4


def test_scores_of_choices_keep_their_identity():
    """Without sampling, the identity contains no sampling settings, so cells of older stores are still found."""
    settings = {"engine": "e", "dtype": "d", "quantisation": "q", "bos": "b", "max_length": 1, "truncation": "left"}
    assert Settings(**settings).digest == digest_of(settings)
    assert Settings(**settings, sampling={"n": 1}).digest != digest_of(settings)


def test_what_cannot_be_drawn_is_said_before_anything_is(family, tmp_path):
    def refused(match: str, task: Task | None = None, **sampling) -> None:
        with pytest.raises(UsageError, match=match):
            draw(family, tmp_path / "s", task, **sampling)

    cold = make_task(temperature=0.0)
    refused("all samples of a document are equal at temperature 0; pass --temperature", cold, options={"n": 2})
    refused("runs programs written by a model .* pass --allow-code-execution", make_task(checker="runs"))
    refused("there is no 'nobody' in checkers", make_task(checker="nobody"))
    refused("there is no 'twice' in samplers; there are: n, pass_until", sampler="twice")
    refused("sampler 'n' cannot be made with .*max_samples", options={"max_samples": 3})
    refused("successes=1: expected an integer of at least 2", sampler="pass_until", options={"successes": 1})
    refused("max_samples=3: expected an integer of at least 5", sampler="pass_until", options={"max_samples": 3})
    choices = Task("c", "choice", (Doc("0", ("a",), (" b", " c"), ("b", "c"), (0,)),), "0" * 16)
    refused("sampler: the tasks c generate no text", choices, sampler="n")
    assert not list((tmp_path / "s").glob("samples/*"))


def test_programs_run_where_that_is_allowed(family, tmp_path):
    task = make_task(checker="runs")
    summary, store = draw(family, tmp_path / "s", task, allow_code_execution=True, options={"n": 3})
    assert summary.written == 1
    _, plain = draw(family, tmp_path / "p", options={"n": 3})
    assert texts(store) == texts(plain)


def test_what_is_known_of_the_walls_around_programs_is_said_once(family, tmp_path):
    class Listening(Progress):
        def __init__(self):
            self.notes = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    progress, host = Listening(), host_with()
    tasks = [make_task(checker="runs"), replace(make_task(checker="runs", max_tokens=3), name="other")]
    allowed = {"allow_code_execution": True}
    harness.evaluate(
        [family], tasks, tmp_path / "s", engine="fake", registries=host, sampling=allowed | {"temperature": 0.0},
        progress=progress,
    ).check()  # fmt: skip
    assert progress.notes == ["the network is open"]


def test_a_checker_that_fails_fails_its_cell_alone(family, tmp_path):
    def moody(doc: Doc, text: str) -> Outcome:
        if doc.doc_id == "3":
            raise ValueError("not this one")
        return Outcome("failed")

    choices = tuple(Doc(str(i), (f"q {i}",), (" a", " b"), ("a", "b"), (0,)) for i in range(3))
    other = Task("choices", "choice", choices, fingerprint("choice", False, choices))
    host = host_with(check=moody)
    summary = harness.evaluate([family], [make_task(), other], tmp_path / "s", engine="fake", registries=host)
    assert [str(failure) for failure in summary.failures] == [
        "fam:s@1 texts: plugin 'fake', checker 'vowel': ValueError: not this one (document 3)"
    ]
    assert summary.written == 1


def test_an_engine_that_keeps_samples_back_is_an_error(family, tmp_path):
    class Lossy(FakeEngine):
        def generate(self, requests):
            yield from (sample for sample in super().generate(requests) if sample.index != 1)

    @contextmanager
    def lossy(checkpoint, folder, **options):
        yield Lossy(checkpoint.label)

    summary, _ = draw(family, tmp_path / "s", host=host_with(lossy), options={"n": 3})
    assert "texts: the engine returned no samples for 5 documents" in str(summary.failures[0])


def test_texts_need_not_be_kept(family, tmp_path):
    _, store = draw(family, tmp_path / "s", options={"n": 2}, keep_texts=False)
    assert store.samples()["text"].isna().all()
    assert store.points(metrics=["pass_rate"])["value"].notna().all()


def test_rates_of_nothing_have_an_upper_end_by_all_samples(family, tmp_path):
    """Documents alone would leave 0.43; 200 samples that all failed leave 0.018 (Clopper and Pearson)."""
    host = host_with(check=lambda doc, text: Outcome("failed"))
    _, store = draw(family, tmp_path / "s", host=host, options={"n": 40})
    (point,) = store.points(metrics=["pass_rate"]).to_dict("records")
    assert (point["value"], point["low"], point["successes"], point["trials"]) == (0, 0, 0, 200)
    assert point["high"] == pytest.approx(1 - 0.025 ** (1 / 200))


def test_scores_and_samples_are_asked_for_by_their_names(family, tmp_path):
    _, store = draw(family, tmp_path / "s")
    with pytest.raises(StoreError, match=r"texts generates text and scores no choices; see samples\(\)"):
        store.scores("texts")


@pytest.mark.parametrize("sampler", [Fixed(1), Fixed(30), PassUntil(2, 2), PassUntil(5, 1000)])
def test_our_samplers_keep_the_contract(sampler):
    check_sampler(sampler)


def test_a_sampler_that_never_ends_is_told_so():
    class Endless:
        at_most = 100

        def more(self, drawn, passed):
            return np.maximum(1, 5 - passed)

    with pytest.raises(AssertionError, match="draws 10[0-9] samples of a document; at_most is 100"):
        check_sampler(Endless())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (None, "requests None more samples; expected 5 non-negative integers"),
        (np.full(5, 0.5), "more samples; expected 5 non-negative integers"),
        (np.zeros(5, dtype=np.int64), "requests no sample of a document; expected 1 or more"),
        (np.ones_like, "requests 6 samples of a document; expected at_most 5"),  # it drew without end
    ],
)
def test_a_sampler_that_breaks_its_contract_is_named(family, tmp_path, more, message):
    class Sampler:
        at_most = 5

        def more(self, drawn, passed):
            return more(drawn) if callable(more) else more

    class Broken:
        @staticmethod
        @harness.hookimpl
        def register_samplers(register: harness.Register) -> None:
            register("broken", Sampler)

    host = host_with()
    host.add(Broken, "broken")
    summary, store = draw(family, tmp_path / "s", host=host, sampler="broken")
    (failure,) = summary.failures
    assert "sampler 'broken' requests" in str(failure.error)
    assert message in str(failure.error)
    assert not store.cells()


def test_samplers_ask_for_what_is_missing():
    drawn, passed = np.array([0, 5, 5, 5, 40, 100]), np.array([0, 0, 1, 5, 2, 0])
    sampler = PassUntil(successes=5, max_samples=100)
    assert sampler.more(drawn, passed).tolist() == [5, 5, 5, 0, 40, 0]
    assert Fixed(7).more(drawn, passed).tolist() == [7, 2, 2, 2, 0, 0]
    assert (sampler.at_most, Fixed(7).at_most) == (100, 7)


# --- task files ----------------------------------------------------------------------------------------------------


def write_task(folder: Path, **keys) -> Path:
    folder.mkdir(exist_ok=True)
    table = {
        "kind": "generate", "documents": "docs.jsonl", "query": "{q}", "answers": ["{a}"], "checker": "exact",
        "max_tokens": 8, **keys,
    }  # fmt: skip
    (folder / "task.yaml").write_text(json.dumps({k: v for k, v in table.items() if v is not None}))
    (folder / "docs.jsonl").write_text('{"q": "1 + 1 =", "a": "2", "how": "one and one"}\n')
    return folder


def test_a_task_that_draws_texts_is_two_files(tmp_path):
    shots = {"documents": "shots.jsonl", "n": 1}
    folder = write_task(tmp_path / "sums", stop=["\n", "."], fewshot=shots, continuation="{how}")
    (folder / "shots.jsonl").write_text('{"q": "2 + 2 =", "a": "4", "how": "two and two"}\n')
    task = check_task(folder)
    assert task.docs[0].contexts == ("2 + 2 = two and two\n\n1 + 1 =",)
    assert (task.docs[0].choices, task.metric) == (("2",), "pass_rate")
    assert task.generation == Generation("exact", 8, ("\n", "."))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"checker": None}, "kind: generate needs query, answers, checker and max_tokens"),
        ({"max_tokens": "8"}, "kind: generate needs query, answers, checker and max_tokens"),
        ({"answers": None}, "kind: generate needs query, answers, checker and max_tokens"),
        ({"stop": 3}, "expected stop: the name of a text that ends a sample"),
        ({"kind": "cloze", "continuation": "{a}"}, "only valid with kind: generate"),
    ],
)
def test_what_is_wrong_with_a_task_that_draws_texts_is_said(tmp_path, keys, message):
    with pytest.raises(harness.TaskError, match=message):
        read_task_file(write_task(tmp_path / "t", **keys))


def test_a_prompt_leaves_room_for_the_text(tmp_path, family):
    folder = write_task(tmp_path / "t", max_tokens=300)
    with pytest.raises(harness.SuiteError, match="of 300 tokens does not fit: max_length is 256"):
        harness.evaluate([family], [str(folder)], tmp_path / "s", engine="fake", registries=host_with()).check()


def test_attributes_are_what_checkers_look_at(tmp_path):
    folder = write_task(tmp_path / "t", attributes=["how"])
    first = load_task(read_task_file(folder)).fingerprint
    (folder / "docs.jsonl").write_text('{"q": "1 + 1 =", "a": "2", "how": "otherwise"}\n')
    assert load_task(read_task_file(folder)).fingerprint != first


def test_temperature_0_and_seed_0_count_as_given():
    """0 equals False: `--temperature 0` once left a task its own temperature."""
    asked = dict.fromkeys(SamplingFlags.__annotations__) | {"allow_code_execution": False, "no_texts": False}
    assert sampling_settings({**asked, "temperature": 0.0, "seed": 0}) == {"temperature": 0.0, "seed": 0}
    assert sampling_settings(asked) == {}


def test_temperature_0_replaces_that_of_the_task(family, tmp_path):
    _, store = draw(family, tmp_path / "s", make_task(temperature=0.8), options={"n": 1}, temperature=0.0)
    assert {cell.settings.sampling["temperature"] for cell in store.cells()} == {0.0}


def test_all_columns_that_a_store_fills_are_reserved(family, tmp_path, nano_store):
    """One list for features, attributes and metrics: a new column of points must be added to it."""
    _, store = draw(family, tmp_path / "s", options={"n": 12})
    frames = [store.points(), store.samples(), *(nano_store.points(unit=unit) for unit in UNITS)]
    assert {name for frame in frames for name in frame.columns} - COLUMNS == {"width", "depth", "i", "digits"}


def test_an_old_feature_or_an_attribute_with_the_name_of_a_column_does_not_replace_it(family, tmp_path):
    docs = tuple(Doc(str(i), ("q",), (" y",), ("y",), (0,), attributes={"outcome": 9, "value": i}) for i in range(3))
    task = replace(make_task(), docs=docs, fingerprint="f" * 16)
    _, store = draw(family, tmp_path / "s", task, options={"n": 12})
    (file,) = (tmp_path / "s" / "checkpoints").glob("*.json")
    name = f"checkpoints/{file.stem}"
    file.write_bytes(pack_json(name, {**unpack_json(file.read_bytes(), name), "features": {"trials": 7.0}}))
    point = store.points(metrics=["pass_rate"]).iloc[0]
    assert point["feature_trials"] == 7
    assert point["trials"] != 7
    assert set(store.samples()["outcome"]) <= {"passed", "failed"}
    assert set(store.samples()["doc_outcome"]) == {9}
    assert list(store.points(metrics=["pass_rate"], unit="document")["doc_value"]) == [0, 1, 2]
