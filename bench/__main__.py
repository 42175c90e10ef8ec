"""`python -m bench`. The command `gpu` needs the standard library, numpy and torch alone; the others typer and rich."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command that the arguments name; returns the exit status."""
    if sys.argv[1:2] == ["gpu"]:
        from .gpu.cli import main as gpu

        return gpu(sys.argv[2:])
    from .app import app

    app(prog_name="python -m bench")
    return 0


if __name__ == "__main__":
    sys.exit(main())
