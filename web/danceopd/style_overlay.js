// The style sheet of dialogs over the page: the enlarged picture and the list of runs.

export const OVERLAY_STYLE = `
.danceopd-overlay { position: fixed; inset: 0; z-index: 10000; display: flex; align-items: center; justify-content: center;
  background: rgba(0, 0, 0, 0.72); font: 13px/1.4 Inter, system-ui, sans-serif; color: #ddd; }
.danceopd-overlay [hidden] { display: none !important; }
.danceopd-dialog { display: flex; flex-direction: column; max-width: 94vw; max-height: 94vh; box-sizing: border-box;
  padding: 12px 16px; border-radius: 10px; background: #1c1d20; border: 1px solid #3a3c42; outline: none; }
.danceopd-dialog-head { display: flex; align-items: center; gap: 16px; font-weight: 600; margin-bottom: 8px; }
.danceopd-dialog-head > span { flex: 1; }
.danceopd-dialog-body { display: flex; flex-direction: column; gap: 8px; min-height: 0; }
.danceopd-overlay button { padding: 4px 10px; border: 1px solid #4a4d55; border-radius: 6px; background: transparent;
  color: inherit; font: inherit; cursor: pointer; }
.danceopd-overlay button:hover:enabled { background: #34363c; }
.danceopd-overlay button:focus-visible { outline: 2px solid #4c9be8; }
.danceopd-overlay .danceopd-close { border: 0; font-size: 15px; }
.danceopd-lightbox-caption { max-width: 88vw; overflow-wrap: anywhere; }
.danceopd-lightbox-caption > b { margin-right: 8px; color: #9cc7f2; }
.danceopd-compare { position: relative; align-self: center; overflow: hidden; border-radius: 6px; cursor: ew-resize;
  touch-action: none; background: #000; user-select: none; }
.danceopd-compare > img { display: block; height: min(62vh, 88vw); max-width: 88vw; object-fit: contain; }
.danceopd-compare.small > img { image-rendering: pixelated; }
.danceopd-compare > .before { position: absolute; inset: 0; width: 100%; height: 100%; }
.danceopd-divider { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 4px #000; }
.danceopd-divider::after { content: "⇔"; position: absolute; top: 50%;
  transform: translate(calc(-1% * var(--danceopd-position)), -50%);
  padding: 1px 7px; border-radius: 12px; background: #fff; color: #222; font-size: 14px; }
.danceopd-tag { position: absolute; top: 8px; padding: 1px 8px; border-radius: 4px; background: rgba(0, 0, 0, 0.65);
  font-size: 12px; pointer-events: none; transition: opacity 0.15s; }
.danceopd-tag.left { left: 8px; }
.danceopd-tag.right { right: 8px; }
.danceopd-lightbox input[type=range] { width: 100%; accent-color: #4c9be8; }
.danceopd-filmstrip { display: flex; gap: 6px; overflow-x: auto; max-width: 88vw; padding-bottom: 4px; flex: none; }
.danceopd-overlay .danceopd-filmstrip > button { flex: none; display: flex; flex-direction: column; align-items: center;
  gap: 2px; padding: 3px; font-size: 11px; color: #bbb; border-color: transparent; }
.danceopd-overlay .danceopd-filmstrip > button.chosen { border-color: #4c9be8; color: #fff; }
.danceopd-filmstrip img { display: block; height: 56px; border-radius: 3px; }
.danceopd-keys { font-size: 11px; opacity: 0.6; }
.danceopd-runs .danceopd-dialog { width: min(640px, 94vw); }
.danceopd-runs p { margin: 0; opacity: 0.8; font-size: 12px; }
.danceopd-runs-table { overflow-y: auto; }
.danceopd-run { display: flex; align-items: center; gap: 12px; padding: 7px 2px; border-top: 1px solid #33353b; }
.danceopd-run-name { flex: 1; min-width: 0; display: flex; flex-direction: column; overflow-wrap: anywhere; }
.danceopd-run-name > small { opacity: 0.65; }
.danceopd-run-size { font-variant-numeric: tabular-nums; white-space: nowrap; }
.danceopd-run-fault { color: #f09090; max-width: 40%; font-size: 12px; }
.danceopd-overlay button.danger { border-color: #dd5050; background: #6d2929; color: #fff; }
`;
