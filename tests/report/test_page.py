"""The page as a reader's browser shows it."""

import pathlib
import re
import shutil

import pytest

from rethinking import report
from rethinking.report import paper
from rethinking.settings import cifar10, setting
from tests.report.runs import MARKUP, hostile_page, make_run, write_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    if not CHROMIUM:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Opens a file. The test fails if the page logs an error or requests any other address."""
    tabs, wrong = [], []

    def show(file, width=1280, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tabs.append(tab)
        tab.on(
            "console",
            lambda message: message.type in ("error", "warning") and wrong.append(message.text),
        )
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request",
            lambda request: (
                request.url == file.as_uri()
                or request.url.startswith("data:")
                or wrong.append(request.url)
            ),
        )
        tab.goto(file.as_uri())
        charts = "[...document.querySelectorAll('.chart')].filter(chart => chart.checkVisibility())"
        tab.wait_for_function(f"{charts}.every(chart => chart.querySelector('svg'))")
        return tab

    yield show
    for tab in tabs:
        tab.close()
    assert not wrong


def ticks(tab, figure):
    """The labels of the first chart's axes."""
    chart = tab.locator(f"#{figure} .chart").first
    return chart.locator(".role-axis-label text").all_text_contents()


def test_a_number_in_a_table_opens_its_runs(open_page, everything_page):
    tab = open_page(everything_page)
    row = tab.locator(
        "#table-table1 tr", has=tab.get_by_role("rowheader", name=re.compile(r"^inception \d"))
    )
    assert row.locator("td").all_text_contents() == [
        "99.80 ± 0.00 (3)",
        "100.0",
        "≠ -0.20",
        "86.40 ± 0.40 (3)",
        "85.75",
        "≠ +0.65",
        "10.0 ± 0.0 (3)",
        "3",
    ]
    row.get_by_role("link", name="86.40").click()
    dialog = tab.get_by_role("dialog")
    assert (
        dialog.locator("code")
        .first.inner_text()
        .startswith("python -m rethinking.main --config=configs/figure1.py")
    )
    assert dialog.get_by_role("link", name="config").count() == 3
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_the_page_begins_with_what_the_runs_found(open_page, everything_page):
    tab = open_page(everything_page)
    first = tab.locator("main li").first
    assert first.inner_text().startswith("On CIFAR10, Inception, Inception without BN")
    top = first.bounding_box()["y"]
    assert top < 300 and tab.locator("nav").bounding_box()["y"] > top
    groups = tab.locator("nav b").all_inner_texts()
    assert groups == ["Tables", "Figures", "Curves"]


def test_a_point_shows_its_values(open_page, everything_page):
    tab = open_page(everything_page)
    chart = tab.locator("#figure_1c_cifar10 .chart").first
    chart.scroll_into_view_if_needed()
    # The third marker of Inception, the first series, is at p = 0.4: 44.16% on average.
    marker = chart.locator("g.mark-symbol.role-mark path").nth(2)
    box = marker.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    keys, shown = (tip.locator(f"td.{part}").all_inner_texts() for part in ("key", "value"))
    values = {key.rstrip(":"): text for key, text in zip(keys, shown, strict=True)}
    assert (
        values
        == {
            "series": "Inception",
            "label corruption p": "0.4",
            "test error": "44.16%",
            "smallest": "43.92%",
            "largest": "44.4%",
            "runs": "3",
        }
        or values["largest"] == "44.40%"
    )


def test_a_click_on_the_legend_fades_the_other_series(open_page, everything_page):
    tab = open_page(everything_page)
    chart = tab.locator("#figure_1c_cifar10 .chart").first
    faded = "g.mark-line.role-mark path[opacity='0.1']"
    assert chart.locator(faded).count() == 0
    chart.locator("g.role-legend-label text", has_text="AlexNet").first.click()
    tab.wait_for_function(
        f"""document.querySelectorAll("#figure_1c_cifar10 {faded}").length === 3"""
    )


def test_a_logarithmic_axis_shows_the_peak_that_a_linear_one_cuts(open_page, tmp_path):
    settings = setting(cifar10("mlp_1x512"), "true_labels")
    losses = (2.5, 300.0, 0.5)
    make_run(tmp_path / "runs", "figure1:mlp_1x512+true_labels", config=settings, losses=losses)
    tab = open_page(write_page(tmp_path / "runs", tmp_path / "report"))
    figure = "figure_1a_cifar10"
    assert {"0", "500"} <= {*ticks(tab, figure)} and "100" not in ticks(tab, figure)[-8:]
    tab.locator(f"#{figure} input.log").check()
    tab.wait_for_function(
        f"[...document.querySelectorAll('#{figure} .role-axis-label text')]"
        ".some(text => text.textContent === '100')"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(open_page, everything_page, scheme):
    tab = open_page(everything_page, width=390, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 127"
    assert tab.evaluate(brightness) == (scheme == "light")
    tab.get_by_role("button", name={"light": "Dark", "dark": "Light"}[scheme]).click()
    assert tab.evaluate(brightness) == (scheme == "dark")


def test_folded_learning_curves_are_drawn_when_opened(open_page, everything_page):
    tab = open_page(everything_page)
    assert tab.locator("#curves_table1 .chart svg").count() == 0
    tab.locator("#curves_table1 summary").click()
    tab.locator("#curves_table1 .chart svg").first.wait_for()


def test_the_browser_shows_markup_in_names_as_well(open_page, tmp_path):
    tab = open_page(hostile_page(tmp_path))
    title = tab.locator("section .chart g.role-title-text text").first
    assert title.text_content().startswith(MARKUP[:40])
    tab.locator("a[data-runs]").first.click()
    assert MARKUP in tab.get_by_role("dialog").inner_text()
    assert tab.evaluate("window.obeyed") is None


def test_the_page_of_the_committed_results_opens(open_page, tmp_path):
    results = pathlib.Path(report.__file__).parents[2] / "results"
    if not results.is_dir():
        pytest.skip("no results/ beside the package")
    tab = open_page(write_page(results, tmp_path / "report"))
    names = tab.locator("#table-table1 tbody tr > :first-child").all_inner_texts()
    # A footnote's number may follow.
    assert {*paper.TABLES["table1"]} <= {name.split()[0] for name in names}
    assert tab.locator("section .chart svg").count() >= 3
