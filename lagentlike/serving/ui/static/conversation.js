// One conversation: what is remembered of it, and the turn that is under way, as it comes.

import { ask } from "./api.js";
import { button, count, duration, el, icon, prose, text } from "./dom.js";
import { Spans } from "./spans.js";

const MOST = 300; // items that are shown at once

export class Conversation {
  // agent: {name, units, live}; told: what the page does on `select`, `fork`, `close`, `changed` and `failed`.
  constructor(agent, told) {
    this.agent = agent;
    this.told = told;
    this.key = null;
    this.items = [];
    this.trunk = trunk(agent.units);
    this.names = new Set(agent.units.filter((unit) => this.trunk.has(unit.path)).map((unit) => unit.name)); // the agent's own
    this.drafts = new Map(); // what was written and not sent, by session
    this.build();
  }

  build() {
    this.title = el("h2", {});
    this.closing = button("Close this one", { symbol: "close", class: "plain", onclick: () => this.told.close(this) });
    this.forking = button("Fork this session", { symbol: "fork", class: "small", text: "Fork", onclick: () => this.told.fork(this, null) });
    this.earlier = el("button", { type: "button", class: "small earlier", hidden: true, onclick: () => this.more() }, "Show earlier messages");
    this.log = el("div", { class: "log", role: "log", "aria-label": "Conversation", tabindex: "0" });
    this.scroller = el("div", { class: "scroller", onscroll: () => this.scrolled() }, this.earlier, this.log);
    Object.assign(this, { follows: true, top: 0 });
    this.area = el("textarea", { rows: "1", placeholder: "Say something…", "aria-label": "Your message", onkeydown: (event) => this.typed(event), oninput: () => this.fit() });
    this.sending = button("Send", { symbol: "send", class: "send", onclick: () => this.send() });
    this.form = el("div", { class: "say" }, this.area, this.sending);
    this.note = el("p", { class: "notice", hidden: true });
    this.element = el("section", { class: "conversation", "aria-label": "Conversation" },
      el("div", { class: "head" }, this.title, el("span", { class: "spring" }), this.forking, this.closing),
      this.scroller, this.note, this.form);
  }

  // Show a session; one that has not spoken is empty.
  async open(key, fresh = false) {
    if (key !== this.key) {
      this.drafts.set(this.key, this.area.value);
      this.area.value = this.drafts.get(key) ?? "";
    }
    Object.assign(this, { key, spans: new Spans(this.agent.live ? undefined : Infinity), turns: new Map(), cards: new Map(), items: [], start: 0, awaited: false, before: [], from: null });
    this.busy(false);
    this.log.replaceChildren();
    this.earlier.hidden = true;
    this.note.hidden = true;
    this.title.textContent = name(key);
    this.element.setAttribute("aria-label", `Session ${name(key)}`);
    if (fresh) return this.settle({ messages: [], start: 0, points: [], own: true, running: false }, { spans: [], place: null });
    const path = encodeURIComponent(key);
    const nothing = { messages: [], start: 0, points: [], own: false };
    try {
      const [told, known] = await Promise.all([this.agent.live ? ask(`/ui/sessions/${path}`) : nothing, ask(`/ui/spans?session=${path}`)]);
      if (this.key === key) this.settle(told, known);
    } catch (error) {
      if (this.key === key) this.settle(nothing, { spans: [], place: null });
      throw error;
    }
  }

  settle(told, known) {
    this.own = told.own;
    this.points = new Set(told.points);
    this.end = told.messages.findLast((item) => item.point)?.point ?? 0;
    this.show(told.messages, told.start);
    this.from = known.place;
    for (const span of known.spans) this.spans.put(span);
    // A turn that ended after the messages were read is not among them.
    const missing = (turn) => !this.agent.live || turn.status === "running" || turn.start + turn.seconds > told.time;
    const replayed = this.spans.turns(this.key).filter(missing);
    for (const turn of replayed) this.replay(turn);
    if (replayed.length) this.told.select(this, replayed.at(-1));
    this.awaited = Boolean(told.running);
    if (this.awaited) this.busy(true);
    this.measure(known.spans);
    const heard = this.before;
    this.before = null;
    for (const [event, place] of heard) this.take(event, place);
    this.form.hidden = !this.own;
    this.note.textContent = this.noted();
    this.note.hidden = !this.note.textContent;
    this.forking.hidden = !this.agent.live || !this.items.length;
    this.placeholder();
    this.bottom(true);
    this.told.changed(this);
  }

