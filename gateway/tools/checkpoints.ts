import { checkpoints } from '../database/schema.ts'
import { CommandError, runCommand } from './command.ts'

const USAGE = `bun run checkpoints forget

After monitor's store was restored from an older copy, or begun anew, on purpose: gateway signs checkpoints of what is
there now. Those that were kept elsewhere go on telling what was there before.`

await runCommand((argv) => {
  if (argv.join(' ') !== 'forget') throw new CommandError(USAGE)
  return async ({ database, writer }) => {
    await writer.write([database.update(checkpoints).set({ forgotten: true })])
  }
})
