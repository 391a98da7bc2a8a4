"""The command line: parse, call the API, print."""

from spicenn.cli.app import main

__all__ = ["main"]
