// What the page asks the server, and the stream of events that it hears from it.

const STORED = "lagentlike-token";
const given = new URLSearchParams(location.hash.slice(1));

// The token comes after the "#", which no server is sent, and leaves the address at once.
if (given.has("token")) {
  sessionStorage.setItem(STORED, given.get("token"));
  given.delete("token");
  history.replaceState(null, "", location.pathname + (given.size ? `#${given}` : ""));
}

export const hasToken = () => sessionStorage.getItem(STORED) !== null;

const headers = (more = {}) => ({ Authorization: `Bearer ${sessionStorage.getItem(STORED) ?? ""}`, ...more });

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", body } = {}) {
  const response = await fetch(path, {
    method,
    headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response.json();
  throw await refusal(response);
}

async function refusal(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // it said nothing more
  }
  return new Refused(message, response.status);
}

// Hear all events after a place, for good: after a break it goes on where it was.
export async function listen(place, heard, told) {
  let wait = 250;
  for (;;) {
    try {
      const response = await fetch("/ui/events", { headers: headers({ "Last-Event-ID": place }) });
      if (!response.ok) throw await refusal(response);
      told("live");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        wait = 250;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
          if (fields.data === undefined) continue;
          place = fields.id ?? place;
          heard(JSON.parse(fields.data), place);
        }
      }
    } catch (error) {
      if (error.status === 401) return told("refused");
      if (!(error instanceof TypeError || error instanceof Refused || error.name === "AbortError")) console.error(error);
    }
    told("offline");
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(2 * wait, 5000);
  }
}
