"""Objective: student, teacher and weighted terms as one timm training task."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.functional.labels import cross_entropy_each
from isometry.losses import Loss, build_loss
from isometry.losses.base import INPUTS, Reduction, Relations, Term, inputs_of, parse_terms, values_of_calls
from isometry.models.finite import FirstLook
from isometry.models.spec import image_spec
from isometry.models.taps import BlockPair, block_tokens, pair_blocks
from isometry.models.teacher import (
    BatchPosition,
    StudentView,
    Teacher,
    TeacherOutput,
    TeacherSource,
    check_apart,
)
from isometry.prune.gates import gated_convs
from isometry.training.phase_timer import PhaseTimer
from isometry.training.trainable import StudentOutput, Trainable

Taps = str | list[int] | None


class Objective(TrainingTask):
    """``loss = Σ_k weight_k · term_k``; everything that the terms need is computed once.

    The teacher stays in eval mode, outside the parameters, the EMA and the checkpoint, leaves no autograd graph, and
    does not run if no term needs it.

    Args:
        student: the timm model to train.
        losses: terms by name, ``{"soft": 1, "whole": 4}`` or ``{"soft": {"weight": 1, "temperature": 2}}``; or terms
            parsed from these.
        teacher: a timm model, or None if no term needs one.
        taps: (student blocks, teacher blocks); by default the first and last four of each.
        reduction: ``"mean"`` or ``"paper"``, for the relation terms and over blocks.
        relations: ``"global"`` relates the images of all processes, ``"local"`` those of each.
        generator: CPU generator that random terms draw from.
        img_size: side of the student's images, if it takes any size. A teacher gets images of its own size.
        teacher_blocks: those of all stages of a student that grows, of which ``taps`` may name a part.
        original_pixels: a teacher of larger images gets those of :meth:`forward` at its size, and the student gets them
            scaled down; without effect if no term needs a teacher.

    Attributes:
        terms: those with a weight above 0.
        pairs: the blocks whose tokens are compared.
        teacher: the frozen teacher; None if no term needs it.
        view: what scales images down for the student; None if the teacher sees the student's.
        teacher_source: where teacher outputs come from: the teacher, or a cache that is set in its place.
        timer: of the phases of a step.

    Raises:
        UserError: an unknown loss or option, a term that needs a teacher where there is none, label spaces that differ,
            blocks that a model lacks, original pixels for a teacher of no larger images, answers to the first images
            that are not finite.
        ValueError: student and teacher are one network, or share weights.
    """

    def __init__(
        self,
        student: nn.Module,
        losses: dict[str, float | dict[str, Any]] | list[Term],
        teacher: nn.Module | None = None,
        *,
        taps: tuple[Taps, Taps] = (None, None),
        reduction: Reduction = "mean",
        relations: Relations = "global",
        generator: torch.Generator | None = None,
        img_size: int | None = None,
        teacher_blocks: Sequence[int] = (),
        original_pixels: bool = False,
    ) -> None:
        super().__init__(verbose=False)
        check_apart(student, teacher)
        self.terms = losses if isinstance(losses, list) else parse_terms(losses)
        needs = inputs_of(self.terms)
        self.needs_teacher = any(INPUTS[name].needs_teacher for name in needs)
        self.needs_labels = any(INPUTS[name].needs_labels for name in needs)
        self.needs_cross_entropy = bool(gated_convs(student)) or "cross_entropy" in needs
        self._check_terms(student, teacher, needs)
        self.reduction, self.relations = reduction, relations
        self.timer, self._first_look = PhaseTimer(), FirstLook()
        self.pairs: list[BlockPair] = []
        self.teacher: Teacher | None = None
        self.view: StudentView | None = None
        if teacher is not None and self.needs_teacher:
            images = image_spec(student, img_size)
            if any(INPUTS[name].scope == "block" for name in needs):
                sizes = images.input_size, image_spec(teacher).input_size
                self.pairs = pair_blocks(student, teacher, *sizes, *taps)
            self.teacher = Teacher(teacher, images, self.pairs, teacher_blocks)
            self.view = StudentView(images, image_spec(teacher)) if original_pixels else None
        self.teacher_source: TeacherSource | None = self.teacher
        if hasattr(student, "set_distilled_training"):
            # The answer is the mean of both heads: if terms would train one of them alone, they train the mean.
            both = {"student_logits", "student_distilled_logits"} <= needs
            student.set_distilled_training(both)  # type: ignore[operator]
        self.trainable_module: nn.Module = Trainable(
            student, [pair.student for pair in self.pairs], self._build_losses(generator)
        )
        self.eval_model = student

    @property
    def student(self) -> nn.Module:
        """The model that trains, without wrappers."""
        return unwrap_model(unwrap_model(self.trainable_module).tapped).model

    @property
    def losses(self) -> Any:
        """The losses by term, one for each pair of blocks if they compare tokens; some have parameters."""
        return unwrap_model(self.trainable_module).terms

    def student_images(self, input: Tensor) -> Tensor:
        """The images as the student gets them: as they are, or scaled down from those of the teacher's size."""
        return input if self.view is None else self.view(input)

    def teacher_output(self, input: Tensor, position: BatchPosition | None = None) -> TeacherOutput | None:
        """Teacher outputs for images that are normalised for the student; None if no term needs them."""
        if self.teacher_source is None:
            return None
        with self.timer("teacher"):
            return self.teacher_source(input, position)

    def forward(self, input: Tensor, target: Tensor, position: BatchPosition | None = None) -> dict[str, Any]:
        """Loss of one step.

        Args:
            input: images (B, C, H, W), normalised for the student; of the teacher's size with ``original_pixels``.
            target: class indices (B,) or probabilities (B, K); ignored if no term needs labels.
            position: of a training batch, for a cache of teacher outputs.

        Returns:
            ``loss``, each term by name before its weight (scalars), and ``output``, the logits (B, K). Of a student
            with gates also ``saliencies``, (B, G) of each gated layer, and ``cross_entropy`` (B,), without gradient.
        """
        with self.timer("student"):
            logits, features, gates = self.trainable_module(self.student_images(input))
        teacher = self.teacher_output(input, position)
        self._first_look(logits, teacher, training=position is not None)
        with self.timer("terms"):
            inputs = self._loss_inputs((logits, features, gates), teacher, target)
            modules = self.losses
            values = {term.name: self._value(list(modules[term.name]), inputs) for term in self.terms}
            loss = torch.stack([term.weight * values[term.name] for term in self.terms]).sum()
        output = (logits[0] + logits[1]) / 2 if isinstance(logits, tuple) else logits
        result = {"loss": loss, **values, "output": output}
        if gates:
            result["saliencies"] = [saliency.detach() for saliency in inputs["saliencies"]]
            result["cross_entropy"] = inputs["cross_entropy"]
        return result

    def _loss_inputs(
        self, outputs: StudentOutput, teacher: TeacherOutput | None, target: Tensor
    ) -> dict[str, Any]:
        """Values of :data:`isometry.losses.base.INPUTS`: a list for those of a block or layer."""
        logits, features, gates = outputs
        label_logits, distilled_logits = logits if isinstance(logits, tuple) else (logits, logits)
        inputs = {
            "student_logits": label_logits,
            "student_distilled_logits": distilled_logits,
            "labels": target,
            "saliencies": [gate.saliency for gate in gates],
            "pooled_features": [gate.pooled for gate in gates],
        }
        if self.needs_cross_entropy:
            # Images without labels have a target that is no class.
            known = label_logits.detach()
            inputs["cross_entropy"] = (
                cross_entropy_each(known, target) if self.needs_labels else known.new_zeros(len(known))
            )
        if teacher is not None:
            inputs["teacher_logits"] = teacher.logits
            inputs["teacher_tokens"] = [teacher.tokens[pair.teacher.block] for pair in self.pairs]
            inputs["student_tokens"] = [
                block_tokens(feature, pair.student, pair.grid)
                for feature, pair in zip(features, self.pairs, strict=True)
            ]
        return inputs

    def _value(self, modules: list[Loss], inputs: dict[str, Any]) -> Tensor:
        """A term's value: of the batch, or combined over blocks or gated layers."""
        loss, scope = modules[0], modules[0].scope()
        if scope == "batch":
            return loss(*(inputs[name] for name in loss.inputs))
        arguments = (
            inputs[name] if INPUTS[name].scope == scope else repeat(inputs[name]) for name in loss.inputs
        )
        losses = modules if scope == "block" else repeat(loss)
        values = values_of_calls(losses, list(zip(*arguments, strict=False)))
        return values.mean() if scope == "block" and self.reduction == "mean" else values.sum()

    def _check_terms(self, student: nn.Module, teacher: nn.Module | None, needs: set[str]) -> None:
        if not self.terms:
            raise UserError("losses: every term is switched off; give one a weight, e.g. --losses.ce 1")
        for term in self.terms:
            if teacher is None and any(INPUTS[name].needs_teacher for name in term.loss.inputs):
                raise UserError(
                    f"losses.{term.name} needs a teacher; name one with --teacher, or set --losses.{term.name} 0"
                )
        for term in self.terms:
            if term.loss.scope() == "layer" and not gated_convs(student):
                raise UserError(
                    f"losses.{term.name} needs a model with gates; use isometry prune, "
                    f"or set --losses.{term.name} 0"
                )
        if teacher is None or "teacher_logits" not in needs:
            return
        if not 0 < teacher.num_classes == student.num_classes:  # type: ignore[operator]
            raise UserError(
                f"the teacher has {teacher.num_classes} classes and the data {student.num_classes}; "
                "train the teacher on these classes first (isometry train --model NAME --pretrained ...), "
                "or use only terms on tokens, e.g. --losses.whole 1 --losses.intra 1"
            )

    def _build_losses(self, generator: torch.Generator | None) -> nn.ModuleDict:
        common = {"reduction": self.reduction, "relations": self.relations, "generator": generator}

        def build(term: Term, pair: BlockPair | None) -> Loss:
            widths = (
                {}
                if pair is None
                else {"student_width": pair.student.width, "teacher_width": pair.teacher.width}
            )
            return build_loss(term.name, term.options, **common, **widths)

        return nn.ModuleDict(
            {
                term.name: nn.ModuleList(
                    [build(term, pair) for pair in (self.pairs if term.loss.scope() == "block" else [None])]
                )
                for term in self.terms
            }
        )

    # --- methods that timm.task.TrainingTask leaves to subclasses -------------------------------------------------

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "Objective":
        if self.teacher is not None:
            self.teacher.apply(fn)
        return super()._apply(fn, *args, **kwargs)

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> "Objective":
        """Wraps all that trains in DistributedDataParallel; the teacher stays as it is."""
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compiles student and teacher with their taps, not the losses; call before ``prepare_distributed``."""
        trainable = unwrap_model(self.trainable_module)
        trainable.tapped = torch.compile(trainable.tapped, backend=backend, mode=mode, **compile_kwargs)
        if self.teacher is not None:
            self.teacher.compile(backend=backend, mode=mode, **compile_kwargs)
        return trainable.tapped

    def setup_ema(
        self,
        decay: float = 0.9999,
        use_warmup: bool = False,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        """Sets up a moving average of the student alone."""
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
        """Parameters of the losses (projections), which are not part of the saved student."""
        return {} if ema else self.losses.state_dict()

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Loads what :meth:`get_task_state` returned."""
        if not ema:
            self.losses.load_state_dict(state or {}, strict=strict)
