"""Where the data sets can be downloaded, with checksums from citable places.

Checksums are torchvision's own (read in torchvision 0.29, ``torchvision/datasets/*.py``), those of
TensorFlow Datasets (TFDS; ``tensorflow_datasets/url_checksums/*.txt``, which also gives sizes) and,
for Aircraft, of dm_nevis. Each `Source` says which. A source without a checksum
is marked ``verified=False``, and what comes from it is accepted only after counts, class names and
every image have been checked. Sizes that neither of these gives are those that servers sent to
public download scripts: of Aircraft, Caltech101 and CIFAR-100.
"""

from __future__ import annotations

from clbench.datamodules.catalogue.remote import RemoteFile, Source

TORCHVISION = "torchvision 0.29, torchvision/datasets"
TFDS = "TensorFlow Datasets, url_checksums"

XTAIL = "https://www.modelscope.cn/datasets/ForestLuo/X-TAIL"
VGG = "https://www.robots.ox.ac.uk/~vgg/data"


def _whole(*folders: str) -> tuple[tuple[str, str], ...]:
    """Folders that keep their names."""
    return tuple((folder, folder) for folder in folders)


BY_HAND = Source(
    title="X-TAIL mirror",
    cite="named in the README of KeepLoRA (github.com/MaolinLuo/KeepLoRA)",
    verified=False,
    page=XTAIL,
    note="raw files, in folders of their own that are recognised as they are",
)

AIRCRAFT = Source(
    "VGG",
    f"address: {TORCHVISION}/fgvc_aircraft.py (no checksum there); md5: google-deepmind/dm_nevis "
    "at 7dc53a2, dm_nevis/datasets_storage/handlers/fgvc_aircraft.py",
    (
        RemoteFile(
            "fgvc-aircraft-2013b.tar.gz",
            f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            target="",
            checksum="md5:d4acdd33327262359767eeaa97a4f732",
            size=2_753_340_328,
            unpack=_whole("fgvc-aircraft-2013b"),
        ),
    ),
)

CALTECH101 = Source(
    "CaltechDATA",
    f"{TORCHVISION}/caltech.py",
    (
        RemoteFile(
            "caltech-101.zip",
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            target="caltech101",
            checksum="md5:3138e1922a9193bfa496528edbbc45d0",
            size=137_414_764,
            unpack=_whole("101_ObjectCategories"),
            inner=("caltech-101/101_ObjectCategories.tar.gz",),
        ),
    ),
    page="https://data.caltech.edu/records/mzrjq-6wc02",
)

CIFAR100 = Source(
    "University of Toronto",
    f"{TORCHVISION}/cifar.py",
    (
        RemoteFile(
            "cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            target="",
            checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
            size=169_001_437,
            unpack=_whole("cifar-100-python"),
        ),
    ),
)

DTD = Source(
    "VGG",
    f"{TORCHVISION}/dtd.py; size: {TFDS}/dtd.txt",
    (
        RemoteFile(
            "dtd-r1.0.1.tar.gz",
            f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",
            target="dtd",
            checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            size=625_239_812,
            unpack=_whole("dtd"),
        ),
    ),
)

EUROSAT_SIZE = 94_658_721
"""Of Zenodo's archive, which holds the same images as that of Hugging Face."""

EUROSAT = Source(
    "Hugging Face, torchgeo/eurosat at c877bcd",
    f"{TORCHVISION}/eurosat.py",
    (
        RemoteFile(
            "EuroSAT.zip",
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            target="eurosat",
            checksum="md5:c8fa014336c82ac7804f0398fcb19387",
            size=EUROSAT_SIZE,
            unpack=_whole("2750"),
        ),
    ),
)

EUROSAT_ZENODO = Source(
    "Zenodo 7711810",
    "the data set's record, doi.org/10.5281/zenodo.7711810",
    (
        RemoteFile(
            "EuroSAT_RGB.zip",
            "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
            target="eurosat",
            size=EUROSAT_SIZE,
            unpack=(("EuroSAT_RGB", "2750"),),
        ),
    ),
    verified=False,
    page="https://zenodo.org/records/7711810",
    note="no checksum could be read; folder name inside the archive as used by public code",
)

