"""Packages of the distribution.

conf/ and experiments/ are installed inside `harness`: packages of these names belong to other projects too.
"""

from setuptools import find_namespace_packages, setup

FOLDERS = {
    "harness": "harness",
    "harness.conf": "conf",
    "harness.experiments": "experiments",
    "hydra_plugins": "hydra_plugins",  # Hydra looks for plugins under this name
}
"""Folder of the repository for each installed package."""

setup(
    package_dir=FOLDERS,
    packages=[
        *FOLDERS,
        *(
            f"{package}.{part}"
            for package, folder in FOLDERS.items()
            for part in find_namespace_packages(folder, exclude=["*__pycache__"])
        ),
    ],
)
