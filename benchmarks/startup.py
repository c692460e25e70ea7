"""CPU seconds until the command line answers and the package is imported: the median of several fresh processes.

    python benchmarks/startup.py

Goal: under 0.7 s each. The first process of each kind only warms the disk's cache and is not counted.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import plaudit": ["-c", "import plaudit"],
    "plaudit --help": ["-c", "import sys; sys.argv = ['plaudit', '--help']; from plaudit.cli import main; main()"],
    "plaudit policy --help": [
        "-c",
        "import sys; sys.argv = ['plaudit', 'policy', '--help']; from plaudit.cli import main; main()",
    ],
}
TIMES = 7


def cpu_seconds(words: list[str]) -> float:
    """What one process and its children cost, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    for name, words in COMMANDS.items():
        cpu_seconds(words)
        print(f"{name:24} {statistics.median(cpu_seconds(words) for _ in range(TIMES)):.2f} s")


if __name__ == "__main__":
    main()
