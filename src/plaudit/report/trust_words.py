"""The words of the page about a reward model, in English and Chinese: see `plaudit.report.words`."""

from __future__ import annotations

__all__ = ["TRUST"]

TRUST: dict[str, tuple[str, str]] = {
    "trust.page": ("How far a reward model can be trusted", "奖励模型可信到什么程度"),
    "nav.scores": ("Scores", "分数"),
    "nav.probes": ("Probes", "探针"),
    "nav.groups": ("By group", "分组"),
    "nav.bestof": ("Best of n", "n 选最优"),
    "nav.bench": ("RewardBench", "RewardBench"),
    "nav.values": ("All numbers", "全部数值"),
    "trust.files": ("judged in: {value}", "评判文件：{value}"),
    "trust.judgements": ("{n} judgements", "{n} 条评判"),
    "trust.cut": ("{n} of {all} answers read only in part", "{all} 个回答中有 {n} 个只读了一部分"),
    "trust.better": (
        "of the pairs are ordered as people ordered them: more than length or chance would reach.",
        "的配对与人的排序一致：超过只看长度或随机所能达到的水平。",
    ),
    "trust.even": (
        "of the pairs are ordered as people ordered them: not clearly more than length or chance would reach.",
        "的配对与人的排序一致：与只看长度或随机相比没有明显优势。",
    ),
    "trust.worse": (
        "of the pairs are ordered as people ordered them: less than half. These scores point the wrong way here.",
        "的配对与人的排序一致：不足一半。在这些数据上，分数指向了错误的方向。",
    ),
    "trust.none": ("No judgement orders two answers.", "没有任何评判比较了两个回答。"),
    "trust.about": (
        "Every two answers of which somebody ranked one above the other are a pair; equal scores count one half. "
        "Intervals are over prompts.",
        "每两个被人分出高下的回答为一对；分数相等记半。区间按提示计算。",
    ),
    "trust.rates": ("Pairs ordered as people did, with 95 % intervals", "与人排序一致的配对及其 95 % 区间"),
    "trust.accuracy": ("These scores", "本模型的分数"),
    "trust.used": ("Their reward together", "成员合成的奖励"),
    "trust.used.about": (
        "Their reward together: several models combined as the policy climbs them (mean, minimum or lower bound). The "
        "line above takes the mean of their chances; thumbs and probes take their mean.",
        "成员合成的奖励：按策略实际优化的方式（均值、最小值或下界）合成的多个模型。上一行取各成员概率的均值；"
        "赞踩与探针取各成员分数的均值。",
    ),
    "trust.apart.right": ("Members apart where right", "判断正确时成员的分歧"),
    "trust.apart.wrong": ("Members apart where wrong", "判断错误时成员的分歧"),
    "trust.apart.about": (
        "Standard deviation between members, in log-odds of a pair; the larger where wrong, the more it warns.",
        "各成员对一对回答的对数几率的标准差；错误时越大，分歧越能预警。",
    ),
    "trust.annotators": ("Annotators, among themselves", "标注者之间"),
    "trust.annotators.about": (
        "Annotators among themselves: how often two people who judged the same two answers agree. No model can do "
        "much better against single judgements.",
        "标注者之间：两个人评判同一对回答时的一致率。对单条评判，没有模型能明显更好。",
    ),
    "trust.thumbs": ("Thumb up above thumb down", "赞的分数高于踩"),
    "trust.pairs": ("Pairs", "配对数"),
    "trust.themselves": ("Preferred to themselves, left out", "与自身相比的配对（略去）"),
    "trust.length": ("Against length", "与长度相比"),
    "trust.side.longer": ("Better answer is longer", "较好的回答更长"),
    "trust.side.shorter": ("Better answer is shorter", "较好的回答更短"),
    "trust.side.similar": ("Lengths within 10 %", "长度相差 10 % 以内"),
    "trust.prefers": ("Prefers the longer answer", "偏好更长的回答"),
    "trust.prefers.about": (
        "“Prefers the longer answer” is no accuracy: it says how often the longer one scores higher, right or wrong.",
        "“偏好更长的回答”不是准确率：它只说明更长的回答得分更高的频率，无论对错。",
    ),
    "trust.ties": ("Accuracy with ties", "计入平局的准确率"),
    "trust.ties.about": (
        "{ties} ties among {pairs} pairs; a tie is called where scores differ by {threshold} at most, which fits best "
        "here. Always saying tie would reach {always}.",
        "{pairs} 对中有 {ties} 个平局；分数差不超过 {threshold} 时判为平局（此处最合适）。全判平局可达 {always}。",
    ),
    "trust.temperature": ("Temperature", "温度"),
    "trust.temperature.about": (
        "Divide scores by it to make their chances true; over 1, the scores are too sure.",
        "将分数除以它可使概率名副其实；大于 1 说明过于自信。",
    ),
    "trust.nats": ("Surprise, nats a pair", "每对惊异（奈特）"),
    "trust.nats.about": ("A coin flip has 0.693.", "抛硬币为 0.693。"),
    "trust.swap": ("Alike in both orders", "两种顺序结果一致"),
    "trust.swap.about": (
        "Answers scored again in reverse order; the first wins both times in {first}, the last in {last}.",
        "将回答倒序再评一次；首位两次皆胜 {first}，末位 {last}。",
    ),
    "trust.probes.about": (
        "The best answer of each prompt, spoiled on purpose. How often does the spoiled one score higher? Behind the "
        "name: the mean change of the score, in standard deviations. A sound model is at half or below for filler "
        "and politeness, and near zero for the rest.",
        "故意破坏每个提示的最佳回答。破坏后得分反而更高的频率是多少？名称后为分数的平均变化（标准差）。"
        "可靠的模型对空话与客套不应超过一半，其余应接近零。",
    ),
    "trust.probes": ("Spoiled answers that score higher", "破坏后得分更高的回答"),
    "trust.probe.ending_repeated": ("Last sentence repeated: {change}", "重复末句：{change}"),
    "trust.probe.filler": ("A sentence that says nothing: {change}", "加一句空话：{change}"),
    "trust.probe.polite_opening": ("Polite opening: {change}", "客套开头：{change}"),
    "trust.probe.polite_closing": ("Polite closing: {change}", "客套结尾：{change}"),
    "trust.probe.said_twice": ("Whole answer twice: {change}", "整段说两遍：{change}"),
    "trust.probe.shuffled": ("Words shuffled: {change}", "打乱词序：{change}"),
    "trust.probe.other_prompt": ("Answer to another prompt: {change}", "答非所问：{change}"),
    "trust.probe.empty": ("Empty answer: {change}", "空回答：{change}"),
    "trust.groups.about": (
        "The same accuracy for parts of the judgements, with their number of pairs.",
        "按部分评判分别计算的准确率，并注明配对数。",
    ),
    "trust.group.subset": ("By subset", "按子集"),
    "trust.group.section": ("By section", "按部分"),
    "trust.group.category": ("By category", "按类别"),
    "trust.group.scenario": ("By scenario", "按场景"),
    "trust.group.language": ("By language", "按语言"),
    "trust.group.file": ("By file", "按文件"),
    "trust.group.annotator": ("By annotator", "按标注者"),
    "trust.group.answers": ("By number of answers", "按回答数"),
    "trust.group.other": ("By {name}", "按 {name}"),
    "trust.group.agreement": ("By agreement of the annotators", "按标注者一致程度"),
    "trust.agree.all": ("All agree ({pairs})", "全部一致（{pairs}）"),
    "trust.agree.most": ("Most agree ({pairs})", "多数一致（{pairs}）"),
    "trust.bestof.about": (
        "Mean over {prompts} prompts of the answer that scores highest among n of {answers}; shaded: 95 % interval. "
        "Where gold bends down while the reward climbs, choosing by this model over-optimises.",
        "{prompts} 个提示、每提示 {answers} 个回答中，n 个里得分最高者的均值；阴影为 95 % 区间。"
        "若金标准下弯而奖励仍升，说明按此模型选择已过度优化。",
    ),
    "trust.bestof.score": ("Reward of the best of n", "n 选最优的奖励"),
    "trust.bestof.gold": ("Gold of the best of n", "n 选最优的金标准"),
    "axis.best": ("n (answers drawn)", "n（抽取的回答数）"),
    "trust.bench.about": (
        "Counted as the benchmark's own scripts do: a row is right if the chosen answer scores strictly higher.",
        "按基准自身脚本计算：仅当所选回答得分严格更高时算对。",
    ),
    "trust.bench.missing": (
        "{n} subsets of the published set are not in these files, so the score is not comparable with published ones.",
        "文件中缺少公布数据集的 {n} 个子集，因此总分不可与公布结果比较。",
    ),
    "trust.bench.score": ("Score", "总分"),
}
"""Key to (English, Chinese)."""
