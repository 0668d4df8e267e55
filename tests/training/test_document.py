import numpy as np
from PIL import Image

from metricjax.training import _document as document


def blocks(folder):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "a.png")
    return [
        document.Heading("One < two", 1),
        document.Paragraph("Plain & simple."),
        document.Paragraph("Gain", strong=True),
        document.Table(
            ("name", "value"),
            [("a|b", "1"), ("\x1b[2J\udc80", "2")],
            frozenset({"value"}),
        ),
        document.Picture(folder / "a.png", 'A "quoted" caption'),
    ]


def test_markdown_escapes_what_would_break_a_table(tmp_path):
    text = document.to_markdown(blocks(tmp_path), tmp_path)
    assert text.startswith("# One < two\n\nPlain & simple.\n\n**Gain**\n\n")
    assert "| name | value |\n| --- | ---: |\n| a\\|b | 1 |\n" in text
    assert '![A "quoted" caption](a.png)' in text
    assert "\x1b" not in text
    text.encode()


def test_html_escapes_everything_and_holds_the_picture(tmp_path):
    text = document.to_html(blocks(tmp_path), title="<script>")
    assert "<script" not in text
    assert "<h1>One &lt; two</h1>" in text
    assert "Plain &amp; simple." in text
    assert 'alt="A &quot;quoted&quot; caption"' in text
    assert '<td>a|b</td><td class="number">1</td>' in text
    assert 'src="data:image/png;base64,iVBOR' in text
    assert "\x1b" not in text
    text.encode()
