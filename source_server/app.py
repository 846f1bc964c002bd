"""Puts the source server together: only this module knows who needs whom."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, jsonify

from source_server.domain.blob import BlobLimits
from source_server.receivers.git_fetch import GitSettings
from source_server.receivers.registry import kinds
from source_server.services.accounts.enrol import Enrol
from source_server.services.accounts.people import People
from source_server.services.accounts.projects import Projects
from source_server.services.accounts.sessions import Sessions
from source_server.services.answers.accept import Accept
from source_server.services.answers.forgive import Forgive
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Reputation
from source_server.services.answers.settle_errors import SettleErrors
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
from source_server.services.dispatch.paces import Paces
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
from source_server.services.reactions.summary import Summary
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
from source_server.services.tasks.validate import Validate
from source_server.stores.database import Stores
from source_server.web import wire
from source_server.web.http import errors
from source_server.web.http.access import EXTENSION, services
from source_server.web.http.bounded_request import BoundedRequest
from source_server.web.http.services import (
    AccountServices,
    ContainerServices,
    FileServices,
    LookingServices,
    OutcomeServices,
    Services,
    TaskServices,
    WayInServices,
)
from source_server.web.openapi import Caller, described
from source_server.web.shapes import base as shapes
from source_server.web.views import (
    attempts,
    calculator,
    docs_page,
    enrolment,
    explain,
    failures,
    hosts,
    images,
    intake,
    limits,
    projects,
    results,
    runs,
    scientist,
    sessions,
    volunteer,
)
from source_server.web.views import blobs as blobs_view
from source_server.web.views import releases as releases_view


def create_app(
    stores: Stores,
    *,
    beat_s: float,
    releases: Path | None = None,
    public_url: str | None = None,
    limits_of_blobs: BlobLimits | None = None,
    git: GitSettings | None = None,
) -> Flask:
    """The WSGI app over these stores; raises SchemaUnknown for a database it must not touch."""
    stores.meta.require_schema()
    app = Flask("source_server")
    app.request_class = BoundedRequest
    app.config["MAX_CONTENT_LENGTH"] = wire.MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = build_services(
        stores,
        beat_s=beat_s,
        releases=releases,
        public_url=public_url,
        limits_of_blobs=limits_of_blobs,
        git=git,
    )
    errors.install(app)
    people = (volunteer, projects, scientist, runs, results, explain, failures, hosts, attempts)
    pages = (docs_page, sessions, calculator)
    for part in (*people, limits, releases_view, enrolment, images, blobs_view, intake, *pages):
        app.register_blueprint(part.blueprint)

    @app.get("/healthz")
    @described(Caller.ANYONE, answers={200: shapes.Health})
    def healthz() -> Response:
        """Whether the server can work: its database answers."""
        return jsonify(ok=services().look.health())

    return app


def build_services(
    stores: Stores,
    *,
    beat_s: float,
    releases: Path | None = None,
    public_url: str | None = None,
    limits_of_blobs: BlobLimits | None = None,
    git: GitSettings | None = None,
) -> Services:
    """What views and housekeeping work with."""
    secret, paces = stores.meta.secret(), Paces(stores)
    accounts = _accounts(stores, secret)
    files = _files(stores, secret, limits_of_blobs, releases)
    outcomes = _outcomes(stores, secret, files.blobs, paces)
    tasks = _tasks(stores, files.inputs, outcomes.live)
    containers = ContainerServices(
        register=Register(stores, outcomes.give_back),
        beat=Beat(stores, outcomes.give_back, beat_s=beat_s),
        claim=Claim(stores, beat_s=beat_s, secret=secret, live=outcomes.live, paces=paces),
        assign=Assign(stores),
        hosts=Hosts(stores, outcomes.live),
        look=Look(stores),
    )
    receivers = kinds(
        accounts.people, tasks.tasks, tasks.upload, tasks.append, files.blobs, git or GitSettings()
    )
    ways_in = WayInServices(
        intake=Intake(stores, tasks.tasks, receivers), calculate=Calculate(stores, tasks.append)
    )
    parts = (accounts, files, outcomes, containers, tasks, ways_in, _looking(stores, files, tasks))
    fields = {name: one for part in parts for name, one in vars(part).items()}
    return Services(**fields, public_url=public_url, beat_s=beat_s)


def _accounts(stores: Stores, secret: bytes) -> AccountServices:
    people = People(stores)
    return AccountServices(
        people=people,
        enrol=Enrol(stores),
        projects=Projects(stores),
        sessions=Sessions(stores, people, secret=secret),
    )


def _files(stores: Stores, secret: bytes, limits: BlobLimits | None, releases: Path | None) -> FileServices:
    blobs = Blobs(stores, limits)
    return FileServices(
        images=Images(stores),
        blobs=blobs,
        blob_tickets=BlobTickets(stores, blobs, secret=secret),
        inputs=Inputs(blobs),
        releases=Releases(releases),
    )


def _outcomes(stores: Stores, secret: bytes, blobs: Blobs, paces: Paces) -> OutcomeServices:
    live, known = LiveContainers(stores), KnownTasks(stores)
    reputation = Reputation(stores, live)
    forgive = Forgive(stores, known=known, live=live, reputation=reputation)
    settle_results = SettleResults(
        stores, secret=secret, known=known, validate=Validate(stores), reputation=reputation
    )
    react, depend = React(stores, Summary(stores, blobs)), Depend(stores)
    complete = Complete(stores, react=react, followers=depend.followers)
    accept = Accept(
        stores,
        secret=secret,
        known=known,
        settle_results=settle_results,
        settle_errors=SettleErrors(stores, known=known, live=live, reputation=reputation, forgive=forgive),
        reputation=reputation,
        forgive=forgive,
        complete=complete,
        finished=paces.finished,
    )
    return OutcomeServices(
        live=live,
        reputation=reputation,
        give_back=GiveBack(stores, reputation.came_back),
        settle_results=settle_results,
        react=react,
        depend=depend,
        complete=complete,
        accept=accept,
    )


def _tasks(stores: Stores, inputs: Inputs, live: LiveContainers) -> TaskServices:
    tasks, send_round = Tasks(stores, inputs), SendRound(stores)
    return TaskServices(
        tasks=tasks,
        task_lists=TaskLists(stores, tasks),
        change_task=ChangeTask(stores, tasks),
        upload=ReceiveUpload(stores, inputs),
        append=Append(stores, inputs),
        delete=Delete(stores, tasks),
        examine=Examine(stores, live),
        send_round=send_round,
        rerun=Rerun(tasks, send_round),
        notices=Notices(stores),
    )


def _looking(stores: Stores, files: FileServices, tasks: TaskServices) -> LookingServices:
    return LookingServices(
        export=Export(stores, files.inputs),
        result_files=ResultFiles(stores),
        attempts=Attempts(stores, tasks.tasks),
        errors=ErrorQueue(stores, tasks.tasks, tasks.send_round),
        why=Why(stores),
        warn=Warn(stores),
    )
