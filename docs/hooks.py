"""What mkdocs runs while it builds.

The page of commands gets what Typer itself says of them; roles of docstrings become plain names.

(mkdocs-typer2 0.4 reads the commands by attributes that Typer 0.29 no longer has, or runs a
``typer`` that has to be on the PATH.)
"""

import re
import subprocess
import sys
from typing import Any

MARK = "<!-- commands -->"
ROLE = re.compile(r":(?:class|func|meth|attr|mod):<code>(?:~?kahler_verify\.)?([\w.]+)</code>")
HELP = "* `--help`: Show this message and exit.\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the commands, without their common ``--help``."""
    if MARK not in markdown:
        return markdown
    command = ["-m", "typer", "kahler_verify.cli.commands", "utils", "docs"]
    done = subprocess.run(
        [sys.executable, *command, "--name", "kahler-verify"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    _, *sections = done.stdout.split("\n## ")
    text = "".join(f"\n## {section}" for section in sections).replace(HELP, "")
    return markdown.replace(MARK, text.replace("**Options**:\n\n\n", ""))


def on_page_content(html: str, **_: Any) -> str:
    """``:class:`~kahler_verify.errors.InputError``` reads InputError."""
    return ROLE.sub(lambda found: f"<code>{found[1].rpartition('.')[2]}</code>", html)
