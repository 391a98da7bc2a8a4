"""The command group, and what every command's end looks like: one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from spicenn import __version__
from spicenn.cli.calibrate import calibrate
from spicenn.cli.codes import BUG, FAILED, INTERRUPTED, USAGE
from spicenn.cli.compile import compile_
from spicenn.cli.cosim import cosim
from spicenn.cli.demo import demo
from spicenn.cli.doctor import doctor
from spicenn.cli.energy import energy
from spicenn.cli.fit import fit
from spicenn.cli.learn import learn
from spicenn.cli.report import report
from spicenn.cli.run import run
from spicenn.cli.technology import technology
from spicenn.cli.text import one_line
from spicenn.cli.train import train
from spicenn.errors import SpicennError

_EPILOG = """\b
Exit codes
  0    done
  1    it could not be done: one line on standard error says what, where, what to do
  2    the command line is wrong
  3    done, but some chips failed, ngspice disagrees or the calibration was refused
  70   an error inside spicenn; SPICENN_DEBUG=1 shows its traceback
  130  interrupted

\b
Example: from a model to a report
  spicenn compile model:build --trust-model --example x.npy -o net.spicenn
  spicenn run net.spicenn x.npy --chips 50 --seed 1 --store runs/net.zarr
  spicenn energy runs/net.zarr --samples 4 --chips 3
  spicenn report runs/net.zarr --labels y.npy -o report.html
"""


class Program(click.Group):
    """A group whose commands never end in a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of work, not of the alphabet

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = self._guarded(args, prog_name or "spicenn", complete_var, extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def _guarded(
        self,
        args: Sequence[str] | None,
        prog_name: str,
        complete_var: str | None,
        extra: dict[str, Any],
    ) -> int:
        debug = bool(os.environ.get("SPICENN_DEBUG"))
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else prog_name
            return _fail(f"{error.format_message()} (see '{path} --help')", USAGE)
        except click.ClickException as error:
            return _fail(error.format_message(), FAILED)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except SpicennError as error:
            if debug:
                traceback.print_exc()
            return _fail(str(error), FAILED)
        except BrokenPipeError:
            # The reader went away; nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except Exception as error:
            if debug:
                traceback.print_exc()
            hint = "" if debug else "; run again with SPICENN_DEBUG=1 for the traceback"
            return _fail(f"unexpected {type(error).__name__}: {error}{hint}", BUG)
        return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {one_line(message)}", err=True)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings as one line; other libraries' are for developers."""
    ours = Path(__file__).parents[1]
    if Path(filename).is_relative_to(ours) or os.environ.get("SPICENN_DEBUG"):
        click.echo(f"warning: {one_line(str(message))}", err=True)


@click.group(
    cls=Program,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="spicenn")
def program() -> None:
    """From a trained PyTorch network to many manufactured analog chips in ngspice, and back.

    Compile a model to crossbar tiles, train it for the hardware, run manufactured copies of
    the chip, measure what an inference costs, fit a surrogate, calibrate it to one chip, look
    at the result.
    """


for _command in (
    doctor, technology, compile_, train, run, energy, fit, calibrate, report, cosim, learn, demo,
):  # fmt: skip
    program.add_command(_command)


def main() -> int:
    """Run the command line; the entry point of ``spicenn``. Returns the exit code."""
    return int(program.main(standalone_mode=False))
