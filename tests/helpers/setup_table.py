"""What setup.py says."""

import os
import runpy
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run_setup():
    """The names of setup.py, which is run without setting anything up."""
    import setuptools

    before, setuptools.setup = setuptools.setup, lambda **_: None
    folder = os.getcwd()
    os.chdir(REPOSITORY)
    try:
        return runpy.run_path("setup.py")
    finally:
        os.chdir(folder)
        setuptools.setup = before
