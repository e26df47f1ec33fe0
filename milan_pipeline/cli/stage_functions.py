"""Every stage as a function: `pretrain(images=…, out=…)`.

They are made of the commands' options when they are asked for. The `.pyi` beside this file tells
them to editors and type checkers; `make reference` makes it of the same options.
"""

from typing import Any

from milan_pipeline.cli.run_stage import stage_function


def __getattr__(name: str) -> Any:
    return stage_function(name)
