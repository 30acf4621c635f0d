"""The open engine: checkpoints of its shape are swapped in, others open a new engine."""

from __future__ import annotations

from contextlib import ExitStack

from harness.checkpoints.digests import FileStates, checkpoint_digest, state_of
from harness.errors import EngineError, FamilyError
from harness.evaluation.plan import Job, Setup
from harness.types import Engine


class EngineSlot:
    """The open engine; checkpoints of its shape are swapped in, others open a new engine."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.stack = ExitStack()
        self.engine: Engine | None = None
        self.shape = ""
        self.digest = ""

    def serve(self, job: Job) -> Engine:
        """Return an engine that serves the job's checkpoint."""
        if self.engine is not None and job.digest == self.digest:
            return self.engine
        before = self.expect_planned(job)
        engine = self._load(job)
        if state_of(job.folder, job.checkpoint.adapter) != before:
            self.close()
            raise _changed(job, "while it was loaded")
        self.shape, self.digest = job.info.shape, job.digest
        return engine

    def expect_planned(self, job: Job) -> FileStates:
        """Return the state of a checkpoint's files; raise EngineError if they changed since the plan."""
        try:
            state = state_of(job.folder, job.checkpoint.adapter)
        except (FamilyError, OSError) as error:
            self.close()
            raise EngineError(
                f"files of {job.folder} vanished since the plan was made: {error}; restore them, and run harness eval "
                "again"
            ) from error
        if state != job.files:
            self.close()  # it may have read the changed files ahead
            if checkpoint_digest(job.folder, adapter=job.checkpoint.adapter) != job.digest:
                raise _changed(job, "since the plan was made")
        return state

    def _load(self, job: Job) -> Engine:
        if self.engine is not None and job.info.shape and job.info.shape == self.shape:
            self.digest = ""  # the weights are undefined after a failed swap
            self.engine.swap(job.checkpoint, job.folder)
        else:
            self.close()
            manager = self.setup.engine.open_engine(job.checkpoint, job.folder, **self.setup.options)
            engine = self.stack.enter_context(manager)
            if not isinstance(engine, Engine):
                raise EngineError(f"engine {self.setup.engine.name!r} opened {engine!r}; expected a harness.Engine")
            self.engine = engine
        return self.engine

    def prefetch(self, job: Job | None) -> None:
        """Let the engine read the next checkpoint ahead, if it will be swapped in."""
        if self.engine is not None and job is not None and job.info.shape == self.shape != "":
            try:
                self.engine.prefetch(job.checkpoint, job.folder)
            except Exception:  # noqa: S110  # only a hint: an error is reported when the checkpoint is loaded
                pass

    def close(self) -> None:
        """Free the engine."""
        self.engine, self.digest = None, ""
        self.stack.close()


def _changed(job: Job, when: str) -> EngineError:
    return EngineError(
        f"{job.folder} changed {when}: its files no longer have the digest {job.digest}; "
        "run harness eval again after all writing has ended"
    )
