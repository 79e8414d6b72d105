"""ZAP handler dead; revoked key; unknown key; plaintext client: nothing is accepted."""

from __future__ import annotations

import contextlib
import json
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import msgspec
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client import BotKeys, Client, ConnectionFailed, ServerError, read_keys
from tickserve_client.messages import Equity, Label, Outcome
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.access.gate import Gate
from tickserve_server.access.grant import Grant
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.cli.asking import await_effect
from tickserve_server.runtime import Runtime

FAMILY = "eurusd_1h_xgb_bench"
OTHER = "us100_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
PING = b'{"v":1,"op":"ping","id":"1"}'
PATIENCE_S = 10.0
SILENCE_MS = 1_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon that asks for keys, with a model of each of two markets."""
    folder = tmp_path_factory.mktemp("curve")
    made = Service(folder, settings={"SECURITY__CURVE": "true"})
    registry = ModelRegistry(str(made.storage))
    for market in ("eurusd", "us100"):
        info = model_info() | {"market": market}
        registry.save_model(train(trees=5), info, environment="production")
    made.keys = key(made, "harness")
    with made:
        yield made
        assert made.stop() == 0


def folder_of(service: Service) -> KeyFolder:
    """Return the daemon's keys."""
    return KeyFolder(service.storage / "keys")


def key(service: Service, name: str, **grant: object) -> BotKeys:
    """Make a key, as `tickserve keys new` does, and return it once the daemon, if up, knows it."""
    out = service.storage.parent / f"{name}.key.json"
    folder = folder_of(service)
    folder.create(name, out=out, **grant)  # type: ignore[arg-type]
    revision, runtime = folder.ring().revision, Runtime(service.storage)
    for endpoint in (runtime.admin_serving, runtime.admin_recorder):
        if service.keys is not None:
            await_effect(endpoint, lambda report: report["keys_revision"] >= revision)
    return read_keys(out)


def client(service: Service, keys: BotKeys | None, *, bot: str | None = None) -> Client:
    """Return a client of the daemon with the given keys."""
    name = bot or (keys.bot if keys else "bot")
    return Client(service.endpoints.predict, bot=name, currency="USD", timeout=0.5, keys=keys)


def accepts(client: Client) -> bool:
    """Whether a new connection is let in within the time that a good one takes many times over."""
    with client:
        try:
            return client.ping(timeout=1.5).ready
        except ConnectionFailed:
            return False


def unauthorized(call: object) -> ServerError:
    """Return the refusal of a call, which must be `unauthorized`."""
    assert callable(call)
    with pytest.raises(ServerError) as refused:
        call()
    assert refused.value.code == "unauthorized"
    return refused.value


def strangers() -> dict[str, BotKeys | None]:
    """Return keys that the daemon must not let in."""
    public, secret = (each.decode() for each in zmq.curve_keypair())
    return {"plaintext": None, "unknown": BotKeys(bot="x", public=public, secret=secret, server="")}


def test_plaintext_and_unknown_keys_get_nowhere(
    service: Service, figure: Callable[[str], None]
) -> None:
    """On any of the three endpoints, 20 connections each: none is let in; a good key always is."""
    good = key(service, "good")
    server = folder_of(service).server().public
    accepted = dict.fromkeys(strangers(), 0)
    for name, keys in strangers().items():
        stranger = None if keys is None else msgspec.structs.replace(keys, server=server)
        for endpoint, kind in doors(service):
            accepted[name] += sum(connected(endpoint, stranger, kind=kind) for _ in range(20))
    assert accepted == {"plaintext": 0, "unknown": 0}
    for endpoint, kind in doors(service):
        assert all(connected(endpoint, good, kind=kind) for _ in range(20))
    figure("120 connections of strangers: 0 accepted; 60 of a good key: 60")
    wrong_server = msgspec.structs.replace(good, server=good.public)
    assert not connected(service.endpoints.predict, wrong_server)


