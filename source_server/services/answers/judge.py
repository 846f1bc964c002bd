"""Which answers of a chunk agree: byte for byte, within a tolerance, or as the project's validator says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from source_server.domain.agreement import Agree, same_answer
from source_server.domain.chunk import Candidate, Chunk
from source_server.domain.comparing import Tolerance
from source_server.domain.task import Task
from source_server.domain.validation import Comparison
from source_server.services.tasks.validate import Validate
from source_server.stores.database import Stores

MOST_COMPARED = 20_000  #: pairs of answers whose comparison is remembered


class Judge:
    """Reads what a comparison needs, and no more: digests alone suffice for most."""

    def __init__(self, stores: Stores, validate: Validate) -> None:
        self._stores = stores
        self._validate = validate
        self._compared = _Compared()

    def agreement(self, task: Task, chunk: Chunk, candidates: Sequence[Candidate]) -> Agree | None:
        """What agreeing means for these candidates of the chunk; None: the validator has not said yet."""
        comparison = task.validation.comparison
        if not task.validation.checks:
            return same_answer
        if comparison is Comparison.VALIDATOR:
            # Even equal bytes have to be shown to it: it may find them all worthless.
            return self._as_validated(task, chunk, candidates)
        if comparison is Comparison.JSON and len({one.digest for one in candidates}) > 1:
            return self._within_tolerance(task, candidates)
        return same_answer

    def _within_tolerance(self, task: Task, candidates: Sequence[Candidate]) -> Agree:
        rule = task.validation
        files = self._files(candidates) if task.job.outputs else {}
        read: list[Tolerance] = []  # once, and only if two have not been compared before

        def compared(one: str, other: str) -> bool | None:
            if not read:
                read.append(
                    Tolerance(self._texts(candidates), relative=rule.relative, absolute=rule.absolute)
                )
            return read[0].same(one, other)

        def agree(one: Candidate, other: Candidate) -> bool:
            if same_answer(one, other):
                return True
            if files.get(one.result) != files.get(other.result):
                return False  # a tolerance is for numbers in the text
            pair = (min(one.digest, other.digest), max(one.digest, other.digest))
            return self._compared.get((*pair, rule.relative, rule.absolute), lambda: compared(*pair))

        return agree

    def _files(self, candidates: Sequence[Candidate]) -> dict[str, list[tuple[str, str]]]:
        """result -> (name, hash) of its files, in order."""
        listed = self._stores.results.files([one.result for one in candidates])
        return {
            result: sorted((one["name"], one["sha256"]) for one in files) for result, files in listed.items()
        }

    def _texts(self, candidates: Sequence[Candidate]) -> dict[str, str]:
        """digest -> answer; of equal ones most have no payload any more."""
        texts = self._stores.results.answers([one.result for one in candidates])
        return {one.digest: texts[one.result] for one in candidates if one.result in texts}

    def _as_validated(self, task: Task, chunk: Chunk, candidates: Sequence[Candidate]) -> Agree | None:
        groups = self._validate.groups(task, chunk)
        if groups is None:
            return None
        named = _by_result(candidates, groups)

        def agree(one: Candidate, other: Candidate) -> bool:
            group = named.get(one.result)
            return group is not None and group == named.get(other.result)

        return agree


class _Compared:
    """What comparing two digests came to: the same for ever, and asked for again for each answer's verdict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, float, float], bool] = {}

    def get(self, key: tuple[str, str, float, float], compare: Callable[[], bool | None]) -> bool:
        """Whether they agree. `compare` says None where an answer is not there: nothing to be remembered."""
        with self._lock:
            known = self._known.get(key)
        if known is None and (known := compare()) is not None:
            with self._lock:
                if len(self._known) >= MOST_COMPARED:
                    self._known.clear()
                self._known[key] = known
        return bool(known)


def _by_result(
    candidates: Sequence[Candidate], groups: Sequence[int | str | None]
) -> Mapping[str, int | str | None]:
    # Candidates are only ever appended: the validator judged the first ones.
    return {one.result: group for one, group in zip(candidates, groups, strict=False)}
