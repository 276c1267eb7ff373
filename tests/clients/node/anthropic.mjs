// Anthropic's Node client: messages, streams, tools, token counts, errors.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import {
  API_KEY, MODEL, NUM_CHAT_TOKENS, ROOT_URL, WEATHER_PARAMETERS, ask, isWeather, runChecks,
} from './checks.mjs';

const client = new Anthropic({ baseURL: ROOT_URL, apiKey: API_KEY, maxRetries: 0 });
const options = { model: MODEL, messages: ask(), max_tokens: 12, temperature: 0 };
const tool = {
  name: 'get_weather', description: 'The weather.', input_schema: WEATHER_PARAMETERS,
};
const create = (more) => client.messages.create({ ...options, ...more });
const textOf = (message) => message.content.map((block) => block.text ?? '').join('');

await runChecks({
  async messageAndStream() {
    const whole = await create();
    assert.ok(textOf(whole).trim());
    assert.equal(whole.usage.input_tokens, NUM_CHAT_TOKENS);
    const stream = client.messages.stream(options);
    let streamed = '';
    stream.on('text', (text) => { streamed += text; });
    const final = await stream.finalMessage();
    assert.equal(streamed, textOf(whole));
    assert.equal(final.stop_reason, whole.stop_reason);
    assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  },

  async tools() {
    const forced = {
      messages: ask('The weather in Rome?'), tools: [tool], max_tokens: 80,
      tool_choice: { type: 'any', disable_parallel_tool_use: true },
    };
    const whole = await create(forced);
    const [call] = whole.content.filter((block) => block.type === 'tool_use');
    isWeather(call.input);
    const final = await client.messages.stream({ ...options, ...forced }).finalMessage();
    const [streamed] = final.content.filter((block) => block.type === 'tool_use');
    assert.deepEqual(streamed.input, call.input);
    assert.equal(final.stop_reason, 'tool_use');
  },

  async counts() {
    const count = await client.messages.countTokens({ model: MODEL, messages: ask() });
    assert.equal(count.input_tokens, NUM_CHAT_TOKENS);
  },

  async errors() {
    await assert.rejects(create({ messages: [] }), Anthropic.BadRequestError);
    await assert.rejects(create({ model: 'unknown' }), Anthropic.NotFoundError);
  },
});
