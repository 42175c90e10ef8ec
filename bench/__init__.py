"""Measurements of the runtime: `python -m bench --help`."""
