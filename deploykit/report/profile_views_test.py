"""The views of a profile: text, JSON, and a page that headless Chromium renders."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploykit.cost.layer import Measurement, ModelProfile, ProfiledOp, ProfiledRun
from deploykit.cost.profile import profile_model
from deploykit.report.html import Markup, element, table
from deploykit.report.profile_html import profile_to_html
from deploykit.report.profile_json import profile_to_json
from deploykit.report.profile_terminal import render_profile
from deploykit_testing.graphs import as_model, parse

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

NETWORK = """g (float[1, 4, 16, 16] x, float[8, 4, 1, 1] W, float[8] B, float[8, 1, 3, 3] D,
    float[5, 8] L) => (float[1, 5] y, float[1, 16, 16, 16] h) {
    axes = Constant <value_ints = [2, 3]> ()
    shape = Constant <value_ints = [1, 8]> ()
    a = Conv (x, W, B)
    r = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], group = 8> (r, D)
    t = Add (c, r)
    k = Concat <axis = 1> (t, t)
    h = HardSwish (k)
    m = ReduceMean <keepdims = 1> (t, axes)
    f = Reshape (m, shape)
    y = Gemm <transB = 1> (f, L) }"""


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    return profile_model(as_model(parse(NETWORK)))


@pytest.fixture(scope="module")
def measured(profile: ModelProfile) -> ModelProfile:
    layers = [layer for layer in profile.after.layers if not layer.is_view]
    times = {layer.name: 2.0 + index for index, layer in enumerate(layers)}
    unmeasured = {layer.name: "a view" for layer in profile.after.layers if layer.is_view}
    found = Measurement("LiteRT 9", "by hand", 40.0, times, unmeasured, 3)
    return replace(profile, measurement=found)


def test_terminal(measured: ModelProfile) -> None:
    text = render_profile(measured, layers=[measured.after])
    assert "before fusion" in text
    assert "measured on LiteRT 9: whole 40.0 us" in text
    assert "not measured: 1 x a view" in text
    assert "depthwise 3x3" in text
    assert "pointwise + Relu" in text
    rows = [line for line in text.splitlines() if line and line[0].isdigit()]
    assert len(rows) == len(measured.after.layers)


def test_json_has_every_figure(measured: ModelProfile) -> None:
    data = json.loads(profile_to_json(measured))
    before, after = data["stages"]
    assert (before["stage"], after["stage"]) == ("before fusion", "after fusion")
    total = after["total"]
    for name in ("parameters", "mult_adds", "flops", "mac_bytes", "activation_bytes"):
        assert total[name] == getattr(measured.after, name)
    assert total["flops"] == sum(layer["flops"] for layer in after["layers"])
    assert total["mac_bytes"] == sum(layer["mac_bytes"] for layer in after["layers"])
    assert after["layers"][0]["measured_us"] == 2.0
    assert before["layers"][0]["measured_us"] is None


def test_uncounted_is_null_in_json_and_a_question_mark_elsewhere() -> None:
    text = "g (float[1, 8] x) => (float[1, 8] y) { a = Sin (x) y = Relu (a) }".replace(
        " y =", "\ny ="
    )
    profile = profile_model(as_model(parse(text)))
    layer = json.loads(profile_to_json(profile))["stages"][1]["layers"][0]
    assert (layer["op_type"], layer["flops"], layer["mac_bytes"]) == ("Sin", None, None)
    shown = render_profile(profile, layers=[profile.after])
    assert "after fusion: 1 op uncounted: 1 Sin" in shown
    assert next(line for line in shown.splitlines() if line.startswith("Sin")).count("?") == 3
    assert "1 op uncounted: 1 Sin; the totals do not hold them" in profile_to_html(profile)


def test_the_runtime_s_own_profiler(measured: ModelProfile) -> None:
    assert measured.measurement is not None
    names = ["Conv <GEMM>" if x.mult_adds else "other" for x in measured.after.layers]
    for ops, note in ((names, "one a layer, in order"), (names[:-1], "do not match the layers")):
        run = ProfiledRun("LiteRT 9", 7, tuple(ProfiledOp(n, 3.0) for n in ops))
        profile = replace(measured, measurement=replace(measured.measurement, profiled=run))
        text = render_profile(profile, layers=[profile.after])
        assert note in text
        assert ("profiler\n" in text) == (ops is names)
        data = json.loads(profile_to_json(profile))
        assert len(data["measurement"]["runtime_profiler"]["ops"]) == len(ops)
        expected = 3.0 if ops is names else None
        assert data["stages"][1]["layers"][0]["profiler_us"] == expected
        page = profile_to_html(profile)
        assert "Conv &lt;GEMM&gt;" in page
        _check(page)


class _Checker(HTMLParser):
    """Tags that are closed in order, and nothing that reaches out of the page."""

    VOID = frozenset({"meta", "line", "rect", "circle", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.reaching: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.reaching += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "style", "onload")]
        if tag not in self.VOID or (
            tag in ("rect", "circle") and "/" not in (self.get_starttag_text() or "")
        ):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _check(page: str) -> _Checker:
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_page_is_whole_and_reaches_for_nothing(measured: ModelProfile) -> None:
    page = profile_to_html(measured)
    checker = _check(page)
    assert checker.reaching == []
    assert "script" not in checker.tags
    assert "link" not in checker.tags
    assert "url(" not in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page
    counted = [x for x in measured.after.layers if x.flops and x.mac_bytes]
    assert checker.tags.count("circle") == len(counted)
    assert page == profile_to_html(measured)


def test_without_times_the_page_plots_intensity(profile: ModelProfile) -> None:
    page = profile_to_html(profile)
    _check(page)
    assert "Arithmetic intensity" in page
    assert "measured time" not in page


def test_everything_is_escaped(profile: ModelProfile) -> None:
    evil = '"><script>alert(1)</script>&'
    layers = tuple(replace(layer, module=evil) for layer in profile.after.layers)
    page = profile_to_html(
        replace(profile, model=evil, after=replace(profile.after, layers=layers))
    )
    assert "<script" not in page
    assert "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page
    _check(page)


def test_elements() -> None:
    assert element("p", "a < b", Markup("<b>c</b>")) == "<p>a &lt; b<b>c</b></p>"
    assert element("rect", attributes={"x": 1.0, "y": 0.126, "class": 'a"b'}) == (
        '<rect x="1" y="0.13" class="a&quot;b"/>'
    )
    assert 'scope="col"' in table(["a"], [["b"]], caption="c")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} on PATH")
    return found


def _run_browser(browser: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'user-data'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_renders_it(
    browser: str, tmp_path: Path, measured: ModelProfile, scheme: str
) -> None:
    page, image = tmp_path / "profile.html", tmp_path / "profile.png"
    page.write_text(profile_to_html(measured), encoding="utf-8")
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    _run_browser(
        browser, tmp_path, setting, "--window-size=1240,1600", f"--screenshot={image}",
        page.as_uri(),
    )  # fmt: skip
    with Image.open(image) as image:
        assert image.size == (1240, 1600)
        pixels = np.asarray(image.convert("RGB"))
    ground = pixels[2, 2].astype(int)
    assert (ground.mean() > 200) == (scheme == "light")
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    inked = np.abs(pixels.astype(int) - ground).sum(axis=2) > 60
    assert inked.mean() > 0.01
    assert inked[800:].any()


def test_the_browser_s_document_has_every_layer(
    browser: str, tmp_path: Path, measured: ModelProfile
) -> None:
    page = tmp_path / "profile.html"
    page.write_text(profile_to_html(measured), encoding="utf-8")
    document = _run_browser(browser, tmp_path, "--dump-dom", page.as_uri())
    # totals (2), kinds, and the layers of both stages, each in a row with a separate header
    kinds = len({layer.kind.split(" ")[0] for layer in measured.after.layers})
    layers = len(measured.after.layers) + len(measured.before.layers)
    assert document.count('scope="row"') == 2 + kinds + layers
    for layer in measured.after.layers:
        assert f'scope="row">{layer.module or layer.name}<' in document
    assert document.count("<rect") > 3 * (len(measured.after.layers) - 2)
