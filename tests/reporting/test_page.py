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

from cdl.evaluation.predictions import classes_of
from cdl.reporting.intervals import answers_of, contrasts

AXE = files("axe_playwright_python") / "axe.min.js"  # axe-core; its Playwright is not used
CONFIGURATION = "name: study\ntraining: {lr: 0.005}  # </script><b>\n"
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
    return [row.find_elements(By.TAG_NAME, "td")[i].text for row in find(browser, "#runs tbody tr")]


def wait_for_heading(browser, text):
    """Wait until the details of a run are shown; the browser follows an address with delay."""
    WebDriverWait(browser, 20).until(lambda _: one(browser, "#chosen").text == text)


def choose(browser, label, value):
    path = f"//form//label[starts-with(normalize-space(.), '{label}')]/select"
    Select(browser.find_element(By.XPATH, path)).select_by_visible_text(value)


def test_the_file_requests_nothing_from_the_network(study):
    text = (study[0] / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert not re.search(r"@import|url\(", text)
    assert CONFIGURATION.strip() not in text  # quoted: a configuration cannot end the script
    library = base64.b64decode(re.search(r"data:text/javascript;base64,([\w+/=]+)", text)[1])
    assert not re.search(rb"\b(fetch|importScripts)\(\s*[\"']https?:", library)


def test_every_run_is_a_row_with_its_numbers(page, study):
    _, results = study
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in results["final_average_accuracy"]]
    facts = one(page, "#facts").text
    assert "16 runs" in facts and "dataset digits" in facts and "protocol" in facts
    assert "dataset" not in one(page, "#runs thead").text  # a fact, not a column


def test_sorting_by_mouse_and_by_key(page, study):
    _, results = study
    numbers = sorted(results["final_average_accuracy"])
    header(page, ACCURACY).click()
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in numbers]
    assert header(page, ACCURACY).get_attribute("aria-sort") == "ascending"
    one(page, "#runs th[aria-sort] [role=button], #runs th[aria-sort][tabindex]").send_keys(
        Keys.ENTER
    )
    assert column(page, ACCURACY) == [f"{x:.2f}" for x in numbers[::-1]]
    assert header(page, ACCURACY).get_attribute("aria-sort") == "descending"


def test_filters_narrow_and_clear(page):
    choose(page, "distiller", "kd")
    assert column(page, "distiller") == ["kd"] * 4  # and not dkd
    choose(page, "seed", "1")
    assert column(page, "seed") == ["1", "1"]
    assert one(page, "#count").text == "2 of 16 runs"
    one(page, "input[type=search]").send_keys("apt")
    assert column(page, "method") == ["apt"]
    one(page, "button[type=reset]").click()
    assert one(page, "#count").text == "16 of 16 runs"
    assert len(find(page, "#runs tbody tr")) == 16


def test_any_two_rows_are_compared(page, study):
    folder, results = study
    answers = answers_of(lambda run: pd.read_parquet(f"{run}/predictions.parquet"))
    table = contrasts(
        results,
        answers,
        dict.fromkeys(results["run"], "b"),
        lambda run: classes_of(pd.read_parquet(f"{run}/predictions.parquet")),
    )
    pair = table.set_index(["first", "second"]).loc[(f"{folder}/l2p/none", f"{folder}/apt/dkd")]
    choose(page, "first", "digits, l2p, none, small")
    choose(page, "second", "digits, apt, dkd (alpha=0.9), big → small")
    text = one(page, "#contrast").text.replace("−", "-")
    assert f"First minus second: {pair['difference']:+.2f} points" in text
    assert f"({pair['low']:+.2f} to {pair['high']:+.2f})" in text
    assert text.endswith("2 seeds, 200 test examples.")
    choose(page, "first", "digits, apt, dkd (alpha=0.9), big → small")
    assert one(page, "#contrast").text == "Choose two different rows."
    choose(page, "second", "digits, l2p, none, small")
    text = one(page, "#contrast").text.replace("−", "-")
    assert f"First minus second: {-pair['difference']:+.2f} points" in text


