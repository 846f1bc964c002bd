"""Chunks as documents, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from source_server.domain.chunk import Candidate, Chunk, ChunkFile, ChunkState, Failure, Holder, Lease
from source_server.stores.gate import Document

NO_INPUT = {"input": 0}  #: most reads do without


def holder_document(holder: Holder | None) -> Document | None:
    """How an assignment is stored."""
    # The order of the fields is part of an embedded document's identity in an index.
    return None if holder is None else {"container": holder.container, "life": holder.life}


def _value(value: Any) -> Any:
    if isinstance(value, ChunkState):
        return value.value
    if isinstance(value, Holder):
        return holder_document(value)
    if isinstance(value, ChunkFile):
        return asdict(value)
    if isinstance(value, tuple):
        return [asdict(item) for item in value]
    return value


_FIELDS = tuple(field.name for field in fields(Chunk) if field.name not in ("id", "rev"))


def difference(old: Chunk, new: Chunk) -> Document:
    """The fields in which a chunk is to change, but for `rev`."""
    return {name: _value(getattr(new, name)) for name in _FIELDS if getattr(new, name) != getattr(old, name)}


def chunk_document(chunk: Chunk) -> Document:
    """How a chunk is stored."""
    named = {"has_files": True} if chunk.files or chunk.input_file else {}
    return {
        "_id": chunk.id,
        "rev": chunk.rev,
        **{name: _value(getattr(chunk, name)) for name in _FIELDS},
        **named,
    }


def read_chunk(document: Document) -> Chunk:
    """A stored chunk, read with its input or without."""
    known: dict[str, Any] = {name: document[name] for name in _FIELDS if name in document}
    assigned = known.get("assigned")
    known["assigned"] = None if assigned is None else Holder(**assigned)
    known["state"] = ChunkState(known["state"])
    known["leases"] = tuple(Lease(**lease) for lease in known["leases"])
    known["candidates"] = tuple(Candidate(**candidate) for candidate in known["candidates"])
    known["failed"] = tuple(Failure(**failure) for failure in known["failed"])
    known["files"] = tuple(ChunkFile(**file) for file in known.get("files", ()))
    known["input_file"] = ChunkFile(**known["input_file"]) if known.get("input_file") else None
    return Chunk(id=document["_id"], rev=document["rev"], **known)
