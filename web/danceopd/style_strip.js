// The style sheet of the pictures over time.

export const STRIP_STYLE = `
.danceopd > .danceopd-strip { --danceopd-side: 60px; --danceopd-gap: 4px; position: relative; overflow: auto;
  flex: 0 1 auto; min-height: 96px; max-height: 42%; container-type: inline-size; display: grid; align-content: start;
  grid-auto-rows: max-content; column-gap: var(--danceopd-gap);
  grid-template-columns: repeat(var(--danceopd-columns), var(--danceopd-side)); scrollbar-width: thin; }
.danceopd > .danceopd-strip[data-rows="1"] { --danceopd-side: 80px; }
.danceopd > .danceopd-strip[data-rows="2"] { --danceopd-side: 68px; }
.danceopd-strip > * { background: var(--danceopd-ground); }
.danceopd-column { position: sticky; top: 0; z-index: 2; font-size: 10px; line-height: 15px; text-align: center;
  color: color-mix(in srgb, currentColor 75%, transparent); white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
.danceopd-strip > .fixed { position: sticky; z-index: 1;
  left: calc(var(--danceopd-column) * (var(--danceopd-side) + var(--danceopd-gap)));
  box-shadow: var(--danceopd-gap) 0 0 var(--danceopd-ground); }
.danceopd-strip > .danceopd-column.fixed { z-index: 3; }
.danceopd-caption { grid-column: 1 / -1; justify-self: start; position: sticky; left: 0; width: 100cqw;
  display: flex; gap: 6px; font-size: 10.5px; line-height: 15px; white-space: nowrap; overflow: hidden; }
.danceopd-caption > b { font-weight: 600; opacity: 0.85; flex: none; }
.danceopd-caption > span { overflow: hidden; text-overflow: ellipsis; opacity: 0.75; }
.danceopd-cell { height: var(--danceopd-side); margin-bottom: 3px; }
.danceopd .danceopd-picture { display: block; width: 100%; height: 100%; padding: 0; border: 0; border-radius: 4px;
  overflow: hidden; background: var(--danceopd-line); cursor: zoom-in; }
.danceopd-picture > img { display: block; width: 100%; height: 100%; object-fit: contain; }
.danceopd-picture > img.small { image-rendering: pixelated; }
.danceopd-picture:hover > img { filter: brightness(1.12); }
.danceopd.danceopd-wide > .danceopd-strip[data-rows="1"] { --danceopd-side: 220px; }
.danceopd.danceopd-wide > .danceopd-strip[data-rows="2"] { --danceopd-side: 132px; }
.danceopd.danceopd-wide > .danceopd-strip[data-rows="3"] { --danceopd-side: 92px; }
.danceopd.danceopd-wide > .danceopd-strip { max-height: none; min-height: 0; min-width: 0; }
`;
