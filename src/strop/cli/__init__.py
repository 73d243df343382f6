"""The command line: each command parses, calls one library function, and prints."""

from strop.cli.app import app, main

__all__ = ["app", "main"]
