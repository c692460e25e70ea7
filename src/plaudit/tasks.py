"""What one does with models that are there: answer a file, score a file, test a scorer, talk, look at a summary."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from plaudit.errors import ModelError, NumberError, RecipeError, RecordError, RunError
from plaudit.evaluation.best_of_n import best_answers
from plaudit.evaluation.reward import GROUPS, Judged, best_of_answers, examine, read_judged
from plaudit.labels import Tally, compare_answers, journal, score_answers, shortened
from plaudit.models.export import Target, export_reward
from plaudit.models.load import choose_machine, context_of, load_language, load_tokenizer
from plaudit.reading import load
from plaudit.reading.files import read_rows
from plaudit.reading.kinds import AnyRecord, kind_of
from plaudit.reading.loading import conflicts, read_source
from plaudit.reading.rows import Row, listing
from plaudit.reading.writing import check_lines_file, write_lines
from plaudit.recipe import Sampling, Source, Text, load_recipe
from plaudit.records import Answer, Demonstration, Ended, Group, Judgement, Prompt
from plaudit.report import write_reward_page
from plaudit.runs import read_json, recipe_around, write_json
from plaudit.runs.progress import progress
from plaudit.sampling import ModelSampler, Request
from plaudit.scorers import (
    EnsembleScorer,
    ModelScorer,
    Scorer,
    check_references,
    load_scorer,
    member_folders,
    weighted_scorer,
)
from plaudit.scorers.ensemble import reward_folder
from plaudit.scorers.judge import ChatJudge
from plaudit.scorers.seam import group_of_texts
from plaudit.scoring import Scoring
from plaudit.seeds import derive
from plaudit.summary import reward_rows, rows
from plaudit.text import Words
from plaudit.worlds import world

__all__ = [
    "Chat",
    "evaluate_reward",
    "export",
    "judge_file",
    "label_file",
    "sample_file",
    "score_file",
    "show_reward_evaluation",
    "show_summary",
]


def sample_file(
    model: Path,
    prompts: Path,
    out: Path,
    *,
    sampling: Sampling,
    answers: int,
    seed: int,
    best_by: Path | None = None,
    cut_prompts: bool = False,
) -> int:
    """Answer every prompt of a file; each line written holds a prompt, one answer, and why it ended.

    Args:
        model: a language model's folder.
        prompts: what to answer.
        out: where to write.
        sampling: how.
        answers: to each prompt.
        seed: same seed, same answers.
        best_by: the folder of a reward model, by which the best answer to each prompt is kept alone (best of n).
        cut_prompts: read the end of a prompt that has too many tokens, instead of refusing it.

    Returns:
        How many answers were written.

    Raises:
        RecordError: the prompts cannot be read, or `out` cannot be written.
        TextError: a prompt has too many tokens.
    """
    check_lines_file(out, prompts)
    machine = choose_machine()
    loaded = load_language(str(model), machine)
    judge = None if best_by is None else load_scorer(best_by, machine, _text_of(best_by))
    words = _words(model, loaded, cut_prompts=cut_prompts)
    records = load([Source(path=str(prompts))], "prompts", seed=seed, split_text=words.split_text)
    requests = [
        Request(
            prompt=prompt,
            context_ids=words.prompt_ids(prompt),
            seeds=tuple(derive(seed, "sample", prompt.id, k) for k in range(answers)),
        )
        for prompt in records
    ]
    with progress("sample", len(requests) * answers) as advance:
        groups = ModelSampler(loaded, words, machine, progress=advance).sample(requests, sampling)
    if judge is not None:
        groups = best_answers(groups, judge)
    lines = [
        {
            "prompt": group.prompt.to_json(),
            "answer": answer.text,
            "ended": answer.ended.value,
            "tokens": len(answer.token_ids),
            "logp": round(sum(answer.logps), 4),
        }
        for group in groups
        for answer in group.answers
    ]
    write_lines(out, lines)
    return len(lines)


def score_file(model: Path, answers: Path, out: Path, *, cut_prompts: bool = False) -> int:
    """Score every answer of a file with a reward model; each line written holds a prompt, its answers, their scores.

    Several reward models together also say how far apart they are about each answer, as `disagreement`: where it is
    large, a person's judgement teaches most.

    Args:
        model: the folder of a reward model, or of several.
        answers: demonstrations, judgements, or what `sample_file` wrote, where an answer that was cut is read as such.
        out: where to write.
        cut_prompts: read the end of a prompt that has too many tokens, instead of refusing it.

    Returns:
        How many answers were scored.

    Raises:
        RecordError: a row holds no answer, with file and line; or `out` cannot be written.
        NumberError: a score is not finite; names the prompt.
    """
    check_lines_file(out, answers)
    scorer = load_scorer(model, choose_machine(), _text_of(model, cut_prompts=cut_prompts))
    found = _answered(answers)
    lines = []
    with progress("score", len(found)) as advance:
        for start in range(0, len(found), 32):
            part = found[start : start + 32]
            columns = {"scores": scorer.score_texts(part)} if isinstance(scorer, ModelScorer) else _said(scorer, part)
            values = {name: iter(column) for name, column in columns.items()}
            for prompt, texts in part:
                given = {name: [shortened(next(column)) for _ in texts] for name, column in values.items()}
                if not all(map(math.isfinite, given["scores"])):
                    raise NumberError(f"{model} gives the answers to prompt {prompt.id} the scores {given['scores']}")
                lines.append({"prompt": prompt.to_json(), "answers": [text for text, _ in texts], **given})
            advance(len(part))
    write_lines(out, lines)
    return sum(len(texts) for _, texts in found)


def label_file(
    answers: Path,
    out: Path,
    scorers: Mapping[str, Scoring],
    *,
    gives: Literal["ranking", "scores"] = "ranking",
    tolerance: float = 0.0,
    annotator: str | None = None,
) -> int:
    """Judge the answers of a file by scorers: a judgement for each prompt, with all its answers.

    Args:
        answers: as for `score_file`; several lines about one prompt come together.
        out: judgements to write.
        scorers: what to grade by, their weighted sum.
        gives: a ranking, or the scores themselves.
        tolerance: scores as near as this share a rank.
        annotator: who judged; nothing means the scorers' names.

    Returns:
        How many judgements were written.

    Raises:
        RecordError: the file cannot be read, a prompt lacks the reference that a scorer needs, or no prompt has two
            answers to rank.
        PlauditError: a scorer cannot be made, or fails.
    """
    check_lines_file(out, answers)
    machine = choose_machine()

    def reward_model(path: str | None) -> Scorer:
        if path is None:
            raise RecipeError("a scorer by model needs its path here: {kind: model, path: FOLDER}")
        return load_scorer(path, machine, _text_of(Path(reward_folder(path))))

    groups = _grouped(answers)
    check_references(scorers, [group.prompt for group in groups])
    scorer = weighted_scorer(scorers, machine, reward_model, micro_tokens=8192)
    name = annotator or "+".join(scorers)
    with journal(out, _content(answers), scorers, _behind(scorers), gives, tolerance, name) as into:
        score_answers(groups, scorer, into, annotator=name, gives=gives, tolerance=tolerance)
        return into.lines


def judge_file(answers: Path, out: Path, judge: ChatJudge, *, annotator: str | None = None) -> tuple[int, Tally]:
    """Have a judge model compare each two answers of every prompt of a file, in both orders.

    Returns:
        How many judgements were written, and how the judge did.

    Raises:
        RecordError: the file cannot be read, or no prompt has two answers.
        ScorerError: the judge cannot be reached, or its replies are no chat completions.
    """
    check_lines_file(out, answers)
    groups, name = _grouped(answers), annotator or judge.model
    with journal(out, _content(answers), judge.service.url, judge.model, name) as into:
        how = compare_answers(groups, judge, into, annotator=name)
        return into.lines, how


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _behind(scorers: Mapping[str, Scoring]) -> list[object]:
    """What stands in the files and model folders that scorers name: work by others is not gone on with."""
    found: list[object] = []
    for scoring in scorers.values():
        named = str(getattr(scoring, "path", None) or "")
        for path in (Path(named), Path(named.rpartition(":")[0])):  # a function stands behind its file
            if named and path.is_file():
                found.append(_content(path))
            elif named and path.is_dir() and path != Path():
                there = sorted(file for file in path.rglob("*") if file.is_file())
                found.append([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in there])
    return found


def _grouped(path: Path) -> list[Group]:
    """The different answers of a file, prompt by prompt, in the order in which they stand there."""
    prompts: dict[str, Prompt] = {}
    texts: dict[str, dict[str, bool]] = {}
    for prompt, answers in _answered(path):
        prompts.setdefault(prompt.id, prompt)
        for text, stopped in answers:
            texts.setdefault(prompt.id, {}).setdefault(text, stopped)
    return [group_of_texts(prompt, list(texts[name].items())) for name, prompt in prompts.items()]


_Answered = tuple[Prompt, tuple[tuple[str, bool], ...]]
"""A prompt and its answers, each with whether it ended by itself."""


def _said(scorer: EnsembleScorer, part: Sequence[_Answered]) -> dict[str, list[float]]:
    by_member = scorer.members_say(part)
    return {"scores": scorer.together(by_member), "disagreement": scorer.apart(by_member)}


def _answered(path: Path) -> list[_Answered]:
    found = list(read_rows(path))
    rows = [row for row in found if isinstance(row, Row)]
    if rows and all(isinstance(row.value, dict) and {"prompt", "answer", "ended"} <= row.value.keys() for row in rows):
        problems = [problem for problem in found if not isinstance(problem, Row)]
        answered = [] if problems else [(row.place, _sampled(row)) for row in rows]
    else:
        reading = read_source(Source(path=str(path)), None)
        problems = list(reading.problems)
        answered = [] if problems else [(place, _with_answers(place, record)) for place, record in reading.records]
    problems += conflicts(((place, prompt) for place, (prompt, _) in answered), facts=False)
    if problems:
        raise RecordError(f"cannot read answers:\n{listing(problems)}")
    return [one for _, one in answered]


def _sampled(row: Row) -> _Answered:
    """A line that `sample_file` wrote."""
    prompt, answer, ended = (row.value[name] for name in ("prompt", "answer", "ended"))
    if not isinstance(answer, str):
        raise RecordError(f"{row.place}: answer: needs a text (found {answer!r:.60})")
    if ended not in list(Ended):
        raise RecordError(f"{row.place}: ended: needs one of {', '.join(Ended)} (found {ended!r:.60})")
    try:
        return Prompt.parse(prompt), ((answer, ended == Ended.STOPPED),)
    except RecordError as error:
        raise RecordError(f"{row.place}: prompt: {error}") from error


def _with_answers(place: str, record: AnyRecord) -> _Answered:
    match record:
        case Judgement(prompt=prompt, answers=answers):
            return prompt, tuple((answer, True) for answer in answers)
        case Demonstration(prompt=prompt, answer=answer):
            return prompt, ((answer, True),)
    raise RecordError(f"{place}: row: gives {kind_of(record)}, which have no answer to score")


def evaluate_reward(
    model: Path,
    files: Sequence[Path],
    out: Path,
    *,
    answers: Path | None,
    by: Sequence[str],
    probes: int,
    cut_prompts: bool,
    skip_bad: bool,
    columns: Mapping[str, str] | None = None,
    quality: str | None = None,
) -> dict[str, Any]:
    """Say how far a reward model can be trusted, and write `evaluation.json` and the page `report.html` about it.

    The raw score is tested, without gain and bias: its gaps are what training took for log-odds. The best-of-n curve is
    of the reward, with both; so is `used`, the accuracy of several models' reward together.

    Args:
        model: a reward model's folder.
        files: judgements, in any known format.
        out: the folder to write into.
        answers: sampled answers for the best-of-n curve, as `sample_file` writes them.
        by: columns to split accuracy by; none for those that are usual.
        probes: prompts whose best answer is spoiled; 0 for none.
        cut_prompts: read the end of a prompt that has too many tokens, instead of refusing it.
        skip_bad: leave out rows that cannot be read, instead of refusing the file.
        columns: the files' column for a name that a format knows.
        quality: what the judgements are about that do not say it themselves.

    Returns:
        What `evaluation.json` holds.

    Raises:
        RecordError: a file cannot be read as what it should be.
        TextError: a prompt has too many tokens.
    """
    how: dict[str, Any] = {"columns": columns, "quality": quality, "skip_bad": skip_bad}
    judged = [item for file in files for item in read_judged(file, by or GROUPS, **how)]
    there = {name for item in judged for name in (*item.facts, "annotator", "quality", "answers")}
    if unknown := sorted(set(by) - there):
        raise RecordError(f"--by {', '.join(unknown)}: no row has such a column with short values")
    groups = _sampled_groups(answers) if answers is not None else []
    scorer = load_scorer(model, choose_machine(), _text_of(model, cut_prompts=cut_prompts))
    if quality is not None and quality not in scorer.qualities:
        raise RecordError(f"--quality {quality}: {model} scores {', '.join(scorer.qualities) or 'nothing apart'}")
    raw = scorer.raw()
    found: dict[str, Any] = {"model": str(model), "files": [file.name for file in files]}
    found |= examine(raw, judged, by=by or GROUPS, probes=probes)
    found |= _cut_answers(raw.words, judged)
    if groups:
        found["best_of_n"] = best_of_answers(scorer, groups, _gold_of(model, groups))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", found)
    write_reward_page(found, out / "report.html")
    return found


def _sampled_groups(path: Path) -> list[Group]:
    """The answers of a file, all of one prompt in one group."""
    parts: dict[str, tuple[Prompt, list[Answer]]] = {}
    for prompt, texts in _answered(path):
        _, there = parts.setdefault(prompt.id, (prompt, []))
        there += [
            Answer(text=text, token_ids=(), logps=(), ended=Ended.STOPPED if done else Ended.CUT, seed=0)
            for text, done in texts
        ]
    return [Group(prompt=prompt, context_ids=(), answers=tuple(there)) for prompt, there in parts.values()]


def _gold_of(model: Path, groups: Iterable[Group]) -> Callable[[Prompt, str], float] | None:
    """The hidden taste of the world that a model's run was in, if these prompts are that world's."""
    recipe = recipe_around(model)
    if recipe is None or recipe.world is None or not all("language" in group.prompt.about for group in groups):
        return None
    return world(recipe.world.name).gold


def _cut_answers(words: Words, judged: Sequence[Judged]) -> dict[str, int]:
    """How many different answers there are, and of how many the model reads only the beginning."""
    distinct = {
        (item.judgement.prompt.id, text): item.judgement.prompt for item in judged for text in item.judgement.answers
    }
    cut = 0
    for (_, answer), prompt in distinct.items():
        ids = words.answer_ids(answer, context_ids=words.prompt_ids(prompt))
        cut += not ids or ids[-1] != words.end_id
    return {"answers": len(distinct), "cut_answers": cut}


def show_reward_evaluation(found: dict[str, Any], out: Path) -> None:
    """Print the table of a tested reward model, and where the page is."""
    table = Table(title=found["model"], show_header=False, title_justify="left")
    for what, value in reward_rows(found):
        table.add_row(what, value)
    console = Console()
    console.print(table)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def export(model: Path, out: Path, to: Target) -> float:
    """Write a reward model as a folder that other software loads: see `plaudit.models.export`.

    Returns:
        The number to add to an exported score.

    Raises:
        ModelError: there are several reward models in the folder, or the one that is there cannot be exported.
    """
    members = member_folders(model)
    if len(members) > 1:
        named = ", ".join(str(member) for member in members)
        raise ModelError(f"{model} holds several reward models, and other software reads one: export {named}")
    return export_reward(model, out, to, _text_of(model))


class Chat:
    """A run's tuned model and the one before it, answering the same words with the same seed.

    Args:
        folder: a run folder with a tuned policy, or at least a supervised model.

    Raises:
        RunError: there is no such model in it.
    """

    def __init__(self, folder: Path) -> None:
        recipe = load_recipe(folder / "config.yaml")
        tuned = next((folder / name for name in ("policy", "sft") if (folder / name).exists()), None)
        if tuned is None:
            raise RunError(f"{folder} holds no tuned model yet: neither policy nor sft is there")
        earlier = ("sft", "language") if tuned.name == "policy" else ("language",)
        before = next((folder / name for name in earlier if (folder / name).exists()), Path(recipe.model.path))
        machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
        self._sampling = recipe.evaluate.sampling
        self._said = 0
        self.names = (before.name, tuned.name)
        """The folders of the model before and of the tuned one."""
        self._samplers = []
        for path in (before, tuned):
            model = load_language(str(path), machine)
            beside = recipe.model.tokenizer if str(path) == recipe.model.path else None
            tokenizer = load_tokenizer(beside or str(path))
            words = Words(tokenizer, recipe.text, context=context_of(model.config), stop_ids=_stop_ids(model))
            self._samplers.append((ModelSampler(model, words, machine), words))

    def answer(self, text: str) -> tuple[str, str]:
        """The answers of the model before and of the tuned one."""
        self._said += 1
        prompt = Prompt(text=text)
        groups = [
            sampler.sample(
                [Request(prompt=prompt, context_ids=words.prompt_ids(prompt), seeds=(derive(0, "chat", self._said),))],
                self._sampling,
            )[0]
            for sampler, words in self._samplers
        ]
        before, after = (group.answers[0].text for group in groups)
        return before, after


def show_summary(folder: Path) -> None:
    """Print the table of a finished run, and where its report is."""
    summary = read_json(folder / "summary.json")
    table = Table(title=str(folder), show_header=False, title_justify="left")
    for what, value in rows(summary):
        table.add_row(what, value)
    console = Console()
    console.print(table)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


def _words(path: Path, model: Any, *, cut_prompts: bool) -> Words:
    text = _text_of(path, cut_prompts=cut_prompts)
    return Words(load_tokenizer(str(path)), text, context=context_of(model.config), stop_ids=_stop_ids(model))


def _text_of(model: Path, *, cut_prompts: bool = False) -> Text:
    """The templates of the run that a model is in; the defaults for a model from elsewhere."""
    recipe = recipe_around(model)
    text = recipe.text if recipe is not None else Text()
    return text.model_copy(update={"cut_prompts": True}) if cut_prompts else text


def _stop_ids(model: Any) -> list[int]:
    ids = model.generation_config.eos_token_id
    return [ids] if isinstance(ids, int) else list(ids or ())
