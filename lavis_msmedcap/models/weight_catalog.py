"""Published weights by short name: where they come from, as data.

A checksum stands here only where a public source gives it for that very file; elsewhere the one
that the server sends is verified (see `weight_download`). Files of Hugging Face are named at a
fixed revision, so that they cannot change.
"""

from __future__ import annotations

from dataclasses import dataclass

LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2"
SEGMENT_ANYTHING = "https://dl.fbaipublicfiles.com/segment_anything"
HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        path: Where it goes below a weights folder, with forward slashes.
        url: Where it comes from.
        size: Bytes, None if unknown.
        sha256: Checksum in hexadecimal digits, None if unknown.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class CatalogEntry:
    """Weights under a short name: a file, or a folder of files.

    Attributes:
        name: What a configuration says.
        what: What it is.
        files: One file, or those of the folder that has the entry's name.
        main: In a folder, the file that holds the tensors.
    """

    name: str
    what: str
    files: tuple[RemoteFile, ...]
    main: str = ""

    @property
    def path(self) -> str:
        """The file or folder below a weights folder."""
        return self.name if self.main else self.files[0].path

    @property
    def size(self) -> int | None:
        """Bytes of all files, None unless the size of the largest ones is known."""
        big = [file.size for file in self.files if not file.path.endswith((".json", ".txt"))]
        known = [size for size in big if size is not None]
        small = sum(file.size or 0 for file in self.files if file.path.endswith((".json", ".txt")))
        return sum(known) + small if len(known) == len(big) else None


def _file(
    name: str,
    what: str,
    folder: str,
    file: str,
    size: int | None = None,
    sha256: str | None = None,
) -> CatalogEntry:
    return CatalogEntry(name, what, (RemoteFile(file, f"{folder}/{file}", size, sha256),))


def _hugging_face(
    name: str,
    what: str,
    repository: str,
    revision: str,
    files: dict[str, tuple[int | None, str | None]],
    main: str,
) -> CatalogEntry:
    base = f"{HUGGING_FACE}/{repository}/resolve/{revision}"
    return CatalogEntry(
        name,
        what,
        tuple(
            RemoteFile(f"{name}/{file}", f"{base}/{file}", size, sha256)
            for file, (size, sha256) in files.items()
        ),
        main,
    )


UNKNOWN = (None, None)
OPT_MERGES = (456318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")
OPT_VOCAB = (898822, "06b4d46c8e752d410213d9548eb27a54db70fda0319b6271fb8d59dead5e1cab")
OPT_TOKENIZER = "d1e4185b43a0a06421ab7218d5c1a775350bd13024507b34fbed25dcf6c14c6b"

ENTRIES = (
    # LAVIS 1.0.2: configs/models/blip2/*.yaml, models/eva_vit.py, models/clip_vit.py
    _file("blip2_pretrained", "BLIP-2 stage 1, Q-Former over ViT-g", LAVIS, "blip2_pretrained.pth"),
    _file(
        "blip2_pretrained_vitL",
        "BLIP-2 stage 1, Q-Former over CLIP ViT-L",
        LAVIS,
        "blip2_pretrained_vitL.pth",
    ),
    _file("eva_vit_g", "EVA-CLIP ViT-g/14, image encoder", LAVIS, "eva_vit_g.pth"),
    _file("clip_vit_l", "CLIP ViT-L/14, image encoder", LAVIS, "clip_vit_L.pth"),
    # README of segment-anything, "Model Checkpoints"
    _file(
        "sam_vit_b",
        "Segment Anything ViT-B",
        SEGMENT_ANYTHING,
        "sam_vit_b_01ec64.pth",
        375042383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _file(
        "sam_vit_l",
        "Segment Anything ViT-L",
        SEGMENT_ANYTHING,
        "sam_vit_l_0b3195.pth",
        1249524607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _file(
        "sam_vit_h",
        "Segment Anything ViT-H",
        SEGMENT_ANYTHING,
        "sam_vit_h_4b8939.pth",
        2564550879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _hugging_face(
        "bert-base-uncased",
        "BERT and its WordPiece tokenizer, for the Q-Formers",
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        {
            "config.json": UNKNOWN,
            "vocab.txt": (
                231508,
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
            "tokenizer.json": UNKNOWN,
            "tokenizer_config.json": UNKNOWN,
            "model.safetensors": (
                440449768,
                "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
            ),
        },
        "model.safetensors",
    ),
    _hugging_face(
        "opt-125m",
        "OPT with 125 million parameters",
        "facebook/opt-125m",
        "27dcfa74d334bc871f3234de431e71c6eeba5dd6",
        {
            "config.json": UNKNOWN,
            "vocab.json": UNKNOWN,
            "merges.txt": UNKNOWN,
            "tokenizer_config.json": UNKNOWN,
            "pytorch_model.bin": UNKNOWN,
        },
        "pytorch_model.bin",
    ),
    _hugging_face(
        "opt-1.3b",
        "OPT with 1.3 billion parameters",
        "facebook/opt-1.3b",
        "aa6ac1e23bb9a499be2b7400079cd2a7b8a1309a",
        {
            "config.json": (
                None,
                "f1aaceefb7d34d346e9b0400d95fdb4970567bcbe1d4aba1068c5402099b644f",
            ),
            "vocab.json": OPT_VOCAB,
            "merges.txt": OPT_MERGES,
            "tokenizer_config.json": (None, OPT_TOKENIZER),
            "pytorch_model.bin": (
                None,
                "cf7d5c970d6ddbd3b03009b397c0422e147edd5c8020d47a8d2fac0b11a3b08d",
            ),
        },
        "pytorch_model.bin",
    ),
    _hugging_face(
        "opt-2.7b",
        "OPT with 2.7 billion parameters, the paper's language model",
        "facebook/opt-2.7b",
        "c9c15109b9dac40871c063892227d45b85cb3952",
        {
            "config.json": (
                None,
                "78e28adcb451e26ca38b4a808a53318dc12c711a26d2f04158586672de0f1482",
            ),
            "vocab.json": OPT_VOCAB,
            "merges.txt": OPT_MERGES,
            "tokenizer_config.json": (None, OPT_TOKENIZER),
            "pytorch_model.bin": (
                None,
                "476391562b9b2635c672d15bd69cfa881c5c824ebe89b00fee6c58947541e6e4",
            ),
        },
        "pytorch_model.bin",
    ),
    _hugging_face(
        "opt-6.7b",
        "OPT with 6.7 billion parameters",
        "facebook/opt-6.7b",
        "a45aa65bbeb77c1558bc99bedc6779195462dab0",
        {
            "config.json": UNKNOWN,
            "vocab.json": UNKNOWN,
            "merges.txt": UNKNOWN,
            "tokenizer_config.json": UNKNOWN,
            "pytorch_model.bin.index.json": UNKNOWN,
            "pytorch_model-00001-of-00002.bin": (9960750957, None),
            "pytorch_model-00002-of-00002.bin": (3356360185, None),
        },
        "pytorch_model.bin.index.json",
    ),
)
CATALOG = {entry.name: entry for entry in ENTRIES}
