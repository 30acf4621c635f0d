"""Programs in the sandbox: correct ones pass, wrong ones fail, hostile ones do no harm."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, OrderedDict, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import Doc, EngineError, TaskError
from harness.testing import check_checker
from harness_plugins.checkers import probes
from harness_plugins.checkers.code import _limits, _reference, code, code_strong, find_tests, program_of
from harness_plugins.checkers.jail import syscalls
from harness_plugins.checkers.jail.values import Decoder, Encoder
from harness_plugins.checkers.jail.wire import WireError
from harness_plugins.checkers.probes import broken, find_sandbox, notes
from harness_plugins.checkers.sandbox import Sandbox
from harness_plugins.checkers.trials import LIMITS, CodeTests
from tests.conftest import REPOSITORY, published

SQUARES = CodeTests("assert f(2) == 4\nassert f(-3) == 9", ("f",))


def document(**attributes) -> Doc:
    return Doc("7", ("",), ("",), ("",), (), attributes=attributes)


def run(program: str, tests: CodeTests = SQUARES, limits=LIMITS) -> tuple[str, str]:
    outcome = find_sandbox().run(program, tests, limits).outcome
    return outcome.outcome, outcome.detail


def test_no_probe_breaks_out_here():
    assert notes() == ()


def test_no_probe_breaks_out_where_there_are_no_namespaces_and_a_user_is_told():
    assert broken(Sandbox("landlock")) == []


def test_the_numbers_of_system_calls_are_those_of_the_headers():
    table = " ".join([syscalls.ALLOWED, syscalls.OWN_FOLDER, syscalls.LIMITED, syscalls.OTHERS, probes.REFUSED])
    headers = list(Path("/usr/include").glob("*/asm/unistd_64.h"))
    if not headers or os.uname().machine != "x86_64":
        pytest.skip("no headers of Linux for x86_64")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", headers[0].read_text()))
    wrong = {name: n for name, n in syscalls.numbers(table).items() if name in known and int(known[name]) != n}
    assert wrong == {}


@pytest.mark.parametrize(
    ("program", "outcome", "detail"),
    [
        ("def f(x): return x * x", "passed", ""),
        ("def f(x): return x", "failed", "assert f(2) == 4"),
        ("def f(x): return None", "failed", "assert f(2) == 4"),
        ("def f(x): return 1 / 0", "crashed", "ZeroDivisionError: division by zero"),
        ("def f(x): assert x > 0; return x * x", "crashed", "AssertionError"),
        ("def g(x): return x * x", "crashed", "AttributeError: module 'program' has no attribute 'f'"),
        ("def f(x) return x", "crashed", "SyntaxError: expected ':' (<program>, line 1)"),
        ("import nothing_of_the_kind", "crashed", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("def f(x): return f(x)", "crashed", "RecursionError: maximum recursion depth exceeded"),
        ("def f(x): return bytearray(10 << 30)", "crashed", "MemoryError"),
        ("import ctypes\nctypes.string_at(0)", "crashed", "ended by SIGSEGV"),
        ("import numpy\ndef f(x): return numpy.int64(x) ** 2", "passed", ""),
        ("if __name__ == '__main__': 1 / 0\ndef f(x): return x * x", "passed", ""),
    ],
)
def test_a_wrong_answer_is_told_from_a_crash(program, outcome, detail):
    assert run(program) == (outcome, detail)


def test_the_failed_line_is_named_after_a_form_feed():
    """Python does not end a line there, so that the detail was the line before."""
    tests = CodeTests("page = '\x0c'\nassert f(1) == 2", ("f",))
    assert run("def f(x): return x", tests) == ("failed", "assert f(1) == 2")


CHEATS = {
    "prints": "print('passed')\nimport os\nos.write(1, b'passed')\nos._exit(0)",
    "exits": "import os\nos._exit(0)",
    "exits_in_the_call": "def f(x):\n    raise SystemExit(0)",
    "writes_the_verdict_everywhere": """
