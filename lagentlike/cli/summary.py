"""`lagentlike summary`: what an agent is made of."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .common import load_unit

__all__ = ["add_options", "main"]

NAME = "summary"
HELP = """show what an agent is made of

Prints the tree as repr() does and the table of summary(): classes, models, tools, calls, and what each session
remembers and cost. No model is called."""

EXAMPLES = """examples:
  lagentlike summary my_agents.py:coder
  lagentlike summary my_agents:coder --mermaid > coder.mmd
  lagentlike summary my_agents.py:coder --state memory.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "agent", help="module:name or file.py:name of an agent, or of a class or function that makes one"
    )
    parser.add_argument("--mermaid", action="store_true", help="print a Mermaid flowchart instead")
    parser.add_argument("--state", type=Path, metavar="FILE", help="load what the agent remembers first")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    agent = load_unit(options.agent)
    if options.state is not None:
        agent.load(options.state)
    shown = agent.to_mermaid() if options.mermaid else f"{agent!r}\n\n{agent.summary()}"
    sys.stdout.write(shown + "\n")
    return 0
