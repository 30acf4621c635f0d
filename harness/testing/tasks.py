"""The contracts of tasks, sources and families; part of `harness.testing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.checkpoints.families import complete, find_family, locate
from harness.checkpoints.family_files import load_family
from harness.errors import suggest
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.tokens import encode_prompts, encode_task
from harness.host import default_host
from harness.host.registries import Registries
from harness.tasks.loading import fingerprinted, load_task
from harness.tasks.task_files import read_task_file
from harness.testing.fake_engine import ByteTokenizer
from harness.testing.findings import Findings, collected
from harness.types import Checkpoint, Family, Task


def check_task(
    task: str | Path | Task, data: str | Path | None = None, *, registries: Registries | None = None
) -> Task:
    """Check a task or its folder: two readings agree, every continuation has text, and its metric exists.

    Returns the task for further tests. Raises an AssertionError that lists all failures.
    """
    registries = registries or default_host()
    with collected(f"task {task.name if isinstance(task, Task) else task}") as findings:
        made = findings.vital(_task, task, Path(data) if data else None)
        findings.run(_check_twice, task, made, Path(data) if data else None)
        findings.run(_check_metric, made, registries)
        findings.run(_check_prompts, made, findings)
        findings.run(_check_tokens, made)
    return made


def _task(task: str | Path | Task, data: Path | None) -> Task:
    if isinstance(task, Task):
        return fingerprinted(task)
    return load_task(read_task_file(Path(task)), data)


def _check_twice(task: str | Path | Task, made: Task, data: Path | None) -> None:
    if not isinstance(task, Task):
        assert made.fingerprint == _task(task, data).fingerprint, "the prompts differ between two readings"


def _check_metric(task: Task, registries: Registries) -> None:
    known = suggest(task.metric, registries.metrics, "harness ls metrics")
    assert task.metric in registries.metrics, f"metric: {task.metric!r} is not registered; {known}"
    if task.generation:
        name = task.generation.checker.partition(":")[0]
        known = suggest(name, registries.checkers, "harness ls checkers")
        assert name in registries.checkers, f"checker: {name!r} is not registered; {known}"


def _check_prompts(task: Task, findings: Findings) -> None:
    """Check that every choice has text and that the gold choices exist."""
    for doc in task.docs:
        wrong = [k for k in doc.gold if not 0 <= k < len(doc.choices)]
        findings.expect(not wrong, f"document {doc.doc_id}: gold {wrong} of {len(doc.choices)} choices")
        if task.generation:
            findings.expect(bool(doc.contexts[0].strip()), f"document {doc.doc_id}: the prompt is empty")
            continue
        for k in range(len(doc.choices)):
            context, continuation = doc.prompt(k)
            has_text = bool(context or continuation.strip())
            findings.expect(has_text, f"document {doc.doc_id}: choice {k} is white space only")


def _check_tokens(task: Task) -> None:
    encoder = Encoder(ByteTokenizer(), max_length=1_000_000)
    if task.generation:
        encode_prompts(task, encoder)
        return
    encoded = encode_task(task, encoder)
    assert len(encoded.n_tokens) == sum(len(doc.choices) for doc in task.docs), "encoding lost a choice"


def check_source(
    resolve: Callable[..., Task | Sequence[Task]], list_names: Callable[[], Iterable[str]], name: str = ""
) -> None:
    """Check a source of tasks: the listed names are unique strings, and `name` (default: the first) gives a task.

    An unknown name must raise KeyError or an error of harness.errors. Raises an AssertionError that lists all failures.
    """
    with collected("the source") as findings:
        names = findings.vital(_names, list_names)
        findings.expect(all(isinstance(n, str) for n in names), f"list_names() returns {names[:3]}; expected text")
        findings.expect(len(set(names)) == len(names), "list_names() returns a name twice")
        chosen = name or next(iter(names), "")
        if findings.expect(bool(chosen), "list_names() returns nothing; pass an existing name with name="):
            findings.run(lambda: check_task(_resolved(resolve, chosen)))
        findings.run(_check_unknown, resolve)


def _names(list_names: Callable[[], Iterable[str]]) -> list[str]:
    names = list_names()
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    assert is_list, f"list_names() returned {names!r}; expected a list of names"
    return list(names)


def _resolved(resolve: Callable[..., Task | Sequence[Task]], name: str) -> Task:
    """Return the task of a name; if there are several, the first."""
    resolved = resolve(name)
    listed = resolved if isinstance(resolved, list) else [resolved]
    tasks = [task for task in listed if isinstance(task, Task)]
    right = 0 < len(tasks) == len(listed)
    assert right, f"resolve({name!r}) returned {resolved!r}; expected a harness.Task, or a list of them"
    return tasks[0]


def _check_unknown(resolve: Callable[..., Task | Sequence[Task]]) -> None:
    from harness.errors import HarnessError

    try:
        resolved = resolve("no/such task")
    except (KeyError, HarnessError):
        return
    told = f"the task {resolved.name!r}" if isinstance(resolved, Task) else repr(resolved)
    raise AssertionError(f"resolve('no/such task') returned {told}; expected KeyError for an unknown name")


def check_family(family: str | Path | Family, *, registries: Registries | None = None) -> Family:
    """Check a family or family file: it can be read, labels are unique, and every folder has a checkpoint with FLOPs.

    Checkpoints on the hub are not downloaded. Raises an AssertionError that lists all failures.
    """
    with collected(f"family {family.name if isinstance(family, Family) else family}") as findings:
        made = findings.vital(_family, family, registries or default_host())
        repeated = [label for label, count in Counter(c.label for c in made.checkpoints).items() if count > 1]
        findings.expect(not repeated, f"several checkpoints have the label {', '.join(repeated)}")
        findings.expect(bool(made.checkpoints), "it has no checkpoints")
        for checkpoint in made.checkpoints:
            findings.run(_check_checkpoint, checkpoint)
    return made


def _family(family: str | Path | Family, registries: Registries) -> Family:
    if isinstance(family, Family):
        return family
    return load_family(Path(family)) if Path(family).suffix == ".toml" else find_family(str(family), registries)


def _check_checkpoint(checkpoint: Checkpoint) -> None:
    if checkpoint.source.startswith("hub:"):
        return
    known = complete(*locate(checkpoint))
    assert known.params, f"{checkpoint.label}: no parameters; set params, or provide safetensors files"
    assert known.flops, f"{checkpoint.label}: no training FLOPs; set tokens_per_step and step, tokens, or flops"
