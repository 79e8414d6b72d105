"""FastAPI under uvicorn (uvloop, httptools, one worker), the booster called in the event loop.

Handing a call of half a millisecond to a thread pool would only make it slower.
"""

import os
import sys

import numpy
import uvicorn
import xgboost
from fastapi import FastAPI
from pydantic import BaseModel

booster = xgboost.Booster(model_file=os.environ["MODEL"])
booster.set_param({"nthread": 1})
app = FastAPI()


class Request(BaseModel):
    features: list[float]


@app.post("/predict")
async def predict(request: Request) -> dict[str, float]:
    row = numpy.array([request.features], dtype=numpy.float32)
    return {"output": float(booster.inplace_predict(row)[0])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
