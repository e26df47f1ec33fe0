"""Reads YAML, and refuses what its rules would change or drop without a word."""

from typing import Any

import yaml


class SurprisingYamlError(yaml.YAMLError):
    """YAML would read something else than what stands there; the message has line and remedy."""


class StrictLoader(yaml.SafeLoader):
    """Reads plain YAML; a key given twice and a number in another notation are refused.

    Of two equal keys YAML drops the first, and it reads 010 as 8 and 24:00:00 as 86400. Keys that
    differ in `-` and `_` alone are equal, since they name the same option.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; here, as keys that `<<` merges join it only later.

        Raises:
            SurprisingYamlError: it has a key twice.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            before = first.setdefault(key.value.replace("_", "-"), key)
            if before is not key:
                raise SurprisingYamlError(
                    f"line {_line(key)} gives {key.value!r}, which line {_line(before)} gives "
                    "already; take one out"
                )
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number.

        Raises:
            SurprisingYamlError: it is not written as one usually is, and may be meant as text.
        """
        value: int = super().construct_yaml_int(node)
        if node.value.lstrip("+").replace("_", "") != str(value):
            raise SurprisingYamlError(
                f"line {_line(node)} has {node.value}, which YAML reads as {value}; put it in "
                f"quotes if it is text, else write {value}"
            )
        return value


StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)


class OptionsLoader(StrictLoader):
    """Leaves fractions as they are written, since the option says what they are.

    YAML reads 1.10 as the number 1.1, and it may be the name of something.
    """

    def as_written(self, node: yaml.ScalarNode) -> str:
        """Return what stands in the file."""
        return str(node.value)


OptionsLoader.add_constructor("tag:yaml.org,2002:float", OptionsLoader.as_written)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
