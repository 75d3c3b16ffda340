"use strict";
// Tables sort by a click on a heading; units are tabs; the theme can be switched. Without this, all is shown.

function key(cell) {
  if (!cell) return [2, ""];
  const value = cell.dataset.v ?? cell.textContent.trim();
  if (value === "" || value === "—") return [2, ""];
  const number = value === "inf" ? Infinity : value === "-inf" ? -Infinity : Number(value);
  return Number.isNaN(number) ? [1, value.toLowerCase()] : [0, number];
}

function compare(a, b, sign) {
  if (a[0] !== b[0]) return a[0] === 2 ? 1 : b[0] === 2 ? -1 : a[0] - b[0]; // what is absent comes last
  return sign * (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);
}

function sort(heading) {
  const table = heading.closest("table"), body = table.tBodies[0];
  const headings = [...heading.parentNode.children], column = headings.indexOf(heading);
  const up = heading.getAttribute("aria-sort") !== "ascending";
  headings.forEach(h => h.hasAttribute("aria-sort") && h.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].map(row => [key(row.cells[column]), row]);
  rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1));
  body.append(...rows.map(pair => pair[1]));
}

function select(tab, focus) {
  const tabs = [...tab.parentNode.children];
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
}

for (const button of document.querySelectorAll("table.sortable thead button"))
  button.addEventListener("click", () => sort(button.closest("th")));

for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.children];
  select(tabs[0], false);
  tabs.forEach((tab, k) => {
    tab.addEventListener("click", () => select(tab, false));
    tab.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); select(tabs[(k + step + tabs.length) % tabs.length], true); }
    });
  });
}

const root = document.documentElement, store = "report-theme";
try { if (localStorage.getItem(store)) root.dataset.theme = localStorage.getItem(store); } catch { /* no storage: not kept */ }
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem(store, root.dataset.theme); } catch { /* no storage: not kept */ }
});

// A link into a fold opens it, and so does printing.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(fold => { fold.dataset.was = fold.open; fold.open = true; }));
addEventListener("afterprint", () => document.querySelectorAll("details").forEach(fold => { fold.open = fold.dataset.was === "true"; }));
