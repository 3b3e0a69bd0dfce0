"""Processes in which some installed packages are as if they were not installed, in all their children too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# Python imports it when it starts. Distributions are found by the same finders as modules.
_SITE = """
import importlib.machinery, sys

HIDDEN = set({names!r})


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        for found in importlib.machinery.PathFinder.find_distributions(*context):
            if found.metadata["Name"].lower().replace("-", "_") not in HIDDEN:
                yield found

    invalidate_caches = importlib.machinery.PathFinder.invalidate_caches


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
"""


def environment_without(names: Iterable[str], folder: Path) -> dict[str, str]:
    """This environment, in which Python finds none of these modules and packages; `folder` gets a file."""
    (folder / "sitecustomize.py").write_text(_SITE.format(names=sorted(names)))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
