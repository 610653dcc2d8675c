// A table that sorts by any column, and can be searched.

import { ABSENT, make, setAttr, setText } from "./dom.js";

const COLLATOR = new Intl.Collator("en", { numeric: true });
const ROWS_FIRST = 200; // more than that are shown on request: a table of thousands stays quick

/**
 * `columns`: `name`, `label`, `hint`, `num`, `wrap` (long words), `format` (value, row) -> text or element.  `rows` are
 * objects; `cls` and `data` of a row become its class and data attributes.  `chosen` is called with
 * a row that is clicked; `limit` rows are shown at first.
 */
export class Table {
  constructor({ columns, rows, sort = null, chosen = null, label, limit = ROWS_FIRST }) {
    Object.assign(this, { columns, rows, chosen, limit });
    [this.sort, this.sign] = sort ? [sort.replace("-", ""), sort.startsWith("-") ? -1 : 1] : [null, 1];
    this.heads = columns.map((column) => this.head(column));
    this.body = make("tbody");
    this.more = make("button", { cls: "tool more", attrs: { type: "button", hidden: "" } });
    this.more.addEventListener("click", () => this.all());
    this.table = make("table", {
      cls: "data", attrs: { "aria-label": label },
      kids: [make("thead", { kids: [make("tr", { kids: this.heads })] }), this.body],
    });
    this.element = make("div", { cls: "tabled", kids: [this.table, this.more] });
    this.show(rows);
  }

  head({ name, label, hint = "", num }) {
    const button = make("button", { cls: "sort", text: label, attrs: { type: "button", title: hint || label } });
    button.addEventListener("click", () => {
      this.sign = this.sort === name ? -this.sign : 1;
      this.sort = name;
      this.render();
    });
    return make("th", { cls: num ? "num" : "", attrs: { scope: "col", "data-name": name }, kids: [button] });
  }

  /** Shows these rows instead. */
  show(rows) {
    this.rows = rows;
    this.render();
  }

  /** Shows every row. */
  all() {
    this.limit = Infinity;
    this.render();
  }

  render() {
    const ordered = this.sort ? [...this.rows].sort((a, b) => compare(a[this.sort], b[this.sort], this.sign)) : this.rows;
    this.heads.forEach((head, place) => {
      const mine = this.columns[place].name === this.sort;
      setAttr(head, "aria-sort", mine ? (this.sign < 0 ? "descending" : "ascending") : null);
    });
    this.body.replaceChildren(...ordered.slice(0, this.limit).map((row) => this.row(row)));
    this.more.hidden = ordered.length <= this.limit;
    setText(this.more, `Show all ${ordered.length} rows`);
  }

  row(row) {
    const cells = this.columns.map(({ name, num, wrap, format }) => {
      const value = row[name];
      const shown = value === null || value === undefined ? ABSENT : (format ? format(value, row) : String(value));
      return make("td", { cls: [num ? "num" : "", wrap ? "wrap" : ""].join(" ").trim(), attrs: { "data-name": name }, kids: [shown] });
    });
    const line = make("tr", { cls: row.cls ?? "", kids: cells });
    Object.assign(line.dataset, row.data);
    if (!this.chosen) return line;
    line.tabIndex = 0;
    line.classList.add("link");
    line.addEventListener("click", () => String(getSelection()) || this.chosen(row));
    line.addEventListener("keydown", (event) => event.key === "Enter" && this.chosen(row));
    return line;
  }
}

/** Smaller first; what is not known last in either direction. */
function compare(a, b, sign) {
  const [lacksA, lacksB] = [a, b].map((value) => value === null || value === undefined || Number.isNaN(value));
  if (lacksA || lacksB) return lacksA - lacksB;
  return sign * (typeof a === "string" ? COLLATOR.compare(a, b) : a - b);
}
