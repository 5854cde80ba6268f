// Asks a client what the lines of standard input say, one JSON object a line, and writes an answer for each.

import { createInterface } from "node:readline";

const CALLS = {
  checkResources: (client, request) => client.checkResources(request),
  isAllowed: (client, request) => client.isAllowed(request),
  isAllowedWithPrincipal: (client, { principal, auxData, ...request }) =>
    client.withPrincipal(principal, auxData).isAllowed(request),
  planResources: (client, request) => client.planResources(request),
  serverInfo: (client) => client.serverInfo(),
  checkHealth: (client, request) => client.checkHealth(request),
};

async function answer(client, { call, request }) {
  try {
    return { answer: await CALLS[call](client, request) };
  } catch (error) {
    const { name, code, message, details, validationErrors } = error;
    return { error: { name, code, message, details, validationErrors } };
  }
}

export async function answerLines(client) {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(client, JSON.parse(line))));
  }
}
