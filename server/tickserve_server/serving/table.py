"""The models that answer now, by every name a bot may use; replaced whole, never changed."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable, Mapping

from tickserve_client.messages import Predict
from tickserve_registry.catalog import Entry
from tickserve_registry.naming import LONGEST_NAME
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.refusal import Refusal

NEIGHBOURS = 6


class ModelTable:
    """One consistent view: family, model_id and build resolve to models of the same instant.

    A family resolves to its newest version, a model_id to its newest build.
    """

    def __init__(
        self,
        models: Iterable[LiveModel] = (),
        *,
        known: Iterable[Entry] = (),
        failures: Mapping[str, str] | None = None,
    ) -> None:
        self.models = {model.build: model for model in models}
        self.failures = dict(failures or {})
        self._by_name: dict[str, LiveModel] = {}
        for model in sorted(self.models.values(), key=_age):
            for name in (model.entry.family, model.model_id, model.build):
                self._by_name[name] = model
        self._environments: dict[str, str] = {}
        for entry in known:
            for name in (entry.family, entry.model_id, entry.build):
                if entry.environment == "production" or name not in self._environments:
                    self._environments[name] = entry.environment
        self._forwards = sorted(self._environments)
        self._backwards = sorted(name[::-1] for name in self._environments)

    def find(self, name: str) -> LiveModel:
        """Return the model that answers to the name.

        Raises Refusal: not_ready, not_in_production or unknown_model with the nearest names.
        """
        model = self._by_name.get(name)
        if model is not None:
            return model
        environment = self._environments.get(name)
        if environment == "production":
            reason = next(
                (text for build, text in self.failures.items() if build.startswith(name)),
                "it is being loaded",
            )
            raise Refusal("not_ready", f"{name} is not ready: {reason}", reason=reason)
        if environment is not None:
            raise Refusal(
                "not_in_production",
                f"{name} is in {environment}; promote it with: tickserve promote {name}",
                environment=environment,
            )
        nearest = self._nearest(name)
        hint = f"; did you mean {', '.join(nearest)}?" if nearest else ""
        shown = repr(name[:LONGEST_NAME])
        raise Refusal("unknown_model", f"no model is called {shown}{hint}", nearest=nearest)

    def _nearest(self, name: str) -> list[str]:
        """Return known names alike, among those that begin or end alike: few, however many are.

        A bot that keeps asking for a name that is none must not hold the loop.
        """
        if len(name) > LONGEST_NAME:
            return []
        candidates = _around(self._forwards, name)
        candidates |= {each[::-1] for each in _around(self._backwards, name[::-1])}
        return difflib.get_close_matches(name, sorted(candidates), n=3, cutoff=0.5)

    def features_of(self, names: Iterable[str]) -> frozenset[str]:
        """Return every feature that a model of these names takes."""
        models = [self._by_name[name] for name in names if name in self._by_name]
        return frozenset(feature for model in models for feature in model.contract.features)

    def is_slow(self, request: Predict) -> bool:
        """Whether a request asks a model that takes long for each row."""
        names = [request.model] if request.models is None else request.models
        models = [self._by_name[name] for name in names if name in self._by_name]
        return any(model.is_slow for model in models)


def _around(ordered: list[str], name: str) -> set[str]:
    """Return the names that stand next to where this one would in order."""
    place = bisect.bisect(ordered, name)
    return set(ordered[max(0, place - NEIGHBOURS) : place + NEIGHBOURS])


def _age(model: LiveModel) -> tuple[int, str]:
    return model.entry.version, model.entry.date
