"""Runs the benchmarks named on the command line, or all of them, and prints the machine's facts."""

from __future__ import annotations

import importlib
import os
import platform
import sys

import onnxruntime
import zmq

BENCHMARKS = ("round_trip",)


def main() -> None:
    """Run each benchmark's `main`, in the order named."""
    wanted = sys.argv[1:] or list(BENCHMARKS)
    unknown = set(wanted) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; known: {BENCHMARKS}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, libzmq {zmq.zmq_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}"
    )
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