FLOWERS = Source(
    "VGG",
    f"{TORCHVISION}/flowers102.py; sizes: {TFDS}/oxford_flowers102.txt",
    (
        RemoteFile(
            "102flowers.tgz",
            f"{VGG}/flowers/102/102flowers.tgz",
            target="flowers-102",
            checksum="md5:52808999861908f626f3c1f4e79d11fa",
            size=344_862_509,
            unpack=_whole("jpg"),
        ),
        RemoteFile(
            "imagelabels.mat",
            f"{VGG}/flowers/102/imagelabels.mat",
            target="flowers-102",
            checksum="md5:e0620be6f572b9609742df49c70aed4d",
            size=502,
        ),
        RemoteFile(
            "setid.mat",
            f"{VGG}/flowers/102/setid.mat",
            target="flowers-102",
            checksum="md5:a5357ecc9cb78c4bef273ce3793fc85c",
            size=14_989,
        ),
    ),
)

FOOD = Source(
    "ETH Zurich",
    f"{TORCHVISION}/food101.py; size: {TFDS}/food101.txt",
    (
        RemoteFile(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            target="",
            checksum="md5:85eeb15f3717b99a5da872d97d918f87",
            size=4_996_278_331,
            unpack=_whole("food-101"),
        ),
    ),
)


def _mnist(title: str, cite: str, base: str) -> Source:
    """The four files; md5 sums of torchvision, sizes of TFDS."""
    rows = (
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    )
    files = (
        RemoteFile(name, base + name, "MNIST/raw", checksum=f"md5:{md5}", size=size)
        for name, md5, size in rows
    )
    return Source(title, cite, tuple(files))


MNIST = _mnist(
    "PyTorch", f"{TORCHVISION}/mnist.py", "https://ossci-datasets.s3.amazonaws.com/mnist/"
)
MNIST_GOOGLE = _mnist(
    "Google", f"{TFDS}/mnist.txt", "https://storage.googleapis.com/cvdf-datasets/mnist/"
)

PETS = Source(
    "VGG",
    f"{TORCHVISION}/oxford_iiit_pet.py; sizes: {TFDS}/oxford_iiit_pet.txt",
    (
        RemoteFile(
            "images.tar.gz",
            f"{VGG}/pets/data/images.tar.gz",
            target="oxford-iiit-pet",
            checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            size=791_918_971,
            unpack=_whole("images"),
        ),
        RemoteFile(
            "annotations.tar.gz",
            f"{VGG}/pets/data/annotations.tar.gz",
            target="oxford-iiit-pet",
            checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
            size=19_173_078,
            unpack=_whole("annotations"),
        ),
    ),
)

CARS = Source(
    "by hand",
    f"{TFDS}/cars196.txt",
    (
        RemoteFile(
            "cars_train.tgz",
            None,
            target="stanford_cars",
            checksum="sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            size=979_269_282,
            unpack=_whole("cars_train"),
        ),
        RemoteFile(
            "cars_test.tgz",
            None,
            target="stanford_cars",
            checksum="sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            size=977_350_468,
            unpack=_whole("cars_test"),
        ),
        RemoteFile(
            "car_devkit.tgz",
            "https://github.com/pytorch/vision/files/11644847/car_devkit.tgz",
            target="stanford_cars",
            checksum="sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
            size=330_960,
            unpack=_whole("devkit"),
        ),
        RemoteFile(
            "cars_test_annos_withlabels.mat",
            None,
            target="stanford_cars",
            checksum="sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
            size=185_758,
        ),
    ),
    page="https://github.com/pytorch/vision/issues/7545",
    note="the original site is gone; the page names copies (Kaggle, and car_devkit.tgz)",
)

SUN397 = Source(
    "Princeton",
    f"{TORCHVISION}/sun397.py; https address and size: {TFDS}/sun397.txt",
    (
        RemoteFile(
            "SUN397.tar.gz",
            "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            target="",
            checksum="md5:8ca2778205c41d23104230ba66911c7a",
            size=39_077_296_924,
            unpack=_whole("SUN397"),
        ),
    ),
)

