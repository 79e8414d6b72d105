"""One daemon, and the rows that every bot asks it about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import Client
from tickserve_registry.model_registry import ModelRegistry

TREES = 30
ROWS = 20


class Case(NamedTuple):
    """What each bot asks about, and the answers that the Python client got, a row each."""

    predict: str  # endpoint
    model: str
    names: list[str]
    rows: list[list[float]]
    outputs: list[float]
    actions: list[str]
    build: str


@pytest.fixture(scope="package")
def booster() -> Any:
    """The native model that is served."""
    return train(trees=TREES)


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory, booster: Any) -> Iterator[Service]:
    """A daemon over the model that docs/protocol.md speaks of."""
    made = Service(tmp_path_factory.mktemp("conformance"))
    names = ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"]
    contract = model_info() | {"timeframe": "5m", "strategy": "trend", "features": names}
    ModelRegistry(str(made.storage)).save_model(booster, contract, environment="production")
    with made:
        yield made


@pytest.fixture(scope="package")
def case(service: Service) -> Case:
    """Random rows that need every digit of a double, and their answers one by one."""
    rows = np.random.default_rng(17).normal(size=(ROWS, 5)).tolist()
    with Client(service.endpoints.predict, timeout=5) as client:
        (card,) = client.models()
        replies = [client.predict(card.family, row) for row in rows]
    return Case(
        predict=service.endpoints.predict,
        model=card.family,
        names=list(card.features),
        rows=rows,
        outputs=[reply.output for reply in replies],
        actions=[reply.action for reply in replies],
        build=card.build,
    )
