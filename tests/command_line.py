"""Run the command line inside the process of a test."""

from __future__ import annotations

import json
import shlex
from typing import Any

from click.testing import CliRunner, Result

from bsr_theory import cli


def bsr_run(line: str, exit_code: int = 0) -> Result:
    """Run ``bsr <line>``; nothing but the click machinery lies between this and a shell."""
    result = CliRunner().invoke(cli.main, shlex.split(line), prog_name="bsr")
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return result


def strict_json(text: str) -> Any:
    """Read JSON as the standard has it, without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def as_json(line: str) -> Any:
    return strict_json(bsr_run(f"{line} --format json").stdout)
