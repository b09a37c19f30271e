// The page: what is chosen, and who is told of what is heard.

import { ask, hasToken, listen, Refused } from "./api.js";
import { Conversation, compare, name, uncompare } from "./conversation.js";
import { button, el, icon } from "./dom.js";
import { Timeline } from "./timeline.js";
import { Memory, Tree } from "./tree.js";

const $ = (id) => document.getElementById(id);

class App {
  constructor(agent) {
    this.agent = agent;
    this.shown = []; // one conversation, or two side by side
    this.sessions = [];
    this.timeline = new Timeline($("panel-turn"));
    this.memory = new Memory($("panel-unit"));
    this.tree = new Tree($("tree"), agent.units, (unit) => this.look(unit));
    $("agent-name").textContent = agent.name;
    $("agent-class").textContent = agent.units[0] && agent.units[0].unit !== agent.name ? agent.units[0].unit : "";
    document.title = `${agent.name} · lagentlike`;
    $("new-session").hidden = !agent.live;
    $("tab-unit").parentElement.hidden = !agent.live; // nothing is remembered but the spans
    $("new-session").addEventListener("click", () => this.begin());
    tabs();
    views();
  }

  // Show what the address says, or the last session, or a new one.
  async start() {
    const { place } = await ask("/ui/spans?session=-");
    listen(place, (event, at) => this.heard(event, at), (state) => this.state(state));
    await this.list();
    const wanted = new URLSearchParams(location.hash.slice(1));
    const keys = [wanted.get("session"), wanted.get("beside")].filter((key) => this.sessions.some((one) => one.key === key));
    if (keys.length) {
      await this.open(keys[0]);
      if (keys[1]) await this.beside(keys[1]);
    } else if (this.sessions.length) {
      await this.open(this.sessions[0].key);
    } else {
      await this.begin();
    }
  }

  heard(event, place) {
    if (event.type === "reset") return this.again();
    if (event.type === "sessions") this.list();
    const [first] = this.shown;
    if (event.type === "begin" && !event.span.parent_id && this.shown.length === 1 && first.unused() && first.key !== event.span.session) this.open(event.span.session);
    for (const conversation of this.shown) if (conversation.key === event.session || conversation.key === event.span?.session) conversation.take(event, place);
    if (event.type !== "part" && event.span && !event.span.parent_id) this.list();
    if (event.type === "turn") this.list();
  }

  state(state) {
    const place = $("connection");
    place.dataset.state = state;
    place.textContent = { live: this.agent.live ? "live" : "recorded", offline: "reconnecting…", refused: "not allowed" }[state];
    if (state === "refused") complain(new Refused("The server has a new token: open the address that it printed when it started.", 401));
  }

  // Look at everything anew: too much happened while nothing was heard.
  async again() {
    this.tree.rest();
    await this.list();
    for (const conversation of this.shown) await conversation.open(conversation.key).catch(complain);
  }

  // Sessions

  async list() {
    if (this.listing) {
      this.listAgain = true;
      return this.listing;
    }
    this.listing = ask("/ui/sessions").then(({ sessions }) => this.listed(sessions.reverse()), () => {});
    await this.listing;
    this.listing = null;
    if (this.listAgain) {
      this.listAgain = false;
      await this.list();
    }
  }

