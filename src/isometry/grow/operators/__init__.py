"""Growth operators, one a file; the file's name is the operator's name in an option."""

from isometry.grow.operators.base import (
    DepthOperator,
    Operator,
    Placed,
    WidthOperator,
    available,
    find_operators,
)

__all__ = ["DepthOperator", "Operator", "Placed", "WidthOperator", "available", "find_operators"]
