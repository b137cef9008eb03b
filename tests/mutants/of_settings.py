"""The guards of the options of `lorafleet serve`: all that is wrong is told, by its place, and no password is."""

_TESTS = "tests/service/settings/test_layered.py"

GUARDS = (
    (
        "settings: the checks of others go on after a bad option",
        "service/settings/given.py",
        "            self._note(flag, error.message)\n            self._bad.add(flag)\n            return instead",
        "            self._note(flag, error.message)\n            self.done()\n            return instead",
        _TESTS,
    ),
    (
        "settings: what follows from a bad option alone is not told",
        "service/settings/given.py",
        "if not self._bad & set(flags):",
        "if True:",
        _TESTS,
    ),
    (
        "settings: a secret is shown of a URL alone",
        "service/settings/given.py",
        'return BLANK if self.is_secret and "://" not in text else',
        "return",
        _TESTS,
    ),
    (
        "settings: printed without passwords",
        "service/settings/effective.py",
        "return without_passwords(str(value))",
        "return str(value)",
        _TESTS,
    ),
    (
        "settings: an unknown key is no option",
        "service/settings/options_file.py",
        "if key not in keys:",
        "if False:",
        _TESTS,
    ),
    (
        "settings: a number of the file is no text",
        "service/settings/layered.py",
        "_not_finite(taken) or options_file.misread(value, taken)",
        "_not_finite(taken)",
        _TESTS,
    ),
    (
        "settings: a default stands for a bad value, not the file's",
        "service/settings/layered.py",
        "option.process_value(ctx, option.default)",
        "option.process_value(ctx, option.get_default(ctx))",
        _TESTS,
    ),
    (
        "settings: no database is changed while an option is wrong",
        "service/cli/db.py",
        "    given().done()\n",
        "",
        "tests/service/cli/test_db.py",
    ),
)
