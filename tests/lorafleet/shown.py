"""What a terminal of some width shows, as lines."""

from io import StringIO
from typing import Any

from rich.cells import cell_len

from lorafleet.terminal import literal_console

ODD = {
    "long": "dataset.uri: 3 of 40 pictures cannot be read: " + ", ".join(f"picture-{number}.png" for number in range(40)),
    "one word": "x" * 300,
    "empty": "",
    "CJK": "画像を読み込むことができませんでした。" * 6,
    "emoji": "👩‍🚀🎨❤️" * 30,
    "right to left": "לא ניתן לקרוא את התמונה " * 8,
    "markup": "[/b] [enforce fail at alloc.cpp:114] [bold]x[/bold] :smile: https://a/b 127.0.0.1 'q'",
    "escapes": "x\x1b]0;TITLE\x07\x1b[2K\x1b[1A\x1b[32mSUCCEEDED\x9b2J\u202e\x00.png",
    "lines": "first\nfox  SUCCEEDED\n\nlast",
}


def shown(renderable: Any, width: int = 80, *, colours: bool = False) -> list[str]:
    file = StringIO()
    literal_console(file=file, width=width, height=24, force_terminal=colours).print(renderable)
    return file.getvalue().splitlines()


def width_of(lines: list[str]) -> int:
    return max(cell_len(line) for line in lines)
