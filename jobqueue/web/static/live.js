// Keeps the live parts of a page up to date: one connection a page, closed while the page is hidden.
// The server says that something has changed; the page is then fetched, and its live parts are replaced.
import { addBoxes } from "./boxes.js";
import { showTimes } from "./times.js";
import { words } from "./words.en.js";

const QUIET = 2000; // ms between two refreshes
const AGAIN = 5000; // ms until a connection that was refused is tried again
// The one place where text becomes HTML. It comes from this server, which escapes all values.
const policy = globalThis.trustedTypes?.createPolicy("jobqueue", { createHTML: (text) => text });

function inUse(part) {
  const chosen = getSelection();
  if (!chosen.isCollapsed && part.contains(chosen.anchorNode)) return true;
  if (part.contains(document.activeElement)) return true;
  return [...part.querySelectorAll("input, textarea, option")].some((one) => {
    if (one.tagName === "OPTION") return one.selected !== one.defaultSelected;
    // The value of a box says nothing, and has no default if a script has made it.
    return one.type === "checkbox" ? one.checked !== one.defaultChecked : one.value !== one.defaultValue;
  });
}

function replace(part, fresh) {
  if (inUse(part)) return;
  const open = new Set([...part.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  part.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  for (const summary of part.querySelectorAll("details > summary")) {
    summary.parentElement.open = open.has(summary.textContent);
  }
  showTimes(part);
  addBoxes(part);
}

export function keepLive(address, state) {
  let source, timer, retry, busy = false, due = false, last = 0;

  // The first refresh after a connection does not delay the one after it.
  async function refresh(quiet) {
    timer = undefined;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401) location.reload(); // the session has ended
      else if (answer.ok) {
        const text = await answer.text();
        const page = new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const fresh = page.getElementById(part.id);
          if (fresh) replace(part, fresh);
        }
      }
    } catch {
      state.textContent = words.offline;
    }
    busy = false;
    last = quiet ? Date.now() : 0;
    if (due) changed();
  }

  function changed() {
    due = busy; // what changes while the page is fetched may not be in it
    if (timer || busy || document.hidden) return;
    timer = setTimeout(refresh, Math.max(0, last + QUIET - Date.now()), true);
  }

  function open() {
    clearTimeout(retry);
    source?.close();
    source = new EventSource(address);
    source.addEventListener("open", () => { state.textContent = words.live; if (!timer && !busy) refresh(false); });
    source.addEventListener("changed", changed);
    source.addEventListener("error", () => {
      state.textContent = words.offline;
      if (source.readyState !== EventSource.CLOSED) return;
      retry = setTimeout(open, AGAIN);
      if (!busy) refresh(true); // tells an ended session from a server that is away
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(retry);
      source?.close();
    } else open();
  });
  if (!document.hidden) open();
}
