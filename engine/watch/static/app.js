// Which page is shown, and the stream that keeps it current.

import { ask, command, isAllowed, takeToken } from "./control.js";
import { Ends } from "./ends.js";
import { h, setAttribute, setText } from "./dom.js";
import { Overview } from "./overview.js";
import { Session } from "./session.js";
import { Sessions } from "./sessions.js";
import * as format from "./format.js";

// Without a word of the server for this long, what is shown is stale.
const STALE_MS = 3500;
const RETRY_MS = 1000;
const SECONDS_KEPT = 600;
const MINUTES_KEPT = 1440;

const main = document.getElementById("main");
const search = document.getElementById("search");
let state = null;
let source = null;
let heardAt = performance.now();
let page = null;
let route = { name: "" };
let allowed = false;
let retry = null;

// -- the stream -------------------------------------------------------------------------------------------------------------

function open() {
  close();
  if (document.hidden) return;
  const session = route.name === "session" ? `?session=${route.number}` : "";
  source = new EventSource(`/api/stream${session}`);
  source.addEventListener("state", (event) => hear(() => (state = JSON.parse(event.data))));
  source.addEventListener("tick", (event) => hear(() => merge(JSON.parse(event.data))));
  source.addEventListener("session", (event) => route.name === "session" && page.show(JSON.parse(event.data)));
  source.addEventListener("messages", (event) => route.name === "session" && page.take(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // The browser connects again by itself, unless it was refused.
    if (source?.readyState === EventSource.CLOSED) retry = setTimeout(open, RETRY_MS);
  });
}

function close() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function hear(take) {
  heardAt = performance.now();
  take();
  if (state !== null) show();
}

function merge(parts) {
  if (state === null) return;
  const { second, ...changed } = parts;
  Object.assign(state, changed);
  append(state.seconds, second, state.now, SECONDS_KEPT);
  if (second % 60 === 59) append(state.minutes, second, meanOf(state.seconds, 60), MINUTES_KEPT);
}

function append(columns, second, values, kept) {
  const isNext = second - columns.ends_s === columns.step_s || Object.values(columns.values)[0].length === 0;
  if (!isNext && second <= columns.ends_s) return;
  const holes = isNext ? 0 : Math.min(kept, Math.round((second - columns.ends_s) / columns.step_s) - 1);
  for (const [name, column] of Object.entries(columns.values)) {
    for (let hole = 0; hole < holes; hole++) column.push(null);
    column.push(values[name] ?? null);
    if (column.length > kept) column.splice(0, column.length - kept);
  }
  columns.ends_s = second;
}

function meanOf(columns, count) {
  const means = {};
  for (const [name, column] of Object.entries(columns.values)) {
    const known = column.slice(-count).filter((value) => value !== null);
    means[name] = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  }
  return means;
}

// -- what is shown ----------------------------------------------------------------------------------------------------------

function show() {
  showState();
  if (route.name === "overview" || route.name === "ends") page.show(state);
}

function showState() {
  const silence = performance.now() - heardAt;
  const engine = state?.engine;
  let [name, text, banner, age] = ["live", "Live", "", null];
  if (silence > STALE_MS) {
    [name, text, age] = ["lost", "No connection", silence / 1000];
    banner = "rlpx-watch has not been heard. What you see is as of then; this page tries again by itself.";
  } else if (engine === undefined) {
    [name, text] = ["waiting", "Connecting"];
  } else if (engine.age_s === null && engine.cause === "") {
    [name, text] = ["waiting", "Waiting for the engine"];
  } else if (engine.cause !== null || engine.stale) {
    [name, text, age] = ["lost", engine.age_s === null ? "No engine" : "Stale", engine.age_s];
    banner = `The engine does not answer${engine.cause ? `: ${engine.cause}` : ""}. What you see is as of then.`;
  }
  const status = document.getElementById("state");
  setAttribute(status, "data-state", name);
  setText(document.getElementById("state-text"), text);
  const box = document.getElementById("banner");
  box.hidden = banner === "";
  setText(document.getElementById("banner-text"), banner);
  // Readers of the screen are told once, and not again with every second.
  setText(document.getElementById("banner-age"), age === null ? "" : format.duration(age));
  document.body.classList.toggle("stale", name === "lost");
  if (engine?.version) showFoot(engine);
}

