import { createHash } from "node:crypto";

/** All of the page's style. Each colour of a text has a contrast of at least 4.5 to what is behind it, in both schemes. */
export const STYLE = `
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1b2129;--quiet:#56606d;--edge:#d5dae1;--accent:#1f5fbf;
--ok:#116329;--ok-back:#dcf3e2;--attention:#754a00;--attention-back:#fcefcb;--down:#a40e26;--down-back:#fde3e5;
--unknown:#4b5563;--unknown-back:#e6e9ee;--area:#1f5fbf22}
@media (prefers-color-scheme:dark){:root{--back:#0f1318;--card:#181e25;--text:#e7ebf0;--quiet:#a3adba;--edge:#313a45;
--accent:#82b1ff;--ok:#7be495;--ok-back:#12351f;--attention:#f5cd6b;--attention-back:#3a2d0b;--down:#ff9aa2;
--down-back:#45141b;--unknown:#c3cad4;--unknown-back:#2b333d;--area:#82b1ff2b}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
a{color:var(--accent)}
a:focus-visible,button:focus-visible,input:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.skip{position:absolute;left:-100vw}.skip:focus{left:1rem;top:.5rem;background:var(--card);padding:.25rem .75rem}
header,main,footer{max-width:75rem;margin:0 auto;padding:1rem}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem 1rem}
header>div:first-child{flex:1 1 18rem}
h1{font-size:1.4rem;margin:0;line-height:1.25}h2{font-size:1.05rem;margin:0 0 .75rem}
header p{margin:.1rem 0 0}.quiet,footer,.axis,.top,.bottom{color:var(--quiet)}
.quiet,footer{font-size:.9rem}p{margin:.5rem 0}
button,.button{font:inherit;line-height:1.5;padding:.45rem .9rem;border:1px solid var(--edge);border-radius:.4rem;
background:var(--card);color:var(--text);cursor:pointer;text-decoration:none;display:inline-block}
button:hover,.button:hover{border-color:var(--accent)}
.actions{display:flex;gap:.5rem;align-items:center}.actions form{margin:0}
main{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr);padding-top:0}
@media (min-width:56rem){main{grid-template-columns:repeat(2,minmax(0,1fr))}.wide{grid-column:1/-1}}
section{background:var(--card);border:1px solid var(--edge);border-radius:.6rem;padding:1rem;min-width:0}
.verdict{display:flex;gap:.75rem;align-items:baseline;flex-wrap:wrap;border-left-width:.4rem}
.verdict p{margin:0}
.verdict.ok{border-left-color:var(--ok)}.verdict.attention{border-left-color:var(--attention)}
.verdict.down{border-left-color:var(--down)}.verdict.unknown{border-left-color:var(--unknown)}
.state{display:inline-block;font-size:.85rem;font-weight:600;padding:.05rem .55rem;border-radius:1rem;white-space:nowrap}
.state.ok{color:var(--ok);background:var(--ok-back)}.state.attention{color:var(--attention);background:var(--attention-back)}
.state.down{color:var(--down);background:var(--down-back)}.state.unknown{color:var(--unknown);background:var(--unknown-back)}
.parts{list-style:none;margin:0;padding:0}
.parts li{display:grid;grid-template-columns:6.5rem 8rem minmax(0,1fr);gap:0 .75rem;padding:.45rem 0;border-top:1px solid var(--edge)}
.parts li:first-child{border-top:0}.parts b{font-weight:600}
.parts .state{justify-self:start;align-self:start}
@media (max-width:40rem){.parts li{grid-template-columns:6.5rem minmax(0,1fr)}.parts li>:last-child{grid-column:1/-1}}
.todo{display:block;color:var(--quiet);font-size:.9rem}
code{font:0.9em ui-monospace,monospace}
.scroll{overflow-x:auto;max-height:30rem;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.95rem}
caption{text-align:left;color:var(--quiet);font-size:.9rem;padding-bottom:.35rem}
th,td{overflow-wrap:break-word;text-align:left;padding:.3rem .75rem .3rem 0;vertical-align:top;border-top:1px solid var(--edge)}
th{font-weight:600;white-space:nowrap}thead th{border-top:0;color:var(--quiet);font-size:.85rem}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.n,th.n{padding-right:1.25rem}td:last-child,th:last-child{padding-right:0}td:first-child{min-width:5.5rem}td.m{max-width:16rem}td.w{min-width:5rem;width:40%}
td.t{white-space:nowrap}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));gap:.75rem;margin:0}
dt{color:var(--quiet);font-size:.85rem}dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums}
.missing{display:flex;gap:.6rem;align-items:baseline;margin:.25rem 0}
.plot{margin:1rem 0 0}.plot+.scroll,dl+.scroll,p+.scroll{margin-top:1rem}
figcaption{display:flex;justify-content:space-between;gap:1rem;font-size:.95rem}
.frame{position:relative;margin-top:.25rem}.frame svg{display:block;width:100%;height:7.5rem}
.top,.bottom{position:absolute;left:.25rem;font-size:.75rem;background:var(--card);padding:0 .2rem;border-radius:.2rem}
.top{top:.35rem}.bottom{bottom:.35rem}
.axis{display:flex;justify-content:space-between;font-size:.8rem;margin:.1rem 0 0}
.grid{stroke:var(--edge);stroke-width:1;fill:none;vector-effect:non-scaling-stroke}
.area{fill:var(--area)}.line{fill:none;stroke:var(--accent);stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.bar{display:block;width:100%;height:.6rem;margin-top:.45rem}.bar .rest{fill:var(--edge)}.bar .part{fill:var(--accent)}
.enter{max-width:30rem;margin:10vh auto 0;grid-column:1/-1;width:100%}
.enter label{display:block;font-weight:600;margin-top:.75rem}
.enter input{font:inherit;width:100%;padding:.5rem .6rem;margin:.3rem 0 1rem;border:1px solid var(--quiet);border-radius:.4rem;
background:var(--back);color:var(--text)}
.enter button{background:var(--accent);color:var(--card);border-color:var(--accent);font-weight:600}
.notice{border-left:.3rem solid var(--down);padding-left:.75rem}
`;

/** What a browser may do with the page: show it with this style, and send its forms back. It loads and runs nothing. */
export const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`,
  "img-src data:",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");
