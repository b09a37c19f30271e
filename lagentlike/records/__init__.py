"""Records of conversations in files: lossless ones, and the formats that others read, derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .chat import from_openai, read_openai, to_openai
    from .files import append_record, append_records, read_records, records_beside
    from .lines import append_lines, Damage, LineFile
    from .record import ConversationRecord
    from .rows import to_trajectory
    from .sharegpt import from_sharegpt, read_sharegpt, to_sharegpt

__all__ = [
    "ConversationRecord",
    "Damage",
    "LineFile",
    "append_lines",
    "append_record",
    "append_records",
    "from_openai",
    "from_sharegpt",
    "read_openai",
    "read_records",
    "read_sharegpt",
    "records_beside",
    "to_openai",
    "to_sharegpt",
    "to_trajectory",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "chat": ["from_openai", "read_openai", "to_openai"],
        "files": ["append_record", "append_records", "read_records", "records_beside"],
        "lines": ["Damage", "LineFile", "append_lines"],
        "record": ["ConversationRecord"],
        "rows": ["to_trajectory"],
        "sharegpt": ["from_sharegpt", "read_sharegpt", "to_sharegpt"],
    },
)
