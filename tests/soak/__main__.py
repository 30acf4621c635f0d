"""Draw faults, count what became of them, and print the table."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.host import load_plugins
from harness.tables import Table
from tests.soak.suite import FAILURES, content, evaluate
from tests.store.test_store_faults import harm

LONGEST = 120  # seconds until a process counts as hanging
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
WORST = ("lost", "doubled", "silent", "traceback", "hang")


@dataclass
class Ended:
    """How a process ended: its status, an error of the harness, a traceback, a signal, or not at all."""

    how: str
    value: Any = None


class Process:
    """A function in a forked process."""

    def __init__(self, function: Callable[[], Any]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            os.write(writing, json.dumps(_outcome(function)).encode())
            os._exit(0)
        os.close(writing)
        self.reading, self.begun = reading, time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self) -> Ended:
        """Return how it ended; a process that hangs is killed."""
        with os.fdopen(self.reading, "rb") as stream:
            signal.signal(signal.SIGALRM, lambda *_: self.signal(signal.SIGUSR1))
            signal.alarm(LONGEST)
            answer = stream.read()
            signal.alarm(0)
        _, status = os.waitpid(self.pid, 0)
        if answer:
            return Ended(*json.loads(answer))
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return Ended("hang" if number == signal.SIGUSR1 else "killed", number)


def _outcome(function: Callable[[], Any]) -> tuple[str, Any]:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # of a process that ends soon
    try:
        return "done", function()
    except HarnessError as error:
        return "named", str(error)
    except KeyboardInterrupt:
        return "killed", int(signal.SIGINT)
    except BaseException:  # what this counts
        return "traceback", traceback.format_exc()


@dataclass
class Soak:
    """A store, the rows that it should have, and the faults that it sees."""

    folder: Path
    rng: random.Random

    def __post_init__(self) -> None:
        self.models, self.store = self.folder / "models", self.folder / "store"
        self._import()
        begun = time.monotonic()
        calm = Process(lambda: evaluate(self.folder / "calm", self.models)).wait()
        self.lasts = time.monotonic() - begun
        assert calm.how == "done", calm
        assert not calm.value["failures"], calm
        self.expected = Process(lambda: content(self.folder / "calm")).wait().value

    def _import(self) -> None:
        """Import what a run imports, so that the processes forked from this one begin with the suite itself.

        Otherwise each of them spends seconds in imports, and most faults hit a suite that has not begun.
        """

        def imported() -> list[str]:
            evaluate(self.folder / "imports", self.models)
            content(self.folder / "imports")
            return sorted(sys.modules)

        ended = Process(imported).wait()
        assert ended.how == "done", ended
        for name in ended.value:
            with suppress(ImportError):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()  # pages of what is imported stay shared

    def run(self, failure: str = "", at: int = 0, before: Callable[[], Any] = bool) -> Process:
        """Start the suite."""

        def start() -> Any:
            before()
            return evaluate(self.store, self.models, failure, at)

        return Process(start)

    def moment(self) -> None:
        """Wait for a moment in a run."""
        time.sleep(self.rng.uniform(0, 1.1 * self.lasts))

    # --- kinds of faults: each runs the suite, or finds it done, and returns how its processes ended ---------------

    def kill(self) -> list[Ended]:
        """Kill -9 at a random moment."""
        process = self.run()
        self.moment()
        process.signal(signal.SIGKILL)
        return [process.wait()]

    def signals(self) -> list[Ended]:
        """Another signal, or a stop and go on."""
        process = self.run()
        self.moment()
        if self.rng.random() < 0.25:
            process.signal(signal.SIGSTOP)
            time.sleep(0.05)
            process.signal(signal.SIGCONT)
        else:
            process.signal(self.rng.choice(SIGNALS))
        return [process.wait()]

    def full_disk(self) -> list[Ended]:
        """No file may be longer than some bytes, as on a full disk."""
        most = self.rng.randrange(0, 6_000)

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        return [self.run(before=limit).wait()]

    def engine(self) -> list[Ended]:
        """An engine or checker that raises, exits, dies, forgets or returns NaN."""
        return [self.run(self.rng.choice(FAILURES), self.rng.randrange(1, 30)).wait()]

    def two_drivers(self) -> list[Ended]:
        """Two processes on one store; now and then one of them is killed."""
        processes = [self.run(), self.run()]
        if is_killed := self.rng.random() < 0.5:
            self.moment()
            processes[0].signal(signal.SIGKILL)
        ended = [process.wait() for process in processes]
        written = sum(one.value["written"] for one in ended if one.how == "done")
        if not is_killed and written > self.expected["cells"]:
            ended.append(Ended("doubled", written))
        return ended

    def clock(self) -> list[Ended]:
        """The clock jumps by up to ten years, back or forth, in a run and in the times of files."""
        step, process = self.rng.uniform(-3e8, 3e8), self.run(before=self._jump)
        ended = process.wait()
        for file in self.store.rglob("*"):
            if file.is_file() and self.rng.random() < 0.5:
                os.utime(file, (max(0.0, time.time() + step),) * 2)
        return [ended]

    def _jump(self) -> None:
        true, begun, step = time.time, time.monotonic(), self.rng.uniform(-3e8, 3e8)
        time.time = lambda: true() + (step if time.monotonic() - begun > self.lasts / 2 else 0.0)

    def files(self) -> list[Ended]:
        """A file of a store that was whole: a bit flips, or it is cut, emptied, deleted, swapped or copied over."""
        shutil.copytree(self.folder / "calm", self.store)
        harm(self.store, self.rng)
        return []

    # --- what became of it -----------------------------------------------------------------------------------------

    def fault(self, kind: str) -> Counter[str]:
        """Do one fault, run the suite to its end, and count what is wrong."""
        shutil.rmtree(self.store, ignore_errors=True)
        counts, ended = Counter[str](), getattr(self, kind)()
        counts["survived"] += bool(ended) and all(one.how == "done" and not one.value["failures"] for one in ended)
        between = Process(lambda: content(self.store)).wait() if (self.store / "store.json").exists() else None
        if between and between.how == "done" and set(between.value["rows"]) - set(self.expected["rows"]):
            counts["silent"] += 1
        repaired = self.run().wait()
        if repaired.how == "named" or (repaired.how == "done" and repaired.value["failures"]):
            counts["second repair"] += 1
            repaired = self.run().wait()
        after = Process(lambda: content(self.store)).wait()
        for one in (*ended, *([between] if between else ()), repaired, after):
            counts[one.how] += one.how in ("traceback", "hang", "doubled")
            if one.how == "traceback":
                print(kind, one.value, file=sys.stderr, flush=True)
        rows = after.value["rows"] if after.how == "done" else {}
        counts["lost"] += bool(set(self.expected["rows"]) - set(rows))
        counts["doubled"] += any(n > self.expected["rows"].get(row, n) for row, n in rows.items())
        counts["silent"] += bool(set(rows) - set(self.expected["rows"]))
        if any(counts[name] for name in WORST):
            print(kind, dict(counts), [ended, repaired, after.how, str(after.value)[:300]], file=sys.stderr, flush=True)
        return counts


KINDS = {
    "kill": "kill -9 at a random moment",
    "signals": "SIGTERM, SIGINT, SIGHUP, SIGQUIT, or stopped for a while",
    "full_disk": "no file may grow beyond a random length (EFBIG)",
    "engine": "engine or checker raises, exits, dies, forgets, returns NaN or a wrong key",
    "two_drivers": "two processes on one store, one killed in half of the cases",
    "clock": "the clock and the times of files jump by years",
    "files": "a file of a whole store flipped, cut, emptied, deleted, swapped, copied over or zeroed",
}


def soak(faults: int, seconds: float, seed: int) -> Table:
    """Do faults until there are so many or time is up; return their table."""
    rng, ends = random.Random(seed), time.monotonic() + seconds
    counts = {kind: Counter[str]() for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        run = Soak(Path(folder), rng)
        for number in range(faults):
            if time.monotonic() > ends:
                break
            kind = list(KINDS)[number % len(KINDS)]
            counts[kind] += Counter(faults=1) + run.fault(kind)
    columns = ("faults", "survived", "second repair", *WORST)
    rows = [(about, *(counts[kind][column] for column in columns)) for kind, about in KINDS.items()]
    rows.append(("all", *(sum(own[column] for own in counts.values()) for column in columns)))
    about = (
        f"Seed {seed}. Each fault hits a suite of six cells (four of choices, two of drawn texts) on a fake engine; "
    )
    about += "then the same command runs to its end, and every row is compared with those of an undisturbed run."
    words = "survived: the run with the fault ended without a failure. second repair: the first command after a fault "
    words += "named what it found, the second completed the store. silent: a row differs and nothing said so."
    return Table("faults", "What became of faults", ("fault", *columns), tuple(rows), (about, words))


def main() -> int:
    """Print the table; the status is 1 where something was lost, doubled, silent, a traceback, or did not end."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    table = soak(asked.faults, asked.minutes * 60, asked.seed)
    print(load_plugins().reporters["md"]([table]))
    return int(any(table.rows[-1][-len(WORST) :]))


if __name__ == "__main__":
    sys.exit(main())
