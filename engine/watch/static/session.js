// One session: what the peer announced, its traffic, its requests, and its messages as they pass, decoded.

import { LineChart, niceBytes } from "./charts.js";
import { ask, command } from "./control.js";
import { h, keyed, setAttribute, setText } from "./dom.js";
import { card } from "./overview.js";
import * as format from "./format.js";

const KEPT_MESSAGES = 300;
const KEPT_REQUESTS = 50;
const SPAN = 120;
const REASONS = ["disconnect_requested", "too_many_peers", "useless_peer", "incompatible_version", "client_quitting"];

function facts() {
  const list = h("dl", { class: "facts" });
  const shown = new Map();
  list.show = (pairs) => {
    for (const [name, value, style] of pairs) {
      let item = shown.get(name);
      if (item === undefined) {
        item = h("dd", { class: style ?? "" });
        shown.set(name, item);
        list.append(h("div", {}, h("dt", {}, name), item));
      }
      setText(item, value);
    }
  };
  return list;
}

export class Session {
  constructor(number) {
    this.number = number;
    this.isAllowed = false;
    this.isPaused = false;
    this.before = null;
    this.columns = { step_s: 1, ends_s: 0, values: { in: [], out: [] } };
    this.messages = [];
    this.requests = [];
    this.lost = 0;
    this.omitted = 0;
    this.title = h("h1", {}, `Session ${number}`);
    this.client = h("p", { class: "subtitle" });
    this.phase = h("span", { class: "pill" });
    this.actions = h(
      "div",
      { class: "group", role: "group", "aria-label": "Control", hidden: true },
      h("button", { type: "button", onclick: () => this.disconnect() }, "Disconnect"),
      h("button", { type: "button", onclick: () => this.ban() }, "Ban"),
    );
    this.end = h("p", { class: "ended", hidden: true });
    this.announced = facts();
    this.state = facts();
    this.traffic = new LineChart({
      title: "Traffic of this session per second",
      unit: format.bytes,
      height: 170,
      least: 1024,
      step: niceBytes,
      seconds: SPAN,
      series: [
        { key: "in", name: "in", style: "in", area: true },
        { key: "out", name: "out", style: "out" },
      ],
    });
    this.requestBody = h("tbody");
    this.requestsEmpty = h("p", { class: "empty" }, "No request has been seen since this page was opened.");
    this.list = h("ol", { class: "tap", "aria-label": "Messages, the latest first" });
    this.tapNote = h("p", { class: "note" }, "Waiting for messages.");
    this.pause = h("button", { type: "button", class: "small", "aria-pressed": false, onclick: () => this.togglePause() }, "Pause");
    this.only = h("input", { type: "search", class: "small", placeholder: "Filter by name", "aria-label": "Show only messages whose name contains this", oninput: () => this.showMessages() });
    this.element = this.layout();
  }

  layout() {
    const heads = [["Request", ""], ["From", ""], ["Answer", ""], ["After", "num"], ["Size", "num"]];
    this.requestTable = h(
      "table",
      { hidden: true },
      h("caption", { class: "hidden" }, "Requests"),
      h("thead", {}, h("tr", {}, ...heads.map(([name, style]) => h("th", { scope: "col", class: style }, name)))),
      this.requestBody,
    );
    return h(
      "div",
      { class: "page" },
      h("p", { class: "crumb" }, h("a", { href: "#/sessions" }, "Sessions"), " / ", String(this.number)),
      h("div", { class: "head" }, h("div", { class: "titles" }, this.title, this.client), this.phase, this.actions),
      this.end,
      h(
        "div",
        { class: "cards" },
        card("Announced", "half", this.announced),
        card("Now", "half", this.state),
        card("Traffic", "half", this.traffic.element),
        card("Requests", "half", h("div", { class: "scroll short" }, this.requestTable), this.requestsEmpty),
        card("Messages as they pass", "full", h("div", { class: "tools" }, this.pause, this.only, this.tapNote), this.list),
      ),
    );
  }

