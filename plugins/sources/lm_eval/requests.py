"""Convert lm-eval's tasks: its rendered requests become documents with contexts and continuations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from harness import Doc, Generation, Task, TaskError, UsageError, chat_context, fingerprint
from harness_plugins.sources.lm_eval.catalogue import Loaded, configure, library, load, quiet
from harness_plugins.sources.lm_eval.rebuilding import describe

TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # in lm-eval's order of precedence
MOST_TOKENS = 256  # lm-eval's default
INERT = {"do_sample", "until", "temperature", "top_p", *TOKENS}
GREEDY = {"top_k", "min_p", "typical_p"}  # these have no effect on greedy decoding
METRICS = {"choice": "acc", "cloze": "greedy_match", "text": "bits_per_byte"}


@dataclass(frozen=True)
class Asked:
    """The options of `harness eval` that change lm-eval's requests."""

    limit: int | None = None
    num_fewshot: int | None = None
    fewshot_seed: int | None = None
    include_path: tuple[str, ...] = ()
    chat: bool = False
    system_prompt: str = ""
    multiturn: bool = True


@dataclass(frozen=True)
class Leaf:
    """One task of lm-eval with its documents and the properties that must be equal within a group."""

    name: str
    task: Any
    docs: tuple[Doc, ...]
    kind: str
    own_shots: int = 0
    unconditional: bool = False
    generation: Generation | None = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Return the properties that are equal for tasks that can be evaluated as one."""
        return self.kind, self.unconditional, self.generation


def make_tasks(name: str, asked: Asked) -> list[Task]:
    """Return the tasks of a name: one for a task or a group of similar tasks, otherwise one for each task."""
    loaded = load(name, asked.include_path)
    with quiet():
        leaves = [_leaf(leaf, task, asked) for leaf, task in loaded.tasks.items()]
    group = _outermost(loaded)
    if group is None or not group.has_aggregation:
        return [_task(leaf.name, [leaf], asked) for leaf in leaves]
    if len({leaf.shape for leaf in leaves}) == 1:
        return [_task(group.name, leaves, asked, group)]
    identity = {"task": group.name + _suffix(leaves, asked), "asked": _given(replace(asked, include_path=()))}
    mixed = {"part_of": [_tree(group) | identity]}  # points and the export aggregate them
    return [
        replace(task, source={**task.source, **mixed}) for task in (_task(leaf.name, [leaf], asked) for leaf in leaves)
    ]


def _outermost(loaded: Loaded) -> Any:
    inside = {inner.name for group in loaded.groups.values() for inner in group.get_all_groups()}
    return next((group for name, group in loaded.groups.items() if name not in inside), None)


def _leaf(name: str, task: Any, asked: Asked) -> Leaf:
    if getattr(task, "UNSAFE_CODE", False):
        raise UsageError(
            f"lm_eval:{name} runs generated programs without a sandbox; use the harness's task humaneval or mbpp"
        )
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"lm_eval:{name} contains images or sound; the harness's engines read text only")
    own_shots = int(task.get_config("num_fewshot") or 0)
    configure(task, asked.num_fewshot, asked.fewshot_seed)
    groups = [
        list(instances) for _, instances in groupby(_instances(name, task, asked), key=lambda instance: instance.doc_id)
    ]
    kind = _kind(name, task, groups)
    unconditional = kind == "choice" and _has_unconditional(groups[0])
    docs = tuple(_doc(name, task, instances, unconditional) for instances in groups)
    if kind == "choice" and not all(doc.gold for doc in docs):
        kind = "unjudged"
    generation = _generation(name, groups) if kind == "generate" else None
    return Leaf(name, task, docs, kind, own_shots, unconditional, generation)


def _instances(name: str, task: Any, asked: Asked) -> list[Any]:
    """Return lm-eval's requests for the first documents; conversations stay unrendered messages."""

    def messages(turns: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: ARG001  # follows from the last role
        return str(chat_context(turns))

    chat = {"apply_chat_template": True, "chat_template": messages, "fewshot_as_multiturn": asked.multiturn}
    system = {"system_instruction": asked.system_prompt} if asked.system_prompt else {}
    try:
        task.build_all_requests(limit=asked.limit, **(chat if asked.chat else {}), **system)
    except Exception as error:  # a task runs third-party code
        raise TaskError(f"lm_eval:{name}: building its requests failed: {type(error).__name__}: {error}") from error
    return list(task.instances)


def _kind(name: str, task: Any, groups: Sequence[Sequence[Any]]) -> str:
    types = {instance.request_type for group in groups for instance in group}
    if len(types) > 1 or (types != {"loglikelihood"} and any(len(group) > 1 for group in groups)):
        raise TaskError(f"lm_eval:{name} makes several kinds of requests for one document ({', '.join(sorted(types))})")
    if types == {"loglikelihood"}:
        single = all(len(group) == 1 for group in groups)
        return ("cloze" if task.OUTPUT_TYPE == "loglikelihood" else "unjudged") if single else "choice"
    return {"loglikelihood_rolling": "text", "generate_until": "generate"}[types.pop()]


def _has_unconditional(requests: Sequence[Any]) -> bool:
    """Tell whether the second half of a document's requests repeats its continuations without context."""
    half, rest = requests[: len(requests) // 2], requests[len(requests) // 2 :]
    alike = all(a.args[1] == b.args[1] and not b.args[0] for a, b in zip(half, rest, strict=False))
    return len(half) == len(rest) > 1 and alike and any(a.args[0] for a in half)


def _doc(name: str, task: Any, requests: Sequence[Any], unconditional: bool) -> Doc:
    """Return a document that contains lm-eval's requests for it."""
    source = {"task": name, "doc": json.loads(json.dumps(requests[0].doc, default=_plain))}
    asked = requests[: len(requests) // 2] if unconditional else requests
    doc_id = f"{name}/{requests[0].doc_id}"
    if requests[0].request_type == "generate_until":
        return Doc(doc_id, (requests[0].args[0],), ("",), ("",), (0,), source=source)
    if requests[0].request_type == "loglikelihood_rolling":
        text = requests[0].args[0]
        return Doc(doc_id, ("",), (text,), (text,), (0,), source=source)
    contexts = tuple(instance.args[0] for instance in asked)
    continuations = tuple(instance.args[1] for instance in asked)
    shared = contexts[:1] if len(set(contexts)) == 1 else contexts
    choices = _choices(task, requests[0].doc, continuations)
    return Doc(doc_id, shared, continuations, choices, _gold(task, requests[0].doc, choices), source=source)


def _choices(task: Any, doc: Any, continuations: tuple[str, ...]) -> tuple[str, ...]:
    """Return the choices whose characters lm-eval counts, or the continuations without their leading space."""
    listed = task.doc_to_choice(doc) if task.get_config("doc_to_choice") is not None else []
    plain = tuple(continuation.removeprefix(" ") for continuation in continuations)
    return tuple(listed) if len(listed) == len(continuations) and all(isinstance(c, str) for c in listed) else plain


def _gold(task: Any, doc: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """Return the correct choices; none if lm-eval's target is neither an index nor a choice, or names all choices."""
    if len(choices) == 1:
        return (0,)
    target = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    indices = tuple(dict.fromkeys(_index(item, choices) for item in (target if isinstance(target, list) else [target])))
    return indices if all(0 <= k < len(choices) for k in indices) and 0 < len(indices) < len(choices) else ()


def _index(target: Any, choices: Sequence[str]) -> int:
    if isinstance(target, str):
        return list(choices).index(target) if target in choices else -1
    return int(target) if isinstance(target, int) else -1


def _plain(value: Any) -> Any:
    """Return a numpy or datetime value in a form that JSON supports."""
    return value.item() if hasattr(value, "item") else str(value)


def _generation(name: str, groups: Sequence[Sequence[Any]]) -> Generation:
    """Return the generation settings; raise TaskError for options that the harness's engines do not support."""
    asked: Mapping[str, Any] = groups[0][0].args[1]
    if other := next((instances[0] for instances in groups if instances[0].args[1] != asked), None):
        raise TaskError(
            f"lm_eval:{name} generates texts of its documents with different options ({asked} for the first one, "
            f"{other.args[1]} for document {other.doc_id}); all documents of a task must have the same"
        )
    temperature = float(asked.get("temperature") or 0)
    samples = temperature > 0 if asked.get("do_sample") is None else bool(asked["do_sample"])
    others = {key for key, value in asked.items() if key not in INERT and value is not None}
    unknown = sorted(others - (set() if samples else GREEDY))
    if unknown:
        raise TaskError(
            f"lm_eval:{name} sets the generation options {', '.join(unknown)}, which the engines do not support"
        )
    if samples and not temperature:
        raise TaskError(f"lm_eval:{name} sets do_sample, but no temperature above 0; set one, or do_sample: false")
    until = asked.get("until") or []
    most = next((int(asked[key]) for key in TOKENS if asked.get(key) is not None), MOST_TOKENS)
    return Generation(
        checker="lm_eval",
        max_tokens=most,
        stop=tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop),
        temperature=temperature if samples else 0.0,
        top_p=float(asked.get("top_p") or 1.0) if samples else 1.0,
    )


# --- tasks -------------------------------------------------------------------------------------------------------


def _task(name: str, leaves: Sequence[Leaf], asked: Asked, group: Any = None) -> Task:
    docs = tuple(_docs(leaves, grouped=group is not None))
    first = leaves[0]
    return Task(
        name=f"lm_eval:{name}{_suffix(leaves, asked)}",
        kind=first.kind,
        docs=docs,
        fingerprint=fingerprint(first.kind, first.unconditional, docs, first.generation),
        unconditional=first.unconditional,
        metric=METRICS.get(first.kind) or _own_metric(first),
        average="micro" if group is None or group.aggregate_metric_list[0].weight_by_size else "macro",
        about=f"{name} of lm-eval {library().__version__}",
        generation=first.generation,
        truncation="lm_eval",
        source=_source(name, leaves, asked, group),
    )


def _docs(leaves: Iterable[Leaf], *, grouped: bool) -> Iterator[Doc]:
    for leaf in leaves:
        yield from (replace(doc, group=leaf.name) for doc in leaf.docs) if grouped else leaf.docs


def _suffix(leaves: Sequence[Leaf], asked: Asked) -> str:
    """Return the name's suffix for a number of examples that differs from the task's own, as for built-in tasks."""
    used = {int(leaf.task.get_config("num_fewshot") or 0) for leaf in leaves}
    changed = any(leaf.own_shots not in used for leaf in leaves)
    return f"_{asked.num_fewshot}shot" if changed and asked.num_fewshot is not None else ""


def _own_metric(leaf: Leaf) -> str:
    """Return the name of a task's first lm-eval metric with its first filter."""
    metric = next(iter(leaf.task.aggregation()), "acc")
    return metric_name(metric, leaf.task._filters[0].name)


def metric_name(metric: str, filter_name: str) -> str:
    """Return the harness's name of an lm-eval metric.

    >>> metric_name("acc", "none"), metric_name("exact_match", "strict-match")
    ('lm_eval:acc', 'lm_eval:exact_match/strict-match')
    """
    return f"lm_eval:{metric}" if filter_name == "none" else f"lm_eval:{metric}/{filter_name}"


def _source(name: str, leaves: Sequence[Leaf], asked: Asked, group: Any) -> dict[str, Any]:
    """Return the data for recomputing lm-eval's metrics: its version, task files, settings and number of samples."""
    repeats = max(repeats_of(leaf.task) for leaf in leaves) if leaves[0].kind == "generate" else 1
    return ({"samples": repeats} if repeats > 1 else {}) | {
        "prefix": "lm_eval",
        "version": library().__version__,
        "name": name,
        "asked": _given(asked),
        "leaves": {leaf.name: describe(leaf.name, leaf.task) for leaf in leaves},
        "group": _tree(group) if group is not None else None,
    }


def repeats_of(task: Any) -> int:
    """Return how many times lm-eval asks each request of a task."""
    return int(task.get_config("repeats") or 1)


def _given(asked: Asked) -> dict[str, Any]:
    return {key: value for key, value in asdict(asked).items() if value}


def _tree(group: Any) -> dict[str, Any]:
    """Return a group of lm-eval and its descendants as JSON values."""
    inner = [_tree(child) if hasattr(child, "child_names") else child.task_name for child in group]
    metrics = [
        {key: value for key, value in vars(metric).items() if not callable(value)}
        for metric in group.aggregate_metric_list or ()
    ]
    return {"name": group.name, "alias": group.alias, "metrics": metrics, "metadata": group.metadata, "children": inner}
