"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // Benchmarks
  byId("benchmark").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const group of all(".group")) {
      group.hidden = wanted !== "" && group.dataset.benchmark !== wanted;
    }
  });

  // Sorting: first click numbers from the top and text from A, then reversed, then as published.
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    return cell.textContent.trim() || null;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const ordered = (rows, column, sign) => {
    const keyed = rows.map((row) => [key(row, column), row]);
    const known = keyed.filter(([value]) => value !== null);
    const missing = keyed.filter(([value]) => value === null);
    known.sort(([a], [b]) => sign * compare(a, b));
    return [...known, ...missing].map(([, row]) => row);
  };
  for (const table of all("table.data")) {
    const blocks = [...table.tBodies].map((body) => ({
      body,
      title: all("tr.title", body),
      rows: all("tr:not(.title)", body),
    }));
    const mixed = table.dataset.mixed === "yes";
    const show = (column, sign) => {
      const everything = blocks.flatMap((block) => block.rows);
      for (const [number, { body, title, rows }] of blocks.entries()) {
        let shown = rows;
        if (sign !== 0 && mixed) shown = number === 0 ? ordered(everything, column, sign) : [];
        if (sign !== 0 && !mixed) shown = ordered(rows, column, sign);
        for (const row of title) row.hidden = sign !== 0 && mixed;
        body.replaceChildren(...title, ...shown);
      }
    };
    const headings = [...table.tHead.rows[0].cells];
    for (const [column, heading] of headings.entries()) {
      heading.querySelector("button").addEventListener("click", () => {
        const numeric = heading.classList.contains("number");
        const cycle = numeric
          ? { none: "descending", descending: "ascending", ascending: "none" }
          : { none: "ascending", ascending: "descending", descending: "none" };
        const next = cycle[heading.ariaSort];
        for (const other of headings) other.ariaSort = "none";
        heading.ariaSort = next;
        show(column, { none: 0, ascending: 1, descending: -1 }[next]);
      });
    }
  }

  // Copying
  const status = document.querySelector(".status");
  let fading = 0;
  const say = (text) => {
    status.textContent = text;
    status.classList.add("shown");
    clearTimeout(fading);
    fading = setTimeout(() => status.classList.remove("shown"), 2500);
  };
  const copy = async (source) => {
    try {
      await navigator.clipboard.writeText(source.value);
      return true;
    } catch {
      // Without permission, or where the page is not a secure one: the way of old browsers.
      const focused = document.activeElement;
      source.hidden = false;
      source.select();
      const done = document.execCommand("copy");
      source.hidden = true;
      focused?.focus();
      return done;
    }
  };
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.nextElementSibling);
      say(done ? `${button.dataset.format} copied` : "The browser does not allow copying");
    });
  }

  // Accuracy matrices
  const { palette, groups } = JSON.parse(byId("data").textContent);
  const dialog = byId("matrices");
  const views = byId("matrices-view");
  const table = dialog.querySelector("table");
  let current = null;
  const element = (name, text = "", attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    return made;
  };
  const line = (...cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  };
  const shade = (value, { low, high }) => {
    const last = palette.background.length - 1;
    const position = high > low ? (value - low) / (high - low) : 1;
    return Math.max(0, Math.min(last, Math.round(position * last)));
  };
  const draw = () => {
    const { group, methods } = current;
    const names = group.tasks;
    const heads = names.map((name) => element("th", name, { scope: "col" }));
    table.tHead.replaceChildren(line(element("td"), ...heads));
    const rows = methods[Number(views.value)].rows.map((values, learned) => {
      const name = learned === 0 ? "zero-shot" : names[learned - 1];
      const cells = values.map((value, task) => {
        const cell = element("td", value === null ? "" : value.toFixed(1));
        if (value !== null) {
          const place = shade(value, group);
          cell.style.background = palette.background[place];
          cell.style.color = palette.text[place];
          if (task === learned - 1) cell.className = "own";
        }
        return cell;
      });
      const known = values.some((value) => value !== null);
      return known ? line(element("th", name, { scope: "row" }), ...cells) : null;
    });
    table.tBodies[0].replaceChildren(...rows.filter((row) => row !== null));
  };
  views.addEventListener("change", draw);
  for (const button of all("button.matrix")) {
    button.addEventListener("click", () => {
      const group = groups[Number(button.dataset.group) - 1];
      const methods = group.methods[button.dataset.label];
      current = { group, methods };
      byId("matrices-title").textContent = button.dataset.label;
      views.replaceChildren(
        ...methods.map((view, number) => element("option", view.name, { value: String(number) })),
      );
      draw();
      dialog.showModal();
    });
  }
  byId("matrices-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
})();
