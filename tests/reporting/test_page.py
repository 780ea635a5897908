"""The page with all runs, in a browser without network."""

import base64
import json
import os
import re
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from browser import open_browser
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from study import LEARNER, PROTOCOL, write_study_page

from cdl.evaluation.predictions import read_predictions
from cdl.layout import RunFiles
from cdl.reporting import style
from cdl.reporting.columns import CELL, METRICS
from cdl.reporting.intervals import contrasts
from cdl.reporting.names import named
from cdl.reporting.page import _best, axis_of
from cdl.reporting.summary import differences

AXE = files("axe_playwright_python") / "axe.min.js"  # axe-core; its Playwright is not used
CONFIGURATION = {"name": "study", "training": {"lr": 0.005}, "remark": "</script><b>"}
ACCURACY = "final average accuracy"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with runs, their page `index.html`, and their results."""
    folder = tmp_path_factory.mktemp("study")
    return folder, write_study_page(folder, CONFIGURATION)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, study):
    """The page, newly opened; afterwards checks that nothing was fetched and no error logged."""
    browser.get("about:blank")
    emulate(browser)
    resize(browser, 1500, 1000)
    for log in ("browser", "performance"):
        browser.get_log(log)  # drop entries of the browser itself
    browser.get(f"file://{study[0]}/index.html")
    browser.execute_script("document.getElementById('every').open = true")
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert requested and {url.split(":")[0] for url in requested} <= {"file", "data", "about"}


def emulate(browser, scheme="light", media="screen"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def resize(browser, width, height):
    """Set the size of the viewport."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def find(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def header(browser, title):
    (cell,) = (th for th in find(browser, "#runs thead th") if title in th.text.replace("\n", " "))
    return cell


def column(browser, title):
    """The text of a column's cells, from top to bottom."""
    titles = [th.text.replace("\n", " ") for th in find(browser, "#runs thead th")]
    i = next(k for k, text in enumerate(titles) if title in text)
    return [
        row.find_elements(By.TAG_NAME, "td")[i].text
        for row in find(browser, "#runs tbody tr:not([hidden])")
    ]


def choose(browser, label, value):
    path = f"//*[@id='every']//form//label[starts-with(normalize-space(.), '{label}')]/select"
    Select(browser.find_element(By.XPATH, path)).select_by_visible_text(value)


def test_the_file_requests_nothing_from_the_network(study):
    text = (study[0] / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert not re.search(r"@import|url\(", text)
    assert CONFIGURATION["remark"] not in text  # quoted: a configuration cannot end the script


def test_every_run_is_a_row_with_its_numbers(page, study):
    _, results = study
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in results["final_average_accuracy"]]
    facts = one(page, "#facts").text
    assert "16 runs" in facts and "dataset digits" in facts and "protocol" in facts
    assert column(page, "gain")[4:6] == [
        f"{x:+.2f}".replace("-", "−") for x in differences(results)["gain_over_baseline"][4:6]
    ]
    assert "dataset" not in one(page, "#runs thead").text  # a fact, not a column


def test_sorting_by_mouse_and_by_key(page, study):
    _, results = study
    numbers = sorted(results["final_average_accuracy"])
    header(page, ACCURACY).click()
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in numbers]
    assert header(page, ACCURACY).get_attribute("aria-sort") == "ascending"
    one(page, "#runs th[aria-sort] button").send_keys(Keys.ENTER)
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in numbers[::-1]]
    assert header(page, ACCURACY).get_attribute("aria-sort") == "descending"
    header(page, ACCURACY).click()
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in results["final_average_accuracy"]]


def test_filters_narrow_and_clear(page):
    choose(page, "learner", "kd")
    assert column(page, "learner") == ["kd"] * 4  # and not dkd
    choose(page, "seed", "1")
    assert column(page, "seed") == ["1", "1"]
    assert one(page, "#every .count").text == "2 of 16 rows"
    one(page, "#every input[type=search]").send_keys("apt")
    assert column(page, "method") == ["apt"]
    one(page, "#every button[type=reset]").click()
    WebDriverWait(page, 20).until(lambda _: one(page, "#every .count").text == "16 of 16 rows")
    assert len(find(page, "#runs tbody tr:not([hidden])")) == 16