import json, os, struct
data = json.dumps({"outcome": "passed", "detail": "", "cpu": 0.1}).encode()
for fd in range(64):
    try:
        os.write(fd, struct.pack(">I", len(data)) + data)
    except OSError:
        pass
""",
    "equals_everything": """
class Anything(int):
    def __eq__(self, other):
        return True
    __hash__ = None
def f(x):
    return Anything()
""",
    "is_an_object_that_equals_everything": """
class Anything:
    def __eq__(self, other):
        return True
def f(x):
    return Anything()
""",
    "patches_python": """
import builtins, sys
builtins.AssertionError = builtins.Exception = type("Nothing", (BaseException,), {})
sys.excepthook = sys.exit = print
sys.settrace(lambda *_: None)
def f(x):
    return 0
""",
    "looks_at_the_caller": """
import gc, sys
def f(x):
    frame = sys._getframe()
    while frame:
        seen = [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts, *frame.f_code.co_names]
        if any(")3-(f"[::-1] in repr(value) for value in seen):
            return x * x
        frame = frame.f_back
    if any(")3-(f"[::-1] in repr(value) for value in gc.get_objects() if isinstance(value, (dict, list, tuple))):
        return x * x
""",
    "reads_the_tests": """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    for parent in (1, os.getppid()):
        if libc.ptrace(16, parent, 0, 0) == 0 or os.path.exists(f"/proc/{parent}/mem"):
            return x * x
""",
    "stops_the_tests": """
import os, signal
def f(x):
    for number in range(1, 64):
        try:
            os.kill(1, number)
        except OSError:
            pass
    return 0
