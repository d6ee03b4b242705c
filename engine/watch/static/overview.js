// The first page: how many sessions, what they send, how they begin and end, and how the processes do.

import { Histogram, LineChart, Sparkline, bar, meter } from "./charts.js";
import { endRow } from "./ends.js";
import { h, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const SHOWN_KINDS = 12;
const SHOWN_CLIENTS = 12;
const SHOWN_ENDS = 12;
const SHOWN_HOSTS = 12;

/** A card with a heading. */
export function card(title, style, ...children) {
  return h("section", { class: `card ${style}` }, h("h2", {}, title), ...children);
}

function tile(name) {
  const value = h("strong", {}, format.DASH);
  const note = h("span", { class: "note" });
  const used = meter();
  const element = h("div", { class: "tile" }, h("span", { class: "name" }, name), value, note, used);
  return {
    element,
    show(text, words, share) {
      setText(value, text);
      setText(note, words);
      used.toggleAttribute("hidden", share === undefined);
      if (share !== undefined) used.show(...share);
    },
  };
}

/** A table whose rows are kept by key. `columns`: [heading, style] each. */
export function table(caption, columns, style = "") {
  const body = h("tbody");
  const heads = columns.map(([name, style]) => h("th", { scope: "col", class: style }, name));
  const element = h(
    "table",
    { class: style },
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, ...heads)),
    body,
  );
  return { element, body, heads };
}

function empty(text) {
  return h("p", { class: "empty" }, text);
}

export class Overview {
  constructor({ openLimits }) {
    this.tiles = {
      inbound: tile("Inbound sessions"),
      outbound: tile("Outbound sessions"),
      pending: tile("In handshake"),
      messages: tile("Messages per second"),
      traffic: tile("Traffic per second"),
      handshake: tile("Handshake, median"),
    };
    this.range = "seconds";
    this.lines = {
      sessions: new LineChart({
        title: "Sessions over time",
        unit: format.number,
        least: 4,
        series: [
          { key: "active_inbound", name: "inbound", style: "in", area: true },
          { key: "active_outbound", name: "outbound", style: "out" },
          { key: "pending", name: "in handshake", style: "third" },
        ],
      }),
      messages: new LineChart({
        title: "Messages per second",
        unit: format.number,
        least: 4,
        series: [
          { key: "messages_in", name: "in", style: "in", area: true },
          { key: "messages_out", name: "out", style: "out" },
        ],
      }),
      handshakes: new LineChart({
        title: "Handshake latency",
        unit: format.milliseconds,
        height: 150,
        least: 10,
        series: [
          { key: "handshake_p50_ms", name: "median", style: "in" },
          { key: "handshake_p99_ms", name: "99th percentile", style: "out" },
        ],
      }),
      churn: new LineChart({
        title: "Sessions opened and ended per second",
        unit: format.number,
        height: 150,
        least: 1,
        series: [
          { key: "opened", name: "opened", style: "in" },
          { key: "ended", name: "ended", style: "out" },
        ],
      }),
    };
    this.histogram = new Histogram({ title: "Handshakes of the last ten minutes by latency" });
    this.latencies = h("p", { class: "figures" });
    this.failed = h("p", { class: "note" });
    this.kinds = table("Messages per second by kind", [["Message", ""], ["In", "num"], ["Out", "num"], ["Bytes", "num low"], ["Last minute", "low"]]);
    this.kindsEmpty = empty("No messages in the last minute.");
    this.clients = h("ul", { class: "bars" });
    this.clientsEmpty = empty("No active sessions.");
    this.shared = h("p", { class: "note" });
    this.reasons = h("ul", { class: "bars" });
    this.reasonsEmpty = empty("No session has ended in the last ten minutes.");
    this.workers = table("Workers", [["Worker", ""], ["Sessions", "num"], ["Lag", "num"], ["Last minute", "low"], ["CPU", "num"], ["Memory", "num"], ["In progress, of budget", "low"]]);
    this.ends = table("The last ends", [["Time", ""], ["Session", "num"], ["Client", ""], ["Address", "low"], ["Ended", ""], ["Cause", "wide"]], "stack");
    this.endsEmpty = empty("No session has ended yet.");
    this.notices = h("ul", { class: "notices" });
    this.membership = h("p", { class: "figures" });
    this.places = h("p");
    this.unpublished = h("p", { class: "note" });
    this.fleet = card("Fleet of hosts", "full", this.membership, this.places, this.unpublished);
    this.limits = h("button", { type: "button", class: "small", onclick: openLimits, hidden: true }, "Change limits");
    this.element = this.layout();
  }

