"""Measurements, each a ratio of two sides interleaved in one run; `python -m benchmarks`."""
