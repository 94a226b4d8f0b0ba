import { ConfigError } from './config.ts'
import { Problem } from './problem.ts'

/** A mistake of the person who typed the command. Only its message is shown. */
export class CommandError extends Error {}

/**
 * Runs a command to its end. A failure is shown on standard error, with exit code 1: one message where people can put it
 * right, any other error as it is.
 * @example
 * await asCommand(() => rotate(process.argv.slice(2)))
 */
export async function asCommand(work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    console.error(shown(error))
    process.exitCode = 1
  }
}

function shown(error: unknown): unknown {
  if (error instanceof CommandError || error instanceof ConfigError) return error.message
  if (!(error instanceof Problem)) return error
  return (
    error.errors?.map(({ pointer, detail }) => `${pointer.replace('#/', '')} ${detail}`).join('\n') ?? error.message
  )
}
