"""What the HTML pages share: one file that needs nothing else, everything in it escaped."""

from __future__ import annotations

import jinja2


def load_page(name: str) -> jinja2.Template:
    """Return the template ``name`` of this package; a variable that it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mammoclip", "paper"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
