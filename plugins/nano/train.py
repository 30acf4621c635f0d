"""Train a nano family: generate its text, and write checkpoints and a family file for `harness eval`.

    python -m harness_plugins.nano.train aster OUT --sizes w32l2,w64l2
    harness eval OUT/aster.toml --tasks 'nano_*' -o STORE

    OUT/FAMILY.toml             the family file: steps and losses of every finished size
    OUT/FAMILY/SIZE/step-N/     a checkpoint in bfloat16, its tokenizer, and training.json: settings and loss

Checkpoints are saved at 1/16, 1/8, 1/4, 1/2 and all of the steps, each atomically. The same command continues an
interrupted training: it skips finished sizes and restarts the others. The five included sizes took about six minutes
on one data-centre GPU. Needs the extra `transformers`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import HarnessError, UsageError
from harness.errors import choose
from harness_plugins.nano.checkpoints import AVERAGED, Output, Snapshot
from harness_plugins.nano.models import DESIGNS, make_model
from harness_plugins.nano.recipe import COMMAND, SIZES, VOCAB, Size, Training, learning_rate
from harness_plugins.nano.text import cut, draw_tokens, train_tokenizer
from harness_plugins.nano.world import draw_world

Say = Callable[[str], None]  # receives one line of progress


def train_size(training: Training, size: Size, text: Any) -> Iterator[Snapshot]:
    """Train one size on text (rows, CONTEXT), on the text's device; yield a snapshot at each step to save.

    Save a snapshot before requesting the next one, because training continues with the same model. Raises HarnessError
    if the loss is not finite.
    """
    model = make_model(training, size).to(text.device)
    optimizer = _optimizer(model)
    batches = _batches(text, training)
    losses: deque[Any] = deque(maxlen=AVERAGED)
    for step in range(1, training.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training.steps, size.width)
        losses.append(_descend(model, optimizer, next(batches)))
        if step in training.kept:
            yield Snapshot(step, _mean(losses, step), model)


def _optimizer(model: Any) -> Any:
    """Return AdamW with weight decay on matrices only; the learning rate is set at every step."""
    import torch

    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=parameters[0].is_cuda)


def _batches(text: Any, training: Training) -> Iterator[Any]:
    """Yield batches (batch, CONTEXT) without end; shuffle each pass, and drop its incomplete last batch."""
    import torch

    rows, device = len(text), text.device
    generator = torch.Generator(device=device).manual_seed(training.seed + 1)
    while True:
        order = torch.randperm(rows, generator=generator, device=device)
        for start in range(0, rows - training.batch + 1, training.batch):
            yield text[order[start : start + training.batch]]


def _descend(model: Any, optimizer: Any, batch: Any) -> Any:
    """Take one step on a batch (b, CONTEXT); return its loss before the step, in nats per token."""
    import torch

    with torch.autocast(batch.device.type, torch.bfloat16):
        logits = model(input_ids=batch).logits[:, :-1]  # (b, CONTEXT - 1, VOCAB)
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB).float(), batch[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _mean(losses: deque[Any], step: int) -> float:
    mean = math.fsum(loss.item() for loss in losses) / len(losses)
    if not math.isfinite(mean):
        raise HarnessError(f"the loss at step {step} is {mean}: training diverged; this step is not saved")
    return mean


def train_family(
    training: Training,
    out: Path,
    sizes: Sequence[str] = tuple(SIZES),
    *,
    device: str = "cpu",
    workers: int = 1,
    say: Say = lambda _: None,
) -> Path:
    """Train the unfinished sizes, one after the other; return the family file.

    `say` receives progress messages. Raises UsageError for an unknown size and for a text of less than one batch, and
    FamilyError if `out` contains the family from a different training.
    """
    unknown = set(sizes) - set(SIZES)
    if unknown:
        raise UsageError(f"unknown size {choose(unknown)}; expected one or more of {', '.join(SIZES)}")
    output = Output(training, out)
    output.check()
    finished = [size for size in sizes if output.is_finished(size)]
    for size in finished:
        say(f"{training.family} {size} is finished; skipped")
    unfinished = [size for size in dict.fromkeys(sizes) if size not in finished]
    if unfinished:
        _train_sizes(output, unfinished, device=device, workers=workers, say=say)
    output.write_family()
    file: Path = output.family_file
    return file


def _train_sizes(output: Output, sizes: Sequence[str], *, device: str, workers: int, say: Say) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # transformers would show one bar per checkpoint
    training, tokenizer = output.training, train_tokenizer(draw_world())
    tokens = draw_tokens(training, tokenizer.backend_tokenizer.to_str(), workers=workers)
    say(f"{training.family} text: {len(tokens):,} tokens")
    text = torch.from_numpy(cut(tokens, training)).to(device)
    for size in sizes:
        start = time.perf_counter()
        for snapshot in train_size(training, SIZES[size], text):
            output.save(size, snapshot, tokenizer)
            seconds = time.perf_counter() - start
            say(f"{training.family} {size} step {snapshot.step}: loss {snapshot.loss:.4f}, {seconds:.0f} s")
        output.write_family()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train with the command line's options; return the exit status: 0, 1 (error) or 2 (usage error)."""
    asked = _parser().parse_args(arguments)
    training = Training(asked.family, asked.steps, asked.batch, asked.docs, asked.seed)
    how = {"device": asked.device or _best_device(), "workers": asked.workers, "say": _print}
    try:
        file = train_family(training, asked.out, asked.sizes.split(","), **how)
    except HarnessError as error:
        print(f"train: {error}", file=sys.stderr)  # noqa: T201  # a script
        return 2 if isinstance(error, UsageError) else 1
    _print(f"{file} is written; harness eval {file} --tasks 'nano_*' -o STORE")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Train a family of small language models.")
    parser.add_argument("family", choices=list(DESIGNS))
    parser.add_argument("out", type=Path, help="folder for the family file and the checkpoints; created if missing")
    parser.add_argument("--sizes", default=",".join(SIZES), help="sizes to train (default: %(default)s)")
    parser.add_argument("--steps", type=_positive, default=Training.steps, help="steps (default: %(default)s)")
    parser.add_argument(
        "--batch",
        type=_positive,
        default=Training.batch,
        help="sequences of 256 tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--docs", type=_positive, default=Training.docs, help="documents of the text (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=_positive, default=4, help="processes that generate the text (default: %(default)s)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="device (default: cuda if available)")
    parser.add_argument(
        "--seed", type=int, default=Training.seed, help="seed of initial weights and batch order (default: %(default)s)"
    )
    return parser


def _positive(text: str) -> int:
    """Read a number of at least 1; argparse names the option in the error."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a script


if __name__ == "__main__":
    sys.exit(main())