def doors(service: Service) -> list[tuple[str, int]]:
    """Return each endpoint with the kind of socket that goes with it."""
    predict, feedback, events = service.endpoints
    return [(predict, zmq.DEALER), (feedback, zmq.DEALER), (events, zmq.SUB)]


def connected(endpoint: str, keys: BotKeys | None, *, kind: int = zmq.DEALER) -> bool:
    """Whether a handshake succeeds, as libzmq's own monitor has it."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        if keys is not None:
            keys.secure(socket)
        monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
        )
        socket.connect(endpoint)
        try:
            if not monitor.poll(SILENCE_MS):
                return False
            event = int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)
            return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        finally:
            socket.disable_monitor()
            monitor.close()


def test_a_revocation_ends_what_is_connected(
    service: Service, figure: Callable[[str], None]
) -> None:
    """The key's next request is refused, its subscription ends, it cannot connect again."""
    revoked, other = key(service, "revoked"), key(service, "staying")
    with client(service, revoked) as bot, client(service, other) as stays:
        assert bot.predict(FAMILY, ROW).output
        assert told(bot, build_of(service, FAMILY)) == "recorded"
        with subscriber(service, revoked) as cut, subscriber(service, other) as kept:
            assert cut.recv_multipart()
            assert kept.recv_multipart()
            began = time.monotonic()
            folder_of(service).revoke("revoked")
            for call in (partial(bot.predict, FAMILY, ROW), partial(bot.report, trade="2")):
                refused = until_refused(call)
                assert (refused.code, "revoked" in str(refused)) == ("unauthorized", True)
            figure(f"both endpoints refuse {time.monotonic() - began:.3f} s after the revocation")
            until_silent(cut)
            assert kept.recv_multipart()
        assert stays.predict(FAMILY, ROW).output
    assert not accepts(client(service, revoked))


def until_refused(call: Callable[[], object]) -> ServerError:
    """Call until the daemon refuses; return what it says."""
    began = time.monotonic()
    while time.monotonic() - began < 1.0:
        try:
            call()
        except ServerError as error:
            return error
    raise AssertionError("a revoked key is still answered after a second")


