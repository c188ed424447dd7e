"""`python3 src STAGE`: what the stages of dvc.yaml call.

Run by path, so that a stage imports the package beside this file. In a temporary DVC workspace that is the
snapshot under test, not the package that happens to be installed.

`.venv/bin/dvc repro` works without an activated environment: whichever python3 is on the PATH, the project's own takes
over. DVC_ROOT names the project even in a temporary workspace, which has no environment.
"""

import os
import sys
from pathlib import Path

environment = Path(os.environ.get("DVC_ROOT", Path(__file__).resolve().parents[1])) / ".venv"
if (environment / "bin" / "python").exists() and Path(sys.prefix).resolve() != environment.resolve():
    os.execv(environment / "bin" / "python", [str(environment / "bin" / "python"), *sys.argv])

from fieldbook.cli import main  # noqa: E402

main()
