// Asks the server for an estimate of memory and time of each Train node that has not run, whenever the graph has changed.

const PAUSE = 1200; // ms after the last change

export class Estimates {
  // `idle()`: [id, run] of each Train node without a run; `prompt()`: the graph as it would be queued.
  constructor(idle, prompt, client) {
    Object.assign(this, { idle, prompt, client });
    this.asked = new Map(); // id -> the prompt as text
    this.offered = true; // whether the server estimates
  }

  soon() {
    clearTimeout(this.timer);
    if (this.offered) this.timer = setTimeout(() => this.now(), PAUSE);
  }

  async now() {
    const waiting = this.idle();
    if (!waiting.length) return;
    const prompt = await this.prompt().catch(() => null);
    if (!prompt) return;
    const text = JSON.stringify(prompt);
    for (const [id, run] of waiting.filter(([id]) => prompt[id] && this.asked.get(id) !== text)) {
      this.asked.set(id, text);
      const answer = await this.client.estimate(prompt, id);
      if ([404, 405].includes(answer.status)) {
        this.offered = false;
        return;
      }
      if (this.asked.get(id) === text) run.estimated(answer.ok ? (answer.text ?? "") : "", answer.reason ?? "");
    }
  }
}
