"""A bot in a process of its own: asks at a pace, and writes what came of each request."""

from __future__ import annotations

import argparse
import json
import sys
import time

from tickserve_client import Client, ClientError


def main() -> None:
    """Ask until standard input ends."""
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "keys", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    chosen = parser.parse_args()
    row = {f"f{index}": 0.25 * index for index in range(5)}
    end = time.monotonic() + chosen.seconds
    with Client(chosen.endpoint, timeout=chosen.timeout, keys=chosen.keys) as client:
        while time.monotonic() < end:
            began, came = time.monotonic(), "answer"
            try:
                client.predict(chosen.model, row)
            except ClientError as error:
                came = type(error).__name__
            line = {"at": began, "took": time.monotonic() - began, "came": came}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            time.sleep(0.02)


if __name__ == "__main__":
    main()
