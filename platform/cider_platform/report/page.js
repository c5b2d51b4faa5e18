"use strict";
(() => {
  const root = document.documentElement;
  document.querySelector(".theme").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Sorting: numbers by value, texts by letters, what is not there always last.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if ("sort" in cell.dataset) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    return text === "-" || text === "" ? null : text;
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), undefined, { numeric: true });
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      for (const each of heading.parentElement.cells) each.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const body = button.closest("table").tBodies[0];
      const rows = [...body.rows].map((row) => [keyOf(row, heading.cellIndex), row]);
      rows.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        return rising ? compare(one, other) : compare(other, one);
      });
      body.append(...rows.map(([, row]) => row));
    });
  }

  // A row and its curve light up together, whether by pointer or by keyboard.
  for (const section of document.querySelectorAll("section")) {
    const readout = section.querySelector(".readout");
    const light = (name) => {
      for (const each of section.querySelectorAll("[data-c]")) {
        each.classList.toggle("on", each.dataset.c === name);
      }
    };
    for (const kind of ["pointerover", "focusin"]) {
      section.addEventListener(kind, (event) => {
        const found = event.target.closest("[data-c]");
        light(found ? found.dataset.c : "");
        const told = event.target.closest("[data-say]");
        if (readout && told) readout.textContent = told.dataset.say;
      });
    }
    section.addEventListener("pointerleave", () => light(""));
  }
})();