""",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_does_not_pass_by_anything_but_the_right_answer(cheat):
    assert run(CHEATS[cheat])[0] in {"failed", "crashed"}


@pytest.mark.parametrize("cheat", ["exits", "equals_everything", "is_an_object_that_equals_everything"])
def test_such_programs_pass_where_tests_run_in_their_process(cheat):
    done = subprocess.run([sys.executable, "-c", f"{CHEATS[cheat]}\n{SQUARES.source}"], check=False)
    assert done.returncode == 0


def test_a_program_cannot_bring_what_the_tests_rely_on():
    """Neither what Python and its modules define nor what the task does; only the function that was asked for."""
    tests = CodeTests(
        "import math\nassert abs(double(f(3)) - 18) < 1e-6 and math.isclose(f(2), 4)",
        ("f",),
        "def double(x): return 2 * x",
    )
    fakes = "def double(x): return 18\ndef abs(x): return 0\nclass math:\n    isclose = lambda *_: True\n"
    assert run(f"{fakes}def f(x): return x * x", tests) == ("passed", "")
    assert run(f"{fakes}def f(x): return 0", tests)[0] == "failed"


HOSTILE = {
    "loops": ("while True: pass", "timed out"),
    "ignores_the_signal": ("from signal import *\nsignal(SIGXCPU, SIG_IGN)\nwhile True: pass", "timed out"),
    "sleeps": ("import time\ntime.sleep(100)", "timed out"),
    "forks_for_ever": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "timed out"),
    "allocates": ("x = [bytes(1 << 20) for _ in range(10 << 10)]", "crashed"),
    "writes_outside": ("open('/usr/lib/new', 'w')", "crashed"),
    "reads_the_environment": ("import os\nos.environ['HARNESS_PLUGINS']", "crashed"),
    "closes_its_line_and_loops": ("import os\nos.closerange(0, 64)\nwhile True: pass", "crashed"),
    "fills_its_folder": ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(bytes(10 << 20))", "crashed"),
}  # fmt: skip


@pytest.mark.parametrize("program", HOSTILE)
def test_a_hostile_program_does_not_pass_hang_or_stay(program):
    source, outcome = HOSTILE[program]
    limits = replace(LIMITS, cpu=1, wall=1 if program in {"sleeps", "forks_for_ever"} else 5)
    named = f"import ctypes\nctypes.CDLL(None).prctl(15, b'hostile', 0, 0, 0)\n{source}"
    assert run(named, limits=limits)[0] == outcome
    assert not left("hostile")


def test_a_program_that_waits_ends_with_its_tests():
    program = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'hostile', 0, 0, 0)\ndef f(x): return x * x"
    assert run(program) == ("passed", "")
    assert not left("hostile")


PATIENCE = 120  # seconds; only a failure takes that long, however busy the machine is


def left(name: str) -> bool:
    """Say whether a process of that name stays there."""
    until = time.monotonic() + PATIENCE
    while processes := [path for path in Path("/proc").glob("[0-9]*/comm") if _read(path) == name]:
        if time.monotonic() > until:
            return bool(processes)
        time.sleep(0.02)
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def test_programs_end_with_the_one_who_asked():
    """The harness is killed in the middle of a program that would sleep for ever."""
    program = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'orphan', 0, 0, 0)\ntime.sleep(1000)"
    script = (
        "from harness_plugins.checkers.sandbox import Sandbox, CodeTests\n"
        f"Sandbox({find_sandbox().walls!r}).run({program!r}, CodeTests('', ()))"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        until = time.monotonic() + PATIENCE
        while not any(_read(path) == "orphan" for path in Path("/proc").glob("[0-9]*/comm")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not left("orphan")


@pytest.mark.parametrize(
    ("walls", "without", "limits", "claim"),
    [
        ("namespaces", ("calls",), replace(LIMITS, threads=400), "processes and threads are limited: failed"),
        ("landlock", ("calls",), LIMITS, "processes and threads are limited: failed"),
        ("namespaces", (), replace(LIMITS, memory=1 << 40), "memory is limited"),
        ("namespaces", (), replace(LIMITS, folder=1 << 28), "files are limited: failed"),
        ("namespaces", ("calls",), LIMITS, "system calls are refused: failed"),
        ("landlock", ("calls",), LIMITS, "system calls are refused: failed"),
        ("namespaces", ("files", "rights"), LIMITS, "files of the user cannot be read: failed"),
        ("landlock", ("files",), LIMITS, "files of the user cannot be read: failed"),
        ("namespaces", ("network", "calls"), LIMITS, "there is no network: failed"),
        (
            "namespaces",
            ("rights", "calls"),
            replace(LIMITS, wall=3),
            "the tests cannot be attacked, and rights cannot be gained",
        ),
    ],
)
def test_walls_with_a_hole_are_noticed(monkeypatch, walls, without, limits, claim):
    loose = Sandbox(walls, without)
    monkeypatch.setattr(probes, "_probes", lambda *_: [probe for probe in ALL(*_) if claim.startswith(probe.claim)])
    monkeypatch.setattr(Sandbox, "run", lambda self, program, tests, _: RUN(self, program, tests, limits))
    (hole,) = broken(loose)
    assert hole.startswith(claim)


ALL, RUN = probes._probes, Sandbox.run


def test_without_walls_programs_are_refused_and_it_is_said_what_to_do(monkeypatch):
    def run(*_):
        raise EngineError("unshare: not permitted")

    monkeypatch.setattr(Sandbox, "run", run)
    with pytest.raises(
        EngineError, match="cannot isolate them .*namespaces: unshare: not permitted.*landlock: unsh.*expected Linux"
    ):
        probes._verified.__wrapped__()


PLAIN = [
    1, True, None, 1.5, float("inf"), "a\ud800\0", [1, (2, {3})], {"a": {1: 2}, (1,): None}, b"ab", 1 + 2j, range(3),
    Fraction(1, 3), Decimal("1.50"), frozenset([1]), int, 10**5000, -(2**70), [], deque([1], 3), Counter("aab"),
    defaultdict(list, a=[1]), OrderedDict(b=1, a=2), bytearray(b"ab"), {"a": 1}.keys(), {"a": 1}.items(),
    date(2024, 2, 29), datetime(2024, 1, 1, tzinfo=UTC), timedelta(1, 2), np.bool_(False), np.int8(3),
    np.float32(0.1), np.longdouble(1) / 3, np.datetime64("2024-01-01"),
]  # fmt: skip


def sent(value: Any) -> Any:
    return Decoder(lambda _: None).decode(json.loads(json.dumps(Encoder(lambda _: 0).encode(value))))


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: str(type(value).__name__))
def test_plain_values_arrive_as_they_were_sent(value):
    received = sent(value)
    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.array([]), np.array(True), np.array(["a", "bc"])], ids=str
)
def test_arrays_arrive_with_shape_and_type(array):
    received = sent(array)
    assert (received.dtype, received.shape, received.tolist()) == (array.dtype, array.shape, array.tolist())


def test_who_shares_a_list_arrives_too():
    inner: list[Any] = [1]
    inner.append(inner)
    a, (b, c) = sent([inner, (inner, [1])])
    assert a is b is a[1]
    assert c == [1]
    assert c is not a
    assert sent(defaultdict(int))["a"] == 0


def test_what_is_no_plain_value_arrives_as_an_object():
    assert Encoder(lambda _: 3).encode(object()) == ["object", 3]
    assert Encoder(lambda _: 3).encode(np.array([object()])) == ["object", 3]
    nonsense = [
        ["dict", None, 3], ["eval", "1"], ["set", None, [["list", None, []]]], ["type", "print"], [], ["shared", 0],
        ["Decimal", ["x"]], ["array", ["|O8", [1]], "00" * 8], ["array", ["<f8", [9]], "00"], ["scalar", 1, 1],
    ]  # fmt: skip
    for message in nonsense:
        with pytest.raises(WireError):
            Decoder(lambda _: None).decode(message)


ANSWERS = {
    "np.bool_(False)": ("np.bool_(False)", "f(3)", False),
    "np.bool_(True)": ("np.bool_(True)", "f(3)", True),
    "np.bool_ is no bool": ("np.bool_(True)", "f(3) == True and f(3) is not True", True),
    "np.int64": ("np.int64(9)", "f(3) == 9 and len({f(3), 9}) == 1", True),
    "np.array": ("np.arange(x)", "f(3).tolist() == [0, 1, 2] and f(3).sum() == 3", True),
    "an array has no one truth": ("np.arange(x)", "f(3) == [0, 1, 2]", False),
    "an empty deque": ("deque()", "f(3)", False),
    "a deque": ("deque([x])", "f(3) and len(f(3)) == 1 and f(3) == deque([3]) and f(3) != [3]", True),
    "a Counter": ("Counter('a' * x)", "f(3) == {'a': 3} and f(3)['b'] == 0", True),
    "an empty object": ("Sized(0)", "f(3)", False),
    "an object": ("Sized(x)", "f(3) and len(f(3)) == 3 and f(3)[1] == 1 and list(f(3)) == [0, 1, 2]", True),
    "equal objects": ("Sized(x)", "f(3) == f(3) and f(3) != f(2) and f(3) is not f(3) and {f(3)} == {f(3)}", True),
    "an object is no value": ("Sized(x)", "f(3) == 3 or f(3) == [0, 1, 2]", False),
    "ordered objects": ("Sized(x)", "sorted([f(3), f(2)]) == [f(2), f(3)]", True),
    "a generator": ("(n for n in range(x))", "f(3) and next(f(3)) == 0 and sum(f(3)) == 3", True),
    "one without end": ("itertools.count()", "[n for n, _ in zip(f(3), range(3))] == [0, 1, 2]", True),
    "a map": ("map(str, range(x))", "list(f(3)) == ['0', '1', '2']", True),
    "keys": ("{x: 1}.keys()", "f(3) == {3} and f(3) != [3]", True),
    "a text of an object": ("Sized(x)", "str(f(3)) == 'Sized(3)' and f'{f(3)}' == 'Sized(3)'", True),
    "StopIteration in a loop of the tests": ("next(iter(()))", "all(map(f, [1, 2]))", None),
}
SIZED = """
import itertools
import numpy as np
from collections import Counter, deque
class Sized:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, k): return range(self.n)[k]
    def __eq__(self, other): return True if type(other) is not Sized else self.n == other.n
    def __lt__(self, other): return self.n < other.n
    def __hash__(self): return self.n
    def __repr__(self): return f"Sized({self.n})"