  // Say of what is remembered how long it took, where the spans of it are still known.
  measure(spans) {
    if (!this.agent.live) return;
    for (const span of spans) if (span.kind === "tool" && span.call_id) this.cards.get(span.call_id)?.took(span);
    const replies = this.items.filter((item) => item.point);
    const turns = this.spans.turns(this.key).filter((turn) => turn.status === "ok");
    while (replies.length && turns.length) {
      const [block, turn] = [replies.pop(), turns.pop()];
      if (text(turn.content?.reply?.content) !== block.text) return;
      block.measured(turn);
    }
  }

  noted() {
    if (this.agent.left_out) return `This is the end of a long trace: ${count(this.agent.left_out)} earlier spans are not shown.`;
    return this.own || !this.agent.live ? "" : "Another part of the program holds this session. Fork it to go on here.";
  }

  placeholder() {
    const empty = !this.items.length && !this.turns.size;
    const shown = this.log.querySelector(".empty");
    if (!empty) shown?.remove();
    else if (!shown) this.log.append(el("p", { class: "empty quiet" }, this.agent.live ? `Say something to ${this.agent.name}: the answer comes here, its steps on the timeline.` : "Nothing is in this trace."));
  }

  // Messages that are remembered.
  show(messages, start, onTop = false) {
    this.start = start;
    this.earlier.hidden = start === 0;
    const into = document.createDocumentFragment();
    const items = [];
    const place = { append: (item) => { items.push(item); into.append(item.element); } };
    for (const { message, point } of messages) this.message(place, message, point);
    if (onTop) this.log.prepend(into);
    else this.log.append(into);
    this.items = onTop ? [...items, ...this.items] : [...this.items, ...items];
    this.allow();
    this.pass();
  }

  // What was decided, or passed over, waits no longer.
  pass() {
    for (const verdict of this.log.querySelectorAll(".verdict")) if (!this.log.lastElementChild.contains(verdict)) verdict.remove();
  }

  message(place, message, point) {
    if (message.sender === "user" && !message.tool_results) return place.append(this.said(message));
    for (const result of message.tool_results ?? []) {
      let card = this.cards.get(result.id);
      if (!card) place.append((card = this.card(result.id, result.name, null)));
      card.returned(result.success ? result.output : result.error, result.success);
    }
    if (message.tool_results) return;
    const block = new Block(this.speaker(message.sender));
    if (message.reasoning) block.reason(message.reasoning);
    if (message.text || !(message.tool_calls ?? []).length) {
      block.write(message.text);
      block.finish();
    }
    const speaks = message.text || message.reasoning;
    if (speaks) place.append(block);
    for (const call of message.tool_calls ?? []) place.append(this.card(call.id, call.name, call.arguments));
    if (point && !speaks) place.append(block); // only to fork from
    if (point) this.forkable(block, point);
    const ending = point && this.ending(message);
    if (ending) place.append(ending);
  }

  async more() {
    const height = this.scroller.scrollHeight;
    const told = await ask(`/ui/sessions/${encodeURIComponent(this.key)}?before=${this.start}`);
    this.show(told.messages, told.start, true);
    this.scroller.scrollTop += this.scroller.scrollHeight - height;
    this.told.changed(this);
  }

  speaker(sender) {
    return this.names.has(sender) ? this.agent.name : sender;
  }

  // Whether it is an empty page that nobody wrote on.
  unused() {
    return !this.items.length && !this.running && !this.area.value;
  }

  // What is heard

  take(event, place) {
    if (this.before) return this.before.push([event, place]);
    if (this.from && Number(place.split(".")[1]) <= Number(this.from.split(".")[1])) return; // it was in what was there
    if (event.type === "begin") {
      this.spans.put(event.span);
      this.begun(this.spans.get(event.span.span_id));
    } else if (event.type === "part") {
      this.turn(this.spans.get(event.span_id))?.part(this.spans.get(event.span_id), event);
    } else if (event.type === "end" && this.spans.get(event.span.span_id)) {
      this.spans.put(event.span);
      this.ended(this.spans.get(event.span.span_id));
    } else if (event.type === "turn") {
      this.over(event);
    }
  }

  // Take a span and all below it as if it were heard now.
  replay(span) {
    this.begun(span);
    if (span.parts) this.turn(span)?.part(span, span.parts);
    for (const child of this.spans.children(span).sort((one, other) => one.start - other.start)) this.replay(child);
    if (span.status !== "running") this.ended(span);
  }

