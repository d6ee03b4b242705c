// Numbers, times and names as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const DASH = "–";

/** A count with thousands separators. */
export function count(value) {
  return value === null || value === undefined ? DASH : whole.format(value);
}

/** A rate or another measured number, with two or three digits that matter. */
export function number(value) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  if (size >= 10_000) return new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
  if (size >= 100 || Number.isInteger(value)) return whole.format(value);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: size >= 10 ? 3 : 2 }).format(value);
}

/** Bytes in the largest unit that gives at least one. */
export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(size) < 1024 || unit === "GiB") {
      return `${unit === "B" ? Math.round(size) : size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
    }
    size /= 1024;
  }
  return DASH;
}

/** Milliseconds, as seconds from one second on. */
export function milliseconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value >= 1000) return `${number(value / 1000)} s`;
  return `${value < 10 ? number(value) : Math.round(value)} ms`;
}

/** A duration in seconds in its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  const total = Math.max(0, Math.floor(seconds));
  if (total < 60) return `${total} s`;
  const parts = [
    [Math.floor(total / 86_400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "min"],
    [total % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** The age of a moment in microseconds since 1970. */
export function age(timeUs) {
  return timeUs === null || timeUs === undefined ? DASH : duration(Date.now() / 1000 - timeUs / 1e6);
}

/** The time of day of a moment in microseconds since 1970. */
export function clock(timeUs) {
  return new Date(timeUs / 1000).toLocaleTimeString("en-GB");
}

/** The beginning of an id, which tells it from others. */
export function shortId(id) {
  return id ? id.slice(0, 12) : DASH;
}

/** A client's family and version; its whole name if it has no version. */
export function client({ client: text, family, version }) {
  return version ? `${family} ${version}` : text;
}

/** `too_many_peers` as words. */
export function words(name) {
  return name === "-" || !name ? "no reason given" : name.replaceAll("_", " ");
}

const ENDED_BY = { us: "by us", peer: "by the peer", network: "network", worker_lost: "worker lost", engine: "engine ended" };

/** Who ended a session, as words. */
export function endedBy(name) {
  return ENDED_BY[name] ?? words(name);
}

/** A share as per cent. */
export function percent(share) {
  return share === null || share === undefined ? DASH : `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

export { DASH };