"""


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_has_the_truth_length_and_equality_that_it_has_in_one_process(answer):
    value, claim, holds = ANSWERS[answer]
    program = f"{SIZED}def f(x): return {value}"
    tests = CodeTests(f"from collections import deque\nassert {claim}", ("f",))
    assert run(program, tests)[0] == {True: "passed", False: "failed", None: "crashed"}[holds]
    if answer not in {"an object is no value", "StopIteration in a loop of the tests"}:  # where the judge is stricter
        space: dict[str, Any] = {}
        exec(program, space)
        with pytest.raises((AssertionError, ValueError)) if not holds else nullcontext():
            exec(tests.source, space)


CHANGES = {
    "a list": ("x.sort()", "x = [2, 1]\nf(x)\nassert x == [1, 2]"),
    "a list in a list": (
        "x[0].append(3)",
        "y = [1]\nx = [y]\nf(x)\nassert x == [[1, 3]] and x[0] is y and y == [1, 3]",
    ),
    "a dict": ("x['b'] = x.pop('a')", "x = {'a': [1]}\ny = x['a']\nf(x)\nassert x == {'b': [1]} and x['b'] is y"),
    "a set": ("x.discard(1)", "x = {1, 2}\nassert f(x) is None and x == {2}"),
    "a deque": (
        "x.rotate(1)",
        "from collections import deque\nx = deque([1, 2, 3])\nf(x)\nassert list(x) == [3, 1, 2]",
    ),
    "an array": ("x *= 2", "import numpy as np\nx = np.arange(3)\nf(x)\nassert x.tolist() == [0, 2, 4]"),
    "bytes": ("x[0] = 98", "x = bytearray(b'a')\nf(x)\nassert x == b'b'"),
    "a keyword": ("x.append(1)", "y = []\nf(x=y)\nassert y == [1]"),
    "and is what comes back": ("x.append(1); return x", "x = []\ny = f(x)\nassert y is x and y == [1]"),
    "to hold itself": ("x.append(x)", "x = []\nf(x)\nassert x[0] is x"),
    "from 1 to True": ("x[0] = True", "x = [1]\nf(x)\nassert x[0] is True"),
    "before an error": ("x.append(1); raise ValueError", "x = []\ntry: f(x)\nexcept ValueError: assert x == [1]"),
    "not at all": ("return [*x, 1]", "x = []\nassert f(x) == [1] and x == []"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_function_may_change_its_argument(change):
    body, tests = CHANGES[change]
    assert run(f"def f(x): {body}", CodeTests(tests, ("f",))) == ("passed", "")


ERRORS = [
    ("class Mine(ValueError):\n    pass\ndef f(): raise Mine('no')", "ValueError", "str(e) == 'no'"),
    ("def f(): {}['no']", "KeyError", "e.args == ('no',)"),
    ("def f(): b'\\xff'.decode()", "UnicodeDecodeError", "e.start == 0"),
    ("def f(): open('nothing')", "FileNotFoundError", "e.errno == 2"),
    ("import json\ndef f(): json.loads('')", "ValueError", "'Expecting' in str(e)"),
    ("def f(): raise ExceptionGroup('a', [ValueError()])", "Exception", "str(e) == 'a (1 sub-exception)'"),
]


@pytest.mark.parametrize(("program", "error", "claim"), ERRORS)
def test_an_error_arrives_as_the_class_that_tests_expect(program, error, claim):
    tests = f"try:\n    f()\nexcept {error} as e:\n    assert {claim}\nelse:\n    assert False"
    assert run(program, CodeTests(tests, ("f",))) == ("passed", "")


def test_objects_of_the_program_go_through_tests():
    tree = "class Node:\n    def __init__(self, v): self.v, self.left = v, None\n"
    program = tree + "def f(n): return n.v + (f(n.left) if n.left else 0)\ndef g(): yield from (1, 2)"
    before = "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)"
    tests = CodeTests(
        "assert f(root) == 6 and root.left.v == 2 and root != Node(1) and list(g()) == [1, 2]", ("f",), before
    )
    assert run(program, tests) == ("passed", "")


def test_chance_is_the_same_every_time():
    """In the program, in the tests, and in the order of sets."""
    program = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    tests = CodeTests("import random\nassert 0, [random.random(), f()]", ("f",))
    assert len({run(program, tests) for _ in range(5)}) == 1


def test_tests_may_expect_an_error():
    tests = CodeTests(
        "try:\n    f(0)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False", ("f",)
    )
    assert run("def f(x): raise ValueError('no')", tests)[0] == "passed"
    assert run("def f(x): raise KeyError('no')", tests)[0] == "crashed"
    assert run("def f(x): pass", tests)[0] == "failed"
    anything = CodeTests("try:\n    f(0)\nexcept:\n    pass", ("f",))
    assert run("def f(x): raise ValueError", anything) == ("passed", "")
    assert run("import os\ndef f(x): os._exit(0)", anything) == ("crashed", "exit 0 before the tests were done")


HUMANEVAL = {
    "prompt": 'def f(x):\n    """Return the square."""\n',
    "test": "def check(candidate):\n    assert candidate(2) == 4",
    "entry_point": "f",
    "canonical_solution": "    return x * x\n",
}
MBPP = {"test_list": ["assert f(2) == 4"], "test_setup_code": "", "challenge_test_list": ["assert f(3) == 9"]}


def test_the_checkers_pass_the_contract_of_checkers(host):
    asked = document(**HUMANEVAL)
    examples = [
        (asked, "    return x * x", "passed"),
        (asked, "    return x + 2", "passed"),
        (asked, "    return x", "failed"),
        (asked, "    return y", "crashed"),
        (asked, "Sure:\n```python\ndef f(x):\n    return x ** 2\n```\nThis is it.", "passed"),
        (asked, "\nclass Unfinished(", "crashed"),
    ]
    check_checker(host.checkers["code"], examples)
    assert host.checkers["code"].executes_code
    assert host.checkers["code"].prepare() == ()


def test_strong_tests_find_what_weak_ones_do_not():
    asked = document(**MBPP)
    assert code(asked, "def f(x): return x + 2").outcome == "passed"
    assert code_strong(asked, "def f(x): return x + 2").outcome == "failed"
    assert code_strong(asked, "def f(x): return x * x").outcome == "passed"
    stronger = document(**HUMANEVAL, strong_test="assert f(3) == 9")
    assert code_strong(stronger, "    return x + 2").outcome == "failed"
    with pytest.raises(TaskError, match="document 7 has no strong tests"):
        code_strong(document(**HUMANEVAL), "")


def test_documents_that_cannot_be_checked_are_named():
    with pytest.raises(TaskError, match="document 7 has no tests; expected attributes test and entry_point"):
        code(document(prompt="x"), "")
    with pytest.raises(TaskError, match="document 7: its tests are not valid Python"):
        code(document(test_list="assert ("), "")
    with pytest.raises(TaskError, match="document 7: its tests are not valid Python"):
        code(document(test="def check(", entry_point="f"), "")
    wrong = document(**{**HUMANEVAL, "canonical_solution": "    return x\n"})
    with pytest.raises(TaskError, match=r"document 7: its own solution has failed \(assert candidate\(2\) == 4\)"):
        code(wrong, "    return x * x\n")


def test_a_slow_reference_gives_time_to_the_others():
    slow = "    from time import process_time\n    while process_time() < 0.6: pass\n    return x * x"
    asked = document(**{**HUMANEVAL, "canonical_solution": slow})
    limits = _limits("7", _reference(asked.attributes), find_tests(asked))
    assert 6 <= limits.cpu < 12
    assert limits.wall >= 3 * limits.cpu


def test_a_function_may_be_named_as_one_of_python():
    assert find_tests(document(test_list="assert sum(1, 2) == 3")).entry_points == ("sum",)
    assert find_tests(document(test_list="assert set(f(1)) == {1}")).entry_points == ("f",)
    assert program_of({}, "x ``` y") == "x ``` y"


def humaneval() -> list[Doc]:
    path = published("tasks", "humaneval", "HumanEval.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [replace(document(**row), doc_id=row["task_id"]) for row in rows]


def mbpp() -> list[Doc]:
    rows = [json.loads(line) for line in published("tasks", "mbpp", "mbpp.jsonl").read_text().splitlines()]
    return [replace(document(**row), doc_id=str(row["task_id"])) for row in rows]


def outcomes(docs: list[Doc], texts: list[str]) -> Counter[str]:
    with ThreadPoolExecutor(2) as threads:
        return Counter(outcome.outcome for outcome in threads.map(code, docs, texts))


CONTAINER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == 0  # namespaces of users, and below it are none
for name, text in (("setgroups", "deny"), ("uid_map", f"{USER} {USER} 1"), ("gid_map", f"{USER} {USER} 1")):
    open(f"/proc/self/{name}", "w").write(text)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.soak
@pytest.mark.parametrize(("walls", "place"), [("namespaces", ""), ("landlock", ""), ("landlock", "container")])
def test_no_probe_breaks_out_where_the_harness_runs_without_rights(walls, place):
    """As a user who may do nothing, also where namespaces cannot be made, with an interpreter that all can read."""
    script = (
        "import json, harness_plugins.checkers.probes as p\n"
        f"print(json.dumps(p.broken(p.Sandbox({walls!r}))))\nprint(p.find_sandbox().walls)"
    )
    expected = "[]\nlandlock\n" if place else "[]\nnamespaces\n"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "harness_plugins").symlink_to(REPOSITORY / "plugins")
        libraries = Path(np.__file__).parent.parent
        environment = {"PYTHONPATH": f"{folder}:{REPOSITORY}:{libraries}", "PATH": os.environ["PATH"]}
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        number = 65534 if os.geteuid() == 0 else os.geteuid()
        user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        before = ["-c", f"USER = {number}\n{CONTAINER}"] if place else []
        for interpreter in (sys.executable, f"/usr/bin/{version}"):
            command = [interpreter, *before, "-c", script]
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **user)
            except (PermissionError, FileNotFoundError):  # it lies where only its owner can go
                continue
            assert done.stdout == expected, done.stderr
            return
    pytest.skip("there is no interpreter that everybody can read")


@pytest.mark.soak
def test_all_solutions_of_humaneval_pass_and_no_stub_does():
    docs = humaneval()
    assert outcomes(docs, [doc.attributes["canonical_solution"] for doc in docs]) == {"passed": 164}
    stubs = outcomes(docs, ["    pass\n"] * 164)
    assert stubs["passed"] + stubs["timed out"] == 0


@pytest.mark.soak
def test_all_solutions_of_mbpp_pass_and_no_stub_does():
    docs = mbpp()
    assert outcomes(docs, [doc.attributes["code"] for doc in docs]) == {"passed": 974}
    stubs = ["\n".join(f"def {name}(*_): pass" for name in find_tests(doc).entry_points) for doc in docs]
    assert outcomes(docs, stubs)["passed"] == 0


def test_solutions_that_were_published_pass_and_stubs_do_not():
    docs = humaneval()[::20]
    assert outcomes(docs, [doc.attributes["canonical_solution"] for doc in docs]) == {"passed": 9}
    assert outcomes(docs, ["    pass\n"] * 9)["passed"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="already without rights")
def test_a_program_run_by_root_is_not_root_outside():
    program = (
        "import ctypes, time\nctypes.CDLL(None).prctl(15, b'whose', 0, 0, 0)\ntime.sleep(1)\ndef f(x): return x * x"
    )
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(run, program)
        users = set()
        while not done.done():
            processes = [path for path in Path("/proc").glob("[0-9]*/comm") if _read(path) == "whose"]
            users |= {
                uid for path in processes for uid in re.findall(r"^Uid:\s+(\d+)", _read(path.with_name("status")), re.M)
            }
            time.sleep(0.05)
    assert done.result() == ("passed", "")
    assert users
    assert "0" not in users
