"""The kinds of receivers that there are. A new one is a file beside this one and a line here."""

from __future__ import annotations

from source_server.receivers.fill import Fill
from source_server.receivers.git_fetch import GitSettings
from source_server.receivers.git_push import GitPush
from source_server.receivers.http import Http
from source_server.receivers.mail import Mail
from source_server.receivers.schedule import Schedule
from source_server.receivers.upload import Upload
from source_server.services.accounts.people import People
from source_server.services.files.blobs import Blobs
from source_server.services.intake.intake import Kind
from source_server.services.tasks.append import Append
from source_server.services.tasks.tasks import Tasks
from source_server.services.tasks.upload import ReceiveUpload


def kinds(
    people: People, tasks: Tasks, upload: ReceiveUpload, append: Append, blobs: Blobs, git: GitSettings
) -> list[Kind]:
    """Every kind of receiver, with what it works with."""
    fill = Fill(people, tasks, upload)
    return [
        Http(fill, people, tasks, append),
        Schedule(fill, people, blobs),
        Upload(fill, people, blobs),
        Mail(fill),
        GitPush(fill, people, blobs, git),
    ]
