"""YAML from other people: plain values only, and no more of them than a recipe can mean.

An alias costs a few characters and stands for all that its anchor holds; ten lists of ten aliases each stand for ten
billion values, which any copy of them writes out ("billion laughs"). So they are counted before anything is built.
"""

import math
import unicodedata
from itertools import chain
from typing import Any

import yaml

LONGEST = 2**18
"""Characters of a text that is read; recipes have a few thousand."""
MOST_VALUES = 10_000
"""Values that a text may stand for, with every alias written out."""


class RefusedError(Exception):
    """YAML that is not taken; why, in words."""


FAILURES = (
    yaml.YAMLError,
    RefusedError,
    # what PyYAML's constructors make of a value that does not fit its tag
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading YAML raises."""


def load(text: str) -> Any:
    """The values in a YAML text: mappings, lists, text, numbers, dates; a tag that asks for anything else is an error.

    Raises:
        FAILURES: no YAML, more than ``LONGEST`` characters or ``MOST_VALUES`` values, or control characters in one,
            which a terminal would obey and a file name can't hold.
    """
    if len(text) > LONGEST:
        raise RefusedError(f"is longer than {LONGEST:,} characters, so it is no recipe")
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _values_in(node, {}) > MOST_VALUES:
        raise RefusedError(f"stands for more than {MOST_VALUES:,} values, aliases written out; write fewer")
    return loader.construct_document(node)


def _values_in(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """Values that a node stands for; infinitely many where an anchor holds an alias of itself."""
    if node not in known:
        known[node] = math.inf
        known[node] = 1 + sum(_values_in(child, known) for child in _children(node))
    return known[node]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        _check_characters(node)
        return _inside_text(node.value)
    return list(chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value)


def _inside_text(text: str) -> list[yaml.Node]:
    """What text stands for with whoever reads it as YAML once more: options that take more than text are read so."""
    if "*" not in text:
        return []
    try:
        node = yaml.SafeLoader(text).get_single_node()
    except FAILURES:
        return []
    return [] if node is None or node.value == text else [node]


def _check_characters(node: yaml.ScalarNode) -> None:
    for character in node.value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            line = node.start_mark.line + 1
            raise RefusedError(f"has a control character ({character!a}) in line {line}; take it out")
