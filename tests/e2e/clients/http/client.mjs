// node client.mjs URL: @cerbos/http, for answers.mjs.

import { HTTP } from "@cerbos/http";

import { answerLines } from "../answers.mjs";

const [url] = process.argv.slice(2);
await answerLines(new HTTP(url));
