"""Every kind of model, saved: which engine will serve it, and how far that is from the original."""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import xgboost
from sklearn import ensemble, linear_model, neural_network, pipeline, preprocessing, tree

from tickserve_registry.metadata import Serving
from tickserve_registry.model_registry import ModelRegistry

FEATURES = 5
ROWS = 400
WINDOW = 24


NOTHING: Mapping[str, Any] = types.MappingProxyType({})
GAPS = 0.15


class Case(NamedTuple):
    """A kind of model: its name, how it is trained, and what its metadata adds."""

    name: str
    train: Callable[[], Any]
    info: Mapping[str, Any] = NOTHING


class Data(NamedTuple):
    """Training data: inputs, the same with gaps, and targets of each kind."""

    rows: Any
    gaps: Any
    rises: Any
    classes: Any
    values: Any


def data() -> Data:
    """Return made-up inputs and targets with some signal in them."""
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    gaps = rows.copy()
    gaps[rng.random(rows.shape) < GAPS] = np.nan
    noise = rng.normal(size=ROWS)
    return Data(
        rows=rows,
        gaps=gaps,
        rises=(rows[:, 0] + noise > 0).astype(np.int64),
        classes=np.digitize(rows[:, 0] + noise / 2, [-0.5, 0.5]),
        values=np.abs(2 * rows[:, 0] + rows[:, 1]) + 0.1,
    )


