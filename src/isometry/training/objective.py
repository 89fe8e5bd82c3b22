"""Objective: student, teacher and weighted terms as one timm training task."""

from typing import Any, cast

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.functional.labels import cross_entropy_each
from isometry.losses import Loss, build_loss, find_loss
from isometry.losses.base import GATE_INPUTS, Reduction, Relations, Term, parse_terms
from isometry.models.spec import image_spec
from isometry.models.taps import BlockPair, TappedModel, pair_blocks, tokens_on_grid
from isometry.models.teacher import InputAdapter, Teacher, TeacherOutput
from isometry.prune.gates import GatedConv, GateOutput, gated_convs, take_gate_outputs
from isometry.training.phase_timer import PhaseTimer


class Trainable(nn.Module):
    """All that the optimizer sees: the student with its taps, and the losses with their projections."""

    def __init__(self, student: nn.Module, blocks: list[int], terms: nn.ModuleDict) -> None:
        super().__init__()
        self.tapped = TappedModel(student, blocks)
        self.terms = terms
        # In a plain list: they are the student's already.
        self.gated: list[GatedConv] = list(gated_convs(student).values())

    def forward(self, input_BCHW: Tensor) -> tuple[Any, list[Tensor], list[GateOutput]]:
        logits, features = self.tapped(input_BCHW)
        # Handed out, so that DistributedDataParallel sees all that a loss may depend on.
        return logits, features, take_gate_outputs(self.gated)


