// Charts in SVG, drawn from arrays. A value that is null is a hole. Each chart says in words what it shows, and its values
// can be read with the pointer and with the arrow keys.

import { h, s, setAttribute, setText } from "./dom.js";
import { DASH } from "./format.js";

const MARGIN = { left: 52, right: 12, top: 10, bottom: 24 };
const TICKS = 4;

/** The smallest of 1, 2 and 5 times a power of ten that divides `most` into at most `parts`. */
export function niceStep(most, parts = TICKS) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most / parts));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => most <= step * parts * (1 + 1e-9));
}

/** The same for bytes: a nice number of the unit that fits. */
export function niceBytes(most, parts = TICKS) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(1, most)) / 10));
  return unit * Math.max(unit === 1 ? 1 : 0.05, niceStep(most / unit, parts));
}

/**
 * Lines over time. `series`: {key, name, style (a class: in, out, third), area}. `show(columns)` takes {step_s, ends_s, values}.
 * `seconds` is the span that is drawn of values by the second.
 */
export class LineChart {
  constructor({ title, series, unit, height = 200, least = 1, step = niceStep, seconds = 600 }) {
    this.title = title;
    this.series = series;
    this.unit = unit;
    this.height = height;
    this.least = least;
    this.step = step;
    this.seconds = seconds;
    this.columns = null;
    this.at = null;
    this.width = 600;
    this.grid = s("g", { class: "grid" });
    this.lines = s("g");
    this.paths = series.map(({ style, area }) => ({
      area: area ? s("path", { class: `area ${style}` }) : null,
      line: s("path", { class: `line ${style}` }),
    }));
    for (const { area, line } of this.paths) this.lines.append(...[area, line].filter(Boolean));
    this.cursor = s("line", { class: "cursor", visibility: "hidden" });
    this.svg = s("svg", { class: "chart", role: "img", tabindex: 0, height }, this.grid, this.lines, this.cursor);
    this.values = series.map(({ name, style }) => {
      const value = h("b", {}, DASH);
      return { value, item: h("li", {}, h("span", { class: `key ${style}`, "aria-hidden": "true" }), name, value) };
    });
    this.when = h("span", { class: "when" });
    this.element = h(
      "figure",
      { class: "figure" },
      h("figcaption", { class: "legend" }, h("ul", {}, ...this.values.map(({ item }) => item)), this.when),
      this.svg,
    );
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("blur", () => this.read(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(([entry]) => {
      const width = Math.max(160, Math.floor(entry.contentRect.width));
      if (width !== this.width) {
        this.width = width;
        this.draw();
      }
    }).observe(this.element);
  }

  show(columns) {
    this.columns = columns;
    this.draw();
  }

  get length() {
    return this.columns === null ? 0 : this.columns.values[this.series[0].key].length;
  }

  // The whole span is always drawn, so that the line moves in from the right and does not stretch.
  get span() {
    return this.columns.step_s === 1 ? this.seconds : 1440;
  }

  x(index) {
    const inner = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + (inner * (index + this.span - this.length)) / (this.span - 1);
  }

  draw() {
    if (this.columns === null) return;
    const { width, height, series, columns } = this;
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${height}`);
    let most = this.least;
    for (const { key } of series) for (const value of columns.values[key]) if (value > most) most = value;
    const step = this.step(most);
    const top = Math.ceil(most / step - 1e-9) * step;
    const bottom = height - MARGIN.bottom;
    const y = (value) => bottom - ((bottom - MARGIN.top) * value) / top;
    series.forEach(({ key }, number) => {
      const { line, area } = this.paths[number];
      const path = this.path(columns.values[key], y);
      line.setAttribute("d", path.line);
      area?.setAttribute("d", path.area(bottom));
    });
    this.drawGrid(top, step, y, bottom);
    this.read(this.at);
    const last = series.map(({ key, name }) => `${name} ${this.unit(columns.values[key].at(-1) ?? null)}`).join(", ");
    setAttribute(this.svg, "aria-label", `${this.title}: ${last}; highest ${this.unit(most)}. Arrow keys read earlier values.`);
  }

  path(values, y) {
    const parts = [];
    const runs = [];
    let run = null;
    values.forEach((value, index) => {
      if (value === null || value === undefined) {
        run = null;
        return;
      }
      const at = `${this.x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      if (run === null) {
        run = { first: this.x(index), last: this.x(index), points: [] };
        runs.push(run);
      }
      parts.push(`${run.points.length === 0 ? "M" : "L"}${at}`);
      run.points.push(at);
      run.last = this.x(index);
    });
    const area = (bottom) =>
      runs.map((each) => `M${each.first.toFixed(1)} ${bottom}L${each.points.join("L")}L${each.last.toFixed(1)} ${bottom}Z`).join("");
    return { line: parts.join(""), area };
  }

  drawGrid(top, step, y, bottom) {
    const { width, columns } = this;
    const drawn = [];
    for (let value = 0; value <= top + 1e-9; value += step) {
      const at = y(value).toFixed(1);
      drawn.push(s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
      drawn.push(s("text", { x: MARGIN.left - 8, y: at, dy: "0.32em", "text-anchor": "end" }, this.unit(value)));
    }
    const [most, unit, seconds] = columns.step_s === 1 ? [this.seconds, "min", 60] : [86_400, "h", 3600];
    for (const ago of [most, most / 2, 0]) {
      const at = MARGIN.left + ((width - MARGIN.left - MARGIN.right) * (most - ago)) / most;
      const anchor = ago === 0 ? "end" : ago === most ? "start" : "middle";
      drawn.push(s("text", { x: at.toFixed(1), y: bottom + 17, "text-anchor": anchor }, ago === 0 ? "now" : `${ago / seconds} ${unit} ago`));
    }
    this.grid.replaceChildren(...drawn);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const inner = this.width - MARGIN.left - MARGIN.right;
    const share = (((event.clientX - box.left) * this.width) / box.width - MARGIN.left) / inner;
    this.read(Math.round(share * (this.span - 1)) - (this.span - this.length));
  }

  onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.read((this.at ?? this.length) + step);
  }

  /** Show the values of a moment in the legend; null: the last ones. */
  read(index) {
    if (this.columns === null) return;
    const isPast = index !== null && index >= 0 && index < this.length;
    this.at = isPast ? index : null;
    const at = isPast ? index : this.length - 1;
    this.series.forEach(({ key }, number) => setText(this.values[number].value, this.unit(this.columns.values[key][at] ?? null)));
    const seconds = this.columns.ends_s - (this.length - 1 - at) * this.columns.step_s;
    setText(this.when, isPast ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : "");
    this.cursor.setAttribute("visibility", isPast ? "visible" : "hidden");
    if (isPast) {
      const x = this.x(at).toFixed(1);
      for (const [name, value] of Object.entries({ x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom })) {
        this.cursor.setAttribute(name, value);
      }
    }
  }
}

/** A small line without axes; `show(values)`. It repeats what stands beside it, and is hidden from readers of the text. */
export class Sparkline {
  constructor({ width = 96, height = 22, points = 60, style = "in" } = {}) {
    Object.assign(this, { width, height, points });
    this.line = s("path", { class: `line ${style}` });
    this.element = s(
      "svg",
      { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", preserveAspectRatio: "none" },
      this.line,
    );
  }

  show(values) {
    const most = Math.max(1e-9, ...values.map((value) => value ?? 0));
    const first = this.points - values.length;
    let isDown = false;
    const path = values.map((value, index) => {
      if (value === null) {
        isDown = false;
        return "";
      }
      const x = ((first + index) * this.width) / (this.points - 1);
      const y = this.height - 2 - ((this.height - 4) * value) / most;
      const part = `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      isDown = true;
      return part;
    });
    this.line.setAttribute("d", path.join(""));
  }
}

/** Columns of a distribution: `show(counts, labels)`. */
export class Histogram {
  constructor({ title, height = 132 }) {
    this.title = title;
    this.height = height;
    this.bars = s("g");
    this.labels = s("g", { class: "grid" });
    this.svg = s("svg", { class: "chart", role: "img", height, viewBox: `0 0 560 ${height}`, preserveAspectRatio: "none" }, this.bars);
    this.axis = h("ol", { class: "axis", "aria-hidden": "true" });
    this.element = h("div", { class: "histogram" }, this.svg, this.axis);
  }

  show(counts, labels) {
    const most = Math.max(1, ...counts);
    const step = 560 / counts.length;
    const drawn = counts.map((value, index) => {
      const height = value === 0 ? 0 : Math.max(2, ((this.height - 4) * value) / most);
      const bar = s("rect", {
        class: "bar in",
        x: (index * step + 2).toFixed(1),
        width: (step - 4).toFixed(1),
        y: (this.height - height).toFixed(1),
        height: height.toFixed(1),
        rx: 2,
      });
      bar.append(s("title", {}, `${labels[index]}: ${value}`));
      return bar;
    });
    this.bars.replaceChildren(...drawn);
    if (this.axis.childElementCount !== labels.length) this.axis.replaceChildren(...labels.map((label) => h("li", {}, label)));
    const filled = counts.map((value, index) => [value, labels[index]]).filter(([value]) => value > 0);
    const text = filled.map(([value, label]) => `${value} ${label}`).join(", ") || "none yet";
    setAttribute(this.svg, "aria-label", `${this.title}: ${text}`);
  }
}

// Widths in per cent instead of a stretched picture: round ends stay round.
function widthOf(share) {
  return `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
}

/** A bar of a list, as wide as its share; `show(share)`. */
export function bar(style) {
  const filled = s("rect", { class: `bar ${style}`, height: 8, rx: 4, width: 0 });
  const element = s("svg", { class: "share", height: 8, "aria-hidden": "true" }, filled);
  // The least bar is a dot: it is there.
  element.show = (share) => setAttribute(filled, "width", share > 0 ? widthOf(Math.max(0.025, share)) : 0);
  return element;
}

/** A meter: how much of a limit is used; `show(used, limit)`. It warns from 90 % on. */
export function meter() {
  const filled = s("rect", { class: "bar in", height: 6, rx: 3, width: 0 });
  const whole = s("rect", { class: "track", height: 6, rx: 3, width: "100%" });
  const element = s("svg", { class: "meter", height: 6, "aria-hidden": "true" }, whole, filled);
  element.show = (used, limit) => {
    const share = limit > 0 ? Math.min(1, (used ?? 0) / limit) : 0;
    setAttribute(filled, "width", widthOf(share));
    setAttribute(filled, "class", share >= 0.9 ? "bar bad" : "bar in");
  };
  return element;
}