def test_the_difference_of_any_two_rows_is_in_the_table_of_the_contrasts(page, study):
    folder, results = study
    page.execute_script("document.getElementById('comparison').open = true")
    table = contrasts(
        results,
        lambda run: read_predictions(RunFiles(run)),
        dict.fromkeys(results["run"], "b"),
    )
    pair = table.set_index(["first", "second"]).loc[(f"{folder}/l2p/none", f"{folder}/apt/dkd")]
    one(page, "#comparison input[type=search]").send_keys("l2p none apt dkd")
    shown = [row.text for row in find(page, "#contrasts tbody tr:not([hidden])")]
    ends = f"{pair['difference']:+.2f} {pair['low']:+.2f} to {pair['high']:+.2f}"
    wanted = f"l2p, none apt, dkd {ends}"
    (row,) = (text for text in shown if text.replace("−", "-").startswith(wanted))
    assert row.endswith("2 200 the same")
    assert one(page, "#comparison .count").text == f"{len(shown)} of {len(table)} rows"


def opened(browser, run):
    """The open details of a run; the browser follows an address with delay."""
    fold = browser.find_element(By.ID, run)
    WebDriverWait(browser, 20).until(lambda _: fold.get_attribute("open"))
    return fold


def test_a_row_opens_metrics_matrix_specification_and_files(page, study):
    folder, _ = study
    run = f"{folder}/apt/dkd/seed1"
    one(page, f"#runs a[href='#{run}']").send_keys(Keys.ENTER)
    fold = opened(page, run)
    assert fold.text.startswith("dkd: big → small, apt on digits, seed 1")
    assert len(fold.find_elements(By.CSS_SELECTOR, "dd.main")) == 4
    others = fold.find_element(By.CSS_SELECTOR, "dl:not(:has(.main)) dd")
    assert not others.is_displayed()  # four metrics first, the rest folded
    page.execute_script("document.querySelectorAll('.run details').forEach((f) => f.open = true)")
    assert others.is_displayed() and all(own.heading in fold.text for own in METRICS.values())
    matrix = json.loads(Path(run, "results.json").read_text())["matrix"]
    lines = [
        [cell.text for cell in line.find_elements(By.TAG_NAME, "td")]
        for line in fold.find_elements(By.CSS_SELECTOR, ".matrix tbody tr")
    ]
    assert lines == [[f"{x:.1f}" for x in line[: t + 1]] for t, line in enumerate(matrix)]
    assert f"lr: {LEARNER['training']['lr']}" in fold.text and "a" * 64 in fold.text
    files = fold.find_elements(By.CSS_SELECTOR, ".files li")
    assert [line.text.split(":")[0] for line in files[1:]] == [f"task {t}" for t in (1, 2, 3, 4)]
    links = [link.get_attribute("href") for link in find(page, ".files a[href^='file']")]
    links += [link.get_attribute("href") for link in find(page, ".files a")]
    targets = [Path(link.removeprefix("file://")) for link in links]
    assert [path for path in targets if not path.exists()] == []
    expected = {
        Path(run, name)
        for name in ("results.json", "predictions.parquet", "task3/learner.safetensors")
    }
    assert expected | {folder / "digits" / "manifest.json", folder / "big.json"} <= set(targets)
    protocol = fold.find_element(By.CSS_SELECTOR, "a[href^='#protocol-']").get_attribute("href")
    shared = page.find_element(By.ID, protocol.partition("#")[2]).get_attribute("textContent")
    assert f"lr: {PROTOCOL['training']['lr']}" in shared


def test_an_address_opens_a_run_and_links_its_baseline(page, study):
    folder, _ = study
    page.get("about:blank")
    page.get(f"file://{folder}/index.html#{folder}/apt/kd/seed0")
    fold = opened(page, f"{folder}/apt/kd/seed0")
    fold.find_element(By.LINK_TEXT, "its baseline").send_keys(Keys.ENTER)
    opened(page, f"{folder}/apt/none/seed0")


