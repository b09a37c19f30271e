"""The text formats of tool calls, a family of models a file; `tool_format` finds them by name."""