  setControl(isAllowed) {
    this.isAllowed = isAllowed;
    this.showActions();
  }

  showActions() {
    this.actions.hidden = !(this.isAllowed && this.session);
  }

  /** Take {session, end, error} of the stream. */
  show({ session, end, error }) {
    this.session = session;
    this.showActions();
    if (session === null) {
      setText(this.phase, end ? "ended" : "unknown");
      setAttribute(this.phase, "data-phase", "ended");
      this.end.hidden = false;
      if (end) {
        setText(this.client, end.client || "client not known");
        setText(this.end, `Ended at ${format.clock(end.time_us)} ${format.endedBy(end.ended_by)} (${format.words(end.reason)}), at ${end.stage}, after ${format.duration(end.duration_ms / 1000)}: ${end.cause}`);
        this.announced.show([["Peer id", end.peer || format.DASH, "mono break"], ["Address", end.remote, "mono"], ["Direction", end.direction]]);
        this.state.show([["Bytes in", format.bytes(end.bytes_in)], ["Bytes out", format.bytes(end.bytes_out)], ["Messages in", format.count(end.messages_in)], ["Messages out", format.count(end.messages_out)]]);
      } else {
        setText(this.end, error ?? "This session is not known.");
      }
      return;
    }
    this.end.hidden = true;
    setText(this.client, session.client ?? "in handshake");
    setText(this.phase, session.phase === "active" ? "active" : `handshake: ${session.stage}`);
    setAttribute(this.phase, "data-phase", session.phase);
    this.showFacts(session);
    this.showTraffic(session);
  }

  showFacts(session) {
    const { chain } = session;
    const range = chain && chain.latest !== null ? `${format.count(chain.earliest)} to ${format.count(chain.latest)}` : format.DASH;
    this.announced.show([
      ["Client", session.client ?? format.DASH, "break"],
      ["Capabilities", session.capabilities.join(" ") || format.DASH],
      ["Shared", session.shared.join(" ") || format.DASH],
      ["Network", chain ? String(chain.network_id) : format.DASH],
      ["Fork id", chain ? `${chain.fork_hash}, next ${chain.fork_next}` : format.DASH, "mono"],
      ["Blocks", range],
      ["Head", chain ? chain.head : format.DASH, "mono break"],
      ["Genesis", chain ? chain.genesis : format.DASH, "mono break"],
      ["Peer id", session.peer ?? format.DASH, "mono break"],
      ["Enode", session.enode ?? "cannot be dialled", "mono break"],
    ]);
    this.state.show([
      ["Direction", session.direction],
      ["Address", session.remote, "mono"],
      ["Our address", session.local ?? format.DASH, "mono"],
      ["Worker", String(session.worker)],
      ["Age", format.age(session.opened_us)],
      ["Handshake", session.established_us === null ? format.DASH : format.milliseconds((session.established_us - session.opened_us) / 1000)],
      ["Round trip", format.milliseconds(session.rtt_ms)],
      ["Bytes in", format.bytes(session.bytes_in)],
      ["Bytes out", format.bytes(session.bytes_out)],
      ["Messages in", format.count(session.messages_in)],
      ["Messages out", format.count(session.messages_out)],
      ["Waiting to be sent", format.bytes(session.queued_bytes)],
    ]);
  }

  showTraffic(session) {
    const at = performance.now() / 1000;
    if (this.before !== null && at > this.before.at) {
      const seconds = at - this.before.at;
      const { values } = this.columns;
      values.in.push(Math.max(0, session.bytes_in - this.before.session.bytes_in) / seconds);
      values.out.push(Math.max(0, session.bytes_out - this.before.session.bytes_out) / seconds);
      for (const column of Object.values(values)) if (column.length > SPAN) column.shift();
      this.columns.ends_s = Math.floor(Date.now() / 1000);
      this.traffic.show(this.columns);
    }
    this.before = { at, session };
  }

