// node explorer.mjs CHROMIUM URL FOLDER: uses the explorer page as a person would; says as JSON what was seen.

import puppeteer from "puppeteer-core";

const [chromium, url, folder] = process.argv.slice(2);
// Chromium's own sandbox does not work for root, as whom tests run in containers; the page is our own.
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });

const page = await browser.newPage();
const seen = { requests: [], complaints: [], steps: {} };
page.on("request", (request) => seen.requests.push(request.url()));
page.on("console", (message) => seen.complaints.push(message.text()));
page.on("pageerror", (error) => seen.complaints.push(error.message));

const text = (selector) => page.$eval(selector, (element) => element.textContent.trim());
const value = (selector) => page.$eval(selector, (element) => element.value);
const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
const colours = () => page.evaluate(() => {
  const { color, backgroundColor } = getComputedStyle(document.body);
  return { color, backgroundColor };
});
const shot = (name) => page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

async function send() {
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await page.waitForSelector("#answer:not([hidden])");
  await page.waitForFunction(() => !document.getElementById("send").disabled);
  return {
    outcome: await text("#outcome"),
    body: JSON.parse(await text("#answer-body")),
    allowed: await page.$$eval("#answer-body .allow", (found) => found.length),
    denied: await page.$$eval("#answer-body .deny", (found) => found.length),
  };
}

async function type(body) {
  await page.$eval("#body", (element, given) => {
    element.value = given;
    element.dispatchEvent(new Event("input"));
  }, body);
}

await page.setViewport({ width: 1280, height: 900 });
await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
await page.goto(url, { waitUntil: "networkidle0" });
seen.steps.calls = await page.$$eval("nav a", (found) => found.map((link) => link.getAttribute("href")));
seen.steps.light = await colours();

// by keyboard alone: past the link that skips, the links of the header, to the second call
seen.steps.order = [];
for (let step = 0; step < 5; step += 1) {
  await page.keyboard.press("Tab");
  seen.steps.order.push(await focused());
}
await page.keyboard.press("Enter");
await page.waitForFunction(() => location.hash === "#CerbosService_PlanResources");
seen.steps.afterEnter = { title: await text("#title"), focus: await focused() };
seen.steps.plan = await send();

// an example, changed, sent; and what is no JSON
await page.goto(`${url}#CerbosService_CheckResources`);
await page.select("#example", "Two resources, with the reasons");
await type((await value("#body")).replaceAll("expense", "document").replaceAll("ownerId", "owner"));
seen.steps.check = await send();
await shot("light");
await type("{");
seen.steps.broken = { problem: await text("#problem"), invalid: await page.$eval("#body", (each) => each.ariaInvalid) };
seen.steps.refused = await send();
await type('{"principal": {"id": "<img src=x onerror=alert(1)>", "roles": ["a"]}, "<b>": 1}');
seen.steps.markup = { ...(await send()), images: (await page.$$("img")).length };
await page.click("#reset");
await page.click("#format");
seen.steps.reset = JSON.parse(await value("#body"));

// what was typed is there again after a look at another call; a call without a body
await type('{"requestId": "kept"}');
await page.goto(`${url}#Health_Check`);
await page.type("#parameter-service", "cerbos.svc.v1.CerbosService");
seen.steps.health = await send();
await page.goto(`${url}#CerbosService_CheckResources`);
seen.steps.kept = await value("#body");

// light and dark
await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
seen.steps.dark = await colours();
await shot("dark");
await page.click("#theme");
seen.steps.forcedLight = { ...(await colours()), label: await text("#theme") };
await page.reload({ waitUntil: "networkidle0" });
seen.steps.remembered = await text("#theme");
await page.setViewport({ width: 400, height: 800 });
seen.steps.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
await shot("narrow");

// what the policy of the page forbids
seen.steps.forbidden = await page.evaluate(async (elsewhere) => {
  const script = document.createElement("script");
  let trusted;
  try {
    script.text = "window.ran = true";
    document.body.append(script);
    trusted = "accepted";
  } catch (error) {
    trusted = error.name;
  }
  const connected = await fetch(elsewhere).then(() => "answered", () => "refused");
  return { trusted, ran: Boolean(window.ran), connected };
}, "http://127.0.0.1:9/");

await browser.close();
console.log(JSON.stringify(seen));
