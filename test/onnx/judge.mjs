#!/usr/bin/env node
// judge.mjs LEVEL BASE=ATOL:FLIPS... -- runs many models in one process of ONNX Runtime: BASE.onnx on BASE.in.npy against
// BASE.want.npy at the optimisation level; FLIPS rows may differ by more. A line for each; exit status 1 when one differs or is refused,
// 77 when onnxruntime-node is not installed. For one model, and for looking into it: onnx-run.mjs.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { npyDecode, compare } from './onnx-run.mjs';

const here = path.dirname(fs.realpathSync(process.argv[1]));
let ort;
for (const home of [process.env.ONNX_RUN_HOME, here].filter(Boolean)) {
  try { ort ??= createRequire(path.join(path.resolve(home), 'x.js'))('onnxruntime-node'); } catch (e) { console.log(`# ${home}: ${e.code ?? e.message}`); }
}
if (!ort) { console.log('onnxruntime-node is not installed'); process.exit(77); }

const [level, ...cases] = process.argv.slice(2);
// Rows (images) that hold a difference beyond atol, or a NaN.
function differing(got, want, atol) {
  const n = got.dims[0], per = got.data.length / n, close = (a, b) => a === b || Math.abs(Number(a) - Number(b)) <= atol;
  return [...Array(n).keys()].filter(r => !got.data.subarray(r * per, (r + 1) * per).every((a, i) => close(a, want.data[r * per + i])));
}

let failed = 0;
for (const spec of cases) {
  const at = spec.lastIndexOf('='), base = spec.slice(0, at), atol = parseFloat(spec.slice(at + 1)), name = path.basename(base), flips = Number(spec.slice(at + 1).split(':')[1] ?? 0);
  try {
    // u8 x s8 products saturate on processors without VNNI otherwise
    const session = await ort.InferenceSession.create(`${base}.onnx`, { executionProviders: ['cpu'], intraOpNumThreads: 1,
      graphOptimizationLevel: level, logSeverityLevel: 3, extra: { session: { x64quantprecision: '1' } } });
    const read = what => npyDecode(fs.readFileSync(`${base}.${what}.npy`), `${base}.${what}.npy`);
    const x = read('in'), want = read('want');
    const { output } = await session.run({ input: new ort.Tensor(x.type, x.data, x.dims) });
    const got = { type: output.type, dims: [...output.dims], data: output.data };
    const c = compare(got, want, atol, 0);
    const rows = c.reason ? [] : differing(got, want, atol);
    const ok = !c.reason && rows.length <= flips && got.type === want.type;
    failed += !ok;
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}: ${c.reason ?? `${flips ? `${rows.length} of ${got.dims[0]} images, ` : ''}${c.mismatches} of ${c.elements} differ, largest difference ${c.max_abs}, ${c.types}`}`);
  } catch (e) { failed++; console.log(`FAIL ${name}: ${e.message}`); }
}
process.exitCode = failed ? 1 : 0;
