"""Which shell commands a person should look at first: a hint for those who ask, and no wall against those who hide."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence

__all__ = ["danger_of"]

MAX_COMMAND = 16_384
"""Longest command, in characters, that is looked through."""

MAX_DEPTH = 4
"""How many scripts within scripts (`bash -c '…'`, `$(…)`) are looked through."""


def danger_of(command: str) -> str | None:
    """What is dangerous about a shell command; None if nothing was found.

    It knows the usual ways to destroy a file system, a machine or a history, through quotes, wrappers such as `sudo`
    and `xargs`, and scripts within scripts. What a program does once it runs, and what is hidden well, it cannot know.

    >>> danger_of("cd build && sudo rm -rf /")
    'it runs as another user (sudo)'
    >>> danger_of("rm -r ./build") is None
    True
    """
    if len(command) > MAX_COMMAND:
        return f"it is longer than {MAX_COMMAND:,} characters and was not looked through"
    return _danger(command, MAX_DEPTH)


def _danger(script: str, depth: int) -> str | None:
    if _FORK_BOMB.search("".join(script.split())):
        return "it starts copies of itself without end"
    words: list[str] = []
    for word in [*_words(script), ";"]:
        if not set(word) <= _PUNCTUATION:
            words.append(word)
            if depth and any(letter in word for letter in " \n;|&`"):
                found = _danger(word, depth - 1)
                if found:
                    return found
            continue
        found = _danger_of_words(words)
        if found:
            return found
        if "<(" in word and words and _base(words[-1]) in _READERS:
            return f"it feeds a program to {_base(words[-1])}"
        if ">" in word:
            words = [">"]
        elif "|" in word and "||" not in word:
            words = ["|"]
        else:
            words = []
    return None


def _danger_of_words(words: Sequence[str]) -> str | None:
    """What is dangerous about one command without its separators; the first word may be the `>` or `|` before it."""
    if words and words[0] == ">":
        target = words[1] if len(words) > 1 else ""
        if _DEVICE.match(target) or _SYSTEM.match(target):
            return f"it writes over {target}"
    if len(words) > 1 and words[0] == "|" and _base(words[1]) in _SHELLS:
        return f"it feeds a program to {_base(words[1])}"
    for position, word in enumerate(words):
        program = _base(word)
        rest = words[position + 1 :]
        check = _CHECKS.get(program) or (_CHECKS["mkfs"] if program.startswith("mkfs.") else None)
        if check is not None and not (position and _base(words[position - 1]) in ("git", "docker", "man", "which")):
            found = check(program, rest)
            if found:
                return found
    return None


def _words(script: str) -> Iterator[str]:
    """The words of a script and the separators between them."""
    script = script.replace("\\\n", " ").replace("$(", ";(")
    reader = shlex.shlex(script, posix=True, punctuation_chars=";()<>|&\n`")
    reader.whitespace = " \t\r"
    reader.whitespace_split = True
    reader.commenters = ""
    words: list[str] = []
    try:
        words.extend(reader)
    except ValueError:  # a quote is open: then what the text has, without its quotes
        words = re.split(r"[ \t\r\"']+|([;()<>|&\n`]+)", script)
    return (word for word in words if word)


def _base(word: str) -> str:
    return word.rpartition("/")[2]


def _remove(program: str, rest: Sequence[str]) -> str | None:
    flags = [word for word in rest if word.startswith("-") and word != "-"]
    recursive = any(word == "--recursive" or (word[1:2] != "-" and set(word) & {"r", "R"}) for word in flags)
    targets = [word for word in rest if not word.startswith("-")]
    wide = next((word for word in targets if _is_wide(word)), None)
    if recursive and wide is not None:
        return f"it deletes {wide} with all that is in it"
    if recursive and not targets:
        return "it deletes directories that are not named here"
    return "it deletes without the guard of /" if "--no-preserve-root" in flags else None


def _is_wide(target: str) -> bool:
    """Whether a target may be more than a directory of the work at hand."""
    path = target.rstrip("/") or "/"
    if path in (".", "..", "*", "./*", ".*") or path.startswith(("~", "../")) or "/../" in path or path.endswith("/.."):
        return True
    if "$" in path or "`" in path:
        return True
    return path.startswith("/") and not re.fullmatch(r"/(?:var/)?tmp/[^*?]+", path)


def _find(program: str, rest: Sequence[str]) -> str | None:
    wide = next((word for word in rest if _is_wide(word) and word != "."), None)
    deletes = "-delete" in rest or any(_base(word) == "rm" for word in rest)
    return f"it deletes what it finds in {wide}" if wide is not None and deletes else None


def _owned(program: str, rest: Sequence[str]) -> str | None:
    recursive = any(word == "--recursive" or (word.startswith("-") and "R" in word) for word in rest)
    wide = next((word for word in rest if _is_wide(word) and word != "."), None)
    return f"it changes the rights of {wide} with all that is in it" if recursive and wide is not None else None


def _copy_blocks(program: str, rest: Sequence[str]) -> str | None:
    target = next((word[3:] for word in rest if word.startswith("of=")), "")
    return f"it writes over {target}" if _DEVICE.match(target) or _SYSTEM.match(target) else None


def _kill(program: str, rest: Sequence[str]) -> str | None:
    return "it ends all processes that it may" if "-1" in rest[1:] or "1" in rest else None


def _write_copy(program: str, rest: Sequence[str]) -> str | None:
    target = next((word for word in rest if _DEVICE.match(word) or _SYSTEM.match(word)), None)
    return f"it writes over {target}" if target is not None else None


def _copy(program: str, rest: Sequence[str]) -> str | None:
    return _write_copy(program, rest[-1:])


def _run(program: str, rest: Sequence[str]) -> str | None:
    fed = "-c" in rest and any(word.startswith((";(", "`")) for word in rest)  # `$(` has become `;(`
    return f"it feeds a program to {program}" if fed else None


def _git(program: str, rest: Sequence[str]) -> str | None:
    words = set(rest)
    if "push" in words and (words & {"-f", "--force", "--mirror", "--delete"} or any(w.startswith("+") for w in rest)):
        return "it writes over a history that others have"
    if (
        {"reset", "--hard"} <= words
        or ("clean" in words and any(_has_force(word) for word in rest))
        or ("." in words and words & {"checkout", "restore"})
        or ("stash" in words and words & {"drop", "clear"})
    ):
        return "it throws away work that is in no commit"
    return None


def _has_force(word: str) -> bool:
    return word == "--force" or (word.startswith("-") and not word.startswith("--") and "f" in word)


_PUNCTUATION = set(";()<>|&\n`")
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "ksh", "fish", "python", "python3", "perl", "ruby", "node"})
_READERS = _SHELLS | {"source", "."}
_DEVICE = re.compile(r"/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk|mapper/|md\d|loop)")
_SYSTEM = re.compile(r"/(?:etc|boot|bin|sbin|lib|lib64|usr|proc|sys)(?:/|$)|.*/\.ssh/|~/\.(?:ssh|bash|profile|zsh)")
_FORK_BOMB = re.compile(r"([\w:.]{1,20})\(\)\{\1\|\1&\}")
_CHECKS: dict[str, Callable[[str, Sequence[str]], str | None]] = {
    "rm": _remove,
    "find": _find,
    "chmod": _owned,
    "chown": _owned,
    "dd": _copy_blocks,
    **dict.fromkeys(("tee", "truncate", "mv"), _write_copy),
    **dict.fromkeys(("cp", "install", "ln"), _copy),
    **dict.fromkeys(_SHELLS, _run),
    "kill": _kill,
    "git": _git,
    "mkfs": lambda program, rest: "it makes a new file system in place of an old one",
    "wipefs": lambda program, rest: "it wipes a file system",
    "shred": lambda program, rest: "it wipes files",
    **dict.fromkeys(("fdisk", "parted", "sfdisk"), lambda program, rest: "it divides a disk anew" if rest else None),
    **dict.fromkeys(("sudo", "su", "doas"), lambda program, rest: f"it runs as another user ({program})"),
    **dict.fromkeys(("shutdown", "reboot", "halt", "poweroff"), lambda program, rest: "it stops the machine"),
    "crontab": lambda program, rest: "it deletes all planned jobs" if "-r" in rest else None,
}
