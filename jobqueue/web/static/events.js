// Shows events as they happen, the newest first. Busy servers have more than anybody reads: the page shows the
// last ones of each moment, and says how many it left out.
import { showTimes } from "./times.js";
import { words } from "./words.en.js";

const MOMENT = 250; // ms between two changes of the list
const ROWS = 200;

export function showEvents(part, state) {
  const body = part.querySelector("tbody");
  const [pause, said] = [part.querySelector("button"), part.querySelector("span")];
  let source, timer, waiting = [], left = 0, paused = false;

  function line(kind, event) {
    const row = document.createElement("tr");
    const add = (label, node, type = "") => {
      const cell = document.createElement("td");
      cell.dataset.label = label;
      cell.className = type;
      cell.append(node ?? "");
      row.append(cell);
    };
    const link = (to, text) => {
      if (text === undefined) return "";
      const a = document.createElement("a");
      a.href = to;
      a.textContent = text;
      return a;
    };
    const time = document.createElement("time");
    time.dateTime = time.textContent = event.at;
    add("at", time);
    add("event", kind);
    add("job", link(`jobs/${event.id}`, event.id), "n");
    add("queue", link(`queues/${encodeURIComponent(event.queue)}`, event.queue), "t");
    add("type", event.type, "t");
    add("consumer", event.consumer, "t");
    return row;
  }

  function show() {
    timer = undefined;
    if (paused) return;
    const rows = waiting.map(([kind, event]) => line(kind, event)).reverse();
    waiting = [];
    body.prepend(...rows);
    while (body.rows.length > ROWS) body.lastElementChild.remove();
    showTimes(body);
    said.textContent = left ? words.left(left) : "";
  }

  function take(message) {
    waiting.push([message.type, JSON.parse(message.data)]);
    if (waiting.length > ROWS) left += waiting.splice(0, waiting.length - ROWS).length;
    timer ??= setTimeout(show, MOMENT);
  }

  function open() {
    source = new EventSource(location.href);
    source.addEventListener("open", () => { state.textContent = words.live; });
    source.addEventListener("error", () => { state.textContent = words.offline; });
    for (const kind of part.dataset.kinds.split(",")) source.addEventListener(kind, take);
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? words.go : words.pause;
    if (!paused) show();
  });
  document.addEventListener("visibilitychange", () => {
    source?.close();
    if (!document.hidden) open();
  });
  part.hidden = false;
  if (!document.hidden) open();
}
