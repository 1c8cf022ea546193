from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.evaluation import score_captions
from lavis_msmedcap.report import write_report
from lavis_msmedcap.report.selection import select_examples
from lavis_msmedcap.report.text import mark_caption

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def make_predictions(folder: Path, count: int) -> list[dict]:
    items = []
    for i in range(count):
        path = folder / f"{i}.png"
        pixels = np.full((40 + i, 60, 3), i * 5 % 255, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        side, other = ("left", "right") if i % 2 else ("right", "left")
        items.append(
            {
                "image_id": f"I{i}",
                "dataset": "roco" if i % 3 else "medicat",
                "caption": f"CT of the lung, {other if i == 0 else side} mass number {i}",
                "references": [f"Lung CT with mass {i} on the {side}"],
                "image": str(path),
            }
        )
    return items


def report(run_dir: Path, items: list[dict], **options) -> Page:
    settings = {"split": "test", "title": "A report", **options}
    path = write_report(run_dir, items, score_captions(items), **settings)
    assert path == run_dir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_whole_and_names_what_it_shows(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 12)
    page = report(tmp_path / "20260101-000000-abcdef", items)
    for words in ("A report", "20260101-000000-abcdef", "test · 12 images", "BLEU-4", "roco · I1"):
        assert words in page.text
    assert page.all("html") == [{"lang": "en"}]
    assert [entry["name"] for entry in page.all("meta") if "name" in entry] == [
        "viewport",
        "color-scheme",
    ]
    headings = [tag for tag, _ in page.seen if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    assert not list((tmp_path / "20260101-000000-abcdef").glob(".*"))


def test_images_are_inside_the_page_and_described(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 3)
    images = report(tmp_path, items).all("img")
    assert {image["alt"] for image in images} == {
        "Image medicat · I0",
        "Image roco · I1",
        "Image roco · I2",
    }
    kind, data = str(images[0]["src"]).split(",", 1)
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (int(images[0]["width"] or 0), int(images[0]["height"] or 0))


def test_large_images_are_made_small(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 2)
    Image.effect_noise((3000, 1500), 60).save(items[0]["image"])
    path = write_report(tmp_path, items, score_captions(items), split="test", title="x")
    assert path.stat().st_size < 150_000
    assert 'width="320" height="160"' in path.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_outside_and_nothing_runs(tmp_path: Path) -> None:
    page = report(tmp_path, make_predictions(tmp_path, 4))
    for tag, attributes in page.seen:
        assert tag not in {"script", "link", "iframe", "object", "embed", "a"}
        assert not any(name.startswith("on") for name in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:")
    style = " ".join(page.words)
    assert "url(" not in style
    assert "@import" not in style
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize(
    "field", ["caption", "references", "image_id", "dataset", "title", "split"]
)
def test_markup_in_any_text_is_shown_and_not_run(tmp_path: Path, field: str) -> None:
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>"\'&amp;'
    items = make_predictions(tmp_path, 3)
    options = {}
    if field in ("title", "split"):
        options[field] = evil
    else:
        items[1][field] = [evil, "b"] if field == "references" else evil
    page = report(tmp_path, items, **options)
    assert not page.all("script")
    assert len(page.all("img")) == 3
    assert not any("onerror" in attributes for _, attributes in page.seen)
    assert "<script>" in page.text
    assert "&amp;" in page.text


def test_lone_surrogates_and_control_characters_can_be_written(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 2)
    items[0]["caption"] = "a\ud800b\x00c\u2028d"
    assert "a\ufffdb\ufffdc d" in report(tmp_path, items).text


def test_a_missing_picture_is_a_remark_and_no_error(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 3)
    items[0]["image"] = str(tmp_path / "gone.png")
    del items[1]["image"]
    (tmp_path / "2.png").write_bytes(b"no picture")
    page = report(tmp_path, items)
    assert page.text.count("image not available") == 3
    assert not page.all("img")


def test_an_empty_caption_is_said_to_be_empty(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 3)
    items[0]["caption"] = " "
    assert "no words" in report(tmp_path, items).text


def test_best_and_worst_follow_cider(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 30)
    per_image = [
        {"image_id": item["image_id"], "dataset": item["dataset"], "CIDEr": (i * 7) % 30}
        for i, item in enumerate(items)
    ]
    chosen = select_examples(items, per_image, 21)
    assert [example.score for example in chosen.best] == [29, 28, 27]
    assert [example.score for example in chosen.worst] == [0, 1, 2]
    assert len(chosen.sample) == 15
    names = [example.prediction["image_id"] for example in chosen.sample]
    assert len(set(names)) == 15
    again = select_examples(items, per_image, 21)
    assert [example.prediction["image_id"] for example in again.sample] == names
    datasets = [example.prediction["dataset"] for example in chosen.sample]
    assert datasets.count("medicat") == 8  # datasets take turns, though one is twice as large


def test_without_cider_there_is_a_sample_only(tmp_path: Path) -> None:
    items = make_predictions(tmp_path, 10)
    sheet = score_captions(items, metrics=("BLEU",))
    path = write_report(tmp_path, items, sheet, split="test", title="x", max_examples=8)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("article")) == 8
    assert "Best by" not in page.text


def test_the_number_of_examples_is_bounded(tmp_path: Path) -> None:
    page = report(tmp_path, make_predictions(tmp_path, 30), max_examples=14)
    assert len(page.all("article")) == 14
    assert "10 of 30 images" in page.text


def test_figures_show_target_and_verdict(tmp_path: Path) -> None:
    figures = {
        "a": {"label": "Side", "value": 0.9, "target": 0.8, "passed": True, "detail": "9 of 10"},
        "b": {"label": "Kind", "value": None, "target": 0.95, "passed": False, "detail": "<none>"},
    }
    text = report(tmp_path, make_predictions(tmp_path, 2), figures=figures).text
    assert "Side 0.90 target ≥ 0.80: reached 9 of 10" in text
    assert "Kind n/a target ≥ 0.95: missed <none>" in text


def test_run_facts_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "model: {arch: msmedcap, model_type: demo, branches: {clip: {train_on: [general]}, "
        "sam: {train_on: [general, medical]}}}\ndatasets: {roco: {}}\n"
        "run: {max_epoch: 4, seed: 42}\n",
        encoding="utf-8",
    )
    text = report(tmp_path, make_predictions(tmp_path, 2)).text
    for words in ("msmedcap · demo", "(G, G+M)", "Epochs 4", "Seed 42"):
        assert words in text


@pytest.mark.parametrize("content", ["a: [", "- 1", "model: 5\nrun: x\n", ""])
def test_a_broken_configuration_leaves_the_facts_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    assert "Epochs" not in report(tmp_path, make_predictions(tmp_path, 2)).text


def test_shared_words_are_marked_together() -> None:
    html = mark_caption("Axial CT of the left lung.", ["CT: axial, left lung"])
    assert html == "<mark>Axial CT</mark> of the <mark>left lung</mark>."


def test_another_word_for_the_same_fact_is_marked() -> None:
    assert mark_caption("radiograph", ["an X-ray film"]) == "<mark>radiograph</mark>"
    assert mark_caption("sonogram", ["an X-ray film"]) == "sonogram"


def test_the_wrong_side_is_pointed_out() -> None:
    html = mark_caption("Left lung", ["right lung"])
    assert re.search('<em class="other-side" title="[^"]+">Left</em> <mark>lung</mark>', html)
    assert "other-side" not in mark_caption("left lung", ["both lungs"])
    assert "other-side" not in mark_caption("left lung", ["left and right lung"])
