"""The main job on real input: count the words of some hundred real texts through the whole system.

`make demo` runs it. It ends with exit code 0 when every count is what a plain count of the same text says.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from meshq.bench.figures import Figures
from meshq.client import Client, Task, TaskSpec, TaskState, TaskView
from meshq.local.errors import LocalError
from meshq.local.ports import is_free
from meshq.local.settings import EDGE_PORT
from meshq.local.system import System
from meshq.local.texts import Text, all_texts

FRAME = 500
FEWEST = 200
SHOWN = 8
GIVE_UP_AFTER = 120.0


class Run:
    """One run: which text became which task, and how far they are."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.texts = texts
        self.text_of: dict[str, Text] = {}
        self.ended: dict[str, Task] = {}
        self.states: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._begun = 0.0
        self._seconds = 0.0

    async def submit(self, client: Client) -> None:
        """Send all texts as tasks, in frames."""
        self._begun = time.monotonic()
        specs = [TaskSpec(type="word_count", payload=text.content) for text in self.texts]
        async for created in client.create_many(specs):
            if created.task_id is None:
                self.wrong.append(f"{self.texts[created.index].name}: {created.error}")
            else:
                self.text_of[created.task_id] = self.texts[created.index]

    async def look(self, client: Client) -> list[Task]:
        """Ask for what has not ended yet; return what ended since the last look."""
        open_ids = [task_id for task_id in self.text_of if task_id not in self.ended]
        news: list[Task] = []
        self.states = Counter({TaskState.SUCCEEDED.value: len(self.ended)})
        for start in range(0, len(open_ids), FRAME):
            found = await client.get_many(open_ids[start : start + FRAME], view=TaskView.FULL)
            self.states.update(task.state.value for task in found.tasks)
            news += [task for task in found.tasks if task.done]
        self.ended.update({task.task_id: task for task in news})
        self._seconds = time.monotonic() - self._begun
        self.wrong += [problem for task in news if (problem := self.problem(task))]
        return news

    def problem(self, task: Task) -> str | None:
        """What is wrong with an ended task's count, if anything."""
        text = self.text_of[task.task_id]
        if not task.succeeded:
            return f"{text.name}: task {task.task_id} ended as {task.state}: {task.error}"
        if task.result != {"word_count": text.words}:
            return f"{text.name}: task {task.task_id} says {task.result}, a plain count says {text.words}"
        return None

    @property
    def done(self) -> bool:
        """Whether every accepted task has ended."""
        return len(self.ended) == len(self.text_of)

    def figures(self) -> Figures:
        """What the run amounts to."""
        return Figures.of(len(self.text_of), list(self.ended.values()), self._seconds)


class Screen:
    """The live view on a terminal; a line now and then elsewhere."""

    def __init__(self, console: Console, run: Run) -> None:
        self._run = run
        self._console = console
        self._latest: list[Task] = []
        self._said = 0
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def show(self, news: Sequence[Task]) -> None:
        """Bring the view up to date."""
        self._latest = [*self._latest, *news][-SHOWN:]
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
        elif len(self._run.ended) - self._said >= FEWEST or (news and self._run.done):
            self._said = len(self._run.ended)
            self._console.print(f"  {self._said} of {len(self._run.text_of)} tasks have ended")

    def _table(self) -> Table:
        states = "  ".join(f"{state.lower()} {count}" for state, count in sorted(self._run.states.items()))
        table = Table(title=f"word_count: {states}", title_justify="left", expand=True)
        table.add_column("text")
        table.add_column("words", justify="right")
        table.add_column("worker")
        for task in self._latest:
            words = task.result["word_count"] if isinstance(task.result, dict) else "-"
            table.add_row(self._run.text_of[task.task_id].name, str(words), task.worker_id)
        return table


async def count_words(client: Client, console: Console, texts: Sequence[Text]) -> Run:
    """Run the job to its end, showing it live."""
    run = Run(texts)
    screen = Screen(console, run)
    submission = asyncio.create_task(run.submit(client))
    if screen.live is not None:
        screen.live.start()
    try:
        async with asyncio.timeout(GIVE_UP_AFTER):
            while not (submission.done() and run.done):
                screen.show(await run.look(client))
                await asyncio.sleep(0.05)
            await submission
    finally:
        submission.cancel()
        if screen.live is not None:
            screen.live.stop()
    return run


def report(console: Console, run: Run) -> int:
    """Say what came out, ending with the line for programs; return the exit code."""
    figures = run.figures()
    words = sum(text.words for text in run.text_of.values())
    for problem in run.wrong[:20]:
        console.print(f"[red]wrong[/] {problem}", highlight=False)
    if run.wrong:
        console.print(f"{len(run.wrong)} of {len(run.texts)} counts are wrong or missing.")
    else:
        console.print(
            f"[green]All {figures.tasks} counts are right[/]: {words:,} words, as a plain count says."
        )
    console.print(
        f"Throughput {figures.throughput:,.0f} tasks/s; latency from acceptance to recorded end: "
        f"p50 {figures.p50:.1f} ms, p99 {figures.p99:.1f} ms.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(NEXT, highlight=False, soft_wrap=True)
    print(figures.line(), flush=True)  # noqa: T201 - the line for programs
    return 1 if run.wrong or figures.lost else 0


NEXT = """
What to try next: `make up` leaves the system running; then, in another terminal,
  curl -X POST localhost:8080/v1/tasks -d '{"type":"word_count","payload":"word1 word2 word3"}'
  curl "localhost:8080/v1/tasks?page_size=10"
  grpcurl -plaintext localhost:8080 list
  .venv/bin/meshq task run text_summarization --file README.md --string
  open http://localhost:8080/ in a browser
"""


async def demo(checkout: Path, data: Path, console: Console) -> int:
    """Start the system, run the job, stop the system."""
    texts = all_texts(checkout)
    if len(texts) < FEWEST:
        console.print(f"Only {len(texts)} texts were found below {checkout}; at least {FEWEST} are wanted.")
        return 1
    port = EDGE_PORT if is_free(EDGE_PORT) else 0
    started = time.monotonic()
    console.print("Starting etcd, three shards, PostgreSQL, and all components of meshq ...")
    async with System(data, port=port) as system:
        console.print(
            f"Ready after {time.monotonic() - started:.1f} s at http://{system.edge}/", highlight=False
        )
        async with Client(system.edge) as client:
            console.print(
                f"Counting the words of {len(texts)} real texts, one task for each.", highlight=False
            )
            run = await count_words(client, console, texts)
    return report(console, run)


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path.cwd(), help="where to look for texts")
    parser.add_argument("--data", type=Path, default=Path(".meshq/demo"), help="the data directory")
    arguments = parser.parse_args()
    console = Console()
    try:
        return asyncio.run(demo(arguments.checkout.resolve(), arguments.data, console))
    except LocalError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
