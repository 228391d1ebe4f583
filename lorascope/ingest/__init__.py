"""What another trainer left behind becomes a run directory; the folder itself is never touched."""

from lorascope.ingest.adding import (
    add_base,
    add_dataset,
    add_logs,
    add_lora,
    add_samples,
    open_or_create,
)
from lorascope.ingest.folder import Ingested, ingest

__all__ = [
    "Ingested",
    "add_base",
    "add_dataset",
    "add_logs",
    "add_lora",
    "add_samples",
    "ingest",
    "open_or_create",
]
