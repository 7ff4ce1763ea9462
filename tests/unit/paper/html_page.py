"""A page taken apart, for the tests of pages."""

from __future__ import annotations

import html.parser

_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Elements of a page in order, each (tag, attributes, text inside); checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in _VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for number in self._open:
            self.elements[number][2].append(data)

    def find(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(tag, attrs, " ".join("".join(text).split())) for tag, attrs, text in self.elements if tag in tags]

    def has_row(self, *texts: str) -> bool:
        """Tell whether these cells follow each other in a table."""
        cells = [text for _, _, text in self.find("th", "td")]
        return any(tuple(cells[start : start + len(texts)]) == texts for start in range(len(cells)))

    def text(self) -> str:
        return self.find("body")[0][2]
