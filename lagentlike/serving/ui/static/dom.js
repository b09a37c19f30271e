// Elements whose texts are texts: what agents say is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

// An element with properties ("class", "on…" listeners, "data-…", attributes) and children (elements, texts, null).
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function button(label, { symbol, text, ...properties } = {}) {
  return el("button", { type: "button", "aria-label": label, title: label, ...properties }, symbol && icon(symbol), text);
}

// A text with its ```fenced``` parts as code; everything else stays as it is.
export function prose(text) {
  const shown = [];
  let lines = [];
  let inside = false;
  const close = () => {
    const piece = lines.join("\n").replace(/^\n+|\n+$/g, "");
    if (piece) shown.push(inside ? el("pre", { class: "code", tabindex: "0" }, piece) : el("div", {}, piece));
    lines = [];
    inside = !inside;
  };
  for (const line of text.split("\n")) {
    if (inside ? /^\s*```\s*$/.test(line) : /^\s*```[^`]*$/.test(line)) close();
    else lines.push(line);
  }
  close();
  return shown;
}

export function text(value) {
  if (typeof value === "string") return value;
  return value === undefined || value === null ? "" : JSON.stringify(value, null, 1);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "…";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function count(number) {
  return number.toLocaleString("en");
}
