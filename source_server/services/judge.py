"""Which answers of a chunk agree: byte for byte, within a tolerance, or as the project's validator says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from source_server.domain.agreement import Agree, same_answer
from source_server.domain.chunk import Candidate, Chunk
from source_server.domain.comparing import same_json
from source_server.domain.task import Task
from source_server.domain.validation import Comparison
from source_server.services.validate import Validate
from source_server.stores.database import Stores


class Judge:
    """Reads what a comparison needs, and no more: digests alone suffice for most."""

    def __init__(self, stores: Stores, validate: Validate) -> None:
        self._stores = stores
        self._validate = validate

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
        answers = self._stores.results.answers([one.result for one in candidates])
        rule = task.validation

        def agree(one: Candidate, other: Candidate) -> bool:
            if same_answer(one, other):
                return True
            left, right = answers.get(one.result), answers.get(other.result)
            if left is None or right is None:
                return False
            return same_json(left, right, relative=rule.relative, absolute=rule.absolute)

        return agree

    def _as_validated(self, task: Task, chunk: Chunk, candidates: Sequence[Candidate]) -> Agree | None:
        groups = self._validate.groups(task, chunk)
        if groups is None:
            return None
        named = _by_result(candidates, groups)

        def agree(one: Candidate, other: Candidate) -> bool:
            group = named.get(one.result)
            return group is not None and group == named.get(other.result)

        return agree


def _by_result(
    candidates: Sequence[Candidate], groups: Sequence[int | str | None]
) -> Mapping[str, int | str | None]:
    # Candidates are only ever appended: the validator judged the first ones.
    return {one.result: group for one, group in zip(candidates, groups, strict=False)}