  /** Take {messages, requests, omitted, lost, cause} of the tap. */
  take({ messages, requests, omitted, lost, cause }) {
    this.omitted += omitted;
    this.lost += lost;
    for (const request of requests) this.takeRequest(request);
    keyed(this.requestBody, this.requests, (request) => request.key, requestRow);
    this.requestsEmpty.hidden = this.requests.length > 0;
    this.requestTable.hidden = this.requests.length === 0;
    this.messages.unshift(...messages.reverse());
    this.messages.length = Math.min(this.messages.length, KEPT_MESSAGES);
    const told = [
      cause ? `The tap is closed: ${cause}` : "Live",
      this.omitted ? `${format.count(this.omitted)} more were too many to show` : "",
      this.lost ? `${format.count(this.lost)} were missed` : "",
    ];
    setText(this.tapNote, told.filter(Boolean).join(" · "));
    if (!this.isPaused) this.showMessages();
  }

  takeRequest(request) {
    const known = this.requests.find(({ key }) => key === request.key);
    if (known === undefined) this.requests.unshift(request);
    else Object.assign(known, request);
    this.requests.length = Math.min(this.requests.length, KEPT_REQUESTS);
  }

  showMessages() {
    const only = this.only.value.trim().toLowerCase();
    const shown = this.messages.filter(({ name }) => name.toLowerCase().includes(only));
    keyed(this.list, shown, (message) => message.number, messageItem);
  }

  togglePause() {
    this.isPaused = !this.isPaused;
    setAttribute(this.pause, "aria-pressed", this.isPaused);
    if (!this.isPaused) this.showMessages();
  }

  disconnect() {
    ask({
      title: `Disconnect session ${this.number}?`,
      text: "The peer is told the reason, and may connect again.",
      fields: [{ name: "reason", label: "Reason", options: REASONS.map((name) => [name, format.words(name)]) }],
      verb: "Disconnect",
      act: ({ reason }) => command("disconnect", { session: this.number, reason }),
    });
  }

  ban() {
    const { peer, remote } = this.session;
    const address = remote.replace(/:[0-9]+$/, "").replace(/^\[|\]$/g, "");
    const whom = [["address", `the address ${address}`]];
    if (peer !== null) whom.unshift(["peer", `the peer ${format.shortId(peer)}`]);
    ask({
      title: "Ban this peer?",
      text: "Its sessions end, and it is refused for this long.",
      fields: [
        { name: "who", label: "Who", options: whom },
        { name: "hours", label: "Hours", type: "number", value: 12, min: 1 },
      ],
      verb: "Ban",
      act: ({ who, hours }) => command("ban", { [who]: who === "peer" ? peer : address, seconds: Number(hours) * 3600 }),
    });
  }
}

function requestRow() {
  const cells = [h("td"), h("td"), h("td"), h("td", { class: "num" }), h("td", { class: "num" })];
  const row = h("tr", {}, ...cells);
  row.show = (request) => {
    const [name, from, answer, after, size] = cells;
    setText(name, request.name);
    setText(from, request.way === "in" ? "the peer" : "us");
    setText(answer, request.answered ? "answered" : "waiting");
    setText(after, format.milliseconds(request.after_ms));
    setText(size, format.bytes(request.size));
  };
  return row;
}

function messageItem(message) {
  const summary = h(
    "summary",
    {},
    h("time", {}, `${format.clock(message.time_us)}.${String(Math.floor(message.time_us / 1000) % 1000).padStart(3, "0")}`),
    h("span", { class: `way ${message.way}` }, message.way === "in" ? "in" : "out"),
    h("b", {}, message.name),
    h("span", { class: "muted nowrap" }, `${format.bytes(message.size)}${message.request_id === null ? "" : `, request ${message.request_id}`}`),
    h("span", { class: "what" }, message.summary),
  );
  const item = h("li", {}, h("details", {}, summary, h("pre", {}, message.decoded)));
  item.show = () => {};
  return item;
}
