"""The repeated blocks of a network, which are most of its weights and of its activations."""

from torch import nn


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Modules that a network repeats: all children, two or more, of a parent whose children are all of one class.

    Only modules with children of their own count, so a row of plain layers does not, and where such modules lie within
    each other only the innermost ones do: ``blocks.*`` of a ViT, ``stages.*.blocks.*`` of a ConvNeXt, ``layer1.*`` of a
    ResNet. None for a network that repeats nothing. They don't overlap, and come in the order of ``modules()``.
    """
    repeated = []
    for parent in network.modules():
        children = list(parent.children())
        if (
            len(children) > 1
            and len({type(child) for child in children}) == 1
            and any(children[0].children())
        ):
            repeated += children
    known = {id(block) for block in repeated}
    return [
        block
        for block in repeated
        if not any(id(part) in known for part in block.modules() if part is not block)
    ]
