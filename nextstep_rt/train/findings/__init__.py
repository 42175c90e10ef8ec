"""The paper's findings in miniature: each a question, a run on the world of shapes, a plot, numbers and a verdict.

`python -m nextstep_rt.train.findings` makes docs/findings.md from nothing but the code and a trained model.
"""
