"""`harness browse`: show documents of a store on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from harness.host import PluginHost
from harness.tables import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.reports.documents import Documents
    from harness.types import Bools, Ints

SORTS = ("disagreement", "flips", "hardest")
MANY = 6  # with more choices, only the gold and the preferred ones have a column
GOLD = 20  # largest width of a gold answer, and of a document's name, in characters
FIXED = 16  # width of the column right, plus the space between columns
CONTEXT = 4000  # largest number of characters shown of a context


class DocumentFlags(TypedDict):
    """Options that say which documents are read."""

    task: str | None
    family: str | None
    where: str | None


@click.command("browse")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--task", help="Task to browse (default: all).")
@click.option("--doc", metavar="ID", help="Document to show in full; needs --task if several tasks have it.")
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="disagreement",
    show_default=True,
    help="Order of documents: families disagree, answers flip late, or the largest models are most wrong.",
)
@click.option("--family", help="Family to show (default: all).")
@click.option("--where", metavar="EXPR", help="Expression that selects checkpoints.")
@click.option("--n", "count", default=10, show_default=True, type=click.IntRange(min=1), help="Documents per task.")
@click.option("--all-steps", is_flag=True, help="Show every step of a document, not only the last of each run.")
@click.pass_obj
def browse(
    host: PluginHost,
    /,
    store: Path,
    doc: str | None,
    sort: str,
    count: int,
    all_steps: bool,
    **asked: Unpack[DocumentFlags],
) -> None:
    """Show documents with the log-probability of every choice across checkpoints.

    Without --doc the command lists the documents that families disagree on, that flip late in training, or that are
    hardest. Control characters and terminal escapes in documents are shown, not executed.
    """
    from rich.console import Console

    from harness.reports.documents import read_documents
    from harness.store.points import open_store

    console = Console(markup=False, emoji=False, highlight=False)
    tasks = read_documents(open_store(store, registries=host), **asked)
    if doc is None:
        for documents in tasks:
            _list(console, documents, sort, count)
        return
    _show(console, _holder(tasks, doc), doc, all_steps=all_steps)


def _holder(tasks: list[Documents], doc: str) -> Documents:
    """Return the only task that has a document; raise UsageError if no task or several tasks have it."""
    from harness.errors import UsageError, choose

    holders = [documents for documents in tasks if doc in documents.docs.doc_ids]
    if len(holders) > 1:
        raise UsageError(
            f"document {doc!r} is in {choose(documents.task for documents in holders)}; choose one with --task"
        )
    if not holders:
        tasks[0].number(doc)
    return holders[0]


def _text(value: object, style: str = "") -> Text:
    """Return the text of a cell, escaped and without interpreting rich's markup."""
    from rich.text import Text

    return Text(printable(value), style=style)


def _list(console: Console, documents: Documents, sort: str, count: int) -> None:
    """Print the first documents of a task, one line each."""
    from rich.table import Table

    table = Table(title=_text(f"{documents.task}: {sort}"), title_justify="left", box=None, pad_edge=False, expand=True)
    table.add_column("document", no_wrap=True, min_width=8, max_width=GOLD)
    table.add_column(sort, justify="right", no_wrap=True, min_width=len(sort))
    table.add_column("right", justify="right", no_wrap=True, min_width=7)
    table.add_column("end of context", overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("gold", overflow="ellipsis", no_wrap=True, max_width=GOLD)
    measure, order = documents.measure(sort), documents.order(sort)[:count]
    room = max(console.width - FIXED - len(sort) - _widest(documents, order), 10)
    for number in order:
        choices = documents.choices(int(number))
        table.add_row(
            _text(documents.docs.doc_ids[number]),
            f"{measure[number]:.2f}",
            f"{int(documents.right[:, number].sum())}/{len(documents.right)}",
            _text(_end(choices["context"].iloc[0], room)),
            _text(" / ".join(choices["answer"][choices["is_gold"]])),
        )
    console.print(table)
    console.print(_text(NOTES[sort], style="dim"))
    console.print()


def _widest(documents: Documents, order: Ints) -> int:
    """Return the total column width, in characters, of the names and gold answers of some documents."""
    ids = max(len(printable(documents.docs.doc_ids[number])) for number in order)
    golds = (documents.choices(int(number)) for number in order)
    gold = max(len(printable(" / ".join(choices["answer"][choices["is_gold"]]))) for choices in golds)
    return min(max(ids, 8), GOLD) + min(gold, GOLD)


def _end(context: str, room: int) -> str:
    """Return the end of a context, where contexts with few-shot examples differ."""
    return context if len(context) <= room else f"...{context[3 - room :]}"


NOTES = {
    "disagreement": "1: half of the families' largest models are right. right: checkpoints that are right, of all.",
    "flips": "Changes between right and wrong along training and sizes; the last possible change counts 1.",
    "hardest": "Nats by which the families' largest models prefer a wrong choice, on average.",
}


def _show(console: Console, documents: Documents, doc: str, *, all_steps: bool) -> None:
    """Print one document: its text, its choices, and their log-probabilities at every checkpoint."""
    number = documents.number(doc)
    choices = documents.choices(number)
    console.print(_text(f"{documents.task}, document {doc}", style="bold"))
    contexts = list(dict.fromkeys(choices["context"]))
    for context in contexts:
        console.print(_lines(context))
    for i, row in choices.iterrows():
        mark, style = ("*", "green") if row["is_gold"] else (" ", "")
        console.print(_text(f"{mark} [{i}] {row['answer']}", style=style))
    console.print()
    console.print(_logprobs(documents, number, all_steps=all_steps))
    note = "Log-probabilities in nats; the gold choice is marked *, the most probable one >. margin: gold - best wrong."
    console.print(_text(note, style="dim"))


def _lines(context: str) -> Text:
    """Return an escaped context with its line breaks; if it is long, only its end."""
    from rich.text import Text

    cut = f"... ({len(context) - CONTEXT} characters before this)\n" if len(context) > CONTEXT else ""
    return Text(cut + printable(context[-CONTEXT:], lines=True))


def _logprobs(documents: Documents, number: int, *, all_steps: bool) -> Table:
    """Return the table of log-probabilities: one row per checkpoint, one column per choice."""
    from rich.table import Table

    from harness.fitting.runs import ends

    choices, values = documents.choices(number), documents.logprobs(number)
    picked = documents.picks[:, number]
    shown = _columns(choices["is_gold"].to_numpy(), picked)
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    table.add_column("", no_wrap=True)
    for name in ["margin", *(f"{'*' if choices['is_gold'].iloc[i] else ''}[{i}]" for i in shown)]:
        table.add_column(_text(name), justify="right", no_wrap=True)
    is_shown = [True] * len(values) if all_steps else list(ends(documents.checkpoints))
    for row, label in enumerate(documents.checkpoints["label"]):
        if is_shown[row]:
            right = bool(documents.right[row, number])
            cells = [_text(f"{'>' if i == picked[row] else ''}{values[row, i]:.2f}") for i in shown]
            mark = _text("right" if right else "wrong", style="green" if right else "red")
            table.add_row(_text(label), mark, f"{documents.margins[row, number]:+.2f}", *cells)
    return table


def _columns(is_gold: Bools, picked: Ints) -> list[int]:
    """Return the choices that get a column: all, or only gold choices and those that a checkpoint prefers."""
    if len(is_gold) <= MANY:
        return list(range(len(is_gold)))
    return sorted({i for i, gold in enumerate(is_gold) if gold} | {int(i) for i in picked})[: 2 * MANY]
