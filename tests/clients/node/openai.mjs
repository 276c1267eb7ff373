// OpenAI's Node client: chat, streams, tools, schemas, completions, responses, errors.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import {
  API_KEY, BASE_URL, CITIES, MODEL, NUM_CHAT_TOKENS, QUESTION, WEATHER_PARAMETERS, ask, isWeather,
  runChecks,
} from './checks.mjs';

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const tool = { name: 'get_weather', description: 'The weather.', parameters: WEATHER_PARAMETERS };
const tools = [{ type: 'function', function: tool }];
const options = { model: MODEL, messages: ask(), temperature: 0, max_tokens: 12 };
const create = (more) => client.chat.completions.create({ ...options, ...more });

await runChecks({
  async chatAndStream() {
    const whole = await create();
    const text = whole.choices[0].message.content;
    assert.ok(text.trim());
    assert.equal(whole.usage.prompt_tokens, NUM_CHAT_TOKENS);
    let streamed = '';
    let usage;
    const asked = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await create(asked)) {
      streamed += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    assert.equal(streamed, text);
    assert.equal(usage.total_tokens, whole.usage.total_tokens);
    const helper = client.chat.completions.stream(options);
    assert.equal(await helper.finalContent(), text);
  },

  async tools() {
    const forced = {
      messages: ask('The weather in Rome?'), tools, tool_choice: 'required', max_tokens: 80,
      parallel_tool_calls: false,
    };
    const whole = await create(forced);
    const [call] = whole.choices[0].message.tool_calls;
    assert.equal(whole.choices[0].finish_reason, 'tool_calls');
    assert.equal(call.function.name, 'get_weather');
    isWeather(JSON.parse(call.function.arguments));
    const stream = client.chat.completions.stream({ ...options, ...forced });
    const streamed = await stream.finalFunctionToolCall();
    assert.deepEqual(JSON.parse(streamed.arguments), JSON.parse(call.function.arguments));
  },

  async schema() {
    const City = z.object({ city: z.enum(CITIES), large: z.boolean() });
    const answer = await client.chat.completions.parse({
      ...options, max_tokens: 60, response_format: zodResponseFormat(City, 'city'),
    });
    assert.ok(City.safeParse(answer.choices[0].message.parsed).success);
  },

  async completions() {
    const asked = { model: MODEL, prompt: 'The capital of France is', temperature: 0, max_tokens: 6 };
    const whole = await client.completions.create(asked);
    let streamed = '';
    for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
      streamed += chunk.choices[0]?.text ?? '';
    }
    assert.equal(streamed, whole.choices[0].text);
    assert.ok(streamed);
  },

  async responses() {
    const asked = { model: MODEL, input: QUESTION, temperature: 0, max_output_tokens: 16 };
    const whole = await client.responses.create(asked);
    assert.ok(whole.output_text.trim());
    const stream = client.responses.stream(asked);
    let streamed = '';
    stream.on('response.output_text.delta', (event) => { streamed += event.delta; });
    const final = await stream.finalResponse();
    assert.equal(streamed, whole.output_text);
    assert.equal(final.output_text, whole.output_text);
  },

  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, [MODEL]);
  },

  async errors() {
    await assert.rejects(create({ temperature: 9 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, 'temperature');
      return true;
    });
    await assert.rejects(create({ model: 'unknown' }), OpenAI.NotFoundError);
    const stranger = new OpenAI({ baseURL: BASE_URL, apiKey: 'wrong', maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },

  async aborting() {
    const controller = new AbortController();
    const long = { ...options, max_tokens: 400, stream: true, ignore_eos: true };
    const stream = await client.chat.completions.create(long, { signal: controller.signal });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      controller.abort();
    }
  },
});
