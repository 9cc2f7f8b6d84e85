"""The screenshots of docs/explorer.md: ``python docs/explorer_screenshots.py CHECKPOINT``.

Needs the extra ``test`` and Chromium with chromedriver; see CONTRIBUTING.md.
"""

import base64
import sys
import threading
import time
from pathlib import Path
from shutil import which

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from kahler_verify.cli.explore import of_checkpoint
from kahler_verify.explorer.server import application, listening
from kahler_verify.explorer.session import Session

ASSETS = Path(__file__).parent / "assets"
VIEWS = {
    "explorer": (1280, 800, "light", "#layer=log_volume&tool=path&a=-1.2,-1.4&b=1.3,1.2"),
    "explorer-phone": (390, 844, "dark", "#layer=scalar_curvature&tool=ball&a=0.4,0.3&radius=2"),
}


def main(checkpoint: Path) -> None:
    session = Session(of_checkpoint(checkpoint, None))
    session.prepare()
    with listening(0) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(application(session, "docs", port), log_level="critical")
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        options = webdriver.ChromeOptions()
        options.binary_location = which("chromium") or ""
        for flag in ("headless=new", "no-sandbox", "hide-scrollbars"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(which("chromedriver")))
        for name, (width, height, scheme, view) in VIEWS.items():
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            driver.get("about:blank")
            driver.get(f"http://127.0.0.1:{port}/docs/{view}")
            settled(driver)
            layer = driver.execute_script("return document.getElementById('layer').value")
            if f"layer={layer}&" not in view:  # what it does not know it leaves out
                raise ValueError(f"expected the layer of {view}, got {layer}")
            deep = driver.execute_script("return document.documentElement.scrollHeight")
            shown = min(deep, 1100)
            clip = {"x": 0, "y": 0, "width": width, "height": shown, "scale": 1}
            picture = driver.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
            )
            (ASSETS / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))
        driver.quit()
        server.should_exit = True


def settled(driver: webdriver.Chrome) -> None:
    """Wait until nothing is computed any more."""
    done = (
        "return document.body.dataset.busy === '' && document.getElementById('live').textContent"
        " && document.querySelector('.latent-map')?.dataset.size === '81'"
    )
    for _ in range(1200):
        if driver.execute_script(done):
            return
        time.sleep(0.1)
    raise TimeoutError(driver.execute_script("return document.body.textContent"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
