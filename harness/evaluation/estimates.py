"""Estimated seconds of the cells of a plan: shards of it, and the load of workers."""

from __future__ import annotations

from harness.checkpoints.families import active_params
from harness.checkpoints.flops import inference_flops
from harness.errors import UsageError
from harness.evaluation.plan import Plan
from harness.evaluation.schedule import Work, shard
from harness.evaluation.schedule_simulation import simulate
from harness.tables import Table
from harness.types import Task

FLOPS_PER_SECOND = {"GPU": 2e14, "CPU": 1e11}  # of one worker, for estimates: about those of one H100 and of one core
LOAD_BYTES = 2e9  # of weights that are read per second
START = {"GPU": 60.0, "CPU": 5.0}  # seconds until an engine of another shape is ready
CELL = 0.05  # seconds of a cell that do not depend on the model
CHARACTERS = 4.0  # of a token


def works_of(plan: Plan, device: str, *, everything: bool = False) -> list[Work]:
    """Return the estimated seconds of the missing cells of a plan, or of all cells, by checkpoint.

    Tokens are estimated from characters; contexts count once.
    """
    seen_cells = set() if everything else set(plan.already_stored)
    tokens = {task.fingerprint: _tokens(task, plan.samples) for job in plan.jobs for task, _ in job.cells}
    works = []
    for number, job in enumerate(plan.jobs):
        params, cells = job.checkpoint.params or 0, dict[str, float]()
        for task, cell in job.cells:
            if cell.name not in seen_cells:
                seen_cells.add(cell.name)
                flops = inference_flops(active_params(job.checkpoint), tokens[task.fingerprint])
                cells[cell.name] = CELL + flops / FLOPS_PER_SECOND[device]
        works.append(Work(job.info.shape or str(number), cells, 4 * params / LOAD_BYTES))
    return works


def _tokens(task: Task, samples: int) -> float:
    read = sum(len(text) for doc in task.docs for text in (*doc.contexts, *doc.continuations)) / CHARACTERS
    if task.generation is None:
        return read
    return samples * (read + task.generation.max_tokens * len(task.docs))


def keep_shard(plan: Plan, text: str) -> None:
    """Keep only the jobs of one shard in a plan; `text` is I/N, such as 2/8. Raises UsageError for other texts."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8")
    jobs = shard(works_of(plan, "CPU", everything=True), int(number), int(of))
    plan.jobs = [plan.jobs[job] for job in jobs]
    if plan.failures:
        plan.notes.append(
            f"{len(plan.failures)} checkpoints failed before they were shared out, so that other processes may have "
            "other shards; run the command once more without --shard to compute what no shard had"
        )


def worker_table(plan: Plan, workers: int, device: str) -> Table:
    """Return the estimated seconds of every worker."""
    outcome = simulate(works_of(plan, device), workers, start=START[device])
    rows = [
        (str(worker), round(useful), round(loading))
        for worker, (useful, loading) in enumerate(zip(outcome.useful, outcome.loading, strict=True))
    ]
    about = f"Estimated for one {device} per worker at {FLOPS_PER_SECOND[device]:.0e} FLOP/s; the sweep takes about "
    about += f"{outcome.end:.0f} s, {100 * outcome.share:.0f} % of it on cells."
    columns = ("worker", "seconds on cells", "seconds to start and load")
    return Table("workers", "Workers", columns, tuple(rows), (about,))
