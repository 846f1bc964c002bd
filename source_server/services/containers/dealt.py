"""Which tasks may have chunks that are assigned to somebody: none but those that were dealt, or are being dealt."""

from __future__ import annotations

from source_server.stores.database import Stores


def dealt_tasks(stores: Stores) -> list[str]:
    """Their ids, of those that run or are in a deal that is under way."""
    # Deals first: one that ends in between has marked its tasks before.
    dealing = [task for _, tasks in stores.deals.under_way() for task in tasks]
    return list(dict.fromkeys([*dealing, *stores.unfinished.dealt()]))
