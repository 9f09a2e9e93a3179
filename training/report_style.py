"""How the report looks. Colours are named once for light and once for dark; pictures use the same names."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f6f7f9; --ink: #1b2330; --soft: #5b6675; --grid: #d9dee5; --accent: #1f6feb;
  --alert: #b42318; --alert-paper: #fef1ef; --right: 31, 111, 235; --wrong: 200, 60, 30;
  --series-0: #1f6feb; --series-1: #c2410c; --series-2: #15803d; --series-3: #9333ea;
  --series-4: #b58900; --series-5: #0e7490; --series-6: #be185d; --series-7: #57534e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --raised: #1b212a; --ink: #e5e9f0; --soft: #9aa7b8; --grid: #333d4a; --accent: #6ea8fe;
    --alert: #ff9b8e; --alert-paper: #34201d; --right: 88, 150, 255; --wrong: 255, 120, 90;
    --series-0: #6ea8fe; --series-1: #fb923c; --series-2: #4ade80; --series-3: #c084fc;
    --series-4: #facc15; --series-5: #22d3ee; --series-6: #f472b6; --series-7: #a8a29e;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
section { margin-top: 2.5rem; padding-top: 1.6rem; border-top: 1px solid var(--grid); }
section > p { color: var(--soft); margin: 0 0 1rem; max-width: 48rem; }
header p { margin: 0 0 .5rem; max-width: 56rem; overflow-wrap: anywhere; }
header .kind { color: var(--soft); font-size: .85rem; letter-spacing: .04em; margin: 0; }
.warning { background: var(--alert-paper); border-left: 4px solid var(--alert); padding: .55rem .9rem;
  border-radius: 0 6px 6px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 1rem; margin-top: 1.5rem; }
.tile { background: var(--raised); border-radius: 10px; padding: 1rem 1.2rem; min-width: 0; overflow-wrap: anywhere; }
.tile .name, .tile .note { color: var(--soft); font-size: .85rem; }
.tile .value { font-size: 1.9rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--grid); text-align: right; vertical-align: top; }
th:first-child, .texts td, .texts th, .pairs :nth-child(2) { text-align: left; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 8rem; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.matrix td, .matrix thead th { padding: 0 2px 2px 0; border: 0; }
.matrix tbody th { border: 0; padding-right: .8rem; vertical-align: middle; }
.matrix thead th { padding: 0 .5rem .4rem .3rem; max-width: 9rem; overflow-wrap: anywhere; }
.matrix td span { display: block; min-width: 4.2rem; padding: .4rem .6rem; border-radius: 4px;
  background: var(--raised); position: relative; z-index: 0; overflow: hidden; }
.matrix td span::before { content: ""; position: absolute; inset: 0; z-index: -1; }
.matrix .right::before { background: rgb(var(--right)); opacity: calc(var(--part) * .45); }
.matrix .wrong::before { background: rgb(var(--wrong)); opacity: calc(var(--part) * .6); }
.bars table { width: 100%; }
.bars td:nth-child(2), .bars th:nth-child(2) { width: 60%; text-align: left; vertical-align: middle; }
.bar { display: block; height: .8rem; width: var(--part); min-width: 1px; border-radius: 3px;
  background: var(--accent); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
svg { width: 100%; max-width: 22rem; height: auto; display: block; stroke-linejoin: round; }
.key { list-style: none; padding: 0; margin: 0 0 1rem; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem;
  font-size: .9rem; }
.key li { display: flex; align-items: center; gap: .5rem; min-width: 0; overflow-wrap: anywhere; }
.swatch { width: 1.4rem; height: .3rem; border-radius: 2px; flex: none; }
details p { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); }
@media print { :root { --paper: #fff; } section { break-inside: avoid; } }
"""
