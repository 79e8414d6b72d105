"""Requests a second of 8 and 32 clients in a closed loop, beside a bare echo of the same bytes."""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Sequence

import msgspec

from benchmarks.daemon import running
from benchmarks.load import Load
from benchmarks.round_trip import echo_server, percentile, request

CLIENTS = (8, 32)


def main(options: Sequence[str]) -> None:
    """Measure single rows of the 5-feature 100-tree model, prediction records on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    chosen = parser.parse_args(options)
    body = [msgspec.msgpack.encode(request(5))]
    with running() as service, echo_server() as echoed:
        for clients in CLIENTS:
            with contextlib.ExitStack() as stack:
                loads = []
                for endpoint in (service.endpoints.predict, echoed):
                    load = Load(endpoint, body, clients=clients, expect=b"eurusd_1h_xgb_bench")
                    stack.callback(load.close)
                    loads.append(load)
                    load.run(0.5)
                turns = [
                    [load.run(chosen.seconds) for load in loads] for _ in range(chosen.repeats)
                ]
            assert not any(result.wrong for turn in turns for result in turn)
            ours, theirs = (statistics.median(turn[i].rate for turn in turns) for i in (0, 1))
            p99 = [percentile([d for t in turns for d in t[i].durations], 0.99) for i in (0, 1)]
            print(
                f"{clients:3} clients   {ours:8,.0f}/s  echo {theirs:8,.0f}/s  "
                f"ratio {ours / theirs:.2f}   p99 {p99[0]:.0f} µs  echo {p99[1]:.0f} µs"
            )
