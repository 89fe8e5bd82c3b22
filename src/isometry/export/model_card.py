"""The model card: Markdown with a hub's front matter, from the figures of an export."""

import yaml

from isometry.errors import markdown, markdown_code
from isometry.evaluation.environment import environment_text
from isometry.evaluation.timing import Row
from isometry.export.tables import interval_text, latency_text
from isometry.report import formats
from isometry.report.records.data import PARTS

DEEP_GREYS = (
    "Grey images of more than 8 bits need one more step, which this code leaves out: in training their values 0 to "
    "65535 (of floats 0 to 1) became 0 to 255, and Pillow's `convert` makes all above 255 white."
)
"""What a card for colour images says of others."""


def card(result: Row) -> str:
    """README.md of a folder of :func:`isometry.export.timm_folder.export_folder`; unknown facts are left out."""
    sections = [
        f"# {markdown(result['model'])}"
        + (f" on {markdown(result['trained_on'])}" if "trained_on" in result else ""),
        _summary(result),
        "## Figures\n\n" + _list(_figures(result)),
        "## Use\n\n" + _use(result),
        *(["## Training\n\n" + _training(result)] if "training" in result else []),
        "## Licence\n\n" + _licence(result["license"]),
        *(["## Cite\n\n```bibtex\n" + "\n\n".join(result["papers"]) + "\n```"] if result["papers"] else []),
    ]
    return (
        f"---\n{yaml.safe_dump(_front_matter(result), sort_keys=False)}---\n" + "\n\n".join(sections) + "\n"
    )


def _front_matter(result: Row) -> Row:
    task = "image-classification" if result["classes"] else "image-feature-extraction"
    methods = {
        "knowledge-distillation": "teacher" in result,
        "model-growth": "growth" in result.get("training", {}),
    }
    return {
        "license": result["license"],
        "library_name": "timm",
        "pipeline_tag": task,
        "tags": [task, "timm", "isometry", *(tag for tag, holds in methods.items() if holds)],
    }


def _summary(result: Row) -> str:
    channels, height, width = result["input"]["shape"]
    colours = {1: "grey ", 3: "colour "}.get(channels, "")
    does = "classifies" if result["classes"] else "computes features of"
    into = f" into {result['classes']} classes" if result["classes"] else ""
    sentences = [
        f"A timm {markdown_code(result['model'])} that {does} {colours}images of {height} × {width} pixels{into}."
    ]
    if "teacher" in result:
        sentences.append(
            f"It was distilled with Isometry from a {markdown_code(result['teacher']['model'])}{_random(result)}."
        )
    elif "training" in result:
        sentences.append("It was trained with Isometry.")
    return " ".join(sentences)


def _figures(result: Row) -> list[list[str]]:
    """(name, value) of the known figures, in Markdown."""
    rows = []
    if "accuracy" in result:
        rows.append(["top-1", f"{interval_text(result['accuracy'])}, of {markdown(result['judged_on'])}"])
    if "top1" in result.get("teacher", {}):
        teacher = result["teacher"]
        part = PARTS.get(teacher["top1_part"], teacher["top1_part"])
        rows.append(["teacher's top-1", f"{formats.top1(teacher)} on {markdown(part)}"])
    if result["arguments"]:
        given = ", ".join(f"{key}={value}" for key, value in result["arguments"].items())
        rows.append(["timm's arguments", markdown_code(given)])
    rows += [
        ["images", _images(result["input"])],
        ["parameters", f"{result['parameters']:,}"],
        ["multiply-accumulates", f"{result['macs']:,} an image"],
        *([f"latency, batch {speed['batch_size']}", latency_text(speed)] for speed in result["speeds"]),
        ["measured with", markdown(environment_text(result["conditions"]))],
        ["SHA-256 of model.safetensors", result["weights"]["sha256"]],
    ]
    return rows


