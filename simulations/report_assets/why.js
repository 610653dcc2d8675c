// Why a run had the count it had at one time: the arithmetic of that tick's decision, and what was
// seen.

import { ABSENT, make, reconcile, setText, words } from "./dom.js";
import { ELAPSED, nearest } from "./scales.js";
import { staged } from "./simulation_tables.js";

const EMPTY = "Click a time in the charts, or a row of the tables below: the arithmetic of the decision made then is shown here.";
const WORST = "The worst moment of the run. Click any other time in the charts, or a row of the tables below.";

/** What is known of one time, at first of the worst one; nothing where no time is chosen. */
export class Why {
  constructor(data, seen) {
    Object.assign(this, { data, lines: seen, worst: worstPlace(data) });
    this.title = make("h2", { text: "Why this number" });
    this.empty = make("p", { cls: "quiet", text: EMPTY });
    this.stage = make("p");
    this.values = make("dl", { cls: "facts" });
    this.steps = make("ol", { cls: "steps" });
    this.proposals = make("ul", { cls: "asks" });
    this.element = make("aside", { cls: "why", kids: [this.title, this.empty, this.stage, this.steps, this.proposals, this.values] });
  }

  show(place) {
    const { data } = this;
    const { records } = data;
    for (const part of [this.stage, this.steps, this.proposals, this.values]) part.hidden = place === null;
    setText(this.title, place === null ? "Why this number" : `Why, at ${ELAPSED.full(data.at_s[place])}`);
    setText(this.empty, place !== null && place === this.worst ? WORST : EMPTY);
    if (place === null) return;
    this.stage.replaceChildren("Decided by ", staged(data.stages[data.stage[place]]));
    this.facts(place);
    const lines = records?.at_s.length ? account(records, data.at_s[place], data.tick_s) : [];
    const [first, ...rest] = lines;
    const steps = rest.filter((line) => /^\s+\d+ {2}/.test(line));
    reconcile(this.steps, first ? [first, ...steps] : ["This policy gives no account of its decisions."], () => make("li"), setText);
    reconcile(this.proposals, rest.filter((line) => !steps.includes(line)), () => make("li"), (item, line) => setText(item, line.trim()));
  }

  facts(place) {
    const rows = this.lines.filter(({ column }) => this.data.columns[column]).map(({ column, label, format }) => [label, this.data.columns[column][place], format]);
    reconcile(this.values, rows, () => make("div", { kids: [make("dt"), make("dd")] }), (item, [label, value, format]) => {
      setText(item.firstElementChild, words(label));
      setText(item.lastElementChild, Number.isNaN(value) ? ABSENT : format(value));
    });
  }
}

/** Where the first token took longest, the first of them. */
function worstPlace({ columns: { ttft_p95_s: ttft } }) {
  let worst = null;
  for (let place = 0; place < ttft.length; place += 1) {
    if (!Number.isNaN(ttft[place]) && (worst === null || ttft[place] > ttft[worst])) worst = place;
  }
  return worst;
}

/** The daemon's own words for the decision nearest to a time, put together again. */
function account(records, at_s, tick_s) {
  const place = nearest(records.at_s, at_s);
  const numbered = records.numbers[place].split(" ");
  let next = 0;
  const text = records.words[records.word[place]].replaceAll("\0", () => numbered[next++]);
  const lines = text.split("\n");
  if (Math.abs(records.at_s[place] - at_s) > tick_s / 2) {
    lines.push(`(the account nearest to that time, of ${ELAPSED.full(records.at_s[place])})`);
  }
  return lines;
}
