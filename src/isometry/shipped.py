"""The recipes that come with the package: found by name from any folder."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def recipes_folder() -> Path:
    """Where they are: inside an installed package, or beside ``src/`` in the repository (an editable install)."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Every recipe by its name, which is its path in that folder: ``digits/demo.yaml``."""
    folder = recipes_folder()
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> str:
    """The file that ``--config`` names: it itself where it is there, else the shipped recipe of that name.

    Args:
        name: a path, or a name of :func:`shipped_recipes`, with or without ``recipes/`` before it, so that a command
            that was copied from the repository's pages works elsewhere too.

    Returns:
        A path; ``name`` where there is neither, for whoever opens it to complain of.
    """
    if Path(name).exists():
        return name
    return str(shipped_recipes().get(name.removeprefix("recipes/"), name))
