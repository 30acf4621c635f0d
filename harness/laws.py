"""What the authors of laws and of analyses use: laws, fits, and the solver behind them. Re-exports only."""

from harness.fitting.laws import ComposedLaw, Fitted, FormulaLaw, Law, ProcedureLaw, bounds, curve
from harness.fitting.result import LawFit, load_fits
from harness.fitting.solver import Effort, Problem, minimise

__all__ = [
    "ComposedLaw",
    "Effort",
    "Fitted",
    "FormulaLaw",
    "Law",
    "LawFit",
    "Problem",
    "ProcedureLaw",
    "bounds",
    "curve",
    "load_fits",
    "minimise",
]
