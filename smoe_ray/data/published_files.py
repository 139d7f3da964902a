"""The files in which image sets are published: where, how large, and with which checksum.

MNIST, Fashion-MNIST, Kuzushiji-MNIST, EMNIST, CIFAR and SVHN: URL, size and SHA-256 are those of TensorFlow Datasets,
https://github.com/tensorflow/datasets/tree/master/tensorflow_datasets/url_checksums (mnist.txt, fashion_mnist.txt,
kmnist.txt, emnist.txt, cifar10.txt, cifar100.txt, svhn_cropped.txt). The MD5 of torchvision's
``torchvision/datasets/mnist.py`` and ``svhn.py`` belong to the same files. EMNIST has moved since: the address is
torchvision's, whose MD5 is that of the file at the old one.

MedMNIST: URL and MD5 of ``medmnist/info.py``, version 3.0.2, https://github.com/MedMNIST/MedMNIST; it gives no sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from smoe_ray.data.download import RemoteFile
from smoe_ray.spec import MedMnistData, NamedDataBase


def _at(url: str, *files: tuple[str, int, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, f"{url}/{name}", size, sha256=sha256) for name, size, sha256 in files)


_IDX = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
)  # fmt: skip


def _idx(url: str, *facts: tuple[int, str]) -> tuple[RemoteFile, ...]:
    """The four files, in the order of `_IDX`."""
    return _at(url, *((name, size, sha256) for name, (size, sha256) in zip(_IDX, facts, strict=True)))


_FILES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _idx(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion_mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "kmnist": _idx(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
        (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    "emnist": _at(
        "https://biometrics.nist.gov/cs_links/EMNIST",
        ("gzip.zip", 561_753_746, "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"),
    ),
    # The binary layout holds the same images as the pickles of the python layout, and cannot hold anything else.
    "cifar10": _at(
        "https://www.cs.toronto.edu/~kriz",
        ("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    ),
    "cifar100": _at(
        "https://www.cs.toronto.edu/~kriz",
        ("cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
    ),
    "svhn": _at(
        "http://ufldl.stanford.edu/housenumbers",
        ("train_32x32.mat", 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
        ("test_32x32.mat", 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    ),
}

_MEDMNIST_URL = "https://zenodo.org/records/10519652/files"
_MEDMNIST_MD5 = {
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "bloodmnist_64": "2b94928a2ae4916078ca51e05b6b800b",
    "bloodmnist_128": "adace1e0ed228fccda1f39692059dd4c",
    "breastmnist": "750601b1f35ba3300ea97c75c52ff8f6",
    "breastmnist_64": "742edef2a1fd1524b2efff4bd7ba9364",
    "breastmnist_128": "363e4b3f8d712e9b5de15470a2aaadf1",
    "dermamnist": "0744692d530f8e62ec473284d019b0c7",
    "dermamnist_64": "b70a2f5635c6199aeaa28c31d7202e1f",
    "dermamnist_128": "2defd784463fa5243564e855ed717de1",
    "octmnist": "c68d92d5b585d8d81f7112f81e2d0842",
    "octmnist_64": "e229e9440236b774d9f0dfef9d07bdaf",
    "octmnist_128": "0a97e76651ace45c5d943ee3f65b63ae",
    "organamnist": "68e3f8846a6bd62f0c9bf841c0d9eacc",
    "organamnist_64": "2dcccc29b88e6da5a01161ef20cda288",
    "organamnist_128": "eeae80d0a227a8d099027e1b3cfd3b60",
    "organcmnist": "b9ceb9546e10131b32923c5bbeaea2b1",
    "organcmnist_64": "3ce34a8724ea6f548e6db4744d03b6a9",
    "organcmnist_128": "773c1f009daa3fe5d9a2a201b2a7ed94",
    "organsmnist": "9ab87b696fb54e2a387ebe992d6ed5f1",
    "organsmnist_64": "53a6d115339d874c25e309a994ff46d3",
    "organsmnist_128": "ded0c5fa01a95dc4978b956f613e9b8e",
    "pathmnist": "a8b06965200029087d5bd730944a56c1",
    "pathmnist_64": "55aa9c1e0525abe5a6b9d8343a507616",
    "pathmnist_128": "ac42d08fb904d92c244187169d1fd1d9",
    "pneumoniamnist": "28209eda62fecd6e6a2d98b1501bb15f",
    "pneumoniamnist_64": "8f4eceb4ccffa70c672198ea285246c6",
    "pneumoniamnist_128": "05b46931834c231683c68f40c47b2971",
    "retinamnist": "bd4c0672f1bba3e3a89f0e4e876791e4",
    "retinamnist_64": "afda852cc34dcda56f86ad2b2457dbcc",
    "retinamnist_128": "e48e916a24454daf90583d4e6efb1a18",
    "tissuemnist": "ebe78ee8b05294063de985d821c1c34b",
    "tissuemnist_64": "123ece2eba09d0aa5d698fda57103344",
    "tissuemnist_128": "61b955355d7425a89687b06cca3ce0c2",
}


def medmnist_file(spec: MedMnistData) -> str:
    """Name of the file of a MedMNIST set, without ``.npz``: ``pathmnist``, ``pathmnist_64`` …"""
    return spec.name if spec.size == 28 else f"{spec.name}_{spec.size}"


def published_files(spec: NamedDataBase) -> Sequence[RemoteFile]:
    """The files to download for `spec`; those of EMNIST and CIFAR are archives, which are read as they are."""
    if isinstance(spec, MedMnistData):
        name = medmnist_file(spec)
        return (RemoteFile(f"{name}.npz", f"{_MEDMNIST_URL}/{name}.npz?download=1", md5=_MEDMNIST_MD5[name]),)
    return _FILES[spec.source]


def fetch_name(spec: NamedDataBase) -> str:
    """What ``smoe-ray data fetch`` calls the files of `spec`."""
    return f"medmnist/{medmnist_file(spec)}" if isinstance(spec, MedMnistData) else spec.source


def fetch_names() -> list[str]:
    """All that `fetch_name` may say: ``mnist``, ``medmnist/pathmnist``, ``medmnist/pathmnist_64`` …"""
    return [*_FILES, *(f"medmnist/{name}" for name in _MEDMNIST_MD5)]
