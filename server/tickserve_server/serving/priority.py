"""Who comes first among threads: the loop and its input and output, before all beside them."""

from __future__ import annotations

import os
import threading

NICENESS = 5


def yield_to_the_loop() -> None:
    """Lower this thread's priority; Linux keeps one for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
