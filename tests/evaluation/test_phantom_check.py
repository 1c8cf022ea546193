from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.evaluation.phantom_check import main, phantom_figures
from lavis_msmedcap.evaluation.predictions import find_predictions

ORGANS = {
    "CT": ["brain", "chest", "abdomen"],
    "Ultrasound": ["liver", "kidney", "thyroid"],
    "Radiograph": ["knee", "pelvis", "chest"],
}


def perfect() -> list[dict]:
    items = []
    for kind, organs in ORGANS.items():
        for organ in organs:
            for side in ("left", "right"):
                for position in ("upper", "lower"):
                    text = f"{kind} of the {organ} with a lesion in the {side} {position} part."
                    items.append(
                        {
                            "image_id": f"{kind}-{organ}-{side}-{position}",
                            "dataset": "roco",
                            "caption": text,
                            "references": [text],
                        }
                    )
    return items


def test_a_model_that_sees_everything_passes() -> None:
    figures = phantom_figures(perfect())
    assert list(figures) == [
        "cider_over_constant",
        "cider_over_dealt",
        "side_accuracy",
        "modality_accuracy",
    ]
    assert all(figure["passed"] for figure in figures.values()), figures
    assert figures["side_accuracy"]["value"] == 1.0
    assert figures["modality_accuracy"]["value"] == 1.0


def test_a_model_that_sees_nothing_fails() -> None:
    items = [dict(item, caption=perfect()[0]["caption"]) for item in perfect()]
    figures = phantom_figures(items)
    assert not any(figure["passed"] for figure in figures.values())
    assert figures["cider_over_constant"]["value"] <= 1.0
    assert figures["cider_over_dealt"]["value"] == pytest.approx(1.0)
    assert figures["side_accuracy"]["value"] == pytest.approx(1 / 2)
    assert figures["modality_accuracy"]["value"] == pytest.approx(1 / 3)


def test_only_images_whose_reference_names_a_side_count() -> None:
    items = perfect()
    for item in items[2:]:
        item["references"] = ["Normal CT of the brain."]
    items[0]["caption"] = "CT of the brain with a lesion in the right upper part."
    figure = phantom_figures(items)["side_accuracy"]
    assert figure["value"] == pytest.approx(1 / 2)
    assert figure["detail"] == "1 of 2 images"


def test_a_figure_that_cannot_be_measured_is_missed() -> None:
    items = [dict(item, references=["a cat on a sofa"]) for item in perfect()]
    figure = phantom_figures(items)["modality_accuracy"]
    assert figure["value"] is None
    assert not figure["passed"]


def test_baselines_that_earn_nothing_do_not_divide_by_zero() -> None:
    items = [
        {"image_id": "a", "dataset": "d", "caption": "lung", "references": ["lung"]},
        {"image_id": "b", "dataset": "d", "caption": "knee", "references": ["knee"]},
    ]
    value = phantom_figures(items)["cider_over_dealt"]["value"]
    assert value == pytest.approx(2.5 / 1e-3)


def write_run(folder: Path, items: list[dict], age: float = 0.0) -> Path:
    path = folder / "result" / "predictions_test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(items), encoding="utf-8")
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))
    return path


def test_the_newest_run_of_a_folder_is_taken(tmp_path: Path) -> None:
    old = write_run(tmp_path / "caption" / "20260101-000000-aaaaaa", perfect(), age=100)
    new = write_run(tmp_path / "caption" / "20251231-000000-bbbbbb", perfect())
    assert find_predictions(tmp_path) == new
    assert find_predictions(tmp_path / "caption") == new
    assert find_predictions(old.parent.parent) == old
    assert find_predictions(old) == old
    with pytest.raises(DataError, match=r"predictions_val\.json"):
        find_predictions(tmp_path, "val")


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "good", perfect())
    assert main([str(tmp_path / "good")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PASS") == 4
    assert "target >= 0.80" in printed
    blind = [dict(item, caption="CT") for item in perfect()]
    write_run(tmp_path / "blind", blind)
    assert main([str(tmp_path / "blind")]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "no list of predictions"), ("[1]", "prediction 0"), ("nonsense", "cannot read")],
)
def test_unreadable_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(content, encoding="utf-8")
    assert main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_runs_as_a_module(tmp_path: Path) -> None:
    path = write_run(tmp_path, perfect())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lavis_msmedcap.evaluation.phantom_check", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PASS") == 4
