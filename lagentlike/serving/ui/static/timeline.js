// The spans of one turn as bars over time, and one of them in detail.

import { ask } from "./api.js";
import { count, duration, el, icon, text } from "./dom.js";

const SYMBOLS = { turn: "turn", request: "model", tool: "tool" };
const SHOWN = ["missing", "messages", "arguments", "answer", "reply", "result"]; // of a span's content, in this order
const KNOWN = new Set(["kind", "name", "trace_id", "span_id", "parent_id", "start", "seconds", "status", "error", "content", "session", "session_id", "parts", "clock", "path", "unit"]);

export class Timeline {
  constructor(panel) {
    this.choice = el("select", { "aria-label": "Turn", onchange: () => this.show(this.conversation, this.conversation.spans.get(this.choice.value)) });
    this.total = el("p", { class: "totals" });
    this.rows = el("ol", { class: "waterfall", "aria-label": "Spans of the turn" });
    this.detail = el("div", { class: "detail" });
    this.empty = el("p", { class: "quiet" }, "A turn shows here what it is made of, and how long each part takes.");
    panel.append(this.empty, this.choice, this.total, this.rows, this.detail);
    this.clear();
  }

  clear() {
    Object.assign(this, { conversation: null, root: null, chosen: null, soon: null, lines: new Map() });
    for (const part of [this.choice, this.total]) part.hidden = true;
    this.empty.hidden = false;
    this.rows.replaceChildren();
    this.detail.replaceChildren();
  }

  // Show a turn of a conversation; its last one by default.
  show(conversation, root) {
    this.clear();
    const turns = conversation.spans.turns(conversation.key);
    root ??= turns.at(-1);
    if (!root) return;
    Object.assign(this, { conversation, root });
    for (const part of [this.choice, this.total]) part.hidden = false;
    this.empty.hidden = true;
    this.choice.replaceChildren(...turns.map((turn, at) => el("option", { value: turn.span_id, selected: turn === root }, `Turn ${at + 1}: ${new Date(turn.start * 1000).toLocaleTimeString("en-GB")}`)));
    for (const [span, depth] of conversation.spans.rows(root)) this.line(span, depth);
    this.draw();
  }

  // A span of some conversation has begun or ended.
  span(conversation, span) {
    if (conversation !== this.conversation || conversation.spans.root(span) !== this.root) return;
    if (!this.lines.has(span.span_id)) this.line(span, [...conversation.spans.upwards(span)].length - 1);
    if (this.chosen === span.span_id) this.choose(span);
    this.soon ??= requestAnimationFrame(() => this.draw()); // many spans may come at once
  }

  line(span, depth) {
    const bar = el("i", {});
    const label = el("span", { class: "label" }, icon(SYMBOLS[span.kind]), el("span", { class: "name" }, span.kind === "turn" && span.path ? span.path.split(".").at(-1) : span.name));
    const figures = el("span", { class: "figures" });
    const row = el("button", { type: "button", class: "row", "data-kind": span.kind, onclick: () => this.choose(span) }, label, el("span", { class: "track" }, bar), figures);
    row.style.setProperty("--depth", Math.min(depth, 6));
    const item = el("li", {}, row);
    // Below all that is there of what it is part of, so that rows stand as the tree does.
    const parent = this.lines.get(span.parent_id);
    let before = parent?.item ?? null;
    while (before && this.lines.get(before.nextSibling?.dataset?.span)?.depth > parent.depth) before = before.nextSibling;
    if (before) before.after(item);
    else this.rows.append(item);
    item.dataset.span = span.span_id;
    this.lines.set(span.span_id, { span, depth, row, bar, figures, item });
  }

  draw() {
    clearTimeout(this.timer);
    this.soon = null;
    const { root } = this;
    if (!root) return;
    const total = Math.max(root.seconds ?? (performance.now() - root.clock) / 1000, 0.001);
    for (const { span, row, bar, figures } of this.lines.values()) {
      const begin = Math.min(Math.max(span.start - root.start, 0), total);
      const seconds = span.seconds ?? total - begin;
      bar.style.marginLeft = `${(100 * begin) / total}%`;
      bar.style.width = `${Math.min((100 * seconds) / total, 100 - (100 * begin) / total)}%`;
      row.dataset.status = span.status;
      row.title = `${span.kind}, ${span.status}`;
      row.setAttribute("aria-current", String(this.chosen === span.span_id));
      figures.textContent = span.status === "running" ? "…" : `${span.status === "error" ? "✕ " : ""}${duration(span.seconds)}`;
    }
    const spans = [...this.lines.values()].map((line) => line.span);
    const kinds = (kind) => spans.filter((span) => span.kind === kind).length;
    this.total.replaceChildren(
      figure(root.status === "running" ? "running" : duration(root.seconds), "time"), figure(kinds("request"), "model calls"), figure(kinds("tool"), "tool calls"),
      figure(count(root.tokens_in ?? 0), "tokens in"), figure(count(root.tokens_out ?? 0), "tokens out"));
    if (root.status === "running") this.timer = setTimeout(() => this.draw(), 200);
  }

  async choose(span) {
    this.chosen = span.span_id;
    this.draw();
    let whole = span;
    try {
      whole = await ask(`/ui/spans/${span.span_id}`);
    } catch {
      // it is forgotten by now: what is known of it will do
    }
    if (this.chosen === span.span_id) this.detail.replaceChildren(...described(whole));
  }
}

function figure(value, what) {
  return el("span", { class: "figure" }, el("b", {}, String(value)), el("span", { class: "quiet" }, what));
}

function described(span) {
  const rows = [["status", span.status], ["began", new Date(span.start * 1000).toLocaleTimeString("en-GB")], ["took", duration(span.seconds)]];
  if (span.unit) rows.push(["unit", `${span.path || "(root)"}: ${span.unit}`]);
  for (const [key, value] of Object.entries(span)) {
    if (KNOWN.has(key) || value === "" || value === null) continue;
    rows.push([key.replaceAll("_", " ").replace(" seconds", ""), key.endsWith("_seconds") ? duration(value) : text(value)]);
  }
  const content = span.content ?? {};
  return [
    el("h3", {}, icon(SYMBOLS[span.kind]), span.name),
    el("dl", {}, rows.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)])),
    span.error ? el("div", { class: "failure" }, el("b", {}, span.error.type), span.error.message && el("div", { class: "text" }, span.error.message)) : null,
    ...SHOWN.filter((key) => content[key] !== undefined).map((key) => el("section", {}, el("h4", {}, key), ...[content[key]].flat().map(piece))),
  ].filter(Boolean);
}

// A message, an answer, or anything else that went in or came out.
export function piece(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return el("pre", { class: "piece", tabindex: "0" }, text(value));
  const said = value.text ?? value.content;
  if (said === undefined && !value.tool_calls) return el("pre", { class: "piece", tabindex: "0" }, text(value));
  const calls = (value.tool_calls ?? []).map((call) => {
    const { name, arguments: given } = call.function ?? call;
    return `${name}(${typeof given === "string" ? given : JSON.stringify(given)})`;
  });
  return el("div", { class: "piece" },
    el("div", { class: "who" }, value.role ?? value.sender ?? "answer"),
    value.reasoning ? el("div", { class: "text quiet" }, value.reasoning) : null,
    said ? el("div", { class: "text" }, text(said)) : null,
    calls.map((call) => el("div", { class: "text call" }, icon("tool"), call)));
}
