// Formats numbers for the panel and chooses the ticks of its axes. No page and no server.

// About `count` round numbers from low to high, in steps of 1, 2 or 5 times a power of ten.
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const exact = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(exact));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= exact);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high + step * 1e-9; i += 1) values.push(i * step);
  return values;
}

// Ticks of a logarithmic axis: powers of ten, and multiples of them as far as at most `count` ticks result.
export function logTicks(low, high, count) {
  for (const factors of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      values.push(...factors.map((factor) => factor * 10 ** power).filter((tick) => tick >= low && tick <= high));
    }
    if (values.length <= count || factors.length === 1) return values.length ? values : [low];
  }
  return [];
}

// 0.0123, 1.5e-5, 12.3: at most three significant digits.
export function numberText(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

// 0:07, 12:30, 1:02:03.
export function durationText(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  const whole = Math.round(seconds);
  const padded = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${padded(minutes)}:${padded(whole % 60)}` : `${minutes}:${padded(whole % 60)}`;
}

// 850 MB, 11.2 GB.
export function memoryText(megabytes) {
  if (!(megabytes > 0)) return "–";
  return megabytes < 1000 ? `${Math.round(megabytes)} MB` : `${(megabytes / 1024).toFixed(1)} GB`;
}

// 12 kB, 3.4 MB, 1.2 GB: of files.
export function sizeText(bytes) {
  if (!Number.isFinite(bytes) || bytes < 0) return "–";
  const power = Math.min(3, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${power && value < 100 ? Number(value.toPrecision(2)) : Math.round(value)} ${["B", "kB", "MB", "GB"][power]}`;
}

// 41 %, 7.3 %: of the start.
export function percentText(value) {
  if (!Number.isFinite(value)) return "–";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

// The query distribution, [sigma, share] from noise to clean, as "0.98: 4 % · 0.93: 9 %".
export function queryText(distribution) {
  const part = ([sigma, share]) => `${Number(sigma.toPrecision(2))}: ${Math.round(100 * share)} %`;
  return distribution.map(part).join(" · ");
}
