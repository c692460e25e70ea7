"""The report of a run: one self-contained HTML file, readable offline, in English and Chinese.

    from plaudit.report import write_report

    path = write_report(Path("runs/demo"))

`write_reward_page` does the same for what `plaudit evaluate reward` found. Reads the run folder's files and nothing
else; neither torch nor transformers is loaded.
"""

from __future__ import annotations

from plaudit.report.trust import write_reward_page
from plaudit.report.write import write_report

__all__ = ["write_report", "write_reward_page"]
