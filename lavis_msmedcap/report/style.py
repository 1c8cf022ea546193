"""The look of a report."""

from __future__ import annotations

STYLE = """\
:root {
  color-scheme: light dark;
  --page: #f4f6f7; --card: #ffffff; --ink: #18222b; --soft: #55636f; --line: #d9e0e5;
  --accent: #0b6b74; --tint: #d8eff0; --good: #17693a; --bad: #a3301f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1418; --card: #181f25; --ink: #e4eaee; --soft: #9caab5; --line: #2b363f;
    --accent: #6ccbd3; --tint: #17393d; --good: #74cf98; --bad: #f2937f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 84rem; padding: 1.5rem clamp(0.9rem, 3vw, 2.5rem) 3rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0 0 0.75rem; font-size: clamp(1.4rem, 1rem + 2vw, 2rem); line-height: 1.2; }
h2 { margin: 2.25rem 0 0.75rem; font-size: 1.2rem; line-height: 1.3; }
h1, .meta, .caption, .reference, dd, code { overflow-wrap: anywhere; }
p { margin: 0; }
code { font-size: 0.8125rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0.5rem 1.75rem; margin: 0; }
.facts dt, .label { color: var(--soft); font-size: 0.8125rem; }
.facts dd { margin: 0; font-weight: 600; }
.small, .notes { color: var(--soft); font-size: 0.875rem; }
.notes { margin: 0.75rem 0 0; padding-left: 1.2rem; }
.tiles {
  display: grid; gap: 0.75rem; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr));
}
.tile {
  display: flex; flex-direction: column; padding: 0.8rem 1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
.tile .value { font-size: 1.75rem; font-weight: 650; line-height: 1.25; }
.tile .value, td { font-variant-numeric: tabular-nums; }
.tile .target, .tile .detail { font-size: 0.875rem; }
.tile .detail { color: var(--soft); margin-top: 0.25rem; }
.reached, .missed { border-left-width: 4px; min-width: 0; overflow-wrap: anywhere; }
.reached { border-left-color: var(--good); }
.reached b { color: var(--good); }
.missed { border-left-color: var(--bad); }
.missed b { color: var(--bad); }
.scroll {
  overflow-x: auto; margin-bottom: 0.75rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
table { border-collapse: collapse; width: 100%; font-size: 0.9375rem; }
th, td { padding: 0.5rem 0.8rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; font-size: 0.8125rem; }
tbody tr { border-top: 1px solid var(--line); }
.small + .grid { margin-top: 0.9rem; }
.grid {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr));
}
.card {
  padding: 0 0 0.9rem; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
.card p { padding: 0 0.9rem; }
.frame { background: #000; }
.frame img { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; }
.frame.none {
  display: grid; place-items: center; aspect-ratio: 1;
  background: var(--page); color: var(--soft); font-size: 0.875rem;
}
.meta {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 0.75rem;
  margin: 0.6rem 0 0.5rem; color: var(--soft); font-size: 0.8125rem;
}
.caption { margin-bottom: 0.6rem; }
.caption.none { color: var(--soft); font-style: italic; }
.reference { color: var(--soft); }
.reference + .reference { margin-top: 0.35rem; }
mark {
  background: var(--tint); color: inherit; border-radius: 0.2em;
  box-shadow: 0 0 0 0.12em var(--tint); box-decoration-break: clone;
  -webkit-box-decoration-break: clone;
}
.other-side { font-style: normal; text-decoration: underline wavy var(--bad) 1.5px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print {
  body { max-width: none; padding: 0; }
  .card, .tile { break-inside: avoid; }
}
"""
