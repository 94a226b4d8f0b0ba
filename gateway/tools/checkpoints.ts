import { CommandError } from '@posta/common/service/command.ts'
import { eventsOf, forgetCheckpoint } from '../audit/checkpoints.ts'
import { runCommand } from './command.ts'

const USAGE = `bun run checkpoints forget

For after you replaced monitor's store, or restored an older copy of it, on purpose: gateway forgets its last checkpoint, and
signs what the store has now. Checkpoints that were kept elsewhere still show what it had before.`

await runCommand((argv) => {
  if (argv.join(' ') !== 'forget') throw new CommandError(USAGE)
  return async (opened) => {
    const forgotten = await forgetCheckpoint(opened)
    console.log(
      forgotten
        ? `The checkpoint of ${new Date(forgotten.atMs).toISOString()} (${eventsOf(forgotten)}) is forgotten.
A gateway that runs signs a new one within seconds, as soon as monitor has an event.`
        : 'There is no checkpoint to forget: gateway has signed none, or none since the last one was forgotten.',
    )
  }
})
