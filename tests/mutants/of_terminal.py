"""The guards of what people see: nothing of a run is obeyed by a terminal, names and states stay whole, any locale can show it."""

GUARDS = (
    (
        "terminal: control characters of a cell are written out",
        "lorafleet/control_characters.py",
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
    (
        "yaml: depth is known before anything recurses",
        "lorafleet/yaml_text.py",
        "        if len(inside) + (inside[-1].depth if inside else 0) > MAX_DEPTH:",
        "        if len(inside) > 1_000:",
        "tests/lorafleet/test_hostile_files.py",
    ),
    (
        "yaml: aliases count as what they stand for",
        "lorafleet/yaml_text.py",
        "    return known.get(str(event.anchor), (1, 0))",
        "    return (1, known.get(str(event.anchor), (1, 0))[1])",
        "tests/lorafleet/test_hostile_files.py",
    ),
    (
        "spec file: nothing but plain files and the shell's pipes",
        "lorafleet/spec_file.py",
        "stat.S_ISFIFO(mode) and str(path).startswith(_SHELLS)",
        "stat.S_ISFIFO(mode)",
        "tests/lorafleet/test_hostile_files.py",
    ),
)
