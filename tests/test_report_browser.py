"""The report in a real browser: every picture is drawn, nothing spills over, on paper and phone.

Screenshots are left in ``$RESNET_REPRO_SHOTS`` if that is set.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from fabricate import fabricate
from resnet_repro.analysis import report, style

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

# The page in a frame of a device's width: a window cannot be made as narrow as a phone.
FRAME = """<body style="margin:0">
<iframe src="{page}" style="width:{width}px;height:{height}px;border:0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const images = [...page.images];
  document.title = JSON.stringify({{
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    lost: [...page.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
      .filter(id => !page.getElementById(id)),
    wide: page.documentElement.scrollWidth,
    ground: getComputedStyle(page.body).backgroundColor,
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a few runs."""
    root = tmp_path_factory.mktemp("study")
    for label in ("plain-20", "plain-56", "ResNet-20"):
        fabricate(root / "runs", label, profile="short", probes=True)
    out = root / "report" / "index.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 20)  # of the PNGs, which the page does not use
        assert report.main(["--runs", str(root / "runs"), "--out", str(out)]) == 0
    return out


def look(page: Path, place: Path, width: int, *, dark: bool) -> tuple[dict[str, object], Path]:
    """Open the page so wide; return what the browser says of it, and a screenshot."""
    frame, shot = place / "frame.html", place / "shot.png"
    frame.write_text(FRAME.format(page=page.as_uri(), width=width, height=3000), encoding="utf-8")
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={place / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={max(width, 600)},3000", f"--screenshot={shot}",
    ]  # fmt: skip
    for more in (["--dump-dom", frame.as_uri()], [frame.as_uri()]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        if "--dump-dom" in more:
            told = re.search(r"<title>(.*?)</title>", done.stdout)
            assert told, done.stderr[-2000:]
    return json.loads(told[1].replace("&quot;", '"')), shot


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
def test_the_page_in_a_browser(page, tmp_path, width, dark):
    told, shot = look(page, tmp_path, width, dark=dark)
    assert told["images"] >= 8
    assert told["broken"] == 0
    assert told["lost"] == []
    assert told["wide"] <= width, "nothing makes the page itself scroll sideways"
    red, green, blue = map(int, re.findall(r"\d+", str(told["ground"]))[:3])
    assert (red + green + blue < 150) == dark
    picture = Image.open(shot).convert("RGB").crop((0, 0, width, 3000))
    assert len(picture.getcolors(1 << 24) or []) > 200, "text and figures, not an empty page"
    if kept := os.environ.get("RESNET_REPRO_SHOTS"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        picture.save(Path(kept) / f"report_{width}_{'dark' if dark else 'light'}.png")
