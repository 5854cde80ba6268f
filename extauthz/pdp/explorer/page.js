"use strict";
// Everything shown comes from schema/swagger.json; addresses are relative, so the page works behind a prefix.
// Text reaches the page as text nodes only: neither a document nor an answer can become markup.

const LARGE = 200_000; // characters of an answer that are coloured; more would make the page slow
const at = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// --- the document ------------------------------------------------------------------------------------------

let api;
const calls = new Map(); // operationId -> {path, method, operation}
const drafts = new Map(); // operationId -> what was typed, for as long as the page is open
let current;

async function load() {
  const answer = await fetch("schema/swagger.json", { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`the OpenAPI document came with status ${answer.status}`);
  api = await answer.json();
  at("version").textContent = api.info.version;
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods))
      calls.set(operation.operationId, { path, method: method.toUpperCase(), operation });
  showCalls();
  window.addEventListener("hashchange", () => choose(true));
  document.querySelector("main").hidden = false;
  choose(false);
}

function showCalls() {
  const nav = document.querySelector("nav");
  nav.replaceChildren();
  for (const tag of api.tags) {
    const found = [...calls].filter(([, { operation }]) => operation.tags.includes(tag.name));
    if (!found.length) continue;
    const links = found.map(([id, call]) => make("li", {}, link(id, call)));
    nav.append(make("h2", {}, tag.description), make("ul", {}, ...links));
  }
}

function link(id, { path, method, operation }) {
  const where = operation.deprecated ? `${path} · deprecated` : path;
  const badge = make("span", { class: "badge", "data-method": method }, method);
  return make("a", { href: `#${id}` }, badge, make("span", {}, operation.summary, make("small", {}, where)));
}

function choose(move) {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const id = calls.has(wanted) ? wanted : calls.keys().next().value;
  if (id === current) return;
  remember();
  current = id;
  show(id, calls.get(id));
  if (move) at("title").focus();
}

function remember() {
  if (!current) return;
  drafts.set(current, { body: at("body").value, example: at("example").value, parameters: parameters() });
}

// --- one call ----------------------------------------------------------------------------------------------

function show(id, { path, method, operation }) {
  for (const anchor of document.querySelectorAll("nav a"))
    if (anchor.hash === `#${id}`) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  document.title = `${operation.summary} · extauthz PDP API`;
  at("title").textContent = operation.summary;
  at("description").textContent = operation.description;
  Object.assign(at("method"), { textContent: method }).dataset.method = method;
  at("path").textContent = path;
  at("grpc").hidden = !operation["x-grpc-method"];
  at("grpc").lastElementChild.textContent = operation["x-grpc-method"] ?? "";
  showRequest(id, operation);
  at("answer").hidden = true;
  at("outcome").replaceChildren(make("span", { class: "quiet" }, "Nothing sent yet."));
  showFields(operation);
}

const bodyOf = (operation) => (operation.parameters ?? []).find((each) => each.in === "body");

function showRequest(id, operation) {
  const body = bodyOf(operation);
  const draft = drafts.get(id);
  const examples = Object.entries(body?.["x-examples"] ?? {});
  at("body-editor").hidden = at("format").hidden = !body;
  at("reset").hidden = at("examples").hidden = !examples.length;
  at("example").replaceChildren(...examples.map(([name]) => make("option", { value: name }, name)));
  if (draft?.example) at("example").value = draft.example;
  at("body").value = draft?.body ?? exampleText();
  const queries = (operation.parameters ?? []).filter((each) => each.in === "query");
  at("parameters").replaceChildren(...queries.map((each) => parameterRow(each, draft?.parameters[each.name])));
  check();
}

function parameterRow({ name, description }, value = "") {
  const input = make("input", { id: `parameter-${name}`, name, placeholder: "optional" });
  input.value = value;
  const label = make("label", { for: input.id, title: description }, name);
  return make("p", { class: "row" }, label, input);
}

const inputs = () => [...at("parameters").querySelectorAll("input")];
const parameters = () => Object.fromEntries(inputs().map((each) => [each.name, each.value]));

function exampleText() {
  const body = bodyOf(calls.get(current).operation);
  const chosen = body?.["x-examples"]?.[at("example").value];
  return chosen === undefined ? "" : pretty(JSON.stringify(chosen));
}

function check() {
  let problem = "";
  if (!at("body-editor").hidden) {
    try {
      JSON.parse(at("body").value);
    } catch (error) {
      problem = `Not JSON yet: ${error.message}`;
    }
  }
  at("problem").textContent = problem;
  at("body").setAttribute("aria-invalid", String(Boolean(problem)));
  return !problem;
}

// --- sending -----------------------------------------------------------------------------------------------

