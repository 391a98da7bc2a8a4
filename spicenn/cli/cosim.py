"""``spicenn cosim``: run a co-simulation that a script builds, and keep what it recorded."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import click

from spicenn.cli import options
from spicenn.cli.signals import terminable
from spicenn.cli.types import FILE, QUANTITY

if TYPE_CHECKING:
    import xarray as xr

    from spicenn.cosim import Cosimulation

_RECORD, _TRACES, _EVENTS, _PICTURE = FILES = (
    "record.zarr", "traces.raw", "events.vcd", "picture.png",
)  # fmt: skip

_EPILOG = """\b
The script defines build(), which returns a Cosimulation with its processes started:
  import spicenn as sn

  CIRCUIT = "an RC\\nvin in 0 dc 0 external\\nr1 in out 1k\\nc1 out 0 1n"
  UNTIL = "20u"  # where --until is left out

\b
  def blink(env):
      while True:
          env.drive("vin", 1.0)
          yield env.crossing("out", above=0.7)
          env.emit("up")
          env.drive("vin", 0.0)
          yield env.crossing("out", below=0.3)

\b
  def build():
      env = sn.Cosimulation(CIRCUIT, max_step=1e-8)
      env.process(blink(env))
      return env

\b
Examples
  spicenn cosim blink.py --trust-script --out runs/blink
  spicenn cosim blink.py --trust-script --until 1m --out runs/blink
  gtkwave runs/blink/events.vcd

