// The spans that the page knows, by turn.

export class Spans {
  constructor(most = 3000) {
    this.most = most;
    this.clear();
  }

  clear() {
    this.byId = new Map();
    this.below = new Map();
  }

  // Take a span as it is now; true for one that is new here.
  put(span) {
    const known = this.byId.get(span.span_id);
    if (known) {
      Object.assign(known, span);
      return false;
    }
    this.byId.set(span.span_id, { clock: performance.now(), ...span });
    if (span.parent_id) {
      if (!this.below.has(span.parent_id)) this.below.set(span.parent_id, []);
      this.below.get(span.parent_id).push(span.span_id);
    }
    for (const old of this.byId.keys()) {
      if (this.byId.size <= this.most) break;
      this.byId.delete(old);
      this.below.delete(old);
    }
    return true;
  }

  get(id) {
    return this.byId.get(id);
  }

  children(span) {
    return (this.below.get(span.span_id) ?? []).map((id) => this.byId.get(id)).filter(Boolean);
  }

  // The span and what it is part of, up to the outermost turn.
  *upwards(span) {
    for (let at = span; at; at = this.byId.get(at.parent_id)) yield at;
  }

  root(span) {
    return [...this.upwards(span)].at(-1);
  }

  // Everything below a span, in order, with depths.
  *rows(span, depth = 0) {
    yield [span, depth];
    for (const child of this.children(span).sort((one, other) => one.start - other.start)) yield* this.rows(child, depth + 1);
  }

  // The outermost turns of a session, oldest first.
  turns(session) {
    return [...this.byId.values()].filter((span) => !span.parent_id && span.session === session);
  }
}
