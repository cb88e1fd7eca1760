"""`experiments all`: a failure stops no other, the folder is kept, and the page can be read by anyone, anywhere."""

import json
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from browser import chromium, needs_chromium, opened

import lr_nn
from experiments import record, runner
from experiments.__main__ import main, questions
from experiments.report import Figure, Section
from experiments.site import contents, graphs, page

RAN = ("hard_examples", "outliers", "paths")
FAILED = "census"
FINDING = "Of 3 < 4 runs, “all” ended. One took <b>long</b>. None was lost."
MEGABYTES_15 = 15 * 2**20


def leave_run(folder, name, wide):
    """What an experiment leaves, without its computation."""
    from matplotlib.figure import Figure as Drawing

    run = runner.Run(name, runner.Options(out=folder / name, seed=3), questions()[name])
    drawing = Drawing(figsize=(9, 4.4) if wide else (5.6, 3.8))
    drawing.subplots().plot(np.sin(np.arange(60) / 5))
    figure = run.figure("wave", drawing, alt="A wave.", caption="Seen & drawn.", wide=wide)
    run.conclude(f"On {name}", FINDING, [Section("All", figures=(figure, figure))])


@pytest.fixture(scope="module")
def both():
    return graphs.traced()


@pytest.fixture(scope="module")
def site(tmp_path_factory, both):
    """A site of three runs and a failure."""
    folder = tmp_path_factory.mktemp("built") / "site"
    for name in RAN:
        leave_run(folder, name, wide=name == "paths")
    (folder / FAILED).mkdir()
    failure = {"failure": f"no {'unbreakable' * 20}/file", "command": f"python -m experiments {FAILED}", "seconds": 1.0}
    record.write_json(folder / FAILED / page.FAILURE, failure)
    page.write(folder, questions(), graphs.write(folder, both))
    return folder


class Parts(HTMLParser):
    """Links, ids, headings, pictures and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.headings, self.pictures, self.sources, self.words = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.sources += [values[name] for name in ("src", "action", "data", "poster") if name in values]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.pictures.append(values)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def parts(site):
    return Parts((site / "index.html").read_text(encoding="utf-8"))


# The page


def test_every_run_has_a_card_with_question_figure_finding_report_and_command(site, parts):
    text = " ".join(parts.words)
    for name in RAN:
        assert name in parts.ids and f"{name}/report.html" in parts.links
        assert text.count(questions()[name]) == 2, "in the contents and on the card"
        assert f"python -m experiments {name} --seed 3" in parts.words
    assert text.count(FINDING) == len(RAN) == len(parts.pictures)
    assert {picture["alt"] for picture in parts.pictures} == {"A wave."} and text.count("Seen & drawn.") == len(RAN)
    others = set(questions()) - {*RAN, FAILED}
    assert not others & set(parts.ids), "no card of what did not run"


def test_what_failed_has_a_card_that_says_so(parts):
    assert FAILED in parts.ids and f"{FAILED}/report.html" not in parts.links
    assert "unbreakable" in " ".join(parts.words) and "(did not run)" in " ".join(parts.words)


def test_links_lead_somewhere_and_headings_go_down_by_one(site, parts):
    for link in parts.links:
        assert link[1:] in parts.ids if link.startswith("#") else (site / link).is_file(), link
    assert len(parts.ids) == len(set(parts.ids))
    assert parts.headings[0] == 1 and parts.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parts.headings, parts.headings[1:]))


def test_the_page_needs_no_other_file_and_the_site_is_small(site, parts):
    assert all(source.startswith("data:") for source in parts.sources)
    written = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in written) < MEGABYTES_15 / 10
    # As many cards as there may come to be: the page itself stays within the bound.
    assert 40 / len(RAN) * (site / "index.html").stat().st_size < MEGABYTES_15


def test_figures_are_put_into_the_page_without_loss(site):
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    path = site / RAN[0] / "figures" / "wave.png"
    figure = Figure(path, "", "")
    content = b64decode(figure.data.partition(",")[2])
    with Image.open(path) as drawn, Image.open(BytesIO(content)) as shown:
        assert np.array_equal(np.asarray(drawn.convert("RGB")), np.asarray(shown.convert("RGB")))
        assert shown.format == "WEBP" and figure.size == drawn.size
    assert len(content) < path.stat().st_size


@pytest.mark.parametrize("content", ["no json", "{}", "[]"])
def test_a_damaged_summary_costs_one_card_and_not_the_site(tmp_path, content):
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / "summary.json").write_text(content)
    words = " ".join(Parts(page.write(tmp_path, questions(), []).read_text(encoding="utf-8")).words)
    assert "It did not run." in words and "is damaged" in words and "python -m experiments paths" in words


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@needs_chromium
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_reads_well_on_a_phone_and_on_a_desk_in_light_and_dark(browser, site, width, color_scheme):
    surroundings = {"viewport": {"width": width, "height": 800}, "color_scheme": color_scheme}
    with opened(browser, site / "index.html", **surroundings) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        for picture in seen.page.locator("img").all():
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 800
        assert seen.accessibility_violations() == {}


@needs_chromium
def test_the_keyboard_skips_the_contents_and_plays_a_graph_in_the_page(browser, site):
    with opened(browser, site / "index.html", reduced_motion="reduce") as seen:
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "main"
        seen.page.locator("#graph-neuron summary").press("Enter")
        frame = seen.page.frame_locator("#graph-neuron iframe")
        frame.locator("#last").press("Enter")
        assert frame.locator("#step h2").inner_text() == "The gradient"


def test_the_graph_of_three_layers_is_that_of_the_package(both):
    net = lr_nn.mlp((2, 3, 2, 1), lr_nn.activations.sigmoid, lr_nn.losses.bernoulli)
    params = lr_nn.init(net, jax.random.key(0))
    batch = lr_nn.Batch(np.array([[1.0, 2.0]], np.float32), np.array([[1.0]], np.float32))
    cost, gradient = lr_nn.value_and_gradient(net, params, batch)
    opened = both["network"]
    np.testing.assert_allclose(opened.nodes[opened.outputs[0]].value, cost, rtol=1e-5)
    for node, leaf in zip(opened.nodes, jax.tree.leaves(gradient)):
        np.testing.assert_allclose(node.adjoint, leaf, rtol=1e-4, atol=1e-6, err_msg=node.name)


def test_every_experiment_stands_in_a_group_and_one_that_does_not_comes_last():
    names = tuple(questions())
    groups = contents.grouped(names)
    assert sorted(name for _, members in groups for name in members) == sorted(names)
    assert contents.OTHERS not in [group for group, _ in groups], "give it a group in experiments/site/contents.py"
    last, members = contents.grouped([*names, "newest"])[-1]
    assert last == contents.OTHERS and members == ("newest",)


# The summary of a run


def test_the_command_of_a_run_gives_its_options_and_leaves_out_its_folders(site):
    from experiments import paths

    options = paths.Options(data="diabetes", folds=3, seed=5, data_dir=site, out=site, overwrite=True)
    command = runner.command("paths", options)
    assert command == "python -m experiments paths --seed 5 --data diabetes --folds 3"
    again = runner.parse("paths", paths.Options, command.split()[4:], "")
    assert (again.data, again.folds, again.seed, again.strengths) == ("diabetes", 3, 5, 50)


def test_an_experiment_leaves_a_summary(site):
    found = json.loads((site / "paths" / "summary.json").read_text())
    assert found["experiment"] == "paths" and found["question"] == questions()["paths"]
    assert found["finding"] == FINDING and found["title"] == "On paths" and found["seconds"] > 0
    assert found["figures"][0] == {
        "path": "figures/wave.png",
        "alt": "A wave.",
        "caption": "Seen & drawn.",
        "wide": True,
    }


# The runs

STAND_IN = """
import json, os, sys
from pathlib import Path
name, out = sys.argv[1], Path(sys.argv[3])
if name == "paths":
    raise RuntimeError("half way")
