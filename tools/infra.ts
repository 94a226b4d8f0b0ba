/** `bun run infra [--native]`: the real broker and document store on this machine, until Ctrl-C. Their data stays. */
import { parseArgs } from 'node:util'
import { composeCommand } from './infra/compose.ts'
import { missingTools, type Parts, startParts } from './infra/parts.ts'

const { values } = parseArgs({ options: { native: { type: 'boolean', default: false } } })
const asked = Promise.withResolvers<void>()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => asked.resolve())
// A signal's listener alone does not keep the process up.
const stayUp = setInterval(() => {}, 1 << 30)

try {
  const missing = values.native || !composeCommand() ? missingTools() : []
  if (missing.length > 0) {
    const instead = values.native ? '' : ' (or start Docker, which needs none of them)'
    throw new Error(`To run the real parts, install ${missing.join(' and ')}${instead}.`)
  }
  const parts = await startParts({ temporary: false, native: values.native })
  console.log(howToUse(parts))
  await asked.promise
  console.log('Stopping.')
  await parts.stop()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
} finally {
  clearInterval(stayUp)
}

function howToUse({ what, brokerUrl, mongoUrl }: Parts): string {
  const database = (name: string) => mongoUrl?.replace(/\/(\?|$)/, `/${name}$1`)
  return `${what}.

For the services (\`bun run start\`, \`bun run dev\`):
export BROKER_URL='${brokerUrl}'
export PROCESSOR_STORE_URL='${database('posta_processor')}'
export MONITOR_STORE_URL='${database('posta_monitor')}'

For the tests (\`bun test\`):
export TEST_BROKER_URL='${brokerUrl}'
export TEST_MONGO_URL='${mongoUrl}'

Ctrl-C stops them; their data stays.`
}
