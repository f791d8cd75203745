"""Work of which nothing remains but who did it. Workers import it: ``__main__`` they have not."""

from collections.abc import Iterator
from dataclasses import dataclass

from alps.engine.workers.protocol import Tell


@dataclass(frozen=True)
class Nothing:
    """A job of which nothing remains but who carries it out."""

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, None]]:
        """See ``Job``."""
        for number in numbers:
            tell(1)
            yield number, None

    def words(self, number: int) -> str:
        """See ``Job``."""
        return f"nothing {number}"
