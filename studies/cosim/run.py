"""Runs the parts of this study, all or those named: see README.md for claims and results."""

from __future__ import annotations

import argparse
from importlib import import_module
from time import perf_counter

PARTS = ("crossing", "overhead", "surrogate", "digits", "write_verify")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--smoke", action="store_true", help="seconds each, numbers mean nothing")
    parser.add_argument("--out", metavar="DIR", help="where results and pictures go")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    passed = ["--smoke"] * arguments.smoke + (["--out", arguments.out] if arguments.out else [])
    for part in arguments.parts or PARTS:
        start = perf_counter()
        print(f"== {part}", flush=True)
        import_module(part).main(passed)
        print(f"== {part}: {perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
