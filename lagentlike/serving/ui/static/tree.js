// The agent as a tree of units, and what one of them remembers.

import { ask } from "./api.js";
import { el, icon, text } from "./dom.js";
import { piece } from "./timeline.js";

export class Tree {
  constructor(place, units, chosen) {
    this.rows = new Map();
    this.working = new Map(); // path -> how many turns of it are under way
    place.append(this.level(units, null, chosen));
  }

  level(units, parent, chosen) {
    const below = units.filter((unit) => unit.path !== "" && parentOf(unit.path, units) === parent);
    const own = parent === null ? units.filter((unit) => unit.path === "") : below;
    const tools = own.filter((unit) => unit.is_tool && !units.some((other) => parentOf(other.path, units) === unit.path));
    const rest = own.filter((unit) => !tools.includes(unit));
    return el("ul", { class: "tree" },
      tools.length ? el("li", { class: "chips" }, tools.map((unit) => this.chip(unit, chosen))) : null,
      rest.map((unit) => {
        const inner = units.some((other) => other.path !== "" && parentOf(other.path, units) === unit.path) && this.level(units, unit.path, chosen);
        return el("li", {}, this.row(unit, chosen), unit.is_tool && inner ? el("details", {}, el("summary", { class: "quiet" }, "Inside"), inner) : inner);
      }));
  }

  row(unit, chosen) {
    const label = unit.path ? unit.path.split(".").at(-1) : unit.name;
    const row = el("button", { type: "button", class: "unit", title: `${unit.unit}, ${unit.colour}`, onclick: () => chosen(unit) },
      el("i", { class: "dot" }), el("span", { class: "name" }, label), unit.unit === label ? null : el("span", { class: "quiet" }, unit.unit),
      unit.model ? el("span", { class: "chip model" }, icon("model"), unit.model) : null);
    this.rows.set(unit.path, row);
    return row;
  }

  chip(unit, chosen) {
    const label = unit.path.split(".").at(-1);
    const chip = el("button", { type: "button", class: "chip tool", title: unit.unit, onclick: () => chosen(unit) }, icon("tool"), label);
    this.rows.set(unit.path, chip);
    return chip;
  }

  choose(path) {
    for (const [one, row] of this.rows) row.setAttribute("aria-current", String(one === path));
  }

  // A turn of a unit, or a call of a tool, begins or ends.
  span(span, above) {
    const path = span.kind === "turn" ? span.path : span.kind === "tool" ? [above?.path, span.name].filter(Boolean).join(".") : null;
    const row = this.rows.get(path);
    if (!row) return;
    const count = Math.max((this.working.get(path) ?? 0) + (span.status === "running" ? 1 : -1), 0);
    this.working.set(path, count);
    row.classList.toggle("working", count > 0);
  }

  rest() {
    this.working.clear();
    for (const row of this.rows.values()) row.classList.remove("working");
  }
}

function parentOf(path, units) {
  const paths = new Set(units.map((unit) => unit.path));
  for (let at = path; at.includes("."); ) {
    at = at.slice(0, at.lastIndexOf("."));
    if (paths.has(at)) return at;
  }
  return "";
}

export class Memory {
  constructor(panel) {
    this.panel = panel;
    this.clear();
  }

  clear() {
    this.unit = null;
    this.panel.replaceChildren(el("p", { class: "quiet" }, "Choose a unit of the agent to see what it remembers of the session."));
  }

  async show(unit, conversation) {
    this.unit = unit;
    this.key = conversation.key;
    const head = [el("h3", {}, unit.path || unit.name), el("p", { class: "quiet" }, `${unit.unit}, ${unit.colour}`)];
    let told = { messages: [], states: {}, total: 0 };
    try {
      told = await ask(`/ui/sessions/${encodeURIComponent(conversation.key)}/memory?path=${encodeURIComponent(unit.path)}`);
    } catch (error) {
      head.push(el("p", { class: "notice" }, error.message));
    }
    if (this.unit !== unit || this.key !== conversation.key) return;
    const states = Object.entries(told.states);
    const says = unit.memory ? `${told.total} messages of this session${told.total > told.messages.length ? `, the last ${told.messages.length}` : ""}` : "It has no memory of its own.";
    this.panel.replaceChildren(...head, el("p", {}, says), ...told.messages.map(remembered),
      ...states.map(([name, value]) => el("section", {}, el("h4", {}, name), el("pre", { class: "piece", tabindex: "0" }, text(value)))));
  }
}

function remembered(message) {
  if (message.tool_results) return el("div", { class: "piece" }, el("div", { class: "who" }, message.sender), message.tool_results.map((one) => el("div", { class: "text call" }, icon("tool"), `${one.name}: ${one.success ? one.output : one.error}`)));
  return piece({ ...message, content: message.text });
}