  turn(span) {
    return span && this.turns.get(this.spans.root(span)?.span_id);
  }

  begun(span) {
    if (!span.parent_id) {
      this.turns.set(span.span_id, new Turn(this, span));
      this.placeholder();
      this.busy(true);
      if (!this.before) this.told.select(this, span); // of many that are replayed only the last one
    } else {
      this.turn(span)?.begun(span);
    }
    this.told.span(this, span);
    this.soon();
  }

  ended(span) {
    this.turn(span)?.ended(span);
    if (!span.parent_id) {
      if (!this.awaited) this.busy(false);
      this.forking.hidden = !this.agent.live;
      this.told.changed(this);
      this.cut();
    }
    this.told.span(this, span);
    this.soon();
  }

  // The server is done with a turn that was begun here.
  over(event) {
    this.awaited = false;
    this.busy(false);
    const turn = [...this.turns.values()].at(-1);
    if (event.error && !turn?.failed) this.append({ element: failure(event.error.type, event.error.message), sign: () => "" });
    if (!event.error && !event.stopped && turn?.reply) {
      this.points.add(this.end); // the server remembered it when the turn began
      this.end = event.point;
      this.forkable(turn.reply, event.point);
    }
    this.allow();
    this.bottom();
    this.told.changed(this);
  }

  busy(running) {
    this.running = running;
    this.sending.replaceChildren(icon(running ? "stop" : "send"));
    const label = running ? "Stop the answer" : "Send";
    this.sending.setAttribute("aria-label", label);
    this.sending.title = label;
    this.sending.classList.toggle("stops", running);
    this.element.setAttribute("aria-busy", String(running));
    this.area.placeholder = running && this.agent.steers ? "Say something while it works…" : "Say something…";
  }

  // What a person does

