from helpers.bench_rows import NETWORKS, form, network, speed
from isometry.report.tables import networks_grid, runtimes_grid


def test_each_runtime_of_each_form_is_a_row_under_a_name_said_once():
    header, rows = runtimes_grid(NETWORKS)
    assert header[2:] == ["batch 1, ms", "quartiles", "batch 64, images/s", "memory"]
    named = [row[0] for row in rows if row[0]]
    assert named == [
        *(f"{NETWORKS[0]['name']}, {each}" for each in ("dense", "masked", "skipping")),
        *("runs/b", "runs/c", "small", "resnet18", "resnet34"),
    ]
    assert [row[1] for row in rows[:3]] == ["eager", "compiled", "onnx"]
    assert rows[1][2:] == ["1.4", "1.26–1.68", "1,140", "64 MiB"]


def test_a_form_that_a_runtime_refused_has_dashes():
    _, rows = runtimes_grid(NETWORKS)
    assert [row[1:] for row in rows[7:9]] == [["compiled", *"––––"], ["onnx", *"––––"]]


def test_one_network_has_its_forms_names_alone():
    _, rows = runtimes_grid(NETWORKS[:1])
    assert [row[0] for row in rows if row[0]] == ["dense", "masked", "skipping"]


def test_networks_with_equal_names_stay_apart():
    same = network("a", form("dense", 90, eager=1))
    _, rows = runtimes_grid([same, same])
    assert [row[0] for row in rows] == ["a", "a"]


def test_unknown_memory_is_a_dash():
    one = network("a", form("dense", 90, eager=1))
    one["forms"][0]["runtimes"][0]["speeds"] = [speed(1, 2.0) | {"peak_bytes": None}]
    _, ((*_, memory),) = runtimes_grid([one])
    assert memory == "–"


def test_tables_have_a_row_each():
    assert len(networks_grid(NETWORKS).rows) == 8
    assert len(runtimes_grid(NETWORKS).rows) == 22
