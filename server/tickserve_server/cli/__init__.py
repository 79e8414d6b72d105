"""The `tickserve` command: a Typer application and what other packages add to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points

import typer

from tickserve_registry.errors import RegistryError
from tickserve_server.cli import (
    doctor,
    evaluation,
    halting,
    install,
    keys,
    ledger,
    lifecycle,
    listing,
    live,
    repair,
    service,
    signing,
    status,
)
from tickserve_server.cli.output import FAILURE, fail
from tickserve_server.errors import DaemonError
from tickserve_server.launcher import MISSING_EXTRA

PLUGINS = "tickserve.commands"

app = typer.Typer(
    name="tickserve",
    help="Where trained trading models go live: registry, prediction daemon, live performance.\n\n"
    "Exit codes: 0 done, 1 refused or wrong, 2 wrong usage or an extra is missing, "
    "3 the promotion policy is not met.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
service.add_to(app)
status.add_to(app)
listing.add_to(app)
lifecycle.add_to(app)
halting.add_to(app)
keys.add_to(app)
signing.add_to(app)
install.add_to(app)
doctor.add_to(app)
evaluation.add_to(app)
live.add_to(app)
ledger.add_to(app)
repair.add_to(app)


def main() -> None:
    """Run the command line; errors of ours become one line and exit code 1."""
    for plugin in _asked(entry_points(group=PLUGINS), sys.argv[1:]):
        app.command(plugin.name)(_load(plugin))
    try:
        app()
    except (DaemonError, RegistryError) as error:
        fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads on; the interpreter must not say so either
        sys.exit(FAILURE)
    except OSError as error:
        fail(f"{error.filename or 'the file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _asked(plugins: Iterable[EntryPoint], arguments: Sequence[str]) -> Iterable[EntryPoint]:
    """Return the plugins that a command line is about: all of them where it names no command.

    To import one takes longer than most commands do.
    """
    names = [arguments[0]] if arguments and not arguments[0].startswith("-") else None
    return [each for each in plugins if names is None or each.name in names]


def _load(plugin: EntryPoint) -> Callable[..., None]:
    """Return the plugin's function, or one that names the extra it lacks."""
    try:
        command: Callable[..., None] = plugin.load()
    except ModuleNotFoundError as error:
        missing = error.name

        def unavailable() -> None:
            fail(
                f"{plugin.name} needs {missing}; run: pip install 'tickserve[demo]'", MISSING_EXTRA
            )

        return unavailable
    return command
