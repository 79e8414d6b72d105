// A bot over Node's zeromq: asks for each row in every shape, reports a trade, prints all replies.
// usage: node bot.js PREDICT_ENDPOINT ROWS.json
"use strict";
const fs = require("fs");
const zmq = require("zeromq");

const [endpoint, file] = process.argv.slice(2);
const { model, names, rows } = JSON.parse(fs.readFileSync(file, "utf8"));

async function ask(socket, message, ...frames) {
  await socket.send([JSON.stringify(message), ...frames]);
  const [body, ...rest] = await socket.receive();
  return { ...JSON.parse(body), frames: rest.map((frame) => frame.toString("base64")) };
}

async function main() {
  const dealer = new zmq.Dealer({ linger: 0, receiveTimeout: 5000 });
  const request = new zmq.Request({ linger: 0, receiveTimeout: 5000 });
  dealer.connect(endpoint);
  request.connect(endpoint);
  const seen = { by_name: [], listed: [], errors: [] };
  seen.welcome = await ask(dealer, { op: "hello", id: "h" });
  seen.models = await ask(request, { op: "models", id: "m" });
  const named = (row) => Object.fromEntries(names.map((name, place) => [name, row[place]]));
  for (const [index, row] of rows.entries()) {
    const base = { v: 1, op: "predict", id: String(index), model };
    seen.by_name.push(await ask(request, { ...base, features: named(row) }));
    seen.listed.push(await ask(dealer, { ...base, features: row }));
  }
  const tensor = Buffer.from(Float32Array.from(rows.flat()).buffer);
  const shape = [rows.length, names.length];
  seen.tensor = await ask(dealer, { op: "predict", id: "t", model, tensor: shape }, tensor);
  const first = named(rows[0]);
  for (const features of [{ ...first, extra: 1 }, { [names[0]]: 1 }, { ...first, [names[0]]: null }]) {
    seen.errors.push(await ask(dealer, { op: "predict", id: "e", model, features }));
  }
  seen.several = await ask(dealer, { op: "predict", models: [model, "nothing"], features: first });
  const feedback = new zmq.Dealer({ linger: 0, receiveTimeout: 5000 });
  feedback.connect(seen.welcome.endpoints.feedback);
  const { prediction_id, build } = seen.by_name[0];
  seen.ack = await ask(feedback, {
    op: "outcome", id: "o", bot: "node", run: "1", trade: "1", seq: 1, status: "closed", final: true,
    prediction_id, build, pnl: 1.5, currency: "USD", closed_at: 1742860800000,
  });
  console.log(JSON.stringify(seen));
  for (const socket of [dealer, request, feedback]) socket.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
