"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLUMNS = 64, ROW = 26, GAP = 16, TOP = 4, STRIPE = 7;
  const STATES = data.states;
  const hex = (n) => "0x" + n.toString(16);
  const esc = (s) => String(s).replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");

  // The largest unit that shows a size exactly, with three decimals at most: an address is no estimate.
  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let i = 0;
    while (bytes >= 1024 && i < units.length - 1 && Number.isInteger(bytes / 1024 * 1000)) { bytes /= 1024; i += 1; }
    return bytes + " " + units[i];
  }

  // The most severe state, else that of most pages; as in report/tiles.py.
  function shown(tile) {
    const last = tile[0][tile[0].length - 1];
    if (last[0] >= data.severe) return last[0];
    return tile[0].reduce((a, b) => (b[1] >= a[1] ? b : a))[0];
  }

  function rowName(row) {
    const last = row[0] + row[1] * row[2] - 1;
    return last === row[0] ? "memory" + row[0] : "memory" + row[0] + "–" + last;
  }

  // Of more than two names that are too long for their place, the first and the last one.
  function short(text, most) {
    const names = text.split(/, | \+ /);
    return text.length <= most || names.length < 3 ? text : names[0] + " … " + names[names.length - 1];
  }

  const pen = document.createElement("canvas").getContext("2d");
  function width(texts, pixels) {
    pen.font = `${pixels}px system-ui, "DejaVu Sans", sans-serif`;
    return Math.max(...texts.map((text) => pen.measureText(text).width));
  }

  class TileMap {
    constructor(group, trace, box, jump) {
      Object.assign(this, { group, trace, box, jump, step: 0, cursor: null });
      this.svg = box.querySelector("svg");
      this.tip = box.querySelector(".tip");
      this.rows = [];
      let y = TOP, end = null;
      for (const [index, row] of group.rows.entries()) {
        if (end !== null && row[0] > end) y += GAP;
        this.rows.push({ row, index, y, gap: end !== null && row[0] > end ? [end, row[0]] : null });
        end = row[0] + row[1] * row[2];
        y += ROW;
      }
      this.height = y;
      this.svg.addEventListener("pointermove", (e) => this.point(e));
      this.svg.addEventListener("pointerleave", () => this.leave());
      this.svg.addEventListener("click", (e) => { this.point(e); this.follow(); });
      this.svg.addEventListener("keydown", (e) => this.key(e));
      this.svg.addEventListener("blur", () => this.leave());
      new ResizeObserver(() => this.draw()).observe(box);
    }

    show(step) { this.step = step; this.draw(); }

    tiles(index) {
      const made = [];
      for (const [nr, tile] of this.group.patterns[this.trace.cells[this.step][index][0]]) {
        for (let i = 0; i < nr; i += 1) made.push(tile);
      }
      return made;
    }

    draw() {
      const full = this.box.clientWidth;
      if (!full) return;
      const wide = full > 480;
      const labels = this.rows.map(({ row, index }) => this.labels(row, index, wide));
      const widest = (large, small) => Math.max(width(labels.map((label) => label[large]), 11), width(labels.map((label) => label[small]), 9.5));
      this.left = 10 + STRIPE + Math.max(widest("name", "start"), width(["first byte"], 9.5));
      this.right = 8 + STRIPE + Math.max(widest("zone", "place"), width(["zone, node"], 9.5));
      this.unit = (full - this.left - this.right) / COLUMNS;
      const parts = [];
      for (const { row, index, y, gap } of this.rows) {
        if (gap) {
          const bytes = (gap[1] - gap[0]) * this.group.block_bytes;
          parts.push(`<text class="small" x="${this.left}" y="${y - 4}">⋮ ${size(bytes)} without memory blocks</text>`);
        }
        const label = labels[index];
        const edge = full - this.right + 5;
        parts.push(`<text x="0" y="${y + 11}">${esc(label.name)}</text>`);
        parts.push(`<text class="small" x="0" y="${y + 21}">${esc(label.start)}</text>`);
        parts.push(`<text x="${edge + STRIPE}" y="${y + 11}">${esc(label.zone)}</text>`);
        parts.push(`<text class="small" x="${edge + STRIPE}" y="${y + 21}">${esc(label.place)}</text>`);
        this.row(parts, this.trace.cells[this.step][index][0], y);
        this.stripe(parts, data.zone_fills[label.facts[4]] || [], this.left - STRIPE - 2, y);
        if (this.group.several_nodes) {
          const colours = label.facts[2].split(" ").filter(Boolean).map((node) => data.node_colours[node % data.node_colours.length]);
          this.stripe(parts, colours, edge - 3, y);
        }
      }
      this.axis(parts, wide);
      if (this.cursor) {
        const [index, column] = this.cursor;
        const x = this.left + column * this.unit;
        parts.push(`<rect x="${x - 1}" y="${this.rows[index].y - 1}" width="${this.unit + 2}" height="${ROW - 2}" fill="none" stroke="var(--text)" stroke-width="2"/>`);
      }
      const height = this.height + 34;
      this.svg.setAttribute("viewBox", `0 0 ${full} ${height}`);
      this.svg.setAttribute("height", height);
      this.svg.innerHTML = parts.join("");
    }

    labels(row, index, wide) {
      const facts = this.group.facts[this.trace.cells[this.step][index][1]];
      const most = wide ? 24 : 8;
      const alike = row[2] * row[1] > 1 ? `, ${row[2] * row[1]} blocks` : "";
      const start = size(row[0] * this.group.block_bytes);
      const owners = wide && facts[3] ? short(facts[3], most) : "";
      return {
        facts,
        name: wide ? rowName(row) : rowName(row).replace("memory", ""),
        start: wide ? "at " + start + alike : start,
        zone: short(facts[1] || facts[0], most),
        place: [facts[2] === "" ? "" : "node " + short(facts[2].replaceAll(" ", ", "), 6), owners].filter(Boolean).join(" · "),
      };
    }

    stripe(parts, fills, x, y) {
      const tall = (ROW - 4) / fills.length;
      for (const [n, fill] of fills.entries()) {
        parts.push(`<rect x="${x}" y="${y + n * tall}" width="${STRIPE}" height="${tall}" fill="${fill}"/>`);
      }
    }

    row(parts, pattern, y) {
      const tall = ROW - 4;
      let column = 0;
      for (const [nr, number] of this.group.patterns[pattern]) {
        const tile = this.group.tiles[number];
        const x = this.left + column * this.unit, w = nr * this.unit;
        const state = shown(tile);
        let top = y;
        const total = tile[0].reduce((sum, item) => sum + item[1], 0);
        // A severe state fills its tile; else each state has its share of the height.
        const items = state >= data.severe ? [[state, total]] : tile[0];
        for (const [each, pages] of items) {
          const h = tall * pages / total;
          parts.push(`<rect x="${x.toFixed(2)}" y="${top.toFixed(2)}" width="${w.toFixed(2)}" height="${h.toFixed(2)}" fill="${STATES[each].colour}"/>`);
          if (STATES[each].pattern !== "plain") {
            parts.push(`<rect x="${x.toFixed(2)}" y="${top.toFixed(2)}" width="${w.toFixed(2)}" height="${h.toFixed(2)}" fill="url(#${STATES[each].pattern})"/>`);
          }
          top += h;
        }
        if (tile[1]) {
          parts.push(`<line x1="${x}" x2="${x + w}" y1="${y + tall - 1.5}" y2="${y + tall - 1.5}" stroke="#d55e00" stroke-width="3" stroke-dasharray="4 2"/>`);
        }
        if (STATES[state].letter && w >= 9) {
          parts.push(`<text class="letter ${STATES[state].ink}" x="${x + w / 2}" y="${y + 15}" text-anchor="middle" stroke="${STATES[state].colour}">${STATES[state].letter}</text>`);
        }
        column += nr;
      }
      parts.push(`<rect x="${this.left}" y="${y}" width="${COLUMNS * this.unit}" height="${tall}" fill="none" stroke="var(--line)"/>`);
    }

    axis(parts, wide) {
      const y = this.height + 2, span = this.group.tile_bytes * COLUMNS;
      const unit = span >= 64 * 2 ** 30 ? ["GiB", 2 ** 30] : ["MiB", 2 ** 20];
      for (const part of [0, 0.25, 0.5, 0.75, 1]) {
        const x = this.left + part * COLUMNS * this.unit;
        parts.push(`<line x1="${x}" x2="${x}" y1="${y - 3}" y2="${y + 2}" stroke="var(--soft)"/>`);
        parts.push(`<text class="small" x="${x}" y="${y + 12}" text-anchor="middle">${+(part * span / unit[1]).toFixed(2)}</text>`);
      }
      parts.push(`<text class="small" x="${this.left + 32 * this.unit}" y="${y + 25}" text-anchor="middle">offset in the row, ${unit[0]}${wide ? "; one tile is " + size(this.group.tile_bytes) : ""}</text>`);
      parts.push(`<text class="small" x="0" y="${y + 12}">block,</text><text class="small" x="0" y="${y + 24}">first byte</text>`);
      parts.push(`<text class="small" x="${this.box.clientWidth - this.right + 5 + STRIPE}" y="${y + 24}">zone, node</text>`);
    }

    point(event) {
      const box = this.svg.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top;
      const column = Math.floor((x - this.left) / this.unit);
      const found = this.rows.find((row) => y >= row.y && y < row.y + ROW - 2);
      if (!found || column < 0 || column >= COLUMNS) { this.leave(); return; }
      this.select(found.index, column);
    }

    select(index, column) {
      this.cursor = [index, column];
      this.draw();
      const { y } = this.rows[index];
      this.tip.textContent = this.describe(index, column);
      this.tip.hidden = false;
      const x = this.left + column * this.unit;
      const space = this.box.clientWidth - this.tip.offsetWidth;
      this.tip.style.left = Math.max(0, Math.min(space, x - 20)) + "px";
      this.tip.style.top = y + ROW + 2 + "px";
    }

    range(index, column) {
      const start = this.group.rows[index][0] * this.group.block_pages + column * this.group.tile_pages;
      return [start, start + this.group.tile_pages];
    }

    describe(index, column) {
      const row = this.group.rows[index];
      const [, fact] = this.trace.cells[this.step][index];
      const [state, zones, nodes, owners] = this.group.facts[fact];
      const tile = this.group.tiles[this.tiles(index)[column]];
      const [start, end] = this.range(index, column);
      const lines = [
        `${rowName(row)} (${state || "no block"})` + (row[2] > 1 ? `, ${row[2]} alike: pages at this place in all of them; the first is` : ""),
        `pfn [${hex(start)}, ${hex(end)}), from ${hex(start * this.group.page_bytes)}`,
        ...tile[0].map(([each, pages]) => `${STATES[each].name}: ${pages} pages – ${STATES[each].meaning}`),
      ];
      if (tile[1]) lines.push(`${tile[1]} of these pages are not backed`);
      lines.push(`zone ${zones || "none"}, node ${nodes || "none"}, owner ${owners || "unknown"}`);
      lines.push(this.event(index, column) ? "Click or Enter: go to its event" : "No event");
      return lines.join("\n");
    }

    event(index, column) {
      const row = this.group.rows[index];
      const per = row[1] * this.group.block_pages;
      const [start, end] = this.range(index, column);
      let best = null;
      for (const [step, id, runs] of this.trace.events) {
        if (step > this.step) break;
        for (const [from, to] of runs) {
          for (let i = 0; i < Math.min(row[2], 64); i += 1) {
            if (from < end + i * per && start + i * per < to) best = id;
          }
        }
      }
      return best;
    }

    follow() {
      const id = this.cursor && this.event(...this.cursor);
      if (id) this.jump(id);
    }

    key(event) {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (event.key === "Enter") { this.follow(); event.preventDefault(); return; }
      if (event.key === "Escape") { this.leave(); return; }
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const [index, column] = this.cursor || [this.rows.length - 1, move[1] < 0 ? 1 : -1];
      if (!this.cursor) { this.select(index, 0); return; }
      this.select(
        Math.max(0, Math.min(this.rows.length - 1, index + move[0])),
        Math.max(0, Math.min(COLUMNS - 1, column + move[1])),
      );
    }

    leave() {
      if (!this.cursor) return;
      this.cursor = null;
      this.tip.hidden = true;
      this.draw();
    }
  }

  function jump(id) {
    const item = document.getElementById(id);
    const steps = item.closest("details");
    if (steps) steps.open = true;
    item.focus();
    item.scrollIntoView({ block: "center" });
    item.classList.add("flash");
    setTimeout(() => item.classList.remove("flash"), 1500);
  }

  for (const section of document.querySelectorAll("section.group")) {
    const group = data.groups[Number(section.dataset.group)];
    const slider = section.querySelector("input[type=range]");
    const output = section.querySelector("output");
    const maps = [...section.querySelectorAll(".map")].map(
      (box) => new TileMap(group, group.traces[Number(box.dataset.trace)], box, jump),
    );
    const show = () => {
      const step = Number(slider.value);
      output.textContent = `Step ${step} of ${group.steps.length - 1}: ${group.steps[step]}`;
      slider.setAttribute("aria-valuetext", output.textContent);
      for (const map of maps) map.show(step);
      for (const item of section.querySelectorAll("[data-steps]")) {
        item.hidden = !item.dataset.steps.split(" ").includes(String(step));
      }
      for (const item of section.querySelectorAll("li[data-step]")) {
        item.classList.toggle("now", Number(item.dataset.step) === step);
      }
    };
    const move = (by) => {
      slider.value = String(Number(slider.value) + by);
      show();
    };
    slider.addEventListener("input", show);
    section.querySelector(".back").addEventListener("click", () => move(-1));
    section.querySelector(".on").addEventListener("click", () => move(1));
    for (const button of section.querySelectorAll("button[data-goto]")) {
      button.addEventListener("click", () => {
        slider.value = button.dataset.goto;
        show();
      });
    }
    show();
  }
})();
