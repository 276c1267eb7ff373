// What the scripts share: where the server is, what is asked, how checks are run.
import assert from 'node:assert/strict';

export const ROOT_URL = process.env.OCTAVO_CLIENT_URL;
export const BASE_URL = `${ROOT_URL}/v1`;
export const API_KEY = process.env.OCTAVO_CLIENT_API_KEY;
export const MODEL = process.env.OCTAVO_CLIENT_MODEL;
export const QUESTION = 'What is the capital of France?';
export const NUM_CHAT_TOKENS = 16; // as in ../client_checks.py
export const CITIES = ['Paris', 'London', 'Rome'];
export const UNITS = ['celsius', 'fahrenheit'];
export const WEATHER_PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string', enum: CITIES }, unit: { type: 'string', enum: UNITS } },
  required: ['city', 'unit'],
  additionalProperties: false,
};

export const ask = (content = QUESTION) => [{ role: 'user', content }];

export function isWeather(values) {
  assert.deepEqual(Object.keys(values).sort(), ['city', 'unit']);
  assert.ok(CITIES.includes(values.city), values.city);
  assert.ok(UNITS.includes(values.unit), values.unit);
}

export async function runChecks(checks) {
  const failed = [];
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`passed ${name}`);
    } catch (error) {
      failed.push(name);
      console.log(`FAILED ${name}\n${error.stack}`);
    }
  }
  const total = Object.keys(checks).length;
  console.log(`${total - failed.length} of ${total} checks passed`);
  process.exitCode = failed.length ? 1 : 0;
}
