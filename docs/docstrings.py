"""How the site reads docstrings."""

import re

import griffe


class Examples(griffe.Extension):
    """Shows lines from an unindented `>>>` to the next blank one as code."""

    def on_instance(self, *, obj, **_):
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"(?m)^>>> .*(?:\n.+)*", "```pycon\n\\g<0>\n```", obj.docstring.value
            )