function address() {
  const { path } = calls.get(current);
  const url = new URL(path.slice(1), new URL(".", location.href));
  for (const [name, value] of Object.entries(parameters())) if (value) url.searchParams.set(name, value);
  return url;
}

function requestInit() {
  const { method, operation } = calls.get(current);
  if (!bodyOf(operation)) return { method };
  return { method, headers: { "content-type": "application/json" }, body: at("body").value };
}

let sent = 0;

async function send() {
  const ticket = ++sent;
  const call = current;
  at("send").disabled = true;
  at("outcome").replaceChildren(make("span", { class: "quiet busy" }, "Waiting for the answer …"));
  const began = performance.now();
  try {
    const answer = await fetch(address(), { ...requestInit(), cache: "no-store", credentials: "same-origin" });
    const text = await answer.text();
    if (ticket === sent && call === current) showAnswer(answer, text, performance.now() - began);
  } catch (error) {
    if (ticket === sent && call === current) showFailure(error);
  } finally {
    if (ticket === sent) at("send").disabled = false;
  }
}

function showFailure(error) {
  at("answer").hidden = true;
  at("outcome").replaceChildren(make("span", { class: "status bad" }, `No answer: ${error.message}`));
}

function showAnswer(answer, text, milliseconds) {
  const kind = answer.ok ? "good" : answer.status < 500 ? "warn" : "bad";
  const size = new TextEncoder().encode(text).length;
  at("outcome").replaceChildren(
    make("span", { class: `status ${kind}` }, `${answer.status} ${answer.statusText}`.trim()),
    make("span", { class: "quiet" }, `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`),
    make("span", { class: "quiet" }, size < 1024 ? `${size} bytes` : `${(size / 1024).toFixed(1)} KiB`),
  );
  at("answer-body").replaceChildren(...(looksLikeJson(answer) ? coloured(text) : [text]));
  at("answer-headers").replaceChildren(
    ...[...answer.headers].flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
  at("answer").hidden = false;
}

const looksLikeJson = (answer) => (answer.headers.get("content-type") ?? "").includes("json");

// Lays out the text itself, token by token: numbers and escapes stay as the server wrote them.
const TOKEN = /"(?:\\.|[^"\\])*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;
const CLOSING = { "{": "}", "[": "]" };
const WIDTH = 60; // a list or an object that fits is kept on one line

// A tree of tokens: a scalar is its token, a list or an object is {open, items}, an item [key or null, value].
function treeOf(tokens) {
  const token = tokens.next();
  if (!(token in CLOSING)) return token;
  const items = [];
  while (tokens.peek() !== CLOSING[token]) {
    let key = null;
    if (token === "{") [key] = [tokens.next(), tokens.next()];
    items.push([key, treeOf(tokens)]);
    if (tokens.peek() === ",") tokens.next();
  }
  tokens.next();
  return { open: token, items };
}

function reader(text) {
  const tokens = text.match(TOKEN) ?? [];
  let position = 0;
  return { next: () => tokens[position++], peek: () => tokens[position] };
}

function oneLine({ open, items }) {
  const space = open === "{" && items.length ? " " : "";
  const parts = items.map(([key, value]) => (key ? `${key}: ` : "") + (value.open ? oneLine(value) : value));
  return open + space + parts.join(", ") + space + CLOSING[open];
}

function fits(tree, before) {
  const flat = tree.items.every(([, value]) => !value.open || !value.items.length);
  return flat && tree.items.length < WIDTH && oneLine(tree).length + before <= WIDTH;
}

// Gives [class, text] pairs; `before` is how much stands before the tree in its line.
function* laidOut(tree, indent = 0, before = 0) {
  if (!tree.open) return yield [classOf(tree), tree];
  const inline = fits(tree, before);
  const space = tree.open === "{" && tree.items.length ? " " : "";
  yield ["", tree.open + (inline ? space : "")];
  for (const [index, [key, value]] of tree.items.entries()) {
    if (index) yield ["", inline ? ", " : ","];
    if (!inline) yield ["", `\n${" ".repeat(indent + 2)}`];
    if (key) yield* [["key", key], ["", ": "]];
    yield* laidOut(value, indent + 2, indent + 2 + (key ?? "").length);
  }
  yield ["", (inline ? space : `\n${" ".repeat(indent)}`) + CLOSING[tree.open]];
}

const pretty = (text) => [...laidOut(treeOf(reader(text)))].map(([, token]) => token).join("");

const WORDS = { '"EFFECT_ALLOW"': "allow", '"EFFECT_DENY"': "deny" };

function classOf(token) {
  if (token.startsWith('"')) return WORDS[token] ?? "text";
  return /^[-\d]/.test(token) ? "number" : "word";
}

