"""Notes on images that can't be read: each name once, and not all of very many."""

from isometry.data.unreadable import MOST_NAMED, left_out_of_figures, skipped


def test_each_image_counts_once():
    assert skipped([]) == []
    assert skipped(["b.png", "a.png", "b.png"]) == ["2 unreadable images were skipped: a.png, b.png"]
    assert left_out_of_figures({"a.png"}) == ["1 unreadable image is left out of the figures: a.png"]


def test_of_many_all_are_counted_and_some_named():
    (note,) = skipped(f"{number:02}.png" for number in range(MOST_NAMED + 1))
    assert note.startswith("21 unreadable images were skipped: 00.png, ")
    assert note.endswith(", 19.png, ...")
