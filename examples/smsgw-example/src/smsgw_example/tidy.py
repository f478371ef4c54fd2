"""``tidy``: spaces that nobody sees are not paid for."""

from __future__ import annotations

import re

from smsgw.hookspecs import hookimpl
from smsgw.model import TextRefused


class Tidy:
    """A text transform: no white space at the ends of lines and of the text, and none twice."""

    @hookimpl
    def transform(self, text: str) -> str:
        lines = [re.sub(r"[ \t]+", " ", line).strip(" \t") for line in re.split(r"\r\n|\r|\n", text)]
        tidy = "\n".join(lines).strip()
        if not tidy:
            raise TextRefused("has nothing but white space")
        return tidy
