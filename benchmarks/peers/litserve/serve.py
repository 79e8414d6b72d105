"""LitServe with one worker and no batching, which is its fastest for single rows."""

import os
import sys

import litserve
import numpy
import xgboost


class Model(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.booster = xgboost.Booster(model_file=os.environ["MODEL"])
        self.booster.set_param({"nthread": 1})

    def decode_request(self, request: dict) -> numpy.ndarray:
        return numpy.array([request["features"]], dtype=numpy.float32)

    def predict(self, row: numpy.ndarray) -> float:
        return float(self.booster.inplace_predict(row)[0])

    def encode_response(self, output: float) -> dict:
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
