"""Compile all loops into numba's cache: ``python -m ecgmon.pipelines.roles.warm_up``, for set-up and installation."""

from __future__ import annotations

from ecgmon.pipelines.roles import producer
from ecgmon.pipelines.scoring import chain


def warm_up() -> None:
    """Compile the loops of the monitor and of the producer, or load them from the cache."""
    chain.warm_up()
    producer.warm_up()


if __name__ == "__main__":
    warm_up()
