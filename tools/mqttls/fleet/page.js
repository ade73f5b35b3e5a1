"use strict";

// What a board says is text here, and nothing else: textContent, never HTML.

const ROW = 28; // pixels, as in page.css
const MARGIN = 10; // rows above and below what is seen
const POLL_MS = 2000;
const WHOLE = 30; // polls: then all is asked for anew, as what needs somebody changes with time

const byId = (id) => document.getElementById(id);
const view = byId("view");

function ago(seconds) {
  if (seconds === null) return "?";
  const gone = Math.max(now - seconds, 0);
  for (const [unit, most, size] of [["s", 120, 1], ["min", 7200, 60], ["h", 172800, 3600]]) {
    if (gone < most) return `${Math.floor(gone / size)} ${unit}`;
  }
  return `${Math.floor(gone / 86400)} d`;
}

const plain = (value) => (value === null ? "" : String(value));
const kb = (value) => (value === null ? "" : (value / 1024).toFixed(0));
const STATES = new Map([[true, ["online", "good"]], [false, ["offline", "bad"]], [null, ["?", "dim"]]]);

// [title, what it is sorted by, text, class]
const COLUMNS = [
  ["Name", (b) => b.name, (b) => b.name],
  ["State", (b) => plain(b.online), (b) => STATES.get(b.online)[0], (b) => STATES.get(b.online)[1]],
  ["Since", (b) => b.since, (b) => ago(b.since)],
  ["Look at", (b) => b.needs.length, (b) => b.needs.join("; "), () => "bad"],
  ["Last error", (b) => b.error, (b) => [b.error, b.means].filter(Boolean).join(": ")],
  ["Version", (b) => b.package, (b) => plain(b.package)],
  ["dBm", (b) => b.rssi, (b) => plain(b.rssi), () => "number"],
  ["Free KB", (b) => b.mem_free, (b) => kb(b.mem_free), () => "number"],
  ["Block KB", (b) => b.mem_block, (b) => kb(b.mem_block), () => "number"],
  ["Waits", (b) => b.queue, (b) => plain(b.queue), () => "number"],
  ["Connects", (b) => b.connects, (b) => plain(b.connects), () => "number"],
  ["Offline s", (b) => b.outage_s, (b) => plain(b.outage_s), () => "number"],
  ["Cert. days", (b) => b.days, (b) => plain(b.days), () => "number"],
  ["Report", (b) => b.heard, (b) => ago(b.heard)],
  ["Firmware", (b) => b.firmware, (b) => plain(b.firmware)],
  ["Board", (b) => b.machine, (b) => plain(b.machine)],
];

const boards = new Map(); // name: row
let run = "", changes = 0, polls = 0, now = 0;
let by = null, down = false; // column, or null: as the server has sorted them
let shown = [];

function compare(a, b) {
  if (typeof a === "string" || typeof b === "string") {
    return plain(a).localeCompare(plain(b), "en", { numeric: true });
  }
  return a - b;
}

function choose() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = [...boards.values()];
  if (words.length) {
    shown = shown.filter((board) => {
      const text = COLUMNS.map((column) => column[2](board)).join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }
  if (by === null) {
    shown.sort((a, b) => b.needs.length - a.needs.length || compare(a.name, b.name));
    shown.sort((a, b) => (a.online === false ? 0 : 1) - (b.online === false ? 0 : 1));
  } else {
    const key = COLUMNS[by][1];
    const known = shown.filter((board) => key(board) !== null);
    known.sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)));
    shown = known.concat(shown.filter((board) => key(board) === null));
  }
}

function draw() {
  const first = Math.max(Math.floor(view.scrollTop / ROW) - MARGIN, 0);
  const count = Math.ceil(view.clientHeight / ROW) + 2 * MARGIN;
  const some = shown.slice(first, first + count);
  const body = document.createDocumentFragment();
  for (const board of some) {
    const line = document.createElement("tr");
    for (const [, , text, kind] of COLUMNS) {
      const cell = document.createElement("td");
      cell.textContent = cell.title = text(board);
      if (kind) cell.className = kind(board);
      line.append(cell);
    }
    body.append(line);
  }
  byId("rows").replaceChildren(body);
  byId("above").firstElementChild.firstElementChild.style.height = `${first * ROW}px`;
  const rest = Math.max(shown.length - first - some.length, 0);
  byId("below").firstElementChild.firstElementChild.style.height = `${rest * ROW}px`;
}

function heads() {
  byId("heads").replaceChildren(
    ...COLUMNS.map(([title, , , kind], at) => {
      const head = document.createElement("th");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title + (by === at ? (down ? " ▼" : " ▲") : "");
      if (kind && kind(EMPTY) === "number") head.className = "number";
      if (by === at) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      button.addEventListener("click", () => {
        [by, down] = by !== at ? [at, false] : down ? [null, false] : [at, true];
        heads();
        choose();
        draw();
        byId("heads").children[at].firstElementChild.focus();
      });
      head.append(button);
      return head;
    }),
  );
}
const EMPTY = { online: null };

function tell(said) {
  let online = 0, offline = 0, look = 0;
  for (const board of boards.values()) {
    if (board.online) online++;
    if (board.online === false) offline++;
    if (board.needs.length) look++;
  }
  const summary = byId("summary");
  summary.textContent =
    `${boards.size} ${boards.size === 1 ? "board" : "boards"}, ${online} online, ${offline} offline, ${look} to look at` +
    (shown.length < boards.size ? `; ${shown.length} found` : "") +
    (said.ignored ? `; ${said.ignored} messages ignored` : "") +
    (said.connected ? "" : "; NOT CONNECTED TO THE BROKER");
  summary.className = said.connected ? "" : "bad";
}

let last = { ignored: 0, connected: true };

async function poll() {
  try {
    const whole = polls++ % WHOLE === 0 ? "" : `?run=${run}&after=${changes}`;
    const said = await (await fetch(`boards.json${whole}`)).json();
    if (said.whole) boards.clear();
    for (const board of said.boards) boards.set(board.name, board);
    if (said.names !== boards.size) polls = 0; // some are gone
    ({ run, changes, now } = said);
    last = said;
    choose();
    draw();
    tell(said);
  } catch {
    byId("summary").textContent = "mqttls fleet does not answer: was it ended?";
    byId("summary").className = "bad";
    polls = 0;
  }
  setTimeout(poll, POLL_MS);
}

view.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", draw);
byId("search").addEventListener("input", () => {
  view.scrollTop = 0;
  choose();
  draw();
  tell(last);
});
heads();
poll();
