"""The benchmarks run, scaled down; nothing here is timed."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.load import Plan
from benchmarks.peers import http_load


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["registry_costs", "--largest", "10"], "write-back ÷ bare"),
        (["round_trip", "--blocks", "1", "--plain"], "served ÷ echo"),
        (["throughput", "--repeats", "1", "--seconds", "0.3"], "32 clients"),
        (["batches", "--repeats", "1", "--seconds", "0.3"], "single rows beside"),
        (["reloads", "--reloads", "4"], "first reply by the new build"),
        (["reload_soak", "--reloads", "20"], "descriptors"),
        (["many_models", "--models", "5"], "MiB a model"),
        (["soak", "--seconds", "6"], "exit code 0"),
        (["records", "--seconds", "1", "--repeats", "1"], "killed half-way"),
        (
            ["outcomes", "--outcomes", "2000", "--builds", "5", "--steps", "1", "--singles", "500"],
            "low load p50",
        ),
        (["curve", "--blocks", "1"], "CURVE ÷ plain"),
        (["wire_parity", "--rows", "1000"], "MessagePack  tensor"),
    ],
)
def test_a_benchmark_runs(project_root: Path, arguments: list[str], words: str) -> None:
    """Each prints the machine's facts and its table."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "ONNX Runtime" in run.stdout
    assert words in run.stdout


def test_an_unknown_benchmark_is_named(project_root: Path) -> None:
    """A wrong name lists the right ones."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    assert "registry_costs" in run.stderr


class Answering(http.server.BaseHTTPRequestHandler):
    """A server that keeps connections and answers each post alike."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer after reading all."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "14")
        self.end_headers()
        self.wfile.write(b'{"output":0.5}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_http_clients_count_right_and_wrong_answers() -> None:
    """Four connections get answers; one that does not hold what is expected is wrong."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"127.0.0.1:{server.server_port}"
        for expect, wrong in ((b'"output":0.5', 0), (b'"output":0.6', 1)):
            body = http_load.post("/predict", b"{}")
            plan = Plan(endpoint, [body], 4, expect, 0.0)
            connections = http_load.connect(endpoint, 4)
            result = http_load.drive(connections, plan, 0.1)
            for connection in connections:
                connection.close()
            assert result.replies >= 4
            assert result.wrong == wrong * result.replies
        server.shutdown()
