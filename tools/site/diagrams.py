"""
Draw the diagrams of docs/: `python -m tools.site.diagrams` writes them anew.

A picture has its own ground and the colours of a dark one where the reader has it dark, so that it
can be read on every page, also where the page is of the other kind.
"""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs"

_STYLE = """\
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.ground { fill: #ffffff; stroke: #d3d9e0; }
.area { fill: #f3f6f8; stroke: #c3ccd5; }
.box { fill: #e2f3f0; stroke: #0a7f72; stroke-width: 1.5; }
.secret { fill: #fdeedd; stroke: #b35900; stroke-width: 1.5; }
.plain { fill: #ffffff; stroke: #8793a0; stroke-width: 1.5; }
.line { fill: none; stroke: #0a7f72; stroke-width: 2; }
.back { fill: none; stroke: #b35900; stroke-width: 2; stroke-dasharray: 6 4; }
.head { fill: #0a7f72; }
.backhead { fill: #b35900; }
.ink { fill: #1c2229; }
.bold { fill: #1c2229; font-weight: 600; }
.faint { fill: #55606c; font-size: 12px; }
.go { fill: #0a6b60; font-size: 12px; }
.return { fill: #8f4700; font-size: 12px; }
@media (prefers-color-scheme: dark) {
.ground { fill: #1b1f27; stroke: #3a424d; }
.area { fill: #232933; stroke: #46505d; }
.box { fill: #173a39; stroke: #46c3b3; }
.secret { fill: #41301b; stroke: #f0a850; }
.plain { fill: #1b1f27; stroke: #8793a0; }
.line { stroke: #46c3b3; }
.back { stroke: #f0a850; }
.head { fill: #46c3b3; }
.backhead { fill: #f0a850; }
.ink, .bold { fill: #e8ecf1; }
.faint { fill: #a9b3bf; }
.go { fill: #6fd8ca; }
.return { fill: #f5bd78; }
}
"""