def test_a_row_opens_curve_matrix_protocol_and_files(page, study):
    folder, results = study
    run = f"{folder}/apt/dkd/seed1"
    one(page, f"tr[data-run='{run}'] td:nth-child(3)").click()
    wait_for_heading(page, "dkd (alpha=0.9): big → small")
    assert [row.get_attribute("data-run") for row in find(page, "tr[aria-current=true]")] == [run]
    matrix = json.loads(Path(run, "results.json").read_text())["matrix"]
    lines = [
        [cell.text for cell in line.find_elements(By.TAG_NAME, "td")]
        for line in find(page, "#detail .matrix tbody tr")
    ]
    for t, line in enumerate(lines):
        means = sum(matrix[t][: t + 1]) / (t + 1)
        assert line == [f"{x:.1f}" for x in matrix[t][: t + 1]] + [""] * (3 - t) + [f"{means:.1f}"]
    assert len(find(page, "#detail svg .line")) == 3
    labels = {text.text for text in find(page, "#detail svg .line text")}
    assert labels == {"dkd", "none", "teacher"}
    title = one(page, "#detail svg title").get_attribute("textContent")
    assert f"dkd from {matrix[0][0]:.2f} to" in title
    one(page, "#detail summary").click()
    settings = dict(
        zip(
            *([e.text for e in find(page, f"#detail details[open] {k}")] for k in ("dt", "dd")),
            strict=True,
        )
    )
    assert settings["training.lr"] == str(PROTOCOL["training"]["lr"])
    assert settings["data.train"].strip('"') == "a" * 64
    links = [link.get_attribute("href") for link in find(page, "#detail .files a")]
    targets = [Path(link.removeprefix("file://")) for link in links]
    assert [path for path in targets if not path.exists()] == []
    expected = {
        Path(run, name)
        for name in ("results.json", "predictions.parquet", "task3/learner.safetensors")
    }
    assert expected | {folder / "digits" / "manifest.json", folder / "big.json"} <= set(targets)


def test_keys_and_addresses_select_a_run(page, study):
    folder, _ = study
    link = one(page, f"tr[data-run='{folder}/l2p/none/seed0'] a")
    link.send_keys(Keys.ENTER)
    wait_for_heading(page, "none: small")
    page.back()
    wait_for_heading(page, "kd: big → small")
    page.get("about:blank")
    page.get(f"file://{folder}/index.html#{folder}/apt/big/seed0")
    wait_for_heading(page, "(teacher): big")


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
    (cell,) = find(page, "section.efficiency tbody td:nth-child(2)")
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
    write_study_page(tmp_path, methods=["l2p"], seeds=[0], figures={})
    text = (tmp_path / "index.html").read_text()
    assert 'id="losses"' not in text


@pytest.mark.parametrize("width", [400, 1280])
def test_names_behind_curves_are_inside_the_figure(browser, tmp_path, width):
    write_study_page(tmp_path, methods=["l2p"], seeds=[0], variant="a_rather_long_name")
    emulate(browser)
    resize(browser, width, 800)
    browser.get(f"file://{tmp_path}/index.html")
    ends = browser.execute_script(
        "return [...document.querySelectorAll('#curves svg .line text')].map((text) => ["
        "text.getBoundingClientRect().right, text.closest('svg').getBoundingClientRect().right])"
    )
    assert len(ends) == 4 and all(text <= figure for text, figure in ends)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_provenance_is_on_the_page(page):
    page.execute_script(
        "document.querySelectorAll('details').forEach((fold) => { fold.open = true; })"
    )
    provenance = one(page, "#provenance").text
    assert "torch 2.0" in provenance and "training.lr" in provenance
    assert CONFIGURATION.strip() in provenance


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
    assert not any(e.is_displayed() for e in find(page, "#filters :is(select, input, button)"))
    assert one(page, "#count").is_displayed()
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


FIRST_SCREEN = ["h1", "#compared", "#warnings", "#main-figure", ".reading", "#cost"]


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
    assert "over seeds and test examples, 2 seeds" in one(page, ".reading").text


def test_methods_without_distillation_are_bounds_of_the_others(tmp_path):
    results = write_study_page(tmp_path, alone=["apt"], seeds=[0])
    text = (tmp_path / "index.html").read_text()
    forests = re.findall(r'<table class="forest">.*?</table>', text, re.DOTALL)
    assert len(forests) == 1  # of l2p, whose students have a teacher
    learners = re.findall(r'<th scope="row">(.*?)</th>', forests[0])
    assert learners == ["teacher", "none", "kd", "dkd", "apt"]
    group = text.split("apt on digits; chance")[1].split("</tbody>")[0]
    assert re.findall(r'<th scope="row">.*?</svg> (.*?)</th>', group) == ["teacher", "apt"]
    apt = results[(results["method"] == "apt") & (results["role"] == "student")]
    assert f">{apt['final_average_accuracy'].item():.1f} <small>" in forests[0]


def test_a_small_screen_shows_every_mean_with_its_interval(page):
    resize(page, 400, 800)
    for selector in (".forest tbody", "#cells tbody"):
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
        for row in find(browser, "#cells tbody tr:not(.group)")
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
    content = (tmp_path / "index.html").read_text().split('id="content">')[1].split("</script>")[0]
    runs = json.loads(content)["runs"]
    assert [run["parameters"] for run in runs if run["role"] == "teacher"] == [count]