  typed(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!this.running) this.send();
      else if (this.agent.steers) this.steer();
    }
  }

  // Say something to the turn that is under way; it is seen when the model is told it.
  async steer() {
    const words = this.area.value.trim();
    if (!words) return;
    this.area.value = "";
    let told = false;
    try {
      while (this.running && !told) {
        ({ told } = await ask(`/ui/sessions/${encodeURIComponent(this.key)}/steer`, { method: "POST", body: { words } }));
        if (!told) await new Promise((done) => setTimeout(done, 200)); // the turn is about to begin, or to end
      }
    } catch (error) {
      this.told.failed(error);
    }
    if (!told) this.area.value ||= words;
  }

  fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, 200)}px`;
  }

  // Say what is written, or give a message such as a decision; while a turn is under way, stop that.
  async send(given = null) {
    const path = `/ui/sessions/${encodeURIComponent(this.key)}`;
    const words = given ? "" : this.area.value.trim();
    const message = given ?? words;
    try {
      if (this.running) {
        if (!given) await ask(`${path}/stop`, { method: "POST", body: {} });
      } else if (message) {
        this.busy(true);
        this.awaited = true;
        if (!given) this.area.value = "";
        this.fit();
        this.bottom(true);
        await ask(`${path}/turns`, { method: "POST", body: { message } });
      }
    } catch (error) {
      this.awaited = false;
      this.busy(false);
      this.area.value ||= words;
      this.told.failed(error);
    }
  }

  // What is shown

  append(item) {
    this.items.push(item);
    this.log.append(item.element);
  }

  said(message) {
    const { content, type } = message ?? {};
    if (type === "approval") {
      const verdict = `${content?.approved === true ? "Approved" : "Refused"}${content?.reason ? `: ${content.reason}` : "."}`;
      return { element: el("p", { class: "decision" }, verdict), sign: () => `d${verdict}` };
    }
    const words = message?.text ?? text(content ?? message);
    return { element: el("div", { class: "said" }, el("div", { class: "text" }, words)), sign: () => `u${words}` };
  }

  // How a turn ended, where it is not just that all was said: calls wait for an approval, or something ran out.
  ending({ finish_reason: reason, extra_info: extra }) {
    const { pending = [], detail = "" } = extra?.run ?? {};
    if (pending.length && this.agent.live) return { element: el("div", { class: "approval" }, pending.map((call) => this.waits(call))), sign: () => "" };
    if (!reason || ["stop", "tool_calls"].includes(reason)) return null;
    return { element: el("p", { class: "notice" }, `The turn ended: ${reason.replaceAll("_", " ")}${detail ? ` (${text(detail)})` : ""}.`), sign: () => "" };
  }

  // A call that waits for an approval.
  waits(call) {
    const why = el("input", { type: "text", placeholder: "Why, if you like", "aria-label": `Why ${call.name} is approved or refused` });
    const decide = (approved) => this.send({ type: "approval", sender: "user", content: { call_id: call.id, approved, reason: why.value } });
    return el("div", {}, el("p", {}, el("b", {}, call.name), el("span", { class: "now" }, " waits for your approval"), el("span", { class: "then" }, " waited for an approval"), call.reason ? `: ${text(call.reason)}` : "."),
      el("pre", {}, written(call.arguments)),
      el("div", { class: "verdict" }, why,
        el("button", { type: "button", class: "small yes", onclick: () => decide(true) }, "Approve"),
        el("button", { type: "button", class: "small no", onclick: () => decide(false) }, "Refuse")));
  }

  card(id, name, given) {
    const card = new Card(name, given);
    if (id) this.cards.set(id, card);
    return card;
  }

  forkable(block, point) {
    if (!this.agent.live || block.fork) return;
    block.fork = button("Fork from here", { symbol: "fork", class: "plain fork", text: "Fork from here", onclick: () => this.told.fork(this, point) });
    block.point = point;
    block.actions.append(block.fork);
  }

  // Only where the agent is remembered as it was, a fork can begin.
  allow() {
    const points = this.items.filter((item) => item.point);
    const last = points.at(-1);
    for (const item of points) item.fork.hidden = item !== last && !this.points.has(item.point);
  }

  // Of a long conversation the end is shown; the server has the rest.
  cut() {
    if (!this.agent.live || this.items.length <= MOST || this.running) return;
    this.open(this.key);
  }

  // Who scrolls up leaves the end, however much comes there; who comes near it again follows it.
  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const isNear = scrollHeight - scrollTop - clientHeight < 160;
    this.follows = isNear || (this.follows && scrollTop >= this.top);
    this.top = scrollTop;
  }

  // Keep the end in sight, if it is.
  bottom(always = false) {
    this.follows ||= always;
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  // The same, once for all that comes before the next picture.
  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.bottom();
    });
  }
}

// A turn that is watched: its spans become what is said, steps and cards.
class Turn {
  constructor(conversation, root) {
    this.conversation = conversation;
    this.root = root;
    this.blocks = new Map();
    this.cards = new Map();
    if (!root.content?.messages) conversation.append({ element: el("p", { class: "notice" }, "What was said is not in this trace: it was written without its content."), sign: () => "" });
    for (const message of root.content?.messages ?? []) conversation.append(conversation.said(message));
    this.waiting = el("div", { class: "waiting", role: "img", "aria-label": "at work" }, el("i"), el("i"), el("i"));
    conversation.log.append(this.waiting);
    conversation.pass();
  }

  // Where a span is shown: among what is said, in the card of the tool that it is part of, or among the steps.
  place(span) {
    const spans = this.conversation.spans;
    const above = [...spans.upwards(span)].slice(1);
    const tool = above.find((one) => one.kind === "tool");
    if (tool && this.cards.has(tool.span_id)) return this.cards.get(tool.span_id).inside();
    const turns = above.filter((one) => one.kind === "turn");
    const unit = span.kind === "tool" ? turns.find((one) => this.conversation.trunk.has(one.path)) : turns[0];
    const direct = span.kind === "tool" ? turns.indexOf(unit) <= 1 : true;
    if (unit && direct && this.conversation.trunk.has(unit.path)) return { append: (item) => this.append(item) };
    return this.steps();
  }

  append(item) {
    this.conversation.items.push(item);
    this.waiting.before(item.element);
  }

  steps() {
    if (!this.group) {
      const list = el("div", { class: "steps-inside" });
      this.summary = el("summary", {}, "Steps");
      this.group = el("details", { class: "steps", open: true }, this.summary, list);
      this.counted = 0;
      this.group.list = { append: (item) => { list.append(item.element); this.counted += 1; } };
      this.waiting.before(this.group);
    }
    return this.group.list;
  }

  begun(span) {
    if (span.kind === "turn") for (const message of span.content?.messages ?? []) this.hears(span, message ?? {});
    if (span.kind === "request") {
      const unit = [...this.conversation.spans.upwards(span)].find((one) => one.kind === "turn");
      const who = !unit || this.conversation.trunk.has(unit.path) ? this.root.name : unit.path;
      this.blocks.set(span.span_id, { block: new Block(who), place: this.place(span), shown: false });
    } else if (span.kind === "tool") {
      let card = span.call_id && this.conversation.cards.get(span.call_id);
      if (!card) {
        card = this.conversation.card(span.call_id, span.name, span.content?.arguments);
        this.place(span).append(card);
      }
      card.runs();
      this.cards.set(span.span_id, card);
    }
  }

  part(span, { text, reasoning }) {
    const made = span === this.root ? this.own() : this.blocks.get(span.span_id);
    if (!made) return;
    if (text || reasoning) this.reveal(made);
    if (reasoning) made.block.reason(reasoning);
    if (text) made.block.write(text);
    this.conversation.soon();
  }

  // What the turn itself gives out, where no model is heard in it.
  own() {
    this.given ??= { block: new Block(this.root.name), place: { append: (item) => this.append(item) }, shown: false };
    return this.given;
  }

  reveal(made) {
    if (!made.shown) made.place.append(made.block);
    made.shown = true;
  }

  ended(span) {
    if (span === this.root) return this.over();
    if (span.kind === "tool") this.cards.get(span.span_id)?.ended(span);
    if (span.kind !== "request") return;
    const made = this.blocks.get(span.span_id);
    const answers = [span.content?.answer ?? []].flat();
    if (!made) return;
    for (const answer of answers) {
      if (answer.text || answer.reasoning) {
        this.reveal(made);
        made.block.become(answer.text ?? "", answer.reasoning ?? "");
        if (answers.length === 1) this.last = made;
      }
      for (const call of answer.tool_calls ?? []) {
        if (this.conversation.cards.has(call.id)) continue;
        made.place.append(this.conversation.card(call.id, call.name, call.arguments));
      }
    }
    made.block.finish();
    if (span.status === "error" && made.place === this.group?.list) made.place.append({ element: failure(span.error?.type, span.error?.message) });
  }

  // What a unit is told: results of calls that have no span, for they were not made; what somebody said meanwhile.
  hears(span, { sender, content, tool_results: results }) {
    const asked = (this.root.content?.messages ?? []).map((message) => text(message?.content ?? message));
    const steered = sender === "user" && this.conversation.agent.steers && this.conversation.trunk.has(span.path) && !asked.includes(text(content));
    if (steered) this.append(this.conversation.said({ content }));
    for (const { id, success, output, error } of results ?? []) {
      const card = this.conversation.cards.get(id);
      if (card?.isOpen()) card.returned(success ? output : error, success);
    }
  }

  over() {
    const { root } = this;
    for (const { block } of this.blocks.values()) block.finish();
    if (this.group) {
      this.group.open = false;
      this.summary.textContent = `${this.counted} ${this.counted === 1 ? "step" : "steps"} on the way`;
    }
    if (root.status === "ok") {
      const reply = root.content?.reply;
      const said = text(reply?.content ?? reply ?? "");
      let made = this.last && this.last.place !== this.group?.list && this.last.block.text === said ? this.last : null;
      if (!made && reply !== undefined) {
        made = this.own();
        this.reveal(made);
        made.block.become(said, reply?.reasoning ?? "");
        made.block.finish();
      }
      this.reply = made?.block;
      made?.block.measured(root);
      const ending = reply && this.conversation.ending(reply);
      if (ending) this.append(ending);
    } else {
      this.failed = root.status === "error";
      const element = this.failed ? failure(root.error?.type, root.error?.message) : el("p", { class: "notice" }, "Stopped. The session is as it was before this turn.");
      this.append({ element, sign: () => "" });
      for (const card of this.cards.values()) card.left();
    }
    this.waiting.remove();
  }
}

// What somebody says, as it grows.
class Block {
  constructor(who) {
    this.text = "";
    this.node = document.createTextNode("");
    this.body = el("div", { class: "text" }, this.node);
    this.actions = el("div", { class: "actions" });
    this.element = el("div", { class: "answer" }, el("div", { class: "who" }, who), this.body, this.actions);
  }

  sign() {
    return `a${this.text}`;
  }

  write(more) {
    this.text += more;
    this.node.appendData(more);
  }

  reason(more) {
    if (!this.thinking) {
      this.thinking = document.createTextNode("");
      this.body.before(el("details", { class: "reasoning" }, el("summary", {}, "Thinking"), el("div", { class: "text" }, this.thinking)));
    }
    this.thinking.appendData(more);
  }

  // Be what the whole answer is, if its parts did not tell.
  become(whole, reasoning) {
    if (reasoning && !this.thinking) this.reason(reasoning);
    if (whole === this.text) return;
    this.text = whole;
    this.node.data = whole;
  }

  finish() {
    if (this.text.includes("```")) this.body.replaceChildren(...prose(this.text));
    this.body.hidden = !this.text;
  }

  measured(turn) {
    const tokens = !turn.tokens_in && !turn.tokens_out ? "" : ` · ${count(turn.tokens_in)} tokens in, ${count(turn.tokens_out)} out`;
    this.actions.prepend(el("span", { class: "quiet" }, `${duration(turn.seconds)}${tokens}`));
  }
}

