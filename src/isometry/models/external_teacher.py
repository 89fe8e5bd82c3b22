"""A network that is not timm's as a teacher: the contract that it keeps, with timm's interface on top."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isometry.errors import UserError, first_line
from isometry.models.patch_layout import PatchLayout, noise, probe_layout


class Answer(NamedTuple):
    """What a network says of images: logits (B, K), if it has a classifier, and the mean of its last patches (B, C)."""

    logits: Tensor | None
    pooled: Tensor


class ExternalTeacher(nn.Module):
    """Any network that takes images (B, C, H, W) as a teacher, with the methods of timm's models that one needs.

    Features are the outputs of blocks, which hooks read: a map (B, C, H, W) or (B, H, W, C), or tokens (B, N, C) of
    which the patches are in rows; of an output of several parts the first tensor. No norm follows. Blocks and patches
    are found where they are not given: blocks are the modules of one class of which the most stand in one list and
    compute once a pass, and :func:`isometry.models.patch_layout.probe_layout` finds the patches.

    Args:
        network: called with normalised images.
        size: channels, height and width of these.
        mean, std: of the normalisation, for pixels in 0..1, one number for each channel.
        blocks: modules inside the network whose outputs are features, in order.
        layout: of their features.
        logits: output of the network -> logits (B, K). By default the output itself, if it is (B, K), or its
            ``logits``.
        has_classes: whether there are logits; False for a network that returns features.
        label_names: of the classes.
        name: for messages and the report.

    Raises:
        UserError: the network can't take such images, or its blocks or patches can't be found.

    Example:
        >>> teacher = ExternalTeacher(network, (3, 224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    """

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        blocks: Sequence[nn.Module] | None = None,
        layout: PatchLayout | None = None,
        logits: Callable[[Any], Tensor | None] | None = None,
        has_classes: bool = True,
        label_names: Sequence[str] | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self._logits_of = (logits or _logits_in) if has_classes else _no_logits
        # A tuple, so that they are not registered a second time.
        self._blocks: tuple[nn.Module, ...] = tuple(blocks or ())
        name = name or type(network).__name__
        image = noise(size, next(network.parameters()))
        try:
            with torch.no_grad():
                self._blocks = self._blocks or _find_blocks(network, image)
                self.layout = layout or probe_layout(self._entering, image)
                answer, maps = self._run(image, list(range(len(self._blocks))))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        except Exception as error:
            # What a stranger's network raises may be anything.
            shape = "×".join(map(str, size))
            raise UserError(f"{name}: can't take images of {shape} ({first_line(error)})") from error
        self.num_classes = 0 if answer.logits is None else answer.logits.shape[1]
        self.num_features = answer.pooled.shape[1]
        self.feature_info = [
            {"num_chs": each.shape[1], "module": f"block {i}"} for i, each in enumerate(maps)
        ]
        self.pretrained_cfg = {
            "architecture": name,
            "input_size": tuple(size),
            "fixed_input_size": True,
            "mean": tuple(mean),
            "std": tuple(std),
            "crop_pct": 1.0,
            "num_classes": self.num_classes,
            "label_names": list(label_names) if label_names and self.num_classes else None,
        }

    def forward(self, input_BCHW: Tensor) -> Tensor:
        """Logits (B, K); of a network without classes the mean of its last patches (B, C)."""
        return self.forward_head(self._run(input_BCHW, [])[0])

    def forward_head(self, last: Answer, pre_logits: bool = False) -> Tensor:
        """Logits, or ``pre_logits`` the mean of the last patches, from what :meth:`forward_intermediates` returned."""
        return last.pooled if pre_logits or last.logits is None else last.logits

    def forward_intermediates(
        self,
        input_BCHW: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """timm's: the answer and the features of some blocks, or of the last ``indices``; or these features alone.

        ``norm`` has no effect, as the network's last norm is not known. Raises AssertionError, as timm does, for
        ``"NLC"`` if features are maps.
        """
        assert output_fmt == "NCHW" or self.layout.axes == "BNC"
        every = list(range(len(self._blocks)))
        chosen = indices if isinstance(indices, list) else every[-indices:] if indices else every
        answer, maps = self._run(input_BCHW, chosen)
        features = maps if output_fmt == "NCHW" else [each.flatten(2).mT for each in maps]
        return features if intermediates_only else (answer, features)

    # Hooks that come and go would be compiled anew at each pass.
    @torch.compiler.disable
    def _run(self, input_BCHW: Tensor, chosen: list[int]) -> tuple[Answer, list[Tensor]]:
        """The answer, and the maps (B, C, H, W) of the chosen blocks."""
        found: dict[int, Tensor] = {}
        wanted = {*chosen, len(self._blocks) - 1}
        with ExitStack() as hooks:
            for place in wanted:
                hooks.enter_context(self._blocks[place].register_forward_hook(_store(found, place)))
            output = self.network(input_BCHW)
        maps = {place: self.layout.as_map(found[place]) for place in wanted}
        return Answer(self._logits_of(output), maps[len(self._blocks) - 1].mean((2, 3))), [
            maps[i] for i in chosen
        ]

    def _entering(self, image_1CHW: Tensor) -> Tensor:
        """What enters the first block."""
        found: list[Tensor] = []

        def store(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(_first_tensor((*args, *kwargs.values())))

        with self._blocks[0].register_forward_pre_hook(store, with_kwargs=True):
            self.network(image_1CHW)
        return found[0]


def _store(found: dict[int, Tensor], place: int) -> Callable[[nn.Module, Any, Any], None]:
    def store(_: nn.Module, __: Any, output: Any) -> None:
        found[place] = _first_tensor(output)

    return store


def _first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor among its parts."""
    if isinstance(output, Tensor):
        return output
    parts = (
        output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    )
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise UserError(f"a block gives no tensor but {type(output).__name__}")


def _logits_in(output: Any) -> Tensor | None:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) and found.ndim == 2 else None


def _no_logits(_: Any) -> None:
    return None


def _find_blocks(network: nn.Module, image_1CHW: Tensor) -> tuple[nn.Module, ...]:
    """The blocks of a network in the order in which they compute.

    Raises:
        UserError: no two like modules stand together and compute once a pass.
    """
    lists = [
        [each for each in parent.children() if any(each.children())]
        for parent in network.modules()
        if len(set(map(type, parent.children()))) == 1
    ]
    called: list[nn.Module] = []
    with ExitStack() as hooks:
        for block in {id(block): block for each in lists for block in each}.values():
            hooks.enter_context(block.register_forward_pre_hook(lambda module, _: called.append(module)))
        network(image_1CHW)
    once = {id(block) for block in called if sum(block is other for other in called) == 1}
    lists = [kept for each in lists if len(kept := [block for block in each if id(block) in once]) > 1]
    if not lists:
        raise UserError(
            "no blocks are found, two or more like modules in a list; give a function that names them"
        )
    # Of lists of one length the outermost, which is the first.
    kind = type(max(lists, key=len)[0])
    blocks = {id(block) for each in lists for block in each if type(block) is kind}
    return tuple(block for block in called if id(block) in blocks)
