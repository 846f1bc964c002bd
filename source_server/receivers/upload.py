"""Files that are sent: a table cut into chunks by rows or by size, or an archive in which each file is a chunk."""

from __future__ import annotations

import json
import tempfile
from typing import IO, Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from source_server.domain.job import placeholders
from source_server.domain.receiver import Arrival, Event, Offer, Receiver, task_id
from source_server.domain.refusal import BadInput
from source_server.domain.table import MAX_INPUT
from source_server.domain.wish import require_sound
from source_server.receivers.archive import ENDINGS, members
from source_server.receivers.fill import Data, Fill, lines_of
from source_server.receivers.http import JSONL
from source_server.receivers.plug import Plug, Template, require_bearer, sentence_of, template_body
from source_server.services.accounts.people import People
from source_server.services.files.blobs import Blobs
from source_server.web import wire
from source_server.web.bodies.task_wish import wish

TABLES = {".csv": "text/csv", ".jsonl": JSONL, ".parquet": "application/vnd.apache.parquet"}
TYPES = {**{kind: kind for kind in TABLES.values()}, "application/zip": "zip", "application/x-tar": "tar"}
MOST_ROWS = 100_000  #: rows of a chunk


class ChunkingBody(wire.Strict):
    """How what comes is cut: one of these."""

    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    bytes: Annotated[int, Field(ge=1024, le=MAX_INPUT)] | None = None
    files: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ChunkingBody:
        if sum(one is not None for one in (self.rows, self.bytes, self.files)) != 1:
            raise ValueError("say one of 'rows', 'bytes' and 'files'")
        return self


class UploadSettings(wire.Strict):
    """Of a receiver of the kind `upload`."""

    template: Template
    chunking: ChunkingBody = ChunkingBody(rows=1)

    @model_validator(mode="after")
    def _fitting(self) -> UploadSettings:
        if "rows_per_chunk" in self.template:
            raise ValueError("say 'chunking' in the place of the template's rows_per_chunk")
        with sentence_of():
            require_sound(wish("", template_body(filled_template(self), "a")))
        return self


class Upload(Plug[UploadSettings]):
    """`PUT /in/RECEIVER/NAME`: one file, one task; the same name and content again is the same."""

    name = "upload"
    slow = True
    streams = True
    settings_model = UploadSettings

    def __init__(self, fill: Fill, people: People, blobs: Blobs) -> None:
        self._fill, self._people, self._blobs = fill, people, blobs

    def admit(self, receiver: Receiver, arrival: Arrival) -> Offer:
        """The file, which is a blob of the project's owner from now on."""
        require_bearer(receiver, arrival)
        settings, named = self.settings_of(receiver), arrival.name[-300:]
        kind = kind_of(arrival)
        if (settings.chunking.files is None) is (kind in ("tar", "zip")):
            wanted = "a table" if settings.chunking.files is None else "a tar or zip archive"
            raise BadInput(f"This receiver takes {wanted}, not {kind}.")
        assert arrival.stream is not None
        owner, told = self._people.owner_of(receiver.project).id, arrival.headers.get("content-length", "")
        expected = int(told) if told.isascii() and told.isdigit() and len(told) < 16 else 0
        sha256, size = self._blobs.put_stream(owner, arrival.stream, expected=expected)
        if not size:
            raise BadInput("The file is empty.")
        about = {"name": named, "type": kind, "bytes": str(size)}
        return Offer(key=f"{named} {sha256}".strip(), blob=sha256, about=about)

    def handle(self, receiver: Receiver, event: Event) -> str:
        """The task with this data."""
        settings, kind = self.settings_of(receiver), event.about["type"]
        chosen, template = task_id(receiver.id, event.key), filled_template(settings)
        with self._blobs.open(event.blob or "") as content:
            if settings.chunking.files is None:
                data = Data(
                    kind=kind, lines=lambda: lines_of(content), bytes_per_chunk=settings.chunking.bytes
                )
                return self._fill(receiver, template, chosen, data)
            with tempfile.TemporaryFile() as rows:
                self._unpack(receiver, kind, content, settings.chunking.files, rows)
                return self._fill(receiver, template, chosen, Data(kind=JSONL, lines=lambda: lines_of(rows)))

    def _unpack(
        self, receiver: Receiver, kind: str, archive: IO[bytes], pattern: str, rows: IO[bytes]
    ) -> None:
        """Make a blob of each file that matches, and write down a row for it."""
        owner, found = self._people.owner_of(receiver.project).id, 0
        for one in members(kind, archive, pattern):
            sha256, size = self._blobs.put_stream(owner, one.content)
            name = one.path.rpartition("/")[2]
            row = {"name": name, "path": one.path, "sha256": sha256, "bytes": size}
            rows.write(json.dumps(row).encode() + b"\n")
            found += 1
        if not found:
            raise BadInput(f"No file of the archive matches {pattern!r}.")
        rows.seek(0)


def filled_template(settings: UploadSettings) -> dict[str, Any]:
    """The template with what the chunking says: rows a chunk; for files, that each is below /in under its name."""
    template, chunking = dict(settings.template), settings.chunking
    if chunking.files is None:
        return {**template, "rows_per_chunk": MOST_ROWS if chunking.bytes else chunking.rows}
    inputs = dict(template.get("inputs") or {})
    if not placeholders([*inputs, *inputs.values()]):
        inputs["{name}"] = "{sha256}"
    return {**template, "inputs": inputs}


def kind_of(arrival: Arrival) -> str:
    """The type of table or archive that came; raises BadInput for what is neither."""
    said = arrival.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said in TYPES:
        return TYPES[said]
    name = arrival.name.lower()
    for ending, kind in {**TABLES, **ENDINGS}.items():
        if name.endswith(ending):
            return kind
    raise BadInput(
        f"The file's name must end in {', '.join([*TABLES, *ENDINGS])}, or Content-Type say what it is."
    )