// A tool call: what it is called with, what it gave, how long it took.
class Card {
  constructor(name, given) {
    this.name = name;
    this.given = given;
    this.state = el("span", { class: "state" }, "asked for");
    this.result = el("pre", { class: "result", hidden: true, tabindex: "0" });
    this.element = el("div", { class: "card", "data-state": "asked" },
      el("div", { class: "card-head" }, icon("tool"), el("b", {}, name), el("span", { class: "spring" }), this.state),
      given === null || given === undefined ? null : el("pre", { class: "arguments", tabindex: "0" }, written(given)),
      this.result);
  }

  sign() {
    return `t${this.name} ${JSON.stringify(this.given ?? null)} ${this.result.textContent}`;
  }

  is(state, label) {
    this.element.dataset.state = state;
    this.state.textContent = label;
  }

  runs() {
    this.is("running", "running…");
  }

  returned(result, success) {
    this.is(success ? "done" : "failed", success ? "done" : "failed");
    this.result.textContent = text(result);
    this.result.hidden = false;
  }

  took(span) {
    if (span.seconds !== null && this.state.textContent !== "asked for") this.state.textContent += ` · ${duration(span.seconds)}`;
  }

  ended(span) {
    const success = span.status === "ok";
    this.returned(span.content?.result ?? span.error?.message ?? "", success);
    if (span.status === "cancelled") this.is("failed", "stopped");
    this.took(span);
  }

