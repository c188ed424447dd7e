"""A real browser, headless and without a network: what a page is once its scripts have run, and what axe-core finds."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fieldbook"
AXE = max(CACHE.glob("axe-*.js"), default=None)
HOSTED = os.environ.get("CI") == "true"  # there, what is missing is a failure
needs_browser = pytest.mark.skipif(BROWSER is None and not HOSTED, reason="there is no chromium: .ci/browser")
needs_axe = pytest.mark.skipif(AXE is None and not HOSTED, reason="there is no axe-core: .ci/browser")
RUN = """<script>axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const told = document.createElement("pre");
  told.id = "axe-found";
  told.textContent = JSON.stringify(found.violations.map(one =>
    ({rule: one.id, impact: one.impact, where: one.nodes.map(node => node.html.slice(0, 200)).slice(0, 3)})));
  document.body.append(told);
});</script>"""


def opened(address: str, folder: Path, seconds: float = 3, *options: str) -> tuple[str, str]:
    """Return the document after so many of its own seconds, and what the browser had to say.

    Parameters
    ----------
    address : of the page; a file, or a server of this machine.
    folder : for the browser's profile.
    """
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder / 'profile'}"]
    command += [*options, f"--virtual-time-budget={seconds * 1000:.0f}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def serious(page: str, folder: Path, dark: bool = False) -> list[dict[str, Any]]:
    """Return what axe-core finds serious or critical on a page, without its policy: axe-core is a script, too."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    script = AXE.read_text().replace("</script", "<\\/script")
    (folder / "page.html").write_text(page.replace("</body>", f"<script>{script}</script>{RUN}</body>"))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    document, _ = opened((folder / "page.html").as_uri(), folder, 20, scheme)
    found = json.loads(unescape(re.search(r'(?s)<pre id="axe-found">(.*?)</pre>', document)[1]))
    return [one for one in found if one["impact"] in ("serious", "critical")]
