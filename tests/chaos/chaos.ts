// `bun run chaos`: injects faults into every process and connection while clients submit, and checks every promise.

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { NAME } from '../../common/name.ts'
import { endWithUs } from '../../tools/infra/server.ts'
import { check } from './check/check.ts'
import { createPlan, describePlan } from './plan.ts'
import { missingForRealParts } from './real-parts.ts'
import { describeRun, toJson } from './report.ts'
import { runPlan } from './run-plan.ts'
import { missing, safeguards } from './safeguards.ts'

const usage = `bun run chaos [--minutes N] [--seed S] [--parts embedded|real] [--json FILE] [--keep] [--plan]
  --without ${safeguards.join('|')}   takes a safeguard out, to see that the checker finds it
  --plan   prints the faults that follow from the seed, and injects none
  --keep   keeps the run's folder: histories, logs, databases`

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
  console.error(`The real parts need ${lacking.join(' and ')}: install that first.`)
  process.exit(1)
}

const dir = mkdtempSync(join(tmpdir(), `${NAME}-chaos-`))
if (!values.keep) endWithUs({ folder: dir })
const run = await runPlan(plan, { dir, without, log: console.log })
const violations = check(run.snapshot)
console.log(describeRun(plan, run, violations))
if (values.json !== undefined) await Bun.write(values.json, toJson(plan, run, violations))
if (values.keep) {
  const text = JSON.stringify(run.snapshot, (_, each) => (each instanceof Map ? [...each] : each))
  await Bun.write(join(dir, 'snapshot.json'), text)
  console.log(`Everything is in ${dir}.`)
}
process.exit(violations.length === 0 ? 0 : 1)
