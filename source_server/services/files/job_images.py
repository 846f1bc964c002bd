"""The images that jobs run in: their own or their project's, and what those were made for."""

from __future__ import annotations

from dataclasses import replace

from source_server.domain.job import Job
from source_server.stores.database import Stores


class JobImages:
    """Looks at the archives that are here."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def whole(self, job: Job, default_image: str | None) -> Job:
        """The same job in the project's image, if it names none; it says on what its images run, if they are here."""
        if job.image is None and not job.variants:
            job = replace(job, image=default_image)
        variants = tuple(
            replace(one, architecture=self._architecture(one.image) or one.architecture)
            for one in job.variants
        )
        architecture = self._architecture(job.image) or job.architecture
        return replace(job, architecture=architecture, variants=variants)

    def _architecture(self, image_id: str | None) -> str | None:
        image = None if image_id is None else self._stores.images.find(image_id)
        return None if image is None else image.architecture
