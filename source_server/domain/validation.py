"""How a task's answers are checked: how many must agree, whose, and what agreeing means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Distinct(str, Enum):
    """What two attempts at one chunk must not share."""

    ACCOUNT = "account"
    HOST = "host"
    CONTAINER = "container"
    VARIANT = "variant"  #: of the job: several environments are to agree, whoever runs them


class Same(str, Enum):
    """What all attempts at one chunk must share, so that rounding does not make honest answers differ."""

    ANY = "any"
    ARCH = "arch"
    CPU_FAMILY = "cpu-family"


class Comparison(str, Enum):
    """When two answers agree."""

    EXACT = "exact"  #: byte for byte
    JSON = "json"  #: as JSON values, numbers within a tolerance
    VALIDATOR = "validator"  #: as the project's own command says


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The rule of one task. The default takes the first answer."""

    quorum: int = 1  #: Q: answers that must agree
    replicas: int = 1  #: N >= Q: attempts handed out at first
    most: int = 1  #: attempts at most, before the chunk is set aside without agreement
    distinct: Distinct = Distinct.ACCOUNT
    same: Same = Same.ANY
    comparison: Comparison = Comparison.EXACT
    with_files: bool = False  #: the project's own command gets the files, and is not only told of them
    relative: float = 0.0  #: tolerance as a share of the larger number
    absolute: float = 0.0  #: tolerance as a difference
    adaptive: bool = False  #: a host with a long record of agreement needs no second opinion but at random
    canaries: float = 0.0  #: share of claims in which one chunk is a settled one, to test the host

    @property
    def first_replicas(self) -> int:
        """Attempts that are handed out before any answer is known."""
        return 1 if self.adaptive else self.replicas

    @property
    def checks(self) -> bool:
        """Whether one answer alone does not decide."""
        return self.quorum > 1
