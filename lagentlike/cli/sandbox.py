"""`lagentlike sandbox`: what the sandbox holds back on this machine."""

from __future__ import annotations

import argparse
import json
import sys

__all__ = ["add_options", "main"]

NAME = "sandbox"
HELP = """show what the sandbox holds back on this machine

Tries in sandboxes what they should hold back, about a hundred things, and says of each whether it is enforced. It takes
a few seconds. The exit code is 0 if everything is enforced that can be tried."""

EXAMPLES = """examples:
  lagentlike sandbox
  lagentlike sandbox --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from ..sandbox import report

    found = report()
    sys.stdout.write(f"{json.dumps(found.to_dict(), indent=2) if options.json else found}\n")
    return 1 if found.failures else 0
