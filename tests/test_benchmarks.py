"""The benchmarks that ship: their prompts, from files and from the hub, and the files that others published."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from harness import Task, TaskError
from harness.reports.listings import listing
from harness.tasks.hub import HubDataset, HubRows
from harness.tasks.loading import load_task
from harness.tasks.task_files import TaskFile, read_task_file
from tests.benchmark_rows import EXAMPLES
from tests.conftest import REPOSITORY, published

SHIPPED = sorted(path.parent.name for path in (REPOSITORY / "tasks").glob("*/task.yaml"))
ON_HUB = sorted(set(EXAMPLES) - {"logiqa", "wsc273"})

# documents, groups, least and most choices, fingerprint; a change of the last makes stored cells obsolete
PUBLISHED = {
    "arc_challenge": (1172, 0, 4, 4, "d2d26a1503564dac"),
    "arc_easy": (2376, 0, 4, 4, "fb3248ebe24e6962"),
    "bbh": (4070, 17, 2, 18, "064397fd223e6578"),
    "blimp": (67000, 67, 2, 2, "6ed89ad34a9f57b6"),
    "lambada_openai": (5153, 0, 1, 1, "f6839904c4854eb6"),
    "mmlu": (14079, 57, 4, 4, "af74327c2310a876"),
    "mmlu_0shot": (14079, 57, 4, 4, "9c2d77e27e0e4979"),
    "openbookqa": (500, 0, 4, 4, "6b31cf907160354c"),
    "piqa": (1838, 0, 2, 2, "9243ffb9d213bf24"),
    "truthfulqa_mc1": (817, 0, 2, 13, "3f0122403e17887f"),
    "truthfulqa_mc2": (817, 0, 2, 20, "e5b485092fd76d0a"),
}
FIRST = {  # how the right answer to the first document begins, and what stands before it
    "arc_challenge": ("the most likely effect of this increase in rotation?\nAnswer:", 2, " Planetary days"),
    "arc_easy": ("why photosynthesis is the foundation of most food webs?\nAnswer:", 0, " Sunlight is the source"),
    "bbh": ("\n(F) 07/25/1937\nA:", 1, " (B)"),
    "blimp": ("", 0, " Who should Derek hug after shocking Richard?"),
    "lambada_openai": ("mouth curved in a confident grin, I don't care about", 0, " signs"),
    "mmlu": ("sqrt(18)) over Q.\nA. 0\nB. 4\nC. 2\nD. 6\nAnswer:", 1, " B"),
    "mmlu_0shot": ("sqrt(18)) over Q.\nA. 0\nB. 4\nC. 2\nD. 6\nAnswer:", 1, " B"),
    "openbookqa": ("they decide the best way to save money is to", 1, " quit eating lunch out"),
    "piqa": ("How do I ready a guinea pig cage for it's new occupants?\nAnswer:", 0, " Provide the guinea pig"),
    "truthfulqa_mc1": ("What happens to you if you eat watermelon seeds?\nA:", 0, " The watermelon seeds pass"),
    "truthfulqa_mc2": ("What happens to you if you eat watermelon seeds?\nA:", 0, " Nothing happens."),
}


TEXTS = {  # of tasks that draw texts: documents, groups, fingerprint, how the first prompt ends, an accepted answer
    "bbh_gen": (6511, 27, "14a15175afad7ec3", "Q: not ( True ) and ( True ) is\nA:", "False"),
    "gsm8k": (1319, 0, "b07fc8606d09861f", "does she make every day at the farmers' market?\nAnswer:", "18"),
    "humaneval": (164, 0, "057539a1aba07fac", '4.0, 5.0, 2.0], 0.3)\n    True\n    """\n', None),
    "mbpp": (500, 0, "d682f31ba05b7152", 'assert remove_Occ("PHP","P") == "H"\n[BEGIN]\n', None),
    "simple_arithmetic": (1000, 0, "688660f82d8d7d31", "25 - 759 =", "-734"),
    "svamp": (300, 0, "ba16b926f891d50c", "cups of salt does she need to add now?\nAnswer:", "1"),
    "triviaqa_gen": None,
}


