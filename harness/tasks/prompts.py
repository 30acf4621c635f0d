"""From rows to documents: contexts, continuations, choices and the gold answer, as task.yaml describes them."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from harness.errors import TaskError, choose
from harness.tasks.conversations import chat_context, opening, turn
from harness.tasks.jinja_fields import render
from harness.tasks.prompt_options import Prompting
from harness.tasks.templates import Row, fill, fill_list, look_up
from harness.types import Doc, Json

SAMPLERS = ("once", "per_doc")
SEED = 1234  # of examples that are drawn for each document: lm-eval's default


@dataclass(frozen=True)
class FewShot:
    """The few-shot examples: `n` of `documents`, or of a `split` of the hub's dataset.

    They are the first ones, or drawn once with a `seed`. With `sampler` per_doc they are drawn for each document in
    turn, with the random state of lm-eval's default sampler.
    """

    n: int
    documents: str = ""
    split: str = ""
    seed: int | None = None
    group: str | None = None
    columns: tuple[str, ...] = ()
    only: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sampler: str = "once"


class Solved(NamedTuple):
    """One solved example: its query, and its answer with the delimiter before it."""

    query: str
    answer: str


Draw = Callable[[], Sequence[Solved]]  # the examples of the next document


@dataclass(frozen=True)
class PromptSpec:
    """The prompt keys of task.yaml (tasks/README.md explains every key)."""

    kind: str = "choice"
    query: str = ""
    choices: Json = None
    gold: Json = None
    correct: Json = None
    wrong: Json = None
    contexts: Json = ()
    continuation: str = ""
    text: str = ""
    answers: Json = None
    id: str | None = None
    group: str | None = None
    counted: str = ""
    fields: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    delimiter: str = " "
    formulation: str = "cloze"
    option: str = "\n{letter}. {choice}"
    answer: str = "\nAnswer:"
    description: str = ""
    separator: str = "\n\n"
    examples: Mapping[str | None, Draw] = field(default_factory=dict)  # of each group, in the order of its documents
    shots: FewShot | None = None
    prompting: Prompting = field(default_factory=Prompting)


def make_docs(spec: PromptSpec, rows: Iterable[Row], leave_out: Collection[str] = ()) -> Iterator[Doc]:
    """Yield the document of each row, except those with an id in `leave_out`.

    Without an id in the spec, the id is the document's number within its group. Raises TaskError.
    """
    seen: Counter[str | None] = Counter()
    doc_ids: set[str] = set()
    for row in rows:
        row = _with_fields(spec, row)
        group = fill(spec.group, row) if spec.group else None
        number = seen[group]
        seen[group] += 1
        doc_id = fill(spec.id, row) if spec.id else f"{group}/{number}" if group else str(number)
        solved = _examples_of(spec, group)  # also of those left out, so that the others have lm-eval's
        if doc_id not in leave_out:
            yield _make_doc(spec, row, doc_id, group, solved)
        doc_ids.add(doc_id)
    if not doc_ids.issuperset(leave_out):
        raise TaskError(f"leave_out: unknown document {choose(set(leave_out) - doc_ids)}")


def _with_fields(spec: PromptSpec, row: Row) -> Row:
    made = dict(row)
    for name, template in spec.fields.items():
        made[name] = fill(template, made) if isinstance(template, str) else _rendered(name, template, made)
    return made


def _rendered(name: str, form: Mapping[str, str], row: Row) -> str:
    try:
        return render(form["jinja"], row)
    except TaskError as error:
        raise TaskError(f"fields: {name}: {error}") from error


def _make_doc(spec: PromptSpec, row: Row, doc_id: str, group: str | None, solved: Sequence[Solved]) -> Doc:
    try:
        doc = MAKERS[spec.kind](spec, row, doc_id)
        attributes = {name: look_up(name, row) for name in spec.attributes}
        before = fill(spec.description, row)
    except TaskError as error:
        raise TaskError(f"document {doc_id}: {error}") from error
    doc = replace(doc, group=group, attributes=attributes)
    if spec.prompting.chat and spec.kind != "text":
        return _conversation(doc, before, solved, spec)
    before += "".join(query + answer + spec.separator for query, answer in solved)
    return replace(doc, contexts=tuple(before + context for context in doc.contexts))


def _conversation(doc: Doc, description: str, solved: Sequence[Solved], spec: PromptSpec) -> Doc:
    """Return a document whose contexts are messages; answers follow without the delimiter."""
    start = opening(spec.prompting.system_prompt, description)
    if spec.prompting.multiturn:
        cut = [(query, answer.removeprefix(spec.delimiter)) for query, answer in solved]
        start += [turn(role, text) for pair in cut for role, text in zip(("user", "assistant"), pair, strict=True)]
        before = ""
    else:
        before = "".join(query + answer + spec.separator for query, answer in solved)
    contexts = tuple(chat_context([*start, turn("user", before + context)]) for context in doc.contexts)
    return replace(
        doc, contexts=contexts, continuations=tuple(c.removeprefix(spec.delimiter) for c in doc.continuations)
    )


def _examples_of(spec: PromptSpec, group: str | None) -> Sequence[Solved]:
    if spec.examples and group not in spec.examples:
        raise TaskError(
            f"few-shot: no examples for group {group!r}; there are groups {choose(map(str, spec.examples))}"
        )
    return spec.examples[group]() if spec.examples else ()


def _text(spec: PromptSpec, row: Row, doc_id: str) -> Doc:
    text = fill(spec.text, row)
    counted = fill(spec.counted, row) if spec.counted else text
    return Doc(doc_id, ("",), (_filled(text, "text"),), (_filled(counted, "counted"),), (0,))


def _cloze(spec: PromptSpec, row: Row, doc_id: str) -> Doc:
    target = _filled(fill(spec.continuation, row), "continuation")
    return Doc(doc_id, (fill(spec.query, row),), (spec.delimiter + target,), (target,), (0,))


def _generate(spec: PromptSpec, row: Row, doc_id: str) -> Doc:
    """Return a document with accepted answers and a solution for few-shot examples (default: the first answer)."""
    answers = tuple(dict.fromkeys(fill_list(spec.answers, row)))
    if not answers:
        raise TaskError("no accepted answers; expected one or more")
    solution = fill(spec.continuation, row) if spec.continuation else answers[0]
    gold = tuple(range(len(answers)))
    return Doc(doc_id, (_filled(fill(spec.query, row), "query"),), (spec.delimiter + solution,), answers, gold)


def _choice(spec: PromptSpec, row: Row, doc_id: str) -> Doc:
    choices, gold = _choices_and_gold(spec, row)
    if len(choices) < 2:
        raise TaskError(f"{len(choices)} choices; expected two or more (kind: cloze scores a single continuation)")
    if spec.contexts:
        return _shared_continuation(spec, row, doc_id, gold)
    query = fill(spec.query, row)
    if spec.formulation == "letter":
        letters = string.ascii_uppercase[: len(choices)]
        if len(letters) < len(choices):
            raise TaskError(f"{len(choices)} choices; formulation: letter has letters for {len(letters)}")
        options = zip(letters, choices, strict=True)
        query += "".join(fill(spec.option, {"letter": x, "choice": c}) for x, c in options) + fill(spec.answer, row)
        choices = list(letters)
    continuations = tuple(spec.delimiter + _filled(choice, f"choice {k}") for k, choice in enumerate(choices))
    return Doc(doc_id, (query,), continuations, tuple(choices), gold)


def _shared_continuation(spec: PromptSpec, row: Row, doc_id: str, gold: tuple[int, ...]) -> Doc:
    """Return a document whose choices differ in the context and share the continuation, as in WinoGrande."""
    contexts = tuple(fill_list(spec.contexts, row))
    continuation = _filled(fill(spec.continuation, row), "continuation")
    return Doc(doc_id, contexts, (spec.delimiter + continuation,), (continuation,) * len(contexts), gold)


MAKERS = {"choice": _choice, "cloze": _cloze, "text": _text, "generate": _generate}


def _filled(text: str, name: str) -> str:
    if not text:
        raise TaskError(f"{name} is empty; expected text to score")
    return text


def _choices_and_gold(spec: PromptSpec, row: Row) -> tuple[list[str], tuple[int, ...]]:
    if spec.correct is not None:
        correct = fill_list(spec.correct, row)
        choices = list(dict.fromkeys(correct + (fill_list(spec.wrong, row) if spec.wrong is not None else [])))
        return choices, _in_range(range(len(set(correct))), len(choices))
    choices = fill_list(spec.contexts or spec.choices, row)
    return choices, _in_range(_gold(spec.gold, row), len(choices))


GOLD_TABLES = "a table with flags:, or one with field: and labels:"


def _gold(form: Json, row: Row) -> Sequence[int]:
    """Return the indices of the correct choices from a field with an index, a list of them, a label, or flags."""
    labels: Sequence[Json] | None = None
    if isinstance(form, dict) and "flags" in form:
        return [k for k, flag in enumerate(fill_list(form["flags"], row)) if flag == "1"]
    if isinstance(form, dict):
        if set(form) != {"field", "labels"} or not isinstance(form["field"], str):
            raise TaskError(f"gold: {form!r}; expected an index, the name of a field, {GOLD_TABLES}")
        labels = form["labels"] if isinstance(form["labels"], list) else fill_list(form["labels"], row)
        form = form["field"]
    value = look_up(form, row) if isinstance(form, str) else form
    values = value if isinstance(value, list) else [value]
    return [_label(item, labels) if labels else _index(item) for item in values]


def _label(value: Json, labels: Sequence[Json]) -> int:
    names, name = [str(label) for label in labels], str(value).strip()
    if name not in names:
        raise TaskError(f"gold is {value!r}; expected one of the labels {', '.join(names)}")
    return names.index(name)


def _index(value: Json) -> int:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TaskError(f"gold is {value!r}; expected the index of a choice (from 0), or labels: in task.yaml")
    return value


def _in_range(gold: Sequence[int], n: int) -> tuple[int, ...]:
    if not gold or not all(0 <= index < n for index in gold):
        raise TaskError(f"gold is {list(gold)}; expected indices of the {n} choices (0 to {n - 1})")
    if len(set(gold)) == n > 1:
        raise TaskError(f"all {n} choices are gold; expected at least one wrong choice")
    return tuple(gold)


def examples(spec: PromptSpec, shots: FewShot, rows: Iterable[Row]) -> dict[str | None, Draw]:
    """Return, for each group, what draws the solved examples of its next document."""
    docs: dict[str | None, list[Solved]] = {}
    plain = replace(spec, group=shots.group, description="", id=None, prompting=Prompting())
    for doc in make_docs(plain, rows):
        docs.setdefault(doc.group, []).append(Solved(*doc.prompt(doc.gold[0])))
    return {group: _draw(pool, shots) for group, pool in docs.items()}


def _draw(pool: list[Solved], shots: FewShot) -> Draw:
    if len(pool) < shots.n:
        raise TaskError(
            f"few-shot: {shots.n} examples requested, {len(pool)} documents in {shots.documents or shots.split}; lower "
            "--num-fewshot, or n of fewshot in task.yaml"
        )
    if shots.sampler == "per_doc":
        state = random.Random(shots.seed)  # noqa: S311  # no secret; lm-eval's own generator
        return lambda: state.sample(pool, shots.n)
    chosen = pool[: shots.n] if shots.seed is None else random.Random(shots.seed).sample(pool, shots.n)  # noqa: S311  # no secret
    return lambda: chosen
