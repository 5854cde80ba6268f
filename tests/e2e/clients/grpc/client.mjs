// node client.mjs HOST:PORT [CA]: @cerbos/grpc, for answers.mjs; with the file of a CA, over TLS.

import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";

import { GRPC } from "@cerbos/grpc";

import { answerLines } from "../answers.mjs";

const [target, ca] = process.argv.slice(2);
const tls = ca ? createSecureContext({ ca: readFileSync(ca) }) : false;
const client = new GRPC(target, { tls });
await answerLines(client);
client.close();
