"""The run folder: one owner, one recipe, logs that can be read after anything, checkpoints that are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from plaudit.errors import RunError
from plaudit.recipe import Recipe
from plaudit.runs import Run, read_json, write_json

RECIPE = Recipe.model_validate({"world": {}})
OTHER = Recipe.model_validate({"world": {"prompts": 7}, "seed": 3})


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run", RECIPE)
    yield run
    run.close()


def read(run, name):
    return [json.loads(line) for line in (run.folder / name).read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_recipe_is_kept_whole(run):
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == RECIPE.model_dump(mode="json")


def test_another_recipe_is_refused_with_the_differences(run):
    run.log("sft", 0, {"sft/loss": 1.0}, seconds=0.1)
    run.close()
    with pytest.raises(
        RunError, match=r"was started with another recipe: seed was 0 and is 3; world.prompts was \d+ and"
    ):
        Run(run.folder, OTHER)
    Run(run.folder, RECIPE).close()  # the refused one holds nothing


def test_a_setting_that_an_older_version_did_not_have_is_no_difference(tmp_path):
    Run(tmp_path, RECIPE).close()
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    path = tmp_path / "config.yaml"
    kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    del kept["save_every"], kept["text"]["cut_prompts"]
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    Run(tmp_path, RECIPE).close()
    kept["gone"] = 1
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    with pytest.raises(RunError, match="was started with another recipe: gone was 1 and is None"):
        Run(tmp_path, RECIPE)


def test_one_process_at_a_time(run):
    with pytest.raises(RunError, match="another process is working in"):
        Run(run.folder, RECIPE)
    run.close()
    Run(run.folder, RECIPE).close()


def test_a_process_that_dies_lets_go(tmp_path):
    script = (
        "import sys, time; from plaudit.runs import Run; from plaudit.recipe import Recipe; from pathlib import Path\n"
        "run = Run(Path(sys.argv[1]), Recipe.model_validate({'world': {}})); print('open', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RunError, match="another process is working in"):
            Run(tmp_path / "run", RECIPE)
        other.kill()
    Run(tmp_path / "run", RECIPE).close()


def test_logs_are_lines_of_json(run):
    run.log("sft", 0, {"sft/loss": 1.5}, seconds=0.123456)
    run.keep_samples("policy", 2, [{"answer": "新\nline\u2028\x85"}, {"answer": ""}])
    assert read(run, "metrics.jsonl") == [{"stage": "sft", "step": 0, "seconds": 0.1235, "sft/loss": 1.5}]
    assert read(run, "samples.jsonl") == [
        {"stage": "policy", "step": 2, "answer": "新\nline\u2028\x85"},
        {"stage": "policy", "step": 2, "answer": ""},
    ]


def test_rewind_drops_what_comes_after_and_torn_lines(run):
    for stage, step in (("sft", 0), ("sft", 1), ("policy", 0), ("policy", 1), ("policy", 2)):
        run.log(stage, step, {"x": 1.0}, seconds=0)
        run.keep_samples(stage, step, [{"answer": "a\u2028b\x85c\x0cd"}])
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "policy", "st')
    with (run.folder / "samples.jsonl").open("ab") as binary:
        binary.write('{"stage": "policy", "answer": "新'.encode()[:-1])  # torn inside a character
    run.rewind("policy", 1)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert [(line["stage"], line["step"]) for line in read(run, name)] == [("sft", 0), ("sft", 1), ("policy", 0)]
    assert {line["answer"] for line in read(run, "samples.jsonl")} == {"a\u2028b\x85c\x0cd"}
    run.log("policy", 1, {"x": 2.0}, seconds=0)
    assert read(run, "metrics.jsonl")[-1] == {"stage": "policy", "step": 1, "seconds": 0, "x": 2.0}


def save(run, step, text="weights"):
    run.save("sft", step, lambda folder: (folder / "w").write_text(text) and None, {"beta": 0.5}, seconds=2.5)


def test_a_checkpoint_is_the_latest_one_and_whole(run):
    assert run.latest("sft") is None
    save(run, 2)
    save(run, 4, "later")
    checkpoint = run.latest("sft")
    assert (checkpoint.step, checkpoint.seconds, checkpoint.state) == (4, 2.5, {"beta": 0.5})
    assert (checkpoint.folder / "w").read_text() == "later"
    assert [path.name for path in (run.folder / "checkpoints" / "sft").iterdir()] == ["000004"]
    assert run.latest("policy") is None


def test_a_checkpoint_that_breaks_leaves_the_one_before(run):
    save(run, 2)

    def breaks(folder):
        (folder / "w").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run.save("sft", 4, breaks, {}, seconds=3.0)
    assert run.latest("sft").step == 2
    save(run, 4)  # what was left lying there is no hindrance
    assert run.latest("sft").step == 4


def test_a_checkpoint_written_twice_is_the_second(run):
    save(run, 2, "one")
    save(run, 2, "two")
    assert (run.latest("sft").folder / "w").read_text() == "two"


def test_stages_are_noted_when_they_end(run):
    save(run, 2)
    assert not run.finished("sft")
    run.finish("sft", "sft", ["language", "demonstrations"], seconds=1.234, cpu_seconds=2.0)
    run.finish("policy", "policy", ["sft"], seconds=1.0, cpu_seconds=2.0)
    assert run.finished("sft")
    assert run.latest("sft") is None  # its checkpoints are dropped
    assert run.stages()[0] == {
        "artifact": "sft",
        "stage": "sft",
        "from": ["language", "demonstrations"],
        "seconds": 1.23,
        "cpu_seconds": 2.0,
    }
    run.forget("policy")
    assert [entry["stage"] for entry in run.stages()] == ["sft"]


def test_the_environment_is_that_of_the_first_start(run):
    run.keep_environment(device="cpu", threads=1)
    run.keep_environment(device="cuda")
    found = read_json(run.folder / "environment.json")
    assert (found["device"], found["threads"]) == ("cpu", 1)
    assert found["packages"]["torch"] == torch.__version__


def test_json_is_replaced_at_once_and_holds_no_nan(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    path.write_text('{"a"')
    with pytest.raises(RunError, match=r"cannot read .*x.json"):
        read_json(path)


def test_no_metric_is_written_that_no_reader_takes(run):
    run.log("sft", 0, {"sft/loss": float("nan"), "sft/x": float("inf")}, seconds=0)
    assert "NaN" not in (run.folder / "metrics.jsonl").read_text()
    assert read(run, "metrics.jsonl") == [{"stage": "sft", "step": 0, "seconds": 0}]


@pytest.fixture
def little_room() -> Iterator[None]:
    """The system takes no file above 256 KiB while the test runs."""
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full")
def test_a_full_disk_is_one_clear_error(tmp_path: Path):
    run = Run(tmp_path / "run", RECIPE)
    message = r"the disk of .* is full \(\d+ MiB free\): make room and start the same command again"

    def write(folder: Path) -> None:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(bytes(2**16))

    with pytest.raises(RunError, match=message):
        run.save("sft", 2, write, {}, seconds=1.0)
    assert run.latest("sft") is None
    (run.folder / "samples.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=message):
        run.keep_samples("sft", 2, [{"answer": "x" * 2**16}])
    run.close()


@pytest.mark.usefixtures("little_room")
def test_what_finds_no_room_is_one_clear_error_and_the_run_goes_on_when_there_is_some(tmp_path: Path):
    run = Run(tmp_path / "run", RECIPE)

    def weights(size):
        return lambda folder: save_file({"w": torch.zeros(size // 4)}, folder / "weights.safetensors")

    message = "a file in .* reached the size that this system allows"
    run.save("sft", 2, weights(2**16), {}, seconds=1.0)
    with pytest.raises(RunError, match=message):
        run.save("sft", 4, weights(2**18), {}, seconds=1.0)
    latest = run.latest("sft")
    assert latest is not None
    assert latest.step == 2
    with pytest.raises(RunError, match=message):
        run.keep_samples("sft", 2, [{"answer": "x" * 2**18}])
    run.close()
    again = Run(tmp_path / "run", RECIPE)
    again.rewind("sft", 2)
    again.save("sft", 4, weights(2**16), {}, seconds=1.0)
    latest = again.latest("sft")
    assert latest is not None
    assert latest.step == 4
    again.close()
