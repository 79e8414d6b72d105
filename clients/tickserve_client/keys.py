"""A bot's key file: what the daemon's operator hands to whoever runs the bot."""

from __future__ import annotations

from pathlib import Path

import msgspec
import zmq

from tickserve_client.errors import KeyFileUnreadable


class BotKeys(msgspec.Struct, frozen=True, kw_only=True):
    """CURVE keys as Z85 text of 40 characters; `secret` is the bot's alone, `server` is public."""

    bot: str
    public: str
    secret: str
    server: str

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket speak CURVE with the daemon; before it connects."""
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()
        socket.curve_serverkey = self.server.encode()


def read_keys(path: str | Path) -> BotKeys:
    """Read the file that `tickserve keys new` made. Raises KeyFileUnreadable."""
    try:
        keys = msgspec.json.decode(Path(path).read_bytes(), type=BotKeys)
        with zmq.Context() as context, context.socket(zmq.DEALER) as probe:
            keys.secure(probe)
    except OSError as error:
        raise KeyFileUnreadable(path=str(path), reason=error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise KeyFileUnreadable(path=str(path), reason=str(error)) from error
    except zmq.ZMQError as error:
        reason = "a key in it is not 40 characters of Z85"
        raise KeyFileUnreadable(path=str(path), reason=reason) from error
    return keys
