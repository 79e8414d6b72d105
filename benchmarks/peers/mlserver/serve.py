"""MLServer's own XGBoost runtime over REST, without parallel workers, which only cost it time."""

import json
import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    settings = {
        "host": "127.0.0.1",
        "http_port": int(sys.argv[1]),
        "grpc_port": int(sys.argv[1]) + 1,
        "metrics_port": int(sys.argv[1]) + 2,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": "bench",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": os.environ["MODEL"]},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = Path(sys.executable).with_name("mlserver")
    os.execv(command, [str(command), "start", str(folder)])
