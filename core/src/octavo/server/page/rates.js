// Rates out of the engine's counters.

const WINDOW_S = 1;
const HISTORY_S = 60;

/** Differences of counters over the last second, and the last minute of one rate. */
export class Rates {
  constructor() {
    this._samples = []; // {timeS, stats}, oldest first
    this.history = []; // {timeS, tokensPerS}
  }

  /** Takes a state; one from before the last (the server began anew) starts over. */
  take({ time_s: timeS, stats }) {
    const last = this._samples.at(-1);
    if (last && (timeS < last.timeS || stats.num_steps < last.stats.num_steps)) {
      this._samples = [];
      this.history = [];
    }
    this._samples.push({ timeS, stats });
    while (this._samples.length > 2 && timeS - this._samples[1].timeS >= WINDOW_S) {
      this._samples.shift();
    }
    this.history.push({ timeS, tokensPerS: this.of("num_generated_tokens") });
    while (timeS - this.history[0].timeS > HISTORY_S) this.history.shift();
  }

  /** How fast a counter grows, a second; 0 while there is one sample only. */
  of(counter) {
    const [first, last] = [this._samples[0], this._samples.at(-1)];
    const seconds = last.timeS - first.timeS;
    return seconds > 0 ? (last.stats[counter] - first.stats[counter]) / seconds : 0;
  }
}

export { HISTORY_S };
