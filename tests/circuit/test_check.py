"""What must not reach ngspice is refused by line, and what is fine passes."""

from __future__ import annotations

import pytest

from spicenn.circuit import check_command, check_netlist
from spicenn.errors import NetlistError


@pytest.mark.parametrize(
    "line",
    [
        ".control",
        "  .CONTROL",
        ".include /etc/passwd",
        ".lib other.lib tt",
        ".exec",
        ".cont\n+rol",
        "*#shell touch pwned",
        ".model p d_process (process_file=x)",
        ".model\n+ p d_cosim(delay=1)",
        '.model s filesource (file="x")',
        '.model s "filesource" (a=1)',
        # For ngspice "=" and brackets are blanks there.
        '.model t table2d (order=3 file "/etc/passwd")',
        ".model t table2d [file] /etc/passwd",
        '.model p other process_file "/bin/sh"',
        "v1 a 0 pwl file=x",
        "v1 a 0 pwlfile = x",
        ".inc x",
        ".lib x",
        ".endl",
        '.include"x"',
        "r1 a b 1\x00",
        "r1 a µ 1",
    ],
)
def test_refused_with_its_line(line):
    with pytest.raises(NetlistError, match="line 3"):
        check_netlist(f"* title\nv1 a 0 1\n{line}\n.end\n")


def test_parameters_that_only_sound_like_files_pass():
    lines = ["r1 a b r={profile*2}", ".param profile=1", ".model m r(r=1)", ".if (profile==1)"]
    assert check_netlist("\n".join([*lines, ".endif"])) == [*lines, ".endif"]


def test_accepted_and_cleaned():
    text = "* title\nv1 a 0\n* between\n+ sin(0 1 1k)\r\n\n.tran 1u 1m ; end\n.end"
    assert check_netlist(text) == ["v1 a 0 sin(0 1 1k)", ".tran 1u 1m ; end", ".end"]


@pytest.mark.parametrize(
    "command", ["op", "DC v1 0 1 0.1", "alter @r1[resistance]=2", "tran 1u 1m"]
)
def test_commands_that_analyse(command):
    assert check_command(command) == command.lower()


@pytest.mark.parametrize(
    "command",
    ["", "shell ls", "!ls", "op; shell ls", "op > file", "dc `ls` 0 1 1", "source x", "quit",
     "op\nquit", "tran 1 " + "1" * 2000],
)  # fmt: skip
def test_commands_that_do_more(command):
    with pytest.raises(NetlistError, match="not allowed"):
        check_command(command)
