"""The documents of the nano tasks: one function per task.

python -m harness_plugins.nano.questions FOLDER      writes the documents of every task to FOLDER/TASK.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_plugins.nano.documents import MIXTURES, documents
from harness_plugins.nano.world import (
    COLOURS,
    JOBS,
    WORDS,
    World,
    draw_agreement,
    draw_letters,
    draw_operands,
    draw_ordering,
    draw_world,
    generator,
)

Fields = dict[str, Any]  # a document of a task, as in its line of JSON

NEAR_MISSES = (-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20)  # errors of one digit or one carry
N_CHOICES = 4
N_TEXTS = 400


def ask_birthplace(world: World, rng: random.Random) -> Fields:
    """Ask where a person was born; all people are equally likely, so rare ones make it hard."""
    person = rng.choice(world.people)
    towns = [town.name for town in world.towns]
    return {"query": f"{person.name} was born in", **_among(rng, person.town.name, towns)}


def ask_job(world: World, rng: random.Random) -> Fields:
    """Ask for a person's job; all people are equally likely."""
    person = rng.choice(world.people)
    return {"query": f"The job of {person.name} is", **_among(rng, person.job, JOBS)}


def ask_flag(world: World, rng: random.Random) -> Fields:
    """Ask for the colour of a town's flag."""
    town = rng.choice(world.towns)
    return {"query": f"The flag of {town.name} is", **_among(rng, town.flag, COLOURS)}


def ask_addition(_: World, rng: random.Random) -> Fields:
    """Ask for a sum of numbers of one to three digits; the wrong choices are near misses."""
    digits, a, b = draw_operands(rng, [1, 2, 3])
    near = [str(a + b + miss) for miss in NEAR_MISSES if a + b + miss >= 0]
    return {"query": f"{a} + {b} =", **_among(rng, str(a + b), near), "digits": digits}


def ask_agreement(_: World, rng: random.Random) -> Fields:
    """Ask for the verb that agrees with a subject."""
    subject, right, wrong = draw_agreement(rng)
    return {"query": subject, **_either(rng, right, wrong)}


def ask_ordering(world: World, rng: random.Random) -> Fields:
    """Ask who is first or last in an ordering; the choices are all its people."""
    query, answer, names = draw_ordering(world, rng)
    rng.shuffle(names)
    return {"query": query, "choices": names, "gold": names.index(answer)}


def ask_saying(world: World, rng: random.Random) -> Fields:
    """Ask to end a proverb as instructed; the wrong choice is its memorised end."""
    body, end = rng.choice(world.proverbs)
    told = rng.choice([word for word in WORDS if word != end])
    return {"query": f"End the saying with {told}. {body}", **_either(rng, told, end)}


def ask_addition_gen(_: World, rng: random.Random) -> Fields:
    """Ask to write a sum of numbers of one to three digits."""
    digits, a, b = draw_operands(rng, [1, 2, 3])
    return {"query": f"{a} + {b} =", "target": str(a + b), "digits": digits}


def ask_recall_gen(_: World, rng: random.Random) -> Fields:
    """Ask to repeat letters."""
    letters = draw_letters(rng)
    return {"query": f"List: {letters}. Again:", "target": letters, "length": len(letters.split())}


def _among(rng: random.Random, answer: str, pool: Sequence[str]) -> Fields:
    """Return the answer and wrong choices from a pool, in random order."""
    choices = [*rng.sample([other for other in pool if other != answer], N_CHOICES - 1), answer]
    rng.shuffle(choices)
    return {"choices": choices, "gold": choices.index(answer)}


def _either(rng: random.Random, right: str, wrong: str) -> Fields:
    """Return the correct and the wrong choice in random order."""
    choices = [right, wrong] if rng.random() < 0.5 else [wrong, right]
    return {"choices": choices, "gold": choices.index(right)}


TASKS: Mapping[str, Callable[[World, random.Random], Fields]] = {
    "nano_birthplace": ask_birthplace,
    "nano_job": ask_job,
    "nano_flag": ask_flag,
    "nano_addition": ask_addition,
    "nano_agreement": ask_agreement,
    "nano_ordering": ask_ordering,
    "nano_saying": ask_saying,
    "nano_addition_gen": ask_addition_gen,
    "nano_recall_gen": ask_recall_gen,
}


def tasks(world: World, count: int = 1000, seed: int = 99) -> dict[str, list[Fields]]:
    """Draw `count` documents of every task, and N_TEXTS documents of nano_text.

    Documents contain {query, choices, gold} for multiple choice, {query, target} for generation, and {text} for plain
    text. All tasks share one generator and draw alternately, so a task cannot be drawn alone.
    """
    rng = generator(seed)
    turns = [{name: ask(world, rng) for name, ask in TASKS.items()} for _ in range(count)]
    texts = documents(world, MIXTURES["aster"], N_TEXTS, seed + 1)
    by_task = {name: [turn[name] for turn in turns] for name in TASKS}
    return by_task | {"nano_text": [{"text": text} for text in texts]}


def write_tasks(folder: Path) -> None:
    """Write the documents of every task to FOLDER/TASK.jsonl; create the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, docs in tasks(draw_world()).items():
        lines = "".join(json.dumps(doc) + "\n" for doc in docs)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tasks to the folder given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness_plugins.nano.questions", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder for the files TASK.jsonl; created if missing")
    write_tasks(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
