// The style sheet of the panel and its smallest height.

export const HEIGHT = 400; // px

export const STYLE = `
.danceopd { --danceopd-line: color-mix(in srgb, currentColor 18%, transparent);
  display: flex; flex-direction: column; gap: 6px; min-height: ${HEIGHT}px; height: 100%; width: 100%; padding: 8px;
  box-sizing: border-box; overflow: hidden; border-radius: 8px;
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222));
  color: var(--input-text, #ddd); font: 12px/1.35 Inter, system-ui, sans-serif; cursor: default; }
.danceopd > * { flex: none; }
.danceopd-head { display: flex; align-items: baseline; gap: 7px; white-space: nowrap; }
.danceopd-dot { width: 8px; height: 8px; border-radius: 50%; background: #8b8f98; flex: none; }
.danceopd[data-state=training] .danceopd-dot { background: #4c9be8; animation: danceopd-pulse 1.6s infinite; }
.danceopd[data-state=opening] .danceopd-dot { background: #c9a92c; animation: danceopd-pulse 1.6s infinite; }
.danceopd[data-state=done] .danceopd-dot, .danceopd[data-state=stopped] .danceopd-dot { background: #54b884; }
.danceopd[data-state=failed] .danceopd-dot { background: #dd5050; }
.danceopd[data-warned=true] .danceopd-dot, .danceopd[data-state=lost] .danceopd-dot { background: #e0a030; }
@keyframes danceopd-pulse { 50% { opacity: 0.35; } }
@media (prefers-reduced-motion: reduce) { .danceopd-dot { animation: none !important; } }
.danceopd-state { font-weight: 600; }
.danceopd-message { overflow: hidden; text-overflow: ellipsis; opacity: 0.75; min-width: 0; flex: 1; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-head { flex-wrap: wrap; white-space: normal; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-count { margin-left: auto; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-message { order: 1; flex: 1 0 100%; max-height: 5.5em;
  overflow-y: auto; opacity: 1; white-space: pre-line; }
.danceopd-count { font-variant-numeric: tabular-nums; opacity: 0.85; }
.danceopd-bar { height: 4px; border-radius: 2px; background: var(--danceopd-line); overflow: hidden; }
.danceopd-bar > div { height: 100%; width: 0; background: #4c9be8; }
.danceopd[data-state=done] .danceopd-bar > div,
.danceopd[data-state=stopped] .danceopd-bar > div { background: #54b884; }
.danceopd[data-state=cancelled] .danceopd-bar > div { background: #8b8f98; }
.danceopd[data-state=failed] .danceopd-bar > div { background: #dd5050; }
.danceopd[data-warned=true] .danceopd-bar > div { background: #e0a030; }
.danceopd-plot { flex: 1 1 0; min-height: 150px; position: relative; }
.danceopd-plot > canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.danceopd-empty { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center;
  padding: 0 28px; text-align: center; opacity: 0.65; pointer-events: none; }
.danceopd-routes { display: grid; grid-template-columns: auto minmax(0, 1fr) auto auto; column-gap: 8px;
  font-size: 11px; max-height: 62px; overflow-y: auto; font-variant-numeric: tabular-nums; }
.danceopd-routes > b { width: 10px; height: 3px; border-radius: 2px; align-self: center; }
.danceopd-routes > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.danceopd-routes > i { font-style: normal; opacity: 0.8; text-align: right; }
.danceopd-facts { display: flex; gap: 14px; font-size: 11px; opacity: 0.85; font-variant-numeric: tabular-nums; }
.danceopd-query { font-size: 11px; max-height: 2.7em; overflow: hidden; opacity: 0.7;
  font-variant-numeric: tabular-nums; }
.danceopd-earlier { font-size: 11px; opacity: 0.85; overflow-wrap: anywhere; user-select: text; }
.danceopd-earlier:empty, .danceopd-query:empty, .danceopd-facts:empty, .danceopd-routes:empty, .danceopd-pictures:empty { display: none; }
.danceopd-pictures { display: flex; gap: 4px; overflow-x: auto; }
.danceopd-pictures > a { flex: none; line-height: 0; border-radius: 4px; overflow: hidden; }
.danceopd-pictures img { height: 64px; min-width: 40px; background: var(--danceopd-line); }
.danceopd-pictures img.small { image-rendering: pixelated; }
.danceopd-buttons { display: flex; gap: 6px; }
.danceopd-buttons > button { flex: 1; padding: 5px 8px; border: 1px solid var(--danceopd-line); border-radius: 6px;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
.danceopd-buttons > button:hover:enabled { background: var(--danceopd-line); }
.danceopd-buttons > button:focus-visible { outline: 2px solid #4c9be8; outline-offset: 1px; }
.danceopd-buttons > button:disabled { opacity: 0.4; cursor: default; }
`;