Interrupted, killed or failed, it keeps what was recorded until then.
"""


@click.command(epilog=_EPILOG)
@click.argument("script", type=FILE, metavar="SCRIPT")
@options.trust_script
@click.option(
    "--until",
    type=QUANTITY,
    metavar="TIME",
    help="Time to run to [s], e.g. 20u; 1m is a millisecond. The script's UNTIL if left out.",
)
@click.option(
    "--out",
    type=FILE,
    metavar="FOLDER",
    required=True,
    help=f"Where {', '.join(FILES[:-1])} and {_PICTURE} go; those of a run before are replaced.",
)
@options.as_json
def cosim(script: Path, trust_script: bool, until: float | None, out: Path, as_json: bool) -> None:
    """Run circuits in ngspice together with processes in Python, event by event.

    SCRIPT is a Python file; it is executed, and so needs --trust-script. Written are the
    record, the traces as a SPICE raw file, the events as VCD, and a picture of both.
    """
    if not trust_script:
        raise click.UsageError(
            f"running {script} executes code that it holds; "
            "if you trust it, say so with --trust-script"
        )
    from spicenn.cli.progress import time_progress
    from spicenn.study.lock import locked

    if until is not None:
        _check_until(until, "--until")
    _check_out(out)
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        stack.enter_context(terminable())
        if as_json:  # what the script prints is no part of the answer
            stack.enter_context(redirect_stdout(sys.stderr))
        env, own = load_script(script)
        stack.enter_context(env)
        if until is None:
            until = own
        if until is None:
            raise click.UsageError(f"say how long: --until 20u, or UNTIL = 20e-6 in {script}")
        import xarray as xr  # noqa: F401 - loading it is none of the run's time

        start = monotonic()
        failure: BaseException | None = None
        try:
            with time_progress(until) as env.progress:
                env.run(until)
        except BaseException as error:
            failure = error
        taken = monotonic() - start
        ds = env.dataset()
        write_results(ds, out)
    if failure is not None:
        _fail(failure, ds, script, out)
    _print(ds, out, taken, as_json=as_json)


def load_script(path: Path) -> tuple[Cosimulation, float | None]:
    """Execute a script; return what its ``build()`` returns, and its ``UNTIL`` [s].

    Raises InputError naming file and line where it fails, or where there is no such
    function or it returns something else.
    """
    from types import ModuleType

    from spicenn.cosim import Cosimulation
    from spicenn.errors import InputError

    where = str(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where) from error
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # its helpers lie beside it
        sys.path.insert(0, folder)
    # Known by a name, which dataclasses and pickles look for, but not as __main__.
    module = ModuleType("spicenn_script")
    module.__file__ = where
    sys.modules[module.__name__] = module

    with _placed(path):
        exec(compile(source, where, "exec"), module.__dict__)
    build: Callable[[], Any] | None = getattr(module, "build", None)
    if not callable(build):
        raise InputError(
            "has no function build()",
            where=where,
            remedy="let it return a Cosimulation, see spicenn cosim --help",
        )
    until = getattr(module, "UNTIL", None)
    if until is not None:
        from spicenn.technology import parse_quantity

        with _placed(path):
            until = _check_until(parse_quantity(until), "UNTIL")
    with _placed(path):
        env = build()
    if not isinstance(env, Cosimulation):
        raise InputError(
            f"build() returned {type(env).__name__}, not a Cosimulation",
            where=where,
            remedy="end it with: return env",
        )
    return env, until


def write_results(ds: xr.Dataset, out: Path) -> None:
    """Write record, traces, events and picture: each aside, then moved to its place.

    What there is of a run before is replaced. A record without a point has no traces.
    Raises StoreError where the folder cannot be written.
    """
    from spicenn.cosim.export import write_traces, write_vcd
    from spicenn.cosim.store import save_record
    from spicenn.errors import StoreError
    from spicenn.report.cosim import cosim_figure
    from spicenn.report.style import drawing, save

    aside = out / ".new"
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed here
        aside.mkdir()
        save_record(ds, aside / _RECORD)
        if any(size for dim, size in ds.sizes.items() if dim != "event"):
            write_traces(ds, aside / _TRACES)
        write_vcd(ds, aside / _EVENTS)
        with drawing():
            save(cosim_figure(ds), aside / _PICTURE)
        for name in FILES:
            _replace(aside, out, name)
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror}", where=str(out), remedy="give another --out"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replace(aside: Path, out: Path, name: str) -> None:
    """Move a file or folder to its place; what was there goes to the folder aside."""
    if (out / name).exists():
        (out / name).rename(aside / f"old-{name}")
    if (aside / name).exists():
        (aside / name).rename(out / name)


def _check_until(value: float, what: str) -> float:
    from spicenn.errors import InputError

    if not 0 < value < float("inf"):
        raise InputError(f"{what} = {value:g} s is not a time to run to")
    return value


def _check_out(out: Path) -> None:
    """Raise InputError where the folder holds something of another kind by our names."""
    from spicenn.cosim.store import is_cosimulation
    from spicenn.errors import InputError

    if out.exists() and not out.is_dir():
        raise InputError("is not a folder", where=str(out), remedy="give another --out")
    there = [name for name in FILES if (out / name).exists()]
    if there and not is_cosimulation(out / _RECORD):
        raise InputError(
            f"there is a {there[0]} which is not a co-simulation's",
            where=str(out),
            remedy="give another --out; nothing was changed",
        )


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """Turn what a script raises into one error that names its file and line."""
    from spicenn.errors import InputError, SpicennError

    try:
        yield
    except SyntaxError as error:
        place = f"{error.filename}:{error.lineno}" if error.lineno else str(path)
        raise InputError(f"is not Python: {error.msg}", where=place) from error
    except SpicennError as error:
        raise _elsewhere(error, _line(error, path) or str(path)) from error
    except (Exception, SystemExit) as error:
        said = f": {error}" if str(error) else ""
        raise InputError(
            f"the script failed with {type(error).__name__}{said}",
            where=_line(error, path) or str(path),
        ) from error


def _line(error: BaseException, path: Path) -> str | None:
    """``file:line`` of the script's last frame in a traceback, that of a cause included."""
    import traceback

    for source in (error, error.__cause__):
        if source is None:
            continue
        frames = traceback.extract_tb(source.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        if lines:
            return f"{path}:{lines[-1]}"
    return None


def _elsewhere(error: Any, *places: str | None, remedy: str | None = None) -> Any:
    """The same error with more to its place, and to its remedy."""
    where = "; ".join(place for place in (*places, error.where) if place)
    remedies = "; ".join(part for part in (error.remedy, remedy) if part)
    return type(error)(error.what, where=where or None, remedy=remedies or None)


def _fail(failure: BaseException, ds: xr.Dataset, script: Path, out: Path) -> NoReturn:
    """Raise what ended the run, with where its record is."""
    import shlex

    from spicenn.cli.text import note
    from spicenn.errors import CosimulationError, SpicennError
    from spicenn.report.quantity import quantity

    kept = (
        f"what was recorded until t = {quantity(float(ds.attrs['now']), 's')} is in "
        f"{shlex.quote(str(out))}"
    )
    if isinstance(failure, SystemExit):
        failure = CosimulationError("a process ended Python").with_traceback(failure.__traceback__)
    if isinstance(failure, SpicennError):
        raise _elsewhere(failure, _line(failure, script), remedy=kept) from failure
    note(kept)
    raise failure


def _print(ds: xr.Dataset, out: Path, taken: float, *, as_json: bool) -> None:
    from spicenn.cli.text import echo, echo_json, seconds
    from spicenn.cosim.reading import happenings_of, traces_of
    from spicenn.report.quantity import quantity

    now = float(ds.attrs["now"])
    blocks, rows = traces_of(ds), happenings_of(ds)
    if as_json:
        echo_json(
            {
                "out": str(out),
                "time": now,
                "seconds": taken,
                "points": {traces.block: traces.time.size for traces in blocks},
                "events": [
                    {"kind": row.kind, "name": row.name, "count": row.time.size} for row in rows
                ],
            }
        )
        return
    events = ds.sizes["event"]
    echo(f"run       {quantity(now, 's')} in {seconds(taken)}, {events / taken:.0f} events/s")
    for traces in blocks:
        block = f" of {traces.block}" if traces.block else ""
        echo(f"points    {traces.time.size}{block}")
    echo(f"events    {events}")
    _echo_rows([(row.kind, row.name, row.time.size) for row in rows])
    for head, name in (("record", _RECORD), ("traces", _TRACES), ("VCD", _EVENTS),
                       ("picture", _PICTURE)):  # fmt: skip
        if (out / name).exists():
            echo(f"{head:<9} {out / name}")


def _echo_rows(rows: Sequence[tuple[str, str, int]]) -> None:
    """One line per kind and name of events, as many as one can read."""
    from spicenn.cli.text import echo

    for kind, name, count in rows[:20]:
        echo(f"          {count:>6} {kind} {name}")
    if len(rows) > 20:
        rest = sum(count for _, _, count in rows[20:])
        echo(f"          {rest:>6} of {len(rows) - 20} more names")