  layout() {
    const ranges = [
      ["seconds", "10 min"],
      ["minutes", "24 h"],
    ].map(([range, name]) =>
      h("button", { type: "button", "aria-pressed": range === this.range, "data-range": range, onclick: () => this.choose(range) }, name),
    );
    this.ranges = ranges;
    const head = h("div", { class: "head" }, h("h1", {}, "Overview"), h("div", { class: "group", role: "group", "aria-label": "Time span of the charts" }, ...ranges), this.limits);
    return h(
      "div",
      { class: "page" },
      head,
      h("div", { class: "tiles" }, ...Object.values(this.tiles).map(({ element }) => element)),
      h(
        "div",
        { class: "cards" },
        card("Sessions", "half", this.lines.sessions.element),
        card("Messages per second", "half", this.lines.messages.element),
        card("Messages by kind", "half", h("div", { class: "scroll" }, this.kinds.element), this.kindsEmpty),
        h("div", { class: "column" }, card("Clients", "", this.clients, this.clientsEmpty, this.shared), card("Notices", "grow", this.notices)),
        card("Handshakes", "half", this.latencies, this.histogram.element, this.failed, this.lines.handshakes.element),
        card("Ends in the last ten minutes", "half", this.reasons, this.reasonsEmpty, this.lines.churn.element),
        this.fleet,
        card("Workers", "full", h("div", { class: "scroll" }, this.workers.element)),
        card("Last ends", "full", h("div", { class: "scroll" }, this.ends.element), this.endsEmpty, h("p", {}, h("a", { href: "#/ends" }, "All recent ends"))),
      ),
    );
  }

  choose(range) {
    this.range = range;
    for (const button of this.ranges) setAttribute(button, "aria-pressed", button.dataset.range === range);
    if (this.state) this.showLines(this.state);
  }

  setControl(isAllowed) {
    this.limits.hidden = !isAllowed;
  }

  show(state) {
    this.state = state;
    this.showTiles(state);
    this.showLines(state);
    this.showKinds(state.kinds);
    this.showClients(state);
    this.showHandshakes(state.handshakes);
    this.showReasons(state.reasons);
    this.showFleet(state.engine.fleet);
    this.showWorkers(state.workers);
    const ends = state.ends.slice(0, SHOWN_ENDS);
    keyed(this.ends.body, ends, (end) => `${end.time_us} ${end.session} ${end.remote}`, endRow);
    this.ends.element.hidden = ends.length === 0;
    this.endsEmpty.hidden = ends.length > 0;
    this.showNotices(state);
  }

  showTiles({ engine, now }) {
    const { limits } = engine;
    const of = (limit) => (limit === undefined ? "" : `of ${format.count(limit)}`);
    const places = (used, limit) => [format.count(used), of(limit), [used, limit]];
    this.tiles.inbound.show(...places(engine.active_inbound, limits.max_active_inbound));
    this.tiles.outbound.show(...places(engine.active_outbound, limits.max_active_outbound));
    const pending = engine.pending_inbound + engine.pending_outbound;
    this.tiles.pending.show(format.count(pending), `${format.count(engine.pending_inbound)} in, ${format.count(engine.pending_outbound)} out`);
    const sum = (one, other) => (one === null || one === undefined ? null : one + other);
    this.tiles.messages.show(format.number(sum(now.messages_in, now.messages_out)), `${format.number(now.messages_in)} in, ${format.number(now.messages_out)} out`);
    this.tiles.traffic.show(format.bytes(sum(now.bytes_in, now.bytes_out)), `${format.bytes(now.bytes_in)} in, ${format.bytes(now.bytes_out)} out`);
    const latencies = this.state.handshakes;
    this.tiles.handshake.show(format.milliseconds(latencies.p50_ms), `99 % within ${format.milliseconds(latencies.p99_ms)}`);
  }