class Picture:
    """An SVG of `width` x `height`; `what` it shows is for those who do not see it."""

    def __init__(self, width, height, what):
        self._parts = []
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">\n<title>{escape(what)}</title>\n'
            f"<style>\n{_STYLE}</style>\n<defs>\n"
        )
        for name, kind in (("go", "head"), ("return", "backhead")):
            self._head += (
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
                f'markerHeight="7" orient="auto-start-reverse">'
                f'<path class="{kind}" d="M0 0L10 5L0 10z"/></marker>\n'
            )
        self._head += "</defs>\n"
        self._parts.append(
            f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" '
            'rx="10"/>'
        )

    def text(self, x, y, *lines, kind="ink", anchor="middle", step=18):
        """Write `lines` from `y` (of the first line's base) down."""
        for number, line in enumerate(lines):
            self._parts.append(
                f'<text class="{kind}" x="{x}" y="{y + number * step}" '
                f'text-anchor="{anchor}">{escape(line)}</text>'
            )

    def area(self, x, y, width, height, title):
        """A part of the world, such as the board."""
        self._box(x, y, width, height, "area")
        self.text(x + 14, y + 24, title, kind="bold", anchor="start")

    def box(self, x, y, width, height, title, *lines, kind="box"):
        """A box with a title and, smaller, `lines` below it."""
        self._box(x, y, width, height, kind)
        top = y + height / 2 - len(lines) * 8 + 5
        self.text(x + width / 2, top, title, kind="bold")
        self.text(x + width / 2, top + 18, *lines, kind="faint", step=16)

    def _box(self, x, y, width, height, kind):
        self._parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'
        )

    def arrow(self, *points, back=False):
        """A line through `points`, (x, y), with a head at its end; `back` is the way back."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        kind, end = ("back", "return") if back else ("line", "go")
        self._parts.append(f'<path class="{kind}" d="{path}" marker-end="url(#{end})"/>')

    def svg(self):
        return self._head + "\n".join(self._parts) + "\n</svg>\n"


def message():
    """The way of a message out and in."""
    p = Picture(900, 470, "The way of a message out of the device, and into it")
    p.area(16, 16, 700, 438, "the device")
    p.box(760, 60, 124, 350, "broker", kind="plain")

    p.text(30, 66, "out", kind="bold", anchor="start")
    p.box(30, 80, 130, 78, "your task", "publish()", "enqueue()", kind="plain")
    p.box(200, 80, 156, 78, "queue", "order of the calls;", "enqueue(): max_queue")
    p.box(394, 80, 138, 78, "in flight", "packet ids, kept", "max_inflight")
    p.box(580, 80, 118, 78, "TLS", "packets, one", "after the other")
    for start, end in ((160, 200), (356, 394), (532, 580), (698, 760)):
        p.arrow((start, 119), (end, 119))
    p.arrow((760, 196), (95, 196), (95, 158), back=True)
    p.text(428, 189, "PUBACK, PUBCOMP: publish() returns", kind="return")
    p.text(
        428,
        215,
        "connection lost: what is in flight is sent again, same id, same order",
        kind="return",
    )

    p.text(30, 258, "in", kind="bold", anchor="start")
    p.box(580, 272, 118, 78, "TLS", "one packet", "max_packet")
    p.box(394, 272, 138, 78, "backlog", "not handled yet", "max_backlog")
    p.box(208, 272, 138, 78, "lane", "each handler has a", "queue and a task")
    p.box(30, 272, 130, 78, "your handler", "def or async def", kind="plain")
    for start, end in ((760, 698), (580, 532), (394, 346), (208, 160)):
        p.arrow((start, 311), (end, 311))
    p.arrow((95, 350), (95, 390), (760, 390), back=True)
    p.text(
        428,
        383,
        "the handler has returned: PUBACK, PUBREC, in the order of arrival",
        kind="return",
    )
    p.text(428, 412, "lost before that: the broker sends it again", kind="return")
    p.text(428, 440, "QoS 0 goes the same ways, without the ways back", kind="faint")
    return p


def connection():
    """The life of a connection."""
    p = Picture(900, 362, "The life of a connection: stages, their time-outs, and the way back")
    stages = (
        ("link", "Wi-Fi, DHCP", "120 s"),
        ("clock", "only if it cannot", "be right: 3 x 2 s"),
        ("name", "DNS", "3 x 1 s a server"),
        ("TCP, TLS", "and CONNACK", "30 s together"),
        ("session", "subscribe, send", "again, birth"),
        ("connected", "ping after 45 s", "answers in 20 s"),
    )
    width, gap = 122, 25
    for number, (title, *lines) in enumerate(stages):
        x = 22 + number * (width + gap)
        p.box(x, 62, width, 84, title, *lines)
        if number:
            p.arrow((x - gap, 104), (x, 104))
    p.text(22, 40, "each time, also after years", kind="bold", anchor="start")
    p.text(875, 40, "meanwhile your other tasks run", kind="go", anchor="end")
    for number in (0, 2, 3, 4, 5):  # without the time the handshake is tried all the same
        x = 83 + number * (width + gap)
        p.arrow((x, 146), (x, 200), back=True)
    p.text(95, 180, "fails", kind="return", anchor="start")
    p.text(830, 180, "lost", kind="return", anchor="start")
    p.box(
        22,
        200,
        857,
        44,
        "a line in the log says what, why and what to do; event Disconnected",
        kind="secret",
    )
    p.arrow((450, 244), (450, 282), back=True)
    p.box(
        235,
        282,
        430,
        62,
        "pause",
        "random, up to 0.5 s, then twice as much each time, up to 60 s;",
        "600 s for what does not heal by itself: a password, a certificate",
        kind="plain",
    )
    p.arrow((235, 313), (10, 313), (10, 104), (22, 104), back=True)
    p.text(
        680,
        308,
        "after 5 tries that nobody",
        "answered the link is reset",
        kind="faint",
        anchor="start",
        step=16,
    )
    return p


def certificates():
    """Who signs what, and who checks it."""
    p = Picture(900, 470, "Who signs what, and who checks it")
    p.area(270, 16, 360, 132, "your PC: the authority (CA)")
    p.box(290, 56, 150, 74, "ca.key", "secret: it signs", kind="secret")
    p.box(460, 56, 150, 74, "ca.crt", "public: it shows", "what ca.key signed")
    p.area(16, 236, 300, 218, "the board")
    p.box(36, 276, 126, 66, "cert.der", "its name")
    p.box(36, 366, 126, 66, "key.der", "secret", kind="secret")
    p.box(180, 276, 118, 156, "ca.der", "whom it", "believes")
    p.area(584, 236, 300, 218, "the broker")
    p.box(738, 276, 126, 66, "broker.crt", "its names")
    p.box(738, 366, 126, 66, "broker.key", "secret", kind="secret")
    p.box(602, 276, 118, 156, "ca.crt", "whom it", "believes")
    p.arrow((330, 148), (330, 188), (135, 188), (135, 276))
    p.arrow((400, 148), (400, 204), (801, 204), (801, 276))
    p.text(232, 180, "signs", kind="go")
    p.text(640, 196, "signs", kind="go")
    p.arrow((584, 304), (316, 304))
    p.text(450, 296, "broker.crt", kind="bold")
    p.text(450, 322, "signed by that CA? for that name?", "valid today?", kind="faint", step=16)
    p.arrow((316, 384), (584, 384))
    p.text(450, 376, "cert.der", kind="bold")
    p.text(
        450,
        402,
        "signed by that CA? not revoked?",
        "its name is the user name",
        kind="faint",
        step=16,
    )
    return p


DIAGRAMS = {"message.svg": message, "connection.svg": connection, "certificates.svg": certificates}


def main():
    for name, draw in DIAGRAMS.items():
        (FOLDER / name).write_text(draw().svg(), "utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
