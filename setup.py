"""Packages are found; three folders of the top level are installed under names that take nobody else's."""

from setuptools import find_packages, setup

FOLDERS = {"cli": "hard_ray_cli", "deploy": "hard_ray_deploy", "tune_spaces": "hard_ray_spaces"}

setup(
    packages=[
        *find_packages(include=["hard_ray", "hard_ray.*"]),
        *FOLDERS.values(),
        *(f"{name}.{below}" for folder, name in FOLDERS.items() for below in find_packages(folder)),
    ],
    package_dir={name: folder for folder, name in FOLDERS.items()},
)
