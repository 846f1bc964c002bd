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
from source_server.web import (
    attempts,
    calculator,
    docs_page,
    enrolment,
    errors,
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
    shapes,
    volunteer,
    wire,
)
from source_server.web import (
    blobs as blobs_view,
)
from source_server.web import releases as releases_view
from source_server.web.access import EXTENSION, Services, services
from source_server.web.body import BoundedRequest
from source_server.web.openapi import Caller, described


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
    secret = stores.meta.secret()
    blobs = Blobs(stores, limits_of_blobs)
    inputs = Inputs(blobs)
    live = LiveContainers(stores)
    known = KnownTasks(stores)
    paces = Paces(stores)
    reputation = Reputation(stores, live)
    give_back = GiveBack(stores, reputation.came_back)
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
        settle_errors=SettleErrors(stores, known=known, live=live, reputation=reputation),
        reputation=reputation,
        complete=complete,
        finished=paces.finished,
    )
    tasks, send_round = Tasks(stores, inputs), SendRound(stores)
    people, upload = People(stores), ReceiveUpload(stores, inputs)
    append = Append(stores, inputs)
    return Services(
        people=people,
        enrol=Enrol(stores),
        images=Images(stores),
        blobs=blobs,
        blob_tickets=BlobTickets(stores, blobs, secret=secret),
        inputs=inputs,
        result_files=ResultFiles(stores),
        register=Register(stores, give_back),
        beat=Beat(stores, give_back, beat_s=beat_s),
        claim=Claim(stores, beat_s=beat_s, secret=secret, live=live, paces=paces),
        accept=accept,
        complete=complete,
        react=react,
        depend=depend,
        attempts=Attempts(stores, tasks),
        delete=Delete(stores, tasks),
        settle_results=settle_results,
        reputation=reputation,
        live=live,
        give_back=give_back,
        projects=Projects(stores),
        tasks=tasks,
        task_lists=TaskLists(stores, tasks),
        change_task=ChangeTask(stores, tasks),
        notices=Notices(stores),
        upload=upload,
        intake=Intake(stores, tasks, kinds(people, tasks, upload, append, blobs, git or GitSettings())),
        append=append,
        calculate=Calculate(stores, append),
        sessions=Sessions(stores, people, secret=secret),
        assign=Assign(stores),
        export=Export(stores, inputs),
        look=Look(stores),
        errors=ErrorQueue(stores, tasks, send_round),
        rerun=Rerun(tasks, send_round),
        send_round=send_round,
        hosts=Hosts(stores, live),
        examine=Examine(stores, live),
        why=Why(stores),
        warn=Warn(stores),
        releases=Releases(releases),
        public_url=public_url,
        beat_s=beat_s,
    )
