"""Import every module of the installed package: a script, as it runs where no test tool is."""

import importlib
import pkgutil

import milan_pipeline

for found in pkgutil.walk_packages(milan_pipeline.__path__, "milan_pipeline."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