@contextlib.contextmanager
def subscriber(service: Service, keys: BotKeys, topic: str = "") -> Iterator[zmq.Socket[bytes]]:
    """A subscriber that waits for the next heartbeat."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5_000
        keys.secure(socket)
        socket.subscribe(topic)
        socket.connect(service.endpoints.events)
        yield socket


def until_silent(socket: zmq.Socket[bytes]) -> None:
    """Wait until nothing comes for two heartbeats."""
    deadline = time.monotonic() + PATIENCE_S
    while socket.poll(2_500):
        socket.recv_multipart()
        assert time.monotonic() < deadline


def told(bot: Client, build: str) -> str:
    """Report a trade; return what became of it."""
    return bot.report(trade="1", build=build, pnl=1.0, closed_at=1_700_000_000_000).status


def build_of(service: Service, family: str) -> str:
    """Return the build of a family."""
    return ModelRegistry(str(service.storage)).find(family).build


def test_a_key_reaches_what_it_was_granted_and_no_more(service: Service) -> None:
    """Operations, models and names, on every way to ask; refusals name what is missing."""
    narrow = key(service, "narrow", markets=["eurusd"])
    asks = key(service, "asks", operations=["predict"])
    tells = key(service, "tells", operations=["feedback"], models=[FAMILY])
    with client(service, narrow) as bot:
        assert bot.predict(FAMILY, ROW).output
        assert [card.family for card in bot.models()] == [FAMILY]
        for name in (OTHER, f"{OTHER}_v1", build_of(service, OTHER)):
            assert unauthorized(lambda name=name: bot.predict(name, ROW)).details["model"] == OTHER
            unauthorized(lambda name=name: bot.predict(name, [[0.0] * 5] * 300))
        unauthorized(lambda: bot.report(trade="1", build=build_of(service, OTHER), pnl=1.0))
        assert told(bot, build_of(service, FAMILY)) == "recorded"
    with client(service, narrow, bot="somebody") as bot:
        assert unauthorized(lambda: bot.report(trade="1", pnl=1.0)).details == {"bot": "somebody"}
    with client(service, asks) as bot:
        assert bot.predict(OTHER, ROW).output
        with pytest.raises(ConnectionFailed):
            bot.report(trade="1", pnl=1.0, timeout=1.0)
    with client(service, tells) as bot:
        assert unauthorized(lambda: bot.predict(FAMILY, ROW)).details == {"operation": "predict"}
        assert told(bot, build_of(service, FAMILY)) == "recorded"
        batch: list[Outcome | Label | Equity] = [
            Equity(bot="narrow", run="r", at=0, equity=1.0),
            Label(prediction_id="x", value=1, at=0),
        ]
        unauthorized(lambda: bot.tell(batch))
    assert not connected(service.endpoints.events, tells, kind=zmq.SUB)


def test_several_models_are_each_decided_on(service: Service) -> None:
    """What a key does not reach is refused in its place, and nothing else is."""
    keys = key(service, "several", models=[FAMILY])
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.rcvtimeo = 0, 5_000
        keys.secure(socket)
        socket.connect(service.endpoints.predict)
        request = {"v": 1, "op": "predict", "models": [FAMILY, OTHER], "features": ROW}
        socket.send(json.dumps(request).encode())
        replies = json.loads(socket.recv())["predictions"]
    assert [reply["op"] for reply in replies] == ["prediction", "error"]
    assert replies[1]["code"] == "unauthorized"


def test_a_subscriber_gets_what_its_key_reaches(service: Service) -> None:
    """A subscription to everything comes to heartbeat and the models within reach."""
    keys = key(service, "listens", models=[FAMILY])
    registry = ModelRegistry(str(service.storage))
    with subscriber(service, keys) as socket:
        assert socket.recv_multipart()[0] == b"heartbeat"
        for name in (OTHER, FAMILY):
            registry.halt_model(name, reason="test")
        topics = set()
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            topics.add(socket.recv_multipart()[0].decode())
        registry.resume_model()
    assert topics == {"heartbeat", f"halt.{FAMILY}_v1"}


def test_without_its_handler_nobody_gets_in_and_it_comes_back(tmp_path: Path) -> None:
    """Dead, libzmq refuses all, also keys that are known; replaced, good keys get in again."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create("good", out=tmp_path / "good.json")
    good = read_keys(tmp_path / "good.json")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        server.linger = 0
        gate = Gate(context, folder)
        gate.secure(server, "predict")
        endpoint = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
        assert [connected(endpoint, good) for _ in range(5)] == [False] * 5
        gate.start()
        assert connected(endpoint, good)
        gate._zap.stop()
        assert [connected(endpoint, good) for _ in range(5)] == [False] * 5
        gate._zap._stopping.clear()
        gate.service()
        assert connected(endpoint, good)
        gate.stop()


def test_a_handler_that_is_stuck_lets_nobody_in(tmp_path: Path) -> None:
    """No verdict is no permission."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create("good", out=tmp_path / "good.json")
    good = read_keys(tmp_path / "good.json")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        server.linger = 0
        with context.socket(zmq.REP) as silent:
            silent.linger = 0
            silent.bind("inproc://zeromq.zap.01")
            gate = Gate(context, folder)
            gate.secure(server, "predict")
            endpoint = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
            assert not connected(endpoint, good)
            assert silent.poll(0)


def test_a_message_without_a_user_is_nobody_s(tmp_path: Path) -> None:
    """Should a socket ever take plaintext, its messages carry no User-Id, and allow nothing."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create("good", out=tmp_path / "good.json")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        gate = Gate(context, folder)
        endpoint = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
        with context.socket(zmq.DEALER) as plain:
            plain.connect(endpoint)
            plain.send(PING)
            grant: Grant = gate.grant_of(server.recv_multipart(copy=False)[-1])
    assert not grant.operations


