"""BentoML with one worker and no batching, which is its fastest for single rows."""

import os
import sys

import bentoml
import numpy
import xgboost


@bentoml.service(workers=1, traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class Model:
    def __init__(self) -> None:
        self.booster = xgboost.Booster(model_file=os.environ["MODEL"])
        self.booster.set_param({"nthread": 1})

    @bentoml.api
    def predict(self, features: list[float]) -> dict[str, float]:
        row = numpy.array([features], dtype=numpy.float32)
        return {"output": float(self.booster.inplace_predict(row)[0])}


if __name__ == "__main__":
    command = [sys.executable, "-m", "bentoml", "serve", "serve:Model", "--host", "127.0.0.1"]
    os.execv(sys.executable, [*command, "--port", sys.argv[1]])
