"""Runs the comparison with what `make bench-peers` has installed."""

from __future__ import annotations

import sys

from benchmarks.peers.comparison import main

main(sys.argv[1:])