if name == "census":
    print("a warning\\nerror: set LR_NN_DATA", file=sys.stderr)
    sys.exit(2)
summary = {"finding": "from " + os.environ["LR_NN_DATA"], "title": name, "command": name, "seconds": 1, "figures": []}
(out / "summary.json").write_text(json.dumps(summary))
(out / "report.html").write_text("")
"""


@pytest.fixture
def all_of_them(tmp_path, monkeypatch):
    """`python -m experiments all` with programs that take no time in place of the experiments, and no graphs."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    (tmp_path / "experiments" / "__main__.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LR_NN_DATA", "here")
    monkeypatch.setattr(graphs, "traced", dict)
    return lambda *arguments: main(["all", "--out", "site", *arguments])


def test_a_failure_stops_no_other_and_shows_in_line_card_and_status(all_of_them, tmp_path, capsys):
    assert all_of_them("--only", "census", "paths", "outliers") == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[3] for line in lines[:3]] == ["census", "paths", "outliers"]
    assert [line.endswith("failed") for line in lines[:3]] == [True, True, False]
    assert "set LR_NN_DATA" in err and "RuntimeError: half way" in err and "--skip paths" in err
    text = (tmp_path / "site" / "index.html").read_text()
    assert "RuntimeError: half way" in text and "set LR_NN_DATA" in text and "a warning" not in text
    assert "outliers/report.html" in text and "paths/report.html" not in text


def test_a_site_is_kept_unless_told_and_what_was_not_run_again_stays(all_of_them, tmp_path, capsys):
    assert all_of_them("--only", "outliers", "paths") == 1
    before = (tmp_path / "site" / "index.html").read_text()
    assert all_of_them() == 2
    assert "already holds a site" in capsys.readouterr().err
    assert (tmp_path / "site" / "index.html").read_text() == before
    main_file = tmp_path / "experiments" / "__main__.py"
    main_file.write_text(STAND_IN.replace("raise RuntimeError", "str"))
    assert all_of_them("--overwrite", "--only", "paths") == 0
    after = (tmp_path / "site" / "index.html").read_text()
    assert "outliers/report.html" in after and "paths/report.html" in after and "half way" not in after


def test_all_but_some_and_with_the_data_of_a_folder(all_of_them, tmp_path, capsys):
    kept = ("outliers", "solvers")
    assert all_of_them("--skip", *(set(questions()) - set(kept)), "--data-dir", "elsewhere") == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[:2]] == list(kept)
    assert (tmp_path / "site" / "index.html").read_text().count("from elsewhere") == 2


@pytest.mark.parametrize("flag", ["--only", "--skip"])
def test_a_name_that_is_not_known_is_answered_with_those_that_are(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    assert main(["all", flag, "outliers", "laddr"]) == 2
    message = capsys.readouterr().err
    assert "'laddr'" in message and all(f"{name} " in message and line in message for name, line in questions().items())
    assert not list(tmp_path.iterdir())


def test_choosing_nothing_or_a_file_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for nothing in (("--only", "paths", "--skip", "paths"), ("--only",)):
        assert main(["all", *nothing]) == 2
        assert "leave no experiment" in capsys.readouterr().err
    (tmp_path / "taken").touch()
    assert main(["all", "--out", "taken"]) == 2 and "is a file" in capsys.readouterr().err


def test_the_overview_names_all(capsys):
    assert main(["--help"]) == 0
    assert "python -m experiments all" in capsys.readouterr().out
