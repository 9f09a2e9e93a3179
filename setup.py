"""For Beam's `--setup_file`, which runs `python setup.py sdist` and sends the result to remote workers."""

from setuptools import setup

setup()
