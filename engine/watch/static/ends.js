// The last ends of sessions and attempts, with their causes.

import { h, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

/** A row of a table of ends. */
export function endRow() {
  const when = h("td", { class: "nowrap" });
  const link = h("a");
  const client = h("td", { class: "clip" });
  const remote = h("td", { class: "mono low" });
  const by = h("span");
  const reason = h("span", { class: "muted" });
  const cause = h("td", { class: "wide row" });
  const row = h("tr", {}, when, h("td", { class: "num" }, link), client, remote, h("td", { class: "row" }, by, " ", reason), cause);
  row.show = (end) => {
    setText(when, format.clock(end.time_us));
    setText(link, end.session ?? format.DASH);
    if (end.session !== null) setAttribute(link, "href", `#/session/${end.session}`);
    setText(client, format.client(end) || format.DASH);
    setAttribute(client, "title", end.client);
    setText(remote, end.remote);
    setText(by, format.endedBy(end.ended_by));
    setText(reason, end.reason === "-" ? `at ${end.stage}` : `${format.words(end.reason)}, at ${end.stage}`);
    setText(cause, end.cause);
  };
  return row;
}

export class Ends {
  constructor() {
    this.body = h("tbody");
    const heads = [["Time", ""], ["Session", "num"], ["Client", ""], ["Address", "low"], ["Ended", ""], ["Cause", "wide"]];
    this.table = h(
      "table",
      { class: "stack" },
      h("caption", { class: "hidden" }, "The last ends of sessions, the latest first"),
      h("thead", {}, h("tr", {}, ...heads.map(([name, style]) => h("th", { scope: "col", class: style }, name)))),
      this.body,
    );
    this.note = h("p", { class: "note" });
    this.element = h(
      "div",
      { class: "page" },
      h("div", { class: "head" }, h("h1", {}, "Ends"), this.note),
      h("section", { class: "card" }, h("div", { class: "scroll" }, this.table)),
    );
  }

  show({ ends }) {
    keyed(this.body, ends, (end) => `${end.time_us} ${end.session} ${end.remote}`, endRow);
    setText(this.note, ends.length === 0 ? "No session has ended yet." : `The last ${ends.length}, the latest first`);
  }
}
