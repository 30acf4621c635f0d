"""What the authors of laws and of analyses use: laws and the solver behind fits. Re-exports only."""

from harness.fitting.laws import bounds, curve, steps_of
from harness.fitting.solver import Effort, Problem, minimise
from harness.types.laws import ComposedLaw, Fitted, FormulaLaw, Law, ProcedureLaw, Traits

__all__ = [
    "ComposedLaw",
    "Effort",
    "Fitted",
    "FormulaLaw",
    "Law",
    "Problem",
    "ProcedureLaw",
    "Traits",
    "bounds",
    "curve",
    "minimise",
    "steps_of",
]
