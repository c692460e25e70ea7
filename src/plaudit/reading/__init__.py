"""Files and datasets into records; errors that name file, line and field."""

from plaudit.reading.loading import held_out, load
from plaudit.reading.writing import write_jsonl

__all__ = ["held_out", "load", "write_jsonl"]