function coloured(text) {
  try {
    JSON.parse(text);
    if (text.length > LARGE) return [pretty(text)];
    const parts = [...laidOut(treeOf(reader(text)))];
    return parts.map(([kind, token]) => (kind ? make("span", { class: kind }, token) : token));
  } catch { // not JSON, or nested too deep to be laid out
    return [text];
  }
}

// --- the fields --------------------------------------------------------------------------------------------

function showFields(operation) {
  const body = bodyOf(operation);
  const schemas = [
    ["Request", body?.schema],
    ["Answer", operation.responses["200"].schema],
    ["Error", operation.responses.default?.schema],
  ];
  const shown = schemas.filter(([, schema]) => schema);
  at("fields").replaceChildren(...shown.map(([title, schema], index) => {
    const tables = reachable(schema).map(([name, definition]) => table(name, definition));
    return make("details", index ? {} : { open: "" }, make("summary", {}, title), ...tables);
  }));
}

// Words in backticks become code.
const marked = (text) => text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

const nameOf = (reference) => reference.replace("#/definitions/", "");

function reachable(schema, seen = new Map()) {
  const reference = schema.$ref ?? schema.items?.$ref ?? schema.additionalProperties?.$ref;
  const name = reference && nameOf(reference);
  if (name && !seen.has(name)) {
    seen.set(name, api.definitions[name]);
    for (const property of Object.values(api.definitions[name].properties ?? {})) reachable(property, seen);
  }
  return [...seen];
}

function table(name, definition) {
  const must = new Set(definition.required ?? []);
  const rows = Object.entries(definition.properties ?? {}).map(([field, schema]) => make("tr", {},
    make("td", {}, make("code", must.has(field) ? { class: "must", title: "required" } : {}, field)),
    make("td", {}, make("code", {}, typeOf(schema))),
    make("td", {}, ...marked([schema.description, limits(schema)].filter(Boolean).join(" ")))));
  const head = make("tr", {}, ...["Field", "Type", "Meaning"].map((each) => make("th", { scope: "col" }, each)));
  const title = make("p", {}, make("code", { class: "quiet" }, name), " ", ...marked(definition.description ?? ""));
  if (!rows.length) return make("div", {}, title);
  const body = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  return make("div", { class: "table" }, title, body);
}

function typeOf(schema) {
  if (schema.$ref) return nameOf(schema.$ref).split(".").at(-1);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && schema.additionalProperties) return `map of ${typeOf(schema.additionalProperties)}`;
  return schema.type ?? "any JSON";
}

function limits(schema) {
  const { minItems, maxItems, uniqueItems, pattern } = schema;
  const said = [
    minItems && `at least ${minItems}`,
    maxItems && `at most ${maxItems}`,
    uniqueItems && "no duplicates",
    pattern && `matching \`${pattern}\``,
  ];
  const found = said.filter(Boolean).join(", ");
  return found && `(${found})`;
}

// --- tools -------------------------------------------------------------------------------------------------

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed by the browser";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl() {
  const { method, headers, body } = requestInit();
  const parts = ["curl", "-sS", "-X", method, quoted(address().href)];
  for (const [name, value] of Object.entries(headers ?? {})) parts.push("-H", quoted(`${name}: ${value}`));
  if (body !== undefined) parts.push("--data-binary", quoted(body));
  return parts.join(" ");
}

const THEMES = ["system", "light", "dark"];

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = `Theme: ${theme}`;
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  try { localStorage.setItem("theme", theme); } catch { /* a browser without storage forgets the choice */ }
  showTheme(theme);
}

function savedTheme() {
  try { return THEMES.find((each) => each === localStorage.getItem("theme")) ?? "system"; } catch { return "system"; }
}

showTheme(savedTheme());
at("theme").addEventListener("click", nextTheme);
at("body").addEventListener("input", check);
at("example").addEventListener("change", () => { at("body").value = exampleText(); check(); });
at("reset").addEventListener("click", () => { at("body").value = exampleText(); check(); at("body").focus(); });
at("format").addEventListener("click", () => {
  if (check()) at("body").value = pretty(at("body").value);
});
at("curl").addEventListener("click", (event) => copy(event.currentTarget, curl()));
at("copy").addEventListener("click", (event) => copy(event.currentTarget, at("answer-body").textContent));
at("request").addEventListener("submit", (event) => { event.preventDefault(); send(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !at("send").disabled) {
    event.preventDefault();
    send();
  }
});
load().catch((error) => {
  const told = make("p", { class: "problem" }, `Cannot show the calls: ${error.message}`);
  document.querySelector("nav").replaceChildren(told);
});
