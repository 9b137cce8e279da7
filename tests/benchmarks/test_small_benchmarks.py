"""`dispatch.py` and `convolution_passes.py`: what they time is what they say, and their tables hold it."""

import json

import pytest


def test_every_kind_of_state_is_timed(room, tmp_path, capsys):
    dispatch, out, page = room("dispatch"), tmp_path / "o.json", tmp_path / "page.md"
    page.write_text("<!-- dispatch: begin -->\n<!-- dispatch: end -->\n")
    dispatch.main(["--model", "lenet", "--rounds", "2", "--out", str(out), "--page", str(page)])
    result = json.loads(out.read_text())
    times = result["milliseconds"]
    assert list(times) == [dispatch.PLAIN, dispatch.STATE, dispatch.MODULE]
    assert all(of["n"] == 2 and of["min"] > 0 for of in times.values())
    # 12 parameters and as many momenta, two counters, scale and seed
    assert result["arrays"] >= 2 * 12 + 3
    assert dispatch.PLAIN in capsys.readouterr().out and "lenet, " in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "lenet6"], "lenet6"), (["--rounds", "0"], "Expected --rounds of at least 1, got 0.")],
    ids=["model", "rounds"],
)
def test_bad_options_of_dispatch_are_one_line(room, arguments, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        room("dispatch").main(arguments)
    assert "\n" not in str(stopped.value.code)


@pytest.mark.slow
def test_every_pass_of_both_sides_is_timed_on_tiny_shapes(room):
    passes = room("convolution_passes")
    found = passes.measure(passes.SIDES, 1, 1, ((2, 4, 3, 2, 5),))
    several = passes.measure({"lax": passes.SIDES["lax"]}, 1, 1, ((2, 4, 3, 2, 3),), seeds=2)
    assert several["passes"][0]["gflops"]["lax"]["kernel"]["min"] > 0
    assert set(found["product_gflops"]) == {"cnnlab", "lax"}
    (entry,) = found["passes"]
    assert entry["shape"] == [2, 4, 3, 2, 5]
    for side in ("cnnlab", "lax"):
        assert all(entry["gflops"][side][way]["min"] > 0 for way in passes.PASSES)
    lines = passes.report(found).splitlines()
    assert lines[2].startswith("2 x 4 px, 3 to 2, 5x5") and lines[-1].startswith("matrix product")


def test_the_rate_is_two_operations_per_multiply_add(room, monkeypatch):
    passes = room("convolution_passes")

    class Worker:
        def __init__(self, name, script, options): ...

        def ask(self, request):
            return {"seconds": [dict.fromkeys(passes.PASSES, 0.5)], "product": 2.0}

        def close(self): ...

    monkeypatch.setattr(passes, "Worker", Worker)
    found = passes.measure({"lax": "x.py"}, 2, 1, ((10, 8, 3, 5, 7),))
    several = passes.measure({"lax": "x.py"}, 1, 1, ((10, 8, 3, 5, 7),), seeds=3)
    rates = [of["passes"][0]["gflops"]["lax"]["kernel"]["median"] for of in (found, several)]
    assert rates[1] == 3 * rates[0]
    assert found["passes"][0]["gflops"]["lax"]["kernel"]["values"] == [2 * 49 * 10 * 64 * 3 * 5 / 0.5 / 1e9] * 2
    assert found["product_gflops"]["lax"]["median"] == 2 * 1024**3 / 2 / 1e9