  showLines(state) {
    for (const line of Object.values(this.lines)) line.show(state[this.range]);
  }

  showKinds(kinds) {
    const shown = kinds.slice(0, SHOWN_KINDS);
    keyed(this.kinds.body, shown, (kind) => `${kind.capability} ${kind.message}`, kindRow);
    this.kinds.element.hidden = shown.length === 0;
    this.kindsEmpty.hidden = shown.length > 0;
  }

  showClients({ clients, shared }) {
    const rows = clients.rows.slice(0, SHOWN_CLIENTS);
    const rest = clients.rows.slice(SHOWN_CLIENTS).reduce((sum, [, , count]) => sum + count, clients.others);
    const all = clients.rows.reduce((sum, [, , count]) => sum + count, clients.others);
    const items = rows.map(([family, version, count]) => ({
      key: `${family} ${version}`,
      name: family,
      detail: version,
      count,
      share: count / all,
      style: "in",
      href: `#/sessions?text=${encodeURIComponent(version ? `${family} ${version}` : family)}`,
    }));
    if (rest > 0) items.push({ key: "others", name: "others", detail: "", count: rest, share: rest / all, style: "third" });
    keyed(this.clients, items, (item) => item.key, barRow);
    this.clientsEmpty.hidden = items.length > 0;
    setText(this.shared, shared.map(([capability, count]) => `${capability} ${format.count(count)}`).join(" · "));
  }

  showHandshakes(handshakes) {
    const { count, p50_ms, p90_ms, p99_ms, bars, limits, failed } = handshakes;
    const figure = (name, value) => `${name} ${format.milliseconds(value)}`;
    setText(this.latencies, `${format.count(count)} in ten minutes: ${figure("half within", p50_ms)}, ${figure("90 %", p90_ms)}, ${figure("99 %", p99_ms)}`);
    const labels = [...limits.map((limit) => `≤ ${limit < 1000 ? limit : `${limit / 1000} s`}`), "more"];
    this.histogram.show(bars, labels.map((label) => label.replace("≤ ", "")));
    const failures = failed.map(([stage, number]) => `${format.count(number)} at ${stage}`).join(", ");
    setText(this.failed, failures ? `Ended before they were active: ${failures}` : "None ended before it was active.");
  }

  showReasons(reasons) {
    const all = reasons.reduce((sum, [, , count]) => sum + count, 0);
    const items = reasons.slice(0, SHOWN_CLIENTS).map(([by, reason, count]) => ({
      key: `${by} ${reason}`,
      name: format.words(reason),
      detail: format.endedBy(by),
      count,
      share: count / all,
      style: by === "us" ? "in" : by === "peer" ? "out" : "third",
    }));
    keyed(this.reasons, items, (item) => item.key, barRow);
    this.reasonsEmpty.hidden = items.length > 0;
  }

  showWorkers(workers) {
    keyed(this.workers.body, workers, (worker) => worker.worker, workerRow);
  }

  /** An engine alone has no fleet. */
  showFleet(fleet) {
    this.fleet.hidden = !fleet;
    if (!fleet) return;
    const { claims } = fleet;
    const names = fleet.hosts.slice(0, SHOWN_HOSTS);
    if (names.length < fleet.hosts.length) names.push("…");
    const hosts = `${format.count(fleet.hosts.length)} hosts are there: ${names.join(", ")}`;
    const states = {
      member: hosts,
      doubtful: "other hosts may have given this one up, so it lets nobody in",
      away: `NATS has not answered for ${format.duration(fleet.away_ms / 1000)}`,
    };
    setText(this.membership, `Host ${fleet.host} of ${fleet.name}: ${states[fleet.state]}`);
    this.membership.classList.toggle("bad", fleet.state !== "member");
    const places = Object.entries(fleet.places).map(
      ([way, { leased, used, elsewhere }]) => `${way}: ${format.count(used)} of ${format.count(leased)} leased places used, ${format.count(elsewhere)} leased by no host`,
    );
    const pending = `claims: ${format.count(claims.held)} held, ${format.count(claims.in_progress)} in progress, ${format.count(claims.unsettled)} unsettled`;
    setText(this.places, [...places, pending].join(" · "));
    const waiting = `${format.count(fleet.waiting_events)} events and ${format.bytes(fleet.spooled_bytes)} on disk wait to be published`;
    const unpublished = fleet.waiting_events + fleet.spooled_bytes > 0 ? waiting : "All events are published";
    setText(this.unpublished, fleet.lost_events ? `${unpublished}, ${format.count(fleet.lost_events)} are lost` : unpublished);
  }

