"""`python -m nextstep_rt.train.findings`: all parts, each from where it stopped, then the report."""

import os

# Before torch starts its threads: on a busy machine two of them can be left on one core, each spinning for the other.
os.environ.setdefault("OMP_PROC_BIND", "true")

from .command import app

app(prog_name="python -m nextstep_rt.train.findings")
