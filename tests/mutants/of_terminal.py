"""The guards of what people see: nothing of a run is obeyed by a terminal, names and states stay whole, any locale can show it."""

GUARDS = (
    (
        "terminal: control characters of a cell are written out",
        "lorafleet/visible.py",
        "    return _UNSEEN.sub(_escaped, text.replace(",
        "    return str(text.replace(",
        "tests/lorafleet/test_tables.py",
    ),
    (
        "terminal: text is no markup",
        "lorafleet/terminal.py",
        "Literal(markup=False",
        "Literal(markup=True",
        "tests/lorafleet/test_terminal.py",
    ),
    (
        "tables: numbers leave, they are not cut",
        "lorafleet/tables.py",
        "        shown.discard(place)",
        "        pass",
        "tests/lorafleet/test_tables.py",
    ),
    (
        "terminal: letters that a locale lacks are written in others",
        "lorafleet/terminal.py",
        "            stream.reconfigure(errors=ERRORS)",
        "            pass",
        "tests/lorafleet/test_terminal.py",
    ),
    (
        "options: what stands behind a command goes before what stands in front of it",
        "lorafleet/commands/connection.py",
        "return value if _is_on_the_line(context, parameter) else _given_place",
        "return _given_place",
        "tests/lorafleet/test_cli.py",
    ),
    (
        "options: one call's credentials are not the next one's",
        "lorafleet/commands/connection.py",
        "    given_credentials.clear()",
        "    pass",
        "tests/lorafleet/test_cli.py",
    ),
)