class Objective(TrainingTask):
    """``loss = Σ_k weight_k · term_k``, with everything that the terms need computed once.

    The teacher stays in eval mode, outside the parameters, the EMA and the checkpoint, leaves no autograd graph, and is
    not run when no term asks for it.

    Args:
        student: the timm model to train.
        losses: terms by name, ``{"soft": 1, "whole": 4}`` or ``{"soft": {"weight": 1, "temperature": 2}}``.
        teacher: a timm model, or None when no term needs one.
        taps: (student blocks, teacher blocks); by default the first and last four of each.
        reduction: ``"mean"`` or ``"paper"``, for the relation terms and over blocks.
        relations: ``"global"`` relates the images of all processes, ``"local"`` those of each.
        generator: where random terms draw from; a CPU generator.
        img_size: side of the student's images, if it takes any size. A teacher sees images of its own size.

    Raises:
        UserError: an unknown loss or option, a term that needs a teacher where there is none, label spaces that differ,
            blocks that a model lacks.
    """

    def __init__(
        self,
        student: nn.Module,
        losses: dict[str, float | dict[str, Any]],
        teacher: nn.Module | None = None,
        *,
        taps: tuple[str | list[int] | None, str | list[int] | None] = (None, None),
        reduction: Reduction = "mean",
        relations: Relations = "global",
        generator: torch.Generator | None = None,
        img_size: int | None = None,
    ) -> None:
        super().__init__(verbose=False)
        self.terms = parse_terms(losses)
        if not self.terms:
            raise UserError("losses: every term is switched off; give one a weight, e.g. --losses.ce 1")
        needs = {name for term in self.terms for name in find_loss(term.name).inputs}
        if teacher is None and needs & {"teacher_logits", "teacher_tokens"}:
            asking = next(t.name for t in self.terms if "teacher" in "".join(find_loss(t.name).inputs))
            raise UserError(
                f"losses.{asking} needs a teacher; name one with --teacher, or set --losses.{asking} 0"
            )
        asking_gates = [term.name for term in self.terms if find_loss(term.name).takes_gates()]
        if asking_gates and not gated_convs(student):
            raise UserError(
                f"losses.{asking_gates[0]} needs a model with gates; use isometry prune, "
                f"or set --losses.{asking_gates[0]} 0"
            )
        self.needs_teacher = bool(needs & {"teacher_logits", "teacher_tokens"})
        self.needs_labels = bool(needs & {"labels", "cross_entropy"})
        self.needs_cross_entropy = bool(gated_convs(student)) or "cross_entropy" in needs
        self.reduction, self.relations = reduction, relations
        self.pairs: list[BlockPair] = []
        # In a tuple, so that the teacher is no submodule: not trained, averaged, saved or set to train mode.
        self._teacher: tuple[Teacher] | None = None
        self.watch = PhaseTimer()
        if teacher is not None and self.needs_teacher:
            self._attach_teacher(student, teacher, taps, img_size, needs)
        if "student_distilled_logits" in needs and hasattr(student, "set_distilled_training"):
            student.set_distilled_training(True)  # type: ignore[operator]
        self.trainable_module: nn.Module = Trainable(
            student, [pair.student.block for pair in self.pairs], self._build_terms(generator)
        )
        self.eval_model = student

    @property
    def student(self) -> nn.Module:
        """The model that trains, without wrappers."""
        return unwrap_model(unwrap_model(self.trainable_module).tapped).model

    @property
    def losses(self) -> Any:
        """The losses by term, one a pair of blocks where they compare tokens; some have weights of their own."""
        return unwrap_model(self.trainable_module).terms

    @property
    def teacher_view(self) -> InputAdapter | None:
        """Turns the student's input into the teacher's."""
        return None if self._teacher is None else self._teacher[0].view

    @property
    def teacher(self) -> nn.Module | None:
        """The teacher as timm built it, or None where no term needs one."""
        return None if self._teacher is None else self._teacher[0].model

    def ask_teacher(self, input: Tensor) -> TeacherOutput | None:
        """What the teacher says about images that are normalised for the student; None where no term needs it."""
        return None if self._teacher is None else cast(TeacherOutput, self._teacher[0](input))

    def forward(self, input: Tensor, target: Tensor, taught: TeacherOutput | None = None) -> dict[str, Any]:
        """One step's loss.

        Args:
            input: images (B, C, H, W), normalised for the student.
            target: class indices (B,) or probabilities (B, K); ignored when no term needs labels.
            taught: what the teacher says about them, where that is known; else it is asked.

        Returns:
            ``loss``, each term by name before its weight (scalars), and ``output``, the logits (B, K). Of a student
            with gates also ``saliencies``, (B, G) a gated layer, and ``cross_entropy`` (B,), both without gradient.
        """
        with self.watch("student"):
            logits, features, glances = self.trainable_module(input)
        if taught is None and self._teacher is not None:
            with self.watch("teacher"):
                taught = self.ask_teacher(input)
        label_logits, distilled_logits = logits if isinstance(logits, tuple) else (logits, logits)
        known: dict[str, Any] = {
            "student_logits": label_logits,
            "student_distilled_logits": distilled_logits,
            "labels": target,
        }
        with self.watch("terms"):
            if glances:
                known["saliencies"] = [glance.saliency for glance in glances]
                known["pooled_features"] = [glance.pooled for glance in glances]
            if self.needs_cross_entropy:
                known["cross_entropy"] = self._cross_entropy(label_logits.detach(), target)
            if taught is not None:
                known["teacher_logits"] = taught.logits
                known["teacher_tokens"] = [taught.tokens[pair.teacher.block] for pair in self.pairs]
                known["student_tokens"] = [
                    tokens_on_grid(feature, pair.grid)
                    for feature, pair in zip(features, self.pairs, strict=True)
                ]
            modules = self.losses
            values = {term.name: self._value(list(modules[term.name]), known) for term in self.terms}
            loss = torch.stack([term.weight * values[term.name] for term in self.terms]).sum()
        output = (label_logits + distilled_logits) / 2 if isinstance(logits, tuple) else logits
        result = {"loss": loss, **values, "output": output}
        if glances:
            result["saliencies"] = [saliency.detach() for saliency in known["saliencies"]]
            result["cross_entropy"] = known["cross_entropy"]
        return result

    def _cross_entropy(self, logits_BK: Tensor, target: Tensor) -> Tensor:
        # Images without labels come with what is no class.
        return (
            cross_entropy_each(logits_BK, target)
            if self.needs_labels
            else logits_BK.new_zeros(len(logits_BK))
        )

    def _value(self, modules: list[Loss], known: dict[str, Any]) -> Tensor:
        loss = modules[0]
        if loss.takes_gates():
            layers = range(len(known["saliencies"]))
            return torch.stack(
                [
                    loss(*(known[name][at] if name in GATE_INPUTS else known[name] for name in loss.inputs))
                    for at in layers
                ]
            ).sum()
        if not loss.takes_tokens():
            return loss(*(known[name] for name in loss.inputs))
        per_block = torch.stack(
            [
                module(
                    *(known[name][b] if name.endswith("_tokens") else known[name] for name in module.inputs)
                )
                for b, module in enumerate(modules)
            ]
        )
        return per_block.sum() if self.reduction == "paper" else per_block.mean()

    def _attach_teacher(
        self, student: nn.Module, teacher: nn.Module, taps: Any, img_size: int | None, needs: set[str]
    ) -> None:
        if "teacher_logits" in needs and not 0 < teacher.num_classes == student.num_classes:  # type: ignore[operator]
            raise UserError(
                f"the teacher has {teacher.num_classes} classes and the data {student.num_classes}; train the teacher "
                "on these classes first (isometry train --model NAME --pretrained ...), or use only terms on tokens, "
                "e.g. --losses.whole 1 --losses.intra 1"
            )
        student_spec, teacher_spec = image_spec(student, img_size), image_spec(teacher)
        view = InputAdapter(student_spec, teacher_spec)
        if needs & {"student_tokens", "teacher_tokens"}:
            self.pairs = pair_blocks(
                student, teacher, student_spec.input_size, teacher_spec.input_size, *taps
            )
        self._teacher = (Teacher(teacher, view, self.pairs),)

    def _build_terms(self, generator: torch.Generator | None) -> nn.ModuleDict:
        def build(term: Term, pair: BlockPair | None) -> Loss:
            widths = (
                {"student_width": pair.student.width, "teacher_width": pair.teacher.width} if pair else {}
            )
            common = {"reduction": self.reduction, "relations": self.relations, "generator": generator}
            return build_loss(term.name, term.options, **common, **widths)

        return nn.ModuleDict(
            {
                term.name: nn.ModuleList(
                    [build(term, pair) for pair in self.pairs]
                    if find_loss(term.name).takes_tokens()
                    else [build(term, None)]
                )
                for term in self.terms
            }
        )

    # --- what timm.task.TrainingTask leaves to its subclasses -----------------------------------------------------

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "Objective":
        if self._teacher is not None:
            self._teacher[0]._apply(fn)
        return super()._apply(fn, *args, **kwargs)

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> "Objective":
        """Wraps what trains in DistributedDataParallel; the teacher stays as it is."""
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compiles the student with its taps, and the teacher, not the losses; call before ``prepare_distributed``."""
        trainable = unwrap_model(self.trainable_module)
        trainable.tapped = torch.compile(trainable.tapped, backend=backend, mode=mode, **compile_kwargs)
        if self._teacher is not None:
            teacher = self._teacher[0]
            teacher.tapped = cast(
                nn.Module, torch.compile(teacher.tapped, backend=backend, mode=mode, **compile_kwargs)
            )
        return trainable.tapped

    def setup_ema(
        self,
        decay: float = 0.9999,
        use_warmup: bool = False,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        """A moving average of the student alone."""
        self.trainable_module_ema = ModelEmaV3(
            self.student, decay=decay, use_warmup=use_warmup, device=device, **kwargs
        )
        self.eval_model_ema = self.trainable_module_ema.module
        return self.trainable_module_ema

    def update_ema(self, step: int | None = None) -> None:
        """Moves the average towards the student's weights."""
        if self.has_ema():
            self.trainable_module_ema.update(self.student, step=step)

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """The losses' own weights (projections), which are no part of the saved student."""
        return {} if ema else self.losses.state_dict()

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """The reverse of :meth:`get_task_state`."""
        if not ema:
            self.losses.load_state_dict(state or {}, strict=strict)
