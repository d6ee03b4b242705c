// What a page with the token may do. The token is in the part of the address after #, which no server sees; it is kept for
// this tab alone, and sent in a header.

import { h } from "./dom.js";

const STORED = "rlpx-token";

/** Take the token out of the address, if it is there. */
export function takeToken() {
  const found = location.hash.match(/^#token=([\x21-\x7e]+)$/);
  if (found === null) return;
  sessionStorage.setItem(STORED, found[1]);
  history.replaceState(null, "", `${location.pathname}#/`);
}

function headers() {
  const token = sessionStorage.getItem(STORED);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** Whether this tab may control the engine. */
export async function isAllowed() {
  try {
    const answer = await fetch("/api/control", { headers: headers() });
    return (await answer.json()).allowed === true;
  } catch {
    return false;
  }
}

/** Carry out a command; returns its result. Throws an `Error` with the reason. */
export async function command(name, parameters) {
  const answer = await fetch(`/api/control/${name}`, {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify(parameters),
  });
  const { result, error } = await answer.json();
  if (error) throw new Error(`${error.name}: ${error.message}`);
  return result;
}

/**
 * A dialog that asks before it does something. `fields`: {name, label, type, value, min, options}. `act(values)` does it; what
 * it throws is shown, and the dialog stays open.
 */
export function ask({ title, text, fields = [], verb, act }) {
  const inputs = fields.map((field) => {
    const input = field.options
      ? h("select", { name: field.name }, ...field.options.map(([value, name]) => h("option", { value }, name)))
      : h("input", { name: field.name, type: field.type ?? "text", value: field.value, min: field.min, required: true });
    return { input, label: h("label", {}, h("span", {}, field.label), input) };
  });
  const failure = h("p", { class: "failure", role: "alert", hidden: true });
  const done = h("button", { type: "submit", class: "primary" }, verb);
  const form = h(
    "form",
    {},
    h("h2", {}, title),
    h("p", {}, text),
    ...inputs.map(({ label }) => label),
    failure,
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), done),
  );
  const dialog = h("dialog", { "aria-label": title, onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    done.disabled = true;
    try {
      await act(Object.fromEntries(inputs.map(({ input }) => [input.name, input.value])));
      dialog.close();
    } catch (error) {
      failure.textContent = error.message;
      failure.hidden = false;
      done.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}