def boosted(inputs: Any, target: Any, *, rounds: int = 20, **parameters: Any) -> Any:
    """Train a Booster."""
    table = xgboost.DMatrix(inputs, target)
    if str(parameters.get("objective")).startswith("rank:"):
        table.set_group([ROWS // 4] * 4)
    if parameters.get("objective") == "survival:aft":
        table.set_float_info("label_lower_bound", target)
        table.set_float_info("label_upper_bound", target)
    return xgboost.train({"nthread": 1, **parameters}, table, rounds)


def categorical(given: Data) -> Any:
    """Train a Booster one of whose features is a category."""
    rows = given.rows.copy()
    rows[:, 4] = np.arange(ROWS) % 6
    target = (rows[:, 4] % 2 == 0) & (rows[:, 0] > -1)
    types = ["q"] * 4 + ["c"]
    table = xgboost.DMatrix(rows, target, feature_types=types, enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, table, 10)


def xgboost_cases(given: Data) -> Iterator[Case]:
    """XGBoost: objectives, boosters, gaps, categories, sizes, and the scikit-learn classes."""
    rows, _, rises, classes, values = given
    targets = {
        "binary:logistic": rises,
        "binary:logitraw": rises,
        "binary:hinge": rises,
        "reg:logistic": rises,
        "rank:pairwise": rises,
        "rank:ndcg": rises,
        "multi:softprob": classes,
        "multi:softmax": classes,
    }
    plain = (
        "reg:squarederror reg:squaredlogerror reg:absoluteerror reg:pseudohubererror reg:gamma "
        "reg:tweedie count:poisson survival:cox survival:aft"
    )
    for objective in [*targets, *plain.split()]:
        target = targets.get(objective, values)
        more: dict[str, Any] = {"num_class": 3} if objective.startswith("multi:") else {}
        yield Case(
            f"xgboost {objective}",
            partial(boosted, rows, target, objective=objective, **more),
        )
    logistic: dict[str, Any] = {"objective": "binary:logistic"}
    softprob: dict[str, Any] = {"objective": "multi:softprob", "num_class": 3}
    dart: dict[str, Any] = {"booster": "dart", "rate_drop": 0.3}
    nullable = {"input": {"kind": "row", "allow_nan": True}}
    yield Case("xgboost dart, binary", lambda: boosted(rows, rises, **logistic, **dart))
    yield Case("xgboost dart, 3 classes", lambda: boosted(rows, classes, **softprob, **dart))
    yield Case("xgboost gblinear", lambda: boosted(rows, rises, **logistic, booster="gblinear"))
    yield Case("xgboost missing values", lambda: boosted(given.gaps, rises, **logistic), nullable)
    yield Case("xgboost nearly one class", lambda: boosted(rows, rises * 0, **logistic))
    yield Case("xgboost categorical", lambda: categorical(given))
    yield Case("xgboost two targets", lambda: boosted(rows, np.c_[values, -values]))
    for count in (1, 10, 100, 1000):
        yield Case(
            f"xgboost {count} trees", partial(boosted, rows, rises, rounds=count, **logistic)
        )
    yield Case("XGBClassifier", lambda: xgboost.XGBClassifier(n_estimators=20).fit(rows, rises))
    yield Case("XGBRegressor", lambda: xgboost.XGBRegressor(n_estimators=20).fit(rows, values))


def scikit_learn_cases(given: Data) -> Iterator[Case]:
    """scikit-learn: linear, forests, boosting, histogram boosting, networks, pipelines."""
    rows, gaps, rises, classes, values = given
    estimators: dict[str, tuple[Any, Any]] = {
        "LogisticRegression": (linear_model.LogisticRegression(), rises),
        "LogisticRegression, 3 classes": (linear_model.LogisticRegression(), classes),
        "Ridge": (linear_model.Ridge(), values),
        "DecisionTreeClassifier": (tree.DecisionTreeClassifier(max_depth=6), rises),
        "RandomForestClassifier": (ensemble.RandomForestClassifier(20), rises),
        "RandomForestClassifier, 3 classes": (ensemble.RandomForestClassifier(20), classes),
        "RandomForestRegressor": (ensemble.RandomForestRegressor(20), values),
        "ExtraTreesClassifier": (ensemble.ExtraTreesClassifier(20), rises),
        "GradientBoostingClassifier": (
            ensemble.GradientBoostingClassifier(n_estimators=20),
            rises,
        ),
        "GradientBoostingRegressor": (ensemble.GradientBoostingRegressor(n_estimators=20), values),
        "HistGradientBoostingClassifier": (
            ensemble.HistGradientBoostingClassifier(max_iter=20),
            rises,
        ),
        "HistGradientBoostingClassifier, 3 classes": (
            ensemble.HistGradientBoostingClassifier(max_iter=20),
            classes,
        ),
        "HistGradientBoostingRegressor": (
            ensemble.HistGradientBoostingRegressor(max_iter=20),
            values,
        ),
        "MLPClassifier": (neural_network.MLPClassifier((8,), max_iter=40), rises),
        "scaler, LogisticRegression": (
            pipeline.make_pipeline(
                preprocessing.StandardScaler(), linear_model.LogisticRegression()
            ),
            rises,
        ),
        "scaler, RandomForestClassifier": (
            pipeline.make_pipeline(
                preprocessing.StandardScaler(), ensemble.RandomForestClassifier(20, random_state=3)
            ),
            rises,
        ),
        "scaler, HistGradientBoostingRegressor": (
            pipeline.make_pipeline(
                preprocessing.MinMaxScaler(), ensemble.HistGradientBoostingRegressor(max_iter=20)
            ),
            values,
        ),
    }
    for name, (estimator, target) in estimators.items():
        yield Case(f"scikit-learn {name}", partial(estimator.fit, rows, target))
    nullable = {"input": {"kind": "row", "allow_nan": True}}
    histogram = ensemble.HistGradientBoostingClassifier(max_iter=20)
    yield Case(
        "scikit-learn HistGradientBoosting, gaps", lambda: histogram.fit(gaps, rises), nullable
    )


def lightgbm_cases(given: Data) -> Iterator[Case]:
    """LightGBM: objectives, boosters, gaps, and the scikit-learn class."""
    rows, gaps, rises, classes, values = given
    kinds: dict[str, tuple[dict[str, Any], Any, Any]] = {
        "binary": ({"objective": "binary"}, rows, rises),
        "multiclass": ({"objective": "multiclass", "num_class": 3}, rows, classes),
        "regression": ({"objective": "regression"}, rows, values),
        "poisson": ({"objective": "poisson"}, rows, values),
        "l1": ({"objective": "l1"}, rows, values),
        "dart": ({"objective": "binary", "boosting": "dart"}, rows, rises),
        "missing values": ({"objective": "binary"}, gaps, rises),
    }
    for name, (parameters, inputs, target) in kinds.items():
        nullable = {"input": {"kind": "row", "allow_nan": True}} if inputs is gaps else {}
        settings = {"verbose": -1, "num_threads": 1, **parameters}
        yield Case(
            f"lightgbm {name}",
            partial(lightgbm.train, settings, lightgbm.Dataset(inputs, target), 20),
            nullable,
        )
    quiet = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1)
    yield Case("LGBMClassifier", lambda: quiet.fit(rows, rises))


def network_cases() -> Iterator[Case]:
    """The pretrained LSTM over windows, as a ready ONNX file."""
    folder = importlib.resources.files("tickserve_bots") / "pretrained"
    ready = (folder / "eurusd_1h_lstm_breakout_v1.onnx").read_bytes()
    info = {
        "input": {"kind": "window", "length": WINDOW},
        "features": [f"f{place}" for place in range(7)],
    }
    yield Case("LSTM, ready ONNX", lambda: ready, info)


def cases() -> Iterator[Case]:
    """Return every kind."""
    given = data()
    yield from xgboost_cases(given)
    yield from scikit_learn_cases(given)
    yield from lightgbm_cases(given)
    yield from network_cases()


def saved(registry: ModelRegistry, case: Case, *, version: int = 1) -> Serving:
    """Train a case, save it, and return how it will be served."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.train()
    info = {
        "model_id": f"eurusd_1h_any_parity_v{version}",
        "features": [f"f{place}" for place in range(FEATURES)],
    }
    path, _ = registry.save_model(model, info | dict(case.info))
    return registry.metadata(path.rpartition("/")[2].removesuffix(".model")).serving


def main(options: Sequence[str]) -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args(options)
    print(f"{'model':48} {'engine':12} {'max error':>10} {'probes':>7}  reason")
    with tempfile.TemporaryDirectory() as folder:
        registry = ModelRegistry(folder)
        for version, case in enumerate(cases(), start=1):
            serving = saved(registry, case, version=version)
            error = serving.parity.max_abs_error
            shown = "–" if error is None else f"{error:.1e}"
            reason = "" if serving.reason is None else serving.reason[:60]
            probes = serving.parity.probes
            print(f"{case.name:48} {serving.engine:12} {shown:>10} {probes:>7}  {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
