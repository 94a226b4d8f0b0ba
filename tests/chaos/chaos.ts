// `bun run chaos`: hurts every process and connection while clients submit, and then looks whether a promise was broken.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { endWithUs } from '../../tools/infra/server.ts'
import { check } from './check/check.ts'
import { createPlan, describePlan } from './plan.ts'
import { missingForRealParts } from './real-parts.ts'
import { describeRun, toJson } from './report.ts'
import { runPlan } from './run.ts'
import { missing, safeguards } from './safeguards.ts'

const usage = `bun run chaos [--minutes N] [--seed S] [--parts embedded|real] [--json FILE] [--keep] [--plan]
  --without idempotency|offset-order|outbox|lease   take a safeguard out, to see that its absence is found
  --plan   print what the seed gives, and do nothing
  --keep   leave the run's folder: histories, logs, databases`

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    parts: { type: 'string', default: 'embedded' },
    json: { type: 'string' },
    without: { type: 'string' },
    plan: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
})
const minutes = Number(values.minutes)
const without = safeguards.find((name) => name === values.without)
const { parts, seed } = values
if (!(minutes > 0 && minutes <= 24 * 60) || (parts !== 'embedded' && parts !== 'real') || without !== values.without) {
  console.error(usage)
  process.exit(2)
}

const plan = createPlan({ parts, seed, lengthMs: minutes * 60_000, only: without && missing[without].faults })
console.log(describePlan(plan))
if (values.plan) process.exit(0)
const lacking = parts === 'real' ? missingForRealParts() : []
if (lacking.length > 0) {
  console.error(`To run on real parts, install ${lacking.join(' and ')}.`)
  process.exit(1)
}

const dir = mkdtempSync(join(tmpdir(), 'posta-chaos-'))
if (!values.keep) endWithUs({ folder: dir })
const run = await runPlan(plan, { dir, without, log: console.log })
const violations = check(run.snapshot)
console.log(describeRun(plan, run, violations))
if (values.json !== undefined) await Bun.write(values.json, toJson(plan, run, violations))
if (values.keep) {
  await Bun.write(
    join(dir, 'snapshot.json'),
    JSON.stringify(run.snapshot, (_, each) => (each instanceof Map ? [...each] : each)),
  )
  console.log(`Everything is in ${dir}.`)
}
process.exit(violations.length === 0 ? 0 : 1)
