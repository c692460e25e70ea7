"""The Chinese of the book-review world: 576 titles, 480 authors, and review sentences in step with the English ones."""

from __future__ import annotations

from plaudit.worlds.grammar import Grammar, Template, listed

__all__ = ["CHINESE"]

_FAMILIES = tuple("林陈周许沈何宋叶苏方江白程顾唐陆高韩冯秦")

_GIVEN = listed(
    "文清, 若水, 明远, 思雨, 志强, 雨晴, 建国, 海波, 晓梅, 云飞, 静秋, 天宇, 春生, "
    "立新, 月华, 远山, 玉兰, 长青, 安宁, 冬梅, 子安, 慧敏, 一鸣, 书平"
)

_HEROES = listed(
    "小满, 阿宁, 阿明, 小雨, 小梅, 阿海, 小川, 阿青, 阿云, 小兰, 阿秋, 小安, 阿春, "
    "小敏, 阿华, 小鸣, 阿强, 小波, 阿国, 小晴, 阿水, 小月, 阿飞, 小平"
)

_HEADS = listed(
    "银色, 金色, 蓝色, 红色, 白色, 黑色, 遥远, 沉默, 孤独, 秘密, 古老, 最后, 午夜, "
    "夏天, 冬天, 春天, 寂静, 燃烧, 消失, 北方, 南方, 破碎, 无尽, 温柔"
)

_TAILS = listed(
    "港湾, 花园, 森林, 河流, 城堡, 灯塔, 海岛, 山谷, 车站, 小镇, 房子, 大门, 来信, "
    "钥匙, 镜子, 歌声, 星空, 月亮, 旅途, 王国, 影子, 火焰, 大海, 雪山"
)

_REVIEWS = (
    Template("praise", "书里的{part}很{good}。"),
    Template("praise", "它是一本{good}的书。"),
    Template("praise", "我喜欢它的{part}。"),
    Template("praise", "《{title}》很{good}。"),
    Template("praise", "这部{genre}（{author}）很{good}。"),
    Template("blame", "书里的{part}有点{bad}。"),
    Template("blame", "它是一本{bad}的书。"),
    Template("blame", "我不喜欢它的{part}。"),
    Template("blame", "《{title}》有点{bad}。"),
    Template("blame", "这部{genre}（{author}）有点{bad}。"),
    Template("contrast", "书里的{part}很{good}，但{part}有点{bad}。"),
    Template("contrast", "它很{good}，但有点{bad}。"),
    Template("contrast", "我喜欢它的{part}，但不喜欢{part}。"),
    Template("contrast", "《{title}》很{good}，但有点{bad}。"),
    Template("contrast", "这部{genre}（{author}）很{good}，但有点{bad}。"),
    Template("detail", "书里主角“{hero}”{scene}的那一章很难忘。"),
    Template("detail", "它从主角“{hero}”{scene}讲起。"),
    Template("detail", "我记得主角“{hero}”{scene}。"),
    Template("detail", "有一章写主角“{hero}”{scene}。"),
    Template("detail", "在《{title}》里，主角“{hero}”{scene}。"),
    Template("advice", "书里的故事适合{readers}。"),
    Template("advice", "它适合{readers}。"),
    Template("advice", "我会把它送给{readers}。"),
    Template("advice", "喜欢{genre}的人可以读它。"),
    Template("advice", "《{title}》适合{readers}。"),
    Template("advice", "这部{genre}（{author}）适合{readers}。"),
    Template("plain", "书里一共有{number}章。"),
    Template("plain", "它是一部{genre}。"),
    Template("plain", "我用{time}读完了它。"),
    Template("plain", "手上这本是在{place}买的。"),
    Template("plain", "《{title}》（{author}）是一部{genre}。"),
    Template("plain", "这部{genre}（{author}）有{number}章。"),
)

_NOTES = (
    "《{title}》（{author}）是一部{genre}。",
    "《{title}》的主角“{hero}”很{good}。",
    "这部{genre}（{author}）写了主角“{hero}”。",
    "在《{title}》里，主角“{hero}”{scene}。",
    "《{title}》（{author}）是在{place}写的。",
    "后来主角“{hero}”{scene}。",
    "《{title}》的最后，主角“{hero}”{scene}。",
    "读过《{title}》的人都喜欢主角“{hero}”。",
    "这本《{title}》是在{place}买的。",
    "这部{genre}（{author}）说主角“{hero}”很{good}。",
)

_TALKS = (
    "安安：你在读什么？\n明明：我在读《{title}》（{author}）。\n安安：你喜欢《{title}》吗？\n"
    "明明：喜欢，它的{part}很{good}。\n安安：主角“{hero}”呢？\n明明：哦，主角“{hero}”{scene}。",
    "朋友：你好！我用{time}读完了《{title}》（{author}），希望主角“{hero}”会回来。我把《{title}》送给{readers}，"
    "他们说主角“{hero}”很{good}，也说{part}很{good}，{part}有点{bad}。",
    "{place}新书：{genre}《{title}》（{author}），一共{number}章。《{title}》的{part}很{good}。"
    "读过它的多是{readers}。我们喜欢主角“{hero}”{scene}的那一章。",
)

CHINESE = Grammar(
    language="zh",
    prompt="请评论{genre}《{title}》（{author}）和主角“{hero}”。\n书评：\n",
    notes_prompt="请记下{genre}《{title}》（{author}）和主角“{hero}”。\n笔记：\n",
    reviews=_REVIEWS,
    register="名字：",
    names=("《{title}》", "（{author}）", "主角“{hero}”"),
    comma="，",
    notes=_NOTES,
    talks=_TALKS,
    words={
        "genre": listed("喜剧, 悬疑小说, 爱情小说, 武侠小说, 回忆录, 童话, 科幻小说, 游记"),
        "part": listed("情节, 文笔, 结尾, 开头, 对话, 节奏, 人物, 语言"),
        "good": listed("精彩, 动人, 温暖, 有趣, 细腻, 生动, 真诚, 幽默"),
        "bad": listed("沉闷, 平淡, 啰嗦, 混乱, 冷淡, 生硬, 乏味, 肤浅"),
        "scene": listed("找到地图, 离开家, 打开门, 烧掉信, 见到国王, 丢了钥匙, 藏起钱, 在夜里唱歌, 游向小船, 说出真话"),
        "readers": listed("年轻人, 老朋友, 学生, 父母, 爱做梦的人, 睡不着的人, 在路上的人, 有耐心的人"),
        "number": listed("十, 十二, 二十, 三十, 四十"),
        "time": listed("一天, 两天, 一周, 一夜, 一个月"),
        "place": listed("北京, 上海, 南京, 苏州, 成都, 广州"),
    },
    titles=(_HEADS, _TAILS),
    authors=(_FAMILIES, _GIVEN),
    heroes=_HEROES,
    stops="。！？",
    space="",
    longest=68,
)