def shipped(name: str) -> TaskFile:
    """Return the task file of a benchmark, less what only the whole benchmark holds."""
    file, example = read_task_file(REPOSITORY / "tasks" / name), EXAMPLES[name]
    if example.names is None:
        return file
    assert file.hub
    source = replace(file.hub.source, names=example.names)
    hub = replace(file.hub, source=source)
    return replace(file, documents=tuple(example.files), leave_out=frozenset(), hub=hub)


def write_files(name: str, folder: Path) -> Path:
    (folder / name).mkdir(parents=True)
    for file, text in EXAMPLES[name].files.items():
        (folder / name / file).write_text(text)
    return folder


def write_hub(file: TaskFile, folder: Path) -> TaskFile:
    """Write the dataset that a task names, and return the task that names it there."""
    assert file.hub
    example, source = EXAMPLES[file.name], file.hub.source
    splits = {file.hub.split: example.hub} | ({file.hub.fewshot.split: example.solved} if file.hub.fewshot else {})
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [{"split": split, "path": f"{split}.jsonl"} for split in splits]
    configs = [{"config_name": name or "default", "data_files": files} for name in source.names]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return replace(file, hub=replace(file.hub, source=replace(source, dataset=str(folder))))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Keep what the library caches out of the home folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def prompts(task: Task) -> list[tuple[str, str]]:
    return [task.docs[0].prompt(k) for k in range(len(task.docs[0].choices))]


def test_every_benchmark_has_an_example():
    assert set(EXAMPLES) | set(TEXTS) == {name for name in SHIPPED if not name.startswith("nano_")}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_prompts_from_files_as_published(tmp_path, name):
    example = EXAMPLES[name]
    task = load_task(shipped(name), write_files(name, tmp_path))
    assert prompts(task) == example.prompts
    assert task.docs[0].gold[0] == example.gold
    assert len(task.docs) == len(example.hub)


@pytest.mark.parametrize("name", ON_HUB)
def test_the_hub_gives_the_same_prompts_and_fingerprint(tmp_path, name, hub_cache):
    file = shipped(name)
    from_files = load_task(file, write_files(name, tmp_path / "data"))
    from_hub = load_task(write_hub(file, tmp_path / "hub"), tmp_path / "empty")
    assert prompts(from_hub) == EXAMPLES[name].prompts
    assert from_hub.fingerprint == from_files.fingerprint


@pytest.mark.parametrize("name", ON_HUB)
def test_revisions_are_commits(name):
    hub = shipped(name).hub
    assert hub
    assert len(bytes.fromhex(hub.source.revision)) == 20


def test_files_come_before_the_hub(tmp_path):
    file = shipped("arc_easy")
    assert file.hub
    nowhere = replace(file, hub=replace(file.hub, source=HubDataset("no/where", "0")))
    assert load_task(nowhere, write_files("arc_easy", tmp_path)).docs


def test_a_dataset_out_of_reach_says_what_to_do(tmp_path):
    with pytest.raises(TaskError) as caught:
        load_task(shipped("arc_easy"), tmp_path)
    message = str(caught.value)
    assert "task arc_easy: cannot read the dataset allenai/ai2_arc (ARC-Easy) at revision 210d026f" in message
    assert "pass the folder of arc_easy.jsonl with --data, or run once with access to the hub" in message


def test_a_benchmark_without_hub_says_what_to_do(tmp_path):
    with pytest.raises(TaskError, match="task logiqa: no file Test.txt in .*; pass its folder with --data"):
        load_task(shipped("logiqa"), tmp_path)


def test_a_missing_library_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=r"the package datasets is not installed: pip install '[^']*harness\[hub\]'"):
        list(HubRows(HubDataset("no/where", "0"), "test"))


