from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import read_roco
from lavis_msmedcap.imaging.read import read_image


def test_train_with_byte_order_mark_crlf_and_line_breaks_inside(roco_tree):
    report = ReadReport("roco")
    records = {r.image_id: r for r in read_roco(roco_tree, "train", report=report)}
    assert list(records) == ["ROCO_00001", "ROCO_00002", "ROCO_00004"]
    assert records["ROCO_00001"].captions == (
        "Axial CT of the liver.",
        "Axial CT of the liver, again.",
    )
    assert records["ROCO_00002"].captions == ("Chest X-ray.\rSecond line\u2028third.",)
    assert records["ROCO_00004"].captions == ("Panoramic\tdental radiograph.",)
    assert [r.group_id for r in records.values()] == ["PMC111", "PMC111", "PMC222"]
    assert {r.domain for r in records.values()} == {"medical"}
    assert report.dropped == {
        "without caption": 1,
        "without a tab between id and caption": 1,
        "with a repeated id, the caption added to the first": 1,
    }
    assert report.n_read == 6  # lines that are not blank
    assert report.kept == {"train": 3}


def test_validation_folder_with_old_file_names(roco_tree):
    records = list(read_roco(roco_tree, "val"))
    folder = roco_tree / "data" / "validation" / "radiology" / "images"
    assert [r.image for r in records] == [
        str(folder / "PMC333_k.jpg"),
        str(folder / "PMC444_u.jpg"),
    ]
    assert {r.split for r in records} == {"val"}
    assert [r.group_id for r in records] == ["PMC333", "PMC444"]


def test_links_stand_in_for_licences_and_png_for_jpeg(roco_tree):
    report = ReadReport("roco")
    records = list(read_roco(roco_tree, "test", report=report))
    assert [r.group_id for r in records] == ["PMC555", None]
    assert report.notes == {"without article id": 1}
    assert records[0].image.endswith("ROCO_00021.png")
    assert read_image(records[0].image).getextrema()[0] == (0, 255)  # 12 bits, not clipped


def test_kinds(roco_tree):
    both = list(read_roco(roco_tree, "train", ("radiology", "non-radiology")))
    assert [r.image_id for r in both][-1] == "ROCO_90001"
    with pytest.raises(DataError, match=r"datasets\.roco\.kinds"):
        list(read_roco(roco_tree, "val", ("non-radiology",)))


@pytest.mark.parametrize("inside", ["", "data"])
def test_root_may_be_the_data_folder(roco_tree, inside):
    assert len(list(read_roco(roco_tree / inside, "val"))) == 2


def test_missing_image_keeps_the_new_name(roco_tree):
    (roco_tree / "data" / "validation" / "radiology" / "images" / "PMC444_u.jpg").unlink()
    records = list(read_roco(roco_tree, "val"))
    assert records[1].image.endswith("images/ROCO_00012.jpg")


def test_missing_split_names_place_and_key(tmp_path):
    with pytest.raises(DataError) as caught:
        list(read_roco(tmp_path, "val", source="my_roco"))
    assert str(tmp_path / "data" / "validation") in str(caught.value)
    assert "datasets.my_roco.build_info.root" in str(caught.value)


def test_unsafe_names_are_refused(roco_tree, make):
    folder = roco_tree / "data" / "validation" / "radiology"
    make.write(folder / "licences.txt", "ROCO_ID,PMC_ID,CC\nROCO_00011,../../x.jpg,X\n")
    with pytest.raises(DataError, match="refused"):
        list(read_roco(roco_tree, "val"))
    make.write(folder / "licences.txt", "ROCO_ID,PMC_ID,CC\n")
    make.write(folder / "captions.txt", "/etc/passwd\t Caption\n")
    with pytest.raises(DataError, match="line 1"):
        list(read_roco(roco_tree, "val"))


def test_other_encodings_are_reported(roco_tree, make):
    path = roco_tree / "data" / "test" / "radiology" / "captions.txt"
    make.write(path, "ROCO_00021\t Fracture ouverte \u00e9\n", encoding="latin-1")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_roco(roco_tree, "test"))