def _images(given: Row) -> str:
    """How a file becomes the network's input; normalisation is in config.json."""
    turned = (
        "turned upright by EXIF" if given["exif"] == "upright" else "as they are stored (EXIF is ignored)"
    )
    said = (
        f"{given['interpolation']} resize, crop mode {given['crop_mode']}, crop share {given['crop_pct']:g}; "
        f"photographs {turned}"
    )
    greys = given.get("pixel_range")
    return f"{said}; of grey images of more than 8 bits, {greys} is black and white" if greys else said


def _use(result: Row) -> str:
    upright = result["input"]["exif"] == "upright"
    opened = 'ImageOps.exif_transpose(Image.open("photo.jpg"))' if upright else 'Image.open("photo.jpg")'
    imports = ["import timm", f"from PIL import Image{', ImageOps' if upright else ''}"]
    if result["registered_by"]:
        imports.append(f"import {result['registered_by']}  # registers {result['model']} with timm")
    mode = "L" if result["input"]["shape"][0] == 1 else "RGB"
    greys = result["input"].get("pixel_range")
    scaled = _scaled(greys) if greys or mode == "L" else []
    if scaled:
        imports.insert(0, "import numpy as np")
    code = [
        *imports,
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:USER/NAME"',
        "transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))",
        f"image = {opened}",
        *scaled,
        f'output = model(transform(image.convert("{mode}"))[None])',
    ]
    lines = ["```python", *code, "```"]
    if not scaled:
        lines += ["", DEEP_GREYS]
    if result["class_names"]:
        names = ", ".join(map(markdown_code, result["class_names"][:20]))
        more = len(result["class_names"]) - 20
        lines += ["", f"Classes in order: {names}{f' and {more} more (config.json)' if more > 0 else ''}."]
    return "\n".join(lines)


def _scaled(greys: str | None) -> list[str]:
    """Code that makes 8 bits of the greys of an image that has more, as :func:`isometry.data.image_modes.to_mode`."""
    if greys is None:
        return [
            "if image.mode[0] in 'IF':  # grey of more than 8 bits: 65535 is white, or 1 of floats",
            "    pixels = np.asarray(image) * (255 / (1 if image.mode == 'F' else 65535))",
            "    image = Image.fromarray(np.rint(pixels).astype(np.uint8))",
        ]
    low, high = (repr(value).removesuffix(".0") for value in map(float, greys.split(",")))
    return [
        f"if image.mode[0] in 'IF':  # grey of more than 8 bits: {low} is black and {high} is white",
        f"    pixels = np.asarray(image, float).clip({low}, {high}) - {low}",
        f"    image = Image.fromarray(np.rint(pixels * (255 / ({high} - {low}))).astype(np.uint8))",
    ]


def _training(result: Row) -> str:
    training = result["training"]
    terms = ", ".join(f"{weight:g} × {name}" for name, weight in training["terms"].items())
    rows = [
        ["images", markdown(result["trained_on"])],
        *(
            [["teacher", markdown(result["teacher"]["model"]) + _random(result)]]
            if "teacher" in result
            else []
        ),
        *([["terms of the loss", markdown(terms)]] if terms else []),
        ["initial weights", markdown(training["began_with"])],
        ["epochs", str(training["epochs"])],
        ["optimizer", markdown(training["optimizer"])],
        ["seed", str(training["seed"])],
        *([["training time", formats.duration(training["seconds"])]] if "seconds" in training else []),
    ]
    for what, sizes in training.get("growth", {}).items():
        if sizes is not None:
            rows.append([f"{what} of each stage", markdown(str(sizes))])
    return _list(rows)


def _random(result: Row) -> str:
    """A caveat on a teacher that was never trained; empty for others."""
    return " with random weights (a dry run)" if result["teacher"].get("weights") == "random" else ""


def _list(rows: list[list[str]]) -> str:
    return "\n".join(f"- **{what}**: {' '.join(figure.split())}" for what, figure in rows)


def _licence(license_id: str) -> str:
    if license_id == "unknown":
        return (
            "The licence of these weights was not specified. The licences of the training images, of the initial "
            "weights and of the teacher may apply."
        )
    return f"Weights: {markdown(license_id)}."
