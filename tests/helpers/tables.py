"""The tables of an HTML page."""

from html.parser import HTMLParser


class Tables(HTMLParser):
    """The cells of all tables of a page by caption."""

    def __init__(self, page):
        super().__init__()
        self.found, self._cell, self._caption = {}, None, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("td", "th", "caption"):
            self._cell = ""
        if tag == "tr":
            self.found[self._caption].append([])

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self._caption = self._cell
            self.found[self._caption] = []
        elif tag in ("td", "th"):
            self.found[self._caption][-1].append(self._cell.replace("\xa0", " ").replace("\N{MINUS SIGN}", "-"))
        if tag in ("td", "th", "caption"):
            self._cell = None
