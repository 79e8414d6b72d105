"""One row by feature name to one output, compiled for a model: the shortest way there is."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from tickserve_server.serving.contract import InputContract
from tickserve_server.serving.engine import Engine

Ask = Callable[[dict[str, float | None]], Any]


def compile_row(contract: InputContract, engine: Engine) -> Ask:
    """Return a function from features by name to the output: a number, or a list of several.

    It returns None where the output is not finite, and raises Refusal as `write_row` does. Every
    name it uses is its own, which spares a look-up for each; it is for one thread, since inputs
    and outputs go through the engine's one row.
    """
    pick, width = contract.pick, contract.width
    pack = struct.Struct(f"<{width}f").pack_into
    target, run, read = engine.row_bytes, engine.bound_run(), engine.reader()
    write_checked, isfinite = contract.write_row, math.isfinite
    several = engine.outputs > 1

    def ask(features: dict[str, float | None]) -> Any:
        try:
            values = pick(features)
            pack(target, 0, *values)
            sound = len(features) == width and isfinite(sum(values))
        except (KeyError, struct.error, OverflowError, TypeError):
            sound = False
        if not sound:
            write_checked(features, target)
        run()
        output = read()
        return output if isfinite(sum(output) if several else output) else None

    return ask
