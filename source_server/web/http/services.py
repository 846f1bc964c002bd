"""The services that views ask for. They are one flat value, for whoever reads a view need not know their folders."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class AccountServices:
    """Who people are."""

    people: People
    enrol: Enrol
    projects: Projects
    sessions: Sessions


@dataclass(frozen=True, kw_only=True)
class FileServices:
    """What is kept whole: blobs, archives of images, releases."""

    images: Images
    blobs: Blobs
    blob_tickets: BlobTickets
    inputs: Inputs
    releases: Releases


@dataclass(frozen=True, kw_only=True)
class OutcomeServices:
    """What comes back and what follows from it: verdicts on answers, outcomes of tasks, reactions to them."""

    live: LiveContainers
    reputation: Reputation
    give_back: GiveBack
    settle_results: SettleResults
    react: React
    depend: Depend
    complete: Complete
    accept: Accept


@dataclass(frozen=True, kw_only=True)
class ContainerServices:
    """What client containers ask for, and who hands out to them."""

    register: Register
    beat: Beat
    claim: Claim
    assign: Assign
    hosts: Hosts
    look: Look


@dataclass(frozen=True, kw_only=True)
class TaskServices:
    """What scientists do with their tasks."""

    tasks: Tasks
    task_lists: TaskLists
    change_task: ChangeTask
    upload: ReceiveUpload
    append: Append
    delete: Delete
    examine: Examine
    send_round: SendRound
    rerun: Rerun
    notices: Notices


@dataclass(frozen=True, kw_only=True)
class LookingServices:
    """What only reads: results, attempts, and why things are as they are."""

    export: Export
    result_files: ResultFiles
    attempts: Attempts
    errors: ErrorQueue
    why: Why
    warn: Warn


@dataclass(frozen=True, kw_only=True)
class WayInServices:
    """Ways into a project that are no view of a task: receivers, the calculator."""

    intake: Intake
    calculate: Calculate


@dataclass(frozen=True, kw_only=True)
class Services(
    AccountServices,
    FileServices,
    OutcomeServices,
    ContainerServices,
    TaskServices,
    LookingServices,
    WayInServices,
):
    """What the views may ask, put together by `app`."""

    public_url: str | None
    beat_s: float
