"""The command line, `nextstep-rt`."""

from .app import app


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="nextstep-rt")


__all__ = ["app", "main"]