def test_deployment_has_a_table_a_machine_and_a_figure(page, study):
    text = one(page, "#deployment").text
    assert "Machine: Abacus 1" in text and "Latency: single inputs" in text
    assert len(find(page, "#deployment tbody tr")) == 2 * len(study[1])
    assert len(find(page, "#deployment img")) == 1


def test_few_labels_are_a_figure_and_a_table(page):
    few = one(page, "section.efficiency")
    assert len(find(page, "section.efficiency img")) == 1
    assert "Few labels: digits" in few.text and "1.0 (0.5 to 2.0)" in few.text


def test_cells_of_the_few_labels_table_are_apart_and_stay_on_one_line(page):
    (cell,) = find(page, "section.efficiency tbody td:nth-child(4)")
    assert cell.text == "1.0 (0.5 to 2.0)"
    for side in ("left", "right", "top", "bottom"):
        assert float(cell.value_of_css_property(f"padding-{side}").removesuffix("px")) >= 4
    resize(page, 400, 800)
    assert cell.rect["height"] < 40


def test_losses_are_a_figure_with_a_text(page):
    (image,) = find(page, "#losses img")
    alternative = image.get_attribute("alt")
    assert "digits" in alternative and "the numbers" in alternative  # and where they are
    assert one(page, "#losses .note").text


def test_figures_that_nothing_is_in_are_left_out(tmp_path):
    write_study_page(tmp_path, methods=["l2p"], seeds=[0], figures=())
    text = (tmp_path / "index.html").read_text()
    assert 'id="losses"' not in text


def test_a_table_that_scrolls_says_so(page):
    def said():
        script = "return getComputedStyle(arguments[0], '::before').content"
        return "scroll" in page.execute_script(script, one(page, "#cells .scroll"))

    assert not said()
    resize(page, 400, 800)
    WebDriverWait(page, 20).until(lambda _: said())


def test_small_print_of_figures_has_eleven_pixels(tmp_path):
    figure = style.canvas(["one"], "x", "y", "a note")[0]
    style.save(figure, [str(tmp_path / "f.svg")])
    width = style.embedded(tmp_path / "f.svg")["width"]
    size = figure.get_suptitle() and figure._suptitle.get_fontsize()
    assert size / 72 * width / figure.get_figwidth() >= 10.95


def test_panels_that_compare_come_first_and_the_others_are_lines(tmp_path):
    write_study_page(tmp_path, methods=["l2p", "apt"], alone=["l2p"], seeds=[0])
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r"<figcaption><strong>(.*?)</strong>", text) == ["apt"]
    groups = re.findall(r'scope="rowgroup"><span>(.*?)[;<]', text)[:2]
    assert groups == ["apt on digits, big → small", "without a comparison"]
    reading = re.search(r'<p class="reading">(.*?)</p>', text)[1]
    assert reading.count(". ") == 1 and reading.endswith(".")


def test_the_page_begins_with_the_best_student_as_a_run_prints_it(study):
    text = (study[0] / "index.html").read_text()
    begin, rest = text.split("<main>")[1].split("<section", 1)
    means = study[1].query("role == 'student'").groupby(["method", "distiller"])
    means = means["final_average_accuracy"].mean()
    method, distiller = means.idxmax()
    words = f"Best: {method} ({distiller}), {means.max():.1f} % (2 seeds"
    assert words in begin and "chance 12.5 %; for class means and a ridge: grid.bounds" in begin
    assert "<strong>" not in "".join(re.findall(r'<p class="reading">(.*?)</p>', rest))


def test_each_dataset_has_its_best_student():
    found = _best_of(run("a", 60.0), run("a", 90.0, role="teacher"), run("b", 70.0))
    assert [(data, text[:18]) for data, text in found.items()] == [
        ("a", "l2p (none), 60.0 %"),
        ("b", "l2p (none), 70.0 %"),
    ]


def test_a_variant_is_compared_with_the_students_that_it_shares():
    kd = {"distiller": "kd", "teacher": "big", "baseline_run": "a/none", "gain": 5.0}
    bounds = [run("a", 50.0, method=method) for method in ("ranpac", "simple_cil")]
    found = _best_of(run("a", 60.0), *bounds, run("a+same", 65.0, baseline="none", **kd))
    ((one, plain), (other, taught)) = found.items()
    assert one == "a" and plain.startswith("l2p (none), 60.0 %")
    assert other == "a (same)" and taught.startswith("l2p (kd), 65.0 %")
    assert taught.endswith("chance 50.0 %, class means 50.0 %, a ridge 50.0 %")


