// Vercel's AI SDK through both of its providers: text, streams, objects, tools.
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, streamText, tool } from 'ai';
import { z } from 'zod';
import { API_KEY, BASE_URL, CITIES, MODEL, NUM_CHAT_TOKENS, QUESTION, runChecks } from './checks.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;
const compatible = createOpenAICompatible({
  name: 'octavo', baseURL: BASE_URL, apiKey: API_KEY, includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const models = {
  compatible: compatible(MODEL),
  chat: openai.chat(MODEL),
  responses: openai.responses(MODEL),
};
const options = { prompt: QUESTION, temperature: 0, maxOutputTokens: 16, maxRetries: 0 };
const weather = tool({
  description: 'The weather.',
  inputSchema: z.object({ city: z.enum(CITIES) }),
});

const checks = {};
for (const [name, model] of Object.entries(models)) {
  checks[`${name}TextAndStream`] = async () => {
    const whole = await generateText({ model, ...options });
    assert.ok(whole.text.trim());
    assert.equal(whole.usage.inputTokens, NUM_CHAT_TOKENS);
    const stream = streamText({ model, ...options });
    let streamed = '';
    for await (const text of stream.textStream) streamed += text;
    assert.equal(streamed, whole.text);
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
    assert.equal(await stream.finishReason, whole.finishReason);
  };

  checks[`${name}Object`] = async () => {
    const schema = z.object({ city: z.enum(CITIES), large: z.boolean() });
    const answer = await generateText({
      model, ...options, maxOutputTokens: 60, output: Output.object({ schema }),
    });
    assert.ok(schema.safeParse(answer.output).success);
  };

  checks[`${name}Tools`] = async () => {
    const forced = { tools: { weather }, toolChoice: 'required', maxOutputTokens: 80 };
    const whole = await generateText({ model, ...options, ...forced });
    assert.ok(whole.toolCalls.length);
    for (const call of whole.toolCalls) {
      assert.equal(call.toolName, 'weather');
      assert.ok(CITIES.includes(call.input.city), JSON.stringify(call));
    }
    const stream = streamText({ model, ...options, ...forced });
    await stream.consumeStream();
    const streamed = await stream.toolCalls;
    assert.deepEqual(streamed.map((call) => call.input), whole.toolCalls.map((call) => call.input));
  };
}

checks.completion = async () => {
  const model = compatible.completionModel(MODEL);
  const answer = await generateText({ model, ...options, prompt: 'The capital of France is' });
  assert.ok(answer.text);
};

await runChecks(checks);
