"""Runs the benchmark named on the command line, or all of them, and prints the machine's facts."""

from __future__ import annotations

import importlib
import os
import platform
import sys

import onnxruntime
import zmq

BENCHMARKS = (
    "round_trip",
    "curve",
    "throughput",
    "batches",
    "reloads",
    "many_models",
    "reload_soak",
    "soak",
    "records",
    "outcomes",
    "kill_storm",
    "faults",
    "wire_parity",
    "registry_costs",
    "parity",
)


def main() -> None:
    """Run the benchmark that is named, with the options that follow it, or all of them."""
    name, options = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else (None, [])
    if name is not None and name not in BENCHMARKS:
        sys.exit(f"no benchmark is called {name}; known: {', '.join(BENCHMARKS)}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, libzmq {zmq.zmq_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}"
    )
    for each in (name,) if name is not None else BENCHMARKS:
        importlib.import_module(f"benchmarks.{each}").main(options)


if __name__ == "__main__":
    main()
