// Why one decision came to its number: the steps, what each signal asked for, what was known.

import { ABSENT, duration, make, number, percent, reconcile, setAttr, setText, words } from "./dom.js";

const SIGNALS = ["work", "forecast", "queue", "kv_cache", "ttft", "itl", "gpu"];
const TITLE = "Why this number";

export class Why {
  constructor(url) {
    this.url = url;
    this.title = make("h2", { text: TITLE });
    this.steps = make("ol", { cls: "steps" });
    this.proposals = make("tbody");
    this.facts = make("dl", { cls: "facts" });
    this.record = make("pre", { attrs: { tabindex: "0" } });
    this.raw = make("a", { text: "JSON", attrs: { href: url } });
    this.element = make("section", {
      cls: "why",
      kids: [
        this.title, this.steps,
        make("h2", { text: "What each signal alone would ask for" }), this.buildProposals(),
        make("h2", { text: "What was known" }), this.facts,
        make("details", { kids: [make("summary", { text: "The explanation as text" }), this.record, this.raw] }),
      ],
    });
  }

  buildProposals() {
    const heads = [["Signal", ""], ["Replicas", "num"], ["From", ""]];
    const row = make("tr", {
      kids: heads.map(([text, cls]) => make("th", { cls, text, attrs: { scope: "col" } })),
    });
    return make("table", { cls: "proposals", kids: [make("thead", { kids: [row] }), this.proposals] });
  }

  /** The decision of an answer, the latest or a past one; hidden where there is none. */
  fill({ decision, steps, explanation }, title = TITLE, url = this.url) {
    this.element.hidden = !decision;
    setText(this.title, title);
    setAttr(this.raw, "href", url);
    const bound = decision?.steps[0]?.stage; // the flow begins with the signal that bound
    const last = steps.length - 1;
    reconcile(this.steps, steps, () => make("li", { kids: [make("b"), make("span")] }), (line, step) => {
      setText(line.firstElementChild, String(step.replicas));
      setText(line.lastElementChild, step.reason);
      line.classList.toggle("final", step === steps[last]);
    });
    reconcile(this.proposals, proposals(decision), makeProposal, (row, item) => fillProposal(row, item, bound));
    reconcile(this.facts, facts(decision), makeFact, fillFact);
    setText(this.record, explanation.join("\n"));
  }
}

/** Every signal in the order of the flow, with its proposal or why it has none; rows stay in place. */
function proposals(decision) {
  if (!decision) return [];
  const found = new Map(decision.blind.map((item) => [item.signal, item]));
  for (const proposal of decision.proposals) found.set(proposal.signal, proposal);
  const place = ({ signal }) => SIGNALS.indexOf(signal);
  return [...found.values()].sort((a, b) => place(a) - place(b));
}

function makeProposal() {
  const terms = make("td", { cls: "terms" });
  const name = make("th", { attrs: { scope: "row" }, kids: [make("span"), make("small")] });
  return make("tr", { kids: [name, make("td", { cls: "num" }), terms] });
}

function fillProposal(row, { signal, replicas, terms, cause }, bound) {
  const [name, size, from] = row.children;
  setText(name.firstElementChild, words(signal));
  setText(name.lastElementChild, signal === bound ? "binds" : "");
  setText(size, replicas === undefined ? ABSENT : String(replicas));
  const items = terms ? terms.map(([term, value]) => [label(term), amount(term, value)]) : [["not seen", words(cause)]];
  reconcile(from, items, () => make("span", { kids: [make("i"), make("b")] }), (span, [term, value]) => {
    setText(span.firstElementChild, `${term} `);
    setText(span.lastElementChild, value);
  });
  row.classList.toggle("bound", signal === bound);
  row.classList.toggle("blind", !terms);
}

/** `lead_s` -> `lead`; the unit goes to the value. */
function label(term) {
  return words(term.replace(/_(per_s|ratio|s)$/, (unit) => (unit === "_per_s" ? "_per_s" : "")));
}

function amount(term, value) {
  if (term.endsWith("_ratio")) return percent(value);
  if (term.endsWith("_s") && !term.endsWith("_per_s")) return `${number(value)} s`;
  return number(value);
}

/** Demand, capacity and forecast in a few lines: name, value. */
function facts(decision) {
  if (!decision) return [];
  const { demand, capacity, forecast } = decision;
  return [
    ["Arrivals", demand ? `${number(demand.requests_per_s)} requests/s` : ABSENT],
    ["Mean request", demand ? `${number(demand.prompt_tokens_per_request)} prompt, ${number(demand.output_tokens_per_request)} output tokens` : ABSENT],
    ["Prefix cache", demand ? `${percent(demand.cached_ratio)} of prompt tokens` : ABSENT],
    ["A request costs", capacity ? costs(capacity) : ABSENT],
    ["A replica carries", capacity ? carries(capacity) : ABSENT],
    ["Forecast", forecast ? expects(forecast) : ABSENT],
    ["Active", decision.active ? "yes" : "no: may go to zero"],
    ["Policy", decision.policy_version],
  ];
}

function costs({ request_cost_s: cost, request_cost_low_s: low, request_cost_high_s: high }) {
  return `${number(cost)} s of a replica (${number(low)} to ${number(high)})`;
}

function carries({ load_max_ratio: busy, request_cost_s: cost, evidence_s: evidence }) {
  return `${number(busy / cost)} requests/s within the objectives, learned from ${duration(evidence)} of replica time`;
}

function expects({ lead_s: lead, load_mean: mean, load_upper: upper, skill, used }) {
  const trust = used ? "in use" : "no better than the last value, which is used instead";
  return `${number(mean)} replicas' worth in ${duration(lead)}, at most ${number(upper)}; skill ${number(skill)}, ${trust}`;
}

function makeFact() {
  return make("div", { kids: [make("dt"), make("dd")] });
}

function fillFact(fact, [name, value]) {
  setText(fact.firstElementChild, name);
  setText(fact.lastElementChild, value);
}
