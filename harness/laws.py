"""Public names for laws and analyses: laws, fits and their solver. Re-exports only."""

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
