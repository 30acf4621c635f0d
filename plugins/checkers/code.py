"""The checker `code`: run a generated program and the document's tests on it.

The attributes of a document define the tests, under the names that HumanEval and MBPP use:

    test, entry_point            code that defines check(candidate), and the function it is called with (HumanEval)
    test_list, test_setup_code   assertions, and code that runs before them (MBPP)
    prompt                       code that the generated text continues
    canonical_solution, code     a correct continuation of the prompt, or a whole correct program: it must pass the
                                 tests, and its CPU time sets the time limit
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
SLOWER = 10  # CPU limit in multiples of the reference solution's CPU seconds; never below LIMITS.cpu
REFERENCE = Limits(cpu=60, wall=300)


def code(doc: Doc, text: str) -> Outcome:
    """Pass a program, or a continuation of the prompt, that passes the tests of the document."""
    return _check(doc, text, find_tests(doc))


def code_strong(doc: Doc, text: str) -> Outcome:
    """Pass a program that passes both the tests and the additional strong tests of the document."""
    return _check(doc, text, find_strong_tests(doc))


def _check(doc: Doc, text: str, tests: CodeTests) -> Outcome:
    reference = _reference(doc.attributes)
    limits = LIMITS if reference is None else _limits(doc.doc_id, reference, tests)
    outcome: Outcome = _run(program_of(doc.attributes, text), tests, limits).outcome
    return outcome


def _run(program: str, tests: CodeTests, limits: Limits) -> Verdict:
    from harness_plugins.checkers.probes import find_sandbox

    return find_sandbox().run(program, tests, limits)


def prepare() -> Sequence[str]:
    """Verify that programs can be run safely; return notes for the user. Raise EngineError if they cannot."""
    from harness_plugins.checkers.probes import notes

    verified: Sequence[str] = notes()
    return verified


def program_of(attributes: Mapping[str, Any], text: str) -> str:
    """Return the prompt, if there is one, followed by the first fenced block of a text, or by the whole text."""
    fenced = FENCE.search(text)
    return str(attributes.get("prompt", "")) + (fenced[1] if fenced else text)


def _reference(attributes: Mapping[str, Any]) -> str | None:
    if "canonical_solution" in attributes:
        return str(attributes.get("prompt", "")) + str(attributes["canonical_solution"])
    return str(attributes["code"]) if "code" in attributes else None


def find_tests(doc: Doc) -> CodeTests:
    """Return the tests of a document; raise TaskError if it has none or if they are not valid Python."""
    attributes = doc.attributes
    before = _complete("\n".join(str(attributes.get(name, "")) for name in ("prompt", "test_setup_code")))
    if "test" in attributes and "entry_point" in attributes:
        name = str(attributes["entry_point"])
        source = f"{attributes['test']}\n\ncheck({name})\n"
        _calls(doc, source)
        return CodeTests(source, (name,), before)
    if "test_list" in attributes:
        source = _lines(attributes["test_list"])
        names = _calls(doc, source)
        return CodeTests(source, tuple(sorted(names - set(dir(builtins)) or names)), before)
    raise TaskError(
        f"document {doc.doc_id} has no tests; expected attributes test and entry_point, or test_list; found "
        f"{', '.join(attributes) or 'none'}"
    )


def find_strong_tests(doc: Doc) -> CodeTests:
    """Return the tests of a document followed by its strong tests; raise TaskError if it has no strong tests."""
    weak, attributes = find_tests(doc), doc.attributes
    strong = str(attributes.get("strong_test", "")) or _lines(attributes.get("challenge_test_list", ()))
    if not strong.strip():
        raise TaskError(f"document {doc.doc_id} has no strong tests; expected strong_test or challenge_test_list")
    _calls(doc, strong)
    return replace(weak, source=f"{weak.source}\n{strong}\n")


def _lines(tests: str | Sequence[str]) -> str:
    return tests if isinstance(tests, str) else "\n".join(tests)


def _complete(prompt: str) -> str:
    """Return a prompt as a module; a last function without a body gets `pass`. Return "" if that is not Python."""
    for source in (prompt, f"{prompt}\n    pass"):
        try:
            ast.parse(source)
        except SyntaxError:
            continue
        return source
    return ""


def _calls(doc: Doc, source: str) -> set[str]:
    """Return the names of the functions that the tests call.

    The names that are not Python built-ins are the functions to write. MBPP 126 calls only `sum`, which is both.
    """
    try:
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError as error:
        raise TaskError(f"document {doc.doc_id}: its tests are not valid Python: {error}") from error
    return {call.id for call in calls if isinstance(call, ast.Name)}


@lru_cache(maxsize=10_000)
def _limits(doc_id: str, reference: str, tests: CodeTests) -> Limits:
    """Return the limits for a document: LIMITS, with more CPU time if its reference solution is slow."""
    verdict = _run(reference, tests, REFERENCE)
    if verdict.outcome.outcome != "passed" or verdict.cpu is None:
        raise TaskError(
            f"document {doc_id}: its own solution has {verdict.outcome.outcome} ({verdict.outcome.detail}); "
            "leave the document out, or correct its tests"
        )
    cpu = max(LIMITS.cpu, math.ceil(SLOWER * verdict.cpu))
    return replace(LIMITS, cpu=cpu, wall=max(LIMITS.wall, 3 * cpu))


@harness.hookimpl
def register_checkers(register: harness.Register) -> None:
    """Register both checkers."""
    for check in (code, code_strong):
        register(check.__name__, check, executes_code=True, prepare=prepare)
