"""The page as a reader's browser shows it."""

import pathlib
import re
import shutil

import pytest

from rethinking import report, rows
from rethinking.report import collect, curves, figures, paper
from tests.report_runs import MARKUP, everything, hostile_page, make_run, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def everything_page(tmp_path_factory):
    """A page of made-up runs for every table and figure."""
    root = tmp_path_factory.mktemp("everything")
    return write_page(everything(root / "runs"), root / "report")


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
    """Opens a file, and at the end fails if anything was logged as wrong, or any other address asked for."""
    tabs, wrong = [], []

    def show(file, width=1280, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tabs.append(tab)
        tab.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: request.url == file.as_uri() or request.url.startswith("data:")
               or wrong.append(request.url))
        tab.goto(file.as_uri())
        charts = "[...document.querySelectorAll('.chart')].filter(chart => chart.checkVisibility())"
        tab.wait_for_function(f"{charts}.every(chart => chart.querySelector('svg'))")
        return tab

    yield show
    for tab in tabs:
        tab.close()
    assert not wrong


def point(tab, figure, text, x, y):
    """What is shown when the pointer is at x, y of a figure's first chart, in parts of its width and height."""
    chart = tab.locator(f"#{figure} .chart").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    tip = tab.locator("#tooltip")
    tip.get_by_text(text).wait_for()
    return tip.inner_text().split("\n")


def lines_drawn(tab, figure):
    return tab.locator(f"#{figure} .chart").first.locator("g.mark-line path").count()


def wait_for_lines(tab, figure, number):
    tab.wait_for_function(f"document.querySelector('#{figure} .chart').querySelectorAll('g.mark-line path').length"
                          f" == {number}")


def test_a_number_in_a_table_opens_its_runs(open_page, everything_page):
    tab = open_page(everything_page)
    row = tab.locator("#table-table1 tr", has=tab.get_by_role("rowheader", name=re.compile(r"^inception \d")))
    assert row.locator("td").all_text_contents() == [
        "99.80 ± 0.00 (3)", "100.00", "≠ -0.20", "86.40 ± 0.40 (3)", "85.75", "≠ +0.65", "3"]
    row.get_by_role("link", name="86.40").click()
    dialog = tab.get_by_role("dialog")
    assert dialog.locator("code").first.inner_text().startswith("python -m rethinking.main --config=configs/figure1.py")
    assert dialog.get_by_role("link", name="config").count() == 3
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_series_are_switched_off_and_points_show_their_values(open_page, everything_page):
    tab = open_page(everything_page)
    figure = "figure_1c_cifar10"
    assert lines_drawn(tab, figure) == 4
    # p = 0.4 lies at two fifths of the axis; Inception's error there is the lowest line: 44.16% on average.
    shown = point(tab, figure, "Inception", 0.47, 0.6)
    assert shown[1::2] == ["Inception", "0.4", "44.16%", "43.92% to 44.40%", "mean of 3"]
    tab.locator(f"#{figure}").get_by_role("button", name="Inception", exact=True).click()
    wait_for_lines(tab, figure, 3)
    assert point(tab, figure, "Inception without BN", 0.47, 0.6)[1:4:2] == ["Inception without BN", "0.4"]
    tab.locator(f"#{figure}").get_by_role("button", name="none").click()
    wait_for_lines(tab, figure, 0)


def test_means_are_of_the_seeds_left_on(open_page, everything_page):
    made = {figure.name: figure for figure in figures.make(collect.collect([everything_page.parents[1] / "runs"]))}
    (series, *_) = made["figure_1c_cifar10"].panels[0].series
    tab = open_page(everything_page)
    tab.locator("#figure_1c_cifar10").get_by_role("button", name="seed 0").click()
    tab.wait_for_timeout(300)
    left = curves.Series("", 0, [trace for trace in series.traces if trace.seed])
    curve = curves.summary(left, scattered=True)
    assert point(tab, "figure_1c_cifar10", "mean of 2", 0.47, 0.6)[5] == f"{100 * curve.mean[2]:.2f}%"


def test_every_run_is_drawn_on_demand_and_axes_become_logarithmic(open_page, everything_page):
    tab = open_page(everything_page)
    figure = "figure_async_cifar10"
    assert lines_drawn(tab, figure) == 3
    buttons = tab.locator(f"#{figure} .panel").first
    buttons.get_by_role("button", name="each run").click()
    wait_for_lines(tab, figure, 3 + 3 * 3)
    height = f"document.querySelectorAll('#{figure} .chart g.mark-line path')[2].getBBox().height"
    linear = tab.evaluate(height)
    buttons.get_by_role("button", name="log y").click()
    tab.wait_for_function(f"Math.abs({height} - {linear}) > 20")


def test_axes_have_plain_numbers(open_page, tmp_path):
    make_run(tmp_path / "runs", "table1:mlp_1x512", losses=(50.0, 20.0, 1.0))
    tab = open_page(write_page(tmp_path / "runs", tmp_path / "report"))
    labels = tab.locator("#figure_1a_cifar10 .chart .role-axis-label text").all_text_contents()
    assert {"0", "50", "500"} <= {*labels} and not any("e" in label for label in labels)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(open_page, everything_page, scheme):
    tab = open_page(everything_page, width=390, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 127"
    assert tab.evaluate(brightness) == (scheme == "light")
    tab.get_by_role("button", name={"light": "Dark", "dark": "Light"}[scheme]).click()
    assert tab.evaluate(brightness) == (scheme == "dark")


def test_a_passing_peak_leaves_the_panel_but_a_logarithmic_one_holds_it(open_page, tmp_path):
    settings = rows.setting(rows.cifar10("mlp_1x512"), "true_labels")
    make_run(tmp_path / "runs", "figure1:mlp_1x512+true_labels", config=settings, losses=(2.5, 300.0, 0.5))
    tab = open_page(write_page(tmp_path / "runs", tmp_path / "report"))
    chart = tab.locator("#figure_1a_cifar10 .chart").first

    def highest():
        return max(float(text) for text in chart.locator("g.role-axis").nth(-1).locator("text").all_text_contents()
                   if text.replace(".", "").isdigit())

    assert highest() <= 7.5
    tab.locator("#figure_1a_cifar10 button", has_text="log y").first.click()
    tab.wait_for_function("document.querySelector('#figure_1a_cifar10 .chart').textContent.includes('100')")
    assert highest() >= 100


def test_folded_learning_curves_are_drawn_when_opened(open_page, everything_page):
    tab = open_page(everything_page)
    assert tab.locator("#curves_table1 .chart svg").count() == 0
    tab.locator("#curves_table1 summary").click()
    tab.locator("#curves_table1 .chart svg").first.wait_for()


def test_the_browser_shows_markup_in_names_as_well(open_page, tmp_path):
    tab = open_page(hostile_page(tmp_path))
    panel = tab.locator("section figure .panel").first
    assert MARKUP in panel.locator("h4").inner_text()
    tab.locator("a[data-runs]").first.click()
    assert MARKUP in tab.get_by_role("dialog").inner_text()
    assert tab.evaluate("window.obeyed") is None


def test_the_page_of_the_committed_results_opens(open_page, tmp_path):
    results = pathlib.Path(report.__file__).parents[2] / "results"
    if not results.is_dir():
        pytest.skip("no results/ beside the package")
    tab = open_page(write_page(results, tmp_path / "report"))
    names = tab.locator("#table-table1 tbody tr > :first-child").all_inner_texts()
    assert {*paper.TABLES["table1"]} <= {*names}
    assert tab.locator("section .chart svg").count() >= 3
