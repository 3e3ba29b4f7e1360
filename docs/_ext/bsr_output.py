"""The directive ``bsr``: a command line of the package and what it prints, run at build time.

::

    ```{bsr} solve --alpha 0.4 --beta 2 --rho 0.5
    ```

A command that fails stops the build, so that a page cannot show what the program no longer does.
The option ``exit-code`` names the exit code of a command that is meant to fail.
"""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

from click.testing import CliRunner
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bsr_theory.cli import main


class BsrOutput(SphinxDirective):
    """Run ``bsr <argument>`` in a temporary folder and show the command with its output."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"exit-code": directives.nonnegative_int}

    def run(self) -> list[nodes.Node]:
        """Return one block that holds the command and its output."""
        command = self.arguments[0]
        runner = CliRunner()
        with runner.isolated_filesystem():
            result = runner.invoke(main, shlex.split(command), prog_name="bsr", terminal_width=88)
        if result.exit_code != self.options.get("exit-code", 0):
            raise self.error(
                f"bsr {command} ended with {result.exit_code}: "
                f"{result.output.strip()} {result.exception or ''}"
            )
        block = nodes.literal_block(text=f"$ bsr {command}\n{result.output.rstrip()}")
        block["language"] = "text"
        return [block]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("bsr", BsrOutput)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
