// The table of sessions, by pages: the server searches and sorts, so that this works for 100,000 as well as for ten.

import { h, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const PAGE_ROWS = 50;
const REFRESH_MS = 2000;

const COLUMNS = [
  { sort: "session", name: "Session", style: "num" },
  { sort: "direction", name: "Way", style: "" },
  { sort: "client", name: "Client", style: "" },
  { sort: "remote", name: "Address", style: "" },
  { sort: "peer", name: "Peer id", style: "low" },
  { sort: "shared", name: "Shares", style: "low" },
  { sort: "age", name: "Age", style: "num" },
  { sort: "rtt", name: "RTT", style: "num low" },
  { sort: "rate_in", name: "In/s", style: "num" },
  { sort: "rate_out", name: "Out/s", style: "num" },
  { sort: "messages_in", name: "Msgs in", style: "num low" },
  { sort: "messages_out", name: "Msgs out", style: "num low" },
  { sort: "worker", name: "Worker", style: "num low" },
];

function sessionRow() {
  const link = h("a");
  const cells = COLUMNS.map(({ style }) => h("td", { class: style }));
  const [session, way, client, remote, peer, shared, age, rtt, rateIn, rateOut, messagesIn, messagesOut, worker] = cells;
  session.append(link);
  client.classList.add("clip");
  remote.classList.add("mono");
  peer.classList.add("mono");
  const row = h("tr", {}, ...cells);
  row.show = (item) => {
    setText(link, item.session);
    setAttribute(link, "href", `#/session/${item.session}`);
    setText(way, item.direction === "inbound" ? "in" : "out");
    setAttribute(way, "class", `way ${item.direction === "inbound" ? "in" : "out"}`);
    setText(client, format.client(item) || (item.phase === "pending" ? `in handshake: ${item.stage}` : format.DASH));
    setAttribute(client, "title", item.client);
    setText(remote, item.remote);
    setText(peer, format.shortId(item.peer));
    setAttribute(peer, "title", item.peer);
    setText(shared, item.shared.join(" "));
    setText(age, format.age(item.opened_us));
    setText(rtt, format.milliseconds(item.rtt_ms));
    setText(rateIn, format.bytes(item.rate_in));
    setText(rateOut, format.bytes(item.rate_out));
    setText(messagesIn, format.count(item.messages_in));
    setText(messagesOut, format.count(item.messages_out));
    setText(worker, item.worker);
  };
  return row;
}

export class Sessions {
  constructor({ onQuery }) {
    this.onQuery = onQuery;
    this.query = { text: "", direction: "", phase: "", sort: "session", descending: true, offset: 0 };
    this.total = 0;
    this.timer = null;
    this.asked = 0;
    this.body = h("tbody");
    this.heads = COLUMNS.map(({ sort, name, style }) => {
      const button = h("button", { type: "button", onclick: () => this.sort(sort) }, name);
      return h("th", { scope: "col", class: style, "data-sort": sort }, button);
    });
    this.note = h("p", { class: "note", role: "status" });
    this.error = h("p", { class: "empty", role: "alert", hidden: true });
    this.previous = h("button", { type: "button", onclick: () => this.turn(-1) }, "Previous");
    this.next = h("button", { type: "button", onclick: () => this.turn(1) }, "Next");
    this.filters = [
      this.filter("direction", "Direction", [["", "Both ways"], ["inbound", "Inbound"], ["outbound", "Outbound"]]),
      this.filter("phase", "Phase", [["", "All phases"], ["active", "Active"], ["pending", "In handshake"]]),
    ];
    this.element = h(
      "div",
      { class: "page" },
      h("div", { class: "head" }, h("h1", {}, "Sessions"), ...this.filters, this.note, h("div", { class: "group", role: "group", "aria-label": "Pages of the table" }, this.previous, this.next)),
      h(
        "section",
        { class: "card" },
        h(
          "div",
          { class: "scroll" },
          h("table", { class: "sessions stack" }, h("caption", { class: "hidden" }, "Sessions"), h("thead", {}, h("tr", {}, ...this.heads)), this.body),
        ),
        this.error,
      ),
    );
  }

  filter(name, label, options) {
    const select = h("select", { "aria-label": label, onchange: () => this.ask({ [name]: select.value, offset: 0 }) });
    select.append(...options.map(([value, text]) => h("option", { value }, text)));
    select.dataset.filter = name;
    return select;
  }

  /** Begin to show, with what the address says. */
  start(parameters) {
    for (const [name, value] of parameters) if (name in this.query) this.query[name] = value;
    this.query.text = parameters.get("text") ?? "";
    this.query.offset = Math.max(0, Number.parseInt(parameters.get("offset") ?? "0", 10) || 0);
    this.query.descending = String(this.query.descending) !== "false";
    for (const select of this.filters) select.value = this.query[select.dataset.filter];
    this.refresh();
    this.timer ??= setInterval(() => this.refresh(), REFRESH_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }

  ask(change) {
    Object.assign(this.query, change);
    this.onQuery(new URLSearchParams(Object.entries(this.query).filter(([, value]) => value !== "").map(([name, value]) => [name, String(value)])));
    this.refresh();
  }

  sort(sort) {
    const isSame = this.query.sort === sort;
    this.ask({ sort, descending: isSame ? !this.query.descending : true, offset: 0 });
  }

  turn(pages) {
    const last = Math.max(0, Math.floor((this.total - 1) / PAGE_ROWS) * PAGE_ROWS);
    this.ask({ offset: Math.min(last, Math.max(0, this.query.offset + pages * PAGE_ROWS)) });
  }

  async refresh() {
    if (document.hidden) return;
    const number = ++this.asked;
    const parameters = new URLSearchParams({ ...this.query, limit: PAGE_ROWS });
    try {
      const answer = await fetch(`/api/sessions?${parameters}`);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const found = await answer.json();
      // An answer that was overtaken by a later question is not shown.
      if (number === this.asked) this.show(found);
    } catch (error) {
      if (number === this.asked) {
        this.error.hidden = false;
        setText(this.error, `The list cannot be read: ${error.message}`);
      }
    }
  }

  show({ rows, total }) {
    this.total = total;
    this.error.hidden = total > 0;
    setText(this.error, this.query.text ? `No session matches “${this.query.text}”.` : "No sessions.");
    keyed(this.body, rows, (row) => row.session, sessionRow);
    const first = total === 0 ? 0 : this.query.offset + 1;
    const matching = this.query.text ? ` that match “${this.query.text}”` : "";
    setText(this.note, `${format.count(first)} to ${format.count(this.query.offset + rows.length)} of ${format.count(total)}${matching}`);
    this.previous.disabled = this.query.offset === 0;
    this.next.disabled = this.query.offset + PAGE_ROWS >= total;
    for (const head of this.heads) {
      const isSorted = head.dataset.sort === this.query.sort;
      setAttribute(head, "aria-sort", isSorted ? (this.query.descending ? "descending" : "ascending") : "none");
    }
  }
}
