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
  const { palette, looks, chosen: suggested, groups } = JSON.parse(byId("data").textContent);
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
  const open = (group, label) => {
    const methods = group.methods[label];
    current = { group, methods };
    byId("matrices-title").textContent = label;
    views.replaceChildren(
      ...methods.map((view, number) => element("option", view.name, { value: String(number) })),
    );
    draw();
    dialog.showModal();
  };
  for (const button of all("button.matrix")) {
    const group = groups[Number(button.dataset.group) - 1];
    button.addEventListener("click", () => open(group, button.dataset.label));
  }
  byId("matrices-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  // Small matrices of the chosen methods: a canvas each, which opens the numbers
  const CELL = 10;
  const smallMatrix = (group, label) => {
    const { rows } = group.methods[label][0];
    const known = rows.filter((values) => values.some((value) => value !== null));
    const first = rows.length - known.length; // without a row before training it is 1
    const canvas = element("canvas", "", {
      width: String(CELL * group.tasks.length), height: String(CELL * known.length),
    });
    const paint = canvas.getContext("2d");
    for (const [row, values] of known.entries()) {
      for (const [column, value] of values.entries()) {
        if (value === null) continue;
        paint.fillStyle = palette.background[shade(value, group)];
        paint.fillRect(CELL * column, CELL * row, CELL, CELL);
      }
    }
    paint.beginPath();
    for (const column of group.tasks.keys()) {
      const y = CELL * (column + 1 - first);
      paint.lineTo(CELL * column, y);
      paint.lineTo(CELL * (column + 1), y);
    }
    for (const [colour, width] of [["white", 3], ["black", 1.4]]) {
      paint.strokeStyle = colour;
      paint.lineWidth = width;
      paint.stroke();
    }
    const button = element("button", "", { type: "button", class: "map", title: `Show the numbers of ${label}` });
    button.append(element("span", label), canvas);
    button.addEventListener("click", () => open(group, label));
    return button;
  };
  const scale = (group) => {
    const bar = element("span", "", { class: "scale" });
    bar.style.background = `linear-gradient(to right, ${palette.background.join(", ")})`;
    const line = element("p", "", { class: "note" });
    line.append(`${group.low.toFixed(0)} % `, bar, ` ${group.high.toFixed(0)} %`);
    return line;
  };

  // Figures take the colour of a series from its row
  const SVG = "http://www.w3.org/2000/svg";
  for (const series of all("svg .series")) {
    for (const part of all("[style]", series)) {
      for (const property of ["stroke", "fill"]) {
        const colour = part.style[property];
        if (colour && !["none", "rgb(255, 255, 255)", "white"].includes(colour)) {
          part.style[property] = "var(--look)";
        }
      }
    }
    if (series.classList.contains("line")) {
      series.querySelector(":scope > path").style.strokeDasharray = "var(--dash)";
    }
  }
  for (const legend of all("svg .legend-of-methods")) {
    const picture = legend.closest("svg");
    picture.viewBox.baseVal.height = legend.getBBox().y;
    for (const side of ["width", "height"]) picture.removeAttribute(side); // the box says it
    picture.dataset.legend = "yes";
    legend.classList.add("replaced"); // its glyphs are used elsewhere
  }
  const legendKey = (row) => {
    const item = element("span", "", { class: "key on" });
    const picture = document.createElementNS(SVG, "svg");
    const stroke = document.createElementNS(SVG, "path");
    stroke.setAttribute("d", "M0 4H28");
    picture.setAttribute("viewBox", "0 0 28 8");
    picture.append(stroke);
    item.append(picture, row.label);
    item.style.setProperty("--look", row.look);
    item.style.setProperty("--dash", row.dash);
    return item;
  };

  // Names beside markers: the nearest place that covers no other name or marker
  const overlap = (a, b) =>
    Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
    Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const place = (picture, rows) => {
    for (const old of all(".placed", picture)) old.remove();
    const frame = picture.viewBox.baseVal;
    const marks = all(".series.mark", picture).map((mark) => {
      const { x, y, width, height } = mark.getBBox();
      return { row: rows[Number(mark.dataset.row)], x: x + width / 2, y: y + height / 2, r: width / 2 };
    });
    const box = ({ x, y, r }) => ({ left: x - r, right: x + r, top: y - r, bottom: y + r });
    const strong = marks.filter(({ row }) => row.on);
    const faint = marks.filter(({ row }) => !row.on).map(box);
    const taken = strong.map(box);
    for (const { row, x, y, r } of strong) {
      const text = document.createElementNS(SVG, "text");
      text.setAttribute("class", "placed");
      text.textContent = row.label;
      picture.append(text);
      const width = text.getBBox().width;
      let best = null;
      for (const reach of [3, 9, 16, 25, 36, 50, 66, 84]) {
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]]) {
          const away = (r + reach) / Math.hypot(dx, dy);
          const left = x + dx * away - (dx === 0 ? width / 2 : dx < 0 ? width : 0);
          const top = y + dy * away - (dy === 0 ? 4 : dy < 0 ? 8 : 0);
          const spot = { left, right: left + width, top, bottom: top + 8 };
          const outside = left < 0 || spot.right > frame.width || top < 0 || spot.bottom > frame.height - 30;
          const covers = (boxes) => boxes.reduce((sum, other) => sum + overlap(spot, other), 0);
          const cost = 1000 * covers(taken) + covers(faint) + reach + (outside ? 1e7 : 0);
          if (best === null || cost < best.cost) best = { cost, spot, reach };
        }
      }
      text.setAttribute("x", String(best.spot.left));
      text.setAttribute("y", String(best.spot.bottom - 1.8));
      taken.push(best.spot);
      if (best.reach > 16) {
        const lead = document.createElementNS(SVG, "path");
        const end = Math.min(Math.max(x, best.spot.left), best.spot.right);
        lead.setAttribute("class", "placed");
        lead.setAttribute("d", `M${x} ${y}L${end} ${best.spot.top + 4}`);
        text.before(lead);
      }
    }
  };

  // The choice of methods
  const boxes = all(".choice .one");
  const families = all(".choice fieldset");
  const slots = groups.map(() => new Map());
  const look = (number, wanted) => {
    const taken = slots[number];
    for (const [index, row] of groups[number].rows.entries()) {
      row.on = wanted.has(row.method);
      if (!row.on) taken.delete(index);
      else if (!taken.has(index)) {
        const used = new Set(taken.values());
        taken.set(index, looks.colours.findIndex((_, slot) => !used.has(slot)));
      }
      row.look = row.on ? looks.colours.at(taken.get(index)) : "var(--faint)";
      row.dash = row.on ? looks.dashes.at(taken.get(index)) : "none";
    }
  };
  const choose = () => {
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    byId("count").textContent = `${wanted.size} of ${boxes.length}`;
    for (const family of families) {
      const checked = all(".one", family).map((box) => box.checked);
      const whole = family.querySelector(".whole");
      whole.checked = checked.every(Boolean);
      whole.indeterminate = !whole.checked && checked.some(Boolean);
    }
    for (const section of all("section[data-number]")) {
      const number = Number(section.dataset.number) - 1;
      const { rows } = groups[number];
      look(number, wanted);
      for (const part of all("[data-row]", section)) {
        const row = rows[Number(part.dataset.row)];
        part.classList.toggle("on", row.on);
        part.style.setProperty("--look", row.look);
        part.style.setProperty("--dash", row.dash);
        // What stands out lies above the others.
        if (row.on && part.matches(".line, .marks, .mark")) part.parentNode.append(part);
      }
      const shown = rows.filter((row) => row.on);
      for (const maps of all(".maps", section)) {
        const labels = shown.map((row) => row.label);
        const group = groups[number];
        maps.replaceChildren(scale(group), ...labels.map((label) => smallMatrix(group, label)));
      }
      for (const picture of all("figure svg[data-legend]", section)) {
        const figure = picture.closest("figure");
        figure.querySelector(".keys")?.remove();
        const keys = element("p", "", { class: "keys" });
        const drawn = new Set(all(".series", picture).map((part) => rows[Number(part.dataset.row)]));
        keys.append(...shown.filter((row) => drawn.has(row)).map(legendKey));
        figure.querySelector("figcaption").before(keys);
      }
      for (const picture of all("figure svg", section)) {
        if (picture.querySelector(".series.mark")) place(picture, rows);
      }
    }
  };
  const check = (picked) => {
    for (const box of boxes) box.checked = picked(box);
    choose();
  };
  const kinds = { suggested: ({ value }) => suggested.includes(value), all: () => true, none: () => false };
  for (const button of all("[data-choose]")) {
    button.addEventListener("click", () => check(kinds[button.dataset.choose]));
  }
  for (const box of boxes) box.addEventListener("change", choose);
  for (const family of families) {
    const whole = family.querySelector(".whole");
    whole.addEventListener("change", () => {
      for (const box of all(".one", family)) box.checked = whole.checked;
      choose();
    });
  }
  byId("only").addEventListener("change", ({ target }) => {
    document.body.classList.toggle("only", target.checked);
  });
  const search = byId("search");
  search.addEventListener("input", () => {
    const text = search.value.trim().toLowerCase();
    for (const family of families) {
      const whole = family.dataset.family.toLowerCase().includes(text);
      for (const member of all(".member", family)) {
        const { value } = member.querySelector(".one");
        member.hidden = !whole && !`${value} ${member.textContent}`.toLowerCase().includes(text);
      }
      family.hidden = all(".member:not([hidden])", family).length === 0;
    }
  });
  search.addEventListener("keydown", (event) => {
    const found = all(".choice fieldset:not([hidden]) .member:not([hidden]) .one");
    if (event.key === "Enter" && found.length === 1) found[0].click();
  });
  const choice = document.querySelector(".choice");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !choice.open) return;
    choice.open = false;
    choice.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => {
    if (!choice.contains(event.target)) choice.open = false;
  });
  choose();
})();
