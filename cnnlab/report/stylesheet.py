"""The look of `report.html`: system fonts, one measure, light and dark, paper."""

STYLESHEET = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #e1e4e8; --paper: #fbfbfa;
  --panel: #f2f3f4; --bar: #0072b2; --warn: #b45309; --good: #00704f;
  --serif: "Iowan Old Style", Charter, "Bitstream Charter", "Palatino Linotype", Palatino, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a0a9b4; --line: #2d3339;
  --paper: #15181b; --panel: #1e2226; --bar: #56b4e9; --warn: #f0a860; --good: #4fc3a1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
.kicker, .aside { color: var(--soft); font-size: .875rem; }
.kicker { margin: 0 0 .6rem; }
h1 { margin: 0 0 1rem; max-width: 46rem; font: 400 2.1rem/1.22 var(--serif); text-wrap: balance;
  overflow-wrap: anywhere; }
h2 { margin: 0 0 .9rem; font: 400 1.5rem/1.25 var(--serif); }
section { margin-top: 3rem; padding-top: 1.4rem; border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
a { color: inherit; text-decoration-color: var(--bar); text-underline-offset: .2em; }
.note { padding-left: .9rem; border-left: 3px solid var(--warn); }
.note.good { border-color: var(--good); }
nav { margin: 1.4rem 0 0; color: var(--soft); font-size: .875rem; }
nav a { display: inline-block; margin-right: 1.1rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 1.1rem 2rem; margin: 1.6rem 0 1.4rem; }
.numbers dt { color: var(--soft); font-size: .8125rem; }
.numbers dd { margin: 0; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.numbers small { display: block; margin-top: .15rem; color: var(--soft); font-size: .8125rem; }
figure { margin: 0 0 1.4rem; padding: .9rem; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin: .7rem 0 0; color: #5b6470; font-size: .875rem; line-height: 1.45; }
.scroll { overflow-x: auto; margin: 0 0 1.6rem; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { padding: 0 0 .5rem; color: var(--soft); text-align: left; font-size: .875rem; }
th, td { padding: .38rem .8rem .38rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: 400; }
thead th { color: var(--soft); font-size: .8125rem; white-space: nowrap; }
tbody th { min-width: 5rem; overflow-wrap: break-word; }
.n { text-align: right; }
td.n { white-space: nowrap; }
th + th, th + td, td + td { padding-left: .8rem; }
td.bar { min-width: 6.5rem; text-align: left; }
td.bar span { display: block; height: 3px; margin-top: .1rem; background: var(--line); border-radius: 2px; }
td.bar i { display: block; height: 3px; background: var(--bar); border-radius: 2px; }
td.bar small, td small { color: var(--soft); }
.facts { columns: 2 24rem; column-gap: 3rem; }
.facts > div { break-inside: avoid; }
.facts th { width: 38%; color: var(--soft); }
.facts td { overflow-wrap: anywhere; }
.facts thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
pre { margin: 0 0 1rem; padding: .8rem 1rem; background: var(--panel); border-radius: 6px; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: .875rem/1.5 var(--mono); }
footer { margin-top: 3rem; color: var(--soft); font-size: .8125rem; }
@media (max-width: 40rem) { h1 { font-size: 1.6rem; } main { padding: 1.5rem 1rem 3rem; } }
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --paper: #fff; --panel: #f5f5f5;
  --bar: #0072b2; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  section { margin-top: 1.6rem; } figure, tr, pre, .numbers { break-inside: avoid; }
  h2 { break-after: avoid; }
  td.bar * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
""".strip()
