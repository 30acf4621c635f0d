"""Faults drawn at random while a suite runs and after it: what is lost, doubled, silently wrong or a traceback counts.

python -m tests.soak --faults 1000 > results/benchmarks/faults.md        --minutes 60 ends earlier, --seed draws others
"""
