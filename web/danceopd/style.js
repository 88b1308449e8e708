// The style sheet of the panel and its smallest height.

export const HEIGHT = 520; // px

export const STYLE = `
.danceopd { --danceopd-line: color-mix(in srgb, currentColor 18%, transparent); --danceopd-blue: #4c9be8;
  --danceopd-ground: var(--component-node-widget-background, var(--comfy-input-bg, #222));
  display: flex; flex-direction: column; gap: 6px; min-height: ${HEIGHT}px; height: 100%; width: 100%; padding: 8px;
  box-sizing: border-box; overflow: hidden auto; scrollbar-width: thin; border-radius: 8px; background: var(--danceopd-ground);
  color: var(--input-text, #ddd); font: 12px/1.35 Inter, system-ui, sans-serif; cursor: default; }
.danceopd [hidden], .danceopd-overlay [hidden] { display: none !important; }
.danceopd-side { display: contents; }
.danceopd-side > *, .danceopd > * { flex: none; order: 4; }
.danceopd-side > :is(.danceopd-title, .danceopd-head, .danceopd-bar) { order: 0; }
.danceopd > .danceopd-plot { order: 1; }
.danceopd-side > :is(.danceopd-routes, .danceopd-facts, .danceopd-query) { order: 2; }
.danceopd > .danceopd-strip { order: 3; }
.danceopd-head { display: flex; align-items: baseline; gap: 7px; white-space: nowrap; }
.danceopd-dot { width: 8px; height: 8px; border-radius: 50%; background: #8b8f98; flex: none; }
.danceopd[data-state=training] .danceopd-dot { background: var(--danceopd-blue); animation: danceopd-pulse 1.6s infinite; }
.danceopd[data-state=opening] .danceopd-dot { background: #c9a92c; animation: danceopd-pulse 1.6s infinite; }
.danceopd:is([data-state=done], [data-state=stopped]) .danceopd-dot { background: #54b884; }
.danceopd[data-state=failed] .danceopd-dot { background: #dd5050; }
.danceopd:is([data-warned=true], [data-state=lost]) .danceopd-dot { background: #e0a030; }
@keyframes danceopd-pulse { 50% { opacity: 0.35; } }
@media (prefers-reduced-motion: reduce) { .danceopd-dot { animation: none !important; } }
.danceopd-state { font-weight: 600; }
.danceopd-message { overflow: hidden; text-overflow: ellipsis; opacity: 0.75; min-width: 0; flex: 1; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-head { flex-wrap: wrap; white-space: normal; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-count { margin-left: auto; }
.danceopd:is([data-state=failed], [data-warned=true]) .danceopd-message { order: 1; flex: 1 0 100%; max-height: 5.5em;
  overflow-y: auto; opacity: 1; white-space: pre-line; }
.danceopd-count { font-variant-numeric: tabular-nums; opacity: 0.85; }
.danceopd-widen { border: 0; padding: 0 3px; border-radius: 4px; background: none; color: inherit; font: 14px/1 sans-serif;
  opacity: 0.65; cursor: pointer; }
.danceopd-widen:hover { opacity: 1; background: var(--danceopd-line); }
.danceopd-bar { height: 4px; border-radius: 2px; background: var(--danceopd-line); overflow: hidden; }
.danceopd-bar > div { height: 100%; width: 0; background: var(--danceopd-blue); }
.danceopd:is([data-state=done], [data-state=stopped]) .danceopd-bar > div { background: #54b884; }
.danceopd[data-state=cancelled] .danceopd-bar > div { background: #8b8f98; }
.danceopd[data-state=failed] .danceopd-bar > div { background: #dd5050; }
.danceopd[data-warned=true] .danceopd-bar > div { background: #e0a030; }
.danceopd > .danceopd-plot { flex: 1 1 0; min-height: 140px; position: relative; }
.danceopd-plot > canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.danceopd-empty { position: absolute; inset: 0; display: flex; flex-direction: column; align-items: center; gap: 8px;
  justify-content: center; padding: 0 28px; text-align: center; pointer-events: none; }
.danceopd-empty > b { font-weight: 600; }
.danceopd-empty > span { opacity: 0.7; }
.danceopd-empty > .danceopd-reason { font-size: 11px; display: -webkit-box; -webkit-box-orient: vertical; overflow: hidden;
  -webkit-line-clamp: 4; line-clamp: 4; overflow-wrap: anywhere; }
.danceopd-empty > .danceopd-reason:empty { display: none; }
.danceopd-routes { display: grid; grid-template-columns: auto minmax(0, 1fr) auto auto; column-gap: 8px;
  font-size: 11px; max-height: 62px; overflow-y: auto; font-variant-numeric: tabular-nums; }
.danceopd-routes > b { width: 14px; border-top: 3px solid; align-self: center; }
.danceopd-routes > b.watched { border-top-style: dashed; border-top-width: 2px; }
.danceopd-routes > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.danceopd-routes > i { font-style: normal; opacity: 0.85; text-align: right; }
.danceopd-facts { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 11px; opacity: 0.9;
  font-variant-numeric: tabular-nums; }
.danceopd-health::before { content: "●"; margin-right: 4px; color: #54b884; }
.danceopd-health[data-health=doubtful]::before { color: #e0a030; }
.danceopd-health:is([data-health=dead], [data-health=broken])::before { color: #dd5050; }
.danceopd-query { font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; opacity: 0.7;
  font-variant-numeric: tabular-nums; }
.danceopd-earlier { font-size: 11px; opacity: 0.85; overflow-wrap: anywhere; user-select: text; }
.danceopd :is(.danceopd-earlier, .danceopd-query, .danceopd-facts, .danceopd-routes, .danceopd-strip,
  .danceopd-end-name, .danceopd-end-facts, .danceopd-end-note):empty { display: none; }
.danceopd-end { display: flex; flex-direction: column; gap: 4px; }
.danceopd-end-name { font-weight: 600; overflow-wrap: anywhere; user-select: text; }
.danceopd-end-name::before { content: "✓ "; color: #54b884; }
.danceopd-end-facts { font-size: 11px; opacity: 0.85; overflow-wrap: anywhere; user-select: text; }
.danceopd-end-note { display: flex; gap: 8px; align-items: center; font-size: 11px; color: #e0b060; }
.danceopd-end-note > span { overflow-wrap: anywhere; user-select: text; flex: 1; }
.danceopd-buttons { display: flex; flex-wrap: wrap; gap: 6px; }
.danceopd-end .danceopd-buttons { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
.danceopd :is(.danceopd-buttons, .danceopd-end-note) > button { flex: 1 1 0; padding: 5px 8px; border-radius: 6px;
  border: 1px solid var(--danceopd-line); background: transparent; color: inherit; font: inherit; cursor: pointer;
  white-space: nowrap; }
.danceopd .danceopd-end-note > button { flex: none; padding: 1px 8px; }
.danceopd-buttons > button.primary { border-color: color-mix(in srgb, var(--danceopd-blue) 60%, transparent);
  background: color-mix(in srgb, var(--danceopd-blue) 22%, transparent); }
.danceopd button:hover:enabled { background: var(--danceopd-line); }
.danceopd button:focus-visible { outline: 2px solid var(--danceopd-blue); outline-offset: 1px; }
.danceopd-buttons > button:disabled { opacity: 0.4; cursor: default; }
.danceopd.danceopd-wide { display: grid; min-height: 0; border-radius: 0; gap: 16px; padding: 10px 14px;
  grid-template: minmax(0, 1fr) / minmax(250px, 1fr) minmax(300px, 1.6fr) minmax(0, 2fr); }
.danceopd-wide:not(:has(.danceopd-strip > *)) { grid-template-columns: minmax(250px, 1fr) minmax(300px, 3fr); }
.danceopd-wide > .danceopd-side { display: flex; flex-direction: column; gap: 7px; overflow-y: auto; min-height: 0; order: 0; }
.danceopd-wide .danceopd-routes { max-height: none; }
.danceopd-wide .danceopd-query { white-space: normal; }
.danceopd-title { font-size: 13px; font-weight: 600; opacity: 0.85; }
.danceopd.danceopd-wide > .danceopd-plot { min-height: 0; }
`;