  listed(sessions) {
    this.sessions = sessions;
    const place = $("sessions");
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const rows = sessions.map((session) => {
      const at = this.shown.findIndex((one) => one.key === session.key);
      const row = el("button", { type: "button", class: "session", "data-key": session.key, "aria-current": at >= 0 ? "true" : null, onclick: () => this.open(session.key) },
        el("span", { class: "first" }, session.origin ? icon("fork") : null, el("span", { class: "name" }, session.title || name(session.key)), session.running ? el("i", { class: "dot", role: "img", "aria-label": "at work", title: "at work" }) : null),
        el("span", { class: "quiet" }, name(session.key), session.origin ? `, from ${name(session.origin)}` : ""));
      row.classList.toggle("running", session.running);
      return el("li", {}, row,
        el("span", { class: "tools" },
          button(`Show ${name(session.key)} beside`, { symbol: "beside", class: "plain", onclick: () => this.beside(session.key) }),
          session.own && this.agent.live ? this.bin(session) : null));
    });
    place.replaceChildren(...rows);
    if (!rows.length) place.append(el("li", { class: "quiet" }, "None yet."));
    if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  bin(session) {
    const bin = button(`Forget ${name(session.key)}`, { symbol: "bin", class: "plain", onclick: async () => {
      if (!bin.classList.contains("sure")) {
        bin.classList.add("sure");
        bin.replaceChildren("Sure?");
        bin.setAttribute("aria-label", `Sure? Forget ${name(session.key)}`);
        bin.addEventListener("blur", () => this.list(), { once: true });
        return;
      }
      await ask(`/ui/sessions/${encodeURIComponent(session.key)}`, { method: "DELETE" }).catch(complain);
      await this.list();
      for (const conversation of [...this.shown]) if (conversation.key === session.key) this.gone(conversation);
    } });
    return bin;
  }

  gone(conversation) {
    if (this.shown.length > 1) this.close(conversation);
    else if (this.sessions.length) this.open(this.sessions[0].key);
    else this.begin();
  }

  async begin() {
    await this.open(JSON.stringify(fresh("chat")), true);
    this.shown[0].area.focus();
  }

  async open(key, unspoken = false) {
    const [first] = this.shown;
    if (this.shown[1]?.key === key && !unspoken) return this.close(first);
    if (first) {
      for (const other of this.shown.slice(1)) this.close(other);
      await first.open(key, unspoken).catch(complain);
    } else {
      await this.add(key, unspoken);
    }
    this.chosen(this.shown[0]);
  }

  async beside(key) {
    if (this.shown.some((one) => one.key === key)) return;
    if (this.shown[1]) await this.shown[1].open(key).catch(complain);
    else await this.add(key);
    this.chosen(this.shown[1]);
  }

  async add(key, unspoken = false) {
    const conversation = new Conversation(this.agent, {
      select: (one, turn) => { if (this.shown.includes(one)) this.timeline.show(one, turn); },
      span: (one, span) => {
        this.timeline.span(one, span);
        this.tree.span(span, one.spans.get(span.parent_id));
      },
      fork: (one, point) => this.fork(one, point),
      close: (one) => this.close(one),
      changed: (one) => this.changed(one),
      failed: complain,
    });
    this.shown.push(conversation);
    $("conversations").append(conversation.element);
    await conversation.open(key, unspoken).catch(complain);
  }

  close(conversation) {
    this.shown = this.shown.filter((one) => one !== conversation);
    conversation.element.remove();
    this.chosen(this.shown[0]);
  }

  chosen(conversation) {
    document.body.classList.toggle("two", this.shown.length > 1);
    for (const one of this.shown) one.closing.hidden = this.shown.length < 2;
    if (this.shown.length < 2) uncompare(this.shown[0]);
    this.timeline.show(conversation);
    if (this.memory.unit) this.memory.show(this.memory.unit, conversation);
    this.list();
    this.write();
    showView("talk");
    this.changed(conversation);
  }

  // The address holds what is shown, so that a reload shows it again.
  write() {
    const keys = this.shown.map((one) => one.key);
    const hash = new URLSearchParams({ session: keys[0], ...(keys[1] ? { beside: keys[1] } : {}) });
    history.replaceState(null, "", `#${hash}`);
  }

  changed(conversation) {
    if (this.shown.length > 1 && this.shown.every((one) => one.before === null)) compare(...this.shown);
    if (this.memory.unit && conversation.before === null && this.memory.key === conversation.key) this.memory.show(this.memory.unit, conversation);
  }

  async fork(conversation, point) {
    const origin = name(conversation.key).replace(/-fork.*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-").slice(0, 40) || "session";
    try {
      const { session } = await ask(`/ui/sessions/${encodeURIComponent(conversation.key)}/fork`, { method: "POST", body: { name: fresh(`${origin}-fork`), point } });
      for (const other of this.shown) if (other !== conversation) this.close(other);
      await this.beside(session);
      this.shown[1]?.area.focus();
    } catch (error) {
      complain(error);
    }
  }

  look(unit) {
    this.tree.choose(unit.path);
    if (!this.agent.live) return;
    this.memory.show(unit, this.shown[0]);
    $("tab-unit").click();
    showView("right");
  }
}

function fresh(stem) {
  const [random] = crypto.getRandomValues(new Uint32Array(1));
  return `${stem}-${random.toString(36).padStart(7, "0").slice(-4)}`;
}

function complain(error) {
  document.querySelector(".complaint")?.remove();
  const shown = el("div", { class: "complaint", role: "alert" }, el("span", {}, error.message), button("Dismiss", { symbol: "close", class: "plain", onclick: () => shown.remove() }));
  document.body.append(shown);
}

function tabs() {
  const all = [$("tab-turn"), $("tab-unit")];
  const choose = (chosen) => all.forEach((tab) => {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  });
  for (const [at, tab] of all.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      choose(all[1 - at]);
      all[1 - at].focus();
    });
  }
}

// On narrow screens one of three parts is seen.
function showView(view) {
  document.body.dataset.view = view;
  for (const one of document.querySelectorAll(".views button")) one.setAttribute("aria-pressed", String(one.dataset.view === view));
}

function views() {
  for (const one of document.querySelectorAll(".views button")) one.addEventListener("click", () => showView(one.dataset.view));
}

if (!hasToken()) {
  complain(new Error("Open the address that the program printed: it holds the token that this page needs."));
} else {
  ask("/ui/agent").then((agent) => new App(agent).start()).catch(complain);
}
