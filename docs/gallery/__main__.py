"""Draw the pictures of the documentation again: ``python docs/gallery``, or some, by name.

Each script of this folder is run by itself and saves pictures beside where it runs; they go to
``docs/assets``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent / "assets"


def main(names: list[str]) -> None:
    """Run the scripts of these names, all by default."""
    scripts = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem != "__main__"}
    unknown = set(names) - set(scripts)
    if unknown:
        sys.exit(f"expected names among {', '.join(scripts)}, got {', '.join(sorted(unknown))}")
    for name in names or scripts:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
            subprocess.run([sys.executable, scripts[name]], cwd=folder, env=environment, check=True)
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, ASSETS / picture.name)
        print(f"{name}: {time.monotonic() - start:.0f} s")


main(sys.argv[1:])