def run(dataset, accuracy, **fields):
    """Return a row of a table of runs, with the columns of its cell."""
    row = dict.fromkeys(CELL, "") | {"dataset": dataset, "role": "student", "method": "l2p"}
    row |= {"distiller": "none", "labels": "all", "baseline_run": "", "teacher_run": "", "n": 1}
    row |= {"gain": float("nan"), "accuracy": accuracy, "final_average_accuracy": accuracy}
    row |= fields
    return row | {"run": f"{dataset}/{row['distiller']}"}


def _best_of(*rows):
    """Return the best students of some runs by dataset, of two classes."""
    results = pd.DataFrame(rows)
    return _best(results, named(results), dict.fromkeys(results["run"], {"classes": "xy"}))


def test_provenance_is_on_the_page(page):
    page.execute_script(
        "document.querySelectorAll('details').forEach((fold) => { fold.open = true; })"
    )
    provenance = one(page, "#provenance").text
    assert "torch 2.0" in provenance and f"lr: {PROTOCOL['training']['lr']}" in provenance
    assert f"remark: {CONFIGURATION['remark']}" in provenance


CONTRAST = """
const channel = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const over = (colours) => {  // blend colours, painted over each other
  canvas.clearRect(0, 0, 1, 1);
  colours.forEach((c) => { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); });
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => channel(c / 255));
};
const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
const unseen = "script, noscript, option, title";
return [...document.querySelectorAll("body *")].filter((e) => !e.closest(unseen)
  && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
  const under = [];
  for (let at = e; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
  const style = getComputedStyle(e);
  const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [a, b] = [light(over(under)), light(over([...under, ink]))];
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_legible(page, scheme):
    emulate(page, scheme)
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")
    ratios = page.execute_script(CONTRAST)
    assert len(ratios) > 200
    assert [(round(ratio, 2), where) for ratio, where in ratios if ratio < 4.5] == []


def test_print_opens_details_and_hides_controls(page):
    emulate(page, "dark", "print")
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    assert not any(e.is_displayed() for e in find(page, ".filters :is(select, input, button)"))
    assert one(page, "#every .count").is_displayed()
    before = [fold.get_attribute("open") for fold in find(page, "details")]
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert all(fold.get_attribute("open") for fold in find(page, "details"))
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert [fold.get_attribute("open") for fold in find(page, "details")] == before
    assert not all(before)
    width = page.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert width <= 0
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1100, 800), (1900, 1000)])
def test_no_width_scrolls_the_whole_page(page, width, height):
    resize(page, width, height)
    assert page.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


FIRST_SCREEN = ["h1", "#compared", "#warnings", ".best", "#main-figure", ".reading", "#cost"]


def test_the_first_screen_has_comparison_results_uncertainty_and_cost(page, study):
    _, results = study
    resize(page, 1280, 800)
    for selector in FIRST_SCREEN:
        for part in find(page, selector):
            assert part.is_displayed() and part.rect["y"] + part.rect["height"] <= 800, selector
    text = one(page, "#compared").text
    for fact in (
        "small (1 k",
        "big (3 k",
        "digits (8 classes in 4 tasks, 200 test examples)",
        "dkd",
    ):
        assert fact in text
    assert "2 seeds: too few" in one(page, "#warnings").text
    assert "200 test examples: ± 7 points" in one(page, "#warnings").text
    means = results.groupby(["method", "role", "distiller"], sort=False)[
        "final_average_accuracy"
    ].mean()
    shown = [cell.text.split() for cell in find(page, ".forest tbody .number")]
    assert [words[0] for words in shown] == [f"{x:.1f}" for x in means]
    assert all(float(low) < float(x) < float(high) for x, low, _, high in shown)
    assert "chance 12.5 %" in one(page, ".forest tfoot").text
    assert "over seeds and test examples, 2 seeds" in one(page, "details.reading").get_attribute(
        "textContent"
    )


def test_methods_without_distillation_are_bounds_of_the_others(tmp_path):
    results = write_study_page(tmp_path, alone=["apt"], seeds=[0])
    text = (tmp_path / "index.html").read_text()
    forests = re.findall(r'<table class="forest">.*?</table>', text, re.DOTALL)
    assert len(forests) == 1  # of l2p, whose students have a teacher
    learners = re.findall(r'<th scope="row">(.*?)</th>', forests[0])
    assert learners == ["teacher", "none", "kd", "dkd", "apt"]
    group = text.split("without a comparison")[1].split("</tbody>")[0]
    rows = re.findall(r'<th scope="row">.*?</svg> (.*?)</th>', group, re.DOTALL)
    assert rows == ["apt on digits, teacher", "apt on digits"]
    apt = results[(results["method"] == "apt") & (results["role"] == "student")]
    assert f">{apt['final_average_accuracy'].item():.1f} <small>" in forests[0]


def test_a_small_screen_shows_every_mean_with_its_interval(page):
    resize(page, 400, 800)
    for selector in (".forest tbody", "#cells > .scroll tbody"):
        for row in find(page, f"{selector} tr:not(.group)"):
            number = row.find_element(By.CLASS_NAME, "number")  # the first one
            assert re.fullmatch(r"\d+\.\d\s\d+\.\d to \d+\.\d", number.text)
            assert 0 <= number.rect["x"] and number.rect["x"] + number.rect["width"] <= 400


def test_means_are_static_html_and_single_runs_need_a_click(browser, study):
    folder, results = study
    text = (folder / "index.html").read_text().split("<script")[0]  # the part without JavaScript
    for mean in results.groupby(["method", "role", "distiller"])["final_average_accuracy"].mean():
        assert text.count(f">{mean:.1f} <small>") >= 2
    assert ">1,234<" in text  # trained parameters
    # frozen ones included; the teacher also uses the student's backbone for queries
    assert ">2 k<" in text and ">5 k<" in text
    browser.get(f"file://{folder}/index.html")
    assert not one(browser, "#runs").is_displayed()
    one(browser, "#every > summary").send_keys(Keys.ENTER)
    assert one(browser, "#runs").is_displayed()
    colours = {
        row.find_element(By.TAG_NAME, "th").text: row.get_attribute("style")
        for row in find(browser, "#cells > .scroll tbody tr:not(.group)")
    }
    assert "#0072B2".lower() in colours["kd"].lower()  # as in every figure


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_axe_finds_no_wcag_violation(page, scheme, width):
    emulate(page, scheme)
    resize(page, width, 800)
    page.execute_script("document.querySelectorAll('details').forEach((f) => { f.open = true; })")
    page.execute_script(AXE.read_text())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.execute_async_script(
        "axe.run(document, {runOnly: arguments[0]}).then(arguments[1])", rules
    )
    assert len(found["passes"]) > 20
    wrong = [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found["violations"]]
    assert wrong == []


def test_a_missing_browser_fails_in_ci_and_is_skipped_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.setitem(os.environ, "CI", "true")
    with pytest.raises(pytest.fail.Exception, match="chromium"):
        open_browser(tmp_path)
    monkeypatch.delitem(os.environ, "CI")
    with pytest.raises(pytest.skip.Exception, match="chromium"):
        open_browser(tmp_path)


@pytest.mark.parametrize("method, count", [("l2p", 3000 + 1000 + 1234), ("ranpac", 3000 + 1234)])
def test_the_backbone_of_a_query_counts_where_the_method_reads_it(
    monkeypatch, tmp_path, method, count
):
    monkeypatch.setitem(LEARNER, "method", {"name": method})
    write_study_page(tmp_path, methods=["l2p"], seeds=[0])
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "index.html").read_text())
    teacher = text.split("teacher: big")[1]
    assert re.search(r"parameters, frozen ones included\s+([\d,]+)", teacher)[1] == f"{count:,}"


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [([12.0, 57.9], (10, 60)), ([0, 0], (0, 10)), ([50.0], (50, 60)), ([100, 100], (90, 100))],
)
def test_the_axis_of_accuracies_has_a_length(accuracies, ends):
    assert axis_of(accuracies) == ends