  showNotices({ notices, counts }) {
    const told = [
      ["missed", "events of sessions were missed"],
      ["refused", "connections were refused"],
      ["dials_failed", "dials failed"],
      ["mistakes", "mistakes of peers"],
    ].filter(([name]) => counts[name] > 0);
    const items = told.map(([name, text]) => ({ key: name, text: `${format.count(counts[name])} ${text}`, time_us: null, is_bad: name === "missed" }));
    items.push(...notices.map((notice) => ({ ...notice, key: `${notice.time_us} ${notice.text}` })));
    if (items.length === 0) items.push({ key: "none", text: "Nothing out of the ordinary since this page's server started.", time_us: null, is_bad: false });
    keyed(this.notices, items, (item) => item.key, noticeRow);
  }
}

function kindRow() {
  const cells = { name: h("td"), in: h("td", { class: "num" }), out: h("td", { class: "num" }), bytes: h("td", { class: "num low" }) };
  const spark = new Sparkline();
  const capability = h("span", { class: "muted" });
  const message = h("span");
  cells.name.append(capability, message);
  const row = h("tr", {}, cells.name, cells.in, cells.out, cells.bytes, h("td", { class: "low" }, spark.element));
  row.show = (kind) => {
    setText(capability, `${kind.capability} `);
    setText(message, kind.message);
    setText(cells.in, format.number(kind.in_per_s));
    setText(cells.out, format.number(kind.out_per_s));
    setText(cells.bytes, format.bytes(kind.bytes_in_per_s + kind.bytes_out_per_s));
    spark.show(kind.points);
  };
  return row;
}

function barRow({ href, style }) {
  const name = h(href ? "a" : "span", { class: "label", href });
  const detail = h("span", { class: "muted" });
  const value = h("b");
  const filled = bar(style);
  const row = h("li", {}, h("span", { class: "text" }, name, " ", detail), filled, value);
  row.show = (item) => {
    setText(name, item.name);
    setText(detail, item.detail);
    setText(value, format.count(item.count));
    filled.show(item.share);
  };
  return row;
}

function workerRow() {
  const cells = Object.fromEntries(["sessions", "lag", "cpu", "memory"].map((name) => [name, h("td", { class: "num" })]));
  const name = h("th", { scope: "row" });
  const spark = new Sparkline({ style: "out" });
  const used = meter();
  const budget = h("span", { class: "note" });
  const row = h("tr", {}, name, cells.sessions, cells.lag, h("td", { class: "low" }, spark.element), cells.cpu, cells.memory, h("td", { class: "low budget" }, used, budget));
  row.show = (worker) => {
    setText(name, `${worker.worker}${worker.ready ? "" : " (starting)"}`);
    setAttribute(name, "title", `pid ${worker.pid}`);
    setText(cells.sessions, format.count(worker.active) + (worker.pending ? ` + ${format.count(worker.pending)}` : ""));
    setText(cells.lag, format.milliseconds(worker.loop_lag_ms));
    setText(cells.cpu, format.percent(worker.cpu));
    setText(cells.memory, format.bytes(worker.memory_bytes));
    used.show(worker.progress_bytes, worker.progress_limit_bytes);
    setText(budget, `${format.bytes(worker.progress_bytes)} of ${format.bytes(worker.progress_limit_bytes)}`);
    spark.show(worker.lags);
  };
  return row;
}

function noticeRow() {
  const when = h("time");
  const text = h("span");
  const row = h("li", {}, when, text);
  row.show = (notice) => {
    setText(when, notice.time_us === null ? "" : format.clock(notice.time_us));
    setText(text, notice.text);
    row.className = notice.is_bad ? "bad" : "";
  };
  return row;
}
