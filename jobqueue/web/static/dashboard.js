// Starts what a page does with scripts. Pages work without them.
import { addBoxes } from "./boxes.js";
import { showEvents } from "./events.js";
import { keepLive } from "./live.js";
import { showTimes } from "./times.js";

showTimes(document);
addBoxes(document);
setInterval(() => { if (!document.hidden) showTimes(document); }, 10000);

const main = document.getElementById("main");
const state = document.getElementById("state");
if (main.dataset.watch) keepLive(main.dataset.watch, state);
if (main.dataset.again) setTimeout(() => location.reload(), main.dataset.again * 1000);
const events = document.getElementById("events");
if (events) showEvents(events, state);

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form button:disabled")) button.disabled = false;
});