TINYIMAGENET = Source(
    "Stanford",
    "avalanche, benchmarks/datasets/tiny_imagenet, and others that agree (md5); size as served",
    (
        RemoteFile(
            "tiny-imagenet-200.zip",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            target="",
            checksum="md5:90528d7ca1a48142e341f4ef8d21d0de",
            size=248_100_043,
            unpack=_whole("tiny-imagenet-200"),
        ),
    ),
)

IMAGENET_R = Source(
    "Berkeley and RAPF",
    f"{TFDS}/imagenet_r.txt (sha256 and size of the archive); no checksum of the split is known",
    (
        RemoteFile(
            "imagenet-r.tar",
            "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
            target="",
            checksum="sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
            size=2_191_079_936,
            unpack=_whole("imagenet-r"),
        ),
        RemoteFile(
            "imgr_train_test_split.txt",
            "https://raw.githubusercontent.com/linlany/RAPF/"
            "afbea62dba8bc91f62d7f5a91e17886a7bd2adc4/imgr_split/imgr_train_test_split.txt",
            target="imagenet-r",
            size=718_716,
        ),
    ),
    verified=False,
    note="the split is RAPF's, github.com/linlany/RAPF",
)

CUB200 = Source(
    "CaltechDATA",
    "md5: avalanche, benchmarks/datasets, and others that agree; size: "
    f"{TFDS}/caltech_birds2011.txt",
    (
        RemoteFile(
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            target="",
            checksum="md5:97eceeb196236b17998738112f37df78",
            size=1_150_585_339,
            unpack=_whole("CUB_200_2011"),
        ),
    ),
    page="https://data.caltech.edu/records/65de6-vp158",
)

_VISDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_DOMAINS = (
    ("clipart", "groundtruth/", "cd0d8f2d77a4e181449b78ed62bccf1e"),
    ("infograph", "", "720380b86f9e6ab4805bb38b6bd135f8"),
    ("painting", "groundtruth/", "1ae32cdb4f98fe7ab5eb0a351768abfd"),
    ("quickdraw", "", "bdc1b6f09f277da1a263389efe0c7a66"),
    ("real", "", "dcc47055e8935767784b7162e7c7cca6"),
    ("sketch", "", "658d8009644040ff7ce30bb2e820850f"),
)
_DOMAIN_LISTS = (
    ("clipart_train", "b4349693a7f9c05c53955725c47ed6cb"),
    ("clipart_test", "f5ddbcfd657a3acf9d0f7da10db22565"),
    ("infograph_train", "379b50054f4ac2018dca4f89421b92d9"),
    ("infograph_test", "779626b50869edffe8ea6941c3755c71"),
    ("painting_train", "7db0e7ca73ad9982f6e1f7f3ef372c0a"),
    ("painting_test", "232b35dc53f26d414686ae579e38d9b5"),
    ("quickdraw_train", "b732ced3939ac8efdd8c0a889dca56cc"),
    ("quickdraw_test", "c1a828fdfe216fb109f1c0083a252c6f"),
    ("real_train", "8ebf02c2075fadd564705f0dc7cd6291"),
    ("real_test", "6098816791c3ebed543c71ffa11b9054"),
    ("sketch_train", "1233bd18aa9a8a200bf4cecf1c34ef3e"),
    ("sketch_test", "d8a222e4672cfd585298aa14d02ea441"),
)
DOMAINNET = Source(
    "Boston University",
    "addresses: continuum, continuum/datasets/domain_net.py; md5: those of a public loader "
    "(_download_dataset of DomainNet in PyTorch), of the cleaned version",
    (
        *(
            RemoteFile(
                f"{domain}.zip",
                f"{_VISDA}/{folder}{domain}.zip",
                target="domainnet",
                checksum=f"md5:{md5}",
                unpack=_whole(domain),
            )
            for domain, folder, md5 in _DOMAINS
        ),
        *(
            RemoteFile(
                f"{name}.txt",
                f"{_VISDA}/domainnet/txt/{name}.txt",
                target="domainnet",
                checksum=f"md5:{md5}",
            )
            for name, md5 in _DOMAIN_LISTS
        ),
    ),
    page="https://ai.bu.edu/M3SDA/",
    note="the cleaned version; lists of Dassl's lie in splits/",
)
