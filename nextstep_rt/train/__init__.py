"""How the embedded model is made: a procedural world, an image tokenizer, a generator and their evaluation.

Needs the extra: pip install "nextstep-rt[train]". `python -m nextstep_rt.train` trains everything from nothing.
"""
