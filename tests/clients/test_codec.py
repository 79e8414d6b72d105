"""Bytes to messages and back, envelopes and times."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickserve_client.codec import (
    Encoder,
    milliseconds,
    predict_decoder,
    reply_decoder,
    split_envelope,
)
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import Ack, AckItem, Predict, Prediction, PredictRequest


@pytest.mark.parametrize("as_json", [True, False])
def test_a_request_survives_both_codecs(as_json: bool) -> None:
    """What is encoded decodes to the same message, and the codec is recognised."""
    request = Predict(id="42", model="eurusd_5m_xgb_trend", features={"rsi_14": 55.1, "gap": None})
    assert predict_decoder().decode(Encoder().encode(request, as_json=as_json)) == (
        request,
        as_json,
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_replies_survive_both_codecs(as_json: bool) -> None:
    """The client's decoder reads what the daemon encodes."""
    for reply in (
        Prediction(id="1", model_id="m_v1", build="m_v1_20250101", digest="ab", output=0.5),
        Ack(id="2", status="recorded", results=[AckItem(status="parked")]),
    ):
        body = Encoder().encode(reply, as_json=as_json)
        assert reply_decoder().decode(body) == (reply, as_json)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"{\xff", b"\x85", b'{"op":"predict","features":{"x":NaN}}', b"[" * 9999],
)
def test_unreadable_bytes_raise_one_error(body: bytes) -> None:
    """Whatever the bytes are, the caller sees ProtocolError and nothing else."""
    with pytest.raises(ProtocolError):
        predict_decoder().decode(body)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(body: bytes) -> None:
    """Random bytes are either a message or a ProtocolError."""
    with contextlib.suppress(ProtocolError):
        message, _ = predict_decoder().decode(body)
        assert isinstance(message, PredictRequest)


def test_an_unreadable_request_still_tells_its_id() -> None:
    """An error can be matched to its request although a field of it was wrong."""
    body = msgspec.json.encode({"op": "predict", "id": "7", "features": {"x": "text"}})
    with pytest.raises(ProtocolError) as caught:
        predict_decoder().decode(body)
    assert (caught.value.op, caught.value.request_id) == ("predict", "7")


@pytest.mark.parametrize(
    ("frames", "envelope"),
    [
        ([b"id", b"{}"], 1),
        ([b"id", b"", b"{}"], 2),
        ([b"id", b"req", b"", b"{}"], 3),
        ([b"id", b"", b"{}", b""], 2),
        ([b"id"], 1),
    ],
)
def test_the_envelope_ends_at_the_first_empty_frame(frames: list[bytes], envelope: int) -> None:
    """DEALER, REQ and REQ with correlation each get their envelope back unchanged."""
    assert split_envelope(frames) == (frames[:envelope], frames[envelope:])


def test_times_are_milliseconds_or_rfc_3339_with_an_offset() -> None:
    """Both forms mean the same instant; a naive time means nothing and is refused."""
    assert milliseconds(1742913000000) == milliseconds("2025-03-25T14:30:00Z")
    assert milliseconds("2025-03-25T15:30:00+01:00") == 1742913000000
    for value in ("2025-03-25T14:30:00", "yesterday", 10**30, -(10**30)):
        with pytest.raises(ProtocolError):
            milliseconds(value)
