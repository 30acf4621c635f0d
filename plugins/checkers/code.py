"""The checker `code`: run what was written, and the tests of the document on it.

Documents say in their attributes, under the names that HumanEval and MBPP use, what the tests are:

    test, entry_point            code that defines check(candidate), and the function it is called with (HumanEval)
    test_list, test_setup_code   assertions, and what runs before them (MBPP)
    prompt                       code that the text goes on from
    canonical_solution, code     a right text (behind the prompt) or program: it must pass, and sets the time limit
    strong_test                  further tests for code_strong; or challenge_test_list
"""

from __future__ import annotations

import ast
import builtins
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import harness
from harness import Doc, Outcome, TaskError
from harness_plugins.checkers.trials import LIMITS, CodeTests, Limits, Verdict

FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
SLOWER = 10  # times the CPU seconds of the reference solution that a program may take, where that is above the floor
REFERENCE = Limits(cpu=60, wall=300)


def code(doc: Doc, text: str) -> Outcome:
    """Pass a program (or what goes on from the prompt) that passes the tests of the document."""
    return _check(doc, text, find_tests(doc))


def code_strong(doc: Doc, text: str) -> Outcome:
    """Pass a program that passes the tests of the document and its strong ones, which are more."""
    return _check(doc, text, find_strong_tests(doc))


def _check(doc: Doc, text: str, tests: CodeTests) -> Outcome:
    wanted = doc.attributes
    reference = _reference(wanted)
    limits = LIMITS if reference is None else _limits(doc.doc_id, reference, tests)
    outcome: Outcome = _run(program_of(wanted, text), tests, limits).outcome
    return outcome


def _run(program: str, tests: CodeTests, limits: Limits) -> Verdict:
    from harness_plugins.checkers.probes import find_sandbox

    return find_sandbox().run(program, tests, limits)


def prepare() -> Sequence[str]:
    """Verify that programs can be run without harm, or raise EngineError; return what a user should know of it."""
    from harness_plugins.checkers.probes import notes

    found: Sequence[str] = notes()
    return found


def program_of(attributes: Mapping[str, Any], text: str) -> str:
    """Return the program: behind the prompt, if there is one, the first fenced block of a text, or all of it."""
    fenced = FENCE.search(text)
    return str(attributes.get("prompt", "")) + (fenced[1] if fenced else text)


def _reference(attributes: Mapping[str, Any]) -> str | None:
    if "canonical_solution" in attributes:
        return str(attributes.get("prompt", "")) + str(attributes["canonical_solution"])
    return str(attributes["code"]) if "code" in attributes else None


def find_tests(doc: Doc) -> CodeTests:
    """Return the tests of a document; raise TaskError where it has none, or none that are Python."""
    found = doc.attributes
    before = _complete("\n".join(str(found.get(name, "")) for name in ("prompt", "test_setup_code")))
    if "test" in found and "entry_point" in found:
        name = str(found["entry_point"])
        source = f"{found['test']}\n\ncheck({name})\n"
        _calls(doc, source)
        return CodeTests(source, (name,), before)
    if "test_list" in found:
        source = _lines(found["test_list"])
        names = _calls(doc, source)
        return CodeTests(source, tuple(sorted(names - set(dir(builtins)) or names)), before)
    raise TaskError(
        f"document {doc.doc_id} has no tests; expected attributes test and entry_point, or test_list; found "
        f"{', '.join(found) or 'none'}"
    )


def find_strong_tests(doc: Doc) -> CodeTests:
    """Return the tests of a document and its strong ones; raise TaskError where it has none of these."""
    weak, found = find_tests(doc), doc.attributes
    strong = str(found.get("strong_test", "")) or _lines(found.get("challenge_test_list", ()))
    if not strong.strip():
        raise TaskError(f"document {doc.doc_id} has no strong tests; expected strong_test or challenge_test_list")
    _calls(doc, strong)
    return replace(weak, source=f"{weak.source}\n{strong}\n")


def _lines(tests: str | Sequence[str]) -> str:
    return tests if isinstance(tests, str) else "\n".join(tests)


def _complete(prompt: str) -> str:
    """Return a prompt as a module: a function that has no body yet gets one."""
    for source in (prompt, f"{prompt}\n    pass"):
        try:
            ast.parse(source)
        except SyntaxError:
            continue
        return source
    return ""


def _calls(doc: Doc, source: str) -> set[str]:
    """Return the names of functions that tests call: those that are asked for, if they are not Python's own.

    MBPP 126 asks for a sum, and calls no other.
    """
    try:
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError as error:
        raise TaskError(f"document {doc.doc_id}: its tests are no Python: {error}") from error
    return {call.id for call in calls if isinstance(call, ast.Name)}


@lru_cache(maxsize=10_000)
def _limits(doc_id: str, reference: str, tests: CodeTests) -> Limits:
    """Return the limits of a document: more than the floor where its reference solution needs much of that."""
    found = _run(reference, tests, REFERENCE)
    if found.outcome.outcome != "passed" or found.cpu is None:
        raise TaskError(
            f"document {doc_id}: its own solution has {found.outcome.outcome} ({found.outcome.detail}); "
            "leave the document out, or mend its tests"
        )
    cpu = max(LIMITS.cpu, math.ceil(SLOWER * found.cpu))
    return replace(LIMITS, cpu=cpu, wall=max(LIMITS.wall, 3 * cpu))


@harness.hookimpl
def register_checkers(register: harness.Register) -> None:
    """Register both."""
    for check in (code, code_strong):
        register(check.__name__, check, executes_code=True, prepare=prepare)
