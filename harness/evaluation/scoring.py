"""Scoring of the choices of cells: claims, requests, and the records built from results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from filelock import BaseFileLock

from harness.errors import EngineError
from harness.evaluation.engine_contract import expect_score
from harness.evaluation.tokens import EncodedTask
from harness.host.distribution import version
from harness.store.choice_cells import Records
from harness.store.identity import CellId
from harness.store.token_cells import Tokens
from harness.types import Bools, ChoiceScore, Floats, Request, Task
from harness.types.json import JsonObject

ROUNDING = 1e-3  # nats per token; the largest log-probability above 0 that rounding may cause


@dataclass
class Claim:
    """A cell that this process has locked."""

    task: Task
    cell: CellId
    lock: BaseFileLock


@dataclass
class Tally:
    """The records of a cell under construction.

    `greedy`: its metric needs to know which continuations are greedy. `keep_tokens`: log-probabilities of tokens are
    stored.
    """

    claim: Claim
    encoded: EncodedTask
    greedy: bool = True
    keep_tokens: bool = False
    token_logprobs: dict[int, tuple[Floats, ...]] = field(default_factory=dict)  # of each request, by continuation
    left: int = field(init=False)
    logprob: Floats = field(init=False)
    unconditional: Floats | None = field(init=False)
    is_greedy: Bools | None = field(init=False)
    came: Bools = field(init=False)  # the requests whose results came

    def __post_init__(self) -> None:
        rows = len(self.encoded.n_tokens)
        self.left = len(self.encoded.requests)
        self.came = np.zeros(self.left, dtype=np.bool_)
        self.logprob = np.zeros(rows)
        self.unconditional = np.zeros(rows) if self.task.unconditional else None
        self.is_greedy = np.ones(rows, dtype=np.bool_)

    @property
    def documents(self) -> int:
        """Return the number of documents completed by the last result; they sum to those of the cell."""
        total, docs = len(self.encoded.requests), len(self.task.docs)
        done = total - self.left
        return docs * done // total - docs * (done - 1) // total

    @property
    def task(self) -> Task:
        """Return the task of the cell."""
        return self.claim.task

    def add(self, request: int, score: ChoiceScore) -> None:
        """Add one result to its rows; raise EngineError for a second result of a request, and for another shape."""
        if self.came[request]:
            raise EngineError(f"the engine returned two scores with the key {score.key!r}; expected one per request")
        expect_score(score, len(self.encoded.requests[request].continuations))
        self.came[request] = True
        self.left -= 1
        piece = self.encoded.pieces[request]
        if piece.unconditional and self.unconditional is not None:
            self.unconditional[piece.rows] += score.logprobs[piece.which]
            return
        self.logprob[piece.rows] += score.logprobs[piece.which]
        if self.keep_tokens:
            self.token_logprobs[request] = score.tokens or ()
        if score.is_greedy is None or self.is_greedy is None:
            self.is_greedy = None
        else:
            self.is_greedy[piece.rows] &= score.is_greedy[piece.which]

    def records(self, provenance: JsonObject) -> Records:
        """Return the finished records; raise EngineError for a log-probability that is not finite or is above 0."""
        for column in (self.logprob, self.unconditional):
            if column is None:
                continue
            wrong = ~np.isfinite(column) | (column > ROUNDING * self.encoded.n_tokens)
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                where = f"document {self.encoded.doc_ids[row]}, choice {self.encoded.choices[row]}"
                raise EngineError(
                    f"{where}: the log-probability is {column[row]}; expected a finite number of nats, at most 0; "
                    "nothing is stored for this task"
                )
        counts = {"truncated": int(self.encoded.truncated.sum()), "joined": self.encoded.joined}
        return Records(
            doc_ids=self.encoded.doc_ids,
            choices=self.encoded.choices,
            logprob=self.logprob,
            n_tokens=self.encoded.n_tokens,
            truncated=self.encoded.truncated,
            logprob_unconditional=self.unconditional,
            is_greedy=self.is_greedy,
            provenance={**provenance, **counts, "harness": version()},
        )

    def tokens(self) -> Tokens | None:
        """Return the tokens of all rows where they are kept; raise EngineError unless they add up to the records."""
        if not self.keep_tokens:
            return None
        rows = range(len(self.encoded.n_tokens))
        ids, logprobs = [list[int]() for _ in rows], [list[Floats]() for _ in rows]
        for number, tokens in sorted(self.token_logprobs.items()):  # windows of a text in their order
            piece, continuations = self.encoded.pieces[number], self.encoded.requests[number].continuations
            if len(tokens) != len(continuations):
                raise EngineError(f"the engine returned tokens of {len(tokens)} of {len(continuations)} continuations")
            for row, which in zip(piece.rows, piece.which, strict=True):
                ids[row] += continuations[which]
                logprobs[row].append(tokens[which])
        cell_tokens = Tokens.of(ids, [np.concatenate(windows) for windows in logprobs])
        if why := cell_tokens.differs(self.logprob, self.encoded.n_tokens):
            raise EngineError(f"the engine returned log-probabilities of tokens, and {why}")
        return cell_tokens


def requests_of(tallies: Iterable[Tally], begun: list[Tally]) -> Iterator[Request]:
    """Chain the requests of several cells, appending each cell to `begun`; keys are (cell, request)."""
    for number, tally in enumerate(tallies):
        begun.append(tally)
        for request, piece in zip(tally.encoded.requests, tally.encoded.pieces, strict=True):
            tokens = tally.keep_tokens and not piece.unconditional
            yield replace(request, key=(number, request.key), cell=number, greedy=tally.greedy, tokens=tokens)


def added(score: ChoiceScore, begun: Sequence[Tally]) -> Tally:
    """Add a result to the cell that it belongs to, and return the cell; raise EngineError for an unknown key."""
    if not isinstance(score, ChoiceScore):
        raise EngineError(f"the engine returned {score!r}; expected a harness.ChoiceScore")
    match score.key:
        case (int(number), int(request)) if 0 <= number < len(begun) and 0 <= request < len(
            begun[number].encoded.requests
        ):
            begun[number].add(request, score)
            return begun[number]
    raise EngineError(f"the engine returned a score with the key {score.key!r}, which was not requested")


def check_all_came(tallies: Sequence[Tally], unread: Iterator[Request]) -> None:
    """Raise EngineError if the engine returned fewer results than requested, or left requests unread."""
    if next(unread, None) is not None:
        raise EngineError("the engine stopped before it read all requests; expected one result per request")
    for tally in tallies:
        if tally.left:
            raise EngineError(
                f"{tally.task.name}: {tally.left} of {len(tally.encoded.requests)} results are missing; "
                "expected one per request"
            )
