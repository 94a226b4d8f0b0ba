/** `bun run infra [--native]`: the real broker and document store on this machine, until Ctrl-C. Their data stays. */
import { parseArgs } from 'node:util'
import { fileUrl } from '../common/service/file-url.ts'
import { onStopSignal } from '../common/service/stop-signal.ts'
import { composeCommand } from './infra/compose.ts'
import { missingTools, type Parts, startParts } from './infra/parts.ts'

const { values } = parseArgs({ options: { native: { type: 'boolean', default: false } } })
const stopped = Promise.withResolvers<void>()
onStopSignal(stopped.resolve)
process.on('SIGHUP', () => stopped.resolve())
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
  await stopped.promise
  console.log('Stopping.')
  await parts.stop()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
} finally {
  clearInterval(stayUp)
}

function howToUse({ what, brokerUrl, mongoUrl, dataDir }: Parts): string {
  const database = (name: string) => mongoUrl?.replace(/\/(\?|$)/, `/${name}$1`)
  return `${what}.

For the services (\`bun run dev\`, \`bun run start\`) and for \`bun run users\` and its like:
export BROKER_URL='${brokerUrl}'
export DATABASE_URL='${fileUrl(dataDir, 'gateway.db')}'
export PROCESSOR_STORE_URL='${database('posta_processor')}'
export MONITOR_STORE_URL='${database('posta_monitor')}'

For the tests (\`bun test\`):
export TEST_BROKER_URL='${brokerUrl}'
export TEST_MONGO_URL='${mongoUrl}'

Ctrl-C stops them; their data stays.`
}