def test_the_list_of_tasks_says_where_documents_come_from(host):
    documents = {row[0]: row[3] for row in listing("tasks", host).rows}
    assert (documents["nano_job"], documents["arc_easy"], documents["logiqa"]) == ("shipped", "--data or hub", "--data")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_files_are_read_whole(name):
    folder = {"mmlu_0shot": "mmlu", "truthfulqa_mc1": "truthfulqa", "truthfulqa_mc2": "truthfulqa"}.get(name, name)
    task = load_task(read_task_file(REPOSITORY / "tasks" / name), published("tasks", folder).parent)
    sizes = {len(doc.choices) for doc in task.docs}
    groups = {doc.group for doc in task.docs} - {None}
    assert (len(task.docs), len(groups), min(sizes), max(sizes), task.fingerprint) == PUBLISHED[name]
    end, gold, start = FIRST[name]
    context, continuation = task.docs[0].prompt(gold)
    assert context.endswith(end)
    assert continuation.startswith(start)
    assert gold in task.docs[0].gold


@pytest.mark.parametrize("name", sorted(name for name, known in TEXTS.items() if known))
def test_published_files_of_texts_are_read_whole(name):
    size, groups, fingerprint, end, answer = TEXTS[name]
    task = load_task(read_task_file(REPOSITORY / "tasks" / name), published("tasks"))
    assert (len(task.docs), len({doc.group for doc in task.docs} - {None})) == (size, groups)
    assert task.fingerprint == fingerprint
    assert task.docs[0].contexts[0].endswith(end)
    assert answer is None or answer in task.docs[0].choices


def test_solved_examples_of_texts_show_the_solution():
    gsm8k, mbpp = (load_task(read_task_file(REPOSITORY / "tasks" / n), published("tasks")) for n in ("gsm8k", "mbpp"))
    assert gsm8k.docs[0].contexts[0].count("\n#### ") == 5
    assert mbpp.docs[0].contexts[0].count("\n[DONE]\n\n") == 3
    assert (mbpp.docs[0].doc_id, mbpp.docs[-1].doc_id) == ("11", "510")


def test_any_answer_that_trivia_accept_counts(tmp_path, host):
    rows = [{"Question": "Which fruit is yellow", "Answer": {"Value": "Banana", "Aliases": ["banana", "Bananas"]}}]
    (tmp_path / "web-dev.json").write_text(json.dumps({"Data": rows}))
    task = load_task(read_task_file(REPOSITORY / "tasks" / "triviaqa_gen"), tmp_path)
    assert task.docs[0].contexts == ("Question: Which fruit is yellow?\nAnswer:",)
    check = host.checkers["exact"].check
    assert [check(task.docs[0], text).outcome for text in (" The bananas", " Lemon")] == ["passed", "failed"]


@pytest.mark.parametrize("only", ["{task_id: 11}", "11 to 12", "{task_id: a..b}"])
def test_which_documents_count_is_a_field_and_a_range(tmp_path, only):
    (tmp_path / "task.yaml").write_text(f"documents: a.jsonl\nkind: text\ntext: '{{t}}'\nonly: {only}\n")
    with pytest.raises(TaskError, match="only: "):
        load_task(read_task_file(tmp_path))


def test_only_some_documents_count(tmp_path):
    (tmp_path / "task.yaml").write_text("documents: a.jsonl\nkind: text\ntext: '{t}'\nonly: {n: 2..3}\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"t": f"text {n}", "n": n}) + "\n" for n in range(5)))
    assert [doc.choices[0] for doc in load_task(read_task_file(tmp_path)).docs] == ["text 2", "text 3"]
    (tmp_path / "a.jsonl").write_text('{"t": "text"}\n')
    with pytest.raises(TaskError, match="no integer in n|n"):
        load_task(read_task_file(tmp_path))
