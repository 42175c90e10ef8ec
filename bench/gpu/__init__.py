"""`python -m bench gpu`: builds, checks and measures the CUDA backend on this machine's GPU, in one command.

The command (cli.py) needs the standard library alone, so that it can say what is missing. Every stage that computes is
a process of its own (worker.py): it has a time limit, an error of the GPU ends it and nothing else, and what it had
measured by then is kept.
"""
