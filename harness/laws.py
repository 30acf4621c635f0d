"""What the authors of laws and of analyses use: laws and the solver behind fits. Re-exports only."""

from harness.fitting.laws import ComposedLaw, Fitted, FormulaLaw, Law, ProcedureLaw, bounds, curve, steps_of
from harness.fitting.solver import Effort, Problem, minimise

__all__ = [
    "ComposedLaw",
    "Effort",
    "Fitted",
    "FormulaLaw",
    "Law",
    "Problem",
    "ProcedureLaw",
    "bounds",
    "curve",
    "minimise",
    "steps_of",
]
