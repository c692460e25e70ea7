"""Every word of the report's page, in English and Chinese: one key, two texts, `{holes}` for values.

The page shows English when it is made and when scripts are off; its switch fills the same places with Chinese.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from plaudit.report.trust_words import TRUST

__all__ = ["WORDS", "Say", "english"]


@dataclass(frozen=True, slots=True)
class Say:
    """A text to show: its key and the values for its holes. A value that starts with `@` names another key."""

    key: str
    values: dict[str, str] = field(default_factory=dict)

    def english(self) -> str:
        """The text in English."""
        return english(self.key, **self.values)


def english(key: str, **values: str) -> str:
    """The English text of `key` with its holes filled."""

    def fill(hole: re.Match[str]) -> str:
        value = values.get(hole.group(1), hole.group())
        return english(value[1:]) if value.startswith("@") and value[1:] in WORDS else value

    return re.sub(r"\{(\w+)\}", fill, WORDS[key][0])


_PAGE: dict[str, tuple[str, str]] = {
    "skip": ("Skip to the results", "跳到结果"),
    "nav": ("Sections", "章节"),
    "report": ("Run report", "运行报告"),
    "theme": ("Light or dark", "切换明暗"),
    "language": ("中文", "English"),
    "nav.headline": ("Result", "结果"),
    "nav.curves": ("Curves", "曲线"),
    "nav.reward": ("Reward model", "奖励模型"),
    "nav.compare": ("Before and after", "前后对比"),
    "nav.samples": ("Over time", "演变"),
    "nav.lineage": ("Lineage", "来源"),
    "nav.recipe": ("Recipe", "配方"),
    "noscript": (
        "Scripts are off: the pictures and tables are all here, the sample browsers need scripts.",
        "脚本已关闭：图表仍可阅读，样本浏览需要脚本。",
    ),
    "footer": (
        "Written by Plaudit {version}. This page holds all of its data and loads nothing from the network.",
        "由 Plaudit {version} 生成。本页自带全部数据，不从网络加载任何内容。",
    ),
    "absent": ("Not in this run folder: ", "运行目录中缺少："),
    "absent.about": ("The parts that need them say so.", "相关部分会注明。"),
    "torn": ("Could not be read and was left out:", "无法读取，已略过："),
    "torn.line": ("line {line}", "第 {line} 行"),
    "torn.more": ("and {n} more", "另有 {n} 处"),
    "missing": ("Nothing to show yet: {file} is not there or empty.", "暂无内容：{file} 不存在或为空。"),
    "state.done": ("Finished", "已完成"),
    "state.open": ("Not finished", "未完成"),
    "state.wait": ("waiting", "等待中"),
    "state.stage.done": ("done", "完成"),
    "state.step": ("step {step}", "第 {step} 步"),
    "state.step.of": ("step {step} of {steps}", "第 {step} / {steps} 步"),
    "pipeline": ("Stages of this run", "本次运行的阶段"),
    "stage.language": ("Language", "语言模型"),
    "stage.sft": ("Supervised", "监督微调"),
    "stage.collect": ("Judgements", "收集评判"),
    "stage.reward": ("Reward model", "奖励模型"),
    "stage.policy": ("Policy", "策略"),
    "stage.evaluate": ("Evaluation", "评测"),
    "fact.seed": ("seed {value}", "种子 {value}"),
    "fact.world": ("built-in world: {value}", "内置世界：{value}"),
    "fact.model": ("model: {value}", "模型：{value}"),
    "fact.algorithm": ("algorithm: {value}", "算法：{value}"),
    "before": ("before", "调优前"),
    "after": ("after", "调优后"),
    "step": ("step", "步"),
}

_HEADLINE: dict[str, tuple[str, str]] = {
    "verdict.gold.better": (
        "of the prompts are won by the tuned model against the one before it, judged by the hidden taste.",
        "的提示上，调优后的模型按隐藏偏好胜过调优前。",
    ),
    "verdict.gold.worse": (
        "of the prompts are won by the tuned model, judged by the hidden taste: less than half. Tuning made it worse.",
        "的提示上获胜，按隐藏偏好不足一半：调优使模型变差了。",
    ),
    "verdict.gold.even": (
        "of the prompts are won by the tuned model, judged by the hidden taste: too close to a coin flip to tell.",
        "的提示由调优后的模型获胜（按隐藏偏好）：与随机相差太小，无法断定。",
    ),
    "verdict.reward.better": (
        "of the held-out prompts are won by the tuned model against the one before it, judged by reward.",
        "的留出提示上，调优后的回答得到更高的奖励。",
    ),
    "verdict.reward.worse": (
        "of the held-out prompts are won by the tuned model, judged by reward: less than half. Tuning made it worse.",
        "的留出提示上获胜，按奖励不足一半：调优使模型变差了。",
    ),
    "verdict.reward.even": (
        "of the held-out prompts are won by the tuned model, judged by reward: too close to a coin flip to tell.",
        "的留出提示由调优后的模型获胜（按奖励）：与随机相差太小，无法断定。",
    ),
    "verdict.gold.about": (
        "The hidden taste is the world's own measure, which no training stage ever saw. A tie counts one half.",
        "隐藏偏好是内置世界自己的尺度，任何训练阶段都没有见过。平局记半胜。",
    ),
    "verdict.reward.about": (
        "The judge is the reward that the policy was tuned against, so read this beside the samples below. "
        "A tie counts one half.",
        "裁判正是策略调优所用的奖励，请结合下方样本判断。平局记半胜。",
    ),
    "verdict.open": ("This run has no result yet.", "本次运行尚无结果。"),
    "verdict.open.about": (
        "summary.json is written when a run finishes. Below is what the run has logged so far.",
        "summary.json 在运行结束时写出。以下是目前已记录的内容。",
    ),
    "rates": ("Win rate, with its 95 % interval", "胜率及其 95 % 区间"),
    "rate.gold": ("Tuned against before, by hidden taste", "调优后 对 调优前，按隐藏偏好"),
    "rate.reward": ("Tuned against before, by reward", "调优后 对 调优前，按奖励"),
    "rate.itself": ("Before against itself", "调优前 对 自己"),
    "rate.itself.about": (
        "Before: the model that tuning started from. Two samples of it against each other must come out near 50 %: "
        "this is what chance looks like here.",
        "调优前：调优的起点模型。它的两份样本互相比较应接近 50 %：这就是偶然的样子。",
    ),
    "rate.coin": ("coin flip", "随机"),
    "interval": ("{low} to {high}", "{low} 至 {high}"),
    "prompts": ("{n} held-out prompts", "{n} 个留出提示"),
    "tile.kl": ("Distance moved (KL)", "移动距离（KL）"),
    "tile.kl.about": (
        "Mean divergence of one answer from the model before tuning. 0 would be the same model; large values "
        "often mean that the reward is being gamed.",
        "每个回答与调优前模型的平均散度。0 表示模型未变；数值很大往往说明奖励被钻了空子。",
    ),
    "unit.nats": ("nats", "奈特"),
    "unit.sd": ("sd", "标准差"),
    "tile.gold_gain": ("Gain in hidden taste", "隐藏偏好提升"),
    "tile.gold_gain.about": (
        "How far the mean hidden taste rose, in standard deviations of the answers before tuning.",
        "隐藏偏好均值的提升，以调优前回答的标准差为单位。",
    ),
    "tile.reward_gain": ("Gain in reward", "奖励提升"),
    "tile.reward_gain.about": (
        "How far the mean reward rose, in standard deviations of the rewards before tuning.",
        "奖励均值的提升，以调优前奖励的标准差为单位。",
    ),
    "tile.distinct": ("Variety (distinct-2)", "多样性（distinct-2）"),
    "tile.distinct.about": (
        "Share of word pairs that are different ones, at matched length. A large fall means that the answers "
        "became alike.",
        "在相同长度下，不重复词对的比例。大幅下降说明回答变得雷同。",
    ),
    "tile.parse": ("Sentences that parse", "合乎语法的句子"),
    "tile.parse.about": (
        "Share of sentences that the world's grammar can read. A fall means that the language broke.",
        "内置世界语法可以解析的句子比例。下降说明语言被破坏。",
    ),
    "tile.accuracy": ("Reward model's accuracy", "奖励模型准确率"),
    "tile.accuracy.about": (
        "How often it agrees with a held-out judgement about two answers. 50 % is a coin flip.",
        "对留出的两两评判，判断一致的比例。50 % 等于随机。",
    ),
    "tile.length": ("Answer length", "回答长度"),
    "tile.length.about": (
        "Mean tokens of an answer. A reward model that likes length shows here.",
        "每个回答的平均词元数。若奖励模型偏爱长度，这里会显露。",
    ),
    "tile.bleu": ("Likeness to references (BLEU)", "与参考的相似度（BLEU）"),
    "tile.bleu.about": (
        "Overlap of words with the reference answers, from 0 to 100. It says nothing of taste.",
        "与参考回答的词语重合度，0 至 100。它与偏好无关。",
    ),
    "from": ("mean {before} → {after}", "均值 {before} → {after}"),
    "was": ("before {value}", "此前 {value}"),
    "kept": ("{value} kept", "保留 {value}"),
    "now.reward": ("Reward, latest", "最近奖励"),
    "now.gold": ("Hidden taste, latest", "最近隐藏偏好"),
    "now.kl": ("KL, latest", "最近 KL"),
    "now.length": ("Answer length, latest", "最近回答长度"),
    "now.about": ("Last logged at {stage}, step {step}.", "最近记录于{stage}，第 {step} 步。"),
    "time.title": ("What it cost", "花费"),
    "time.total": ("{value} in all", "共 {value}"),
    "time.cpu": ("{value} of processor time", "处理器用时 {value}"),
    "time.memory": ("{value} of memory at most", "内存峰值 {value}"),
    "time.stage": ("Stage", "阶段"),
    "time.seconds": ("Time", "用时"),
    "time.share": ("Share", "占比"),
    "others": ("Other values in summary.json", "summary.json 中的其他数值"),
    "name": ("Name", "名称"),
    "value": ("Value", "数值"),
}

_CURVES: dict[str, tuple[str, str]] = {
    "curves.about": (
        "A bold line is a moving average, the pale one behind it is what was logged. Point at a picture, or focus "
        "it and use the arrow keys, to read numbers.",
        "粗线为滑动平均，其后的浅线为原始记录。指向图片，或选中后用方向键，可读取数值。",
    ),
    "curves.stages": ("The stages so far", "目前各阶段"),
    "curves.before": ("The stages before", "此前各阶段"),
    "curves.stage": ("{stage}: {steps} steps", "{stage}：{steps} 步"),
    "curves.rest": ("Also logged ({n})", "其他记录（{n}）"),
    "curves.latest": ("latest", "最新"),
    "curves.guide": ("dashed: target {value}", "虚线：目标 {value}"),
    "chart.read": (
        "{title}: from {first} to {last} over {n} points; lowest {low}, highest {high}.",
        "{title}：{n} 个点，从 {first} 到 {last}；最低 {low}，最高 {high}。",
    ),
    "axis.step": ("step", "步"),
    "axis.distance": ("distance from the reference, √KL", "与参考模型的距离，√KL"),
    "axis.predicted": ("chance that the reward model gave", "奖励模型给出的概率"),
    "axis.reward": ("reward of an answer", "回答的奖励"),
    "axis.gold": ("hidden taste of an answer", "回答的隐藏偏好"),
    "axis.tokens": ("tokens of an answer", "回答的词元数"),
    "m.reward": ("Reward", "奖励"),
    "m.reward.about": (
        "Mean reward of a step's answers. It should rise.",
        "每步回答的平均奖励，应当上升。",
    ),
    "m.gold": ("Hidden taste (gold)", "隐藏偏好（gold）"),
    "m.gold.about": (
        "The world's own measure, unseen by training. If reward rises and this falls, the reward is being gamed.",
        "内置世界自己的尺度，训练看不到。若奖励升而它降，说明奖励被钻空子。",
    ),
    "m.kl": ("KL from the reference", "与参考模型的 KL"),
    "m.kl.about": (
        "Nats per answer between the policy and the model it started from.",
        "每个回答中，策略与起点模型相差的奈特数。",
    ),
    "m.length": ("Answer length", "回答长度"),
    "m.length.about": (
        "Tokens per answer. A steady climb often means that length itself is rewarded.",
        "每个回答的词元数。持续变长往往说明长度本身在得分。",
    ),
    "m.entropy": ("Entropy", "熵"),
    "m.entropy.about": (
        "Nats per token: how undecided the policy is. Near 0 it always says the same.",
        "每词元的奈特数：策略有多犹豫。接近 0 时总说同样的话。",
    ),
    "m.beta": ("Price of KL (beta)", "KL 的代价（beta）"),
    "m.beta.about": (
        "Reward that one nat of KL costs; an adaptive beta steers KL to its target.",
        "每一奈特 KL 扣掉的奖励；自适应 beta 把 KL 引向目标。",
    ),
    "m.explained": ("Explained variance", "可解释方差"),
    "m.explained.about": (
        "How much of the returns the critic foresees: 1 is all, 0 is nothing, below 0 is worse than a constant.",
        "评论家能预见多少回报：1 为全部，0 为没有，低于 0 不如常数。",
    ),
    "m.clip": ("Clip share", "裁剪比例"),
    "m.clip.about": (
        "Share of tokens whose update the clip held back. Persistently high means that steps are too large.",
        "被裁剪限制更新的词元比例。长期偏高说明步子太大。",
    ),
    "m.cut": ("Unfinished answers", "未写完的回答"),
    "m.cut.about": ("Share of answers that ran out of their token budget.", "用尽词元上限仍未结束的回答比例。"),
    "m.loss": ("Loss", "损失"),
    "training": ("training", "训练"),
    "m.loss.beside": ("held out", "留出"),
    "m.loss.about": ("What the optimiser lowers.", "优化器要降低的量。"),
    "m.loss.language.about": (
        "Nats of surprise per token of raw text. Lower is better.",
        "原始文本每词元的意外程度（奈特），越低越好。",
    ),
    "m.loss.sft.about": (
        "Nats of surprise per token of the demonstrated answers. Lower is better.",
        "示范回答每词元的意外程度（奈特），越低越好。",
    ),
    "m.loss.reward.about": (
        "Surprise about which answer people preferred. A coin flip costs 0.693.",
        "对人们偏好哪个回答的意外程度。随机猜测为 0.693。",
    ),
    "m.loss.policy.about": (
        "What the optimiser lowers. Its level says little: read reward and KL instead.",
        "优化器要降低的量。其高低意义不大：请看奖励与 KL。",
    ),
    "m.perplexity": ("Perplexity", "困惑度"),
    "m.perplexity.about": (
        "Between how many tokens the model wavers, on held-out text. Lower is better.",
        "模型在留出文本上平均在多少个词元间犹豫，越低越好。",
    ),
    "m.accuracy": ("Accuracy", "准确率"),
    "m.accuracy.beside": ("held out", "留出"),
    "m.accuracy.about": (
        "Share of pairs in which the preferred answer got the higher grade.",
        "较受偏好的回答得分更高的配对比例。",
    ),
    "m.margin": ("Margin", "差距"),
    "m.margin.about": (
        "Mean gap between the grades of the preferred and the other answer.",
        "受偏好回答与另一回答的平均分差。",
    ),
    "m.value_loss": ("Critic's loss", "评论家损失"),
    "m.value_loss.about": (
        "Squared error of the critic's guesses of what is still to come.",
        "评论家预测未来回报的平方误差。",
    ),
    "m.kl_to_old": ("KL within a step", "单步内的 KL"),
    "m.kl_to_old.about": (
        "Nats per token by which one step's updates moved the policy from the one that sampled.",
        "一步更新使策略偏离采样时策略的程度（每词元奈特）。",
    ),
    "m.kl_whole": ("KL from the whole reference", "与完整参考模型的 KL"),
    "m.kl_whole.about": (
        "Nats per answer, the reference among all tokens, not only those that top-p left. Stops and targets go by it.",
        "每个回答的奈特数，参考模型取全部词元，而不只是 top-p 留下的词元。提前停止与目标以它为准。",
    ),
    "m.reward.distance": ("Reward for the distance moved", "移动距离换来的奖励"),
    "m.reward.distance.about": (
        "One dot a step, early steps pale. A line that flattens: more distance buys little.",
        "每步一点，早期较浅。变平说明走得更远也得不到多少。",
    ),
    "m.gold.distance": ("Hidden taste for the distance moved", "移动距离换来的隐藏偏好"),
    "m.gold.distance.about": (
        "Where this bends down while reward still climbs, the policy has over-optimised.",
        "若此线下弯而奖励仍升，说明已过度优化。",
    ),
}

_REWARD: dict[str, tuple[str, str]] = {
    "rm.about": (
        "How well the reward model foretells judgements that it was not trained on.",
        "奖励模型对未参与训练的评判预测得如何。",
    ),
    "rm.rates": ("Pairs that it orders as people did", "与人排序一致的配对"),
    "rm.accuracy": ("Reward model", "奖励模型"),
    "rm.longer": ("“The longer answer wins”", "“长者胜”"),
    "rm.longer.about": (
        "The baseline to beat: a rule that only counts characters or tokens.",
        "需要超过的基线：只看长度的规则。",
    ),
    "rm.shorter": ("“The shorter answer wins”", "“短者胜”"),
    "rm.pairs": ("pairs", "配对数"),
    "rm.pairs.about": ("Held-out pairs", "留出配对"),
    "rm.judgements.about": ("Held-out judgements", "留出评判"),
    "rm.ece": ("Expected calibration error", "期望校准误差"),
    "rm.ece.about": (
        "Mean gap between the chance that the model gives and what happened; 0 is perfect.",
        "模型给出的概率与实际之间的平均差距；0 为完美。",
    ),
    "rm.calibration": ("Calibration", "校准"),
    "rm.calibration.about": (
        "On the dashed line, chances mean what they say; below it the model is too sure. Bars of "
        "95 % intervals; grey: number of pairs.",
        "在虚线上，概率名副其实；在其下则过于自信。竖线为 95 % 区间；灰柱为配对数。",
    ),
    "rm.observed": ("came true", "实际发生"),
    "rm.none": (
        "No held-out judgement orders two answers, so there is no accuracy to show.",
        "没有可用于比较两个回答的留出评判，因此没有准确率。",
    ),
    "rm.by_k": ("By number of ranked answers (K)", "按排序回答数（K）"),
    "rm.k": ("K", "K"),
    "rm.accuracy.column": ("Accuracy", "准确率"),
    "rm.learned": ("What it learned from", "学习所用的评判"),
    "rm.learned.about": (
        "Judgements to train on, by their loss. Between equal answers, ties are e^tie times as frequent as "
        "wins of one; cuts are the scores between grades.",
        "训练所用的评判，按损失分列。两个回答同样好时，平局的频率是一方胜出的 e^tie 倍；cuts 是等级之间的分界分数。",
    ),
    "rm.others": ("Other values in reward-model/evaluation.json", "reward-model/evaluation.json 中的其他数值"),
}

_BROWSER: dict[str, tuple[str, str]] = {
    "cmp.about": (
        "The same held-out prompts, answered by the model before tuning and by the tuned one.",
        "相同的留出提示，由调优前后的模型分别回答。",
    ),
    "cmp.judge.gold": ("Won, tied and lost are judged by the hidden taste.", "胜、平、负按隐藏偏好评判。"),
    "cmp.judge.reward": ("Won, tied and lost are judged by reward.", "胜、平、负按奖励评判。"),
    "cmp.cut": ("Shown: {shown} of {all} prompts, evenly chosen.", "显示 {all} 个提示中均匀选取的 {shown} 个。"),
    "cmp.spread.reward": ("Rewards, before and after", "奖励，前与后"),
    "cmp.spread.gold": ("Hidden taste, before and after", "隐藏偏好，前与后"),
    "cmp.spread.tokens": ("Length, before and after", "长度，前与后"),
    "cmp.spread.about": ("Answers in each range; dashed: the means.", "各区间的回答数；虚线为均值。"),
    "cmp.filter": ("Find in prompts and answers", "在提示与回答中查找"),
    "cmp.placeholder": ("words…", "输入文字…"),
    "cmp.sort": ("Order", "排序"),
    "cmp.sort.file": ("as in the file", "文件顺序"),
    "cmp.sort.reward.down": ("largest gain in reward", "奖励提升最大"),
    "cmp.sort.reward.up": ("largest loss in reward", "奖励下降最大"),
    "cmp.sort.gold.down": ("largest gain in hidden taste", "隐藏偏好提升最大"),
    "cmp.sort.gold.up": ("largest loss in hidden taste", "隐藏偏好下降最大"),
    "cmp.sort.gap": ("reward up, hidden taste down", "奖励升而偏好降"),
    "cmp.sort.tokens.down": ("grew most in length", "变长最多"),
    "cmp.sort.tokens.up": ("shrank most in length", "变短最多"),
    "cmp.show": ("Show", "显示"),
    "cmp.show.all": ("all", "全部"),
    "cmp.show.won": ("won", "胜"),
    "cmp.show.tied": ("tied", "平"),
    "cmp.show.lost": ("lost", "负"),
    "cmp.show.cut": ("unfinished", "未写完"),
    "cmp.page": ("A page", "每页"),
    "cmp.count": ("{from} to {to} of {n}", "第 {from} 至 {to} 条，共 {n} 条"),
    "cmp.none": ("No prompt matches.", "没有匹配的提示。"),
    "cmp.prompt": ("Prompt", "提示"),
    "cmp.reference": ("Reference answer", "参考回答"),
    "cmp.before": ("Before", "调优前"),
    "cmp.after": ("After", "调优后"),
    "cmp.reward": ("reward", "奖励"),
    "cmp.gold": ("hidden taste", "隐藏偏好"),
    "cmp.tokens": ("tokens", "词元"),
    "cmp.ended.cut": ("cut off", "被截断"),
    "cmp.failed": ("failed", "失败"),
    "cmp.empty": ("(an empty answer)", "（空回答）"),
    "cmp.absent": ("(no answer in the file)", "（文件中没有回答）"),
    "page.previous": ("Previous", "上一页"),
    "page.next": ("Next", "下一页"),
    "tl.about": (
        "Answers that were kept while training went on. Follow one prompt through time, or read a whole step.",
        "训练过程中保留的回答。可以追踪同一提示，或阅读某一步的全部回答。",
    ),
    "tl.cut": ("Shown: {shown} of {all} answers, evenly chosen.", "显示 {all} 个回答中均匀选取的 {shown} 个。"),
    "tl.mode": ("Read", "阅读方式"),
    "tl.mode.prompt": ("one prompt through time", "追踪一个提示"),
    "tl.mode.step": ("all answers of one step", "某一步的全部回答"),
    "tl.stage": ("Stage", "阶段"),
    "tl.prompt": ("Prompt", "提示"),
    "tl.step": ("Step", "步"),
    "tl.previous": ("Previous", "上一个"),
    "tl.next": ("Next", "下一个"),
    "tl.more": ("Show {n} more", "再显示 {n} 个"),
    "tl.step.of": ("step {step}", "第 {step} 步"),
    "tl.kl": ("KL", "KL"),
}

_PROVENANCE: dict[str, tuple[str, str]] = {
    "lin.about": (
        "An arrow leads from what was used to what it made. Dashed: came from outside this run.",
        "箭头从所用之物指向产物。虚线框：来自本次运行之外。",
    ),
    "lin.artifact": ("Made", "产物"),
    "lin.stage": ("By stage", "阶段"),
    "lin.from": ("From", "来源"),
    "lin.seconds": ("Time", "用时"),
    "lin.picture": (
        "Picture of what was made from what; the table beside it says the same.",
        "来源图；旁边的表格内容相同。",
    ),
    "rec.about": (
        "All that is needed to make this run again: every setting as resolved, and the machine it ran on.",
        "重做本次运行所需的一切：解析后的全部设置，以及所用机器。",
    ),
    "rec.recipe": ("Recipe (config.yaml)", "配方（config.yaml）"),
    "rec.environment": ("Environment (environment.json)", "环境（environment.json）"),
    "rec.copy": ("Copy", "复制"),
    "rec.copied": ("Copied", "已复制"),
    "rec.setting": ("Setting", "设置"),
}

WORDS: dict[str, tuple[str, str]] = {**_PAGE, **_HEADLINE, **_CURVES, **_REWARD, **_BROWSER, **_PROVENANCE, **TRUST}
"""Key to (English, Chinese)."""
