from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from pickles import Payload
from safetensors.torch import save_file

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.weights import ExpectedKeys, gather_layers, load_strict, read_weights


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, file = tmp_path / "ran", tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.ones(1)}, "extra": Payload(marker)}, file)
    with pytest.raises(WeightsError, match="can run code"):
        read_weights(file)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))  # the payload itself works
    assert marker.exists()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.json", "w"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"machine-17\n", "it is text"),
        ("R\u00f6ntgen ".encode() * 200, "it is text"),
        (b'{"model_type": "opt"}', "it is JSON"),
        (b"\n<!DOCTYPE html>\n<html>Log in</html>", "a web page; download it again"),
        (POINTER.encode(), "Git-LFS pointer.*git lfs pull.*download it again"),
    ],
)
def test_what_is_no_weights_file_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"(?s)is not a weights file.*{message}") as caught:
        read_weights(tmp_path / name)
    assert "run code" not in str(caught.value)


def test_a_binary_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(WeightsError, match="is not a weights file: it begins like neither"):
        read_weights(tmp_path / "w.pth")


def test_old_pickles_with_code_are_still_called_so(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(WeightsError, match="can run code"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_wrapped_and_plain_files_give_the_same_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(tensors, tmp_path / "plain.pth")
    save_file(tensors, tmp_path / "plain.safetensors")
    for name in ("wrapped.pth", "plain.pth", "plain.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["a"], tensors["a"])


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("pth"):
        torch.save({"a": torch.ones(1000)}, file)
    else:
        save_file({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(WeightsError, match=r"w\.(pth|safetensors) is damaged"):
        read_weights(file)


def test_every_unexplained_key_is_named_and_nothing_is_copied() -> None:
    targets = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(3), "d": torch.zeros(1)}
    weights = {
        "a": torch.ones(2),
        "c": torch.ones(2),
        "d": torch.tensor([float("nan")]),
        "z": torch.ones(1),
    }
    with pytest.raises(WeightsError) as error:
        load_strict(targets, weights, "file.pth")
    for part in ("missing: b", "unexpected: z", "wrong shape: c", "not finite: d", "file.pth"):
        assert part in str(error.value)
    assert torch.equal(targets["a"], torch.zeros(2))


def test_names_of_several_layers_are_told_as_one() -> None:
    names = ["a.layer.0.w", "b", "a.layer.10.w", "a.layer.0.x", "vit.blocks.3.layer.1.w"]
    assert gather_layers(names) == [
        "a.layer.{0,10}.w",
        "b",
        "a.layer.0.x",
        "vit.blocks.3.layer.1.w",
    ]


def test_expected_keys_are_reported_with_their_reason() -> None:
    targets = {"a": torch.zeros(2), "head.w": torch.zeros(1)}
    weights = {"a": torch.ones(2, dtype=torch.float16), "old.w": torch.ones(1)}
    expected = ExpectedKeys(missing={"head.": "starts fresh"}, unused={"old.": "of stage 1"})
    report = load_strict(targets, weights, "file", expected)
    assert torch.equal(targets["a"], torch.ones(2))
    assert report.loaded == 1
    assert report.expected_missing == {"starts fresh": ["head.w"]}
    assert report.expected_unused == {"of stage 1": ["old.w"]}
    assert len(report.lines()) == 3
