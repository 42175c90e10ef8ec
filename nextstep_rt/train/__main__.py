"""`python -m nextstep_rt.train`: everything from nothing, each stage from where it stopped."""

import os

# Before torch starts its threads: on a busy machine two of them can be left on one core, each spinning for the other.
os.environ.setdefault("OMP_PROC_BIND", "true")

from .command import app

app()