def test_a_recorded_handshake_cannot_be_replayed(service: Service) -> None:
    """The bytes of a good client's whole conversation, sent again, get no answer to its request."""
    keys = key(service, "recorded")
    host, port = service.endpoints.predict.removeprefix("tcp://").split(":")
    with Tap((host, int(port))) as tap:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger, socket.rcvtimeo = 0, 5_000
            keys.secure(socket)
            socket.connect(tap.endpoint)
            socket.send(PING)
            assert b"pong" in socket.recv()
        sent, answered = tap.sent(), tap.received()
    assert len(sent) > 400
    for _ in range(10):
        with sockets.create_connection((host, int(port)), timeout=2.0) as again:
            again.sendall(sent)
            again.settimeout(1.0)
            got = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while chunk := again.recv(65536):
                    got += chunk
            # The greeting and WELCOME come to anybody; READY and the reply do not.
            assert len(got) < len(answered) - 50


class Tap:
    """A TCP proxy for one connection that keeps what both sides said."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = sockets.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._heard: dict[str, bytes] = {"sent": b"", "received": b""}
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def sent(self) -> bytes:
        """Return what the client said."""
        return self._heard["sent"]

    def received(self) -> bytes:
        """Return what the server said."""
        return self._heard["received"]

    def _accept(self) -> None:
        ours, _ = self._listener.accept()
        theirs = sockets.create_connection(self._target)
        back = threading.Thread(target=self._pump, args=(theirs, ours, "received"), daemon=True)
        self._threads.append(back)
        back.start()
        self._pump(ours, theirs, "sent")

    def _pump(self, source: sockets.socket, target: sockets.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._heard[name] += chunk
                target.sendall(chunk)
            target.shutdown(sockets.SHUT_WR)
        if name == "received":
            source.close()
            target.close()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in list(self._threads):
            thread.join(PATIENCE_S)
        self._listener.close()


def tickserve(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the daemon's storage, as its user."""
    command = [sys.executable, "-m", "tickserve_server", *arguments]
    command += ["--storage", str(service.storage)]
    folder = service.storage.parent
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=service.environment
    )


def test_the_commands_make_list_and_revoke_keys(service: Service) -> None:
    """A key of the command works as soon as the command ends, and not after its revocation."""
    made = tickserve(service, "keys", "new", "alice", "--market", "EURUSD")
    assert made.returncode == 0, made.stderr
    keys = read_keys(service.storage.parent / "alice.key.json")
    assert accepts(client(service, keys))
    listed = {
        each["name"]: each
        for each in json.loads(tickserve(service, "keys", "list", "--json").stdout)["keys"]
    }
    assert listed["alice"]["markets"] == ["eurusd"]
    assert "alice" in tickserve(service, "keys", "list").stdout
    assert tickserve(service, "keys", "new", "bob", "--operation", "trade").returncode == 2
    done = tickserve(service, "keys", "revoke", "alice")
    assert done.stdout == "alice is locked out now\n"
    assert not accepts(client(service, keys))
    ping = tickserve(service, "ping", "--predict", service.endpoints.predict)
    assert ping.returncode == 0, ping.stderr
    assert tickserve(service, "status").returncode == 0


def test_refusals_are_in_the_log_and_do_not_flood_it(service: Service) -> None:
    """Who was refused, where from and why; of a hundred attempts a few lines, and their number."""
    server = folder_of(service).server().public
    public, secret = (each.decode() for each in zmq.curve_keypair())
    stranger = BotKeys(bot="x", public=public, secret=secret, server=server)
    for _ in range(100):
        connected(service.endpoints.predict, stranger)
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    refused = [line for line in lines if line["event"] == "connection_refused"]
    mine = [line for line in refused if line["key"] == public[:8]]
    assert mine[0]["reason"] == "unknown key"
    assert mine[0]["address"] == "127.0.0.1"
    assert 1 <= len(mine) < 20
    secrets = [secret, json.loads(folder_of(service).server_file.read_text())["secret"]]
    assert not any(each in service.log.read_text() for each in secrets)