  isOpen() {
    return ["asked", "running"].includes(this.element.dataset.state);
  }

  left() {
    if (this.isOpen()) this.is("failed", "not made");
  }

  inside() {
    if (!this.nested) {
      this.nested = el("div", { class: "steps-inside" });
      this.result.before(el("details", { class: "steps", open: true }, el("summary", {}, "Inside"), this.nested));
    }
    return { append: (item) => this.nested.append(item.element) };
  }
}

function failure(type, message) {
  return el("div", { class: "failure", role: "alert" }, el("b", {}, type || "It failed"), message && el("div", { class: "text" }, message));
}

function written(given) {
  if (given === null || typeof given !== "object" || Array.isArray(given)) return text(given);
  return Object.entries(given).map(([key, value]) => `${key} = ${typeof value === "string" ? value : JSON.stringify(value)}`).join("\n");
}

// The paths of the units that talk for the agent: itself, its `agent`, the `agent` of that, and so on.
function trunk(units) {
  const paths = new Set(units.map((unit) => unit.path));
  const found = new Set([""]);
  for (let path = "agent"; paths.has(path); path += ".agent") found.add(path);
  return found;
}

export function name(key) {
  const id = JSON.parse(key);
  if (id === null) return "outside of sessions";
  return typeof id === "string" ? id : Array.isArray(id) ? id.join(" / ") : `session ${id}`;
}

// Mark what two conversations have in common from their beginning on, and where they part.
export function compare(first, second) {
  const same = first.items.findIndex((item, at) => !second.items[at] || item.sign() !== second.items[at].sign());
  const common = same < 0 ? first.items.length : same;
  for (const { items, log } of [first, second]) {
    log.querySelector(".parting")?.remove();
    items.forEach((item, at) => item.element.classList.toggle("common", at < common));
    if (common && items[common]) items[common].element.before(el("p", { class: "parting" }, `${common} in common, then they part`));
    else if (common) log.append(el("p", { class: "parting" }, `${common} in common`));
  }
}

export function uncompare(conversation) {
  conversation.log.querySelector(".parting")?.remove();
  for (const item of conversation.items) item.element.classList.remove("common");
}
