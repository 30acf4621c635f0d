"""Programs that pass their tests without a correct answer if the tests run in the same process."""

# ruff: noqa: E501  a program is a line

from __future__ import annotations

SQUARES = "assert f(2) == 4\nassert f(-3) == 9"
NEAR = "assert abs(f(2) - 4) < 1e-6\nassert abs(f(-3) - 9) < 1e-6"
ANY = "class Any({base}):\n    def __{name}__(self, *_): return {value}\n    __hash__ = None\ndef f(x): return Any()\n"


def _any(name: str, base: str = "", value: str = "True") -> str:
    return ANY.format(base=base, name=name, value=value)


CHEATS: dict[str, tuple[str, str]] = {
    "exits": ("import os\nos._exit(0)", SQUARES),
    "exits_politely": ("raise SystemExit(0)", SQUARES),
    "exits_in_the_call": ("import os\ndef f(x): os._exit(0)", SQUARES),
    "exits_politely_in_the_call": ("def f(x): raise SystemExit(0)", SQUARES),
    "exits_at_the_end": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0", SQUARES),
    "exits_on_errors": ("import os, sys\nsys.excepthook = lambda *_: os._exit(0)\ndef f(x): return 0", SQUARES),
    "exits_in_a_thread": (
        "import os, threading, time\ndef f(x):\n    threading.Thread(target=os._exit, args=(0,)).start()\n    time.sleep(1)",
        SQUARES,
    ),
    "exits_on_a_signal": (
        "import os, signal, time\nsignal.signal(14, lambda *_: os._exit(0))\ndef f(x): signal.alarm(1); time.sleep(2)",
        SQUARES,
    ),
    "exits_in_a_finaliser": (
        "import os\nclass Late:\n    def __del__(self): os._exit(0)\nlate = Late()\ndef f(x):\n    global late\n    late = None",
        SQUARES,
    ),
    "equals_everything": (_any("eq"), SQUARES),
    "is_a_number_that_equals_everything": (_any("eq", "int"), SQUARES),
    "is_a_text_that_equals_everything": (_any("eq", "str"), "assert f(2) == 'four'"),
    "is_a_list_that_equals_everything": (_any("eq", "list"), "assert f(2) == [4]"),
    "is_a_dict_that_equals_everything": (_any("eq", "dict"), "assert f(2) == {2: 4}"),
    "is_in_a_list_and_equals_everything": (_any("eq") + "g = f\ndef f(x): return [g(x)]", "assert f(2) == [4]"),
    "differs_from_nothing": (_any("ne", value="False"), "assert not f(2) != 4"),
    "contains_everything": (_any("contains"), "assert 4 in f(2)"),
    "is_less_than_everything": (_any("lt"), "assert f(2) < -1e9"),
    "is_near_to_everything": (
        "class Near(float):\n    def __sub__(self, _): return self\n    def __abs__(self): return 0.0\ndef f(x): return Near()",
        NEAR,
    ),
    "brings_its_own_abs": ("def abs(_): return 0\ndef f(x): return 1", NEAR),
    "brings_its_own_all": (
        "def all(_): return True\ndef f(x): return 0",
        "assert all(f(x) == x * x for x in range(3))",
    ),
    "changes_abs": ("import builtins\nbuiltins.abs = lambda _: 0\ndef f(x): return 1", NEAR),
    "changes_len": ("import builtins\nbuiltins.len = lambda _: 4\ndef f(x): return []", "assert len(f(2)) == 4"),
    "changes_sorted": (
        "import builtins\nbuiltins.sorted = lambda _: [1, 2]\ndef f(x): return 0",
        "assert sorted(f(2)) == [1, 2]",
    ),
    "changes_isclose": (
        "import math\nmath.isclose = lambda *_: True\ndef f(x): return 0",
        "import math\nassert math.isclose(f(2), 4)",
    ),
    "changes_a_module": (
        "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=max)\ndef f(x): return 1",
        "import math\nassert math.isclose(f(2), 4)",
    ),
    "ends_the_loop_of_the_tests": ("def f(x): raise StopIteration", "assert all(map(f, [1, 2]))"),
    "reads_the_tests_above": (
        "import sys\ndef f(x):\n    seen = sys._getframe(1).f_code.co_consts\n    return seen[seen.index(x) + 1]",
        SQUARES,
    ),
    "skips_the_tests": (
        "import os, sys\ndef f(x):\n    sys.settrace(lambda *_: os._exit(0))\n    return g()\ndef g(): pass",
        SQUARES,
    ),
}
