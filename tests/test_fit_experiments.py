"""What fits show, at reduced size: each experiment finds what it is there to find."""

import pytest
from records import run

SMALL = {
    "regularization": ("--strengths", "1e-4", "1e-2", "1e-1"),
    "outliers": ("--distances", 0, 100),
    "solvers": ("--rows", 500, "--columns", 8, "--passes", 150),
}


def test_l2_shrinks_l1_makes_zeros_and_separated_data_need_one(tmp_path):
    record = run("regularization", tmp_path / "run", *SMALL["regularization"])
    l2, l1 = ([fit for fit in record["fit"] if fit["penalty"] == name] for name in ("L2", "L1"))
    assert all(fit["status"] == "converged" for fit in l2 + l1)
    lengths, zeros = [fit["length"] for fit in l2], [fit["zeros"] for fit in l1]
    assert lengths == sorted(lengths, reverse=True) and all(fit["zeros"] == 0 for fit in l2)
    assert zeros == sorted(zeros) and zeros[-1] > 20
    (free,) = record["unpenalised"]
    assert free["status"] == "separated" and "coefficient" in free["message"]


def test_an_outlier_moves_the_line_and_not_the_curve(tmp_path):
    near, far = run("outliers", tmp_path / "run", *SMALL["outliers"])["fit"]
    assert abs(far["line"] - near["line"]) > 0.5 > 10 * abs(far["logistic"] - near["logistic"])
    assert far["line_errors"] > near["line_errors"] and far["logistic_errors"] == near["logistic_errors"]


@pytest.mark.filterwarnings("ignore:.*clip.*")
def test_second_order_methods_end_at_the_optimum_and_first_order_ones_on_the_way(tmp_path):
    methods = {method["name"]: method for method in run("solvers", tmp_path / "run", *SMALL["solvers"])["method"]}
    for name in ("L-BFGS", "Newton"):
        assert methods[name]["excess"][-1] <= 1e-12 and methods[name]["passes"][-1] <= 30
    assert methods["gradient descent"]["excess"][-1] > 1e-5
    assert methods["momentum"]["excess"][-1] < methods["gradient descent"]["excess"][-1]
