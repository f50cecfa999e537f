// Creates a word_count task and watches it to its end over gRPC-Web with the fetch API, as a page in a
// browser would, and prints one line of JSON. The contract is read from a descriptor set, so that there
// is no generated code to keep current.
//
//     node word_count.js <base URL> <descriptor set> <text>

import { readFileSync } from "node:fs";

import { createFileRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const [baseUrl, descriptorSet, text] = process.argv.slice(2);
const deadline = { timeoutMs: 30_000 };

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet)));
const stateNames = registry.getEnum("meshq.v1.TaskState").value;
const tasks = createClient(registry.getService("meshq.v1.TaskService"), createGrpcWebTransport({ baseUrl }));

function stateName(task) {
  return stateNames[task.state].name.replace("TASK_STATE_", "");
}

async function watch(taskId) {
  const seen = { states: [], progress: 0 };
  for await (const { event } of tasks.watchTask({ taskId }, deadline)) {
    if (event.case === "task") {
      seen.states.push(stateName(event.value));
      seen.last = event.value;
    } else if (event.case === "progress") {
      seen.progress += 1;
    }
  }
  return seen;
}

const payload = { kind: { case: "stringValue", value: text } };
const task = { type: "word_count", input: { case: "payload", value: payload } };
const created = await tasks.createTask({ task }, deadline);
const { states, progress, last } = await watch(created.taskId);
const result = last.output.case === "result" ? toJson(ValueSchema, last.output.value) : null;
console.log(JSON.stringify({ task_id: created.taskId, states, progress, state: stateName(last), result }));
