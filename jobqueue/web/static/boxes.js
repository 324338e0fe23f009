// Adds to each list with boxes one that selects all of them, and says how many are selected.
import { words } from "./words.en.js";

const boxesIn = (table) => [...table.querySelectorAll("td.c input")];

function count(table) {
  const form = table.querySelector("td.c input").form;
  const chosen = boxesIn(table).filter((box) => box.checked).length;
  form.querySelector("span").textContent = chosen ? words.selected(chosen) : words.none;
}

export function addBoxes(root) {
  for (const head of root.querySelectorAll("th.c")) {
    const table = head.closest("table");
    const all = document.createElement("input");
    all.type = "checkbox";
    all.setAttribute("aria-label", words.all);
    all.addEventListener("change", () => {
      for (const box of boxesIn(table)) box.checked = all.checked;
      count(table);
    });
    table.addEventListener("change", (event) => {
      if (event.target === all) return;
      all.checked = boxesIn(table).every((box) => box.checked);
      count(table);
    });
    head.replaceChildren(all);
    count(table);
  }
}
