"""``python -m kahler_verify`` is the ``kahler-verify`` command."""

from kahler_verify.cli import app

if __name__ == "__main__":
    app()