function showFoot(engine) {
  const parts = [
    `rlpx-engine ${engine.version}`,
    engine.chain ? `${engine.chain.name} (network ${engine.chain.network_id})` : "",
    `up ${format.duration(engine.uptime_ms / 1000)}`,
    `engine process ${format.bytes(engine.memory_bytes)}`,
    engine.compiled ? "" : "not compiled",
    engine.log_lines_lost ? `${format.count(engine.log_lines_lost)} log lines lost` : "",
    allowed ? "control" : "read-only",
    `node ${format.shortId(engine.node_id)}`,
  ];
  setText(document.getElementById("foot"), parts.filter(Boolean).join(" · "));
  const title = `${format.count(engine.active_inbound + engine.active_outbound)} sessions · rlpx-engine`;
  if (document.title !== title) document.title = title;
}

// -- pages ------------------------------------------------------------------------------------------------------------------

const pages = {
  overview: () => new Overview({ openLimits }),
  sessions: () => new Sessions({ onQuery: (query) => replaceAddress(`#/sessions?${query}`) }),
  ends: () => new Ends(),
  session: ({ number }) => new Session(number),
};

function replaceAddress(hash) {
  history.replaceState(null, "", hash);
}

function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, number] = path.split("/");
  if (name === "session" && /^[0-9]{1,19}$/.test(number ?? "")) return { name, number: Number(number), parameters: new URLSearchParams(query) };
  return { name: name in pages && name !== "session" ? name : "overview", parameters: new URLSearchParams(query) };
}

function go() {
  const next = routeOf(location.hash);
  const needsStream = source === null || next.name === "session" || route.name === "session";
  const isSame = next.name === route.name && next.number === route.number;
  route = next;
  if (!isSame) {
    page?.stop?.();
    page = pages[route.name](route);
    page.setControl?.(allowed);
    main.replaceChildren(page.element);
    for (const link of document.querySelectorAll("nav a")) {
      const isHere = link.dataset.page === route.name || (link.dataset.page === "sessions" && route.name === "session");
      if (isHere) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    window.scrollTo(0, 0);
    if (state !== null) show();
  }
  page.start?.(route.parameters);
  if (route.name === "sessions") search.value = route.parameters.get("text") ?? "";
  if (!isSame && needsStream) open();
}

function openLimits() {
  const { limits } = state.engine;
  ask({
    title: "Change limits",
    text: "They hold until the engine ends or reads its settings again. Sessions above a lowered limit stay.",
    fields: Object.entries(limits).map(([name, value]) => ({ name, label: format.words(name), type: "number", value, min: 0 })),
    verb: "Change",
    act: (values) =>
      command("set-limits", Object.fromEntries(Object.entries(values).filter(([name, value]) => Number(value) !== limits[name]).map(([name, value]) => [name, Number(value)]))),
  });
}

// -- the keyboard, the search, the start --------------------------------------------------------------------------------------

document.querySelector(".search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = search.value.trim();
  location.hash = /^[0-9]{1,19}$/.test(text) ? `#/session/${text}` : `#/sessions?${new URLSearchParams({ text })}`;
});

// The address after # names a page, so that the link cannot use it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

search.addEventListener("input", () => {
  // While the table is shown it follows the typing.
  if (route.name === "sessions") page.ask({ text: search.value.trim(), offset: 0 });
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea, dialog") !== null;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "Escape" && event.target === search) search.blur();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) close();
  else {
    heardAt = performance.now();
    open();
    page?.refresh?.();
  }
});
window.addEventListener("hashchange", () => {
  takeTokenAndAsk();
  go();
  main.focus({ preventScroll: true });
});
setInterval(showState, 1000);

async function takeTokenAndAsk() {
  takeToken();
  allowed = await isAllowed();
  page?.setControl?.(allowed);
}

takeTokenAndAsk();
go();
