"""The benchmark of starts goes by what a person gets who has set nothing."""

import json

import pytest


def test_what_is_set_about_compiled_programs_does_not_reach_the_timed_interpreter(room, monkeypatch):
    startup = room("startup")
    for name in ("CNNLAB_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("KEPT", "yes")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    found = startup.run(code, CNNLAB_CACHE="/nowhere")
    assert found["CNNLAB_CACHE"] == "/nowhere" and found["KEPT"] == "yes"
    assert not [
        name for name in found if name.startswith(("CNNLAB_COMP", "JAX_COMP", "JAX_PERSISTENT", "JAX_ENABLE_C"))
    ]


@pytest.mark.slow
def test_a_warm_start_compiles_nothing_and_the_page_says_so(room, monkeypatch, tmp_path):
    startup, out, page = room("startup"), tmp_path / "startup.json", tmp_path / "page.md"
    page.write_text("<!-- startup: begin -->\n<!-- startup: end -->\n")
    monkeypatch.setattr(startup, "time_imports", lambda repeats: {})
    startup.main(["--repeats", "1", "--out", str(out), "--page", str(page)])
    written = json.loads(out.read_text(encoding="utf-8"))
    programs, seconds = written["programs"], written["seconds"]
    assert programs["compiled_cold"] > 10 and programs["compiled_warm"] == 0
    assert programs["files"] >= programs["compiled_cold"] and programs["bytes"] > 10_000
    assert seconds["first step, warm"]["median"] < seconds["first step, cold"]["median"]
    assert f"{programs['compiled_cold']} cold, 0 warm" in page.read_text()
