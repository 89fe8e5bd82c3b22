"""``transformers:NAME``: a network of the transformers library, from the Hugging Face hub or a folder."""

from pathlib import Path
from typing import Any

from isometry.errors import UserError
from isometry.files import sha256_of
from isometry.models.external_teacher import ExternalTeacher
from isometry.models.libraries.base import IMAGENET, Built, Library, Request
from isometry.models.weights import WeightSource, read_weights
from isometry.parsing import read_json

CLASSIFIER = "ForImageClassification"


class Transformers(Library):
    """A classifier where the config names one, else the backbone; of a network with two towers the one for images.

    ``--teacher-kwargs`` change the config. Mean and std are those of ``preprocessor_config.json``.
    """

    package = "transformers"

    def build(self, request: Request) -> Built:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        config, unused = transformers.AutoConfig.from_pretrained(
            request.name,
            return_unused_kwargs=True,
            trust_remote_code=request.trusted,
            **request.arguments,
        )
        if unused:
            raise UserError(f"--teacher-kwargs {next(iter(unused))}: its config has no such key")
        classifies = any(name.endswith(CLASSIFIER) for name in config.architectures or ())
        kind: Any = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
        network, source = _with_weights(kind, config, request)
        network = getattr(network, "vision_model", network)
        mean, std, notes = _normalisation(request)
        names = getattr(config, "id2label", {}) if classifies else {}
        teacher = ExternalTeacher(
            network,
            _size(config),
            mean,
            std,
            has_classes=classifies,
            label_names=[names[index] for index in sorted(names)],
            name=f"transformers:{request.name}",
        )
        return Built(teacher, source, notes)


def _with_weights(kind: Any, config: Any, request: Request) -> tuple[Any, WeightSource]:
    options = {"config": config, "output_loading_info": True}
    if request.weights == "pretrained":
        source = WeightSource(f"transformers {request.name}")
        network, found = kind.from_pretrained(request.name, trust_remote_code=request.trusted, **options)
    else:
        random = kind.from_config(config, trust_remote_code=request.trusted)
        if request.weights == "none":
            return random, WeightSource("random, from the seed")
        source = WeightSource(f"file {request.weights}", sha256_of(Path(request.weights)))
        state = read_weights(request.weights, flag="--teacher-weights")
        # The library gives tensors of older files the names that its networks have now.
        network, found = type(random).from_pretrained(None, state_dict=state, **options)
    # What pools is not used.
    if missing := sorted(name for name in found["missing_keys"] if "pooler." not in name):
        raise UserError(
            f"its weights lack {missing[0]} and {len(missing) - 1} more; they are of another network"
        )
    return network, source


def _size(config: Any) -> tuple[int, int, int]:
    """The images of a config, or of its image tower's: 224 pixels where it does not say."""
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return getattr(config, "num_channels", 3), height, width


def _normalisation(request: Request) -> tuple[Any, Any, list[str]]:
    """Mean and std for pixels in 0..1, and a note where they are guessed."""
    from transformers.utils import cached_file

    path = cached_file(request.name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    found = {} if path is None else read_json(Path(path), dict[str, Any])
    if found.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), []
    if "image_mean" in found and "image_std" in found:
        return tuple(found["image_mean"]), tuple(found["image_std"]), []
    guessed = f"--teacher transformers:{request.name}: no preprocessor_config.json says how images are normalised, and "
    return *IMAGENET, [f"{guessed}ImageNet's mean and standard deviation are used"]
