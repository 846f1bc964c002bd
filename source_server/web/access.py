"""Who calls: the key in the request, and the services that the app was built with."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app, request

from source_server.domain.account import Account, Role
from source_server.domain.container import Container
from source_server.services.accounts.enrol import Enrol
from source_server.services.accounts.people import People
from source_server.services.accounts.projects import Projects
from source_server.services.accounts.sessions import Sessions
from source_server.services.answers.accept import Accept
from source_server.services.answers.reputation import Reputation
from source_server.services.answers.settle_results import SettleResults
from source_server.services.calculators.calculate import Calculate
from source_server.services.containers.beat import Beat
from source_server.services.containers.give_back import GiveBack
from source_server.services.containers.hosts import Hosts
from source_server.services.containers.live import LiveContainers
from source_server.services.containers.look import Look
from source_server.services.containers.register import Register
from source_server.services.dispatch.assign import Assign
from source_server.services.dispatch.claim import Claim
from source_server.services.explain.attempts import Attempts
from source_server.services.explain.errors import ErrorQueue
from source_server.services.explain.warnings import Warn
from source_server.services.explain.why import Why
from source_server.services.files.blob_tickets import BlobTickets
from source_server.services.files.blobs import Blobs
from source_server.services.files.images import Images
from source_server.services.files.inputs import Inputs
from source_server.services.files.releases import Releases
from source_server.services.intake.intake import Intake
from source_server.services.messages.notices import Notices
from source_server.services.reactions.react import React
from source_server.services.results.export import Export
from source_server.services.results.result_files import ResultFiles
from source_server.services.tasks.append import Append
from source_server.services.tasks.change_task import ChangeTask
from source_server.services.tasks.complete import Complete
from source_server.services.tasks.delete import Delete
from source_server.services.tasks.depend import Depend
from source_server.services.tasks.examine import Examine
from source_server.services.tasks.rerun import Rerun
from source_server.services.tasks.send_round import SendRound
from source_server.services.tasks.task_lists import TaskLists
from source_server.services.tasks.tasks import Tasks
from source_server.services.tasks.upload import ReceiveUpload

EXTENSION = "dockercomp"


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the views may ask, put together by `app`."""

    people: People
    enrol: Enrol
    images: Images
    blobs: Blobs
    blob_tickets: BlobTickets
    inputs: Inputs
    result_files: ResultFiles
    register: Register
    beat: Beat
    claim: Claim
    accept: Accept
    complete: Complete
    react: React
    depend: Depend
    attempts: Attempts
    delete: Delete
    settle_results: SettleResults
    reputation: Reputation
    live: LiveContainers
    give_back: GiveBack
    projects: Projects
    tasks: Tasks
    task_lists: TaskLists
    change_task: ChangeTask
    notices: Notices
    upload: ReceiveUpload
    append: Append
    calculate: Calculate
    sessions: Sessions
    intake: Intake
    assign: Assign
    export: Export
    look: Look
    errors: ErrorQueue
    rerun: Rerun
    send_round: SendRound
    hosts: Hosts
    examine: Examine
    why: Why
    warn: Warn
    releases: Releases
    public_url: str | None
    beat_s: float


def services() -> Services:
    """The services of the current app."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def bearer() -> str | None:
    """The key that the request shows, or None."""
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.strip() else None


def account_as(role: Role) -> Account:
    """The calling account; raises UnknownKey or NotAllowed."""
    return services().people.account(bearer(), role)


def any_account() -> Account:
    """The calling account, whatever its role; raises UnknownKey."""
    return services().people.anyone(bearer())


def any_key() -> str:
    """The id of the account that calls, by itself or by a container; raises UnknownKey."""
    return services().people.somebody(bearer())


def calling_container() -> Container:
    """The calling container; raises UnknownKey."""
    return services().people.container(bearer())
