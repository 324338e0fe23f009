// Shows instants as times relative to now, with the instant in a tooltip.
import { words } from "./words.en.js";

const relative = new Intl.RelativeTimeFormat(words.locale, { numeric: "auto" });
const full = new Intl.DateTimeFormat(words.locale, { dateStyle: "full", timeStyle: "long" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function since(seconds) {
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return relative.format(Math.trunc(seconds), "second");
}

export function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const instant = new Date(time.dateTime);
    if (Number.isNaN(instant.getTime())) continue;
    time.title = `${time.dateTime} (${full.format(instant)})`;
    time.textContent = since((instant - Date.now()) / 1000);
  }
}
